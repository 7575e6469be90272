/* Neurons, Currents and Scores: one place of a layer after the other, one block of channels after the other. What is
 * accumulated and every potential live in registers and a few kilobytes a thread; spikes alone are stored. Neurons
 * that are recurrent need all spikes of a step for the next, so a thread keeps the currents of a sample. */
#ifndef MFP_LAYER_H
#define MFP_LAYER_H

#include "accumulate.h"
#include "threads.h"

UNROLLED word fired_narrow(const uint32_t *potential, const int32_t *threshold, const int lanes)
{
    return FIRED(potential, threshold, lanes);
}

UNROLLED word fired_wide(const uint64_t *potential, const int64_t *threshold, const int lanes)
{
    uint8_t hit[BLOCK];
#pragma omp simd
    for (int c = 0; c < lanes; c++) hit[c] = (int64_t)potential[c] >= threshold[c];
    return pack_some(hit, lanes);
}

#define NUMBER int32_t
#define UNSIGNED uint32_t
#define NAMED(x) x##_narrow
#include "fire.h"
#undef NUMBER
#undef UNSIGNED
#undef NAMED
#define NUMBER int64_t
#define UNSIGNED uint64_t
#define NAMED(x) x##_wide
#include "fire.h"
#undef NUMBER
#undef UNSIGNED
#undef NAMED

/* A place of a layer: which steps of the currents are needed, and where a thread keeps what. */
typedef struct {
    const Call *call;
    const Op *op;
    const Synapse *synapses; /* those that are added up now */
    int64_t synapse_count;
    int64_t sample, y, x;
    int64_t start, steps; /* of the currents */
    int64_t same; /* all of them are: steps is 1 */
    int64_t slot; /* of the first spikes */
    uint32_t *acc, *pooled; /* [CHUNK][BLOCK] */
    void *total; /* [steps][BLOCK] */
    int32_t *numbers; /* [TOGETHER][channels], of a map that is unpacked */
    RowView ***views; /* of every synapse and place of its pooling window */
    Scratch gathered; /* what views point to */
} Place;

static int64_t blocks_of(const Op *op) { return (op->channels + BLOCK - 1) / BLOCK; }

static const Window ONE = {{1, 1}, {1, 1}, {0, 0}, {1, 1}};

static const Window *pooling(const Synapse *synapse) { return synapse->pool == NONE ? &ONE : &synapse->pooling; }

/* What a synapse reads from one place of its pooling window, or 0 if that is outside of what it accumulates. */
static int patch_of(const Place *place, const Synapse *synapse, int64_t i, int64_t j, Patch *patch)
{
    const Map *map = place->call->maps + synapse->source;
    *patch = (Patch){.map = map, .synapse = synapse, .sample = place->sample};
    return place_of(pooling(synapse), synapse->height, synapse->width, place->y, place->x, i, j, &patch->y, &patch->x);
}

/* What is the same at every step is computed once. */
static int64_t steps_of(const Map *source, int64_t steps) { return source->same ? 1 : steps; }

/* Gathers for all synapses and all places of their pooling windows, `steps` from `start` on. */
static void gather(const Place *place, int64_t start, int64_t steps)
{
    Scratch scratch = place->gathered;
    RowView ***views = place->views;
    for (int64_t s = 0; s < place->synapse_count; s++) {
        const Synapse *synapse = place->synapses + s;
        const Window *window = pooling(synapse);
        for (int64_t i = 0; i < window->size[0]; i++) {
            for (int64_t j = 0; j < window->size[1]; j++, views++) {
                Patch patch;
                if (!patch_of(place, synapse, i, j, &patch)) continue;
                patch.step = start;
                *views = view_rows(patch, steps_of(patch.map, steps), place->numbers, &scratch);
            }
        }
    }
}

static void pool_into(const Synapse *synapse, int64_t count, const uint32_t *acc, uint32_t *pooled)
{
    if (synapse->pool == MAX)
        for (int64_t c = 0; c < count; c++)
            pooled[c] = (int32_t)acc[c] > (int32_t)pooled[c] ? acc[c] : pooled[c];
    else
        for (int64_t c = 0; c < count; c++) pooled[c] += acc[c];
}

