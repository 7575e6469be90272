/* The FIR neuron whose own spikes change what follows: R feedback taps, or a sum over inputs that stops at the last
 * own spike. Time is a loop in the thread, S steps (a stretch) in registers at once:
 *
 *     forward    one kernel for every T, with or without a state
 *     backward   up to S steps at rest: one kernel, in registers, the input is read once
 *                else the forward writes potential and spikes to memory, `adjoint` turns the potential into
 *                a = dL/du step by step, and what remains are sums over a: those of finite.cu for TAPS, for ZERO
 *                the two at the end, which stop at own spikes
 *
 * Equations: arithmetic.h. Twin: backends/torch_feedback.py. */
#include "common.cuh"

namespace mfp {

/* Smaller blocks than elsewhere, of more registers, as in fir.cu; COUNT: how many of a kind of taps a thread holds. */
enum { LANES = 128 };
#define LANES_BOUNDS(X, COUNT) __launch_bounds__(LANES, sizeof(Wide<X>) == 8 ? 1 : (COUNT) > 4 ? 2 : 3)

struct FirFeedback : Call { /* forward: g is room for the spikes of each stretch as bits, null where R <= S */
    Weights feedback;       /* null with ZERO */
    Strided own, gown;      /* spikes before the first step, [held, A, B], null for none; their gradient */
    i64 held, reset, detach;
    i64 tiles; /* of neurons */
};

/* Input q, from -before on. */
template <class X, class W, int V, int P>
MFP_DEVICE void load_input(const Call &p, const Place &at, const Parameters<W, P> &m, i64 q, W (&y)[V]) {
    const bool present = at.active && q >= -p.before && q < p.steps;
    const X *from = q < 0 ? column<const X>(p.state, at, q + p.before) : column<const X>(p.x, at, q);
    widen_pack(load<V>(from, present), y);
#pragma unroll
    for (int i = 0; i < V; i++)
        if (present && q >= 0) y[i] = m.input(y[i], i);
}

/* Whether the neuron fired at step q < 0. */
template <class X, int V> MFP_DEVICE void load_own(const FirFeedback &p, const Place &at, i64 q, bool (&fired)[V]) {
    const bool present = p.own.data && at.active && q >= -p.held;
    const Pack<X, V> own = load<V>(column<const X>(p.own, at, q + p.held), present);
#pragma unroll
    for (int i = 0; i < V; i++) fired[i] = widen(own.lane[i]) != 0;
}

/* sums[r] += the sum over k of tap(lag) terms[k], lag = distance + r - k, or distance + k - r where the terms are
 * LATER; row 0 of `taps` is of lag `first`. S by S pairs share few taps, one for each difference. */
template <bool LATER, int P, class W, int V, int S>
MFP_DEVICE void add_lags(W (&sums)[S][V], const W (&terms)[S][V], const Weights &taps, i64 first, i64 count,
                         i64 distance, i64 channel) {
#pragma unroll
    for (int d = 1 - S; d < S; d++) {
        const i64 row = distance + d - first;
        if (row < 0 || row >= count) continue; /* not times zero: what is forgotten may be NaN */
        W tap[P];
#pragma unroll
        for (int i = 0; i < P; i++) tap[i] = weight<W>(taps, row, channel + i);
#pragma unroll
        for (int r = 0; r < S; r++) {
            const int k = LATER ? r + d : r - d;
            if (k < 0 || k >= S) continue;
#pragma unroll
            for (int i = 0; i < V; i++) sums[r][i] += tap[i % P] * terms[k][i];
        }
    }
}

/* Taps 0 .. S-1, the first of lag `first`; zeros beyond `count`. */
template <class W, int S, int P>
MFP_DEVICE void load_taps(const Weights &from, int first, i64 count, i64 channel, W (&taps)[S][P]) {
#pragma unroll
    for (int j = 0; j < S; j++)
#pragma unroll
        for (int i = 0; i < P; i++)
            taps[j][i] = j >= first && j - first < count ? weight<W>(from, j - first, channel + i) : W(0);
}

/* ---- the potential ---- */

/* What a neuron brings along from the steps before a stretch. */
template <int V> struct Past {
    i64 from[V]; /* ZERO: the first input that is not forgotten */
    u32 own[V];  /* TAPS: bit k, whether the neuron fired at step k of the stretch before */
};

template <class X, int V> MFP_DEVICE void start(const FirFeedback &p, const Place &at, Past<V> &past) {
#pragma unroll
    for (int i = 0; i < V; i++) {
        past.from[i] = -p.before;
        past.own[i] = 0;
    }
    if (p.reset != ZERO || !p.own.data) return;
    for (i64 q = -p.held; q < 0; q++) {
        bool fired[V];
        load_own<X>(p, at, q, fired);
#pragma unroll
        for (int i = 0; i < V; i++)
            if (fired[i]) past.from[i] = q + 1;
    }
}

/* u = what the steps before t0 add to the S steps from there on, a stretch of them after the other. */
template <class X, class W, int V, int S, int P>
MFP_DEVICE void add_past(const FirFeedback &p, const Place &at, const Parameters<W, P> &m, i64 t0, const Past<V> &past,
                         W (&u)[S][V]) {
#pragma unroll
    for (int s = 0; s < S; s++)
#pragma unroll
        for (int i = 0; i < V; i++) u[s][i] = 0;
    for (i64 q0 = t0 - S; q0 + S > t0 - (p.order - 1) && q0 + S > -p.before; q0 -= S) {
        W terms[S][V];
#pragma unroll
        for (int k = 0; k < S; k++) {
            load_input<X>(p, at, m, q0 + k, terms[k]);
#pragma unroll
            for (int i = 0; i < V; i++)
                if (p.reset == ZERO && q0 + k < past.from[i]) terms[k][i] = 0;
        }
        add_lags<false, P>(u, terms, p.weights, 0, p.order, t0 - q0, at.channel);
    }
    if (p.reset == ZERO) return;
    for (i64 q0 = t0 - S; q0 + S > t0 - p.held && q0 + S > (p.own.data ? -p.held : 0); q0 -= S) {
        W terms[S][V];
#pragma unroll
        for (int k = 0; k < S; k++) {
            bool fired[V];
            if (q0 < 0) load_own<X>(p, at, q0 + k, fired);
#pragma unroll
            for (int i = 0; i < V; i++) {
                if (q0 >= 0) {
                    u32 bits = past.own[i];
                    if (q0 < t0 - S) bits = at.active ? column<const u32>(p.g, at, divide(q0, S))[i] : 0;
                    fired[i] = (bits >> k) & 1;
                }
                terms[k][i] = fired[i] ? 1 : 0;
            }
        }
        add_lags<false, P>(u, terms, p.feedback, 1, p.held, t0 - q0, at.channel);
    }
}

/* u[t] of a stretch of inputs y, on top of what the past adds, and when the neuron fires, as bits. */
template <class W, int V, int S, int P>
MFP_DEVICE void run_stretch(const FirFeedback &p, const Place &at, const Parameters<W, P> &m, const W (&y)[S][V],
                            W (&u)[S][V], u32 (&own)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++) own[i] = 0;
    W taps[S][P];
    if (p.reset == ZERO) {
        load_taps(p.weights, 0, p.order, at.channel, taps);
        int age[V]; /* steps since the neuron fired in this stretch */
#pragma unroll
        for (int i = 0; i < V; i++) age[i] = S;
#pragma unroll
        for (int t = 0; t < S; t++)
#pragma unroll
            for (int i = 0; i < V; i++) {
                W sum = own[i] ? W(0) : u[t][i];
#pragma unroll
                for (int j = 0; j <= t; j++)
                    if (j < p.order && j < age[i]) sum += taps[j][i % P] * y[t - j][i];
                const bool fired = fires(sum, m.threshold[i % P], p.strict);
                u[t][i] = sum;
                own[i] |= (fired ? 1u : 0u) << t;
                age[i] = fired ? 1 : age[i] + 1;
            }
        return;
    }
#pragma unroll
    for (int j = 0; j < S; j++) { /* taps beyond the order are not times zero: what is forgotten may be NaN */
        if (j >= p.order) break;
        W tap[P];
#pragma unroll
        for (int i = 0; i < P; i++) tap[i] = weight<W>(p.weights, j, at.channel + i);
#pragma unroll
        for (int t = j; t < S; t++)
#pragma unroll
            for (int i = 0; i < V; i++) u[t][i] += tap[i % P] * y[t - j][i];
    }
    load_taps(p.feedback, 1, p.held, at.channel, taps);
#pragma unroll
    for (int t = 0; t < S; t++)
#pragma unroll
        for (int i = 0; i < V; i++) {
            const bool fired = fires(u[t][i], m.threshold[i % P], p.strict);
            own[i] |= (fired ? 1u : 0u) << t;
#pragma unroll
            for (int j = 1; t + j < S; j++) u[t + j][i] += fired ? taps[j][i % P] : W(0);
        }
}

