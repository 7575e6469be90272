/* One place of a layer: what its synapses add up, for one block of channels after the other. */
#ifndef MFP_PLACE_H
#define MFP_PLACE_H

#include "accumulate.h"
#include "see.h"

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
    int32_t *numbers;
    Scratch gathered;
} Place;

static const Window ONE = {{1, 1}, {1, 1}, {0, 0}, {1, 1}};

static const Window *pooling(const Synapse *synapse) { return synapse->pool == NONE ? &ONE : &synapse->pooling; }

/* What a synapse sees from one place of its pooling window, or 0 if that is outside of what it accumulates. */
static int view_of(const Place *place, const Synapse *synapse, int64_t i, int64_t j, View *view)
{
    const Map *map = place->call->maps + synapse->source;
    *view = (View){.map = map, .synapse = synapse, .sample = place->sample};
    return place_of(pooling(synapse), synapse->height, synapse->width, place->y, place->x, i, j, &view->y, &view->x);
}

static int64_t steps_of(const Map *source, int64_t steps) { return source->same ? 1 : steps; }

/* Gathers for all synapses and all places of their pooling windows, `steps` from `start` on. */
static void gather(const Place *place, int64_t start, int64_t steps, Seen ***all)
{
    Scratch scratch = place->gathered;
    for (int64_t s = 0; s < place->op->synapse_count; s++) {
        const Synapse *synapse = place->op->synapses + s;
        const Window *window = pooling(synapse);
        for (int64_t i = 0; i < window->size[0]; i++) {
            for (int64_t j = 0; j < window->size[1]; j++, all++) {
                View view;
                if (!view_of(place, synapse, i, j, &view)) continue;
                view.step = start;
                *all = see(view, steps_of(view.map, steps), place->numbers, &scratch);
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

/* One synapse's numbers of a block, pooled; returns how many entries of `all` it used. */
static int64_t currents(const Place *place, const Synapse *synapse, int64_t steps, int64_t block, Seen ***all,
                        const uint32_t **found)
{
    const Window *window = pooling(synapse);
    const Map *source = place->call->maps + synapse->source;
    if (synapse->pool == NONE) {
        accumulate(synapse, source, *all, steps, block, place->acc);
        *found = place->acc;
        return 1;
    }
    const int64_t count = steps * BLOCK;
    for (int64_t c = 0; c < count; c++) place->pooled[c] = synapse->pool == MAX ? UINT32_C(0x80000000) : 0;
    for (int64_t i = 0; i < window->size[0]; i++) {
        for (int64_t j = 0; j < window->size[1]; j++, all++) {
            View view;
            if (!view_of(place, synapse, i, j, &view)) continue;
            accumulate(synapse, source, *all, steps, block, place->acc);
            pool_into(synapse, count, place->acc, place->pooled);
        }
    }
    *found = place->pooled;
    return places(window);
}

/* total[step] of a block for the steps of one chunk: the sum of the synapses. */
static void add_up(const Place *place, int64_t done, int64_t steps, int64_t block, int64_t lanes, Seen ***all)
{
    for (int64_t s = 0; s < place->op->synapse_count; s++) {
        const Synapse *synapse = place->op->synapses + s;
        const int64_t given = steps_of(place->call->maps + synapse->source, steps);
        const uint32_t *found;
        all += currents(place, synapse, given, block, all, &found);
        for (int64_t t = 0; t < steps; t += given) { /* what is the same at every step counts for each */
            const int64_t offset = (done + t) * BLOCK;
            if (place->op->wide)
                add_wide(synapse, given, block, lanes, found, (uint64_t *)place->total + offset);
            else
                add_narrow(synapse, given, block, lanes, found, (uint32_t *)place->total + offset);
        }
    }
}

/* How many Seen ** an operation gathers. */
static int64_t views(const Op *op)
{
    int64_t count = 0;
    for (int64_t s = 0; s < op->synapse_count; s++) count += places(pooling(op->synapses + s));
    return count;
}

static int64_t widest_source(const Call *call, const Op *op)
{
    int64_t words = 0;
    for (int64_t s = 0; s < op->synapse_count; s++) {
        const Map *source = call->maps + op->synapses[s].source;
        if (source->words > words) words = source->words;
    }
    return words;
}

/* The first of the currents that steps from call->first on look back at. */
static int64_t first_step(const Call *call, const Op *op)
{
    const int64_t first = op->kind == SCORES ? call->first : call->first - op->order + 1;
    return first < 0 ? 0 : first;
}

static int all_same(const Call *call, const Op *op)
{
    for (int64_t s = 0; s < op->synapse_count; s++)
        if (!call->maps[op->synapses[s].source].same) return 0;
    return 1;
}

/* Bytes that one thread needs for an operation; `place_in` hands the same out. */
static int64_t layer_bytes(const Call *call, const Op *op)
{
    const int64_t steps = call->first + call->count - first_step(call, op);
    int64_t gathered = 0;
    for (int64_t s = 0; s < op->synapse_count; s++) {
        const Synapse *synapse = op->synapses + s;
        const Map *source = call->maps + synapse->source;
        const int64_t planes = seen_planes(synapse, source), at_once = steps_of(source, steps < CHUNK ? steps : CHUNK);
        const int64_t groups = (at_once + TOGETHER - 1) / TOGETHER;
        gathered += places(pooling(synapse)) * (padded(CHUNK / TOGETHER * planes * (int64_t)sizeof(Seen *)) +
                                                groups * planes * seen_bytes(synapse, source));
    }
    return 2 * padded(CHUNK * BLOCK * 4) + padded(steps * BLOCK * 8) +
           padded(TOGETHER * widest_source(call, op) * BLOCK * 4) + padded(views(op) * (int64_t)sizeof(Seen **)) +
           gathered;
}

static Seen ***place_in(Scratch *scratch, Place *place)
{
    const Op *op = place->op;
    place->start = first_step(place->call, op);
    place->same = all_same(place->call, op);
    place->slot = op->kind == SCORES ? 0 : slot_of(place->call->maps + op->target, place->call->first);
    const int64_t steps = place->call->first + place->call->count - place->start;
    place->steps = place->same ? 1 : steps;
    place->acc = take(scratch, CHUNK * BLOCK * 4);
    place->pooled = take(scratch, CHUNK * BLOCK * 4);
    place->total = take(scratch, steps * BLOCK * 8);
    place->numbers = take(scratch, TOGETHER * widest_source(place->call, op) * BLOCK * 4);
    Seen ***all = take(scratch, views(op) * (int64_t)sizeof(Seen **));
    place->gathered = *scratch;
    return all;
}

#endif
