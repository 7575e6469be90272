/* The host kernels behind a plain C interface, which backends/cpu.py calls through ctypes; each header ends with
 * its entry points. */
#include "exponential.h"
#include "finite.h"
#include "norm.h"
#include "pool.h"

extern "C" int64_t mfp_call_size() { return sizeof(mfp::Call); }

/* The name of a surrogate, for the test that C and Python number them alike; null past the last. */
extern "C" const char *mfp_surrogate_name(int number) {
#define MFP_NAME(name) #name,
    static const char *const names[] = {MFP_SURROGATES(MFP_NAME) nullptr};
    return names[number];
}

extern "C" int mfp_has_threads() {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}
