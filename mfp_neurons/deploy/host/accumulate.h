/* Codes times what a place sees, for a block of channels. The loops in which the time goes are COUNT_WORDS and MULTIPLY_BYTES, the
 * kernels of an instruction set. */
#ifndef MFP_ACCUMULATE_H
#define MFP_ACCUMULATE_H

#include "rows.h"

/* acc[step][channel] += weights * values, which may be too large for a byte. Blocks are whole: a vector of bytes holds
 * many channels. */
UNROLLED void multiply_steps(const RowView *view, const int8_t *weights, uint32_t *acc, const int steps)
{
    const int32_t *values = view->values;
    for (int64_t r = 0; r < view->rows; r += ROWS, values += ROWS * steps) {
        const int8_t *row[ROWS];
        for (int i = 0; i < ROWS; i++) row[i] = weights + view->row[r + i] * BLOCK;
#pragma omp simd
        for (int c = 0; c < BLOCK; c++) {
            for (int s = 0; s < steps; s++) {
                int32_t sum = 0;
                for (int i = 0; i < ROWS; i++) sum += row[i][c] * values[i * steps + s];
                acc[s * BLOCK + c] += (uint32_t)sum;
            }
        }
    }
}

static void count(const Synapse *synapse, const RowView *view, const word *weights, int64_t lanes, int plane,
                  uint32_t *acc)
{
    for (int s = 0; synapse->base && s < view->steps; s++) {
        const uint32_t start = (uint32_t)synapse->base * (uint32_t)view->ones[s] << plane;
        for (int64_t c = 0; c < lanes; c++) acc[s * BLOCK + c] += start;
    }
    for (int64_t p = 0; p < synapse->planes; p++, weights += synapse->rows * lanes) {
        const uint32_t scale = (uint32_t)synapse->plane_weight[p] << plane;
        switch (view->steps) {
        case 1: COUNT_WORDS(view, weights, lanes, scale, acc, 1); break;
        case 2: COUNT_WORDS(view, weights, lanes, scale, acc, 2); break;
        case 3: COUNT_WORDS(view, weights, lanes, scale, acc, 3); break;
        default: COUNT_WORDS(view, weights, lanes, scale, acc, TOGETHER); break;
        }
    }
}

static void multiply_bytes(const RowView *view, const int8_t *weights, int64_t lanes, uint32_t *acc)
{
    switch (view->steps) {
    case 1: MULTIPLY_BYTES(view, weights, lanes, acc, 1); break;
    case 2: MULTIPLY_BYTES(view, weights, lanes, acc, 2); break;
    case 3: MULTIPLY_BYTES(view, weights, lanes, acc, 3); break;
    default: MULTIPLY_BYTES(view, weights, lanes, acc, TOGETHER); break;
    }
}

static void multiply(const RowView *view, const int8_t *weights, uint32_t *acc)
{
    switch (view->steps) {
    case 1: multiply_steps(view, weights, acc, 1); break;
    case 2: multiply_steps(view, weights, acc, 2); break;
    case 3: multiply_steps(view, weights, acc, 3); break;
    default: multiply_steps(view, weights, acc, TOGETHER); break;
    }
}

/* Every channel has source channels of its own: those that `index` names, or the one of its own number. */
static void multiply_groups(const Synapse *synapse, const RowView *view, const Map *source, const int8_t *weights,
                            int64_t block, uint32_t *acc)
{
    const int64_t width = source->words * BLOCK, channels = (synapse->channels + BLOCK - 1) / BLOCK * BLOCK;
    const int64_t window = places(&synapse->window);
    for (int s = 0; s < view->steps; s++, acc += BLOCK) {
        const int8_t *row = weights;
        for (int64_t place = 0; place < window; place++) {
            const int32_t *numbers = (const int32_t *)view->values + (s * window + place) * width;
            for (int64_t i = 0; i < synapse->inner; i++, row += BLOCK) {
                const int32_t *index = synapse->index + i * channels + block * BLOCK;
                if (synapse->aligned)
                    for (int c = 0; c < BLOCK; c++) acc[c] += (uint32_t)(row[c] * numbers[block * BLOCK + c]);
                else
                    for (int c = 0; c < BLOCK; c++) acc[c] += (uint32_t)(row[c] * numbers[index[c]]);
            }
        }
    }
}

static inline int64_t lanes_of(int64_t channels, int64_t block)
{
    const int64_t left = channels - block * BLOCK;
    return left >= BLOCK ? BLOCK : (left + VECTOR - 1) / VECTOR * VECTOR;
}

/* Adds to acc[step][channel of the block], from what was gathered of `steps` steps. */
static void accumulate(const Synapse *synapse, const Map *source, RowView **views, int64_t steps, int64_t block,
                       uint32_t *acc)
{
    const int64_t planes = view_planes(synapse, source), lanes = lanes_of(synapse->channels, block);
    for (int64_t done = 0; done < steps; done += TOGETHER, acc += TOGETHER * BLOCK) {
        for (int plane = 0; plane < planes; plane++) {
            const RowView *view = *views++;
            const int64_t first = block * BLOCK * synapse->rows;
            if (synapse->kind == COUNT)
                count(synapse, view, (const word *)synapse->weights + first * synapse->planes, lanes, plane, acc);
            else if (synapse->kind == BYTES)
                multiply_bytes(view, (const int8_t *)synapse->weights + first * QUAD, lanes, acc);
            else if (synapse->kind == MULTIPLY)
                multiply(view, (const int8_t *)synapse->weights + first, acc);
            else
                multiply_groups(synapse, view, source, (const int8_t *)synapse->weights + first, block, acc);
        }
    }
}

#endif
