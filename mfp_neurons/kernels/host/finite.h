/* Finite histories: K taps shared across time (fir), or one row of weights a step (matrix).
 *
 *     u[t] = sum over s of w(t, s) x[s]          dL/dx[s] = sum over t of w(t, s) g[t]
 *     fir: w(t, s) = m[t - s], 0 <= t - s < K    matrix: w(t, s) = m[t][s], s <= t
 *
 * x[s] counts the inputs in `state` first, then the call's. A tile's inputs and gradients lie in a scratch
 * [steps][width] that stays in cache; rows are combined in registers, BLOCK lanes at a time. What the own spikes
 * change is in feedback.h. */
#pragma once

#include "call.h"

namespace mfp {

template <class X> struct Finite {
    struct Own; /* feedback.h */
    typedef Wide<X> W;
    typedef W Vector __attribute__((vector_size(64)));
    static constexpr int64_t VECTOR = 64 / sizeof(W), BLOCK = 4 * VECTOR;

    /* Lanes of a tile. Own spikes double the rows that a step reads: of 192 lanes they stay in the nearest cache, and
     * an odd number of blocks apart they do not share its lines. */
    static int64_t width(const Call &c, int64_t rows) {
        const int64_t most = c.reset ? 192 : LANES, fits = (int64_t(1) << 19) / int64_t(sizeof(W)) / rows / 64 * 64;
        return std::max<int64_t>(64, std::min(most, fits));
    }

    struct Range { /* of s for a step t, or of t for an input s; both ends included */
        int64_t first, last;
    };

    /* The weights of a sequence that starts `before` steps ahead of the call: the same for all neurons, or a row of
     * lanes for each tap. */
    struct Weights {
        const Parameter taps;
        const int64_t before, order, steps, inputs;
        std::vector<W> shared; /* fir: taps m[0..K); matrix: its transpose [inputs][T] */
        std::vector<W> reversed;

        Weights(Parameter taps, int64_t before, int64_t order, int64_t steps)
            : taps(taps), before(before), order(order), steps(steps), inputs(before + steps) {
            const W *rows = static_cast<const W *>(taps.data);
            if (!rows) return;
            if (order == 0) {
                shared.resize(inputs * steps);
                for (int64_t t = 0; t < steps; t++)
                    for (int64_t s = 0; s < inputs; s++) shared[s * steps + t] = rows[t * inputs + s];
            } else if (taps.count == 1) {
                shared.assign(rows, rows + order);
                reversed.assign(shared.rbegin(), shared.rend());
            }
        }

        Range inputs_of(int64_t t) const {
            return {order ? std::max<int64_t>(0, before + t - order + 1) : 0, before + t};
        }
        Range steps_of(int64_t s) const {
            const int64_t first = std::max<int64_t>(0, s - before);
            return {first, order ? std::min(steps - 1, s - before + order - 1) : steps - 1};
        }
        /* p with p[s] = w(t, s), and with p[t] = w(t, s) */
        const W *over_inputs(int64_t t) const {
            if (!order) return static_cast<const W *>(taps.data) + t * inputs;
            return reversed.data() + (order - 1 - (before + t));
        }
        const W *over_steps(int64_t s) const {
            return order ? shared.data() + (before - s) : shared.data() + s * steps;
        }
    };

    /* out = sum over k of what `weight` makes of in[k], rows of `width` lanes; add: out += the sum */
    template <bool add = false, class F>
    static void combine(W *out, const W *in, int64_t width, Range k_range, F weight) {
        for (int64_t lane = 0; lane < width; lane += BLOCK) {
            Vector sum[4] = {};
            if (add)
                for (int q = 0; q < 4; q++) sum[q] = reinterpret_cast<const Vector *>(out + lane)[q];
            for (int64_t k = k_range.first; k <= k_range.last; k++) {
                const Vector *row = reinterpret_cast<const Vector *>(in + k * width + lane);
                for (int q = 0; q < 4; q++) sum[q] += weight(row[q], k, lane + q * VECTOR);
            }
            for (int q = 0; q < 4; q++) reinterpret_cast<Vector *>(out + lane)[q] = sum[q];
        }
    }

    /* What weighs row k of a sum: numbers; a row of lanes for each tap; rows of another sequence. tap_of(k) is the
     * number of its tap. */
    struct Shared {
        const W *weight;
        int64_t offset, sign;
        int64_t tap_of(int64_t k) const { return offset + sign * k; }
        Vector operator()(Vector row, int64_t k, int64_t) const { return weight[k] * row; }
    };
    struct PerLane {
        const W *taps;
        int64_t width, offset, sign;
        int64_t tap_of(int64_t k) const { return offset + sign * k; }
        Vector operator()(Vector row, int64_t k, int64_t lane) const {
            return vector(taps + tap_of(k) * width + lane) * row;
        }
    };
    struct Products {
        const W *rows;
        int64_t width, tap;
        int64_t tap_of(int64_t) const { return tap; }
        Vector operator()(Vector row, int64_t k, int64_t lane) const { return vector(rows + k * width + lane) * row; }
    };
    struct Unchanged {
        template <class F> F operator()(F weight) const { return weight; }
    };
    static Vector vector(const W *lanes) { return *reinterpret_cast<const Vector *>(lanes); }

    /* A tile's rows of a sequence, one each step from `before` the call on, and what weighs them. */
    struct Sequence {
        const Weights &weights;
        const int64_t width;
        W *const rows, *const taps; /* taps: a row for each, where they differ between lanes */

        static int64_t rows_of_taps(const Weights &w) { return w.taps.count > 1 ? w.order : 0; }

        void fill_taps(const Call &c, int64_t first, int64_t n) {
            for (int64_t j = 0; j < rows_of_taps(weights); j++) {
                const W *taps_of_j = static_cast<const W *>(weights.taps.data) + j * weights.taps.count;
                fill(taps + j * width, Parameter{taps_of_j, weights.taps.count}, c, first, n);
                std::fill(taps + j * width + n, taps + (j + 1) * width, W(0));
            }
        }

        /* out = the weighted sum at step t; `by` can change the weights */
        template <bool add = false, class By = Unchanged> void potential(W *out, int64_t t, By by = {}) const {
            const Range range = weights.inputs_of(t);
            if (weights.taps.count > 1)
                combine<add>(out, rows, width, range, by(PerLane{taps, width, weights.before + t, -1}));
            else combine<add>(out, rows, width, range, by(Shared{weights.over_inputs(t), weights.before + t, -1}));
        }

        /* out = the gradient of row s, from those of the potential at each step */
        template <bool add = false, class By = Unchanged>
        void adjoint(W *out, const W *gradients, int64_t s, By by = {}) const {
            const Range range = weights.steps_of(s);
            if (weights.taps.count > 1)
                combine<add>(out, gradients, width, range, by(PerLane{taps, width, weights.before - s, 1}));
            else combine<add>(out, gradients, width, range, by(Shared{weights.over_steps(s), weights.before - s, 1}));
        }
    };

    /* What is the same for all tiles of a call. The spike j + 1 steps back is weighed as an input j steps back; the
     * rows of spikes start with the first that there is. */
    struct Plan {
        const Call &c;
        const Weights of_inputs, of_own;
        const bool back;

        Plan(const Call &c, bool back)
            : c(c), of_inputs(c.taps, c.before, c.order, c.steps),
              of_own(c.feedback, Own::before_of(c) - 1, c.held, c.steps), back(back) {}

        int64_t rows() const { /* of a tile */
            return of_inputs.inputs + (back ? c.steps : 0) + 6 + Sequence::rows_of_taps(of_inputs) +
                   Own::rows(*this);
        }
    };

    struct Tile {
        const Call &c;
        const int64_t width;
        W *next; /* scratch that nobody has taken */
        Sequence inputs;
        W *gradients, *row, *slope, *threshold, *scale, *shift; /* rows of `width` lanes */
        X *spikes;
        Own own;
        bool constant = false;

        Tile(const Plan &plan, int64_t width)
            : c(plan.c), width(width), next(static_cast<W *>(scratch(sizeof(W) * width * plan.rows()))),
              inputs{plan.of_inputs, width, take(plan.of_inputs.inputs),
                     take(Sequence::rows_of_taps(plan.of_inputs))},
              gradients(take(plan.back ? c.steps : 0)), row(take(1)), slope(take(1)), threshold(take(1)),
              scale(take(1)), shift(take(1)), spikes(reinterpret_cast<X *>(take(1))), own(*this, plan) {}

        W *take(int64_t rows) { return std::exchange(next, next + rows * width); }

        void start(int64_t a, int64_t first, int64_t n, bool with_inputs) {
            if (!constant) {
                constant = c.channels == 1;
                const int64_t lanes = constant ? width : n;
                if (c.threshold.data) fill(threshold, c.threshold, c, first, lanes);
                if (c.scale.data) fill(scale, c.scale, c, first, lanes), fill(shift, c.shift, c, first, lanes);
                inputs.fill_taps(c, first, n);
                own.spikes.fill_taps(c, first, n);
            }
            if (c.reset) own.start(a, first, n);
            if (with_inputs)
                for (int64_t s = 0; s < c.before + c.steps; s++) load(s, a, first, n);
        }

        void load(int64_t s, int64_t a, int64_t first, int64_t n) {
            W *to = inputs.rows + s * width;
            const int64_t t = s - c.before;
            load_row(to, (t < 0 ? c.state.at<X>(s, a) : c.x.at<X>(t, a)) + first, n);
            if (t >= 0) prefetch_row<X>(c, c.x, t, a, first, n);
            if (c.scale.data && t >= 0)
                for (int64_t i = 0; i < n; i++) to[i] = affine(to[i], scale[i], shift[i]);
            std::fill(to + n, to + width, W(0));
        }

        void potential(W *out, int64_t t) {
            if (c.reset == ZERO) return inputs.potential(out, t, own.since_spike(t));
            inputs.potential(out, t);
            if (c.reset) own.spikes.template potential<true>(out, t);
        }

        /* dL/dx[s] in `row`, from the gradients of all steps */
        void adjoint(int64_t s) {
            if (c.reset == ZERO) inputs.adjoint(row, gradients, s, own.since_spike());
            else inputs.adjoint(row, gradients, s);
        }
    };

    static void forward(const Call &c) {
        const Plan plan(c, false);
        const Tiles tiles(c, width(c, plan.rows()));
        const bool large = c.bytes(sizeof(X)) >= LARGE;
        expect_large(c.spikes, c.bytes(sizeof(X)));
        expect_large(c.u, c.all_steps ? c.bytes(sizeof(W)) : 0);
        tiles.run(
            c, [&] { return std::make_unique<Tile>(plan, tiles.width); },
            [&](Tile &tile, int64_t, int64_t a, int64_t first, int64_t n) {
                tile.start(a, first, n, true);
                for (int64_t t = 0; t < c.steps; t++) {
                    tile.potential(tile.row, t);
                    if (c.spikes.data) {
                        X *spikes = c.spikes.at<X>(t, a) + first;
                        fire_row(large ? tile.spikes : spikes, tile.row, tile.threshold, c.strict, n);
                        if (large) stream(spikes, tile.spikes, n * sizeof(X));
                    }
                    if (c.reset) tile.own.fire(t, tile.row, n);
                    if (c.u.data && (c.all_steps || t == c.steps - 1))
                        std::copy(tile.row, tile.row + n, c.u.at<W>(c.all_steps ? t : 0, a) + first);
                }
            });
    }

    /* sums: of the taps [K][channels] or of the matrix [T][inputs], then threshold, scale, shift [channels] and
     * feedback [R][channels] */
    static int64_t sums_of_taps(const Call &c) {
        return c.order ? c.order * c.channels : c.steps * (c.before + c.steps);
    }

    static void backward(const Call &c) {
        const Plan plan(c, true);
        const int64_t of_own = c.feedback.data ? c.held : 0;
        const int64_t size = sums_of_taps(c) + (3 + of_own) * c.channels;
        Tiles tiles(c, width(c, plan.rows()));
        if (c.sums) tiles.tasks = std::min(tiles.tasks, std::max<int64_t>(4, (int64_t(1) << 23) / size));
        expect_large(c.grad_x, c.bytes(sizeof(X)));
        Partials partials(tiles.tasks, size, c.sums);
        tiles.run(
            c, [&] { return std::make_unique<Tile>(plan, tiles.width); },
            [&](Tile &tile, int64_t task, int64_t a, int64_t first, int64_t n) {
                const bool needs_inputs = c.grad_spikes.data || c.sum_kernel || c.reset;
                tile.start(a, first, n, needs_inputs);
                double *sums = partials.of(task);
                for (int64_t t = 0; t < c.steps; t++) {
                    slope(tile, t, a, first, n);
                    if (!c.reset) local_gradient(tile, t, a, first, n, sums);
                }
                if (c.reset) {
                    for (int64_t t = c.steps - 1; t >= 0; t--) local_gradient(tile, t, a, first, n, sums);
                    tile.own.give_back(a, first, n);
                }
                if (c.sum_kernel) {
                    if (c.reset == ZERO) sum_taps(tile, tile.inputs, first, n, sums, tile.own.since_spike());
                    else if (c.order) sum_taps(tile, tile.inputs, first, n, sums);
                    else sum_matrix(tile, sums);
                }
                if (c.sum_feedback)
                    sum_taps(tile, tile.own.spikes, first, n, sums + sums_of_taps(c) + 3 * c.channels);
                for (int64_t s = 0; s < c.before + c.steps; s++) give_back(tile, s, a, first, n, sums);
            });
        partials.add_up(c.sums);
    }

    /* gradients[t] = the slope at step t, 0 where no gradient passes through spikes */
    static void slope(Tile &tile, int64_t t, int64_t a, int64_t first, int64_t n) {
        const Call &c = tile.c;
        W *slope = tile.gradients + t * tile.width;
        std::fill(slope, slope + tile.width, W(0));
        if (!c.grad_spikes.data && !c.reset) return;
        tile.potential(tile.row, t);
        if (c.reset) tile.own.fire(t, tile.row, n);
        derivative_row(slope, tile.row, tile.threshold, c, n);
        if (c.grad_spikes.data) prefetch_row<X>(c, c.grad_spikes, t, a, first, n);
    }

    /* gradients[t] = slope ds + du, where ds has what later steps give back to the spike */
    static void local_gradient(Tile &tile, int64_t t, int64_t a, int64_t first, int64_t n, double *sums) {
        const Call &c = tile.c;
        W *g = tile.gradients + t * tile.width;
        if (c.grad_spikes.data || c.reset) {
            W *ds = tile.row;
            if (c.grad_spikes.data) load_row(ds, c.grad_spikes.at<X>(t, a) + first, n);
            else std::fill(ds, ds + n, W(0));
            if (c.reset && !c.detach) tile.own.add_to_spike_gradient(ds, t);
#pragma omp simd
            for (int64_t i = 0; i < n; i++) g[i] *= ds[i];
            if (c.sum_threshold) {
                for (int64_t i = 0; i < n; i++) tile.row[i] = -g[i];
                add_to_channels(sums + sums_of_taps(c), tile.row, c, first, n);
            }
        }
        if (c.grad_u.data && (c.all_steps || t == c.steps - 1)) {
            const W *du = c.grad_u.at<W>(c.all_steps ? t : 0, a) + first;
#pragma omp simd
            for (int64_t i = 0; i < n; i++) g[i] += du[i];
        }
        if (c.reset == ZERO && !c.detach) tile.own.give_back_to_spikes(t);
    }

    /* dL/dm[j] += sum over t of g[t] x[t - j] */
    template <class By = Unchanged>
    static void sum_taps(Tile &tile, const Sequence &x, int64_t first, int64_t n, double *sums, By by = {}) {
        const Call &c = tile.c;
        const Weights &weights = x.weights;
        for (int64_t j = 0; j < std::min(weights.order, weights.inputs); j++) {
            const int64_t begin = std::max<int64_t>(0, j - weights.before);
            for (int64_t from = begin; from < c.steps; from += 64) { /* sums of floats over 64 steps lose little */
                const int64_t to = std::min(c.steps, from + 64);
                const W *rows = x.rows + (weights.before - j) * tile.width;
                combine(tile.row, tile.gradients, tile.width, Range{from, to - 1}, by(Products{rows, tile.width, j}));
                add_to_channels(sums + j * c.channels, tile.row, c, first, n);
            }
        }
    }

    /* dL/dm[t][s] += <g[t], x[s]>, several s at a time for each row of g that is read */
    static void sum_matrix(Tile &tile, double *sums) {
        const Call &c = tile.c;
        const int64_t inputs = c.before + c.steps;
        for (int64_t t = 0; t < c.steps; t++) {
            const W *g = tile.gradients + t * tile.width;
            double *row = sums + t * inputs;
            int64_t s = 0;
            const W *x = tile.inputs.rows;
            for (; s + 4 <= c.before + t + 1; s += 4) add_products<4>(row + s, g, x + s * tile.width, tile.width);
            for (; s <= c.before + t; s++) add_products<1>(row + s, g, x + s * tile.width, tile.width);
        }
    }

    template <int count> static void add_products(double *sums, const W *g, const W *x, int64_t width) {
        Vector sum[count] = {};
        for (int64_t lane = 0; lane < width; lane += VECTOR) {
            const Vector factor = *reinterpret_cast<const Vector *>(g + lane);
            for (int i = 0; i < count; i++) sum[i] += factor * *reinterpret_cast<const Vector *>(x + i * width + lane);
        }
        for (int i = 0; i < count; i++)
            for (int64_t lane = 0; lane < VECTOR; lane++) sums[i] += sum[i][lane];
    }

    /* The gradient of input s: of the state before the call, or of x. */
    static void give_back(Tile &tile, int64_t s, int64_t a, int64_t first, int64_t n, double *sums) {
        const Call &c = tile.c;
        const int64_t t = s - c.before;
        if (t < 0 ? !c.grad_state.data : !(c.grad_x.data || c.sum_norm)) return;
        tile.adjoint(s);
        if (t < 0) return store_row(c.grad_state.at<X>(s, a) + first, tile.row, n);
        if (c.sum_norm) {
            double *of_scale = sums + sums_of_taps(c) + c.channels;
            add_to_channels(of_scale + c.channels, tile.row, c, first, n);
            const X *x = c.x.at<X>(t, a) + first;
            for (int64_t i = 0; i < n; i++) tile.slope[i] = tile.row[i] * widen(x[i]);
            add_to_channels(of_scale, tile.slope, c, first, n);
        }
        if (!c.grad_x.data) return;
        if (c.scale.data)
            for (int64_t i = 0; i < n; i++) tile.row[i] *= tile.scale[i];
        store_row(c.grad_x.at<X>(t, a) + first, tile.row, n);
    }
};

} /* namespace mfp */

#include "feedback.h"

MFP_ENTRY(mfp_finite_forward, Finite, forward)
MFP_ENTRY(mfp_finite_backward, Finite, backward)
