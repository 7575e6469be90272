/* The smallest program around the network: what the linker says of it is what a device needs. */
#include "gru.h"

uint8_t frame[GRU_INPUTS]; /* a driver fills it */
float scores[GRU_CLASSES];

int main(void)
{
    int best = 0;
    gru_step(frame);
    gru_scores(scores);
    for (int c = 1; c < GRU_CLASSES; c++)
        if (scores[c] > scores[best]) best = c;
    return best;
}
