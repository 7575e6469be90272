/* Operations on whole numbers that need no weights, place by place: the input and all without synapses but MatMul. */
#ifndef MFP_MAPS_H
#define MFP_MAPS_H

#include "rows.h"
#include "threads.h"

/* Levels [step][sample][channel][row][column] into map 0. */
static void put_levels(const Call *call)
{
    const Map *map = call->maps;
    const int64_t steps = map->same ? 1 : call->count, size = map->height * map->width;
    const uint8_t *levels = call->levels;
    const int64_t bytes = map->bytes ? map->bytes : 1;
    for (int64_t t = 0; t < steps; t++) {
        for (int64_t n = 0; n < call->samples; n++, levels += map->channels * size * bytes) {
            if (map->bytes == 1) {
                uint8_t *to = address(map, n, call->first + t, 0, 0);
                for (int64_t c = 0; c < map->channels; c++)
                    for (int64_t i = 0; i < size; i++) to[i * map->channels + c] = levels[c * size + i];
            } else if (map->bytes) {
                void *to = address(map, n, call->first + t, 0, 0);
                for (int64_t c = 0; c < map->channels; c++)
                    for (int64_t i = 0; i < size; i++)
                        put_number(to, bytes, i * map->channels + c, get_number(levels, bytes, c * size + i));
            } else {
                word *to = bits_at(map, n, call->first + t, 0, 0);
                memset(to, 0, (size_t)(size * map->words) * sizeof *to);
                for (int64_t c = 0; c < map->channels; c++)
                    for (int64_t i = 0; i < size; i++)
                        to[i * map->words + c / BLOCK] |= (word)(levels[c * size + i] & 1) << c % BLOCK;
            }
        }
    }
}

/* Spikes of a window, or-ed. */
static void pool_bits(const Map *source, const Op *op, word *to, int64_t sample, int64_t t, int64_t out_y,
                      int64_t out_x)
{
    memset(to, 0, (size_t)source->words * sizeof *to);
    for (int64_t i = 0; i < op->window.size[0]; i++) {
        for (int64_t j = 0; j < op->window.size[1]; j++) {
            int64_t y, x;
            if (!place_of(&op->window, source->height, source->width, out_y, out_x, i, j, &y, &x)) continue;
            const word *from = bits_at(source, sample, t, y, x);
            for (int64_t w = 0; w < source->words; w++) to[w] |= from[w];
        }
    }
}

static void pool_numbers(const Map *source, const Op *op, int32_t *numbers, int32_t *out, int64_t sample, int64_t t,
                         int64_t out_y, int64_t out_x)
{
    const int64_t width = source->words * BLOCK;
    memset(out, 0, (size_t)width * sizeof *out);
    for (int64_t i = 0; i < op->window.size[0]; i++) {
        for (int64_t j = 0; j < op->window.size[1]; j++) {
            int64_t y, x;
            if (!place_of(&op->window, source->height, source->width, out_y, out_x, i, j, &y, &x)) continue;
            load_numbers(source, sample, t, y, x, numbers);
            if (op->pool == MAX)
                for (int64_t c = 0; c < width; c++) out[c] = numbers[c] > out[c] ? numbers[c] : out[c];
            else
                for (int64_t c = 0; c < width; c++) out[c] += numbers[c];
        }
    }
}

/* Step t of the source into the step that its window becomes, which the first of a window begins. */
static void time_pool_numbers(const Map *source, const Map *target, int32_t *numbers, int32_t *out, int64_t sample,
                              int64_t t, int64_t y, int64_t x)
{
    load_numbers(source, sample, t, y, x, out);
    if (t % target->window != 0) {
        load_numbers(target, sample, t / target->window, y, x, numbers);
        for (int64_t c = 0; c < source->channels; c++) out[c] = numbers[c] > out[c] ? numbers[c] : out[c];
    }
    store_numbers(target, sample, t / target->window, y, x, out);
}

static void time_pool_bits(const Map *source, const Map *target, int64_t sample, int64_t t, int64_t y, int64_t x)
{
    const word *from = bits_at(source, sample, t, y, x);
    word *to = bits_at(target, sample, t / target->window, y, x);
    for (int64_t w = 0; w < source->words; w++) to[w] = t % target->window ? to[w] | from[w] : from[w];
}

