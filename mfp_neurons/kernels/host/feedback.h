/* What a tile of finite histories knows of its own spikes, and what they change (see arithmetic.h).
 *
 * TAPS: the spikes are a second sequence of rows beside the inputs, weighed by taps of their own. ZERO: a row of
 * ages for each step says how far back its sum goes. Twin: backends/torch_feedback.py. */
#pragma once

#include "finite.h"

namespace mfp {

template <class X> struct Finite<X>::Own {
    Tile &tile;
    const Call &c;
    const int64_t width, before; /* spikes before the first step that there is room for */
    const bool back;
    Sequence spikes;       /* TAPS: 0 or 1, [before + T] */
    W *ages, *ages_before; /* ZERO: the steps since the last own spike and since the one before it, [T + 1]; */
                           /* one row where none is read again */
    W *returned;         /* ZERO: what later steps give back to the spikes, [before + T] */

    /* ZERO: a state reaches further back than its first step, whether or not there were spikes. */
    static int64_t before_of(const Call &c) { return c.own_spikes.data || (c.reset == ZERO && c.before) ? c.held : 0; }
    static int64_t rows(const Plan &plan) {
        const Call &c = plan.c;
        if (c.reset == TAPS) return before_of(c) + c.steps + Sequence::rows_of_taps(plan.of_own);
        if (c.reset == ZERO) return plan.back ? 2 * (c.steps + 1) + before_of(c) + c.steps : 2;
        return 0;
    }

    Own(Tile &tile, const Plan &plan)
        : tile(tile), c(tile.c), width(tile.width), before(before_of(c)), back(plan.back),
          spikes{plan.of_own, width, tile.take(c.reset == TAPS ? before + c.steps : 0),
                 tile.take(Sequence::rows_of_taps(plan.of_own))} {
        if (c.reset != ZERO) return;
        ages = tile.take(back ? c.steps + 1 : 1), ages_before = tile.take(back ? c.steps + 1 : 1);
        returned = tile.take(back ? before + c.steps : 0);
    }

    W *row_of(W *rows, int64_t t) const { return rows + (back ? t : 0) * width; }

    /* The spikes before the first step. */
    void start(int64_t a, int64_t first, int64_t n) {
        if (c.reset == TAPS) {
            for (int64_t p = 0; p < before; p++)
                load_row(spikes.rows + p * width, c.own_spikes.at<X>(p, a) + first, n);
            return;
        }
        std::fill(ages, ages + width, W(c.order)); /* further back than any tap */
        std::fill(ages_before, ages_before + width, W(c.order));
        for (int64_t p = 0; p < before && c.own_spikes.data; p++) {
            load_row(tile.row, c.own_spikes.at<X>(p, a) + first, n);
            for (int64_t i = 0; i < n; i++) grow_older(ages[i], ages_before[i], tile.row[i] != 0);
        }
        if (back) std::fill(returned, returned + (before + c.steps) * width, W(0));
    }

    /* Remembers which neurons fire at step t, whose potential is u. */
    void fire(int64_t t, const W *u, int64_t n) {
        const bool strict = c.strict;
        const W *threshold = tile.threshold;
        if (c.reset == TAPS) {
            W *own = spikes.rows + (before + t) * width;
#pragma omp simd
            for (int64_t i = 0; i < n; i++) own[i] = spike<W>(fires(u[i], threshold[i], strict));
            std::fill(own + n, own + width, W(0));
            return;
        }
        const W *age = row_of(ages, t), *age_before = row_of(ages_before, t);
        W *next = row_of(ages, t + 1), *next_before = row_of(ages_before, t + 1);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            W last = age[i], before_last = age_before[i];
            grow_older(last, before_last, fires(u[i], threshold[i], strict));
            next[i] = last, next_before[i] = before_last;
        }
    }

    /* ZERO: the weights of the lanes where j < age, and 0. The ages are those of one step, or of every step k. */
    template <class Weight> struct SinceSpike {
        Weight weight;
        const W *ages;
        int64_t stride;
        Vector operator()(Vector row, int64_t k, int64_t lane) const {
            const Vector age = vector(ages + k * stride + lane), j = Vector{} + W(weight.tap_of(k));
            return j < age ? weight(row, k, lane) : Vector{};
        }
    };
    struct Since {
        const W *ages;
        int64_t stride;
        template <class Weight> SinceSpike<Weight> operator()(Weight weight) const { return {weight, ages, stride}; }
    };
    Since since_spike(int64_t t) const { return {row_of(ages, t), 0}; }
    Since since_spike() const { return {ages, width}; }

    /* ds += what the steps after t give back to the spike of step t */
    void add_to_spike_gradient(W *ds, int64_t t) const {
        if (c.reset == TAPS) return spikes.template adjoint<true>(ds, tile.gradients, before + t);
        const W *later = returned + (before + t) * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) ds[i] += later[i];
    }

    /* ZERO: hands what step t gives back, whose gradient is complete, to the spikes before it. */
    void give_back_to_spikes(int64_t t) {
        const Weights &weights = tile.inputs.weights;
        if (weights.taps.count > 1) give_back_by(t, PerLane{tile.inputs.taps, width, c.before + t, -1});
        else give_back_by(t, Shared{weights.over_inputs(t), c.before + t, -1});
    }
    template <class Weight> void give_back_by(int64_t t, Weight weight) {
        const W *g = tile.gradients + t * width, *age = row_of(ages, t), *age_before = row_of(ages_before, t);
        const Range range = tile.inputs.weights.inputs_of(t);
        for (int64_t lane = 0; lane < width; lane += BLOCK) {
            Vector sum[4] = {};
            for (int64_t k = range.first; k < range.last; k++) {
                const Vector j = Vector{} + W(weight.tap_of(k));
                W *spike_row = returned + (before + t - weight.tap_of(k)) * width;
                for (int64_t q = 0, i = lane; q < 4; q++, i += VECTOR) {
                    const Vector weighted = weight(vector(tile.inputs.rows + k * width + i), k, i) * vector(g + i);
                    *reinterpret_cast<Vector *>(spike_row + i) +=
                        give_back_to_spike(sum[q], j, vector(age + i), vector(age_before + i), weighted);
                }
            }
        }
    }

    /* The gradients of the spikes before the first step. */
    void give_back(int64_t a, int64_t first, int64_t n) {
        for (int64_t p = 0; p < before && c.grad_own_spikes.data; p++) {
            W *ds = tile.row;
            std::fill(ds, ds + width, W(0));
            if (!c.detach && c.reset == TAPS) spikes.adjoint(ds, tile.gradients, p);
            if (!c.detach && c.reset == ZERO) ds = returned + p * width;
            store_row(c.grad_own_spikes.at<X>(p, a) + first, ds, n);
        }
    }
};

} /* namespace mfp */
