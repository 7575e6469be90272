/* Stores that go past the caches. An output larger than them will be read from memory anyway; written
 * through them, every line of it would first be read, a third more traffic. */
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace mfp {

constexpr int64_t LARGE = 8 << 20; /* bytes */

/* memcpy, past the caches where the machine can */
inline void stream(void *to, const void *from, int64_t bytes) {
#if defined(__AVX512F__)
    constexpr int64_t LINE = 64;
#elif defined(__AVX__)
    constexpr int64_t LINE = 32;
#else
    constexpr int64_t LINE = 16;
#endif
#if defined(__SSE2__)
    char *out = static_cast<char *>(to);
    const char *in = static_cast<const char *>(from);
    const int64_t lead = -reinterpret_cast<intptr_t>(out) & (LINE - 1);
    if (lead < bytes) {
        std::memcpy(out, in, lead);
        const int64_t end = lead + (bytes - lead) / LINE * LINE;
        for (int64_t i = lead; i < end; i += LINE) {
#if defined(__AVX512F__)
            _mm512_stream_si512(reinterpret_cast<__m512i *>(out + i), _mm512_loadu_si512(in + i));
#elif defined(__AVX__)
            _mm256_stream_si256(reinterpret_cast<__m256i *>(out + i),
                                _mm256_loadu_si256(reinterpret_cast<const __m256i *>(in + i)));
#else
            _mm_stream_si128(reinterpret_cast<__m128i *>(out + i),
                             _mm_loadu_si128(reinterpret_cast<const __m128i *>(in + i)));
#endif
        }
        std::memcpy(out + end, in + end, bytes - end);
        return;
    }
#endif
    std::memcpy(to, from, bytes);
}

/* After this, what this thread has streamed comes before whatever it writes next, for every other thread. */
inline void stream_fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/* Asks for a row that will be read soon: rows lie too far apart for the machine to guess the next. Inlined
 * always: GCC drops calls of a function that does nothing but prefetch. */
__attribute__((always_inline)) inline void prefetch(const void *row, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char *>(row) + i);
}

} /* namespace mfp */
