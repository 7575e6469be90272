/* Gathering: words where bits are counted, numbers where they are multiplied, all of them where channels have groups.
 * Rows of zeros are left out. */
#ifndef MFP_SEE_H
#define MFP_SEE_H

#include "seen.h"

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
    end_rows(seen, kept, sizeof *values);
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
    end_rows(seen, kept, sizeof *values);
}

static inline void see_bytes(const View *view, Seen *seen)
{
    if (seen->steps == TOGETHER)
        see_bytes_of(view, seen, TOGETHER);
    else if (seen->steps == 1)
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
    end_rows(seen, kept, sizeof *values);
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
            seen->row = take(scratch, (synapse->rows + ROWS) * (int64_t)sizeof(int32_t));
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
