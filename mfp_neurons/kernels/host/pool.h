/* Max pooling: the largest number of each window of an image, and where in the window it lies, in a byte.
 *
 * It is torch's max_pool2d, whose choice among equals is the first in reading order, and to which a NaN is larger
 * than all before it. For the gradient torch keeps the input and eight bytes a window; the byte is enough. */
#pragma once

#include <limits>
#include <type_traits>

#include "call.h"

namespace mfp {

struct Pool { /* _pool_numbers in backends/cpu.py writes these, in this order */
    int64_t images, height, width, out_height, out_width;
    int64_t window_height, window_width, stride_y, stride_x, padding_y, padding_x;
    int64_t dtype, threads;
};

template <class X> struct MaxPool {
    typedef Wide<X> W;
    static constexpr int64_t VECTOR = 64 / sizeof(W);
    typedef W Vector __attribute__((vector_size(64), aligned(sizeof(W)))); /* aligned as its lanes are */
    typedef std::conditional_t<sizeof(W) == 4, int32_t, int64_t> Place; /* a comparison gives as many bits */
    typedef Place Places __attribute__((vector_size(64), aligned(sizeof(W))));
    typedef uint8_t Bytes __attribute__((vector_size(VECTOR), aligned(1)));

    /* Every stride-th lane from `row` on. */
    static Vector lanes(const W *row, int64_t stride) {
        if (stride == 1) return *reinterpret_cast<const Vector *>(row);
        Vector found;
        if (stride == 2) { /* a loop that compilers make two loads and a shuffle of */
            for (int64_t i = 0; i < VECTOR; i++) found[i] = row[2 * i];
            return found;
        }
        for (int64_t i = 0; i < VECTOR; i++) found[i] = row[stride * i];
        return found;
    }

    /* An image is copied into a frame of -infinity, which no window leaves, and out of which whole vectors can be
     * read. Whole vectors are written too: what they hold beyond the end of a row, the next row replaces. */
    struct Frame {
        const Pool &p;
        const int64_t blocks, width, height;
        W *const frame, *const largest;
        uint8_t *const places;

        explicit Frame(const Pool &p)
            : p(p), blocks((p.out_width + VECTOR - 1) / VECTOR),
              width(std::max(p.padding_x + p.width, blocks * VECTOR * p.stride_x + p.window_width)),
              height(std::max(p.padding_y + p.height, (p.out_height - 1) * p.stride_y + p.window_height)),
              frame(static_cast<W *>(scratch((sizeof(W) * (width * height + outputs(p)) + outputs(p))))),
              largest(frame + width * height), places(reinterpret_cast<uint8_t *>(largest + outputs(p))) {
            std::fill(frame, largest, -std::numeric_limits<W>::infinity());
        }
        static int64_t outputs(const Pool &p) { return p.out_height * p.out_width + VECTOR; }

        void pool(const X *x, X *y, uint8_t *place) const {
            for (int64_t row = 0; row < p.height; row++)
                load_row(frame + (p.padding_y + row) * width + p.padding_x, x + row * p.width, p.width);
            for (int64_t row = 0; row < p.out_height; row++)
                for (int64_t block = 0; block < blocks; block++) pool_block(row, block * VECTOR);
            store_row(y, largest, p.out_height * p.out_width);
            std::memcpy(place, places, p.out_height * p.out_width);
        }

        void pool_block(int64_t row, int64_t lane) const {
            const W *corner = frame + row * p.stride_y * width + lane * p.stride_x;
            Vector most = Vector{} - std::numeric_limits<W>::infinity();
            Places where = first_places(row, lane);
            Place place = 0;
            for (int64_t y = 0; y < p.window_height; y++)
                for (int64_t x = 0; x < p.window_width; x++, place++) {
                    const Vector next = lanes(corner + y * width + x, p.stride_x);
                    const Places is_more = (next > most) | (next != next);
                    most = is_more ? next : most;
                    where = is_more ? Places{} + place : where;
                }
            const int64_t out = row * p.out_width + lane;
            *reinterpret_cast<Vector *>(largest + out) = most;
            *reinterpret_cast<Bytes *>(places + out) = __builtin_convertvector(where, Bytes);
        }

        /* The first place of each window that lies in the image, for windows of -infinity alone. */
        Places first_places(int64_t row, int64_t lane) const {
            Places first = Places{} + Place(std::max<int64_t>(0, p.padding_y - row * p.stride_y) * p.window_width);
            for (int64_t i = 0; i < VECTOR && (lane + i) * p.stride_x < p.padding_x; i++)
                first[i] += p.padding_x - (lane + i) * p.stride_x;
            return first;
        }
    };

    static void forward(const Pool &p, const void *x, void *y, uint8_t *place) {
        const int64_t in = p.height * p.width, out = p.out_height * p.out_width;
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
        {
            const Frame frame(p);
#pragma omp for schedule(static)
            for (int64_t image = 0; image < p.images; image++)
                frame.pool(static_cast<const X *>(x) + image * in, static_cast<X *>(y) + image * out,
                           place + image * out);
        }
    }

    /* grad_x = the gradients of the windows, added where their largest numbers lie, in reading order */
    static void backward(const Pool &p, const void *grad_y, const uint8_t *place, void *grad_x) {
        const int64_t in = p.height * p.width, out = p.out_height * p.out_width;
        expect_large({grad_x, 0, 0}, p.images * in * sizeof(X));
        int64_t offset[256];
        for (int64_t at = 0; at < p.window_height * p.window_width; at++)
            offset[at] = (at / p.window_width - p.padding_y) * p.width + at % p.window_width - p.padding_x;
#pragma omp parallel for num_threads(p.threads) if (p.threads > 1) schedule(static)
        for (int64_t image = 0; image < p.images; image++) {
            const X *gy = static_cast<const X *>(grad_y) + image * out;
            const uint8_t *at = place + image * out;
            X *gx = static_cast<X *>(grad_x) + image * in;
            std::memset(static_cast<void *>(gx), 0, in * sizeof(X));
            for (int64_t row = 0; row < p.out_height; row++)
                for (int64_t i = 0; i < p.out_width; i++, gy++, at++) {
                    X &sum = gx[row * p.stride_y * p.width + i * p.stride_x + offset[*at]];
                    sum = narrow<X>(widen(sum) + widen(*gy));
                }
        }
    }
};

} /* namespace mfp */

extern "C" void mfp_max_pool_forward(const mfp::Pool *pool, const void *x, void *y, uint8_t *place) {
    switch (pool->dtype) {
    case 0: return mfp::MaxPool<float>::forward(*pool, x, y, place);
    case 1: return mfp::MaxPool<double>::forward(*pool, x, y, place);
    case 2: return mfp::MaxPool<mfp::Half>::forward(*pool, x, y, place);
    default: return mfp::MaxPool<mfp::BFloat>::forward(*pool, x, y, place);
    }
}

extern "C" void mfp_max_pool_backward(const mfp::Pool *pool, const void *grad_y, const uint8_t *place, void *grad_x) {
    switch (pool->dtype) {
    case 0: return mfp::MaxPool<float>::backward(*pool, grad_y, place, grad_x);
    case 1: return mfp::MaxPool<double>::backward(*pool, grad_y, place, grad_x);
    case 2: return mfp::MaxPool<mfp::Half>::backward(*pool, grad_y, place, grad_x);
    default: return mfp::MaxPool<mfp::BFloat>::backward(*pool, grad_y, place, grad_x);
    }
}
