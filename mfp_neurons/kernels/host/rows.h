/* Loops over a row of lanes that several kernels share. */
#pragma once

#include "call.h"

namespace mfp {

constexpr int64_t AHEAD = 4; /* rows: what is asked for now arrives about when it is needed */

/* Asks for the row AHEAD of step t, in this tile or in the one after it. */
template <class X>
MFP_FN void prefetch_row(const Call &c, const Tensor &x, int64_t t, int64_t a, int64_t first, int64_t n) {
    const int64_t soon = t + AHEAD, tile = soon / c.steps;
    prefetch(x.at<X>(soon - tile * c.steps, a) + first + tile * n, n * sizeof(X));
}

template <class X> inline void load_row(Wide<X> *row, const X *from, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) row[i] = widen(from[i]);
}

template <class X> inline void store_row(X *to, const Wide<X> *row, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] = narrow<X>(row[i]);
}

template <class X> inline void fire_row(X *spikes, const Wide<X> *u, const Wide<X> *threshold, bool strict, int64_t n) {
    if (strict) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) spikes[i] = spike<X>(fires(u[i], threshold[i], true));
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) spikes[i] = spike<X>(fires(u[i], threshold[i], false));
    }
}

template <int kind, class W>
inline void derivative_loop(W *out, const W *u, const W *threshold, Surrogate<W> s, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = derivative<kind>(u[i] - threshold[i], s);
}

/* out = surrogate'(u - threshold); out may be u */
template <class W> inline void derivative_row(W *out, const W *u, const W *threshold, const Call &c, int64_t n) {
    const Surrogate<W> s{static_cast<W>(c.surrogate_a), static_cast<W>(c.surrogate_b)};
    switch (c.surrogate) {
    case ATAN: return derivative_loop<ATAN>(out, u, threshold, s, n);
    case SIGMOID: return derivative_loop<SIGMOID>(out, u, threshold, s, n);
    case RECT: return derivative_loop<RECT>(out, u, threshold, s, n);
    case PIECEWISE_QUADRATIC: return derivative_loop<PIECEWISE_QUADRATIC>(out, u, threshold, s, n);
    case SUPER_SPIKE: return derivative_loop<SUPER_SPIKE>(out, u, threshold, s, n);
    default: return derivative_loop<ERF>(out, u, threshold, s, n);
    }
}

/* Eight bytes that are 0 or 1 as eight bits, the first the lowest. */
inline uint8_t pack(const uint8_t *bytes) {
    uint64_t eight = 0;
    for (int i = 0; i < 8; i++) eight |= uint64_t(bytes[i]) << (8 * i); /* one load where bytes are in this order */
    return uint8_t(eight * 0x0102040810204080u >> 56); /* byte i times 2^(56 - 7 i) ends up as bit i of the top byte */
}

template <class W> struct UnpackedBytes { /* the bits of every byte as numbers */
    W bits[256][8];
    UnpackedBytes() {
        for (int byte = 0; byte < 256; byte++)
            for (int bit = 0; bit < 8; bit++) bits[byte][bit] = W((byte >> bit) & 1);
    }
};

/* One bit a lane: is the rectangular surrogate's derivative not zero? Tiles start at multiples of 8. */
template <class W> inline void pack_window(uint8_t *mask, const W *u, const W *threshold, W half_width, int64_t n) {
    uint8_t inside[LANES] = {};
#pragma omp simd
    for (int64_t i = 0; i < n; i++) inside[i] = magnitude(u[i] - threshold[i]) < half_width;
    for (int64_t byte = 0; byte < (n + 7) / 8; byte++) mask[byte] = pack(inside + 8 * byte);
}

/* row = alpha where the lane's bit is set, else 0; eight lanes at a time */
template <class W> inline void unpack_window(W *row, const uint8_t *mask, W alpha, int64_t n) {
    static const UnpackedBytes<W> unpacked;
    for (int64_t byte = 0; byte < (n + 7) / 8; byte++)
        for (int bit = 0; bit < 8; bit++) row[8 * byte + bit] = alpha * unpacked.bits[mask[byte]][bit];
}

} /* namespace mfp */
