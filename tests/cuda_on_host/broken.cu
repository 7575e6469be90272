/* Kernels with one mistake each, and one without, to see that the host build notices. */
#include "scan.cuh"

using namespace mfp;

struct Broken {
    float *x;
    i64 count;
    u64 *words;
};

struct Row {
    float at[64];
};

template <int> __global__ void right(const Broken p) {
    MFP_SHARED(Row, shared);
    shared.at[threadIdx.x] = p.x[threadIdx.x];
    __syncthreads();
    p.x[threadIdx.x] = shared.at[63 - threadIdx.x];
}

template <int> __global__ void reads_past_the_end(const Broken p) { p.x[threadIdx.x] = p.x[threadIdx.x + 1]; }

template <int> __global__ void writes_past_the_end(const Broken p) { p.x[threadIdx.x + 1] = 0; }

template <int> __global__ void forgets_a_barrier(const Broken p) {
    MFP_SHARED(Row, shared);
    shared.at[threadIdx.x] = p.x[threadIdx.x];
    p.x[threadIdx.x] = shared.at[63 - threadIdx.x];
}

template <int> __global__ void overwrites_what_is_read(const Broken p) {
    MFP_SHARED(Row, shared);
    shared.at[threadIdx.x] = 1;
    __syncthreads();
    p.x[threadIdx.x] = shared.at[63 - threadIdx.x];
    shared.at[threadIdx.x] = 2;
}

template <int> __global__ void reads_what_nothing_wrote(const Broken p) {
    MFP_SHARED(Row, shared);
    if (threadIdx.x > 0) shared.at[threadIdx.x] = 1;
    __syncthreads();
    p.x[threadIdx.x] = shared.at[63 - threadIdx.x];
}

template <int> __global__ void waits_at_two_barriers(const Broken p) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

template <int> __global__ void is_not_aligned(const Broken p) {
    if (threadIdx.x == 0) store(p.x, load<4>(p.x + 1));
}

/* The first block waits for the last: no order of blocks helps if fewer than all of them fit. */
template <int> __global__ void waits_for_a_later_block(const Broken p) {
    if (threadIdx.x > 0) return;
    if (blockIdx.x < gridDim.x - 1)
        p.x[blockIdx.x] = receive<float>(p.words);
    else
        publish(p.words, 1.0f);
}