template <class X, class W, int V, int S, int P>
MFP_DEVICE void widen_inputs(const Parameters<W, P> &m, const Pack<X, V> (&x)[S], W (&y)[S][V]) {
#pragma unroll
    for (int s = 0; s < S; s++) {
        widen_pack(x[s], y[s]);
#pragma unroll
        for (int i = 0; i < V; i++) y[s][i] = m.input(y[s][i], i);
    }
}

MFP_DEVICE int last_bit(u32 bits) { /* -1 of none */
    int last = -1;
    for (; bits; bits >>= 1) last++;
    return last;
}

template <class X, int V, int S, bool ALONG>
__global__ void LANES_BOUNDS(X, (ALONG ? V * S : S)) fir_feedback_forward(const FirFeedback p) {
    typedef Wide<X> W;
    constexpr int P = ALONG ? V : 1;
    const Place at = place<V>(p.columns, static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x);
    const Parameters<W, P> m(p, at.channel);
    Past<V> past;
    start<X>(p, at, past);
    i64 t0 = 0;
    do {
        const Live live = live_steps<S>(at, t0, p.steps);
        Pack<X, V> x[S];
        load_steps(p.x, at, t0, live, x);
        W y[S][V], u[S][V];
        add_past<X>(p, at, m, t0, past, u);
        widen_inputs(m, x, y);
        run_stretch(p, at, m, y, u, past.own);
        Writer<X> writer(p, at, t0, live);
#pragma unroll
        for (int t = 0; t < S; t++) writer.step(t, u[t], m.threshold);
#pragma unroll
        for (int i = 0; i < V; i++) {
            if (p.reset == ZERO && past.own[i]) past.from[i] = t0 + last_bit(past.own[i]) + 1;
            if (p.g.data && at.active) column<u32>(p.g, at, divide(t0, S))[i] = past.own[i];
        }
        t0 += S;
    } while (S > 4 && t0 < p.steps); /* up to four steps are a whole sequence */
}

