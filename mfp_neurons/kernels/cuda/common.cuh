/* What every CUDA kernel here shares: the call, how a thread sees its tensors, loads and stores, local gradients,
 * and sums over neurons.
 *
 * Tensors are [T, A, B] as mfp_neurons/backends/rows.py has them: B neurons in a run, A runs apart. A thread
 * works on a group of V neighboring neurons of a run, so that one access moves V numbers. Every kernel takes
 * one struct by value whose fields are eight bytes each, packed by mfp_neurons/backends/cupy_launch.py. */
#pragma once

#include "arithmetic.h"

#ifndef MFP_SHARED /* the tests' host build keeps a block's shared memory elsewhere */
#define MFP_SHARED(type, name) __shared__ type name
#endif

#define MFP_DEVICE __device__ __forceinline__
#define MFP_COMMA , /* inside a macro's argument */

namespace mfp {

/* One tensor; strides in elements, null data where a call has no such tensor. */
struct Strided {
    void *data;
    i64 time, run;
};

/* A parameter: one value (step 0) or one a channel. */
struct PerChannel {
    const void *data;
    i64 step;
};

/* Where the neurons are: runs of `groups` groups of V neurons. Neuron b of a run is of channel
 * (b / repeat) % channels. */
struct Columns {
    i64 outer, run, groups, channels, repeat;
};

/* The kernel's parameters: exponential [decay, gain], FIR [taps] or matrix [steps], by channels or inputs; wide. */
struct Weights {
    const void *data;
    i64 row, column; /* strides; column 0 where one number serves all channels */
};

/* Where a block leaves its sums: [sums][rows][width], wide; null where nobody asks. A block adds up its lanes of
 * equal channels, which leaves `left` lanes; a row holds a number a channel of each lane left, so it repeats the
 * channels as neurons do. */
struct Partials {
    void *data;
    i64 rows, width, left;
};

/* One call of the neuron, as every kernel of a history takes it; each adds how it cuts the work into blocks.
 * Neurons.launch in backends/cupy_launch.py fills it field by field, so a new field goes into both. */
struct Call {
    Columns columns;
    i64 steps, before, order; /* T; inputs in the state of a finite history; its taps, or before + T of a matrix */
    Strided x;
    Strided state;  /* exponential: the potential before, [1, A, B], wide; else the inputs before, null at rest */
    Strided spikes; /* forward: written; backward: their gradient */
    Strided u;      /* the same for the potential, wide: of every step, or of the last alone */
    Strided gx, gstate;
    Strided g; /* finite histories: dL/du of every step, wide, from one kernel to the next */
    Weights weights;
    PerChannel threshold, scale, shift; /* scale, shift: null or both given */
    i64 all_steps; /* u has every step, not the last alone */
    i64 strict;    /* fire on u > threshold */
    double a, b;   /* the surrogate's constants */
    Partials partials;
};

/* One thread's group. Threads beyond the last group idle on channel 0: they still meet the barriers. */
struct Place {
    i64 outer, first, channel;
    bool active;
};

MFP_DEVICE i64 divide(i64 a, i64 b) { /* both >= 0; a 64-bit division costs several times a 32-bit one */
    if (((a | b) >> 32) == 0) return static_cast<u32>(a) / static_cast<u32>(b);
    return static_cast<i64>(static_cast<u64>(a) / static_cast<u64>(b));
}

template <int V> MFP_DEVICE Place place(const Columns &columns, i64 group) {
    Place p;
    p.outer = columns.outer == 1 ? 0 : divide(group, columns.groups);
    p.first = (group - p.outer * columns.groups) * V;
    p.active = p.outer < columns.outer && p.first < columns.run;
    p.channel = 0;
    if (columns.channels > 1 && p.active) {
        const i64 run = divide(p.first, columns.repeat);
        p.channel = run - divide(run, columns.channels) * columns.channels;
    }
    return p;
}

/* What the gradient of the spikes is multiplied with, beyond arithmetic.h's surrogates: nothing, as only the
 * potential has a gradient; nothing more, as that was done before. */
enum { NO_SPIKES = SURROGATES, DONE };

enum { THREADS = 256 }; /* of a block */

/* Registers for two blocks a multiprocessor, half of what it has each; numbers of 64 bits may take all, and so may
 * the oldest architecture, whose compiler spills otherwise. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 750
#define MFP_BOUNDS(X) __launch_bounds__(THREADS)
#else
#define MFP_BOUNDS(X) __launch_bounds__(THREADS, sizeof(Wide<X>) == 4 ? 2 : 1)
#endif

/* V numbers that lie and move together. */
template <class X, int V> struct alignas(V * sizeof(X) < 16 ? V * sizeof(X) : 16) Pack {
    X lane[V];
};

template <class X> MFP_DEVICE X *column(const Strided &tensor, const Place &p, i64 t) {
    return static_cast<X *>(tensor.data) + t * tensor.time + p.outer * tensor.run + p.first;
}

/* A pack as the hardware moves it. Stores are written out: of a vector's the compiler makes four. They clobber no
 * memory in its eyes, so that later loads may go ahead: no thread reads what it stored through store(). */
template <int bytes> struct WordOf;
template <> struct WordOf<2> {
    typedef unsigned short type;
};
template <> struct WordOf<4> {
    typedef unsigned int type;
};
template <> struct WordOf<8> {
    typedef uint2 type;
};
template <> struct WordOf<16> {
    typedef uint4 type;
};

template <class Word> MFP_DEVICE void put(Word *to, const Word &word) { *to = word; }
#ifdef __CUDA_ARCH__
MFP_DEVICE void put(uint2 *to, const uint2 &word) {
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(word.x), "r"(word.y));
}
MFP_DEVICE void put(uint4 *to, const uint4 &word) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(word.x), "r"(word.y), "r"(word.z),
                 "r"(word.w));
}
#endif

