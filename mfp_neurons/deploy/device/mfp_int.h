/* SPDX-License-Identifier: MIT */
/* Integer spiking networks for small devices: what the generated NAME.c calls. C99 and <stdint.h>, nothing else: no
 * allocation, no floating point, no recursion, no static variables; every buffer is the caller's. No membrane potential
 * is stored: the currents of one neuron are added up, weighted over time, compared with its thresholds, and gone. */
#ifndef MFP_INT_H
#define MFP_INT_H

#include <stdint.h>

/* Whole numbers of shape (channels, height, width) at one step, as bits: `planes` planes, the lowest bit of the
 * numbers first, of `words` words each. Number (y * width + x) * channels + c of a plane is channel c of row y and
 * column x; the first is the lowest bit of the first word; bits after the last are 0. Spikes have one plane. */
typedef struct {
    uint32_t channels, height, width;
    uint32_t planes;
    uint32_t words;
} mfp_map;

/* The steps of a map, one after the other: step t is at bits + t * stride. A stride of 0 is one step for all. */
typedef struct {
    const uint32_t *bits;
    uint32_t stride;
} mfp_view;

/* A table of signed integers of 1, 2, 4 or 8 bytes, the fewest that hold them. */
typedef struct {
    const void *numbers;
    uint8_t bytes;
} mfp_table;

/* Which (rows, columns) of a map one output sees; what lies outside counts 0, for a maximum not at all. */
typedef struct {
    uint32_t size[2], stride[2], padding[2], dilation[2];
} mfp_window;

enum { MFP_SUM, MFP_MAX };

/* A window of `kind` over numbers: over one number where nothing is pooled. */
typedef struct {
    uint8_t kind;
    mfp_window window;
} mfp_pooling;

/* accumulated[o] = sum of codes[o] * source over the window, then pooled, then times factor[o].
 *
 * One row of codes belongs to each output channel, in the order (row, column, channel of the group) of what it sees:
 *     bits    [channel][plane][row_words]: sum over planes of weight * popcount(plane & seen) + base * sum of seen
 *     bytes   [channel][row]: sum of code * seen; for levels and codes of many bits, where this is faster */
typedef struct {
    mfp_map source;
    mfp_window window;
    uint32_t height, width;        /* of what is accumulated, before it is pooled */
    uint32_t group_in, group_out;  /* channels of one group */
    uint32_t row, row_words;       /* numbers that an output sees, and their words in one plane */
    uint8_t whole;                 /* 1: these are the source as it lies there, so nothing is gathered */
    const uint32_t *bits;          /* codes, or */
    const int8_t *bytes;           /* codes */
    uint32_t planes;               /* of the codes */
    uint32_t weight[8];            /* of each plane, modulo 2**32 */
    uint32_t base;                 /* modulo 2**32 */
    mfp_table factor;              /* [channel]; no numbers: 1 everywhere */
    mfp_pooling pooling;
} mfp_synapse;

/* What ends in the same neurons: one or more synapses, all giving (channels, height, width). */
typedef struct {
    uint32_t channels, height, width;
    uint32_t count;
    const mfp_synapse *synapses;
    uint8_t wide; /* 1: currents and potentials need 64 bits */
} mfp_currents;

/* spikes[t] = 1 where sum over j = 0 .. min(t, order - 1) of taps[j] * current[t - j] >= threshold[t].
 *
 * Taps are a table [tap_rows][order][tap_columns], of which step t has row min(t, tap_rows - 1), and of so many
 * channels side by side, tap_group, each has the same column. Or they are powers of two, `powers`, with one row: for
 * each column a byte, exponent * 32 + absent, and then half a byte for each tap, the lower half first. It says which
 * of 17 numbers the tap is, -2**(exponent + 7) .. -2**exponent, 0, 2**exponent .. 2**(exponent + 7), of which the one
 * at place `absent` does not count.
 *
 * Thresholds are a table [threshold_rows][channels], the same way. Or, if threshold_rows is 0, they are
 *     threshold[t] = (thresholds[channel] * 2**coarse - slopes[channel] * sum of the taps) >> shift
 * with the taps that step t reaches, those in its sum. */
typedef struct {
    mfp_currents currents;
    uint32_t order;
    uint32_t tap_rows, tap_columns, tap_group;
    mfp_table taps;        /* or */
    const uint8_t *powers;
    uint32_t threshold_rows;
    mfp_table thresholds, slopes;
    uint8_t coarse, shift;
} mfp_neurons;

/* What the spikes of a layer's own last steps do: they add up, times taps, to its potential; or to the number of a
 * threshold, `start` without any; or inputs before the last of them do not count, and thresholds go by its age. */
enum { MFP_OWN_SUM, MFP_OWN_TABLE, MFP_OWN_AGE };

typedef struct {
    mfp_neurons neurons; /* thresholds [threshold_rows][choices][channels], or [choices][channels] */
    uint8_t kind;
    uint32_t steps;          /* of own spikes that are looked back at */
    uint32_t choices, start; /* of a table; else 1 and 0 */
    int64_t unit;            /* of a sum, what inputs are multiplied with; else 1 */
    uint32_t columns;        /* taps [steps][columns], the newest step first */
    mfp_table taps;
} mfp_feedback;

/* score[t] = offset + current[t]; so are the numbers of a map that is made of currents. */
typedef struct {
    mfp_currents currents;
    mfp_table offset; /* [channel] */
} mfp_readout;

/* score[t] = offset[t] + sum over synapses s and j = 0 .. min(t, order - 1) of taps[s][j] * what s gives at t - j. */
typedef struct {
    mfp_currents currents;
    uint32_t order, columns; /* taps [synapse][order][columns] */
    mfp_table taps;
    uint32_t offset_rows; /* offset [offset_rows][channel]; step t has row min(t, offset_rows - 1) */
    mfp_table offset;
} mfp_tapped;