/* Sum adds its sources, Concat sets them side by side; `out` has room for the words of all. */
static void join_numbers(const Call *call, const Op *op, int32_t *numbers, int32_t *out, int64_t room, int64_t sample,
                         int64_t t, int64_t y, int64_t x)
{
    memset(out, 0, (size_t)room * sizeof *out);
    for (int64_t i = 0; i < op->source_count; i++) {
        const Map *source = call->maps + op->sources[i];
        const int32_t weight = (int32_t)op->source_weights[i];
        load_numbers(source, sample, t, y, x, numbers);
        for (int64_t c = 0; c < source->channels; c++) out[c] += weight * numbers[c];
        if (op->kind == CONCAT) out += source->channels;
    }
}

/* Number `at` of those that op->origins counts: of a map of bits 64 to a word of its lowest plane, else one by one. */
static inline int32_t gather_number(const Map *source, const uint8_t *frame, int64_t at)
{
    if (source->bytes) return get_number(frame, source->bytes, at);
    const word *bits = (const word *)(const void *)frame + at / BLOCK;
    int32_t number = 0;
    for (int64_t p = 0; p < source->planes; p++) number |= (int32_t)(bits[p * source->words] >> at % BLOCK & 1) << p;
    return number;
}

/* The same of spikes, a word of them. */
static inline word gather_bits(const word *frame, const int64_t *from, int64_t count, int64_t fill)
{
    word bits = 0;
    for (int64_t c = 0; c < count; c++) {
        const uint64_t at = (uint64_t)from[c];
        bits |= (from[c] < 0 ? (word)fill : frame[at / BLOCK] >> at % BLOCK & 1) << c;
    }
    return bits;
}

/* A row of places whose channels come from anywhere, or, where one is a copy of another, all from there. */
static void gather_row(const Map *source, const Map *target, const Op *op, int64_t sample, int64_t t, int64_t y)
{
    const uint8_t *frame = address(source, sample, t, 0, 0);
    uint8_t *to = address(target, sample, t, y, 0);
    const int64_t *from = op->origins + y * op->width * op->channels, *copied = op->copied + y * op->width;
    const int64_t size = place_bytes(source), next = place_bytes(target);
    const int one_plane = !source->bytes && source->planes == 1 && target->planes == 1;
    for (int64_t x = 0; x < op->width; x++, to += next, from += op->channels) {
        if (copied[x] >= 0) {
            memcpy(to, frame + copied[x] * size, (size_t)size);
            continue;
        }
        for (int64_t first = 0; first < op->channels; first += BLOCK) {
            const int64_t left = op->channels - first, count = left < BLOCK ? left : BLOCK, *block = from + first;
            if (one_plane) {
                const word bits = gather_bits((const word *)(const void *)frame, block, count, op->fill);
                ((word *)(void *)to)[first / BLOCK] = bits;
                continue;
            }
            int32_t numbers[BLOCK] = {0};
            for (int64_t c = 0; c < count; c++)
                numbers[c] = block[c] < 0 ? (int32_t)op->fill : gather_number(source, frame, block[c]);
            store_block(target, to, first / BLOCK, numbers);
        }
    }
}

/* total += source << shift, of 64 channels at a time: bit planes are added as one adds on paper. */
static inline void add_planes(const word *source, int64_t planes, int64_t words, int64_t shift, word *total,
                              int64_t total_planes)
{
    for (int64_t w = 0; w < words; w++) {
        word carry = 0;
        for (int64_t p = shift; p < total_planes; p++) {
            const word one = total[p * words + w], other = p - shift < planes ? source[(p - shift) * words + w] : 0;
            total[p * words + w] = one ^ other ^ carry;
            carry = (one & other) | (carry & (one ^ other));
        }
    }
}

/* A row of a Sum of maps of bits. */
static void sum_row(const Call *call, const Op *op, int64_t sample, int64_t t, int64_t y)
{
    const Map *target = call->maps + op->target;
    const int64_t size = place_bytes(target);
    uint8_t *to = address(target, sample, t, y, 0);
    memset(to, 0, (size_t)(op->width * size));
    for (int64_t i = 0; i < op->source_count; i++) {
        const Map *source = call->maps + op->sources[i];
        const uint8_t *from = address(source, sample, t, y, 0);
        for (int64_t x = 0; x < op->width; x++)
            for (int64_t shift = 0; op->source_weights[i] >> shift; shift++)
                if (op->source_weights[i] >> shift & 1)
                    add_planes((const word *)(const void *)(from + x * place_bytes(source)), source->planes,
                               source->words, shift, (word *)(void *)(to + x * size), target->planes);
    }
}

