/* Finite histories, FIR or matrix, forward and backward:
 *
 *     u[t] = sum over s of w(t, s) y[s],   w = m[t-s] (FIR) or W[t][s] (matrix), y = scale x + shift or y = x
 *
 * y[-before .. -1] is the state. A block makes a tile of rows (time) by lanes (neurons) of a weighted sum; its
 * terms pass through shared memory TERMS rows at a time, each thread keeps ROWS sums in registers. The adjoint
 * is the same sum the other way, of g[t]. Twin: backends/torch_sums.py. */
#include "common.cuh"

namespace mfp {

enum { ROWS = 8, TERMS = 16, SEGMENTS = 8 /* blockDim.y at most */, SPAN = 4 /* steps at once in tap_gradient */ };

struct Finite : Call {
    i64 tiles, time_tiles; /* blocks: neurons by time, time first */
};

enum { FORWARD, LOCAL /* g */, ADJOINT };

template <class W> struct Tile {
    W terms[TERMS][THREADS];
    W weights[TERMS][SEGMENTS * ROWS];
};

/* y[s], s from -before on. */
template <class X, class W>
MFP_DEVICE W input(const Call &p, const Place &at, i64 s, W scale, W shift) {
    if (!at.active) return 0;
    if (s >= 0) return affine(static_cast<W>(widen(*column<const X>(p.x, at, s))), scale, shift);
    return p.state.data ? widen(*column<const X>(p.state, at, s + p.before)) : W(0);
}

/* The potential's own gradient at step t. */
template <class W> MFP_DEVICE W own_gradient(const Call &p, const Place &at, i64 t) {
    if (!p.u.data || !(p.all_steps || t == p.steps - 1)) return 0;
    return *column<const W>(p.u, at, p.all_steps ? t : 0);
}

/* dL/du[t]: as an earlier kernel left it, or the potential's own alone. */
template <int KIND, class W> MFP_DEVICE W local(const Call &p, const Place &at, i64 t) {
    if (!at.active) return 0;
    return KIND == DONE ? *column<const W>(p.g, at, t) : own_gradient<W>(p, at, t);
}

/* The matrix's weight that takes y[s] to u[t]; zero beyond its borders. */
template <class W> MFP_DEVICE W matrix_weight(const Call &p, i64 t, i64 s) {
    const bool within = t < p.steps && s < p.steps && s >= -p.before;
    return within ? weight<W>(p.weights, t, s + p.before) : W(0);
}

/* sums[r] += weight * term for the TERMS terms in the tile, from row `first` on. */
template <class W, int MODE, bool MATRIX>
MFP_DEVICE void add_terms(const Finite &p, const Tile<W> &tile, i64 row, i64 first, i64 channel, W (&sums)[ROWS]) {
    if constexpr (MATRIX) {
#pragma unroll
        for (int k = 0; k < TERMS; k++)
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                sums[r] += tile.weights[k][threadIdx.y * ROWS + r] * tile.terms[k][threadIdx.x];
    } else { /* ROWS by TERMS pairs share few taps, one for each difference; a warp takes or skips each as one */
        const i64 lag = MODE == ADJOINT ? first - row - (ROWS - 1) : row - first - (TERMS - 1);
        if (lag >= p.order || lag + ROWS + TERMS - 2 < 0) return;
        W terms[TERMS];
#pragma unroll
        for (int k = 0; k < TERMS; k++) terms[k] = tile.terms[k][threadIdx.x];
#pragma unroll
        for (int i = 0; i < ROWS + TERMS - 1; i++) {
            if (lag + i < 0 || lag + i >= p.order) continue; /* not times zero: what is forgotten may be NaN */
            const W tap = weight<W>(p.weights, lag + i, channel);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const int k = MODE == ADJOINT ? i + r - (ROWS - 1) : r + (TERMS - 1) - i;
                if (k >= 0 && k < TERMS) sums[r] += tap * terms[k];
            }
        }
    }
}