/* What becomes of the scores of several steps. */
enum { MFP_EVERY_STEP, MFP_SUM_OF_STEPS, MFP_MAX_OF_STEPS };

/* What the windows of one output place see of one synapse: patches, [window][step], for one group of channels. */
typedef struct {
    uint32_t windows, steps;
    uint32_t next;           /* the first channel of the next group */
    uint8_t alone;           /* 1: what it accumulates are the currents as they are */
    uint32_t *gathered;      /* where patches are put, */
    const uint32_t *patches; /* and where they are: there, or in the source */
    uint32_t stride;         /* from one to the next */
    uint32_t *totals;        /* of each, base times the sum of its numbers */
} mfp_seen;

/* Memory for one layer at a time; the structs of NAME.h have as much of it as the largest layer needs. */
typedef struct {
    uint32_t *patches;
    uint32_t *totals;
    int32_t *sums; /* what one neuron gets from one synapse, where these are not its currents as they are */
    mfp_seen *seen;
    int32_t *narrow; /* currents of one neuron at all steps, then its taps, or its scores with taps; */
    int64_t *wide;   /* here if they need 64 bits */
} mfp_scratch;

/* Whether one of `count` levels is above `top`. */
int mfp_above(const uint8_t *levels, uint32_t count, uint8_t top);

/* Bytes of a step, row-major (channels, height, width), as a map. */
void mfp_pack(const mfp_map *map, const uint8_t *levels, uint32_t *out);

/* The same of levels of two bytes. */
int mfp_above16(const uint16_t *levels, uint32_t count, uint16_t top);
void mfp_pack16(const mfp_map *map, const uint16_t *levels, uint32_t *out);

/* Spikes of steps from .. steps - 1 of those that `sources` hold, one view for each synapse. `first` is the number of
 * the first of them since the start. `out` takes steps - from maps. Of a recurrent synapse the source is the layer's
 * own map one step behind, with 0 everywhere before the first step; then from is steps - 1. */
void mfp_fire(const mfp_neurons *layer, const mfp_view *sources, uint32_t first, uint32_t steps, uint32_t from,
              uint32_t *out, const mfp_scratch *scratch);

/* The same for neurons with feedback. Before `out` lie their own past steps, as many as there were, at most
 * layer->steps, the oldest first. */
void mfp_fire_feedback(const mfp_feedback *layer, const mfp_view *sources, uint32_t first, uint32_t steps,
                       uint32_t from, uint32_t *out, const mfp_scratch *scratch);

/* Scores of `steps` steps, row-major (channels, height, width): summed if `sum` is 1, else [step][score]. */
void mfp_score(const mfp_readout *layer, const mfp_view *sources, uint32_t steps, uint8_t sum, int64_t *scores,
               const mfp_scratch *scratch);

/* Scores with taps of steps from .. steps - 1 of those that `sources` hold, as mfp_fire has them, row-major: one of all
 * steps, or [step][score]. */
void mfp_score_tapped(const mfp_tapped *layer, const mfp_view *sources, uint32_t first, uint32_t steps, uint32_t from,
                      uint8_t kind, int64_t *scores, const mfp_scratch *scratch);

/* Currents as a map: the numbers (offset + current) >> shift, none of which is negative or needs more planes than
 * `target` has, which are 24 at most; shift is below 64. */
void mfp_current(const mfp_readout *layer, const mfp_view *sources, const mfp_map *target, uint32_t shift,
                 uint32_t steps, uint32_t *out, const mfp_scratch *scratch);

/* The largest number, or the sum, of each window: `target` at `steps` steps. */
void mfp_pool(const mfp_map *source, mfp_view view, const mfp_pooling *pooling, const mfp_map *target, uint32_t steps,
              uint32_t *out);

/* Joins `steps` steps, of which `window` become one, the largest number: step t goes into step (place + t) / window of
 * `out`. `place` is where in its window the first of them lies; what a window has seen before has to be there. */
void mfp_join(const mfp_map *map, mfp_view view, uint32_t window, uint32_t place, uint32_t steps, uint32_t *out);

/* Adds weight * source to the channels of `out` from `channel` on, at `steps` steps. */
void mfp_add(const mfp_map *source, mfp_view view, uint32_t weight, const mfp_map *target, uint32_t channel,
             uint32_t steps, uint32_t *out);

/* Number i of `target` is number places[i] of the source, or `fill` where that is negative; both in the order in which
 * maps have them, channels side by side. */
void mfp_gather(const mfp_map *source, mfp_view view, const mfp_table *places, uint32_t fill, const mfp_map *target,
                uint32_t steps, uint32_t *out);

/* 1 everywhere, in a map of one plane. */
void mfp_ones(const mfp_map *target, uint32_t steps, uint32_t *out);

/* left * right, place by place. */
void mfp_multiply(const mfp_map *left, mfp_view left_view, const mfp_map *right, mfp_view right_view,
                  const mfp_map *target, uint32_t steps, uint32_t *out);

/* The product of the matrices, rows times columns, of each channel. */
void mfp_matmul(const mfp_map *left, mfp_view left_view, const mfp_map *right, mfp_view right_view,
                const mfp_map *target, uint32_t steps, uint32_t *out, const mfp_scratch *scratch);

/* Sets words to 0. */
void mfp_clear(uint32_t *words, uint32_t count);

/* Forgets the oldest of past + 1 steps of `words` words each: step i moves to i - 1, and the last is free. */
void mfp_shift(uint32_t *steps, uint32_t words, uint32_t past);

/* The place of the largest number, of the first one if there are several. */
uint32_t mfp_largest(const int64_t *numbers, uint32_t count);

#endif
