/* The exponential history: one pass over time forward, one back.
 *
 *     u[t] = decay u[t-1] + gain (scale x[t] + shift)         v[t] = dL/du[t] = g[t] + decay v[t+1]
 *     dL/dx[t] = gain scale v[t]                              dL/dstate = decay v[0]
 *
 * and with a reset what arithmetic.h adds, where v is its a.
 *
 * The backward computes u again in a scratch that stays in cache, and writes nothing but its results. Twin:
 * backends/torch_sums.py. */
#pragma once

#include "call.h"

namespace mfp {

enum ExponentialSum { D_DECAY, D_GAIN, D_THRESHOLD, D_SCALE, D_SHIFT, D_FEEDBACK, EXPONENTIAL_SUMS };

template <class X> struct Exponential {
    typedef Wide<X> W;

    struct Rows { /* of one tile; what a call has no use for is all zero, or written and never read */
        alignas(64) W decay[LANES], gain[LANES], threshold[LANES], scale[LANES], shift[LANES], feedback[LANES];
        alignas(64) W u[LANES], v[LANES], dx[LANES], ds[LANES], slope[LANES], zero[LANES] = {};
        alignas(64) W own[LANES]; /* the spikes of the step before, 0 or 1 */
        alignas(64) W sums[EXPONENTIAL_SUMS][LANES];
        alignas(64) X no_spikes[LANES] = {}, row[LANES];
        bool constant = false;

        void fill_in(const Call &c, int64_t first, int64_t n) {
            if (constant) return;
            constant = c.channels == 1;
            const int64_t lanes = constant ? LANES : n;
            fill(decay, c.decay, c, first, lanes);
            fill(gain, c.gain, c, first, lanes);
            if (c.threshold.data) fill(threshold, c.threshold, c, first, lanes);
            if (c.scale.data) fill(scale, c.scale, c, first, lanes);
            if (c.shift.data) fill(shift, c.shift, c, first, lanes);
            if (c.feedback.data) fill(feedback, c.feedback, c, first, lanes);
        }
    };

    /* u = the potential one step after `before`, which may be u; spikes where it reaches the threshold */
    template <int reset, bool has_norm, bool strict, bool fire>
    static void step_row(W *u, const W *before, const X *x, X *spikes, Rows &r, int64_t n) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const W raw = widen(x[i]);
            const W input = has_norm ? affine(raw, r.scale[i], r.shift[i]) : raw;
            const W now = step<reset>(before[i], r.own[i] != 0, input, r.decay[i], r.gain[i], r.feedback[i]);
            u[i] = now;
            if (fire) spikes[i] = spike<X>(fires(now, r.threshold[i], strict));
            if (reset) r.own[i] = spike<W>(fires(now, r.threshold[i], strict));
        }
    }

    typedef void (*StepRow)(W *, const W *, const X *, X *, Rows &, int64_t);
    static StepRow step_of(const Call &c, bool fire) {
        return with_reset(c.reset, [&]([[maybe_unused]] auto reset) {
            return c.scale.data ? step_with<reset.value, true>(c.strict, fire)
                                : step_with<reset.value, false>(c.strict, fire);
        });
    }
    template <int reset, bool has_norm> static StepRow step_with(bool strict, bool fire) {
        if (!fire && !reset) return step_row<reset, has_norm, false, false>;
        if (strict) return fire ? step_row<reset, has_norm, true, true> : step_row<reset, has_norm, true, false>;
        return fire ? step_row<reset, has_norm, false, true> : step_row<reset, has_norm, false, false>;
    }

    /* f(Kind<reset>()) for the resets of a recursion */
    template <class F> static auto with_reset(int number, F f) {
        switch (number) {
        case DECAYING: return f(Kind<DECAYING>());
        case ZERO: return f(Kind<ZERO>());
        default: return f(Kind<NO_RESET>());
        }
    }

    /* r.own = the spikes before the first step */
    static void start_own(const Call &c, Rows &r, int64_t a, int64_t first, int64_t n) {
        if (c.own_spikes.data) load_row(r.own, c.own_spikes.at<X>(0, a) + first, n);
        else std::fill(r.own, r.own + n, W(0));
    }

    static const W *start(const Call &c, const Rows &r, int64_t a, int64_t first) {
        return c.state.data ? c.state.at<W>(0, a) + first : r.zero;
    }

    static void forward(const Call &c) {
        const Tiles tiles(c);
        const StepRow step_row = step_of(c, c.spikes.data);
        const bool large = c.bytes(sizeof(X)) >= LARGE;
        expect_large(c.spikes, c.bytes(sizeof(X)));
        expect_large(c.u, c.all_steps ? c.bytes(sizeof(W)) : 0);
        tiles.run(
            c, [] { return std::make_unique<Rows>(); },
            [&](Rows &r, int64_t, int64_t a, int64_t first, int64_t n) {
                r.fill_in(c, first, n);
                if (c.reset) start_own(c, r, a, first, n);
                const W *before = start(c, r, a, first);
                for (int64_t t = 0; t < c.steps; t++) {
                    W *u = c.u.data && c.all_steps ? c.u.at<W>(t, a) + first : r.u;
                    X *spikes = c.spikes.data ? c.spikes.at<X>(t, a) + first : nullptr;
                    prefetch_row<X>(c, c.x, t, a, first, n);
                    step_row(u, before, c.x.at<X>(t, a) + first, large ? r.row : spikes, r, n);
                    if (large && spikes) stream(spikes, r.row, n * sizeof(X));
                    before = u;
                }
                if (c.u.data && !c.all_steps) {
                    if (large) stream(c.u.at<W>(0, a) + first, before, n * sizeof(W));
                    else std::copy(before, before + n, c.u.at<W>(0, a) + first);
                }
            });
    }

    /* v = slope ds + du + what v gives back, gx = gain scale v; the slope is worked out from u, or given (NONE) */
    template <int reset, int kind, bool has_norm>
    static void adjoint_row(Rows &r, const W *u, const X *gs, const W *du, X *gx, const Call &c, int64_t n) {
        const Surrogate<W> s{W(c.surrogate_a), W(c.surrogate_b)};
        const bool strict = c.strict, detach = c.detach;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const W slope = kind == NONE ? r.slope[i] : derivative<kind>(u[i] - r.threshold[i], s);
            const W outside = widen(gs[i]);
            const W through = spike_gradient<reset>(outside, u[i], r.v[i], r.decay[i], r.feedback[i]);
            const W ds = reset && detach ? outside : through;
            const bool fired = reset == ZERO && fires(u[i], r.threshold[i], strict);
            const W v = slope * ds + du[i] + carried_gradient<reset>(fired, r.v[i], r.decay[i]);
            const W dx = r.gain[i] * v;
            r.v[i] = v;
            r.dx[i] = dx;
            gx[i] = narrow<X>(has_norm ? r.scale[i] * dx : dx);
            if (kind == NONE) r.ds[i] = ds;
        }
    }

    typedef void (*AdjointRow)(Rows &, const W *, const X *, const W *, X *, const Call &, int64_t);

    /* r.own: the spikes of the step of `before` */
    static void sum_parameters(const Call &c, Rows &r, const X *x, const W *before, int64_t n) {
        const bool has_norm = c.scale.data, to_zero = c.reset == ZERO;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const W raw = widen(x[i]);
            r.sums[D_DECAY][i] += r.v[i] * (to_zero && r.own[i] != 0 ? 0 : before[i]);
            r.sums[D_GAIN][i] += r.v[i] * (has_norm ? affine(raw, r.scale[i], r.shift[i]) : raw);
            r.sums[D_THRESHOLD][i] -= r.slope[i] * r.ds[i];
            r.sums[D_FEEDBACK][i] += r.v[i] * r.own[i];
        }
    }

    static void sum_norm(Rows &r, const X *x, int64_t n) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            r.sums[D_SCALE][i] += r.dx[i] * widen(x[i]);
            r.sums[D_SHIFT][i] += r.dx[i];
        }
    }

    static void backward(const Call &c) {
        const Tiles tiles(c);
        expect_large(c.grad_x, c.bytes(sizeof(X)));
        Partials partials(tiles.tasks, EXPONENTIAL_SUMS * c.channels, c.sums);
        tiles.run(
            c, [] { return std::make_unique<Rows>(); },
            [&](Rows &r, int64_t task, int64_t a, int64_t first, int64_t n) {
                r.fill_in(c, first, n);
                Backward(c, r, partials.of(task), a, first, n).run();
            },
            true);
        partials.add_up(c.sums);
    }

    /* One tile's way back. The potential is computed once to the end, keeping every STRETCHth row, and then
     * again a stretch at a time, last one first. */
    struct Backward {
        static constexpr int64_t STRETCH = 64;
        const Call &c;
        Rows &r;
        double *const sums;
        const int64_t a, first, n, stretches;
        const bool parameters, fires, needs_u, large; /* parameters: sums but those of scale and shift are wanted; */
        const StepRow step_row;                       /* fires: the gradient passes through spikes */
        const AdjointRow adjoint_row;
        W *const kept, *const us; /* [stretches][LANES], the rows before each; [STRETCH][LANES] */

        Backward(const Call &c, Rows &r, double *sums, int64_t a, int64_t first, int64_t n)
            : c(c), r(r), sums(sums), a(a), first(first), n(n), stretches((c.steps + STRETCH - 1) / STRETCH),
              parameters(c.sum_kernel || c.sum_threshold || c.sum_feedback), fires(c.grad_spikes.data || c.reset),
              needs_u(fires || parameters), large(c.bytes(sizeof(X)) >= LARGE), step_row(step_of(c, false)),
              adjoint_row(adjoint_of()),
              kept(static_cast<W *>(scratch(sizeof(W) * (stretches + STRETCH) * LANES))),
              us(kept + stretches * LANES) {}

        AdjointRow adjoint_of() const {
            return with_reset(c.reset, [&]([[maybe_unused]] auto reset) { return adjoint_with<reset.value>(); });
        }
        template <int reset> AdjointRow adjoint_with() const {
            return with_surrogate(!parameters && fires ? c.surrogate : NONE, [&]([[maybe_unused]] auto kind) {
                return c.scale.data ? &Exponential::adjoint_row<reset, kind.value, true>
                                    : &Exponential::adjoint_row<reset, kind.value, false>;
            });
        }

        void run() {
            std::fill(r.v, r.v + n, W(0));
            const W *rest = start(c, r, a, first);
            std::copy(rest, rest + n, kept);
            if (c.reset) start_own(c, r, a, first, n);
            if (needs_u)
                for (int64_t stretch = 0; stretch + 1 < stretches; stretch++) go_to_end_of(stretch);
            for (int64_t stretch = stretches - 1; stretch >= 0; stretch--) go_back_through(stretch);
            if (c.reset) start_own(c, r, a, first, n);
            with_reset(c.reset, [&]([[maybe_unused]] auto reset) { give_back<reset.value>(rest); });
        }

        /* dL/dstate, dL/d own_spikes */
        template <int reset> void give_back(const W *rest) {
            W *du = c.grad_state.data ? c.grad_state.at<W>(0, a) + first : nullptr;
            X *ds = c.grad_own_spikes.data ? c.grad_own_spikes.at<X>(0, a) + first : nullptr;
            for (int64_t i = 0; i < n; i++) {
                if (du) du[i] = carried_gradient<reset>(reset && r.own[i] != 0, r.v[i], r.decay[i]);
                const W through = spike_gradient<reset>(W(0), rest[i], r.v[i], r.decay[i], r.feedback[i]);
                if (ds) ds[i] = narrow<X>(c.detach ? 0 : through);
            }
        }

        const X *x(int64_t t) const { return c.x.at<X>(t, a) + first; }
        const X *gradient(int64_t t) const { return c.grad_spikes.at<X>(t, a) + first; }

        void go_to_end_of(int64_t stretch) {
            W *next = kept + (stretch + 1) * LANES;
            const W *before = kept + stretch * LANES;
            for (int64_t t = stretch * STRETCH; t < (stretch + 1) * STRETCH; t++) {
                prefetch(x(t + AHEAD), n * sizeof(X));
                step_row(next, before, x(t), nullptr, r, n);
                before = next;
            }
        }

        void go_back_through(int64_t stretch) {
            const int64_t begin = stretch * STRETCH, end = std::min(c.steps, begin + STRETCH);
            own_before(begin, kept + stretch * LANES);
            if (needs_u)
                for (int64_t t = begin; t < end; t++) {
                    prefetch_after(t - begin, begin, end);
                    step_row(row_of(t), before(t, begin), x(t), nullptr, r, n);
                }
            if (sums) std::fill(&r.sums[0][0], &r.sums[0][0] + EXPONENTIAL_SUMS * LANES, W(0));
            for (int64_t t = end - 1; t >= begin; t--) {
                prefetch_after(end - begin + (end - 1 - t), begin, end);
                go_back(t, before(t, begin));
            }
            if (parameters) add_sums(D_DECAY, D_SCALE);
            if (c.sum_norm) add_sums(D_SCALE, D_FEEDBACK);
            if (c.sum_feedback) add_sums(D_FEEDBACK, EXPONENTIAL_SUMS);
        }

        /* r.own = the spikes of the step before t, whose potential is `before` */
        void own_before(int64_t t, const W *before) {
            if (!c.reset) return;
            if (t == 0) return start_own(c, r, a, first, n);
            const bool strict = c.strict;
#pragma omp simd
            for (int64_t i = 0; i < n; i++) r.own[i] = spike<W>(mfp::fires(before[i], r.threshold[i], strict));
        }

        /* Sums of floats over one stretch lose little. */
        void add_sums(int from, int to) {
            for (int what = from; what < to; what++)
                add_to_channels(sums + what * c.channels, r.sums[what], c, first, n);
        }

        /* Rows are read in this order: inputs begin .. end - 1 (if the potential is needed), gradients
         * end - 1 .. begin; then those of the stretch before, or of the next tile, which lies before this one. */
        MFP_FN void prefetch_after(int64_t read, int64_t begin, int64_t end) const {
            const int64_t steps = end - begin, soon = read + AHEAD, later = soon - 2 * steps;
            const bool of_x = soon < steps || (later >= 0 && needs_u);
            if (!of_x && !c.grad_spikes.data) return;
            const X *row;
            if (soon < steps) row = x(begin + soon);
            else if (later < 0) row = gradient(end - 1 - (soon - steps));
            else if (begin > 0) row = of_x ? x(begin - STRETCH + later) : gradient(begin - 1 - later);
            else row = (of_x ? x(later % c.steps) : gradient(c.steps - 1 - later % c.steps)) - n;
            prefetch(row, n * sizeof(X));
        }

        W *row_of(int64_t t) const { return us + t % STRETCH * LANES; }
        const W *before(int64_t t, int64_t begin) const {
            return t == begin ? kept + t / STRETCH * LANES : row_of(t - 1);
        }

        void go_back(int64_t t, const W *before) {
            const X *gs = c.grad_spikes.data ? gradient(t) : r.no_spikes;
            if (parameters && fires) derivative_row(r.slope, row_of(t), r.threshold, c, n);
            const W *du = r.zero;
            if (c.grad_u.data && (c.all_steps || t == c.steps - 1)) du = c.grad_u.at<W>(c.all_steps ? t : 0, a) + first;
            X *gx = c.grad_x.data ? c.grad_x.at<X>(t, a) + first : nullptr, *row = gx && !large ? gx : r.row;
            adjoint_row(r, row_of(t), gs, du, row, c, n);
            if (parameters) own_before(t, before), sum_parameters(c, r, x(t), before, n);
            if (c.sum_norm) sum_norm(r, x(t), n);
            if (gx && large) stream(gx, row, n * sizeof(X));
        }
    };
};

} /* namespace mfp */

MFP_ENTRY(mfp_exponential_forward, Exponential, forward)
MFP_ENTRY(mfp_exponential_backward, Exponential, backward)
