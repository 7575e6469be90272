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
    const int64_t width, held;
    const bool back;
    Sequence spikes;       /* TAPS: 0 or 1, [R + T] */
    W *ages, *ages_before; /* ZERO: the steps since the last own spike and since the one before it, [T + 1]; */
                           /* one row where none is read again */
    W *given_back;         /* ZERO: what later steps give back to the spikes, [R + T] */
    W *taps, *sum;         /* ZERO: a row for each tap; a scratch */

    static int64_t rows(const Call &c, const Weights &of_own, bool back) {
        if (c.reset == TAPS) return c.held + c.steps + Sequence::rows_of_taps(of_own);
        if (c.reset == ZERO) return c.order + 1 + (back ? 2 * (c.steps + 1) + c.held + c.steps : 2);
        return 0;
    }

    Own(Tile &tile, const Plan &plan)
        : tile(tile), c(tile.c), width(tile.width), held(c.held), back(plan.back),
          spikes{plan.of_own, width, tile.take(c.reset == TAPS ? held + c.steps : 0),
                 tile.take(Sequence::rows_of_taps(plan.of_own))} {
        if (c.reset != ZERO) return;
        ages = tile.take(back ? c.steps + 1 : 1), ages_before = tile.take(back ? c.steps + 1 : 1);
        given_back = tile.take(back ? held + c.steps : 0), taps = tile.take(c.order), sum = tile.take(1);
    }

    void fill_in(int64_t first, int64_t n) {
        if (c.reset == TAPS) spikes.fill_taps(c, first, n);
        if (c.reset != ZERO) return;
        for (int64_t j = 0; j < c.order; j++) {
            const W *values = static_cast<const W *>(c.taps.data) + j * c.taps.count;
            std::fill(taps + j * width, taps + (j + 1) * width, values[0]);
            fill(taps + j * width, Parameter{values, c.taps.count}, c, first, n);
        }
    }

    W *row_of(W *rows, int64_t t) const { return rows + (back ? t : 0) * width; }

    /* The spikes before the first step. */
    void start(int64_t a, int64_t first, int64_t n) {
        if (c.reset == TAPS) {
            std::fill(spikes.rows, spikes.rows + held * width, W(0));
            for (int64_t p = 0; p < held && c.own_spikes.data; p++)
                load_row(spikes.rows + p * width, c.own_spikes.at<X>(p, a) + first, n);
            return;
        }
        std::fill(ages, ages + width, W(c.order)); /* further back than any tap */
        std::fill(ages_before, ages_before + width, W(c.order));
        for (int64_t p = 0; p < held && c.own_spikes.data; p++) {
            load_row(sum, c.own_spikes.at<X>(p, a) + first, n);
            for (int64_t i = 0; i < n; i++) grow_older(ages[i], ages_before[i], sum[i] != 0);
        }
        if (back) std::fill(given_back, given_back + (held + c.steps) * width, W(0));
    }

    /* Remembers which neurons fire at step t, whose potential is u. */
    void fire(int64_t t, const W *u, int64_t n) {
        const bool strict = c.strict;
        const W *threshold = tile.threshold;
        if (c.reset == TAPS) {
            W *own = spikes.rows + (held + t) * width;
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

    /* ZERO: the inputs that step t can reach, by j = 0 .. */
    int64_t reach(int64_t t) const { return std::min(c.order, c.before + t + 1); }
    const W *input(int64_t t, int64_t j) const { return tile.inputs.rows + (c.before + t - j) * width; }

    /* ZERO: out = the sum of m[j] x[t-j] over j < age */
    void potential_since_spike(W *out, int64_t t) const {
        const W *age = row_of(ages, t);
        std::fill(out, out + width, W(0));
        for (int64_t j = 0; j < reach(t); j++) {
            const W *x = input(t, j), *tap = taps + j * width;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) out[i] += j < age[i] ? tap[i] * x[i] : 0;
        }
    }

    /* ZERO: out = dL/dx[s] */
    void adjoint_since_spike(W *out, int64_t s) const {
        std::fill(out, out + width, W(0));
        const Range range = tile.inputs.weights.steps_of(s);
        for (int64_t t = range.first; t <= range.last; t++) {
            const int64_t j = c.before + t - s;
            const W *age = row_of(ages, t), *tap = taps + j * width, *g = tile.gradients + t * width;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) out[i] += j < age[i] ? tap[i] * g[i] : 0;
        }
    }

    /* ZERO: dL/dm[j] += sum over t of g[t] x[t-j] where j < age */
    void sum_taps_since_spike(int64_t first, int64_t n, double *sums) const {
        for (int64_t j = 0; j < c.order; j++)
            for (int64_t from = std::max<int64_t>(0, j - c.before); from < c.steps; from += 64) {
                std::fill(sum, sum + width, W(0)); /* sums of floats over 64 steps lose little */
                for (int64_t t = from; t < std::min(c.steps, from + 64); t++) {
                    const W *age = row_of(ages, t), *x = input(t, j), *g = tile.gradients + t * width;
#pragma omp simd
                    for (int64_t i = 0; i < n; i++) sum[i] += j < age[i] ? g[i] * x[i] : 0;
                }
                add_to_channels(sums + j * c.channels, sum, c, first, n);
            }
    }

    /* ds += what the steps after t give back to the spike of step t */
    void add_to_spike_gradient(W *ds, int64_t t) const {
        if (c.reset == TAPS) return spikes.template adjoint<true>(ds, tile.gradients, held + t);
        const W *given = given_back + (held + t) * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) ds[i] += given[i];
    }

    /* ZERO: hands what step t gives back, whose gradient is complete, to the spikes before it. */
    void give_back_to_spikes(int64_t t) {
        std::fill(sum, sum + width, W(0));
        const W *age = row_of(ages, t), *age_before = row_of(ages_before, t), *g = tile.gradients + t * width;
        for (int64_t j = reach(t) - 1; j > 0; j--) {
            const W *x = input(t, j), *tap = taps + j * width;
            W *given = given_back + (held + t - j) * width;
#pragma omp simd
            for (int64_t i = 0; i < width; i++)
                given[i] += give_back_to_spike(sum[i], W(j), age[i], age_before[i], tap[i] * x[i] * g[i]);
        }
    }

    /* The gradients of the spikes before the first step. */
    void give_back(int64_t a, int64_t first, int64_t n) {
        for (int64_t p = 0; p < held && c.grad_own_spikes.data; p++) {
            W *ds = tile.row;
            std::fill(ds, ds + width, W(0));
            if (!c.detach && c.reset == TAPS) spikes.adjoint(ds, tile.gradients, p);
            if (!c.detach && c.reset == ZERO) ds = given_back + p * width;
            store_row(c.grad_own_spikes.at<X>(p, a) + first, ds, n);
        }
    }
};

} /* namespace mfp */
