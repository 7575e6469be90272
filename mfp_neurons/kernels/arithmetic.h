/* The neuron's arithmetic: every equation once, in functions that a C++ compiler and NVRTC both accept.
 *
 *     u[t] = decay * u[t-1] + gain * (scale * x[t] + shift)          exponential history
 *     s[t] = u[t] >= threshold                                       strict: u[t] > threshold
 *     g[t] = dL/ds[t] * surrogate'(u[t] - threshold) + dL/du[t]
 *
 * With a reset, what the neuron's own last spikes change is added; see below.
 *
 * Inputs and outputs are float, double, Half or BFloat; sums are float, or double for double. Twin: the
 * stock operators of backends/torch.py and the derivatives of surrogate.py. No headers, so that NVRTC needs
 * no search path. */
#pragma once

#if defined(__CUDACC__)
#define MFP_FN __host__ __device__ __forceinline__
#else
#define MFP_FN inline __attribute__((always_inline))
#endif

namespace mfp {

typedef long long i64;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/* ---- sixteen-bit floats: storage only, all arithmetic is in float ---- */

struct Half {
    u16 bits;
};
struct BFloat {
    u16 bits;
};

template <class X> struct IsHalf {
    enum { value = false };
};
template <> struct IsHalf<Half> {
    enum { value = true };
};

template <class X> struct WideOf {
    typedef float type;
};
template <> struct WideOf<double> {
    typedef double type;
};
template <class X> using Wide = typename WideOf<X>::type;

MFP_FN u32 bits_of(float value) {
#ifdef __CUDA_ARCH__
    return __float_as_uint(value);
#else
    u32 bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

MFP_FN float float_of(u32 bits) {
#ifdef __CUDA_ARCH__
    return __uint_as_float(bits);
#else
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

MFP_FN float widen(float value) { return value; }
MFP_FN double widen(double value) { return value; }
MFP_FN float widen(BFloat value) { return float_of(static_cast<u32>(value.bits) << 16); }
MFP_FN float widen(Half value) {
#ifdef __CUDA_ARCH__
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return wide;
#else
    /* exponent and mantissa moved into a float's fields and scaled by 2^112 are right for subnormals too;
     * infinities and NaNs need their exponent filled up */
    const u32 magnitude = value.bits & 0x7fffu, sign = static_cast<u32>(value.bits & 0x8000u) << 16;
    const u32 scaled = bits_of(float_of(magnitude << 13) * 0x1p112f);
    const u32 special = magnitude >= 0x7c00u ? 0x7f800000u : 0u;
    return float_of(scaled | special | sign);
#endif
}

template <class X> MFP_FN X narrow(Wide<X> value);
template <> MFP_FN float narrow<float>(float value) { return value; }
template <> MFP_FN double narrow<double>(double value) { return value; }
template <> MFP_FN BFloat narrow<BFloat>(float value) { /* to nearest, ties to even */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    BFloat narrowed;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrowed.bits) : "f"(value));
    return narrowed;
#else
    const u32 bits = bits_of(value);
    const u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return BFloat{static_cast<u16>(is_nan ? (bits >> 16) | 0x40u : rounded)};
#endif
}
template <> MFP_FN Half narrow<Half>(float value) { /* to nearest, ties to even */
#ifdef __CUDA_ARCH__
    Half narrowed;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrowed.bits) : "f"(value));
    return narrowed;