template <class X, int V> union Words {
    typedef typename WordOf<alignof(Pack<X, V>)>::type Word;
    Pack<X, V> pack;
    Word words[sizeof(Pack<X, V>) / sizeof(Word)];
    MFP_DEVICE Words() {}
};

/* V numbers, or zeros where the thread has none there. */
template <int V, class X> MFP_DEVICE Pack<X, V> load(const X *from, bool present = true) {
    typedef typename Words<X, V>::Word Word;
    Words<X, V> both;
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof both / sizeof both.words[0]); i++)
        both.words[i] = present ? reinterpret_cast<const Word *>(from)[i] : Word{};
    return both.pack;
}

template <class X, int V> MFP_DEVICE void store(X *to, const Pack<X, V> &pack) {
    Words<X, V> both;
    both.pack = pack;
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof both / sizeof both.words[0]); i++)
        put(reinterpret_cast<typename Words<X, V>::Word *>(to) + i, both.words[i]);
}

/* Sixteen-bit numbers in pairs, which take one register and one instruction. */
template <class X, int V> union Pairs {
    Pack<X, V> pack;
    u32 pair[V / 2];
    MFP_DEVICE Pairs() {}
};

template <class X> MFP_DEVICE u32 narrow_pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    u32 pair;
    if constexpr (IsHalf<X>::value)
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    else
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return narrow<X>(low).bits | static_cast<u32>(narrow<X>(high).bits) << 16;
#endif
}

template <class X> MFP_DEVICE void widen_pair(u32 pair, float &low, float &high) {
    if constexpr (IsHalf<X>::value) {
#ifdef __CUDA_ARCH__
        asm("{ .reg .b16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high; }"
            : "=f"(low), "=f"(high)
            : "r"(pair));
#else
        low = widen(Half{static_cast<u16>(pair)});
        high = widen(Half{static_cast<u16>(pair >> 16)});
#endif
    } else {
        low = float_of(pair << 16);
        high = float_of(pair & 0xffff0000u);
    }
}

template <class X, int V> MFP_DEVICE void widen_pack(const Pack<X, V> &pack, Wide<X> (&wide)[V]) {
    if constexpr (sizeof(X) == 2 && V > 1) {
        Pairs<X, V> in;
        in.pack = pack;
#pragma unroll
        for (int i = 0; i < V / 2; i++) widen_pair<X>(in.pair[i], wide[2 * i], wide[2 * i + 1]);
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) wide[i] = widen(pack.lane[i]);
    }
}

template <class X, int V> MFP_DEVICE Pack<X, V> narrow_pack(const Wide<X> (&wide)[V]) {
    if constexpr (sizeof(X) == 2 && V > 1) {
        Pairs<X, V> out;
#pragma unroll
        for (int i = 0; i < V / 2; i++) out.pair[i] = narrow_pair<X>(wide[2 * i], wide[2 * i + 1]);
        return out.pack;
    } else {
        Pack<X, V> out;
#pragma unroll
        for (int i = 0; i < V; i++) out.lane[i] = narrow<X>(wide[i]);
        return out;
    }
}

/* The spikes of V neurons; P thresholds. */
template <class X, int V, int P>
MFP_DEVICE Pack<X, V> fired(const Wide<X> (&u)[V], const Wide<X> (&threshold)[P], bool strict) {
    if constexpr (sizeof(X) == 2 && V > 1) {
        const u32 one = spike<X>(true).bits;
        Pairs<X, V> out;
#pragma unroll
        for (int i = 0; i < V / 2; i++)
            out.pair[i] = (fires(u[2 * i], threshold[2 * i % P], strict) ? one : 0) |
                          (fires(u[2 * i + 1], threshold[(2 * i + 1) % P], strict) ? one << 16 : 0);
        return out.pack;
    } else {
        Pack<X, V> out;
#pragma unroll
        for (int i = 0; i < V; i++) out.lane[i] = spike<X>(fires(u[i], threshold[i % P], strict));
        return out;
    }
}

