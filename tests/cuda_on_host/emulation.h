/* What the CUDA sources need of a CUDA compiler, for g++: kernels then run on the host, thread by thread.
 *
 * A thread is a fiber; barriers switch fibers. Several blocks run at once in random order, as on a
 * GPU, so a wait for another block works or shows that it cannot. Kernels are built with -fsanitize=kernel-address,
 * which calls a function of emulation.cpp on every access of memory: it knows which addresses a kernel was given,
 * which shared memory was written, and who touched it since the last barrier. */
#pragma once

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define MFP_SHARED(type, name)                   \
    static const int site_of_##name = new_site(); \
    type &name = *static_cast<type *>(shared_memory(site_of_##name, sizeof(type)))
#define MFP_PAUSE() pause_thread()
#define __syncthreads() barrier(__LINE__)

typedef unsigned uint2 __attribute__((vector_size(8)));
typedef unsigned uint4 __attribute__((vector_size(16)));

struct Index {
    unsigned x, y, z;
};
extern Index threadIdx, blockIdx, blockDim, gridDim;

int new_site();
void *shared_memory(int site, unsigned long bytes);
void barrier(int line);
void pause_thread();
unsigned atomicAdd(unsigned *to, unsigned value);

/* Runs a grid; null, or what went wrong. */
typedef void (*Start)(const void *arguments);
extern "C" const char *run_grid(Start start, const void *arguments, const unsigned *grid, const unsigned *block,
                                const unsigned long *ranges, unsigned count, unsigned resident, unsigned seed);
