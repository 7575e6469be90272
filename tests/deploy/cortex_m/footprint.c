/* The smallest program around a network: what the linker says of it is what a device needs. */
#include "net.h"

#ifdef STREAM
uint8_t input[NET_STEP_INPUT_BYTES]; /* a driver fills it */
int64_t scores[NET_CLASSES];
net_stream stream;
#else
uint8_t input[NET_INPUT_BYTES];
int64_t scores[NET_SCORES];
net_buffers buffers;
#endif

int main(void)
{
#ifdef STREAM
    net_step(&stream, input, scores);
#else
    net_run(&buffers, input, scores);
#endif
    return (int)net_argmax(scores);
}
