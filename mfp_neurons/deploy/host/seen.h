/* What one place of an accumulated map sees, gathered so that all channels can share it. */
#ifndef MFP_SEEN_H
#define MFP_SEEN_H

#include "words.h"

/* Up to TOGETHER steps of one plane of the source: the rows of weights that meet anything but zeros, and what
 * they meet, [row][step]. Of a GROUPED synapse all rows, [step][place of the window][channel]. */
typedef struct {
    int64_t rows;
    int32_t *row;
    void *values;
    int32_t ones[TOGETHER]; /* COUNT: bits seen in each step */
    int32_t steps;
} Seen;

typedef struct {
    uint8_t *next;
} Scratch;

static inline int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

static inline void *take(Scratch *scratch, int64_t bytes)
{
    void *taken = scratch->next;
    scratch->next += padded(bytes);
    return taken;
}

static inline int64_t places(const Window *window) { return window->size[0] * window->size[1]; }

static inline int64_t values_bytes(const Synapse *synapse, const Map *source)
{
    switch (synapse->kind) {
    case COUNT: return (synapse->rows + ROWS) * TOGETHER * (int64_t)sizeof(word);
    case MULTIPLY: return (synapse->rows + ROWS) * TOGETHER * (int64_t)sizeof(int32_t);
    default: return places(&synapse->window) * source->words * BLOCK * TOGETHER * (int64_t)sizeof(int32_t);
    }
}

/* Planes that are gathered one by one. */
static inline int64_t seen_planes(const Synapse *synapse, const Map *source)
{
    return synapse->kind == COUNT ? source->planes : 1;
}

static inline int64_t seen_bytes(const Synapse *synapse, const Map *source)
{
    return padded(sizeof(Seen)) + padded((synapse->rows + ROWS) * (int64_t)sizeof(int32_t)) +
           padded(values_bytes(synapse, source));
}

/* Row and column of a place of a window; 0 if it lies outside of a map. */
static inline int place_of(const Window *window, int64_t height, int64_t width, int64_t out_y, int64_t out_x, int64_t i,
                           int64_t j, int64_t *y, int64_t *x)
{
    *y = out_y * window->stride[0] - window->padding[0] + i * window->dilation[0];
    *x = out_x * window->stride[1] - window->padding[1] + j * window->dilation[1];
    return *y >= 0 && *y < height && *x >= 0 && *x < width;
}

typedef struct {
    const Map *map;
    const Synapse *synapse;
    int64_t sample, step, y, x; /* the first step; place of what is accumulated */
} View;

/* Whole ROWS of rows: those that are added meet zeros. */
static inline void end_rows(Seen *seen, int64_t kept, size_t size)
{
    const int64_t missing = (ROWS - kept % ROWS) % ROWS;
    memset((uint8_t *)seen->values + (size_t)(kept * seen->steps) * size, 0, (size_t)(missing * seen->steps) * size);
    for (int64_t i = 0; i < missing; i++) seen->row[kept + i] = 0;
    seen->rows = kept + missing;
}

/* Where each step of a view begins in its map. */
typedef struct {
    const uint8_t *step[TOGETHER];
} Starts;

static inline Starts starts_of(const View *view, int steps)
{
    Starts starts = {{NULL}};
    int64_t slot = slot_of(view->map, view->step);
    for (int s = 0; s < steps; s++, slot = next_slot(view->map, slot))
        starts.step[s] = in_slot(view->map, view->sample, slot, 0, 0);
    return starts;
}

#endif
