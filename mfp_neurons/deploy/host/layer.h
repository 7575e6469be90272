/* Neurons and Scores: one place of a layer after the other, one block of channels after the other. What is
 * accumulated and every potential live in registers and a few kilobytes a thread; spikes alone are stored. */
#ifndef MFP_LAYER_H
#define MFP_LAYER_H

#include "accumulate.h"
#include "threads.h"

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
    for (int64_t s = 0; s < place->op->synapse_count; s++) {
        const Synapse *synapse = place->op->synapses + s;
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
    if (synapse->pool == NONE) {
        accumulate(synapse, source, *views, steps, block, place->acc);
        return place->acc;
    }
    const int64_t count = steps * BLOCK;
    for (int64_t c = 0; c < count; c++) place->pooled[c] = synapse->pool == MAX ? UINT32_C(0x80000000) : 0;
    for (int64_t i = 0; i < window->size[0]; i++) {
        for (int64_t j = 0; j < window->size[1]; j++, views++) {
            Patch patch;
            if (!patch_of(place, synapse, i, j, &patch)) continue;
            accumulate(synapse, source, *views, steps, block, place->acc);
            pool_into(synapse, count, place->acc, place->pooled);
        }
    }
    return place->pooled;
}

/* total[step] of a block for the `steps` steps of one chunk, which `done` others came before: the sum of the
 * synapses. */
static void add_up(const Place *place, int64_t done, int64_t steps, int64_t block, int64_t lanes)
{
    RowView ***views = place->views;
    for (int64_t s = 0; s < place->op->synapse_count; s++) {
        const Synapse *synapse = place->op->synapses + s;
        const int64_t computed = steps_of(place->call->maps + synapse->source, steps);
        const uint32_t *current = currents(place, synapse, computed, block, views);
        views += places(pooling(synapse));
        for (int64_t t = 0; t < steps; t += computed) { /* what is the same at every step counts for each */
            const int64_t offset = (done + t) * BLOCK;
            if (place->op->wide)
                add_wide(synapse, computed, block, lanes, current, (uint64_t *)place->total + offset);
            else
                add_narrow(synapse, computed, block, lanes, current, (uint32_t *)place->total + offset);
        }
    }
}

/* The first of the currents that steps from call->first on look back at. */
static int64_t first_step(const Call *call, const Op *op)
{
    const int64_t first = op->kind == SCORES ? call->first : call->first - op->order + 1;
    return first < 0 ? 0 : first;
}

/* Hands out what one thread needs for an operation, but for what is gathered, which begins behind it. */
static Place place_in(Scratch *scratch, const Call *call, const Op *op)
{
    Place place = {.call = call, .op = op, .start = first_step(call, op), .same = 1};
    int64_t words = 0, views = 0;
    for (int64_t s = 0; s < op->synapse_count; s++) {
        const Map *source = call->maps + op->synapses[s].source;
        if (!source->same) place.same = 0;
        if (source->words > words) words = source->words;
        views += places(pooling(op->synapses + s));
    }
    const int64_t steps = call->first + call->count - place.start;
    place.slot = op->kind == SCORES ? 0 : slot_of(call->maps + op->target, call->first);
    place.steps = place.same ? 1 : steps;
    place.acc = take(scratch, CHUNK * BLOCK * 4);
    place.pooled = take(scratch, CHUNK * BLOCK * 4);
    place.total = take(scratch, steps * BLOCK * 8);
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
    int64_t bytes = (int64_t)scratch.next;
    for (int64_t s = 0; s < op->synapse_count; s++) {
        const Synapse *synapse = op->synapses + s;
        const Map *source = call->maps + synapse->source;
        const int64_t planes = view_planes(synapse, source), at_once = steps_of(source, steps < CHUNK ? steps : CHUNK);
        const int64_t groups = (at_once + TOGETHER - 1) / TOGETHER;
        bytes += places(pooling(synapse)) * (padded(CHUNK / TOGETHER * planes * (int64_t)sizeof(RowView *)) +
                                             groups * planes * view_bytes(synapse, source));
    }
    return bytes;
}

static void spikes_of_block(const Place *place, int64_t block)
{
    const Op *op = place->op;
    const Map *target = place->call->maps + op->target;
    int64_t slot = place->slot;
    const Train own = train_at(target, place->sample, place->y, place->x, block);
    for (int64_t t = place->call->first; t < place->call->first + place->call->count; t++) {
        word *to = (word *)(void *)in_slot(target, place->sample, slot, place->y, place->x);
        if (op->feedback == OPEN)
            to[block] = op->wide ? fire_wide(op, t, block, place->total, place->start, place->same)
                                 : fire_narrow(op, t, block, place->total, place->start, place->same);
        else /* steps before this one have their spikes already */
            to[block] = op->wide ? fire_fed_back_wide(op, t, block, place->total, place->start, place->same, &own, slot)
                                 : fire_fed_back_narrow(op, t, block, place->total, place->start, place->same, &own,
                                                        slot);
        slot = next_slot(target, slot);
    }
}

static void scores_of_block(const Place *place, int64_t block)
{
    const Call *call = place->call;
    const Op *op = place->op;
    const int64_t left = op->channels - block * BLOCK, channels = left < BLOCK ? left : BLOCK;
    for (int64_t t = 0; t < call->count; t++) {
        const uint64_t *total = (const uint64_t *)place->total + (place->same ? 0 : t * BLOCK);
        for (int64_t c = 0; c < channels; c++) {
            const int64_t channel = block * BLOCK + c;
            const int64_t map = (t * call->samples + place->sample) * op->channels + channel;
            const int64_t at = (map * op->height + place->y) * op->width + place->x;
            call->scores[at] = (int64_t)(total[c] + (uint64_t)op->offset[channel]);
        }
    }
}

static int64_t blocks_of(const Op *op) { return (op->channels + BLOCK - 1) / BLOCK; }

/* Blocks [first, last) of one place. Longer times than a chunk are gathered again for every block. */
static void blocks(const Place *place, int64_t first, int64_t last)
{
    const Op *op = place->op;
    const int once = place->steps <= CHUNK;
    if (once) gather(place, place->start, place->steps);
    for (int64_t block = first; block < last; block++) {
        const int64_t lanes = lanes_of(op->channels, block);
        memset(place->total, 0, (size_t)(place->steps * BLOCK) * (op->wide ? sizeof(uint64_t) : sizeof(uint32_t)));
        for (int64_t done = 0; done < place->steps; done += CHUNK) {
            const int64_t left = place->steps - done, steps = left < CHUNK ? left : CHUNK;
            if (!once) gather(place, place->start + done, steps);
            add_up(place, done, steps, block, lanes);
        }
        if (op->kind == SCORES)
            scores_of_block(place, block);
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

static void layer(const Call *call, const Op *op)
{
    const int64_t area = op->height * op->width;
    const int64_t steps = call->first + call->count - first_step(call, op);
    int64_t words = 0; /* for one channel of one place */
    for (int64_t s = 0; s < op->synapse_count; s++) {
        const Synapse *synapse = op->synapses + s;
        const Map *source = call->maps + synapse->source;
        const int64_t planes = synapse->kind == COUNT ? synapse->planes * source->planes : 1;
        words += synapse->rows * planes * places(pooling(synapse)) * steps_of(source, steps);
    }
    if (area == 1)
        share_task(call, op, blocks_of(op) * call->samples, words * BLOCK, layer_items);
    else
        share_task(call, op, area * call->samples, words * op->channels, layer_items);
}

#endif