/* One synapse's numbers of a block, pooled, from its views. */
static const uint32_t *currents(const Place *place, const Synapse *synapse, int64_t steps, int64_t block,
                                RowView ***views)
{
    const Window *window = pooling(synapse);
    const Map *source = place->call->maps + synapse->source;
    const int64_t count = steps * BLOCK;
    const size_t size = (size_t)count * sizeof *place->acc;
    if (synapse->pool == NONE) {
        memset(place->acc, 0, size);
        accumulate(synapse, source, *views, steps, block, place->acc);
        return place->acc;
    }
    for (int64_t c = 0; c < count; c++) place->pooled[c] = synapse->pool == MAX ? UINT32_C(0x80000000) : 0;
    for (int64_t i = 0; i < window->size[0]; i++) {
        for (int64_t j = 0; j < window->size[1]; j++, views++) {
            Patch patch;
            if (!patch_of(place, synapse, i, j, &patch)) continue;
            memset(place->acc, 0, size);
            accumulate(synapse, source, *views, steps, block, place->acc);
            pool_into(synapse, count, place->acc, place->pooled);
        }
    }
    return place->pooled;
}

/* total[step + j] += taps[j] * current[step], as far as there are steps: of a potential that is read out. */
static void add_tapped(const Place *place, int64_t s, int64_t first, int64_t steps, int64_t block,
                       const uint32_t *current)
{
    const Op *op = place->op;
    const int64_t width = op->taps_per_channel ? blocks_of(op) * BLOCK : 1, each = op->taps_per_channel;
    const int64_t *factor = place->synapses[s].factor ? place->synapses[s].factor + block * BLOCK : NULL;
    const int64_t *taps = (const int64_t *)op->taps + s * op->order * width + each * block * BLOCK;
    for (int64_t t = first; t < first + steps; t++, current += BLOCK) {
        uint64_t *total = (uint64_t *)place->total + t * BLOCK;
        for (int64_t j = 0; j < op->order && t + j < place->steps; j++, total += BLOCK) {
            const int64_t *tap = taps + j * width;
            for (int c = 0; c < BLOCK; c++) {
                const uint64_t unit = factor ? (uint64_t)factor[c] * (uint64_t)tap[each * c] : (uint64_t)tap[each * c];
                total[c] += unit * (uint64_t)(int64_t)(int32_t)current[c];
            }
        }
    }
}

/* Whether what a synapse accumulates is what it adds to the total. */
static int is_plain(const Op *op, const Synapse *synapse)
{
    return !op->wide && synapse->pool == NONE && synapse->factor == NULL;
}

/* total[step] of a block for the `steps` steps of one chunk, which `done` others came before: the sum of the
 * synapses. */
static void add_up(const Place *place, int64_t done, int64_t steps, int64_t block, int64_t lanes)
{
    RowView ***views = place->views;
    for (int64_t s = 0; s < place->synapse_count; s++) {
        const Synapse *synapse = place->synapses + s;
        const Map *source = place->call->maps + synapse->source;
        const int64_t computed = steps_of(source, steps);
        if (is_plain(place->op, synapse) && computed == steps) {
            accumulate(synapse, source, *views++, steps, block, (uint32_t *)place->total + done * BLOCK);
            continue;
        }
        const uint32_t *current = currents(place, synapse, computed, block, views);
        views += places(pooling(synapse));
        for (int64_t t = 0; t < steps; t += computed) { /* what is the same at every step counts for each */
            const int64_t offset = (done + t) * BLOCK;
            if (place->op->kind == SCORES && place->op->taps)
                add_tapped(place, s, done + t, computed, block, current);
            else if (place->op->wide)
                add_wide(synapse, computed, block, lanes, current, (uint64_t *)place->total + offset);
            else
                add_narrow(synapse, computed, block, lanes, current, (uint32_t *)place->total + offset);
        }
    }
}

/* The first of the currents that steps from call->first on look back at. */
static int64_t first_step(const Call *call, const Op *op)
{
    const int64_t first = call->first - op->order + 1;
    return first < 0 ? 0 : first;
}

