/* Neurons and Scores: one place of a layer after the other, one block of channels after the other. What is
 * accumulated and every potential live in registers and a few kilobytes a thread; spikes alone are stored. */
#ifndef MFP_LAYER_H
#define MFP_LAYER_H

#include "place.h"
#include "tasks.h"

static void spikes_of_block(const Place *place, int64_t block)
{
    const Op *op = place->op;
    const Map *target = place->call->maps + op->target;
    int64_t slot = place->slot;
    for (int64_t t = place->call->first; t < place->call->first + place->call->count; t++) {
        word *to = (word *)(void *)in_slot(target, place->sample, slot, place->y, place->x);
        slot = next_slot(target, slot);
        to[block] = op->wide ? fire_wide(op, t, block, place->total, place->start, place->same)
                             : fire_narrow(op, t, block, place->total, place->start, place->same);
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
static void blocks(Place *place, int64_t first, int64_t last, Seen ***all)
{
    const Op *op = place->op;
    const int once = place->steps <= CHUNK;
    if (once) gather(place, place->start, place->steps, all);
    for (int64_t block = first; block < last; block++) {
        const int64_t lanes = lanes_of(op->channels, block);
        memset(place->total, 0, (size_t)(place->steps * BLOCK) * (op->wide ? sizeof(uint64_t) : sizeof(uint32_t)));
        for (int64_t done = 0; done < place->steps; done += CHUNK) {
            const int64_t left = place->steps - done, steps = left < CHUNK ? left : CHUNK;
            if (!once) gather(place, place->start + done, steps, all);
            add_up(place, done, steps, block, lanes, all);
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
    Place place = {.call = call, .op = op};
    Scratch scratch = {call->scratch + thread * call->scratch_bytes};
    Seen ***all = place_in(&scratch, &place);
    int64_t item, end;
    while (take_items(items, &item, &end)) {
        for (; item < end; item++) {
            if (area == 1) {
                place.sample = item % call->samples;
                blocks(&place, item / call->samples, item / call->samples + 1, all);
            } else {
                place.sample = item / area;
                place.y = item % area / op->width;
                place.x = item % op->width;
                blocks(&place, 0, all_blocks, all);
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
