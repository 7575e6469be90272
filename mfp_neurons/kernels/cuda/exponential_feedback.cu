/* The exponential neuron with a reset, forward and backward, for every T. What a neuron fires decides how it goes on,
 * so time is a loop in the thread, S steps in registers at once, and no scan:
 *
 *     forward    reads the input once and writes each output once, as exponential.cu does
 *     backward   up to S steps likewise; of more, a first pass over the input leaves the potential before each stretch
 *                of S steps, and the way back computes each stretch again from there
 *
 * Equations: arithmetic.h. Twin: backends/torch_feedback.py. */
#include "common.cuh"

namespace mfp {

struct ExpFeedback : Call { /* g: the potential before every stretch but the first, wide */
    Weights feedback;       /* null with ZERO */
    Strided own, gown;      /* the spike before the first step, [1, A, B], null for none; its gradient */
    i64 reset, detach;
    i64 tiles; /* of neurons */
};

/* Sums that give the parameters' gradients; a = dL/du with all later steps in it. */
enum {
    OF_SPIKES /* a's share through spikes */,
    OF_ADJOINT /* a */,
    OF_INPUT /* a x */,
    OF_BEFORE /* a u[t-1], of what is kept of it */,
    OF_OWN /* a s[t-1] */,
    SUMS
};

template <class W, int P> struct ExpFeedbackParameters : Parameters<W, P> {
    W decay[P], gain[P], feedback[P];
    const bool zero, strict;

    MFP_DEVICE ExpFeedbackParameters(const ExpFeedback &p, i64 channel)
        : Parameters<W, P>(p, channel), zero(p.reset == ZERO), strict(p.strict) {
#pragma unroll
        for (int i = 0; i < P; i++) {
            decay[i] = weight<W>(p.weights, 0, channel + i);
            gain[i] = weight<W>(p.weights, 1, channel + i);
            feedback[i] = p.feedback.data ? weight<W>(p.feedback, 0, channel + i) : W(0);
        }
    }

    /* The potential of the group's neuron i one step after u, where it had `fired`. */
    MFP_DEVICE W next(W u, bool fired, W x, int i) const {
        const W input = this->input(x, i);
        return zero ? step<ZERO>(u, fired, input, decay[i % P], gain[i % P], W(0))
                    : step<DECAYING>(u, fired, input, decay[i % P], gain[i % P], feedback[i % P]);
    }

    MFP_DEVICE bool fires_at(W u, int i) const { return fires(u, this->threshold[i % P], strict); }
};

/* What a neuron goes on from. */
template <class W, int V> struct Before {
    W u[V];
    bool fired[V];
};

template <class X, class W, int V>
MFP_DEVICE void load_before(const ExpFeedback &p, const Place &at, Before<W, V> &to) {
    const bool has_state = p.state.data && at.active, has_spike = p.own.data && at.active;
    const Pack<W, V> state = load<V>(column<const W>(p.state, at, 0), has_state);
    const Pack<X, V> own = load<V>(column<const X>(p.own, at, 0), has_spike);
#pragma unroll
    for (int i = 0; i < V; i++) {
        to.u[i] = state.lane[i];
        to.fired[i] = widen(own.lane[i]) != 0;
    }
}

/* One step on; `u` is where the potential goes. */
template <class X, class W, int V, int P>
MFP_DEVICE void go_on(const ExpFeedbackParameters<W, P> &m, const Pack<X, V> &x, Before<W, V> &before, W (&u)[V]) {
    W input[V];
    widen_pack(x, input);
#pragma unroll
    for (int i = 0; i < V; i++) {
        u[i] = m.next(before.u[i], before.fired[i], input[i], i);
        before.u[i] = u[i];
        before.fired[i] = m.fires_at(u[i], i);
    }
}

template <class X, int V, int S, bool ALONG> __global__ void MFP_BOUNDS(X) exp_feedback_forward(const ExpFeedback p) {
    typedef Wide<X> W;
    constexpr int P = ALONG ? V : 1;
    const Place at = place<V>(p.columns, static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x);
    const ExpFeedbackParameters<W, P> m(p, at.channel);
    Before<W, V> before;
    load_before<X>(p, at, before);
    i64 t0 = 0;
    do {
        const Live live = live_steps<S>(at, t0, p.steps);
        Pack<X, V> x[S];
        load_steps(p.x, at, t0, live, x);
        Writer<X> writer(p, at, t0, live);
#pragma unroll
        for (int s = 0; s < S; s++) {
            W u[V];
            go_on(m, x[s], before, u);
            writer.step(s, u, m.threshold);
        }
        t0 += S;
    } while (S > 4 && t0 < p.steps); /* up to four steps are a whole sequence */
}

/* Leaves the potential before each stretch but the first. */
template <class X, class W, int V, int S, int P>
MFP_DEVICE void keep_potentials(const ExpFeedback &p, const Place &at, const ExpFeedbackParameters<W, P> &m,
                                i64 stretches) {
    Before<W, V> before;
    load_before<X>(p, at, before);
    for (i64 k = 0; k + 1 < stretches; k++) {
        Pack<X, V> x[S];
        load_steps(p.x, at, k * S, Live{at.active ? S : 0, -1}, x);
        W u[V];
#pragma unroll
        for (int s = 0; s < S; s++) go_on(m, x[s], before, u);
        if (!at.active) continue;
        W *to = column<W>(p.g, at, k);
#pragma unroll
        for (int i = 0; i < V; i++) to[i] = u[i];
    }
}

template <class X, int V, int S, bool ALONG, int KIND>
__global__ void MFP_BOUNDS(X) exp_feedback_backward(const ExpFeedback p) {
    typedef Wide<X> W;
    constexpr int P = ALONG ? V : 1;
    const Surrogate<W> surrogate = {static_cast<W>(p.a), static_cast<W>(p.b)};
    const i64 stretches = S > 4 ? divide(p.steps + S - 1, S) : 1;
    W sums[SUMS][P] = {};
    for (i64 tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
        const Place at = place<V>(p.columns, tile * blockDim.x + threadIdx.x);
        const ExpFeedbackParameters<W, P> m(p, at.channel);
        if (S > 4) keep_potentials<X, W, V, S>(p, at, m, stretches);
        W a[V] = {};
        Before<W, V> start;
        for (i64 k = stretches - 1; k >= 0; k--) {
            const i64 t0 = k * S;
            const Live live = live_steps<S>(at, t0, p.steps);
            Pack<X, V> x[S], ds[S];
            load_steps(p.x, at, t0, live, x);
            load_steps(p.spikes, at, t0, p.spikes.data ? live : Live{0, -1}, ds);
            if (k == 0) {
                load_before<X>(p, at, start);
            } else if (at.active) {
                const W *from = column<const W>(p.g, at, k - 1);
#pragma unroll
                for (int i = 0; i < V; i++) {
                    start.u[i] = from[i];
                    start.fired[i] = m.fires_at(start.u[i], i);
                }
            }
            W u[S][V];
            Before<W, V> before = start;
#pragma unroll
            for (int s = 0; s < S; s++) go_on(m, x[s], before, u[s]);
            X *gx = column<X>(p.gx, at, t0) + (S - 1) * p.gx.time;
#pragma unroll
            for (int s = S - 1; s >= 0; s--, gx -= p.gx.time) {
                if (s >= live.count) continue;
                const bool passes = !p.detach && s != live.last; /* after the last step there is nothing */
                const bool has_own = p.u.data && (p.all_steps || s == live.last);
                const Pack<W, V> du = load<V>(column<const W>(p.u, at, p.all_steps ? t0 + s : 0), has_own);
                W out[V], input[V], spikes[V]; /* the gradient of the spikes */
                widen_pack(x[s], input);
                widen_pack(ds[s], spikes);
#pragma unroll
                for (int i = 0; i < V; i++) {
                    const W now = u[s][i], decay = m.decay[i % P], feedback = m.feedback[i % P];
                    const W earlier = s > 0 ? u[s > 0 ? s - 1 : 0][i] : start.u[i];
                    const bool fires = m.fires_at(now, i), fired = s > 0 ? m.fires_at(earlier, i) : start.fired[i];
                    if (passes)
                        spikes[i] = m.zero ? spike_gradient<ZERO>(spikes[i], now, a[i], decay, feedback)
                                           : spike_gradient<DECAYING>(spikes[i], now, a[i], decay, feedback);
                    const W share = spikes[i] * derivative<KIND>(now - m.threshold[i % P], surrogate);
                    a[i] = share + du.lane[i] +
                           (m.zero ? carried_gradient<ZERO>(fires, a[i], decay) : decay * a[i]);
                    out[i] = m.gain[i % P] * m.scale[i % P] * a[i];
                    sums[OF_SPIKES][i % P] += share;
                    sums[OF_ADJOINT][i % P] += a[i];
                    sums[OF_INPUT][i % P] += a[i] * input[i];
                    sums[OF_BEFORE][i % P] += m.zero && fired ? W(0) : a[i] * earlier;
                    sums[OF_OWN][i % P] += fired ? a[i] : W(0);
                }
                if (p.gx.data) store(gx, narrow_pack<X, V>(out));
            }
        }
        if (!at.active) continue;
        Pack<W, V> gstate;
        W gown[V];
#pragma unroll
        for (int i = 0; i < V; i++) {
            const W decay = m.decay[i % P];
            gstate.lane[i] = m.zero ? carried_gradient<ZERO>(start.fired[i], a[i], decay) : decay * a[i];
            gown[i] = m.zero ? spike_gradient<ZERO>(W(0), start.u[i], a[i], decay, W(0))
                             : spike_gradient<DECAYING>(W(0), start.u[i], a[i], decay, m.feedback[i % P]);
            if (p.detach) gown[i] = 0;
        }
        if (p.gstate.data) store(column<W>(p.gstate, at, 0), gstate);
        if (p.gown.data) store(column<X>(p.gown, at, 0), narrow_pack<X, V>(gown));
    }
    if (!p.partials.data) return;
    MFP_SHARED(SumsOf<W MFP_COMMA P>, shared);
    for (int k = 0; k < SUMS; k++) store_sum(p.partials, k, 0, blockIdx.x, sums[k], shared);
}

} /* namespace mfp */