static int sums_bits(const Call *call, const Op *op)
{
    int integers = op->kind != SUM || call->maps[op->target].bytes != 0;
    for (int64_t i = 0; i < op->source_count; i++) integers |= call->maps[op->sources[i]].bytes != 0;
    return !integers;
}

static void ones_place(const Map *target, int64_t sample, int64_t t, int64_t y, int64_t x)
{
    word *to = bits_at(target, sample, t, y, x);
    for (int64_t left = target->channels; left > 0; left -= BLOCK)
        *to++ = left < BLOCK ? ((word)1 << left) - 1 : ~(word)0;
}

static void multiply_numbers(const Call *call, const Op *op, int32_t *numbers, int32_t *out, int64_t sample, int64_t t,
                             int64_t y, int64_t x)
{
    const Map *left = call->maps + op->sources[0], *right = call->maps + op->sources[1];
    load_numbers(left, sample, t, y, x, numbers);
    load_numbers(right, sample, t, y, x, out);
    for (int64_t c = 0; c < left->words * BLOCK; c++) out[c] *= numbers[c];
}

static int64_t join_room(const Call *call, const Op *op)
{
    int64_t room = 0;
    for (int64_t i = 0; i < op->source_count; i++) room += call->maps[op->sources[i]].words * BLOCK;
    return room;
}

static int64_t map_bytes(const Call *call, const Op *op) { return 2 * padded(join_room(call, op) * 4); }

static void map_place(const Call *call, const Op *op, Scratch scratch, int64_t sample, int64_t t, int64_t y, int64_t x)
{
    const Map *target = call->maps + op->target, *source = call->maps + op->sources[0];
    const int bits = source->planes == 1 && !source->bytes;
    if (op->kind == POOL && op->pool == MAX && bits) {
        pool_bits(source, op, bits_at(target, sample, t, y, x), sample, t, y, x);
        return;
    }
    if (op->kind == TIME_POOL && bits) {
        time_pool_bits(source, target, sample, t, y, x);
        return;
    }
    if (op->kind == ONES) {
        ones_place(target, sample, t, y, x);
        return;
    }
    const int64_t room = join_room(call, op);
    int32_t *numbers = take(&scratch, room * 4), *out = take(&scratch, room * 4);
    if (op->kind == TIME_POOL) {
        time_pool_numbers(source, target, numbers, out, sample, t, y, x);
        return;
    }
    if (op->kind == POOL)
        pool_numbers(source, op, numbers, out, sample, t, y, x);
    else if (op->kind == PRODUCT)
        multiply_numbers(call, op, numbers, out, sample, t, y, x);
    else
        join_numbers(call, op, numbers, out, room, sample, t, y, x);
    store_numbers(target, sample, t, y, x, out);
}

static void map_row(const Call *call, const Op *op, Scratch scratch, int64_t sample, int64_t t, int64_t y)
{
    if (op->kind == GATHER)
        gather_row(call->maps + op->sources[0], call->maps + op->target, op, sample, t, y);
    else if (sums_bits(call, op))
        sum_row(call, op, sample, t, y);
    else
        for (int64_t x = 0; x < op->width; x++) map_place(call, op, scratch, sample, t, y, x);
}

/* Rows of samples are shared out among threads. */
static void map_items(void *context, int64_t thread, Items *items)
{
    const Call *call = ((const Task *)context)->call;
    const Op *op = ((const Task *)context)->op;
    const int64_t steps = call->maps[op->target].same ? 1 : call->count;
    const Scratch scratch = scratch_of(call, thread);
    int64_t item, end;
    while (take_items(items, &item, &end))
        for (; item < end; item++)
            for (int64_t t = call->first; t < call->first + steps; t++)
                map_row(call, op, scratch, item / op->height, t, item % op->height);
}

static void map_op(const Call *call, const Op *op)
{
    int64_t channels = 0;
    for (int64_t i = 0; i < op->source_count; i++) channels += call->maps[op->sources[i]].channels;
    const int64_t read = op->kind == POOL ? places(&op->window) : 1;
    share_task(call, op, call->samples * op->height, op->width * call->count * channels * read, map_items);
}

#endif