/* ---- backward of up to S steps at rest ---- */

/* ZERO: steps since the last own spike before t and since the one before that; S where there is none. */
template <int S> MFP_DEVICE void ages(u32 own, int t, int &age, int &before) {
    age = before = S;
#pragma unroll
    for (int j = S - 1; j >= 1; j--)
        if (j <= t && (own >> (t - j) & 1)) {
            before = age;
            age = j;
        }
}

/* a = dL/du of every step, from u, last step first; zeros beyond the end. */
template <int KIND, class X, class W, int V, int S, int P>
MFP_DEVICE void go_back(const FirFeedback &p, const Place &at, const Parameters<W, P> &m, const Live &live,
                        const Pack<X, V> (&x)[S], const Pack<X, V> (&ds)[S], const u32 (&own)[V], W (&a)[S][V],
                        W (&sum)[P]) {
    const Surrogate<W> surrogate = {static_cast<W>(p.a), static_cast<W>(p.b)};
    const bool zero = p.reset == ZERO;
    W gs[S][V], taps[S][P]; /* dL/ds; what a step gives back to the spikes before it is weighed with */
    load_taps(zero ? p.weights : p.feedback, zero ? 0 : 1, zero ? p.order : p.held, at.channel, taps);
#pragma unroll
    for (int t = 0; t < S; t++) widen_pack(ds[t], gs[t]);
#pragma unroll
    for (int t = S - 1; t >= 0; t--) {
        const bool is_live = t < live.count, has_own = p.u.data && (p.all_steps ? is_live : t == live.last);
        const Pack<W, V> du = load<V>(column<const W>(p.u, at, p.all_steps ? t : 0), has_own);
#pragma unroll
        for (int i = 0; i < V; i++) {
            const W share = gs[t][i] * derivative<KIND>(a[t][i] - m.threshold[i % P], surrogate);
            a[t][i] = is_live ? share + du.lane[i] : W(0);
            if (!is_live) continue;
            sum[i % P] += share;
            if (p.detach) continue;
            if (zero) {
                int age, before;
                ages<S>(own[i], t, age, before);
                W running = 0; /* of give_back_to_spike */
#pragma unroll
                for (int j = t; j >= 1; j--)
                    if (j < p.order) {
                        const W weighted = taps[j][i % P] * a[t][i] * m.input(widen(x[t - j].lane[i]), i);
                        gs[t - j][i] += give_back_to_spike(running, j, age, before, weighted);
                    }
            } else {
#pragma unroll
                for (int j = t; j >= 1; j--) gs[t - j][i] += taps[j][i % P] * a[t][i];
            }
        }
    }
}

