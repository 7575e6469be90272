/* The kernels for NEON that are faster than what a compiler makes of plain.h, which says what they compute. */
#ifndef MFP_NEON_H
#define MFP_NEON_H

#include <arm_neon.h>

#include "plain.h"

enum { NEON_FULL = 31 }; /* rows after which a byte that has counted 8 bits in each could overflow */

/* Four channels: their sums of all steps stay in registers while rows pass. */
UNROLLED void neon_counts_of(const RowView *view, const word *weights, int64_t lanes, uint32x4_t scale, uint32_t *acc,
                             const int steps)
{
    uint32x4_t total[TOGETHER][2];
    for (int s = 0; s < steps; s++) total[s][0] = total[s][1] = vdupq_n_u32(0);
    const word *values = view->values;
    for (int64_t r = 0; r < view->rows;) {
        const int64_t end = view->rows - r < NEON_FULL ? view->rows : r + NEON_FULL;
        uint8x16_t bytes[TOGETHER][2];
        for (int s = 0; s < steps; s++) bytes[s][0] = bytes[s][1] = vdupq_n_u8(0);
        for (; r < end; r++, values += steps) {
            const word *row = weights + view->row[r] * lanes;
            const uint64x2_t low = vld1q_u64(row), high = vld1q_u64(row + 2);
            for (int s = 0; s < steps; s++) {
                const uint64x2_t value = vdupq_n_u64(values[s]);
                const uint8x16_t a = vreinterpretq_u8_u64(vandq_u64(low, value));
                const uint8x16_t b = vreinterpretq_u8_u64(vandq_u64(high, value));
                bytes[s][0] = vaddq_u8(bytes[s][0], vcntq_u8(a));
                bytes[s][1] = vaddq_u8(bytes[s][1], vcntq_u8(b));
            }
        }
        for (int s = 0; s < steps; s++)
            for (int i = 0; i < 2; i++) total[s][i] = vpadalq_u16(total[s][i], vpaddlq_u8(bytes[s][i]));
    }
    for (int s = 0; s < steps; s++) {
        const uint32x4_t sum = vpaddq_u32(total[s][0], total[s][1]); /* of both halves of a word */
        vst1q_u32(acc + s * BLOCK, vmlaq_u32(vld1q_u32(acc + s * BLOCK), sum, scale));
    }
}

UNROLLED void neon_counts(const RowView *view, const word *weights, int64_t lanes, uint32_t scale, uint32_t *acc,
                          const int steps)
{
    for (int64_t c = 0; c < lanes; c += 4)
        neon_counts_of(view, weights + c, lanes, vdupq_n_u32(scale), acc + c, steps);
}

/* Two channels at a time: four products each, of numbers of 16 bits, added up in pairs. */
UNROLLED void neon_products(const RowView *view, const int8_t *weights, int64_t lanes, uint32_t *acc, const int steps)
{
    for (int64_t c = 0; c < lanes; c += 4) {
        const uint8_t *values = view->values;
        int32x4_t sum[TOGETHER];
        for (int s = 0; s < steps; s++) sum[s] = vreinterpretq_s32_u32(vld1q_u32(acc + s * BLOCK + c));
        for (int64_t r = 0; r < view->rows; r++, values += QUAD * steps) {
            const int8x16_t row = vld1q_s8(weights + (view->row[r] * lanes + c) * QUAD);
            const int16x8_t low = vmovl_s8(vget_low_s8(row)), high = vmovl_s8(vget_high_s8(row));
            for (int s = 0; s < steps; s++) {
                uint32_t bytes;
                memcpy(&bytes, values + QUAD * s, sizeof bytes);
                const uint16x8_t spread = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bytes)));
                const int16x4_t four = vget_low_s16(vreinterpretq_s16_u16(spread));
                const int32x4_t a = vpaddq_s32(vmull_s16(vget_low_s16(low), four), vmull_s16(vget_high_s16(low), four));
                const int32x4_t b =
                    vpaddq_s32(vmull_s16(vget_low_s16(high), four), vmull_s16(vget_high_s16(high), four));
                sum[s] = vaddq_s32(sum[s], vpaddq_s32(a, b));
            }
        }
        for (int s = 0; s < steps; s++) vst1q_u32(acc + s * BLOCK + c, vreinterpretq_u32_s32(sum[s]));
    }
}

#endif
