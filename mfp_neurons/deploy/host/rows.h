/* What one place of an accumulated map sees of its source, gathered so that all channels can share it: words where bits
 * are counted, numbers where they are multiplied, all of them where channels have groups. Rows of zeros are left out. */
#ifndef MFP_ROWS_H
#define MFP_ROWS_H

#include "plain.h"

/* Memory of one thread, handed out piece by piece and given back all at once. One that begins at 0 only counts. */
typedef struct {
    uintptr_t next;
} Scratch;

/* Pieces begin where a cache line does, as vectors are loaded fastest there. */
static inline int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

static inline void *take(Scratch *scratch, int64_t bytes)
{
    void *piece = (void *)scratch->next;
    scratch->next += (uintptr_t)padded(bytes);
    return piece;
}

static inline Scratch scratch_of(const Call *call, int64_t thread)
{
    return (Scratch){(uintptr_t)(call->scratch + thread * call->scratch_bytes)};
}

static inline int64_t places(const Window *window) { return window->size[0] * window->size[1]; }

/* Of one step, with room for eight bytes that begin at its last. */
static inline int64_t quad_bytes(int64_t rows) { return (rows * QUAD + 15) / 8 * 8; }

static inline int64_t values_bytes(const Synapse *synapse, const Map *source)
{
    switch (synapse->kind) {
    case COUNT: return (synapse->rows + ROWS) * TOGETHER * (int64_t)sizeof(word);
    case BYTES: return 2 * TOGETHER * quad_bytes(synapse->rows); /* of rows, and before of steps */
    case MULTIPLY: return (synapse->rows + ROWS) * TOGETHER * (int64_t)sizeof(int32_t);
    default: return places(&synapse->window) * source->words * BLOCK * TOGETHER * (int64_t)sizeof(int32_t);
    }
}

/* Planes that are gathered one by one: where bits are counted, each has its own rows without zeros. */
static inline int64_t view_planes(const Synapse *synapse, const Map *source)
{
    return synapse->kind == COUNT ? source->planes : 1;
}