template <class W> MFP_DEVICE W parameter(const PerChannel &from, i64 channel) {
    return static_cast<const W *>(from.data)[channel * from.step];
}

template <class W> MFP_DEVICE W weight(const Weights &from, i64 row, i64 column) {
    return static_cast<const W *>(from.data)[row * from.row + column * from.column];
}

/* What a group of V neurons has for each channel: P = V where channels run along the group, else 1. */
template <class W, int P> struct Parameters {
    W threshold[P], scale[P], shift[P];

    MFP_DEVICE Parameters(const Call &p, i64 channel) {
#pragma unroll
        for (int i = 0; i < P; i++) {
            threshold[i] = p.threshold.data ? parameter<W>(p.threshold, channel + i) : W(0);
            scale[i] = p.scale.data ? parameter<W>(p.scale, channel + i) : W(1);
            shift[i] = p.shift.data ? parameter<W>(p.shift, channel + i) : W(0);
        }
    }

    /* What the group's neuron i gets of x. */
    MFP_DEVICE W input(W x, int i) const { return affine(x, scale[i % P], shift[i % P]); }
};

/* ---- S steps of V neurons in a thread's registers ----
 *
 * Pointers walk from step to step: an offset for each step would take a register pair. */

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

/* The steps, zeros for those that are not live. Loading all of them before any is used keeps S loads under way at
 * once, which hides the memory's latency with few threads. */
template <class X, int V, int S>
MFP_DEVICE void load_steps(const Strided &tensor, const Place &at, i64 t0, const Live &live, Pack<X, V> (&to)[S]) {
    const X *from = column<const X>(tensor, at, t0);
#pragma unroll
    for (int s = 0; s < S; s++, from += tensor.time) to[s] = load<V>(from, s < live.count);
}

/* Writes what is asked for of one step after the other: spikes and potential. */
template <class X> struct Writer {
    typedef Wide<X> W;
    const Call &p;
    const Place &at;
    const Live &live;
    X *spikes;
    W *u;

    MFP_DEVICE Writer(const Call &call, const Place &place, i64 t0, const Live &of) : p(call), at(place), live(of) {
        spikes = column<X>(p.spikes, at, t0);
        u = column<W>(p.u, at, p.all_steps ? t0 : 0);
    }

    /* The potential of step s, for s = 0, 1, ... in order. */
    template <int V, int P> MFP_DEVICE void step(int s, const W (&potential)[V], const W (&threshold)[P]) {
        const bool is_live = s < live.count;
        if (is_live && p.spikes.data) store(spikes, fired<X, V>(potential, threshold, p.strict));
        if (p.u.data && (p.all_steps ? is_live : s == live.last)) {
            Pack<W, V> all;
#pragma unroll
            for (int i = 0; i < V; i++) all.lane[i] = potential[i];
            store(u, all);
        }
        spikes += p.spikes.time;
        if (p.all_steps) u += p.u.time;
    }
};

/* Adds the potential's own gradient to g, of every step or of the last alone. */
template <class W, int V, int S>
MFP_DEVICE void add_own_gradient(const Call &p, const Place &at, i64 t0, const Live &live, W (&g)[S][V]) {
    const W *from = column<const W>(p.u, at, p.all_steps ? t0 : 0);
#pragma unroll
    for (int s = 0; s < S; s++) {
        if (p.all_steps ? s < live.count : s == live.last) {
            const Pack<W, V> du = load<V>(from);
#pragma unroll
            for (int i = 0; i < V; i++) g[s][i] += du.lane[i];
        }
        if (p.all_steps) from += p.u.time;
    }
}

/* ---- sums over neurons and time ----
 *
 * In a fixed order, so that results repeat bit for bit: each block writes its sums where no other block writes, and
 * a second kernel (channels.cu) adds those of all blocks. Atomic additions would come in any order. */

template <class W, int P> struct SumsOf {
    W of_thread[THREADS * P];
};

/* Writes sum k of this block, block `tile` of row `row`; values holds a number a channel of the thread's group. */
template <class W, int P>
MFP_DEVICE void store_sum(const Partials &to, i64 k, i64 row, i64 tile, const W (&values)[P], SumsOf<W, P> &shared) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, left = static_cast<int>(to.left);
    W *out = static_cast<W *>(to.data) + (k * to.rows + row) * to.width, *own = shared.of_thread + thread * P;
    __syncthreads(); /* the memory served another sum */
    for (int i = 0; i < P; i++) own[i] = values[i];
    for (int half = blockDim.x * blockDim.y / 2; half >= left; half /= 2) {
        __syncthreads();
        if (thread < half)
            for (int i = 0; i < P; i++) own[i] += own[half * P + i];
    }
    if (thread >= left) return;
    for (int i = 0; i < P; i++) out[(tile * left + thread) * P + i] = own[i];
}

} /* namespace mfp */
