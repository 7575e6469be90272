/* The host kernels behind a plain C interface; backends/cpu.py calls them through ctypes. */
#include "exponential.h"
#include "finite.h"
#include "norm.h"

using namespace mfp;

enum Dtype { FLOAT, DOUBLE, HALF, BFLOAT };

#define MFP_ENTRY(name, kernel, function)                                                                              \
    extern "C" void name(const Call *call) {                                                                           \
        switch (call->dtype) {                                                                                         \
        case FLOAT: return kernel<float>::function(*call);                                                             \
        case DOUBLE: return kernel<double>::function(*call);                                                           \
        case HALF: return kernel<Half>::function(*call);                                                               \
        default: return kernel<BFloat>::function(*call);                                                               \
        }                                                                                                              \
    }

MFP_ENTRY(mfp_exponential_forward, Exponential, forward)
MFP_ENTRY(mfp_exponential_backward, Exponential, backward)
MFP_ENTRY(mfp_finite_forward, Finite, forward)
MFP_ENTRY(mfp_finite_backward, Finite, backward)
MFP_ENTRY(mfp_moments, Norm, moments)
MFP_ENTRY(mfp_add_affine, Norm, add_affine)

extern "C" int64_t mfp_call_size() { return sizeof(Call); }

extern "C" int mfp_has_threads() {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}
