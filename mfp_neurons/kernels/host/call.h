/* What one call computes, as Python fills it in (backends/cpu.py mirrors the structs field by field), and
 * how its neurons are cut into tiles. Tensors are [T, A, B]: B neurons in a run without gaps, A runs. */
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../arithmetic.h"
#include "stream.h"

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

struct Call {
    int64_t steps, outer, run;  /* T, A, B */
    int64_t channels, repeat;   /* neuron b of a run belongs to channel (b / repeat) % channels */
    int64_t before, order;      /* steps in `state` of a finite kernel; its K, or 0 for a matrix */
    int32_t dtype, strict, surrogate, threads, all_steps; /* all_steps: u and grad_u hold T steps, not one */
    int32_t sum_kernel, sum_threshold, sum_norm;          /* whose sums are wanted */
    double surrogate_a, surrogate_b;
    Parameter decay, gain, taps, threshold, scale, shift;
    Tensor x, state, spikes, u, mask, grad_spikes, grad_u, grad_x, grad_state;
    double *sums; /* gradients [of what][channels]; null where nobody wants them */

    int64_t bytes(int64_t element) const { return steps * outer * run * element; } /* of a dense tensor */
};

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

} /* namespace mfp */
