/* The kernels for AVX2, which has no counts of bits in vectors; plain.h says what they compute. */
#ifndef MFP_AVX2_H
#define MFP_AVX2_H

#include <immintrin.h>

#include "plain.h"

/* The bits of each byte, looked up by its halves. */
static inline __m256i avx2_byte_counts(__m256i bits)
{
    const __m256i half = _mm256_set1_epi8(15);
    const __m256i counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                                            0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_and_si256(bits, half), high = _mm256_and_si256(_mm256_srli_epi16(bits, 4), half);
    return _mm256_add_epi8(_mm256_shuffle_epi8(counts, low), _mm256_shuffle_epi8(counts, high));
}

/* Adds two words to the sum of bits at each of their places: what is carried to the next binary digit. */
static inline __m256i avx2_add(__m256i *sum, __m256i a, __m256i b)
{
    const __m256i either = _mm256_xor_si256(a, b);
    const __m256i carry = _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(either, *sum));
    *sum = _mm256_xor_si256(either, *sum);
    return carry;
}

/* Sums of the bytes of each word. */
static inline __m256i avx2_word_sums(__m256i bytes) { return _mm256_sad_epu8(bytes, _mm256_setzero_si256()); }

enum { FULL = 31 * 4 }; /* rows after which a byte that has counted 8 bits in every fourth could overflow */

/* Four channels. Of four rows at a time the bits at each place are added as one adds on paper (Harley and Seal): only the
 * fours are counted for every four rows, the ones and the twos that are left over at the end. */
UNROLLED void avx2_counts_of(const RowView *view, const word *weights, int64_t lanes, __m128i scale, uint32_t *acc,
                             const int steps)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i total[TOGETHER], ones[TOGETHER], twos[TOGETHER];
    for (int s = 0; s < steps; s++) total[s] = ones[s] = twos[s] = zero;
    int64_t r = 0;
    const int64_t fours = view->rows / 4 * 4;
    const word *values = view->values;
    while (r < fours) {
        const int64_t end = fours - r < FULL ? fours : r + FULL;
        __m256i bytes[TOGETHER];
        for (int s = 0; s < steps; s++) bytes[s] = zero;
        for (; r < end; r += 4, values += 4 * steps) {
            __m256i row[4];
            for (int i = 0; i < 4; i++)
                row[i] = _mm256_loadu_si256((const __m256i *)(const void *)(weights + view->row[r + i] * lanes));
            for (int s = 0; s < steps; s++) {
                __m256i both[4];
                for (int i = 0; i < 4; i++)
                    both[i] = _mm256_and_si256(row[i], _mm256_set1_epi64x((long long)values[i * steps + s]));
                const __m256i a = avx2_add(&ones[s], both[0], both[1]), b = avx2_add(&ones[s], both[2], both[3]);
                bytes[s] = _mm256_add_epi8(bytes[s], avx2_byte_counts(avx2_add(&twos[s], a, b)));
            }
        }
        for (int s = 0; s < steps; s++) total[s] = _mm256_add_epi64(total[s], avx2_word_sums(bytes[s]));
    }
    for (int s = 0; s < steps; s++) {
        const __m256i two = avx2_byte_counts(twos[s]);
        __m256i bytes = _mm256_add_epi8(avx2_byte_counts(ones[s]), _mm256_add_epi8(two, two));
        for (int64_t i = 0; i < view->rows - fours; i++) {
            const __m256i row =
                _mm256_loadu_si256((const __m256i *)(const void *)(weights + view->row[fours + i] * lanes));
            const __m256i both = _mm256_and_si256(row, _mm256_set1_epi64x((long long)values[i * steps + s]));
            bytes = _mm256_add_epi8(bytes, avx2_byte_counts(both));
        }
        const __m256i sum = _mm256_add_epi64(_mm256_slli_epi64(total[s], 2), avx2_word_sums(bytes));
        const __m256i even = _mm256_permutevar8x32_epi32(sum, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
        __m128i *to = (__m128i *)(void *)(acc + s * BLOCK);
        const __m128i counted = _mm_mullo_epi32(_mm256_castsi256_si128(even), scale);
        _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), counted));
    }
}

/* Two steps at a time, as 16 registers hold no more. */
UNROLLED void avx2_counts(const RowView *view, const word *weights, int64_t lanes, uint32_t scale, uint32_t *acc,
                          const int steps)
{
    for (int64_t c = 0; c < lanes; c += 4)
        avx2_counts_of(view, weights + c, lanes, _mm_set1_epi32((int)scale), acc + c, steps);
}

/* Even and odd bytes are multiplied as numbers of 16 bits, two products to a sum of 32: bytes without a sign times bytes
 * with one do not fit what adds up products of bytes. */
UNROLLED void avx2_products(const RowView *view, const int8_t *weights, int64_t lanes, uint32_t *acc, const int steps)
{
    const __m256i low = _mm256_set1_epi32(0x00ff00ff);
    for (int64_t c = 0; c < lanes; c += 8) {
        const uint8_t *values = view->values;
        __m256i sum[TOGETHER];
        for (int s = 0; s < steps; s++)
            sum[s] = _mm256_loadu_si256((const __m256i *)(const void *)(acc + s * BLOCK + c));
        for (int64_t r = 0; r < view->rows; r++, values += QUAD * steps) {
            const int8_t *at = weights + (view->row[r] * lanes + c) * QUAD;
            const __m256i row = _mm256_loadu_si256((const __m256i *)(const void *)at);
            const __m256i odd = _mm256_srai_epi16(row, 8), even = _mm256_srai_epi16(_mm256_slli_epi16(row, 8), 8);
            for (int s = 0; s < steps; s++) {
                int32_t bytes;
                memcpy(&bytes, values + QUAD * s, sizeof bytes);
                const __m256i four = _mm256_set1_epi32(bytes);
                const __m256i a = _mm256_madd_epi16(even, _mm256_and_si256(four, low));
                const __m256i b = _mm256_madd_epi16(odd, _mm256_srli_epi16(four, 8));
                sum[s] = _mm256_add_epi32(sum[s], _mm256_add_epi32(a, b));
            }
        }
        for (int s = 0; s < steps; s++)
            _mm256_storeu_si256((__m256i *)(void *)(acc + s * BLOCK + c), sum[s]);
    }
}

UNROLLED word avx2_fired(const uint32_t *potential, const int32_t *threshold, const int lanes)
{
    word below = 0;
    for (int c = 0; c < lanes; c += 8) {
        const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(potential + c));
        const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(threshold + c));
        const __m256i under = _mm256_cmpgt_epi32(b, a);
        below |= (word)(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(under)) << c;
    }
    return lanes == BLOCK ? ~below : below ^ (((word)1 << lanes) - 1);
}

#endif
