/* Prints, for every sample, the scores of a run and of each step of a stream that has any, in hexadecimal; then the
 * ticks that all runs, all steps and the last step took, and the stack that was used. */
#include "board.h"
#include "net.h"
#include "samples.h" /* SAMPLES, samples */

static int64_t whole[NET_SCORES], step[NET_CLASSES];
static net_buffers buffers;
static net_stream stream;

static void print_scores(const int64_t *scores, uint32_t count)
{
    static char line[17] = "0123456789abcdef";
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t digit = 0; digit < 16; digit++) {
            const uint32_t four = (uint32_t)((uint64_t)scores[i] >> (60 - 4 * digit)) & 15;
            line[digit] = (char)(four < 10 ? '0' + four : 'a' + four - 10);
        }
        print(line);
        print("\n");
    }
}

int main(void)
{
    const uint32_t stride = NET_INPUT_BYTES > NET_STEP_INPUT_BYTES ? NET_STEP_INPUT_BYTES / sizeof samples[0][0] : 0;
    int64_t took[4] = {0, 0, 0, 0};
    for (uint32_t i = 0; i < SAMPLES; i++) {
        timer_start();
        net_run(&buffers, samples[i], whole);
        took[0] += timer_ticks();
        print_scores(whole, NET_SCORES);
        net_reset(&stream);
        for (uint32_t t = 0; t < NET_STEPS; t++) {
            timer_start();
            const int scored = net_step(&stream, samples[i] + t * stride, step);
            took[2] = timer_ticks();
            took[1] += took[2];
            if (scored) print_scores(step, NET_CLASSES);
        }
    }
    took[3] = stack_used();
    print_scores(took, 4);
    return 0;
}