/* What is done with the sums of one thread: rows t .. t + ROWS - 1 of u, or of dL/dy (from -before on). */
template <class X, int MODE, int KIND, class W>
MFP_DEVICE void finish(const Finite &p, const Place &at, i64 row, W scale, const W (&sums)[ROWS], W (&totals)[2]) {
    const W threshold = p.threshold.data ? parameter<W>(p.threshold, at.channel) : W(0);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const i64 t = row + r;
        if (!at.active || t >= p.steps) continue;
        if (MODE == FORWARD) {
            if (p.spikes.data) *column<X>(p.spikes, at, t) = spike<X>(fires(sums[r], threshold, p.strict));
            if (p.u.data && (p.all_steps || t == p.steps - 1)) *column<W>(p.u, at, p.all_steps ? t : 0) = sums[r];
        } else if (MODE == LOCAL) {
            const Surrogate<W> surrogate = {static_cast<W>(p.a), static_cast<W>(p.b)};
            const W share =
                widen(*column<const X>(p.spikes, at, t)) * derivative<KIND>(sums[r] - threshold, surrogate);
            totals[0] += share;
            *column<W>(p.g, at, t) = share + own_gradient<W>(p, at, t);
        } else if (t >= 0) {
            if (p.gx.data) *column<X>(p.gx, at, t) = narrow<X>(scale * sums[r]);
            if (p.partials.data) {
                totals[0] += sums[r];
                totals[1] += sums[r] * widen(*column<const X>(p.x, at, t));
            }
        } else if (p.gstate.data) {
            *column<X>(p.gstate, at, t + p.before) = narrow<X>(sums[r]);
        }
    }
}

template <class X, int MODE, bool MATRIX, int KIND> __global__ void MFP_BOUNDS(X) finite(const Finite p) {
    typedef Wide<X> W;
    MFP_SHARED(Tile<W>, tile);
    const i64 column_tile = divide(blockIdx.x, p.time_tiles), time_tile = blockIdx.x - column_tile * p.time_tiles;
    const i64 rows = blockDim.y * ROWS, top = time_tile * rows - (MODE == ADJOINT ? p.before : 0);
    const Place at = place<1>(p.columns, column_tile * blockDim.x + threadIdx.x);
    const W scale = p.scale.data ? parameter<W>(p.scale, at.channel) : W(1);
    const W shift = p.shift.data ? parameter<W>(p.shift, at.channel) : W(0);
    const i64 row = top + threadIdx.y * ROWS;
    i64 first, last; /* the terms that reach this tile */
    if (MATRIX) {
        first = MODE == ADJOINT ? 0 : -p.before;
        last = p.steps - 1;
    } else if (MODE == ADJOINT) {
        first = top < 0 ? 0 : top;
        last = top + rows - 1 + p.order - 1;
    } else {
        first = top - (p.order - 1) < -p.before ? -p.before : top - (p.order - 1);
        last = top + rows - 1;
    }
    if (last > p.steps - 1) last = p.steps - 1;
    W sums[ROWS] = {};
    for (; first <= last; first += TERMS) {
        __syncthreads();
        for (int k = threadIdx.y; k < TERMS; k += blockDim.y) {
            W term = 0;
            if (first + k <= last)
                term = MODE == ADJOINT ? local<KIND, W>(p, at, first + k)
                                       : input<X, W>(p, at, first + k, scale, shift);
            tile.terms[k][threadIdx.x] = term;
        }
        if (MATRIX)
            for (i64 i = threadIdx.y * blockDim.x + threadIdx.x; i < TERMS * rows; i += blockDim.x * blockDim.y) {
                /* neighboring threads read along a row of the matrix */
                const i64 k = MODE == ADJOINT ? i / rows : i % TERMS, r = MODE == ADJOINT ? i % rows : i / TERMS;
                tile.weights[k][r] = MODE == ADJOINT ? matrix_weight<W>(p, first + k, top + r)
                                                     : matrix_weight<W>(p, top + r, first + k);
            }
        __syncthreads();
        add_terms<W, MODE, MATRIX>(p, tile, row, first, at.channel, sums);
    }
    W totals[2] = {};
    finish<X, MODE, KIND>(p, at, row, scale, sums, totals);
    if constexpr (MODE != FORWARD) {
        if (!p.partials.data) return;
        MFP_SHARED(SumsOf<W MFP_COMMA 1>, shared);
        for (int k = 0; k < (MODE == LOCAL ? 1 : 2); k++) {
            const W total[1] = {totals[k]};
            store_sum(p.partials, k, time_tile, column_tile, total, shared);
        }
    }
}

struct TapGradient : Call {
    i64 tiles, span; /* span: steps a block (blockIdx.z); partials: [order] */
};

