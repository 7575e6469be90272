/* The kernels for AVX-512 with counts of bits (VPOPCNTDQ) and products of bytes (VNNI); plain.h says what they compute. */
#ifndef MFP_AVX512_H
#define MFP_AVX512_H

#include <immintrin.h>

#include "plain.h"

/* For WIDE * 8 channels from weights and acc on: their sums of all steps stay in registers for all rows. */
UNROLLED void avx512_counts_of(const RowView *view, const word *weights, int64_t lanes, uint32_t scale, uint32_t *acc,
                               const int steps, const int wide)
{
    const word *values = view->values;
    __m512i sum[TOGETHER][4];
    for (int s = 0; s < steps; s++)
        for (int i = 0; i < wide; i++) sum[s][i] = _mm512_setzero_si512();
    for (int64_t r = 0; r < view->rows; r++, values += steps) {
        const word *row = weights + view->row[r] * lanes;
        __m512i bits[4];
        for (int i = 0; i < wide; i++) bits[i] = _mm512_loadu_si512(row + 8 * i);
        for (int s = 0; s < steps; s++) {
            const __m512i value = _mm512_set1_epi64((long long)values[s]);
            for (int i = 0; i < wide; i++)
                sum[s][i] = _mm512_add_epi64(sum[s][i], _mm512_popcnt_epi64(_mm512_and_si512(bits[i], value)));
        }
    }
    const __m256i factor = _mm256_set1_epi32((int)scale);
    for (int s = 0; s < steps; s++) {
        for (int i = 0; i < wide; i++) {
            __m256i *to = (__m256i *)(void *)(acc + s * BLOCK + 8 * i);
            const __m256i counted = _mm256_mullo_epi32(_mm512_cvtepi64_epi32(sum[s][i]), factor);
            _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), counted));
        }
    }
}

UNROLLED void avx512_counts(const RowView *view, const word *weights, int64_t lanes, uint32_t scale, uint32_t *acc,
                            const int steps)
{
    int64_t c = 0;
    for (; c + 32 <= lanes; c += 32) avx512_counts_of(view, weights + c, lanes, scale, acc + c, steps, 4);
    for (; c < lanes; c += VECTOR) avx512_counts_of(view, weights + c, lanes, scale, acc + c, steps, 2);
}

UNROLLED void avx512_products(const RowView *view, const int8_t *weights, int64_t lanes, uint32_t *acc, const int steps)
{
    for (int64_t c = 0; c < lanes; c += 16) {
        const uint8_t *values = view->values;
        __m512i sum[TOGETHER];
        for (int s = 0; s < steps; s++) sum[s] = _mm512_loadu_si512(acc + s * BLOCK + c);
        for (int64_t r = 0; r < view->rows; r++, values += QUAD * steps) {
            const __m512i row = _mm512_loadu_si512(weights + (view->row[r] * lanes + c) * QUAD);
            for (int s = 0; s < steps; s++) {
                int32_t four;
                memcpy(&four, values + QUAD * s, sizeof four);
                sum[s] = _mm512_dpbusd_epi32(sum[s], _mm512_set1_epi32(four), row);
            }
        }
        for (int s = 0; s < steps; s++) _mm512_storeu_si512(acc + s * BLOCK + c, sum[s]);
    }
}

UNROLLED word avx512_fired(const uint32_t *potential, const int32_t *threshold, const int lanes)
{
    word bits = 0;
    for (int c = 0; c < lanes; c += 16) {
        const __m512i a = _mm512_loadu_si512(potential + c), b = _mm512_loadu_si512(threshold + c);
        bits |= (word)_mm512_cmpge_epi32_mask(a, b) << c;
    }
    return bits;
}

#endif