template <class X, int V, int S, bool ALONG, int KIND>
__global__ void LANES_BOUNDS(X, (ALONG ? V * S : S)) fir_feedback_backward(const FirFeedback p) {
    typedef Wide<X> W;
    constexpr int P = ALONG ? V : 1;
    enum { OF_OWN = S, OF_SPIKES = 2 * S, OF_ADJOINT, OF_INPUT, SUMS }; /* those of the taps are first, each its lag */
    const bool zero = p.reset == ZERO;
    W sums[SUMS][P] = {};
    for (i64 tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
        const Place at = place<V>(p.columns, tile * blockDim.x + threadIdx.x);
        const Live live = live_steps<S>(at, 0, p.steps);
        Pack<X, V> x[S], ds[S];
        load_steps(p.x, at, 0, live, x);
        load_steps(p.spikes, at, 0, p.spikes.data ? live : Live{0, -1}, ds);
        const Parameters<W, P> m(p, at.channel);
        W a[S][V] = {}; /* the potential, and then dL/du */
        u32 own[V];
        {
            W y[S][V];
            widen_inputs(m, x, y);
            run_stretch(p, at, m, y, a, own);
        }
        go_back<KIND>(p, at, m, live, x, ds, own, a, sums[OF_SPIKES]);
        W gy[S][V] = {};
#pragma unroll
        for (int j = 0; j < S; j++) {
            if (j >= p.order) break;
            W tap[P];
#pragma unroll
            for (int i = 0; i < P; i++) tap[i] = weight<W>(p.weights, j, at.channel + i);
#pragma unroll
            for (int s = 0; s + j < S; s++)
#pragma unroll
                for (int i = 0; i < V; i++) {
                    const u32 between = zero ? own[i] >> s & ((1u << j) - 1) : 0; /* spikes that cut the input off */
                    if (between || s + j >= live.count) continue;
                    gy[s][i] += tap[i % P] * a[s + j][i];
                    sums[j][i % P] += a[s + j][i] * m.input(widen(x[s].lane[i]), i);
                }
        }
#pragma unroll
        for (int j = 1; j < S; j++)
#pragma unroll
            for (int t = j; t < S; t++)
#pragma unroll
                for (int i = 0; i < V; i++) sums[OF_OWN + j][i % P] += own[i] >> (t - j) & 1 ? a[t][i] : W(0);
        X *gx = column<X>(p.gx, at, 0);
#pragma unroll
        for (int s = 0; s < S; s++, gx += p.gx.time) {
            W out[V], input[V];
            widen_pack(x[s], input);
#pragma unroll
            for (int i = 0; i < V; i++) {
                out[i] = m.scale[i % P] * gy[s][i];
                sums[OF_ADJOINT][i % P] += gy[s][i];
                sums[OF_INPUT][i % P] += gy[s][i] * input[i];
            }
            if (p.gx.data && s < live.count) store(gx, narrow_pack<X, V>(out));
        }
    }
    if (!p.partials.data) return;
    MFP_SHARED(SumsOf<W MFP_COMMA P>, shared);
#pragma unroll
    for (int k = 0; k < SUMS; k++) store_sum(p.partials, k, 0, blockIdx.x, sums[k], shared);
}

/* ---- backward of more steps, or with a state ---- */

struct Adjoint : FirFeedback {
    Strided fired;   /* the spikes of every step, as the forward wrote them */
    Strided pending; /* ZERO: what later steps give back to the spikes, wide, zeros, [held + T, A, B] */
};

/* The neuron's spike at step q, from -held on. */
template <class X> MFP_DEVICE bool fired_at(const Adjoint &p, const Place &at, i64 q) {
    if (q >= 0) return widen(*column<const X>(p.fired, at, q)) != 0;
    return p.own.data && q >= -p.held && widen(*column<const X>(p.own, at, q + p.held)) != 0;
}