/* Bytes of the views of synapses for `steps` steps. */
static int64_t views_bytes(const Call *call, const Synapse *synapses, int64_t count, int64_t steps)
{
    int64_t bytes = 0;
    for (const Synapse *synapse = synapses; synapse < synapses + count; synapse++) {
        const Map *source = call->maps + synapse->source;
        const int64_t planes = view_planes(synapse, source), groups = (steps_of(source, steps) + TOGETHER - 1) / TOGETHER;
        bytes += places(pooling(synapse)) * (padded(CHUNK / TOGETHER * planes * (int64_t)sizeof(RowView *)) +
                                             groups * planes * view_bytes(synapse, source));
    }
    return bytes;
}

/* The most words of channels that one of the synapses reads, and the places of all their pooling windows. */
static void measure(const Call *call, const Synapse *synapses, int64_t count, int64_t *words, int64_t *windows)
{
    int64_t sum = 0;
    for (const Synapse *synapse = synapses; synapse < synapses + count; synapse++) {
        const Map *source = call->maps + synapse->source;
        if (source->words > *words) *words = source->words;
        sum += places(pooling(synapse));
    }
    if (sum > *windows) *windows = sum;
}

/* Hands out what one thread needs for an operation, but for what is gathered, which begins behind it. */
static Place place_in(Scratch *scratch, const Call *call, const Op *op)
{
    Place place = {.call = call, .op = op, .start = first_step(call, op)};
    place.synapses = op->synapses;
    place.synapse_count = op->synapse_count;
    place.same = op->recurrent_count == 0 && (op->kind == NEURONS || op->order == 1);
    for (int64_t s = 0; s < op->synapse_count; s++)
        if (!call->maps[op->synapses[s].source].same) place.same = 0;
    int64_t words = 0, views = 0;
    measure(call, op->synapses, op->synapse_count, &words, &views);
    measure(call, op->recurrent, op->recurrent_count, &words, &views);
    const int64_t steps = call->first + call->count - place.start;
    place.slot = op->kind == SCORES ? 0 : slot_of(call->maps + op->target, call->first);
    place.steps = place.same ? 1 : steps;
    place.acc = take(scratch, CHUNK * BLOCK * 4);
    place.pooled = take(scratch, CHUNK * BLOCK * 4);
    place.total = take(scratch, steps * BLOCK * 8 * (op->recurrent_count ? op->height * op->width * blocks_of(op) : 1));
    place.numbers = take(scratch, TOGETHER * words * BLOCK * 4);
    place.views = take(scratch, views * (int64_t)sizeof(RowView **));
    place.gathered = *scratch;
    return place;
}

/* Bytes that one thread needs for an operation: what `place_in` hands out, and the views of one chunk. */
static int64_t layer_bytes(const Call *call, const Op *op)
{
    Scratch scratch = {0};
    place_in(&scratch, call, op);
    const int64_t steps = call->first + call->count - first_step(call, op);
    const int64_t views = views_bytes(call, op->synapses, op->synapse_count, steps < CHUNK ? steps : CHUNK);
    const int64_t recurrent = views_bytes(call, op->recurrent, op->recurrent_count, 1);
    return (int64_t)scratch.next + (views > recurrent ? views : recurrent);
}

/* The spikes of step t of a block; those of the steps before are there already. */
static inline void spikes_of_step(const Place *place, const Map *target, const Train *own, int64_t t, int64_t slot,
                                  int64_t block)
{
    const Op *op = place->op;
    word *to = (word *)(void *)in_slot(target, place->sample, slot, place->y, place->x);
    if (op->feedback == OPEN)
        to[block] = op->wide ? fire_wide(op, t, block, place->total, place->start, place->same)
                             : fire_narrow(op, t, block, place->total, place->start, place->same);
    else
        to[block] = op->wide ? fire_fed_back_wide(op, t, block, place->total, place->start, place->same, own, slot)
                             : fire_fed_back_narrow(op, t, block, place->total, place->start, place->same, own, slot);
}

