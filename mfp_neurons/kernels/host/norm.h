/* What a batch norm adds: sums over each channel, and an affine map of each channel added in place. */
#pragma once

#include "call.h"

namespace mfp {

template <class X> struct Norm {
    typedef Wide<X> W;

    struct Rows {
        alignas(64) W shift[LANES], factor[LANES], first[LANES], second[LANES];
        bool constant = false;
    };

    /* sums: of (x - shift) and of its square for each channel; a shift near the mean keeps digits */
    static void moments(const Call &c) {
        const Tiles tiles(c);
        Partials partials(tiles.tasks, 2 * c.channels, c.sums);
        tiles.run(
            c, [] { return std::make_unique<Rows>(); },
            [&](Rows &r, int64_t task, int64_t a, int64_t first, int64_t n) {
                fill(r.shift, c.shift, c, first, n);
                for (int64_t from = 0; from < c.steps; from += 64) { /* sums of floats over 64 steps lose little */
                    std::fill(r.first, r.first + n, W(0));
                    std::fill(r.second, r.second + n, W(0));
                    for (int64_t t = from; t < std::min(c.steps, from + 64); t++) {
                        const X *x = c.x.at<X>(t, a) + first;
                        prefetch_row<X>(c, c.x, t, a, first, n);
#pragma omp simd
                        for (int64_t i = 0; i < n; i++) {
                            const W away = widen(x[i]) - r.shift[i];
                            r.first[i] += away;
                            r.second[i] += away * away;
                        }
                    }
                    add_to_channels(partials.of(task), r.first, c, first, n);
                    add_to_channels(partials.of(task) + c.channels, r.second, c, first, n);
                }
            });
        partials.add_up(c.sums);
    }

    /* grad_x += scale x + shift */
    static void add_affine(const Call &c) {
        const Tiles tiles(c);
        tiles.run(
            c, [] { return std::make_unique<Rows>(); },
            [&](Rows &r, int64_t, int64_t a, int64_t first, int64_t n) {
                fill(r.factor, c.scale, c, first, n);
                fill(r.shift, c.shift, c, first, n);
                for (int64_t t = 0; t < c.steps; t++) {
                    const X *x = c.x.at<X>(t, a) + first;
                    X *gx = c.grad_x.at<X>(t, a) + first;
                    prefetch_row<X>(c, c.x, t, a, first, n);
                    prefetch_row<X>(c, c.grad_x, t, a, first, n);
#pragma omp simd
                    for (int64_t i = 0; i < n; i++)
                        gx[i] = narrow<X>(widen(gx[i]) + affine(widen(x[i]), r.factor[i], r.shift[i]));
                }
            });
    }
};

} /* namespace mfp */

MFP_ENTRY(mfp_moments, Norm, moments)
MFP_ENTRY(mfp_add_affine, Norm, add_affine)