#else
    const u32 bits = bits_of(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    const u32 rebased = magnitude - 0x38000000u; /* the exponent's bias from 127 to 15 */
    const u32 normal = (rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13;
    /* adding 0.5 leaves a subnormal's rounded mantissa in the low bits of the sum */
    const u32 subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
    const u32 finite = magnitude < 0x38800000u ? subnormal : normal;
    const u32 special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u; /* NaN, or too large */
    return Half{static_cast<u16>(sign | (magnitude >= 0x477ff000u ? special : finite))};
#endif
}

/* A spike as it is stored: 0 or 1. */
template <class X> MFP_FN X spike(bool fires) { return static_cast<X>(fires ? 1 : 0); }
template <> MFP_FN Half spike<Half>(bool fires) { return Half{static_cast<u16>(fires ? 0x3c00 : 0)}; }
template <> MFP_FN BFloat spike<BFloat>(bool fires) { return BFloat{static_cast<u16>(fires ? 0x3f80 : 0)}; }

/* ---- the recursion and the threshold ---- */

template <class W> MFP_FN W affine(W x, W scale, W shift) { return scale * x + shift; }

template <class W> MFP_FN W step(W before, W input, W decay, W gain) { return decay * before + gain * input; }

template <class W> MFP_FN bool fires(W u, W threshold, bool strict) {
    return u > threshold || (!strict && u == threshold);
}

/* ---- what a neuron's own spikes change ----
 *
 *     DECAYING   u[t] = decay u[t-1] + feedback s[t-1] + gain y[t]
 *     ZERO       u[t] = decay (1 - s[t-1]) u[t-1] + gain y[t]; of K taps: the sum of m[j] y[t-j] over j < age,
 *                the steps since the last own spike
 *     TAPS       adds the sum of r[j] s[t-j] over j = 1 .. R to the sum of the taps
 *
 * What is forgotten may be infinite, so it is left out rather than multiplied by 0. The adjoint, with
 * a[t] = dL/du[t] through all later steps and D[t] = dL/ds[t]:
 *
 *     DECAYING   D[t] = ds[t] + feedback a[t+1]         a[t] = slope D[t] + du[t] + decay a[t+1]
 *     ZERO       D[t] = ds[t] - decay u[t] a[t+1]       a[t] = slope D[t] + du[t] + decay (1 - s[t]) a[t+1]
 *
 * Detached, D[t] is ds[t]. */

/* The numbers of Call.reset, in the order of RESETS in mfp_neurons/backends/__init__.py. */
enum Reset { NO_RESET, DECAYING, ZERO, TAPS };

/* The recursion, where `fired` says whether the neuron fired in the step before. */
template <int reset, class W> MFP_FN W step(W before, bool fired, W input, W decay, W gain, W feedback) {
    if (reset == ZERO) return gain * input + (fired ? 0 : decay * before);
    const W u = step(before, input, decay, gain);
    return reset == DECAYING ? u + (fired ? feedback : 0) : u;
}

/* D[t], without detaching; later is a[t+1] */
template <int reset, class W> MFP_FN W spike_gradient(W ds, W u, W later, W decay, W feedback) {
    if (reset == DECAYING) return ds + feedback * later;
    return reset == ZERO ? ds - decay * u * later : ds;
}

/* What a[t+1] gives back to u[t] itself; `fires` of step t. */
template <int reset, class W> MFP_FN W carried_gradient(bool fires, W later, W decay) {
    return reset == ZERO && fires ? 0 : decay * later;
}

/* ZERO of K taps: the steps since the last own spike and since the one before it, one step on. */
template <class A> MFP_FN void grow_older(A &age, A &age_before, bool fires) {
    age_before = (fires ? age : age_before) + 1;
    age = (fires ? 0 : age) + 1;
}

/* ZERO of K taps, its adjoint: what step t gives back to D[t-j], called for j = K - 1 .. 1 with one sum, which
 * starts at 0; weighted = a[t] m[j] y[t-j]. Had a spike not been, the sum would go on to the spike before it; were
 * there one where there is none, the inputs from there on would be forgotten. Of numbers, or of vectors of them. */
template <class W, class A> MFP_FN W give_back_to_spike(W &sum, A j, A age, A age_before, W weighted) {
    sum += j < age_before ? weighted : W{};
    const W share = j <= age ? -sum : W{};
    sum = j == age ? W{} : sum;
    return share;
}

/* ---- surrogate derivatives ---- */

/* The list, in the order of SURROGATES in mfp_neurons/surrogate.py. To add one, put its name at the end and its
 * formula into derivative() below. */
#define MFP_SURROGATES(DO) DO(ATAN) DO(SIGMOID) DO(RECT) DO(PIECEWISE_QUADRATIC) DO(SUPER_SPIKE) DO(ERF)

#define MFP_WITH_COMMA(name) name,
enum SurrogateKind { MFP_SURROGATES(MFP_WITH_COMMA) SURROGATES /* how many there are */ };

/* A surrogate's constants, worked out once a call by kernel_constants in surrogate.py. */
template <class W> struct Surrogate {
    W a, b;
};

MFP_FN float magnitude(float value) { return value < 0 ? -value : value; }
MFP_FN double magnitude(double value) { return value < 0 ? -value : value; }

/* 1 / x of a gradient's denominator: on a GPU the hardware's approximation, within 1 unit in the last place, where
 * a correctly rounded quotient takes ten instructions and a branch. */
MFP_FN float reciprocal(float x) {
#ifdef __CUDA_ARCH__
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
    return inverse;
#else
    return 1 / x;
#endif
}
MFP_FN double reciprocal(double x) { return 1 / x; }

/* e^x for x <= 0, to about 2 units in the last place; below the smallest normal number it stays there.
 * x = n ln 2 + r: the polynomial gives e^r, the exponent's bits 2^n. NaN stays NaN. */
MFP_FN float exp_of_negative(float x) {
    x = x < -87.0f ? -87.0f : x;
    const float rounder = 0x1.8p23f, shifted = x * 1.44269504f + rounder, n = shifted - rounder;
    const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * float_of((bits_of(shifted) + 127u) << 23);
}

MFP_FN double exp_of_negative(double x) {
    x = x < -708.0 ? -708.0 : x;
    const double rounder = 0x1.8p52, shifted = x * 1.4426950408889634 + rounder, n = shifted - rounder;
    const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    double p = 1.6059043836821613e-10;
    p = p * r + 2.0876756987868099e-09;
    p = p * r + 2.5052108385441720e-08;
    p = p * r + 2.7557319223985888e-07;
    p = p * r + 2.7557319223985893e-06;
    p = p * r + 2.4801587301587302e-05;
    p = p * r + 1.9841269841269841e-04;
    p = p * r + 1.3888888888888889e-03;
    p = p * r + 8.3333333333333332e-03;
    p = p * r + 4.1666666666666664e-02;
    p = p * r + 1.6666666666666666e-01;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    u64 bits;
#ifdef __CUDA_ARCH__
    bits = static_cast<u64>(__double_as_longlong(shifted));
    return p * __longlong_as_double(static_cast<i64>((bits + 1023u) << 52));
#else
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023u) << 52;
    double power;
    __builtin_memcpy(&power, &bits, sizeof power);
    return p * power;
#endif
}

/* surrogate'(x), x = u - threshold. Infinite x gives 0, NaN stays NaN. */
template <int kind, class W> MFP_FN W derivative(W x, Surrogate<W> s) {
    if (kind == ATAN) return reciprocal(s.a * x * x + s.b); /* a = pi^2 alpha/2, b = 2/alpha */
    if (kind == SIGMOID) {                                  /* a = alpha */
        const W e = exp_of_negative(-s.a * magnitude(x));
        return s.a * e * reciprocal((1 + e) * (1 + e));
    }
    if (kind == RECT) return magnitude(x) < s.b ? s.a : 0; /* a = alpha, b = 0.5/alpha */
    if (kind == PIECEWISE_QUADRATIC) {                     /* a = alpha, b = alpha^2 */
        const W height = s.a - s.b * magnitude(x);
        return height < 0 ? 0 : height;
    }
    if (kind == SUPER_SPIKE) { /* a = alpha, b = scale */
        const W slope = 1 + s.a * magnitude(x);
        return s.b * reciprocal(slope * slope);
    }
    return s.b * exp_of_negative(-(s.a * x) * (s.a * x)); /* ERF: a = alpha, b = alpha/sqrt(pi) */
}

} /* namespace mfp */
