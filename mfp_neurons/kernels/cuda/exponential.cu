/* The exponential neuron, forward and backward, for every T: one design.
 *
 * A thread holds S steps of V neurons in registers; a block covers a tile of neurons (blockDim.x lanes) and
 * blockDim.y segments of S steps; more steps than that are chunks (scan.cuh). Up to S steps there is one segment
 * and no scan. The input is read once and each output written once; the backward computes the potential again
 * from the input. Twin: backends/torch.py. */
#include "scan.cuh"

namespace mfp {

struct Exp : Call {
    Chunks chunks;
};

/* Sums that give the parameters' gradients; a = dL/du with all later steps in it. */
enum { OF_SPIKES /* g's spikes' share */, OF_ADJOINT /* a */, OF_INPUT /* a x */, OF_BEFORE /* a u[t-1] */, SUMS };

template <class W, int P> struct ExpParameters : Parameters<W, P> {
    W decay[P], gain[P];

    MFP_DEVICE ExpParameters(const Call &p, i64 channel) : Parameters<W, P>(p, channel) {
#pragma unroll
        for (int i = 0; i < P; i++) {
            decay[i] = weight<W>(p.weights, 0, channel + i);
            gain[i] = weight<W>(p.weights, 1, channel + i);
        }
    }

    /* The potential of the group's neuron i one step after u. */
    MFP_DEVICE W next(W u, W x, int i) const { return step(u, this->input(x, i), decay[i % P], gain[i % P]); }
};

/* The first of this thread's steps; up to four are a whole sequence. */
template <int S> MFP_DEVICE i64 first_step(const Task &task) {
    return S > 4 ? (task.chunk * blockDim.y + threadIdx.y) * S : 0;
}

/* u = the potential before this thread's steps. `ends`: only what later chunks wait for is wanted. */
template <class X, class W, int V, int S, int P>
MFP_DEVICE void potential_before(const Exp &p, const Task &task, const Place &at, const ExpParameters<W, P> &m,
                                 const Pack<X, V> (&x)[S], W (&u)[V], bool hand_on, bool wanted) {
#pragma unroll
    for (int i = 0; i < V; i++) u[i] = 0;
    if (p.state.data && at.active && task.chunk == 0 && threadIdx.y == 0) {
        const Pack<W, V> state = load<V>(column<const W>(p.state, at, 0));
#pragma unroll
        for (int i = 0; i < V; i++) u[i] = state.lane[i];
    }
    if constexpr (S > 4) {
        if (blockDim.y == 1 && p.chunks.chunks == 1) return;
        MFP_SHARED(Segments<W MFP_COMMA V>, segments);
        W end[V], decay_segment[V], carry[V];
#pragma unroll
        for (int i = 0; i < V; i++) {
            end[i] = u[i];
            decay_segment[i] = power(m.decay[i % P], S);
        }
#pragma unroll
        for (int s = 0; s < S; s++) {
            W input[V];
            widen_pack(x[s], input);
#pragma unroll
            for (int i = 0; i < V; i++) end[i] = m.next(end[i], input[i], i);
        }
        Scan<W, V>(segments, p.chunks, task, false).run(end, decay_segment, carry, hand_on, wanted);
#pragma unroll
        for (int i = 0; i < V; i++) u[i] += carry[i]; /* one of the two is zero */
    }
}

template <class X, int V, int S, bool ALONG>
__global__ void MFP_BOUNDS(X) exp_forward(const Exp p) {
    typedef Wide<X> W;
    constexpr int P = ALONG ? V : 1;
    for (Tasks<(S > 4)> tasks(p.chunks, false, false); tasks.more();) {
        const Task task = tasks.take();
        const Place at = place<V>(p.columns, task.tile * blockDim.x + threadIdx.x);
        const i64 t0 = first_step<S>(task);
        const Live live = live_steps<S>(at, t0, p.steps);
        Pack<X, V> x[S];
        load_steps(p.x, at, t0, live, x);
        const ExpParameters<W, P> m(p, at.channel);
        W u[V];
        potential_before(p, task, at, m, x, u, true, true);
        Writer<X> writer(p, at, t0, live);
#pragma unroll
        for (int s = 0; s < S; s++) {
            W input[V];
            widen_pack(x[s], input);
#pragma unroll
            for (int i = 0; i < V; i++) u[i] = m.next(u[i], input[i], i);
            writer.step(s, u, m.threshold);
        }
    }
}

template <class X, int V, int S, bool ALONG, int KIND, bool PARAMS>
__global__ void MFP_BOUNDS(X) exp_backward(const Exp p) {
    typedef Wide<X> W;
    constexpr int P = ALONG ? V : 1;
    constexpr bool AGAIN = KIND != NO_SPIKES || PARAMS; /* the potential is computed again */
    const Surrogate<W> surrogate = {static_cast<W>(p.a), static_cast<W>(p.b)};
    W sums[SUMS][P] = {};
    Task task = {};
    for (Tasks<(S > 4)> tasks(p.chunks, true, AGAIN); tasks.more();) {
        task = tasks.take();
        const Place at = place<V>(p.columns, task.tile * blockDim.x + threadIdx.x);
        const i64 t0 = first_step<S>(task);
        const Live live = live_steps<S>(at, t0, p.steps);
        const ExpParameters<W, P> m(p, at.channel);
        Pack<X, V> x[S], ds[S];
        W u[V], before[PARAMS ? S : 1][V], g[S][V];
        if (AGAIN) load_steps(p.x, at, t0, live, x);
        if (KIND != NO_SPIKES && !task.ends) load_steps(p.spikes, at, t0, live, ds);
        if (AGAIN) potential_before(p, task, at, m, x, u, task.ends, !task.ends);
        if (task.ends) continue;
#pragma unroll
        for (int s = 0; s < S; s++) {
            W input[V], spikes[V]; /* the gradient of the spikes */
            if (AGAIN) widen_pack(x[s], input);
            if (KIND != NO_SPIKES) widen_pack(ds[s], spikes);
#pragma unroll
            for (int i = 0; i < V; i++) {
                if (AGAIN) {
                    if (PARAMS) before[s][i] = u[i];
                    u[i] = m.next(u[i], input[i], i);
                }
                g[s][i] = 0;
                if (KIND != NO_SPIKES) g[s][i] = spikes[i] * derivative<KIND>(u[i] - m.threshold[i % P], surrogate);
                if (PARAMS) sums[OF_SPIKES][i % P] += g[s][i];
            }
        }
        if (p.u.data) add_own_gradient(p, at, t0, live, g);
        W a[V] = {};
        if constexpr (S > 4) {
            if (blockDim.y > 1 || p.chunks.chunks > 1) {
                MFP_SHARED(Segments<W MFP_COMMA V>, segments);
                W decay_segment[V], carry[V];
#pragma unroll
                for (int i = 0; i < V; i++) decay_segment[i] = power(m.decay[i % P], S);
#pragma unroll
                for (int s = S - 1; s >= 0; s--)
#pragma unroll
                    for (int i = 0; i < V; i++) a[i] = m.decay[i % P] * a[i] + g[s][i];
                Scan<W, V>(segments, p.chunks, task, true).run(a, decay_segment, carry, true, true);
#pragma unroll
                for (int i = 0; i < V; i++) a[i] = carry[i];
            }
        }
        X *gx = column<X>(p.gx, at, t0) + (S - 1) * p.gx.time;
#pragma unroll
        for (int s = S - 1; s >= 0; s--, gx -= p.gx.time) {
            W out[V], input[V];
            if (PARAMS) widen_pack(x[s], input);
#pragma unroll
            for (int i = 0; i < V; i++) {
                a[i] = m.decay[i % P] * a[i] + g[s][i];
                out[i] = m.gain[i % P] * m.scale[i % P] * a[i];
                if (PARAMS) {
                    sums[OF_ADJOINT][i % P] += a[i];
                    sums[OF_INPUT][i % P] += a[i] * input[i];
                    sums[OF_BEFORE][i % P] += a[i] * before[s][i];
                }
            }
            if (p.gx.data && s < live.count) store(gx, narrow_pack<X, V>(out));
        }
        if (p.gstate.data && at.active && t0 == 0) {
            Pack<W, V> out;
#pragma unroll
            for (int i = 0; i < V; i++) out.lane[i] = m.decay[i % P] * a[i];
            store(column<W>(p.gstate, at, 0), out);
        }
    }
    if (!PARAMS || task.ends) return;
    MFP_SHARED(SumsOf<W MFP_COMMA P>, shared);
    const bool drawn = S > 4 && p.chunks.ticket;
    for (int k = 0; k < SUMS; k++)
        store_sum(p.partials, k, drawn ? task.chunk : 0, drawn ? task.tile : blockIdx.x, sums[k], shared);
}

} /* namespace mfp */
