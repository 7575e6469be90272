/* Prints, for every sample, the bits of the scores behind its last frame, in hexadecimal; then the ticks that all
 * samples took, those of the last frame with its scores, and the stack that was used. */
#include "board.h"
#include "gru.h"
#include "samples.h" /* SAMPLES, FRAMES, samples */

static void print_number(uint64_t number)
{
    static char line[17] = "0123456789abcdef";
    for (uint32_t digit = 0; digit < 16; digit++) {
        const uint32_t four = (uint32_t)(number >> (60 - 4 * digit)) & 15;
        line[digit] = (char)(four < 10 ? '0' + four : 'a' + four - 10);
    }
    print(line);
    print("\n");
}

int main(void)
{
    uint64_t all = 0, last = 0;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        float scores[GRU_CLASSES];
        gru_reset();
        for (uint32_t t = 0; t < FRAMES; t++) {
            timer_start();
            gru_step(samples[i] + t * GRU_INPUTS);
            if (t == FRAMES - 1) gru_scores(scores);
            last = timer_ticks();
            all += last;
        }
        for (uint32_t c = 0; c < GRU_CLASSES; c++) {
            const union { float value; uint32_t bits; } score = {scores[c]};
            print_number(score.bits);
        }
    }
    print_number(all);
    print_number(last);
    print_number(stack_used());
    return 0;
}
