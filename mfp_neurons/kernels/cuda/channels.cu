/* Sums of each channel: the second stage of every kernel's sums, and what batch normalization needs of [T, N, C, *]:
 * the moments of each channel, and an affine map added in place. Twin: backends/torch.py. */
#include "common.cuh"

namespace mfp {

/* ---- the second stage of every sum: over the blocks of the first, in one order, in float64 ---- */

struct Total {
    Partials partials;
    i64 channels, repeat; /* number i of a row is of channel (i / repeat) % channels */
    i64 across;           /* channels a block takes side by side: a power of two up to THREADS */
    double *out;          /* [sums][channels] */
};

/* Block (x, k): `across` channels of sum k. */
template <class W> __global__ void __launch_bounds__(THREADS) total(const Total p) {
    MFP_SHARED(SumsOf<double MFP_COMMA 1>, shared);
    const int across = static_cast<int>(p.across), thread = threadIdx.x, down = THREADS / across;
    const i64 channel = blockIdx.x * p.across + thread % across;
    const i64 period = p.channels * p.repeat, periods = divide(p.partials.width + period - 1, period);
    const W *from = static_cast<const W *>(p.partials.data) + blockIdx.y * p.partials.rows * p.partials.width;
    double sum = 0;
    for (i64 row = 0; channel < p.channels && row < p.partials.rows; row++)
        for (i64 i = thread / across; i < periods * p.repeat; i += down) {
            const i64 round = divide(i, p.repeat);
            const i64 at = round * period + channel * p.repeat + (i - round * p.repeat);
            if (at < p.partials.width) sum += from[row * p.partials.width + at];
        }
    shared.of_thread[thread] = sum;
    for (int half = THREADS / 2; half >= across; half /= 2) {
        __syncthreads();
        if (thread < half) shared.of_thread[thread] += shared.of_thread[thread + half];
    }
    if (thread < across && channel < p.channels) p.out[blockIdx.y * p.channels + channel] = shared.of_thread[thread];
}

/* ---- moments ---- */

struct Moments {
    Columns columns;
    i64 steps, tiles, span; /* T; tiles of neurons; steps a block (blockIdx.y counts spans) */
    Strided x;
    Partials partials;           /* [3]: how many, their mean, their sum of squares around it */
    i64 channels, repeat, count; /* second stage, as Total; numbers a channel */
    void *mean, *variance;       /* [C], wide */
};

/* How many numbers, their mean, and the sum of squares around it. */
template <class W> struct Moment {
    W count, mean, spread;
};

template <class W, int P> struct MomentsOf {
    Moment<W> of_thread[THREADS * P];
};

template <class W> MFP_DEVICE Moment<W> merged(const Moment<W> &a, const Moment<W> &b) { /* Chan et al., 1983 */
    const W count = a.count + b.count;
    if (count == 0) return a;
    const W apart = b.mean - a.mean, share = b.count / count;
    return {count, a.mean + apart * share, a.spread + b.spread + apart * apart * a.count * share};
}

/* First stage. A thread's sums are of distances from the first number it meets, so a large mean costs no digits. */
template <class X, int V, bool ALONG> __global__ void MFP_BOUNDS(X) moments_of_blocks(const Moments p) {
    typedef Wide<X> W;
    constexpr int P = ALONG ? V : 1;
    W center[P] = {}, sum[P] = {}, squares[P] = {}, count = 0;
    const i64 t0 = blockIdx.y * p.span, t1 = t0 + p.span < p.steps ? t0 + p.span : p.steps;
    for (i64 tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
        const Place at = place<V>(p.columns, tile * blockDim.x + threadIdx.x);
        if (!at.active) continue;
        const X *from = column<const X>(p.x, at, t0);
#pragma unroll 4
        for (i64 t = t0; t < t1; t++, from += p.x.time) {
            const Pack<X, V> x = load<V>(from);
            if (count == 0)
                for (int i = 0; i < P; i++) center[i] = widen(x.lane[i]);
#pragma unroll
            for (int i = 0; i < V; i++) {
                const W distance = widen(x.lane[i]) - center[i % P];
                sum[i % P] += distance;
                squares[i % P] += distance * distance;
            }
            count += V / P;
        }
    }
    MFP_SHARED(MomentsOf<W MFP_COMMA P>, shared);
    const int thread = threadIdx.x, left = static_cast<int>(p.partials.left);
    for (int i = 0; i < P; i++) {
        const W mean = count == 0 ? W(0) : sum[i] / count, spread = squares[i] - sum[i] * mean;
        shared.of_thread[thread * P + i] = {count, center[i] + mean, spread < 0 ? W(0) : spread};
    }
    for (int half = THREADS / 2; half >= left; half /= 2) {
        __syncthreads();
        if (thread < half)
            for (int i = thread * P; i < (thread + 1) * P; i++)
                shared.of_thread[i] = merged(shared.of_thread[i], shared.of_thread[i + half * P]);
    }
    if (thread >= left) return;
    const i64 apart = p.partials.rows * p.partials.width;
    W *out = static_cast<W *>(p.partials.data) + blockIdx.y * p.partials.width;
    for (int i = 0; i < P; i++) {
        const Moment<W> own = shared.of_thread[thread * P + i];
        const i64 slot = (static_cast<i64>(blockIdx.x) * left + thread) * P + i;
        out[slot] = own.count;
        out[apart + slot] = own.mean;
        out[2 * apart + slot] = own.spread;
    }
}

template <class W> MFP_DEVICE double block_sum(double value, SumsOf<double, 1> &shared) {
    __syncthreads();
    shared.of_thread[threadIdx.x] = value;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) shared.of_thread[threadIdx.x] += shared.of_thread[threadIdx.x + half];
    }
    __syncthreads();
    return shared.of_thread[0];
}

