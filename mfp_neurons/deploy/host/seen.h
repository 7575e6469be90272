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
    case COUNT: return synapse->rows * TOGETHER * (int64_t)sizeof(word);
    case MULTIPLY: return synapse->rows * TOGETHER * (int64_t)sizeof(int32_t);
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
    return padded(sizeof(Seen)) + padded(synapse->rows * (int64_t)sizeof(int32_t)) +
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

/* Where each step of a view begins in its map. */
typedef struct {
    const uint8_t *step[TOGETHER];
} Starts;

static inline Starts starts_of(const View *view, int steps)
{
    Starts starts = {{NULL}};
    for (int s = 0; s < steps; s++) starts.step[s] = address(view->map, view->sample, view->step + s, 0, 0);
    return starts;
}

/* `steps` is seen->steps, written out by the caller so that the commonest has loops of its own. */
static inline void see_words_of(const View *view, int64_t plane, Seen *seen, const int steps)
{
    const Map *map = view->map;
    const Window *window = &view->synapse->window;
    const Starts starts = starts_of(view, steps);
    word *values = seen->values;
    word counted[TOGETHER] = {0};
    int64_t kept = 0;
    int32_t row = 0;
    for (int64_t i = 0; i < window->size[0]; i++) {
        for (int64_t j = 0; j < window->size[1]; j++, row += (int32_t)map->words) {
            int64_t y, x;
            if (!place_of(window, map->height, map->width, view->y, view->x, i, j, &y, &x)) continue;
            const int64_t at = (y * map->width + x) * map->planes + plane;
            const word *from[TOGETHER];
            for (int s = 0; s < steps; s++) from[s] = (const word *)starts.step[s] + at * map->words;
            for (int64_t w = 0; w < map->words; w++) {
                word any = 0;
                for (int s = 0; s < steps; s++) {
                    const word bits = from[s][w];
                    values[kept * steps + s] = bits;
                    counted[s] += popcount(bits);
                    any |= bits;
                }
                seen->row[kept] = row + (int32_t)w;
                kept += any != 0;
            }
        }
    }
    seen->rows = kept;
    for (int s = 0; s < steps; s++) seen->ones[s] = (int32_t)counted[s];
}

static inline void see_words(const View *view, int64_t plane, Seen *seen)
{
    if (seen->steps == TOGETHER)
        see_words_of(view, plane, seen, TOGETHER);
    else if (seen->steps == 1)
        see_words_of(view, plane, seen, 1);
    else
        see_words_of(view, plane, seen, seen->steps);
}

/* The numbers of a map of bytes. */
static inline void see_bytes_of(const View *view, Seen *seen, const int steps)
{
    const Map *map = view->map;
    const Window *window = &view->synapse->window;
    const Starts starts = starts_of(view, steps);
    int32_t *values = seen->values;
    int64_t kept = 0;
    int32_t row = 0;
    for (int64_t i = 0; i < window->size[0]; i++) {
        for (int64_t j = 0; j < window->size[1]; j++, row += (int32_t)map->channels) {
            int64_t y, x;
            if (!place_of(window, map->height, map->width, view->y, view->x, i, j, &y, &x)) continue;
            const int64_t at = (y * map->width + x) * map->channels;
            for (int64_t c = 0; c < map->channels; c++) {
                int32_t any = 0;
                for (int s = 0; s < steps; s++) any |= values[kept * steps + s] = starts.step[s][at + c];
                seen->row[kept] = row + (int32_t)c;
                kept += any != 0;
            }
        }
    }
    seen->rows = kept;
}

static inline void see_bytes(const View *view, Seen *seen)
{
    if (seen->steps == 1)
        see_bytes_of(view, seen, 1);
    else
        see_bytes_of(view, seen, seen->steps);
}

/* The same of a map of bits, unpacked into `numbers` [step][channel] place by place. */
static inline void see_numbers(const View *view, int32_t *numbers, Seen *seen)
{
    const Map *map = view->map;
    const Window *window = &view->synapse->window;
    const int steps = seen->steps;
    const int64_t width = map->words * BLOCK;
    int32_t *values = seen->values;
    int64_t kept = 0;
    int32_t row = 0;
    for (int64_t i = 0; i < window->size[0]; i++) {
        for (int64_t j = 0; j < window->size[1]; j++, row += (int32_t)map->channels) {
            int64_t y, x;
            if (!place_of(window, map->height, map->width, view->y, view->x, i, j, &y, &x)) continue;
            for (int s = 0; s < steps; s++)
                load_numbers(map, view->sample, view->step + s, y, x, numbers + s * width);
            for (int64_t c = 0; c < map->channels; c++) {
                int32_t any = 0;
                for (int s = 0; s < steps; s++) any |= values[kept * steps + s] = numbers[s * width + c];
                seen->row[kept] = row + (int32_t)c;
                kept += any != 0;
            }
        }
    }
    seen->rows = kept;
}

static inline void see_groups(const View *view, Seen *seen)
{
    const Map *map = view->map;
    const Window *window = &view->synapse->window;
    const int64_t width = map->words * BLOCK;
    int32_t *to = seen->values;
    for (int s = 0; s < seen->steps; s++) {
        for (int64_t i = 0; i < window->size[0]; i++) {
            for (int64_t j = 0; j < window->size[1]; j++, to += width) {
                int64_t y, x;
                if (place_of(window, map->height, map->width, view->y, view->x, i, j, &y, &x))
                    load_numbers(map, view->sample, view->step + s, y, x, to);
                else
                    memset(to, 0, (size_t)width * sizeof *to);
            }
        }
    }
}

/* Gathers `steps` <= CHUNK steps: Seen [group of TOGETHER steps][plane], in `scratch`. */
static inline Seen **see(View view, int64_t steps, int32_t *numbers, Scratch *scratch)
{
    const Synapse *synapse = view.synapse;
    const int64_t planes = seen_planes(synapse, view.map);
    Seen **all = take(scratch, CHUNK / TOGETHER * planes * (int64_t)sizeof(Seen *));
    int64_t made = 0;
    for (int64_t done = 0; done < steps; done += TOGETHER, view.step += TOGETHER) {
        for (int64_t plane = 0; plane < planes; plane++) {
            Seen *seen = take(scratch, sizeof(Seen));
            seen->row = take(scratch, synapse->rows * (int64_t)sizeof(int32_t));
            seen->values = take(scratch, values_bytes(synapse, view.map));
            seen->steps = (int32_t)(steps - done < TOGETHER ? steps - done : TOGETHER);
            if (synapse->kind == COUNT)
                see_words(&view, plane, seen);
            else if (synapse->kind == GROUPED)
                see_groups(&view, seen);
            else if (view.map->bytes)
                see_bytes(&view, seen);
            else
                see_numbers(&view, numbers, seen);
            all[made++] = seen;
        }
    }
    return all;
}

#endif