/* Step t of the way back: g[t] = u[t] becomes a[t], of D = dL/ds[t]. */
template <int KIND, class X, class W>
MFP_DEVICE W turn(const Adjoint &p, const Place &at, const Parameters<W, 1> &m, i64 t, W spikes, W &sum) {
    const Surrogate<W> surrogate = {static_cast<W>(p.a), static_cast<W>(p.b)};
    W *g = column<W>(p.g, at, t);
    const W share = spikes * derivative<KIND>(*g - m.threshold[0], surrogate);
    const bool has_own = p.u.data && (p.all_steps || t == p.steps - 1);
    const W a = share + (has_own ? *column<const W>(p.u, at, p.all_steps ? t : 0) : W(0));
    sum += share;
    *g = a;
    return a;
}

/* The gradient of spike t from outside. */
template <class X> MFP_DEVICE Wide<X> outer_gradient(const Adjoint &p, const Place &at, i64 t) {
    return p.spikes.data ? widen(*column<const X>(p.spikes, at, t)) : Wide<X>(0);
}

enum { STRETCH = 16 };

/* TAPS: STRETCH steps at once gather from later ones, and then from each other. */
template <int KIND, class X, class W>
MFP_DEVICE void go_back_with_taps(const Adjoint &p, const Place &at, const Parameters<W, 1> &m, W &sum) {
    W taps[STRETCH][1];
    load_taps(p.feedback, 1, p.held, at.channel, taps);
    const i64 end = p.gown.data && !p.detach ? -p.held : 0; /* how far back */
    for (i64 t0 = divide(p.steps - 1, STRETCH) * STRETCH; t0 + STRETCH > end; t0 -= STRETCH) {
        W gs[STRETCH][1];
#pragma unroll
        for (int s = 0; s < STRETCH; s++)
            gs[s][0] = t0 >= 0 && t0 + s < p.steps ? outer_gradient<X>(p, at, t0 + s) : W(0);
        for (i64 q0 = t0 + STRETCH; q0 < p.steps && q0 < t0 + STRETCH + p.held && !p.detach; q0 += STRETCH) {
            if (q0 < 0) continue;
            W terms[STRETCH][1];
#pragma unroll
            for (int k = 0; k < STRETCH; k++)
                terms[k][0] = q0 + k < p.steps ? *column<const W>(p.g, at, q0 + k) : W(0);
            add_lags<true, 1>(gs, terms, p.feedback, 1, p.held, q0 - t0, at.channel);
        }
#pragma unroll
        for (int s = STRETCH - 1; s >= 0; s--) {
            if (t0 >= 0 && t0 + s < p.steps) {
                const W a = turn<KIND, X>(p, at, m, t0 + s, gs[s][0], sum);
#pragma unroll
                for (int j = 1; j <= s; j++)
                    if (!p.detach) gs[s - j][0] += taps[j][0] * a;
            } else if (t0 < 0 && t0 + s >= -p.held && p.gown.data) {
                *column<X>(p.gown, at, t0 + s + p.held) = narrow<X>(gs[s][0]);
            }
        }
    }
}

/* ZERO: each step gives back to the spikes that its inputs have passed. */
template <int KIND, class X, class W>
MFP_DEVICE void go_back_with_zero(const Adjoint &p, const Place &at, const Parameters<W, 1> &m, W &sum) {
    for (i64 t = p.steps - 1; t >= 0; t--) {
        W *pending = column<W>(p.pending, at, t + p.held);
        const W a = turn<KIND, X>(p, at, m, t, outer_gradient<X>(p, at, t) + *pending, sum);
        if (p.detach) continue;
        i64 age = 1, before; /* steps since the last own spike and since the one before it, or the order */
        while (age < p.order && !fired_at<X>(p, at, t - age)) age++;
        before = age < p.order ? age + 1 : age;
        while (before < p.order && !fired_at<X>(p, at, t - before)) before++;
        const i64 reach = t + p.before < before - 1 ? t + p.before : before - 1; /* lag of the oldest input */
        W running = 0;
        for (i64 j = reach; j >= 1; j--) {
            W y[1];
            load_input<X>(p, at, m, t - j, y);
            pending[-j * p.pending.time] +=
                give_back_to_spike(running, j, age, before, a * weight<W>(p.weights, j, at.channel) * y[0]);
        }
    }
    if (!p.gown.data) return;
    for (i64 q = 0; q < p.held; q++) *column<X>(p.gown, at, q) = narrow<X>(*column<const W>(p.pending, at, q));
}