static inline int64_t view_bytes(const Synapse *synapse, const Map *source)
{
    return padded(sizeof(RowView)) + padded((synapse->rows + ROWS) * (int64_t)sizeof(int32_t)) +
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

/* What a synapse reads for one place (y, x) of what it accumulates, from `step` on. */
typedef struct {
    const Map *map;
    const Synapse *synapse;
    int64_t sample, step, y, x;
} Patch;

/* Fills up with rows that meet zeros, as some loops take ROWS at a time. */
static inline void fill_rows(RowView *view, int64_t kept, size_t size)
{
    const int64_t missing = (ROWS - kept % ROWS) % ROWS;
    memset((uint8_t *)view->values + (size_t)(kept * view->steps) * size, 0, (size_t)(missing * view->steps) * size);
    for (int64_t i = 0; i < missing; i++) view->row[kept + i] = 0;
    view->rows = kept;
}

/* Where each step of a patch begins in its map. */
typedef struct {
    const uint8_t *step[TOGETHER];
} Starts;

static inline Starts starts_of(const Patch *patch, int steps)
{
    Starts starts = {{NULL}};
    int64_t slot = slot_of(patch->map, patch->step);
    for (int s = 0; s < steps; s++, slot = next_slot(patch->map, slot))
        starts.step[s] = in_slot(patch->map, patch->sample, slot, 0, 0);
    return starts;
}

/* Columns of a row of a window that lie side by side in the map: how many, after how many outside of it, and where. */
typedef struct {
    int64_t count, skipped, x;
} Run;

/* `columns` of a window from its column j on, one if it is dilated. */
static inline Run run_of(const Patch *patch, int64_t j, int64_t columns)
{
    const Window *window = &patch->synapse->window;
    const int64_t x = patch->x * window->stride[1] - window->padding[1] + j * window->dilation[1];
    const int64_t skipped = x < 0 ? -x : 0, left = patch->map->width - x;
    return (Run){(left < columns ? left : columns) - skipped, skipped, x + skipped};
}

/* The row of the map that row i of a window sees, or -1. */
static inline int64_t row_of(const Patch *patch, int64_t i)
{
    const Window *window = &patch->synapse->window;
    const int64_t y = patch->y * window->stride[0] - window->padding[0] + i * window->dilation[0];
    return y < patch->map->height ? y : -1;
}

/* `steps` is view->steps, which the caller writes out as a constant where it can: loops of a known length unroll. A row
 * is written before it is known to hold anything but zeros; if it does not, the next one overwrites it. */
static inline void view_words_of(const Patch *patch, int64_t plane, RowView *view, const int steps)
{
    const Map *map = patch->map;
    const Window *window = &patch->synapse->window;
    const Starts starts = starts_of(patch, steps);
    const int64_t side_by_side = window->dilation[1] == 1 && map->planes == 1 ? window->size[1] : 1;
    word *values = view->values;
    int64_t kept = 0;
    for (int64_t i = 0; i < window->size[0]; i++) {
        const int64_t y = row_of(patch, i);
        if (y < 0) continue;
        for (int64_t j = 0; j < window->size[1]; j += side_by_side) {
            const Run run = run_of(patch, j, side_by_side);
            const int64_t at = ((y * map->width + run.x) * map->planes + plane) * map->words;
            const int64_t count = run.count * map->words;
            const int32_t row = (int32_t)((i * window->size[1] + j + run.skipped) * map->words);
            const word *from[TOGETHER];
            for (int s = 0; s < steps; s++) from[s] = (const word *)(const void *)starts.step[s] + at;
            for (int64_t w = 0; w < count; w++) {
                word any = 0;
                for (int s = 0; s < steps; s++) any |= values[kept * steps + s] = from[s][w];
                view->row[kept] = row + (int32_t)w;
                kept += any != 0;
            }
        }
    }
    fill_rows(view, kept, sizeof *values);
}

/* The same where places have so few channels that several share a word: there are fewer words to count. */
static inline void join_words_of(const Patch *patch, int64_t plane, RowView *view, const int steps)
{
    const Map *map = patch->map;
    const Window *window = &patch->synapse->window;
    const int64_t joined = patch->synapse->joined;
    const Starts starts = starts_of(patch, steps);
    word *values = view->values;
    word bits[TOGETHER] = {0};
    int64_t kept = 0, place = 0;
    int32_t row = 0;
    for (int64_t i = 0; i < window->size[0]; i++) {
        for (int64_t j = 0; j < window->size[1]; j++) {
            int64_t y, x;
            if (place_of(window, map->height, map->width, patch->y, patch->x, i, j, &y, &x)) {
                const int64_t at = (y * map->width + x) * map->planes + plane;
                for (int s = 0; s < steps; s++)
                    bits[s] |= ((const word *)starts.step[s])[at] << place * map->channels;
            }
            const int is_last = i == window->size[0] - 1 && j == window->size[1] - 1;
            if (++place < joined && !is_last) continue;
            word any = 0;
            for (int s = 0; s < steps; s++) {
                values[kept * steps + s] = bits[s];
                any |= bits[s];
                bits[s] = 0;
            }
            view->row[kept] = row++;
            kept += any != 0;
            place = 0;
        }
    }
    fill_rows(view, kept, sizeof *values);
}

static inline void view_words(const Patch *patch, int64_t plane, RowView *view)
{
    if (patch->synapse->joined > 1) {
        if (view->steps == TOGETHER)
            join_words_of(patch, plane, view, TOGETHER);
        else
            join_words_of(patch, plane, view, view->steps);
    } else if (view->steps == TOGETHER)
        view_words_of(patch, plane, view, TOGETHER);
    else if (view->steps == 1)
        view_words_of(patch, plane, view, 1);
    else
        view_words_of(patch, plane, view, view->steps);
    if (patch->synapse->base == 0) return;
    if (view->steps == TOGETHER)
        COUNT_ONES(view->values, view->rows, view->ones, TOGETHER);
    else
        COUNT_ONES(view->values, view->rows, view->ones, view->steps);
}

/* The bytes of a run of columns, by eights; those that are read behind it are of no account. */
static inline void copy_bytes(uint8_t *to, const uint8_t *from, int64_t count)
{
    for (; count > 0; count -= 8, to += 8, from += 8) {
        uint64_t eight;
        memcpy(&eight, from, 8);
        if (count < 8) eight &= ((uint64_t)1 << 8 * count) - 1;
        memcpy(to, &eight, 8);
    }
}

/* What a patch sees of a map of bytes, [step][row of the window][column][channel]. */
static inline void copy_patch(const Patch *patch, uint8_t *bytes, int64_t length, const int steps)
{
    const Map *map = patch->map;
    const Window *window = &patch->synapse->window;
    const Starts starts = starts_of(patch, steps);
    const int64_t side_by_side = window->dilation[1] == 1 ? window->size[1] : 1;
    for (int64_t i = 0; i < window->size[0]; i++) {
        const int64_t y = row_of(patch, i);
        if (y < 0) continue;
        for (int64_t j = 0; j < window->size[1]; j += side_by_side) {
            const Run run = run_of(patch, j, side_by_side);
            const int64_t to = (i * window->size[1] + j + run.skipped) * map->channels;
            const int64_t at = (y * map->width + run.x) * map->channels, count = run.count * map->channels;
            for (int s = 0; s < steps; s++) copy_bytes(bytes + s * length + to, starts.step[s] + at, count);
        }
    }
}

/* The same of a map of bits, unpacked into `numbers` place by place. */
static inline void unpack_patch(const Patch *patch, int32_t *numbers, uint8_t *bytes, int64_t length, const int steps)
{
    const Map *map = patch->map;
    const Window *window = &patch->synapse->window;
    for (int64_t i = 0; i < window->size[0]; i++) {
        for (int64_t j = 0; j < window->size[1]; j++, bytes += map->channels) {
            int64_t y, x;
            if (!place_of(window, map->height, map->width, patch->y, patch->x, i, j, &y, &x)) continue;
            for (int s = 0; s < steps; s++) {
                load_numbers(map, patch->sample, patch->step + s, y, x, numbers);
                for (int64_t c = 0; c < map->channels; c++) bytes[s * length + c] = (uint8_t)numbers[c];
            }
        }
    }
}

/* Bytes, QUAD of them as a row. */
static inline void view_quads_of(const Patch *patch, int32_t *numbers, RowView *view, const int steps)
{
    const int64_t rows = patch->synapse->rows, length = quad_bytes(rows);
    uint8_t *values = view->values, *bytes = values + TOGETHER * length;
    for (int64_t i = 0; i < steps * length; i += 8) memset(bytes + i, 0, 8);
    if (patch->map->bytes)
        copy_patch(patch, bytes, length, steps);
    else
        unpack_patch(patch, numbers, bytes, length, steps);
    int64_t kept = 0;
    for (int64_t r = 0; r < rows; r++) {
        uint32_t any = 0;
        for (int s = 0; s < steps; s++) {
            uint32_t four;
            memcpy(&four, bytes + s * length + r * QUAD, QUAD);
            memcpy(values + (kept * steps + s) * QUAD, &four, QUAD);
            any |= four;
        }
        view->row[kept] = (int32_t)r;
        kept += any != 0;
    }
    view->rows = kept;
}

static inline void view_quads(const Patch *patch, int32_t *numbers, RowView *view)
{
    if (view->steps == TOGETHER)
        view_quads_of(patch, numbers, view, TOGETHER);
    else if (view->steps == 1)
        view_quads_of(patch, numbers, view, 1);
    else
        view_quads_of(patch, numbers, view, view->steps);
}

/* Larger numbers, unpacked into `numbers` [step][channel] place by place. */
static inline void view_numbers(const Patch *patch, int32_t *numbers, RowView *view)
{
    const Map *map = patch->map;
    const Window *window = &patch->synapse->window;
    const int steps = view->steps;
    const int64_t width = map->words * BLOCK;
    int32_t *values = view->values;
    int64_t kept = 0;
    int32_t row = 0;
    for (int64_t i = 0; i < window->size[0]; i++) {
        for (int64_t j = 0; j < window->size[1]; j++, row += (int32_t)map->channels) {
            int64_t y, x;
            if (!place_of(window, map->height, map->width, patch->y, patch->x, i, j, &y, &x)) continue;
            for (int s = 0; s < steps; s++)
                load_numbers(map, patch->sample, patch->step + s, y, x, numbers + s * width);
            for (int64_t c = 0; c < map->channels; c++) {
                int32_t any = 0;
                for (int s = 0; s < steps; s++) any |= values[kept * steps + s] = numbers[s * width + c];
                view->row[kept] = row + (int32_t)c;
                kept += any != 0;
            }
        }
    }
    fill_rows(view, kept, sizeof *values);
}

/* All numbers, zeros too: every channel multiplies others, so no row is of zeros for all. */
static inline void view_groups(const Patch *patch, RowView *view)
{
    const Map *map = patch->map;
    const Window *window = &patch->synapse->window;
    const int64_t width = map->words * BLOCK;
    int32_t *to = view->values;
    for (int s = 0; s < view->steps; s++) {
        for (int64_t i = 0; i < window->size[0]; i++) {
            for (int64_t j = 0; j < window->size[1]; j++, to += width) {
                int64_t y, x;
                if (place_of(window, map->height, map->width, patch->y, patch->x, i, j, &y, &x))
                    load_numbers(map, patch->sample, patch->step + s, y, x, to);
                else
                    memset(to, 0, (size_t)width * sizeof *to);
            }
        }
    }
}

/* Gathers `steps` <= CHUNK steps: RowView [group of TOGETHER steps][plane], in `scratch`. */
static inline RowView **view_rows(Patch patch, int64_t steps, int32_t *numbers, Scratch *scratch)
{
    const Synapse *synapse = patch.synapse;
    const int64_t planes = view_planes(synapse, patch.map);
    RowView **views = take(scratch, CHUNK / TOGETHER * planes * (int64_t)sizeof(RowView *));
    int64_t count = 0;
    for (int64_t done = 0; done < steps; done += TOGETHER, patch.step += TOGETHER) {
        for (int64_t plane = 0; plane < planes; plane++) {
            RowView *view = take(scratch, sizeof(RowView));
            view->row = take(scratch, (synapse->rows + ROWS) * (int64_t)sizeof(int32_t));
            view->values = take(scratch, values_bytes(synapse, patch.map));
            view->steps = (int32_t)(steps - done < TOGETHER ? steps - done : TOGETHER);
            if (synapse->kind == COUNT)
                view_words(&patch, plane, view);
            else if (synapse->kind == GROUPED)
                view_groups(&patch, view);
            else if (synapse->kind == BYTES)
                view_quads(&patch, numbers, view);
            else
                view_numbers(&patch, numbers, view);
            views[count++] = view;
        }
    }
    return views;
}

#endif
