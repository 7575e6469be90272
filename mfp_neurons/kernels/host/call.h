/* What one call computes, how its neurons are cut into tiles, and the loops over a row of a tile that several
 * kernels share.
 *
 * Tensors are [T, A, B]: B neurons in a run without gaps, A runs. A tile is up to LANES neighboring neurons of one
 * run over all time steps. Its rows (one number a lane) are small enough to stay in cache while a kernel walks
 * through time, so of the tensors each element is read or written once. */
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#pragma GCC diagnostic ignored "-Wpsabi" /* functions that take or return vectors are inlined */
#include "../arithmetic.h"

namespace mfp {

struct Tensor { /* strides in elements; data is null where nobody gave or wants it */
    void *data;
    int64_t time_stride, run_stride;

    template <class X> X *at(int64_t t, int64_t a) const {
        return static_cast<X *>(data) + t * time_stride + a * run_stride;
    }
};

struct Parameter { /* one value, or one for each channel; in the wide dtype */
    const void *data;
    int64_t count;
};

/* backends/cpu.py mirrors this struct field by field, and compares its size on loading. */
struct Call {
    int64_t steps, outer, run;  /* T, A, B */
    int64_t channels, repeat;   /* neuron b of a run belongs to channel (b / repeat) % channels */
    int64_t before, order;      /* steps in `state` of a finite kernel; its K, or 0 for a matrix */
    int64_t held;               /* R, the own spikes that a step depends on */
    int32_t dtype, strict, surrogate, threads, all_steps; /* all_steps: u and grad_u hold T steps, not one */
    int32_t reset, detach;                                /* a number of Reset; no gradient through own spikes */
    int32_t sum_kernel, sum_threshold, sum_norm, sum_feedback; /* whose sums are wanted */
    double surrogate_a, surrogate_b;
    Parameter decay, gain, taps, threshold, scale, shift, feedback;
    Tensor x, state, own_spikes, spikes, u, grad_spikes, grad_u, grad_x, grad_state, grad_own_spikes;
    double *sums; /* gradients [of what][channels]; null where nobody wants them */

    int64_t bytes(int64_t element) const { return steps * outer * run * element; } /* of a dense tensor */
};

/* ---- stores past the caches, prefetches, memory ----
 *
 * An output larger than the caches will be read from memory anyway; written through them, every line of it would
 * first be read, a third more traffic. */

constexpr int64_t LARGE = 8 << 20; /* bytes */

/* memcpy, past the caches where the machine can */
inline void stream(void *to, const void *from, int64_t bytes) {
#if defined(__AVX512F__)
    constexpr int64_t LINE = 64;
#elif defined(__AVX__)
    constexpr int64_t LINE = 32;
#else
    constexpr int64_t LINE = 16;
#endif
#if defined(__SSE2__)
    char *out = static_cast<char *>(to);
    const char *in = static_cast<const char *>(from);
    const int64_t lead = -reinterpret_cast<intptr_t>(out) & (LINE - 1);
    if (lead < bytes) {
        std::memcpy(out, in, lead);
        const int64_t end = lead + (bytes - lead) / LINE * LINE;
        for (int64_t i = lead; i < end; i += LINE) {
#if defined(__AVX512F__)
            _mm512_stream_si512(reinterpret_cast<__m512i *>(out + i), _mm512_loadu_si512(in + i));
#elif defined(__AVX__)
            _mm256_stream_si256(reinterpret_cast<__m256i *>(out + i),
                                _mm256_loadu_si256(reinterpret_cast<const __m256i *>(in + i)));
#else
            _mm_stream_si128(reinterpret_cast<__m128i *>(out + i),
                             _mm_loadu_si128(reinterpret_cast<const __m128i *>(in + i)));
#endif
        }
        std::memcpy(out + end, in + end, bytes - end);
        return;
    }
#endif
    std::memcpy(to, from, bytes);
}

/* After this, what this thread has streamed comes before whatever it writes next, for every other thread. */
inline void stream_fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/* Asks for a row that will be read soon: rows lie too far apart for the machine to guess the next. Into the second
 * cache: a row has more lines than the first can wait for at a time, and the next work would wait with it (on Zen 4
 * the backward then takes half as long again). Inlined always: GCC drops calls of a function that does nothing but
 * prefetch. */
__attribute__((always_inline)) inline void prefetch(const void *row, int64_t bytes) {
    constexpr int READ = 0, SECOND_CACHE = 2;
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char *>(row) + i, READ, SECOND_CACHE);
}

