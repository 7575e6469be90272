/* What every CUDA kernel here shares: how it sees tensors, its loads and stores, and words between blocks.
 *
 * Tensors are [T, A, B] as mfp_neurons/backends/_rows.py has them: B neurons in a run, A runs apart. A thread
 * works on a group of V neighboring neurons of a run, so that one access moves V numbers. Every kernel takes
 * one struct by value whose fields are eight bytes each, packed by mfp_neurons/backends/cupy.py. */
#pragma once

#include "arithmetic.h"

#ifndef MFP_SHARED /* the tests' host build keeps a block's shared memory elsewhere */
#define MFP_SHARED(type, name) __shared__ type name
#endif

#define MFP_DEVICE __device__ __forceinline__
#define MFP_COMMA , /* inside a macro's argument */

namespace mfp {

typedef unsigned char u8;

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

/* Where the neurons are. A run is `groups` groups of V neurons, the last of which may reach beyond it. */
struct Columns {
    i64 outer, run, groups, channels, repeat;
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

/* What the gradient of the spikes is multiplied with, beyond arithmetic.h's surrogates: a bit of a Rect's mask;
 * nothing, as only the potential has a gradient; nothing more, as that was done before. */
enum { MASKED = 6, NO_SPIKES = 7, DONE = 8 };

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

/* A power by repeated squaring, in one order whatever the hardware. */
template <class W> MFP_DEVICE W power(W base, i64 exponent) {
    W result = 1;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) result *= base;
        base *= base;
    }
    return result;
}

/* ---- masks: bit i of byte k of a run is neuron 8 k + i ---- */

/* The byte of V <= 8 neurons from the bits of the 8 / V threads that share it; all threads of a warp call this. */
template <int V> MFP_DEVICE u32 byte_of(u32 bits, i64 first) {
    bits <<= first & 7;
#pragma unroll
    for (int other = 1; other < 8 / V; other *= 2) bits |= __shfl_xor_sync(0xffffffffu, bits, other);
    return bits;
}

MFP_DEVICE u8 *mask_byte(const Strided &mask, const Place &p, i64 t) {
    return static_cast<u8 *>(mask.data) + t * mask.time + p.outer * mask.run + (p.first >> 3);
}

/* ---- words: a number that one block hands to another ----
 *
 * A word is 64 bits, half of a number beside a flag that says it is there, so number and flag arrive
 * together and no fence is needed. Words start as zeros. */

template <class W> struct WordsOf {
    enum { count = sizeof(W) / 4 };
};

MFP_DEVICE void publish(volatile u64 *word, float value) {
    *word = (1ull << 32) | bits_of(value);
}

MFP_DEVICE void publish(volatile u64 *word, double value) {
#ifdef __CUDA_ARCH__
    const u64 bits = static_cast<u64>(__double_as_longlong(value));
#else
    u64 bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
#endif
    word[0] = (1ull << 32) | (bits & 0xffffffffu);
    word[1] = (1ull << 32) | (bits >> 32);
}

MFP_DEVICE u32 await(const volatile u64 *word) {
    u64 seen = *word;
    while ((seen >> 32) == 0) {
#ifdef MFP_PAUSE
        MFP_PAUSE();
#endif
        seen = *word;
    }
    return static_cast<u32>(seen);
}

template <class W> MFP_DEVICE W receive(const volatile u64 *word);
template <> MFP_DEVICE float receive<float>(const volatile u64 *word) { return float_of(await(word)); }
template <> MFP_DEVICE double receive<double>(const volatile u64 *word) {
    const u64 low = await(word), high = await(word + 1), bits = high << 32 | low;
#ifdef __CUDA_ARCH__
    return __longlong_as_double(static_cast<i64>(bits));
#else
    double value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

} /* namespace mfp */
