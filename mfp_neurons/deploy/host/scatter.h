/* Events: each adds its codes to all that it reaches. */
#ifndef MFP_SCATTER_H
#define MFP_SCATTER_H

#include "network.h"

/* Arrays of `count` events; see events.Events. A source channel reaches all `outputs` of its group, which has
 * `inner` source channels. */
typedef struct {
    const int64_t *time, *sample, *channel, *row, *column, *level;
    int64_t count, samples;
    Window window;
    int64_t channels, height, width; /* of what is accumulated */
    int64_t inner, outputs;
    const int8_t *codes; /* [source channel][row][column][outputs] */
    const int64_t *nonzero; /* [source channel][row][column]: how many of its codes are not 0 */
    int64_t by_level; /* 1: an operation for every unit of a level; 0: for every event */
    uint32_t *acc; /* [step][sample][row][column][channel] */
    uint8_t *reached; /* [step][sample][row][column] */
} Scatter;

/* The outputs [first, last] along an axis whose windows may cover `position`. */
typedef struct {
    int64_t first, last;
} Range;

static inline Range range_of(const Window *window, int axis, int64_t position, int64_t length)
{
    const int64_t stride = window->stride[axis], end = position + window->padding[axis];
    const int64_t start = end - (window->size[axis] - 1) * window->dilation[axis];
    const int64_t last = end / stride;
    return (Range){start <= 0 ? 0 : (start + stride - 1) / stride, last < length ? last : length - 1};
}

/* Which place of its window output `o` sees a position at, or -1: a dilated window steps over positions. */
static inline int64_t window_place(const Window *window, int axis, int64_t position, int64_t o)
{
    const int64_t offset = position + window->padding[axis] - o * window->stride[axis];
    return offset % window->dilation[axis] ? -1 : offset / window->dilation[axis];
}

static int64_t scatter_event(const Scatter *s, int64_t event)
{
    const int64_t channel = s->channel[event], level = s->level[event], first = channel / s->inner * s->outputs;
    const Range ys = range_of(&s->window, 0, s->row[event], s->height);
    const Range xs = range_of(&s->window, 1, s->column[event], s->width);
    const int64_t frame = (s->time[event] * s->samples + s->sample[event]) * s->height;
    int64_t operations = 0;
    for (int64_t y = ys.first; y <= ys.last; y++) {
        const int64_t i = window_place(&s->window, 0, s->row[event], y);
        for (int64_t x = xs.first; i >= 0 && x <= xs.last; x++) {
            const int64_t j = window_place(&s->window, 1, s->column[event], x);
            if (j < 0) continue;
            const int64_t row = (channel * s->window.size[0] + i) * s->window.size[1] + j;
            const int64_t place = (frame + y) * s->width + x;
            const int8_t *codes = s->codes + row * s->outputs;
            uint32_t *acc = s->acc + place * s->channels + first;
            for (int64_t c = 0; c < s->outputs; c++) acc[c] += (uint32_t)(codes[c] * (int32_t)level);
            s->reached[place] = 1;
            operations += s->nonzero[row] * (s->by_level ? level : 1);
        }
    }
    return operations;
}

#endif
