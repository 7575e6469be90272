/* The kernels in plain C: what they compute, and what runs where no instruction set has its own. `steps`, and `lanes`
 * where it says so, are constants wherever these are called, and they are part of the caller: loops unroll. */
#ifndef MFP_PLAIN_H
#define MFP_PLAIN_H

#include "words.h"

/* Up to TOGETHER steps of one plane of the source: the rows of weights that meet anything but zeros, and what
 * they meet, [row][step]; behind the last row, up to a multiple of ROWS, some that meet zeros. Of a GROUPED synapse all rows, [step][place of the window][channel]. */
typedef struct {
    int64_t rows;
    int32_t *row;
    void *values;
    int32_t ones[TOGETHER]; /* COUNT: how many bits are set in each step */
    int32_t steps;
} RowView;

#define UNROLLED static inline __attribute__((always_inline))

/* acc[step][channel] += scale * popcount(weights & values). Numbers wrap around; only their total is below 2**31. The
 * sums of all steps stay near while ROWS rows of weights pass. */
UNROLLED void plain_counts(const RowView *view, const word *weights, int64_t lanes, uint32_t scale, uint32_t *acc,
                           const int steps)
{
    const word *values = view->values;
    word sum[TOGETHER][BLOCK];
    memset(sum, 0, (size_t)steps * sizeof *sum);
    for (int64_t r = 0; r < view->rows; r += ROWS, values += ROWS * steps) {
        const word *row[ROWS];
        for (int i = 0; i < ROWS; i++) row[i] = weights + view->row[r + i] * lanes;
        for (int s = 0; s < steps; s++) {
#pragma omp simd
            for (int64_t c = 0; c < lanes; c++) {
                word bits = 0;
                for (int i = 0; i < ROWS; i++) bits += popcount(row[i][c] & values[i * steps + s]);
                sum[s][c] += bits;
            }
        }
    }
    for (int s = 0; s < steps; s++)
        for (int64_t c = 0; c < lanes; c++) acc[s * BLOCK + c] += scale * (uint32_t)sum[s][c];
}

/* acc[step][channel] += weights * values, four bytes of each at a time: weights have a sign, values have none. */
UNROLLED void plain_products(const RowView *view, const int8_t *weights, int64_t lanes, uint32_t *acc, const int steps)
{
    const uint8_t *values = view->values;
    for (int64_t r = 0; r < view->rows; r++, values += QUAD * steps) {
        const int8_t *row = weights + view->row[r] * lanes * QUAD;
        for (int s = 0; s < steps; s++) {
            const int32_t a = values[s * QUAD], b = values[s * QUAD + 1], c = values[s * QUAD + 2],
                          d = values[s * QUAD + 3];
#pragma omp simd
            for (int64_t i = 0; i < lanes; i++) {
                const int8_t *four = row + i * QUAD;
                acc[s * BLOCK + i] += (uint32_t)(a * four[0] + b * four[1] + c * four[2] + d * four[3]);
            }
        }
    }
}

/* Which of `lanes` potentials are at least their thresholds, as bits. `lanes` is a constant. */
UNROLLED word plain_fired(const uint32_t *potential, const int32_t *threshold, const int lanes)
{
    uint8_t hit[BLOCK];
#pragma omp simd
    for (int c = 0; c < lanes; c++) hit[c] = (int32_t)potential[c] >= threshold[c];
    return pack_some(hit, lanes);
}

/* ones[step] = popcount(values) of all rows. */
UNROLLED void plain_ones(const word *values, int64_t rows, int32_t *ones, const int steps)
{
    word sum[TOGETHER] = {0};
    for (int64_t r = 0; r < rows; r++, values += steps)
        for (int s = 0; s < steps; s++) sum[s] += popcount(values[s]);
    for (int s = 0; s < steps; s++) ones[s] = (int32_t)sum[s];
}

#endif
