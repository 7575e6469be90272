/* The second stage of every sum: over the blocks of the first, each channel in one order, in float64. */
#include "sums.cuh"

namespace mfp {

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

} /* namespace mfp */
