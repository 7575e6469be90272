/* What threads that hold S steps of V neurons in registers share: loads, what a step writes, local gradients.
 * Call is the kernel's struct. */
#pragma once

#include "common.cuh"

namespace mfp {

/* Steps t0 .. t0 + S - 1 of a group, zeros beyond T: all loads are under way before the first is used. */
template <class X, int V, int S>
MFP_DEVICE void load_steps(const Strided &from, const Place &at, i64 t0, i64 steps, Pack<X, V> (&to)[S]) {
    const X *first = column<const X>(from, at, t0);
#pragma unroll
    for (int s = 0; s < S; s++) {
        if (at.active && t0 + s < steps)
            to[s] = load<V>(first + s * from.time);
        else
            to[s] = Pack<X, V>{};
    }
}

/* The mask's bits of S steps of V neurons in one word, the first step's lowest. */
template <int V, int S> MFP_DEVICE u32 bits_of_steps(const Strided &mask, const Place &at, i64 t0, i64 steps) {
    static_assert(S * V <= 32);
    const u8 *from = mask_byte(mask, at, t0);
    u32 word = 0;
#pragma unroll
    for (int s = 0; s < S; s++, from += mask.time) {
        const u32 byte = at.active && t0 + s < steps ? *from : 0u;
        word |= (byte >> (at.first & 7) & ((1u << V) - 1)) << (s * V);
    }
    return word;
}

/* Writes what is asked for of one step: spikes, potential, mask. All threads of a warp call this. */
template <class X, class Call, class W, int V, int P>
MFP_DEVICE void write_step(const Call &p, const Place &at, i64 t, i64 steps, const W (&u)[V], const W (&threshold)[P]) {
    const bool live = at.active && t < steps;
    Pack<X, V> spikes;
    Pack<W, V> potential;
    u32 bits = 0;
#pragma unroll
    for (int i = 0; i < V; i++) {
        potential.lane[i] = u[i];
        spikes.lane[i] = spike<X>(fires(u[i], threshold[i % P], p.strict));
        bits |= (magnitude(u[i] - threshold[i % P]) < static_cast<W>(p.b)) << i;
    }
    if (live && p.spikes.data) store(column<X>(p.spikes, at, t), spikes);
    if (live && p.u.data && (p.every || t == steps - 1)) store(column<W>(p.u, at, p.every ? t : 0), potential);
    if (p.mask.data) {
        const u32 byte = byte_of<V>(live ? bits : 0, at.first);
        if (live && (at.first & 7) == 0) *mask_byte(p.mask, at, t) = static_cast<u8>(byte);
    }
}

/* What the gradient of a spike is multiplied with, `above` the threshold or with its bit of the mask. */
template <int KIND, class W> MFP_DEVICE W slope(W above, bool bit, Surrogate<W> surrogate) {
    if constexpr (KIND == MASKED)
        return bit ? surrogate.a : W(0);
    else
        return derivative<KIND>(above, surrogate);
}

/* Adds the potential's own gradient to g, of every step or of the last alone. */
template <class Call, class W, int V, int S>
MFP_DEVICE void add_own_gradient(const Call &p, const Place &at, i64 t0, i64 steps, W (&g)[S][V]) {
    const i64 first = p.every ? 0 : steps - 1;
    const W *from = column<const W>(p.u, at, t0 - first);
#pragma unroll
    for (int s = 0; s < S; s++) {
        if (!at.active || t0 + s < first || t0 + s >= steps) continue;
        const Pack<W, V> du = load<V>(from + s * p.u.time);
#pragma unroll
        for (int i = 0; i < V; i++) g[s][i] += du.lane[i];
    }
}

} /* namespace mfp */