/* Asks for large pages under an output that nobody has touched yet: a first touch of each small page costs
 * more than the work on it. A hint, as NumPy gives it for large arrays; other systems go without. */
inline void expect_large(const Tensor &tensor, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t PAGE = 1 << 21;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(tensor.data) + PAGE - 1) / PAGE * PAGE;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(tensor.data) + bytes) / PAGE * PAGE;
    if (tensor.data && begin < end) madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
#else
    (void)tensor, (void)bytes;
#endif
}

/* Memory of a thread that outlives the call: fresh pages would cost more than the work on them. */
inline void *scratch(size_t bytes) {
    struct Free {
        void operator()(void *memory) const { std::free(memory); }
    };
    thread_local std::unique_ptr<void, Free> memory;
    thread_local size_t held = 0;
    if (bytes > held) {
        const size_t rounded = (bytes + 4095) / 4096 * 4096;
        memory.reset(std::aligned_alloc(4096, rounded));
        held = memory ? rounded : 0;
        if (!memory) throw std::bad_alloc();
    }
    return memory.get();
}

/* ---- tiles ---- */

constexpr int64_t LANES = 512; /* neurons a tile at most: a row of them is 2 kB of floats */
constexpr int64_t MAX_TASKS = 256;

/* Tiles of one call, cut the same way whatever the number of threads, so that sums never depend on it. */
struct Tiles {
    int64_t width, per_run, total, tasks;

    explicit Tiles(const Call &c) : Tiles(c, wide_enough(c)) {}
    Tiles(const Call &c, int64_t width_) : width(width_) {
        per_run = (c.run + width - 1) / width;
        total = c.outer * per_run;
        tasks = std::min(total, std::max<int64_t>(16, std::min(MAX_TASKS, (int64_t(1) << 20) / c.channels)));
    }

    /* At least eight tiles, so that a few long sequences still keep several threads busy. */
    static int64_t wide_enough(const Call &c) {
        const int64_t eighth = (c.outer * c.run + 511) / 512 * 64;
        return std::min(LANES, std::max<int64_t>(128, eighth));
    }

    /* f(rows, task, a, first neuron, neurons) for every tile of every task, tasks in parallel; each thread
     * has rows of its own, made by make(). Backwards, a gradient starts with the inputs that the forward
     * read last, which may still be in cache. */
    template <class Make, class F> void run(const Call &c, Make make, F f, bool backwards = false) const {
#pragma omp parallel num_threads(c.threads) if (c.threads > 1)
        {
            auto rows = make();
#pragma omp for schedule(static)
            for (int64_t step = 0; step < tasks; step++) {
                const int64_t task = backwards ? tasks - 1 - step : step;
                const int64_t begin = total * task / tasks, end = total * (task + 1) / tasks;
                for (int64_t i = begin; i < end; i++) {
                    const int64_t tile = backwards ? end - 1 - (i - begin) : i, first = tile % per_run * width;
                    f(*rows, task, tile / per_run, first, std::min(width, c.run - first));
                }
                stream_fence();
            }
        }
    }
};

/* f(channel, first lane, end lane) for each stretch of a tile's lanes that lies in one channel */
template <class F> inline void for_channels(const Call &c, int64_t first, int64_t n, F f) {
    if (c.channels == 1) return f(0, 0, n);
    int64_t lane = 0;
    while (lane < n) {
        const int64_t b = first + lane, channel = b / c.repeat % c.channels;
        const int64_t end = std::min(n, lane + c.repeat - b % c.repeat);
        f(channel, lane, end);
        lane = end;
    }
}