/* Second stage: one block a channel; the mean of the means first, then squares around it. */
template <class W> __global__ void __launch_bounds__(THREADS) moments_of_channels(const Moments p) {
    MFP_SHARED(SumsOf<double MFP_COMMA 1>, shared);
    const W *counts = static_cast<const W *>(p.partials.data);
    const i64 width = p.partials.width, apart = p.partials.rows * width, period = p.channels * p.repeat;
    const i64 numbers = divide(width + period - 1, period) * p.repeat; /* of one channel in a row, at most */
    double mean = 0;
    for (int pass = 0; pass < 2; pass++) {
        double sum = 0;
        for (i64 row = 0; row < p.partials.rows; row++)
            for (i64 i = threadIdx.x; i < numbers; i += THREADS) {
                const i64 round = divide(i, p.repeat);
                const i64 at = round * period + blockIdx.x * p.repeat + (i - round * p.repeat);
                if (at >= width) continue;
                const W *from = counts + row * width + at;
                const double count = from[0], apart_by = from[apart] - mean;
                sum += pass == 0 ? count * from[apart] : from[2 * apart] + count * apart_by * apart_by;
            }
        const double all = block_sum<W>(sum, shared) / p.count;
        if (pass == 0)
            mean = all;
        else if (threadIdx.x == 0)
            static_cast<W *>(p.variance)[blockIdx.x] = static_cast<W>(all);
    }
    if (threadIdx.x == 0) static_cast<W *>(p.mean)[blockIdx.x] = static_cast<W>(mean);
}

struct Affine {
    Columns columns;
    i64 steps, span;
    Strided x, gx;
    PerChannel factor, offset;
};

/* gx += factor[c] x + offset[c], in place. */
template <class X, int V, bool ALONG> __global__ void MFP_BOUNDS(X) add_affine(const Affine p) {
    typedef Wide<X> W;
    constexpr int P = ALONG ? V : 1;
    const Place at = place<V>(p.columns, static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x);
    if (!at.active) return;
    W factor[P], offset[P];
    for (int i = 0; i < P; i++) {
        factor[i] = parameter<W>(p.factor, at.channel + i);
        offset[i] = parameter<W>(p.offset, at.channel + i);
    }
    const i64 t0 = blockIdx.y * p.span, t1 = t0 + p.span < p.steps ? t0 + p.span : p.steps;
    const X *from = column<const X>(p.x, at, t0);
    X *to = column<X>(p.gx, at, t0);
#pragma unroll 4
    for (i64 t = t0; t < t1; t++, from += p.x.time, to += p.gx.time) {
        const Pack<X, V> x = load<V>(from);
        Pack<X, V> out = load<V>(to);
#pragma unroll
        for (int i = 0; i < V; i++)
            out.lane[i] = narrow<X>(widen(out.lane[i]) + affine(widen(x.lane[i]), factor[i % P], offset[i % P]));
        store(to, out);
    }
}

} /* namespace mfp */