template <class X, int KIND> __global__ void LANES_BOUNDS(X, STRETCH) feedback_adjoint(const Adjoint p) {
    typedef Wide<X> W;
    W sum[1] = {};
    for (i64 tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
        const Place at = place<1>(p.columns, tile * blockDim.x + threadIdx.x);
        if (!at.active) continue;
        const Parameters<W, 1> m(p, at.channel);
        if (p.reset == ZERO)
            go_back_with_zero<KIND, X>(p, at, m, sum[0]);
        else
            go_back_with_taps<KIND, X>(p, at, m, sum[0]);
    }
    if (!p.partials.data) return;
    MFP_SHARED(SumsOf<W MFP_COMMA 1>, shared);
    store_sum(p.partials, 0, 0, blockIdx.x, sum, shared);
}

/* ---- ZERO: sums over a that stop at own spikes ---- */

struct ZeroSums : Adjoint {
    i64 span; /* steps a block (blockIdx.y), from -before on for the inputs, from 0 on for the taps */
};

/* dL/dy[s] = sum over j of m[j] a[s+j], up to the first own spike from s on. */
template <class X> __global__ void MFP_BOUNDS(X) zero_adjoint(const ZeroSums p) {
    typedef Wide<X> W;
    W totals[2][1] = {};
    const i64 s0 = blockIdx.y * p.span - p.before, s1 = s0 + p.span < p.steps ? s0 + p.span : p.steps;
    for (i64 tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
        const Place at = place<1>(p.columns, tile * blockDim.x + threadIdx.x);
        if (!at.active) continue;
        const Parameters<W, 1> m(p, at.channel);
        for (i64 s = s0; s < s1; s++) {
            W sum = 0;
            for (i64 j = 0; j < p.order && s + j < p.steps; j++) {
                if (s + j >= 0) sum += weight<W>(p.weights, j, at.channel) * *column<const W>(p.g, at, s + j);
                if (fired_at<X>(p, at, s + j)) break;
            }
            if (s < 0) {
                if (p.gstate.data) *column<X>(p.gstate, at, s + p.before) = narrow<X>(sum);
                continue;
            }
            if (p.gx.data) *column<X>(p.gx, at, s) = narrow<X>(m.scale[0] * sum);
            totals[0][0] += sum;
            totals[1][0] += sum * widen(*column<const X>(p.x, at, s));
        }
    }
    if (!p.partials.data) return;
    MFP_SHARED(SumsOf<W MFP_COMMA 1>, shared);
    for (int k = 0; k < 2; k++) store_sum(p.partials, k, blockIdx.y, blockIdx.x, totals[k], shared);
}

enum { ROWS = 8 }; /* taps a thread sums for */

/* dL/dm[j] = sum over t of a[t] y[t-j], where no own spike lies between. A block has ROWS taps (blockIdx.z). */
template <class X> __global__ void MFP_BOUNDS(X) zero_tap_gradient(const ZeroSums p) {
    typedef Wide<X> W;
    const i64 tap = static_cast<i64>(blockIdx.z) * ROWS;
    const i64 t0 = blockIdx.y * p.span, t1 = t0 + p.span < p.steps ? t0 + p.span : p.steps;
    W sums[ROWS][1] = {};
    for (i64 tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
        const Place at = place<1>(p.columns, tile * blockDim.x + threadIdx.x);
        if (!at.active) continue;
        const Parameters<W, 1> m(p, at.channel);
        i64 age = 1; /* steps since the last own spike, or the order */
        while (age < p.order && !fired_at<X>(p, at, t0 - age)) age++;
        for (i64 t = t0; t < t1; t++) {
            const W a = *column<const W>(p.g, at, t);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                W y[1];
                const bool reached = tap + r < p.order && tap + r < age;
                if (reached) load_input<X>(p, at, m, t - tap - r, y);
                sums[r][0] += reached ? a * y[0] : W(0);
            }
            age = fired_at<X>(p, at, t) ? 1 : age + 1;
        }
    }
    MFP_SHARED(SumsOf<W MFP_COMMA 1>, shared);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (tap + r < p.order) store_sum(p.partials, tap + r, blockIdx.y, blockIdx.x, sums[r], shared);
}

} /* namespace mfp */