/* A parameter's values for the lanes of a tile. */
template <class W> inline void fill(W *row, Parameter p, const Call &c, int64_t first, int64_t n) {
    const W *values = static_cast<const W *>(p.data);
    if (p.count == 1) {
        std::fill(row, row + n, values[0]);
    } else if (c.repeat == 1) { /* channels last: rounds of them, one after another */
        for (int64_t lane = 0, channel = first % c.channels; lane < n; channel = 0) {
            const int64_t stretch = std::min(n - lane, c.channels - channel);
            std::copy(values + channel, values + channel + stretch, row + lane);
            lane += stretch;
        }
    } else {
        for_channels(c, first, n, [&](int64_t channel, int64_t lane, int64_t end) {
            std::fill(row + lane, row + end, values[channel]);
        });
    }
}

/* Adds the lanes of a tile to the sums of their channels. */
template <class W> inline void add_to_channels(double *sums, const W *row, const Call &c, int64_t first, int64_t n) {
    if (c.repeat == 1 && c.channels > 1) {
        for (int64_t lane = 0, channel = first % c.channels; lane < n; channel = 0) {
            const int64_t stretch = std::min(n - lane, c.channels - channel);
            for (int64_t i = 0; i < stretch; i++) sums[channel + i] += row[lane + i];
            lane += stretch;
        }
        return;
    }
    for_channels(c, first, n, [&](int64_t channel, int64_t lane, int64_t end) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = lane; i < end; i++) sum += row[i];
        sums[channel] += sum;
    });
}

/* Partial sums of every task, added up in the order of the tasks. */
struct Partials {
    int64_t size;
    std::vector<double> values;

    Partials(int64_t tasks, int64_t size_, const double *wanted) : size(size_), values(wanted ? tasks * size_ : 0) {}
    double *of(int64_t task) { return values.empty() ? nullptr : values.data() + task * size; }
    void add_up(double *out) const {
        for (size_t start = 0; start < values.size(); start += size)
            for (int64_t i = 0; i < size; i++) out[i] += values[start + i];
    }
};

/* ---- rows ---- */

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

/* f(Kind<k>()) for the surrogate of number k, so that each has loops of its own; f(Kind<NONE>()) for no number. */
template <int k> struct Kind {
    enum { value = k };
};
constexpr int NONE = -1;
template <class F> inline auto with_surrogate(int number, F f) {
    switch (number) {
#define MFP_CASE(name) \
    case name: return f(Kind<name>());
        MFP_SURROGATES(MFP_CASE)
#undef MFP_CASE
    default: return f(Kind<NONE>());
    }
}

/* out = surrogate'(u - threshold); out may be u */
template <class W> inline void derivative_row(W *out, const W *u, const W *threshold, const Call &c, int64_t n) {
    const Surrogate<W> s{static_cast<W>(c.surrogate_a), static_cast<W>(c.surrogate_b)};
    with_surrogate(c.surrogate, [&]([[maybe_unused]] auto kind) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = derivative<kind.value>(u[i] - threshold[i], s);
    });
}

} /* namespace mfp */

/* The entry points of a kernel that is a template over the dtype, in the order of _DTYPES in backends/cpu.py. */
#define MFP_ENTRY(name, kernel, function)                                                                              \
    extern "C" void name(const mfp::Call *call) {                                                                      \
        switch (call->dtype) {                                                                                         \
        case 0: return mfp::kernel<float>::function(*call);                                                            \
        case 1: return mfp::kernel<double>::function(*call);                                                           \
        case 2: return mfp::kernel<mfp::Half>::function(*call);                                                        \
        default: return mfp::kernel<mfp::BFloat>::function(*call);                                                     \
        }                                                                                                              \
    }
