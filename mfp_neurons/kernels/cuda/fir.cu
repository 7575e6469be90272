/* A FIR neuron at rest of up to S steps, in registers: the input is read once and each output written once, where
 * the tiles of finite.cu write dL/du to memory and read it again, and the input for each of their kernels.
 *
 *     u[t] = sum over j of m[j] y[t-j], y = scale x + shift or y = x;   dL/dy[s] = sum over j of m[j] g[s+j]
 *
 * A thread holds all steps of V neurons. More steps, or a state, take finite.cu. Twin: backends/torch_sums.py. */
#include "common.cuh"

namespace mfp {

/* Smaller blocks than elsewhere, of more registers: steps by taps sums take them. */
enum { LANES = 128 };
#define LANES_BOUNDS(X) __launch_bounds__(LANES, sizeof(Wide<X>) == 4 ? 3 : 1)

struct Fir : Call {
    i64 tiles; /* of neurons */
};

template <class W, int P> MFP_DEVICE void load_tap(const Fir &p, int j, i64 channel, W (&tap)[P]) {
#pragma unroll
    for (int i = 0; i < P; i++) tap[i] = weight<W>(p.weights, j, channel + i);
}

/* u[t] of all steps, tap by tap: taps beyond the order are not times zero, for what is forgotten may be NaN. */
template <class X, class W, int V, int S, int P>
MFP_DEVICE void potential(const Fir &p, const Place &at, const Parameters<W, P> &m, const Pack<X, V> (&x)[S],
                          W (&u)[S][V]) {
#pragma unroll
    for (int t = 0; t < S; t++)
#pragma unroll
        for (int i = 0; i < V; i++) u[t][i] = 0;
#pragma unroll
    for (int j = 0; j < S; j++) {
        if (j >= p.order) break;
        W tap[P];
        load_tap(p, j, at.channel, tap);
#pragma unroll
        for (int t = j; t < S; t++)
#pragma unroll
            for (int i = 0; i < V; i++) u[t][i] += tap[i % P] * m.input(widen(x[t - j].lane[i]), i);
    }
}

template <class X, int V, int S, bool ALONG> __global__ void LANES_BOUNDS(X) fir_forward(const Fir p) {
    typedef Wide<X> W;
    constexpr int P = ALONG ? V : 1;
    const Place at = place<V>(p.columns, static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x);
    const Live live = live_steps<S>(at, 0, p.steps);
    Pack<X, V> x[S];
    load_steps(p.x, at, 0, live, x);
    const Parameters<W, P> m(p, at.channel);
    W u[S][V];
    potential(p, at, m, x, u);
    Writer<X> writer(p, at, 0, live);
#pragma unroll
    for (int t = 0; t < S; t++) writer.step(t, u[t], m.threshold);
}

template <class X, int V, int S, bool ALONG, int KIND, bool PARAMS>
__global__ void LANES_BOUNDS(X) fir_backward(const Fir p) {
    typedef Wide<X> W;
    constexpr int P = ALONG ? V : 1;
    enum { OF_SPIKES = S, OF_ADJOINT, OF_INPUT, SUMS };
    const Surrogate<W> surrogate = {static_cast<W>(p.a), static_cast<W>(p.b)};
    const bool again = KIND != NO_SPIKES || PARAMS; /* the input is read */
    W sums[PARAMS ? SUMS : 1][P] = {};
    for (i64 tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
        const Place at = place<V>(p.columns, tile * blockDim.x + threadIdx.x);
        const Live live = live_steps<S>(at, 0, p.steps);
        Pack<X, V> x[S], ds[S];
        W g[S][V];
        if (again) load_steps(p.x, at, 0, live, x);
        if (KIND != NO_SPIKES) load_steps(p.spikes, at, 0, live, ds);
        const Parameters<W, P> m(p, at.channel);
        if (KIND != NO_SPIKES) potential(p, at, m, x, g);
#pragma unroll
        for (int t = 0; t < S; t++)
#pragma unroll
            for (int i = 0; i < V; i++) {
                if constexpr (KIND == NO_SPIKES)
                    g[t][i] = 0;
                else
                    g[t][i] = widen(ds[t].lane[i]) * derivative<KIND>(g[t][i] - m.threshold[i % P], surrogate);
                if (PARAMS) sums[OF_SPIKES][i % P] += g[t][i];
            }
        if (p.u.data) add_own_gradient(p, at, 0, live, g);
        W gy[S][V] = {};
#pragma unroll
        for (int j = 0; j < S; j++) {
            if (j >= p.order) break;
            W tap[P];
            load_tap(p, j, at.channel, tap);
#pragma unroll
            for (int s = 0; s + j < S; s++)
#pragma unroll
                for (int i = 0; i < V; i++) {
                    gy[s][i] += tap[i % P] * g[s + j][i];
                    if (PARAMS && s + j < live.count) sums[j][i % P] += g[s + j][i] * m.input(widen(x[s].lane[i]), i);
                }
        }
        X *gx = column<X>(p.gx, at, 0);
#pragma unroll
        for (int s = 0; s < S; s++, gx += p.gx.time) {
            W out[V];
#pragma unroll
            for (int i = 0; i < V; i++) {
                out[i] = m.scale[i % P] * gy[s][i];
                if (PARAMS && s < live.count) {
                    sums[OF_ADJOINT][i % P] += gy[s][i];
                    sums[OF_INPUT][i % P] += gy[s][i] * widen(x[s].lane[i]);
                }
            }
            if (p.gx.data && s < live.count) store(gx, narrow_pack<X, V>(out));
        }
    }
    if constexpr (PARAMS) {
        MFP_SHARED(SumsOf<W MFP_COMMA P>, shared);
#pragma unroll
        for (int j = 0; j < S; j++)
            if (j < p.order) store_sum(p.partials, j, 0, blockIdx.x, sums[j], shared);
#pragma unroll
        for (int k = S; k < SUMS; k++) store_sum(p.partials, p.order + k - S, 0, blockIdx.x, sums[k], shared);
    }
}

} /* namespace mfp */
