/* The recursion over time cut into pieces that run at once: steps in a thread, segments in a block, chunks.
 *
 *     carry of a segment = sum over the segments before it of decay^(steps between) * (what that one ends with)
 *
 * "Before" is earlier for the potential and later for its adjoint; `position` counts in that direction. Every
 * sum has one order, so results never depend on which block runs first. A block is blockDim.x lanes, each a group
 * of neurons, by blockDim.y segments of time. */
#pragma once

#include "common.cuh"

namespace mfp {

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

/* ---- the scan ---- */

/* A power by repeated squaring, in one order whatever the hardware. */
template <class W> MFP_DEVICE W power(W base, i64 exponent) {
    W result = 1;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) result *= base;
        base *= base;
    }
    return result;
}

/* How the chunks of one column of blocks hand on what they end with. */
struct Chunks {
    i64 chunks, tiles; /* chunks of time; tiles of neurons */
    u32 *ticket;       /* zero; null where a block's number says its task */
    u64 *words;        /* zeros: [2][chunks][tiles * lanes * V] words, the potential's and the adjoint's */
};

template <class W, int V> struct Segments {
    W end[THREADS * V], part[THREADS * V];
};

/* What a block does next: the potential at the end of a chunk (ends), or everything. */
struct Task {
    i64 tile, chunk;
    bool ends;
};

/* Tasks are numbered tile by tile, so that a tile's input, read for the ends, is still in the L2 cache when
 * its chunks are done; chunks whose ends others wait for come first. Blocks draw numbers from a counter: whoever
 * waits for a task knows that it has begun, and "ends" wait for nobody, so no order of blocks can lock up. */
template <bool CHUNKED> struct Tasks {
    i64 next, last, stride, ends, chunks;
    bool reversed;

    MFP_DEVICE Tasks(const Chunks &p, bool backward, bool needs_ends) {
        chunks = CHUNKED ? p.chunks : 1;
        reversed = backward;
        ends = CHUNKED && needs_ends ? chunks - 1 : 0; /* nobody waits for the last */
        if (CHUNKED && p.ticket) {
            next = draw(p);
            last = next + 1;
            stride = 1;
        } else { /* one chunk */
            next = blockIdx.x;
            last = p.tiles;
            stride = gridDim.x;
        }
    }

    MFP_DEVICE bool more() const { return next < last; }

    MFP_DEVICE Task take() {
        const i64 tasks_per_tile = chunks + ends;
        Task task;
        task.tile = tasks_per_tile == 1 ? next : divide(next, tasks_per_tile);
        const i64 k = next - task.tile * tasks_per_tile;
        task.ends = k < ends;
        task.chunk = task.ends ? k : (reversed ? chunks - 1 - (k - ends) : k - ends);
        next += stride;
        return task;
    }

  private:
    MFP_DEVICE i64 draw(const Chunks &p) {
        MFP_SHARED(u32, number);
        if (threadIdx.x == 0 && threadIdx.y == 0) number = atomicAdd(p.ticket, 1u);
        __syncthreads();
        return number;
    }
};

/* decay times value; nothing stays nothing where the power of a decay above 1 has overflowed. */
template <class W> MFP_DEVICE W carried(W decay, W value) { return value == 0 ? W(0) : decay * value; }

/* One thread's view of a scan. */
template <class W, int V> struct Scan {
    Segments<W, V> &shared;
    const Chunks &p;
    i64 position, count; /* of this segment, and how many the block has */
    i64 chunk, before;   /* of this chunk; how many chunks are before it */
    i64 word;            /* where this thread's words start in a chunk */
    i64 across;          /* words of a chunk */
    bool reversed;

    MFP_DEVICE Scan(Segments<W, V> &segments, const Chunks &chunks, const Task &task, bool backward)
        : shared(segments), p(chunks), count(blockDim.y), chunk(task.chunk), reversed(backward) {
        position = backward ? count - 1 - threadIdx.y : threadIdx.y;
        before = backward ? p.chunks - 1 - chunk : chunk;
        word = (task.tile * blockDim.x + threadIdx.x) * V * WordsOf<W>::count;
        across = p.tiles * blockDim.x * V * WordsOf<W>::count;
    }

    /* carry = what comes into this segment, from what it ends with itself. `hand_on`: others wait for what the
     * chunk ends with; `wanted`: this chunk goes on, so it waits for those before it. */
    MFP_DEVICE void run(const W (&end)[V], const W (&decay_segment)[V], W (&carry)[V], bool hand_on, bool wanted) {
        from_segments(end, decay_segment, carry);
        if (hand_on) publish_end(end, decay_segment, carry);
        if (before > 0 && wanted) from_chunks(decay_segment, carry);
    }

  private:
    MFP_DEVICE void from_segments(const W (&end)[V], const W (&decay_segment)[V], W (&carry)[V]) {
        for (int i = 0; i < V; i++) carry[i] = 0;
        if (count == 1) return;
        __syncthreads(); /* readers of the scan before this one are done */
        for (int i = 0; i < V; i++) shared.end[slot(position) + i] = end[i];
        __syncthreads();
        for (i64 k = 0; k < position; k++)
            for (int i = 0; i < V; i++) carry[i] = decay_segment[i] * carry[i] + shared.end[slot(k) + i];
    }

    MFP_DEVICE void publish_end(const W (&end)[V], const W (&decay_segment)[V], const W (&carry)[V]) {
        if (position != count - 1 || before == p.chunks - 1) return;
        for (int i = 0; i < V; i++) {
            publish(words(chunk) + i * WordsOf<W>::count, decay_segment[i] * carry[i] + end[i]);
        }
    }

    /* Adds what the chunks before this one bring. Each segment takes its share of those chunks. */
    MFP_DEVICE void from_chunks(const W (&decay_segment)[V], W (&carry)[V]) {
        for (int i = 0; i < V; i++) {
            const W decay_chunk = power(decay_segment[i], count);
            W part = 0;
            for (i64 k = position; k < before; k += count)
                part += carried(power(decay_chunk, before - 1 - k), received(k, i));
            shared.part[slot(position) + i] = part;
        }
        __syncthreads();
        for (int i = 0; i < V; i++) {
            W far = 0;
            for (i64 k = 0; k < count; k++) far += shared.part[slot(k) + i];
            carry[i] += carried(power(decay_segment[i], position), far);
        }
    }

    MFP_DEVICE volatile u64 *words(i64 of_chunk) const {
        return p.words + ((reversed ? p.chunks : 0) + of_chunk) * across + word;
    }

    MFP_DEVICE i64 slot(i64 segment) const { return (segment * blockDim.x + threadIdx.x) * V; }

    /* What the k-th chunk in this direction ended with. */
    MFP_DEVICE W received(i64 k, int i) const {
        return receive<W>(words(reversed ? p.chunks - 1 - k : k) + i * WordsOf<W>::count);
    }
};

} /* namespace mfp */
