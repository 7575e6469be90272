/* What threads that hold S steps of V neurons in registers share: loads, what a step writes, local gradients.
 * Call is the kernel's struct. Pointers walk from step to step: an offset for each would take a register pair. */
#pragma once

#include "common.cuh"

namespace mfp {

/* Which of the S steps from t0 on a thread has. */
struct Live {
    int count; /* the first so many: fewer at the sequence's end, none where the thread idles */
    int last;  /* the sequence's last step, as one of the S; -1 if it is not among them */
};

template <int S> MFP_DEVICE Live live_steps(const Place &at, i64 t0, i64 steps) {
    const i64 left = at.active ? steps - t0 : 0;
    const int count = left < 0 ? 0 : left < S ? static_cast<int>(left) : S;
    return {count, count > 0 && left <= S ? count - 1 : -1};
}

/* The steps, zeros for those that are not live: all loads are under way before the first is used. */
template <class X, int V, int S>
MFP_DEVICE void load_steps(const Strided &tensor, const Place &at, i64 t0, const Live &live, Pack<X, V> (&to)[S]) {
    const X *from = column<const X>(tensor, at, t0);
#pragma unroll
    for (int s = 0; s < S; s++, from += tensor.time) to[s] = load<V>(from, s < live.count);
}

/* The mask's bits of S steps of V neurons in one word, the first step's lowest. */
template <int V, int S> MFP_DEVICE u32 bits_of_steps(const Strided &mask, const Place &at, i64 t0, const Live &live) {
    static_assert(S * V <= 32);
    const u8 *from = mask_byte(mask, at, t0);
    u32 word = 0;
#pragma unroll
    for (int s = 0; s < S; s++, from += mask.time) {
        const u32 byte = s < live.count ? *from : 0u;
        word |= (byte >> (at.first & 7) & ((1u << V) - 1)) << (s * V);
    }
    return word;
}

/* Writes what is asked for of one step after the other: spikes, potential, mask. */
template <class X, class Call> struct Writer {
    typedef Wide<X> W;
    const Call &p;
    const Place &at;
    const Live &live;
    X *spikes;
    W *u;
    u8 *mask;

    MFP_DEVICE Writer(const Call &call, const Place &place, i64 t0, const Live &of) : p(call), at(place), live(of) {
        spikes = column<X>(p.spikes, at, t0);
        u = column<W>(p.u, at, p.every ? t0 : 0);
        mask = mask_byte(p.mask, at, t0);
    }

    /* The potential of step s; all threads of a warp call this, in order. */
    template <int V, int P> MFP_DEVICE void step(int s, const W (&potential)[V], const W (&threshold)[P]) {
        const bool is_live = s < live.count;
        if (is_live && p.spikes.data) store(spikes, fired<X, V>(potential, threshold, p.strict));
        if (p.u.data && (p.every ? is_live : s == live.last)) {
            Pack<W, V> all;
#pragma unroll
            for (int i = 0; i < V; i++) all.lane[i] = potential[i];
            store(u, all);
        }
        if (p.mask.data) {
            u32 bits = 0;
#pragma unroll
            for (int i = 0; i < V; i++) bits |= (magnitude(potential[i] - threshold[i % P]) < static_cast<W>(p.b)) << i;
            const u32 byte = byte_of<V>(is_live ? bits : 0, at.first);
            if (is_live && (at.first & 7) == 0) *mask = static_cast<u8>(byte);
        }
        spikes += p.spikes.time;
        mask += p.mask.time;
        if (p.every) u += p.u.time;
    }
};

/* What the gradient of a spike is multiplied with, `above` the threshold or with its bit of the mask. */
template <int KIND, class W> MFP_DEVICE W slope(W above, bool bit, Surrogate<W> surrogate) {
    if constexpr (KIND == MASKED)
        return bit ? surrogate.a : W(0);
    else
        return derivative<KIND>(above, surrogate);
}

/* Adds the potential's own gradient to g, of every step or of the last alone. */
template <class Call, class W, int V, int S>
MFP_DEVICE void add_own_gradient(const Call &p, const Place &at, i64 t0, const Live &live, W (&g)[S][V]) {
    const W *from = column<const W>(p.u, at, p.every ? t0 : 0);
#pragma unroll
    for (int s = 0; s < S; s++) {
        if (p.every ? s < live.count : s == live.last) {
            const Pack<W, V> du = load<V>(from);
#pragma unroll
            for (int i = 0; i < V; i++) g[s][i] += du.lane[i];
        }
        if (p.every) from += p.u.time;
    }
}

} /* namespace mfp */