/* dL/dm[j] = sum over t of g[t] y[t-j]. A block is 32 lanes by blockDim.y times ROWS taps (blockIdx.y). */
template <class X>
__global__ void MFP_BOUNDS(X) tap_gradient(const TapGradient p) {
    typedef Wide<X> W;
    MFP_SHARED(SumsOf<W MFP_COMMA 1>, shared);
    const i64 tap = (static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y) * ROWS;
    const i64 t0 = blockIdx.z * p.span, t1 = t0 + p.span < p.steps ? t0 + p.span : p.steps;
    W sums[ROWS] = {};
    for (i64 tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
        const Place at = place<1>(p.columns, tile * blockDim.x + threadIdx.x);
        if (!at.active || tap >= p.order) continue;
        const W scale = p.scale.data ? parameter<W>(p.scale, at.channel) : W(1);
        const W shift = p.shift.data ? parameter<W>(p.shift, at.channel) : W(0);
        for (i64 t = t0; t < t1; t += SPAN) {
            W y[ROWS + SPAN - 1]; /* y[i] is of step t - tap - (ROWS - 1) + i */
#pragma unroll
            for (int i = 0; i < ROWS + SPAN - 1; i++) {
                const i64 s = t - tap - (ROWS - 1) + i;
                y[i] = s >= -p.before && s < t1 ? input<X, W>(p, at, s, scale, shift) : W(0);
            }
#pragma unroll
            for (int k = 0; k < SPAN; k++) {
                if (t + k >= t1) break;
                const W g = *column<const W>(p.g, at, t + k);
#pragma unroll
                for (int r = 0; r < ROWS; r++) sums[r] += g * y[k - r + ROWS - 1];
            }
        }
    }
    const int lane = threadIdx.x, left = static_cast<int>(p.partials.left);
    W *own = shared.of_thread + threadIdx.y * blockDim.x + lane;
    for (int r = 0; r < ROWS; r++) {
        __syncthreads();
        *own = sums[r];
        for (int half = blockDim.x / 2; half >= left; half /= 2) {
            __syncthreads();
            if (lane < half) *own += own[half];
        }
        if (tap + r >= p.order || lane >= left) continue;
        W *out = static_cast<W *>(p.partials.data) + ((tap + r) * p.partials.rows + blockIdx.z) * p.partials.width;
        out[blockIdx.x * left + lane] = *own;
    }
}

enum { SIDE = 64, DEPTH = 16, OWN = 4 }; /* a tile of the gradient, neurons at a time, its rows and columns a thread */

struct MatrixGradient : Call {
    i64 count, split; /* neurons, and how many of them a block takes (blockIdx.z); partials: [splits][T][before + T] */
};

template <class W> struct Sides {
    W g[DEPTH][SIDE + 1], y[DEPTH][SIDE + 1];
};

/* dL/dW[t][s] = sum over neurons of g[t] y[s]. A block is 16 by 16 threads; blockIdx.x tiles t, blockIdx.y s. */
template <class X> __global__ void MFP_BOUNDS(X) matrix_gradient(const MatrixGradient p) {
    typedef Wide<X> W;
    MFP_SHARED(Sides<W>, shared);
    const i64 t0 = static_cast<i64>(blockIdx.x) * SIDE, s0 = static_cast<i64>(blockIdx.y) * SIDE - p.before;
    const i64 n0 = blockIdx.z * p.split, n1 = n0 + p.split < p.count ? n0 + p.split : p.count;
    W sums[OWN][OWN] = {};
    for (i64 n = n0; n < n1; n += DEPTH) {
        const Place at = place<1>(p.columns, n + threadIdx.x);
        const bool live = at.active && n + threadIdx.x < n1;
        const W scale = p.scale.data ? parameter<W>(p.scale, at.channel) : W(1);
        const W shift = p.shift.data ? parameter<W>(p.shift, at.channel) : W(0);
        __syncthreads();
        for (int i = threadIdx.y; i < SIDE; i += blockDim.y) {
            shared.g[threadIdx.x][i] = live && t0 + i < p.steps ? *column<const W>(p.g, at, t0 + i) : W(0);
            shared.y[threadIdx.x][i] = live && s0 + i < p.steps ? input<X, W>(p, at, s0 + i, scale, shift) : W(0);
        }
        __syncthreads();
#pragma unroll 4
        for (int k = 0; k < DEPTH; k++)
#pragma unroll
            for (int i = 0; i < OWN; i++)
#pragma unroll
                for (int j = 0; j < OWN; j++)
                    sums[i][j] += shared.g[k][threadIdx.y + 16 * i] * shared.y[k][threadIdx.x + 16 * j];
    }
    const i64 across = p.before + p.steps;
    W *out = static_cast<W *>(p.partials.data) + blockIdx.z * p.partials.width;
    for (int i = 0; i < OWN; i++)
        for (int j = 0; j < OWN; j++) {
            const i64 t = t0 + threadIdx.y + 16 * i, s = s0 + p.before + threadIdx.x + 16 * j;
            if (t < p.steps && s < across) out[t * across + s] = sums[i][j];
        }
}

} /* namespace mfp */