static void spikes_of_block(const Place *place, int64_t block)
{
    const Call *call = place->call;
    const Map *target = call->maps + place->op->target;
    const Train own = train_at(target, place->sample, place->y, place->x, block);
    int64_t slot = place->slot;
    for (int64_t t = call->first; t < call->first + call->count; t++, slot = next_slot(target, slot))
        spikes_of_step(place, target, &own, t, slot, block);
}

/* Currents. What is shifted is never negative and fits the width of the sums, so it is exact without a sign, though
 * sums may have wrapped around on the way to it. */
static void numbers_of_block(const Place *place, int64_t block)
{
    const Op *op = place->op;
    const Map *target = place->call->maps + op->target;
    const int64_t *offset = op->offset + block * BLOCK;
    int64_t slot = place->slot;
    for (int64_t t = 0; t < place->steps; t++, slot = next_slot(target, slot)) {
        int32_t numbers[BLOCK];
        if (op->wide) {
            const uint64_t *total = (const uint64_t *)place->total + t * BLOCK;
            for (int c = 0; c < BLOCK; c++) numbers[c] = (int32_t)((total[c] + (uint64_t)offset[c]) >> op->shift);
        } else {
            const uint32_t *total = (const uint32_t *)place->total + t * BLOCK;
            for (int c = 0; c < BLOCK; c++) numbers[c] = (int32_t)((total[c] + (uint32_t)offset[c]) >> op->shift);
        }
        store_block(target, in_slot(target, place->sample, slot, place->y, place->x), block, numbers);
    }
}

static void scores_of_block(const Place *place, int64_t block)
{
    const Call *call = place->call;
    const Op *op = place->op;
    const int64_t left = op->channels - block * BLOCK, channels = left < BLOCK ? left : BLOCK;
    const int64_t width = blocks_of(op) * BLOCK;
    int64_t *scores = call->scores + call->count * call->samples * op->before;
    for (int64_t t = 0; t < call->count; t++) {
        const int64_t step = call->first + t, row = step < op->offset_rows ? step : op->offset_rows - 1;
        const uint64_t *total = (const uint64_t *)place->total + (place->same ? 0 : (step - place->start) * BLOCK);
        for (int64_t c = 0; c < channels; c++) {
            const int64_t channel = block * BLOCK + c;
            const int64_t map = (t * call->samples + place->sample) * op->channels + channel;
            const int64_t at = (map * op->height + place->y) * op->width + place->x;
            scores[at] = (int64_t)(total[c] + (uint64_t)op->offset[row * width + channel]);
        }
    }
}

static size_t number_size(const Op *op) { return op->wide ? sizeof(uint64_t) : sizeof(uint32_t); }

/* Gathers all steps of a place at one time if they are one chunk; then `sum_block` has no need to. */
static int gather_once(const Place *place)
{
    if (place->steps > CHUNK) return 0;
    gather(place, place->start, place->steps);
    return 1;
}

/* place->total of a block. Longer times than a chunk are gathered again for every block. */
static void sum_block(const Place *place, int64_t block, int once)
{
    const int64_t lanes = lanes_of(place->op->channels, block);
    memset(place->total, 0, (size_t)(place->steps * BLOCK) * number_size(place->op));
    for (int64_t done = 0; done < place->steps; done += CHUNK) {
        const int64_t left = place->steps - done, steps = left < CHUNK ? left : CHUNK;
        if (!once) gather(place, place->start + done, steps);
        add_up(place, done, steps, block, lanes);
    }
}

/* Blocks [first, last) of one place. */
static void blocks(const Place *place, int64_t first, int64_t last)
{
    const Op *op = place->op;
    const int once = gather_once(place);
    for (int64_t block = first; block < last; block++) {
        sum_block(place, block, once);
        if (op->kind == SCORES)
            scores_of_block(place, block);
        else if (op->kind == CURRENTS)
            numbers_of_block(place, block);
        else
            spikes_of_block(place, block);
    }
}

/* Places are shared out among threads; of a layer with one place, blocks are, and samples follow one another in the
 * innermost loop, so that weights are read once. */
