/* OpenMP, or one thread. */
#ifndef MFP_THREADS_H
#define MFP_THREADS_H

#include <stdint.h>

#ifdef _OPENMP
#include <omp.h>
static inline int64_t thread_number(void) { return omp_get_thread_num(); }
static inline int64_t threads_wanted(void) { return omp_get_max_threads(); }
static inline int64_t has_threads(void) { return 1; }
#else
static inline int64_t thread_number(void) { return 0; }
static inline int64_t threads_wanted(void) { return 1; }
static inline int64_t has_threads(void) { return 0; }
#endif

#endif
