/* Sums over neurons and time in a fixed order: a block's, written where no other block writes, then those of
 * all blocks (sums.cu). */
#pragma once

#include "common.cuh"

namespace mfp {

/* [sums][rows][width], wide; null where nobody asks. A block adds up its lanes of equal channels, which leaves
 * `left` lanes; a row holds a number a channel of each lane left, so it repeats the channels as neurons do. */
struct Partials {
    void *data;
    i64 rows, width, left;
};

template <class W, int P> struct SumsOf {
    W of_thread[THREADS * P];
};

/* Writes sum k of this block, block `tile` of row `row`; values holds a number a channel of the thread's group. */
template <class W, int P>
MFP_DEVICE void store_sum(const Partials &to, i64 k, i64 row, i64 tile, const W (&values)[P], SumsOf<W, P> &shared) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, left = static_cast<int>(to.left);
    W *out = static_cast<W *>(to.data) + (k * to.rows + row) * to.width, *own = shared.of_thread + thread * P;
    __syncthreads(); /* the memory served another sum */
    for (int i = 0; i < P; i++) own[i] = values[i];
    for (int half = blockDim.x * blockDim.y / 2; half >= left; half /= 2) {
        __syncthreads();
        if (thread < half)
            for (int i = 0; i < P; i++) own[i] += own[half * P + i];
    }
    if (thread >= left) return;
    for (int i = 0; i < P; i++) out[(tile * left + thread) * P + i] = own[i];
}

} /* namespace mfp */