static void layer_items(void *context, int64_t thread, Items *items)
{
    const Call *call = ((const Task *)context)->call;
    const Op *op = ((const Task *)context)->op;
    const int64_t all_blocks = blocks_of(op), area = op->height * op->width;
    Scratch scratch = scratch_of(call, thread);
    Place place = place_in(&scratch, call, op);
    int64_t item, end;
    while (take_items(items, &item, &end)) {
        for (; item < end; item++) {
            if (area == 1) {
                place.sample = item % call->samples;
                blocks(&place, item / call->samples, item / call->samples + 1);
            } else {
                place.sample = item / area;
                place.y = item % area / op->width;
                place.x = item % op->width;
                blocks(&place, 0, all_blocks);
            }
        }
    }
}

/* One step of all places of a sample: what the spikes of the step before add, then the spikes. */
static void recurrent_step(Place *place, uint8_t *totals, int64_t t)
{
    const Op *op = place->op;
    const Call *call = place->call;
    const Map *target = call->maps + op->target;
    const int64_t area = op->height * op->width, all_blocks = blocks_of(op);
    const int64_t size = place->steps * BLOCK * (int64_t)number_size(op);
    for (int64_t i = 0; i < area; i++) {
        place->y = i / op->width;
        place->x = i % op->width;
        if (t > 0) gather(place, t - 1, 1);
        for (int64_t block = 0; block < all_blocks; block++) {
            place->total = totals + (i * all_blocks + block) * size;
            if (t > 0) add_up(place, t - place->start, 1, block, lanes_of(op->channels, block));
            if (t < call->first) continue; /* a stream has fired it */
            const Train own = train_at(target, place->sample, place->y, place->x, block);
            spikes_of_step(place, target, &own, t, slot_of(target, t), block);
        }
    }
}

/* Samples are shared out among threads: within one, a step waits for the step before. */
static void recurrent_items(void *context, int64_t thread, Items *items)
{
    const Call *call = ((const Task *)context)->call;
    const Op *op = ((const Task *)context)->op;
    const int64_t all_blocks = blocks_of(op), area = op->height * op->width;
    Scratch scratch = scratch_of(call, thread);
    Place place = place_in(&scratch, call, op);
    uint8_t *const totals = place.total;
    const int64_t size = place.steps * BLOCK * (int64_t)number_size(op);
    int64_t end;
    while (take_items(items, &place.sample, &end)) {
        for (; place.sample < end; place.sample++) {
            place.synapses = op->synapses;
            place.synapse_count = op->synapse_count;
            for (int64_t i = 0; i < area; i++) {
                place.y = i / op->width;
                place.x = i % op->width;
                const int once = gather_once(&place);
                for (int64_t block = 0; block < all_blocks; block++) {
                    place.total = totals + (i * all_blocks + block) * size;
                    sum_block(&place, block, once);
                }
            }
            place.synapses = op->recurrent;
            place.synapse_count = op->recurrent_count;
            for (int64_t t = place.start; t < call->first + call->count; t++) recurrent_step(&place, totals, t);
        }
    }
}

/* Words that synapses count, or bytes that they multiply, for one channel of one place. */
static int64_t words_of(const Call *call, const Synapse *synapses, int64_t count, int64_t steps)
{
    int64_t words = 0;
    for (const Synapse *synapse = synapses; synapse < synapses + count; synapse++) {
        const Map *source = call->maps + synapse->source;
        const int64_t planes = synapse->kind == COUNT ? synapse->planes * source->planes : 1;
        words += synapse->rows * planes * places(pooling(synapse)) * steps_of(source, steps);
    }
    return words;
}

static void layer(const Call *call, const Op *op)
{
    const int64_t area = op->height * op->width;
    const int64_t steps = call->first + call->count - first_step(call, op);
    const int64_t words = words_of(call, op->synapses, op->synapse_count, steps) +
                          words_of(call, op->recurrent, op->recurrent_count, steps);
    if (op->recurrent_count)
        share_task(call, op, call->samples, words * op->channels * area, recurrent_items);
    else if (area == 1)
        share_task(call, op, blocks_of(op) * call->samples, words * BLOCK, layer_items);
    else
        share_task(call, op, area * call->samples, words * op->channels, layer_items);
}

#endif
