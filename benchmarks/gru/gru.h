/* A gated recurrent unit with a linear read-out, in 32-bit floats. */
#ifndef GRU_H
#define GRU_H

#include <stdint.h>

#include "weights.h" /* GRU_INPUTS, GRU_WIDTH, GRU_CLASSES, and the weights */

void gru_reset(void);
void gru_step(const uint8_t frame[GRU_INPUTS]);
void gru_scores(float scores[GRU_CLASSES]);

#endif
