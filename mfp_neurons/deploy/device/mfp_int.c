/* SPDX-License-Identifier: MIT */
/* The primitives of mfp_int.h, in this order: bits, windows, synapses, neurons, maps. */
#include "mfp_int.h"

#define WORD 32u

/* ---- bits ---- */

/* to[k] = from[k] + weight * the number of bits that a row of words has in common with patch k. Cortex-M has no
 * instruction that counts bits; of four words the last steps of the count are taken together, as there is room for
 * their sum, and the words of the row are read once for all patches. A table of the counts of bytes takes 4 to 9 %
 * more instructions of a whole network, and 300 bytes more of flash. */
static void add_common(const uint32_t *row, uint32_t words, const uint32_t *patch, uint32_t stride, uint32_t patches,
                       uint32_t weight, const uint32_t *from, uint32_t *to)
{
    /* Read as if they could change, so that they are held in registers: there a Cortex-M shifts the other operand of
     * an AND for nothing, beside a constant in the instruction it cannot. */
    static const uint32_t masks[3] = {UINT32_C(0x55555555), UINT32_C(0x33333333), UINT32_C(0x0f0f0f0f)};
    const volatile uint32_t *mask = masks;
    const uint32_t ones = mask[0], twos = mask[1], fours = mask[2];
    for (; words >= 4u; words -= 4u, row += 4, patch += 4, from = to) {
        const uint32_t row0 = row[0], row1 = row[1], row2 = row[2], row3 = row[3];
        const uint32_t *seen = patch;
        for (uint32_t k = 0; k < patches; k++, seen += stride) {
            uint32_t a = row0 & seen[0], b = row1 & seen[1];
            a -= (a >> 1) & ones, b -= (b >> 1) & ones;
            uint32_t sum = (a & twos) + ((a >> 2) & twos) + (b & twos) + ((b >> 2) & twos);
            uint32_t total = (sum & fours) + ((sum >> 4) & fours);
            a = row2 & seen[2], b = row3 & seen[3];
            a -= (a >> 1) & ones, b -= (b >> 1) & ones;
            sum = (a & twos) + ((a >> 2) & twos) + (b & twos) + ((b >> 2) & twos);
            total += (sum & fours) + ((sum >> 4) & fours);
            to[k] = from[k] + weight * ((total * UINT32_C(0x01010101)) >> 24);
        }
    }
    if (words > 1u) { /* two or three; in place of a third one there is another, of which nothing counts */
        const uint32_t third = words > 2u ? 2u : 0u;
        const uint32_t row0 = row[0], row1 = row[1], row2 = third ? row[third] : 0u, *seen = patch;
        for (uint32_t k = 0; k < patches; k++, seen += stride) {
            uint32_t a = row0 & seen[0], b = row1 & seen[1], c = row2 & seen[third];
            a -= (a >> 1) & ones, b -= (b >> 1) & ones, c -= (c >> 1) & ones;
            a = (a & twos) + ((a >> 2) & twos) + (b & twos) + ((b >> 2) & twos) + (c & twos) + ((c >> 2) & twos);
            a = (a & fours) + ((a >> 4) & fours);
            to[k] = from[k] + weight * ((a * UINT32_C(0x01010101)) >> 24);
        }
    } else if (words == 1u) {
        const uint32_t row0 = row[0], *seen = patch;
        for (uint32_t k = 0; k < patches; k++, seen += stride) {
            uint32_t a = row0 & *seen;
            a -= (a >> 1) & ones;
            a = (a & twos) + ((a >> 2) & twos);
            a = (a + (a >> 4)) & fours;
            to[k] = from[k] + weight * ((a * UINT32_C(0x01010101)) >> 24);
        }
    }
}

/* `count` (1 to 32) bits from bit `at` on. */
static uint32_t get_bits(const uint32_t *words, uint32_t at, uint32_t count)
{
    const uint32_t shift = at % WORD;
    words += at / WORD;
    uint32_t bits = words[0] >> shift;
    if (shift + count > WORD) bits |= words[1] << (WORD - shift);
    return count < WORD ? bits & ((UINT32_C(1) << count) - 1u) : bits;
}

/* Flips the bits from bit `at` on where `bits` has a 1; in words of 0 that writes them. */
static void flip_bits(uint32_t *words, uint32_t at, uint32_t bits, uint32_t count)
{
    const uint32_t shift = at % WORD;
    words += at / WORD;
    words[0] ^= bits << shift;
    if (shift + count > WORD) words[1] ^= bits >> (WORD - shift);
}

static uint32_t get_number(const mfp_map *map, const uint32_t *bits, uint32_t index)
{
    uint32_t number = 0;
    for (uint32_t p = 0; p < map->planes; p++) number |= get_bits(bits + p * map->words, index, 1) << p;
    return number;
}

static int64_t table_number(const mfp_table *table, uint32_t index)
{
    switch (table->bytes) {
    case 1: return ((const int8_t *)table->numbers)[index];
    case 2: return ((const int16_t *)table->numbers)[index];
    case 4: return ((const int32_t *)table->numbers)[index];
    default: return ((const int64_t *)table->numbers)[index];
    }
}

/* ---- windows ---- */

#define OUTSIDE UINT32_C(0xffffffff)

/* The place, row * width + column, that place (i, j) of the window of output (y, x) sees. */
static uint32_t seen_place(const mfp_window *window, uint32_t height, uint32_t width, uint32_t y, uint32_t x,
                           uint32_t i, uint32_t j)
{
    /* what lies above or to the left wraps around to a large number */
    const uint32_t row = y * window->stride[0] + i * window->dilation[0] - window->padding[0];
    const uint32_t column = x * window->stride[1] + j * window->dilation[1] - window->padding[1];
    return row < height && column < width ? row * width + column : OUTSIDE;
}

/* ---- synapses ---- */

static uint32_t patch_words(const mfp_synapse *synapse)
{
    return synapse->bytes ? (synapse->row + 3u) / 4u : synapse->row_words * synapse->source.planes;
}

/* One plane of what output (y, x) of one group sees, bits side by side. */
static void gather_bits(const mfp_synapse *synapse, const uint32_t *plane, uint32_t y, uint32_t x, uint32_t group,
                        uint32_t *patch)
{
    const mfp_map *source = &synapse->source;
    const mfp_window *window = &synapse->window;
    const uint32_t inputs = synapse->group_in;
    uint32_t at = 0;
    mfp_clear(patch, synapse->row_words);
    for (uint32_t i = 0; i < window->size[0]; i++) {
        for (uint32_t j = 0; j < window->size[1]; j++, at += inputs) {
            const uint32_t place = seen_place(window, source->height, source->width, y, x, i, j);
            if (place == OUTSIDE) continue;
            const uint32_t from = place * source->channels + group * inputs;
            for (uint32_t c = 0; c < inputs; c += WORD) {
                const uint32_t count = inputs - c < WORD ? inputs - c : WORD;
                flip_bits(patch, at + c, get_bits(plane, from + c, count), count);
            }
        }
    }
}

/* The same as bytes, for codes that are multiplied with levels. */
static void gather_bytes(const mfp_synapse *synapse, const uint32_t *bits, uint32_t y, uint32_t x, uint32_t group,
                         uint8_t *patch)
{
    const mfp_map *source = &synapse->source;
    const mfp_window *window = &synapse->window;
    const uint32_t inputs = synapse->group_in;
    for (uint32_t i = 0; i < window->size[0]; i++) {
        for (uint32_t j = 0; j < window->size[1]; j++, patch += inputs) {
            const uint32_t place = seen_place(window, source->height, source->width, y, x, i, j);
            const uint32_t from = place * source->channels + group * inputs;
            for (uint32_t c = 0; c < inputs; c++)
                patch[c] = place == OUTSIDE ? 0 : (uint8_t)get_number(source, bits, from + c);
        }
    }
}

/* Gathers what output (y, x) of one group sees at every step, behind the windows that are there already. */
static void look_at(const mfp_synapse *synapse, const mfp_view *view, uint32_t y, uint32_t x, uint32_t group,
                    mfp_seen *seen)
{
    uint32_t k = seen->windows * seen->steps;
    for (uint32_t t = 0; t < seen->steps; t++, k++) {
        const uint32_t *bits = view->bits + t * view->stride;
        const uint32_t at = k * patch_words(synapse);
        uint32_t *total = seen->totals + k;
        if (synapse->bytes) {
            gather_bytes(synapse, bits, y, x, group, (uint8_t *)(seen->gathered + at));
            continue;
        }
        *total = 0;
        for (uint32_t p = 0; p < synapse->source.planes; p++) {
            const uint32_t *plane = bits + p * synapse->source.words;
            if (!synapse->whole) {
                uint32_t *gathered = seen->gathered + at + p * synapse->row_words;
                gather_bits(synapse, plane, y, x, group, gathered);
                plane = gathered;
            }
            if (synapse->base)
                add_common(plane, synapse->row_words, plane, 0, 1, synapse->base << p, total, total);
        }
    }
    seen->windows++;
}

/* Gathers what the neurons of one group at (y, x) see: one window, or all that are pooled there. */
static void look(const mfp_synapse *synapse, const mfp_view *view, uint32_t y, uint32_t x, uint32_t group,
                 mfp_seen *seen)
{
    const mfp_window *pooled = &synapse->pooling.window;
    const uint32_t height = synapse->height, width = synapse->width;
    seen->windows = 0;
    for (uint32_t i = 0; i < pooled->size[0]; i++) {
        for (uint32_t j = 0; j < pooled->size[1]; j++) {
            const uint32_t place = seen_place(pooled, height, width, y, x, i, j);
            if (place != OUTSIDE) look_at(synapse, view, place / width, place % width, group, seen);
        }
    }
}

/* sums[k] of one output channel for patch k: planes of codes against planes of numbers. Sums wrap around; in the
 * end they fit. */
static void count_bits(const mfp_synapse *synapse, uint32_t channel, const uint32_t *patch, uint32_t stride,
                       const uint32_t *totals, uint32_t patches, uint32_t *sums)
{
    const uint32_t words = synapse->row_words, planes = synapse->planes;
    const uint32_t *row = synapse->bits + channel * planes * words;
    for (uint32_t p = 0; p < planes; p++, row += words)
        for (uint32_t q = 0; q < synapse->source.planes; q++, totals = sums)
            add_common(row, words, patch + q * words, stride, patches, synapse->weight[p] << q, totals, sums);
}

/* The same with codes and levels in bytes. */
static void multiply_bytes(const mfp_synapse *synapse, uint32_t channel, const uint32_t *patch, uint32_t stride,
                           uint32_t patches, int32_t *sums)
{
    const uint32_t length = synapse->row;
    const int8_t *row = synapse->bytes + channel * length;
    for (uint32_t k = 0; k < patches; k++, patch += stride) {
        const uint8_t *level = (const uint8_t *)patch;
        const int8_t *code = row;
        int32_t sum = 0;
        for (uint32_t left = length / 4u; left > 0; left--, code += 4, level += 4) {
            sum += (int32_t)code[0] * level[0];
            sum += (int32_t)code[1] * level[1];
            sum += (int32_t)code[2] * level[2];
            sum += (int32_t)code[3] * level[3];
        }
        for (uint32_t left = length % 4u; left > 0; left--) sum += (int32_t)*code++ * *level++;
        sums[k] = sum;
    }
}

/* What one output channel has accumulated in each patch, before it is pooled. */
static void accumulate(const mfp_synapse *synapse, const mfp_seen *seen, uint32_t channel, int32_t *sums)
{
    const uint32_t patches = seen->windows * seen->steps;
    if (synapse->bytes)
        multiply_bytes(synapse, channel, seen->patches, seen->stride, patches, sums);
    else
        count_bits(synapse, channel, seen->patches, seen->stride, seen->totals, patches, (uint32_t *)sums);
}

/* Pools sums of all windows into those of the first. */
static void pool_sums(const mfp_synapse *synapse, const mfp_seen *seen, int32_t *sums)
{
    const uint32_t steps = seen->steps, patches = seen->windows * steps;
    if (patches == 0) /* pooled where there is nothing */
        for (uint32_t t = 0; t < steps; t++) sums[t] = 0;
    for (uint32_t k = steps; k < patches; k++) {
        int32_t *pooled = sums + k % steps;
        if (synapse->pooling.kind == MFP_SUM)
            *pooled += sums[k];
        else if (sums[k] > *pooled)
            *pooled = sums[k];
    }
}

/* Where each synapse of a layer puts its patches. */
static void share_scratch(const mfp_currents *currents, const mfp_view *sources, uint32_t steps,
                          const mfp_scratch *scratch)
{
    uint32_t *patches = scratch->patches, *totals = scratch->totals;
    for (uint32_t i = 0; i < currents->count; i++) {
        const mfp_synapse *synapse = &currents->synapses[i];
        mfp_seen *seen = &scratch->seen[i];
        const mfp_window *pooled = &synapse->pooling.window;
        seen->steps = sources[i].stride ? steps : 1u;
        seen->gathered = patches;
        seen->patches = synapse->whole ? sources[i].bits : patches;
        seen->stride = synapse->whole ? sources[i].stride : patch_words(synapse);
        seen->totals = totals;
        const uint32_t most = pooled->size[0] * pooled->size[1] * seen->steps;
        if (!synapse->whole) patches += most * patch_words(synapse);
        totals += most;
    }
}

/* Adds up the currents of channel c at (y, x), at every step, in scratch.narrow or scratch.wide. Channels come in
 * order: those of a group see the same. */
static void add_up(const mfp_currents *currents, const mfp_view *sources, uint32_t steps, uint32_t y, uint32_t x,
                   uint32_t c, const mfp_scratch *scratch)
{
    for (uint32_t i = 0; i < currents->count; i++) {
        const mfp_synapse *synapse = &currents->synapses[i];
        mfp_seen *seen = &scratch->seen[i];
        if (c == 0) seen->next = 0;
        if (c == seen->next) {
            look(synapse, &sources[i], y, x, c / synapse->group_out, seen);
            seen->next += synapse->group_out;
            seen->alone = currents->count == 1u && !currents->wide && !synapse->factor.numbers &&
                          seen->steps == steps && seen->windows == 1u;
        }
        accumulate(synapse, seen, c, seen->alone ? scratch->narrow : scratch->sums);
        if (seen->alone) return;
        pool_sums(synapse, seen, scratch->sums);
        const int32_t factor = synapse->factor.numbers ? (int32_t)table_number(&synapse->factor, c) : 1;
        const uint32_t one = seen->steps == 1; /* holds for all steps */
        if (currents->wide)
            for (uint32_t t = 0; t < steps; t++)
                scratch->wide[t] = (i ? scratch->wide[t] : 0) + (int64_t)factor * scratch->sums[one ? 0 : t];
        else
            for (uint32_t t = 0; t < steps; t++)
                scratch->narrow[t] = (i ? scratch->narrow[t] : 0) + factor * scratch->sums[one ? 0 : t];
    }
}

/* ---- neurons ---- */

static uint32_t row_of(uint32_t step, uint32_t rows)
{
    return step < rows ? step : rows - 1u;
}

/* The first `count` taps of a column of powers of two. */
static void load_powers(const uint8_t *column, uint32_t count, int32_t *taps)
{
    static const int16_t powers[17] = {-128, -64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint32_t absent = *column & 31u;
    const int32_t unit = INT32_C(1) << (*column >> 5);
    for (uint32_t j = 0; j < count; j += 2u) {
        const uint32_t codes = *++column, first = codes & 15u, second = codes >> 4;
        taps[j] = powers[first + (first >= absent)] * unit;
        if (j + 1u < count) taps[j + 1u] = powers[second + (second >= absent)] * unit;
    }
}

/* The taps of channel c that `steps` steps can reach, behind the currents. */
static void load_taps(const mfp_neurons *layer, uint32_t row, uint32_t c, uint32_t steps, const mfp_scratch *scratch)
{
    const uint32_t reach = steps < layer->order ? steps : layer->order, columns = layer->tap_columns;
    const uint32_t column = columns == 1u ? 0u : layer->tap_group > 1u ? c / layer->tap_group : c;
    if (layer->powers) {
        load_powers(layer->powers + column * (1u + (layer->order + 1u) / 2u), reach, scratch->narrow + steps);
        return;
    }
    uint32_t at = row * layer->order * columns + column;
    for (uint32_t j = 0; j < reach; j++, at += columns) {
        if (layer->currents.wide)
            scratch->wide[steps + j] = table_number(&layer->taps, at);
        else
            scratch->narrow[steps + j] = (int32_t)table_number(&layer->taps, at);
    }
}

/* Two numbers of a channel from which its threshold at every step follows. */
typedef struct {
    int64_t start, slope;
} line;

/* That of channel c, for the own spikes of `choice`. */
static line line_of(const mfp_neurons *layer, uint32_t choice, uint32_t c)
{
    const int64_t start = table_number(&layer->thresholds, choice * layer->currents.channels + c);
    line of_channel = {0, table_number(&layer->slopes, c)};
    if (layer->currents.wide)
        of_channel.start = start * (INT64_C(1) << layer->coarse);
    else
        of_channel.start = (int32_t)start * (INT32_C(1) << layer->coarse);
    return of_channel;
}

/* The threshold of a step that reaches taps of this sum; of a negative number C leaves open what it shifts to. */
static int32_t narrow_threshold(int32_t start, int32_t slope, int32_t sum, uint32_t shift)
{
    const int32_t number = start - slope * sum;
    return number < 0 ? ~(~number >> shift) : number >> shift;
}

static int64_t wide_threshold(line of_channel, int64_t sum, uint32_t shift)
{
    const int64_t number = of_channel.start - of_channel.slope * sum;
    return number < 0 ? ~(~number >> shift) : number >> shift;
}

/* Spikes of channel c, number n of its map. Its potential, the currents weighted with the taps behind them, exists only
 * here. `sum` is that of the `reach` taps that a step has in its potential. */
static void fire_narrow(const mfp_neurons *layer, uint32_t n, uint32_t c, uint32_t first, uint32_t steps,
                        uint32_t from, uint32_t words, uint32_t *out, const mfp_scratch *scratch)
{
    const uint32_t rows = layer->threshold_rows, order = layer->order;
    const int32_t *taps = scratch->narrow + steps;
    int32_t start = 0, slope = 0, sum = 0;
    uint32_t reach = from < order ? from : order;
    load_taps(layer, row_of(first + from, layer->tap_rows), c, steps, scratch);
    for (uint32_t j = 0; j < reach; j++) sum += taps[j];
    if (!rows) {
        start = (int32_t)table_number(&layer->thresholds, c) * (INT32_C(1) << layer->coarse);
        slope = (int32_t)table_number(&layer->slopes, c);
    }
    for (uint32_t t = from; t < steps; t++, out += words) {
        const int32_t *current = scratch->narrow + t;
        int32_t potential = 0, threshold;
        if (layer->tap_rows > 1u && t > from) { /* other taps at every step */
            load_taps(layer, row_of(first + t, layer->tap_rows), c, steps, scratch);
            sum = 0;
            for (uint32_t j = 0; j < reach; j++) sum += taps[j];
        }
        if (reach < order) sum += taps[reach++];
        for (const int32_t *tap = taps, *end = taps + reach; tap < end; tap++) potential += *tap * *current--;
        if (rows) {
            const uint32_t row = row_of(first + t, rows);
            threshold = (int32_t)table_number(&layer->thresholds, row * layer->currents.channels + c);
        } else {
            threshold = narrow_threshold(start, slope, sum, layer->shift);
        }
        if (potential >= threshold) flip_bits(out, n, 1, 1);
    }
}

/* The same with 64 bits. The sum of taps may wrap around: where it does not fit, no threshold is computed from it. */
static void fire_wide(const mfp_neurons *layer, uint32_t n, uint32_t c, uint32_t first, uint32_t steps, uint32_t from,
                      uint32_t words, uint32_t *out, const mfp_scratch *scratch)
{
    const uint32_t rows = layer->threshold_rows, channels = layer->currents.channels;
    const int64_t *taps = scratch->wide + steps;
    for (uint32_t t = from; t < steps; t++, out += words) {
        const uint32_t reach = row_of(t, layer->order) + 1u;
        int64_t potential = 0, threshold;
        uint64_t sum = 0;
        if (t == from || layer->tap_rows > 1u)
            load_taps(layer, row_of(first + t, layer->tap_rows), c, steps, scratch);
        for (uint32_t j = 0; j < reach; j++) {
            potential += taps[j] * scratch->wide[t - j];
            sum += (uint64_t)taps[j];
        }
        if (rows)
            threshold = table_number(&layer->thresholds, row_of(first + t, rows) * channels + c);
        else
            threshold = wide_threshold(line_of(layer, 0, c), (int64_t)sum, layer->shift);
        if (potential >= threshold) flip_bits(out, n, 1, 1);
    }
}

void mfp_fire(const mfp_neurons *layer, const mfp_view *sources, uint32_t first, uint32_t steps, uint32_t from,
              uint32_t *out, const mfp_scratch *scratch)
{
    const mfp_currents *currents = &layer->currents;
    const uint32_t channels = currents->channels, height = currents->height, width = currents->width;
    const uint32_t words = (channels * height * width + WORD - 1u) / WORD;
    const mfp_synapse *synapse = currents->synapses;
    const mfp_seen *seen = scratch->seen;
    const int one_bit = !synapse->bytes && synapse->planes == 1u && synapse->source.planes == 1u;
    uint32_t n = 0;
    mfp_clear(out, words * (steps - from));
    share_scratch(currents, sources, steps, scratch);
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++)
            for (uint32_t c = 0; c < channels; c++, n++) {
                /* the general way gives the same, in more instructions before the first bit is counted */
                if (one_bit && c > 0 && c < seen->next && seen->alone)
                    add_common(synapse->bits + c * synapse->row_words, synapse->row_words, seen->patches, seen->stride,
                               steps, synapse->weight[0], seen->totals, (uint32_t *)scratch->narrow);
                else
                    add_up(currents, sources, steps, y, x, c, scratch);
                (currents->wide ? fire_wide : fire_narrow)(layer, n, c, first, steps, from, words, out, scratch);
            }
}

/* How many steps before that of `out` neuron n did not fire, up to the last one in which it did; at most `most`. */
static uint32_t steps_since(uint32_t n, uint32_t words, uint32_t most, const uint32_t *out)
{
    for (uint32_t j = 0; j < most; j++) {
        out -= words;
        if (get_bits(out, n, 1)) return j;
    }
    return most;
}

/* The taps of neuron n's spikes in the `most` steps before that of `out`, added up. */
static int64_t own_sum(const mfp_feedback *layer, uint32_t n, uint32_t words, uint32_t most, const uint32_t *out)
{
    uint32_t at = layer->columns > 1u ? n % layer->columns : 0u;
    int64_t sum = 0;
    for (uint32_t j = 0; j < most; j++, at += layer->columns) {
        out -= words;
        if (get_bits(out, n, 1)) sum += table_number(&layer->taps, at);
    }
    return sum;
}

/* Whether neuron n fires at step t of the `steps` whose currents are in scratch, step `number` since the start. */
static int fires(const mfp_feedback *layer, uint32_t n, uint32_t c, uint32_t number, uint32_t t, uint32_t steps,
                 uint32_t words, const uint32_t *out, const mfp_scratch *scratch)
{
    const mfp_neurons *neurons = &layer->neurons;
    const uint32_t channels = neurons->currents.channels;
    const uint32_t most = number < layer->steps ? number : layer->steps;
    const uint32_t since = layer->kind == MFP_OWN_AGE ? steps_since(n, words, most, out) : number;
    const uint32_t reach = since < t ? row_of(since, neurons->order) : row_of(t, neurons->order);
    const int64_t own = layer->kind == MFP_OWN_AGE ? 0 : own_sum(layer, n, words, most, out);
    int64_t potential = 0;
    uint64_t sum = 0;
    for (uint32_t j = 0; j <= reach; j++) {
        const int64_t tap = neurons->currents.wide ? scratch->wide[steps + j] : scratch->narrow[steps + j];
        sum += (uint64_t)tap;
        if (neurons->currents.wide)
            potential += tap * scratch->wide[t - j];
        else
            potential += (int32_t)tap * scratch->narrow[t - j];
    }
    uint32_t choice = layer->start;
    if (layer->kind == MFP_OWN_TABLE)
        choice += (uint32_t)own; /* a negative one wraps around */
    else
        potential = potential * layer->unit + own;
    if (!neurons->threshold_rows)
        return potential >= wide_threshold(line_of(neurons, choice, c), (int64_t)sum, neurons->shift);
    const uint32_t row = row_of(since, neurons->threshold_rows) * layer->choices + choice;
    return potential >= table_number(&neurons->thresholds, row * channels + c);
}

void mfp_fire_feedback(const mfp_feedback *layer, const mfp_view *sources, uint32_t first, uint32_t steps,
                       uint32_t from, uint32_t *out, const mfp_scratch *scratch)
{
    const mfp_currents *currents = &layer->neurons.currents;
    const uint32_t channels = currents->channels, height = currents->height, width = currents->width;
    const uint32_t words = (channels * height * width + WORD - 1u) / WORD;
    uint32_t n = 0;
    mfp_clear(out, words * (steps - from));
    share_scratch(currents, sources, steps, scratch);
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++)
            for (uint32_t c = 0; c < channels; c++, n++) {
                add_up(currents, sources, steps, y, x, c, scratch);
                load_taps(&layer->neurons, 0, c, steps, scratch);
                for (uint32_t t = from; t < steps; t++) {
                    uint32_t *now = out + (t - from) * words;
                    if (fires(layer, n, c, first + t, t, steps, words, now, scratch)) flip_bits(now, n, 1, 1);
                }
            }
}

void mfp_score(const mfp_readout *layer, const mfp_view *sources, uint32_t steps, uint8_t sum, int64_t *scores,
               const mfp_scratch *scratch)
{
    const mfp_currents *currents = &layer->currents;
    const uint32_t places = currents->height * currents->width, size = currents->channels * places;
    share_scratch(currents, sources, steps, scratch);
    for (uint32_t n = 0; n < size; n++) {
        const uint32_t c = n % currents->channels, place = n / currents->channels;
        add_up(currents, sources, steps, place / currents->width, place % currents->width, c, scratch);
        int64_t *score = scores + c * places + place;
        for (uint32_t t = 0; t < steps; t++) {
            const int64_t current = currents->wide ? scratch->wide[t] : scratch->narrow[t];
            const int64_t one = current + table_number(&layer->offset, c);
            if (sum)
                *score = one + (t ? *score : 0);
            else
                score[t * size] = one;
        }
    }
}

/* Adds what synapse i gives channel c at (y, x) in every step, times its taps, to the scores behind the currents. */
static void add_tapped(const mfp_tapped *layer, const mfp_view *sources, uint32_t i, uint32_t steps, uint32_t from,
                       uint32_t y, uint32_t x, uint32_t c, const mfp_scratch *scratch)
{
    const mfp_currents *all = &layer->currents;
    const mfp_currents one = {all->channels, all->height, all->width, 1, all->synapses + i, 1};
    const mfp_scratch of_one = {scratch->patches, scratch->totals, scratch->sums,
                                scratch->seen + i, scratch->narrow, scratch->wide};
    add_up(&one, sources + i, steps, y, x, c, &of_one);
    for (uint32_t t = from; t < steps; t++) {
        const uint32_t reach = t < layer->order ? t + 1u : layer->order;
        uint32_t at = i * layer->order * layer->columns + (layer->columns > 1u ? c : 0u);
        for (uint32_t j = 0; j < reach; j++, at += layer->columns)
            scratch->wide[steps + t] += scratch->wide[t - j] * table_number(&layer->taps, at);
    }
}

void mfp_score_tapped(const mfp_tapped *layer, const mfp_view *sources, uint32_t first, uint32_t steps, uint32_t from,
                      uint8_t kind, int64_t *scores, const mfp_scratch *scratch)
{
    const mfp_currents *currents = &layer->currents;
    const uint32_t channels = currents->channels, width = currents->width, places = currents->height * width;
    share_scratch(currents, sources, steps, scratch);
    for (uint32_t n = 0; n < channels * places; n++) {
        const uint32_t c = n % channels, place = n / channels;
        int64_t *score = scores + c * places + place, *step = scratch->wide + steps;
        for (uint32_t t = from; t < steps; t++)
            step[t] = table_number(&layer->offset, row_of(first + t, layer->offset_rows) * channels + c);
        for (uint32_t i = 0; i < currents->count; i++)
            add_tapped(layer, sources, i, steps, from, place / width, place % width, c, scratch);
        for (uint32_t t = from; t < steps; t++) {
            if (kind == MFP_EVERY_STEP)
                score[(t - from) * channels * places] = step[t];
            else if (t == from)
                *score = step[t];
            else if (kind == MFP_SUM_OF_STEPS)
                *score += step[t];
            else if (step[t] > *score)
                *score = step[t];
        }
    }
}

/* Writes a number where there are bits of 0. */
static void put_number(const mfp_map *map, uint32_t *bits, uint32_t index, uint32_t number)
{
    for (uint32_t p = 0; p < map->planes; p++) flip_bits(bits + p * map->words, index, (number >> p) & 1u, 1);
}

void mfp_current(const mfp_readout *layer, const mfp_view *sources, const mfp_map *target, uint32_t shift,
                 uint32_t steps, uint32_t *out, const mfp_scratch *scratch)
{
    const mfp_currents *currents = &layer->currents;
    const uint32_t size = currents->channels * currents->height * currents->width;
    const uint32_t stride = target->planes * target->words;
    mfp_clear(out, stride * steps);
    share_scratch(currents, sources, steps, scratch);
    for (uint32_t n = 0; n < size; n++) {
        const uint32_t c = n % currents->channels, place = n / currents->channels;
        const int64_t offset = table_number(&layer->offset, c);
        add_up(currents, sources, steps, place / currents->width, place % currents->width, c, scratch);
        for (uint32_t t = 0; t < steps; t++) {
            const int64_t current = currents->wide ? scratch->wide[t] : scratch->narrow[t];
            /* Both sizes are below 2**62, so the sum does not overflow. It is not negative, as no number of the map
             * is, and C defines the shift of an unsigned number alone for all values. */
            put_number(target, out + t * stride, n, (uint32_t)((uint64_t)(offset + current) >> shift));
        }
    }
}

/* ---- maps ---- */

/* Below, up to 32 numbers side by side are one: bit `at` of every plane and the `count` - 1 that follow. */

/* to += weight * from: a carry ripples through the planes, once for each bit of the weight. */
static void add_lanes(const mfp_map *source, const uint32_t *from, uint32_t from_at, uint32_t weight,
                      const mfp_map *target, uint32_t *to, uint32_t to_at, uint32_t count)
{
    for (uint32_t shift = 0; shift < target->planes; shift++) {
        uint32_t carry = 0;
        if (!((weight >> shift) & 1u)) continue;
        for (uint32_t p = shift; p < target->planes; p++) {
            const uint32_t q = p - shift;
            const uint32_t a = get_bits(to + p * target->words, to_at, count);
            const uint32_t b = q < source->planes ? get_bits(from + q * source->words, from_at, count) : 0;
            flip_bits(to + p * target->words, to_at, b ^ carry, count);
            carry = (a & b) | (carry & (a | b));
        }
    }
}

/* to = max(to, from): from the highest plane down, the first bits that differ decide. */
static void max_lanes(const mfp_map *source, const uint32_t *from, uint32_t from_at, const mfp_map *target,
                      uint32_t *to, uint32_t to_at, uint32_t count)
{
    uint32_t larger = 0, equal = UINT32_C(0xffffffff);
    for (uint32_t p = target->planes; p-- > 0;) {
        const uint32_t a = get_bits(to + p * target->words, to_at, count);
        const uint32_t b = get_bits(from + p * source->words, from_at, count);
        larger |= equal & b & ~a;
        equal &= ~(a ^ b);
    }
    for (uint32_t p = 0; p < target->planes; p++) {
        const uint32_t a = get_bits(to + p * target->words, to_at, count);
        const uint32_t b = get_bits(from + p * source->words, from_at, count);
        flip_bits(to + p * target->words, to_at, larger & (a ^ b), count);
    }
}

/* One place of a map into one place of another, all channels. */
static void merge(uint8_t kind, const mfp_map *source, const uint32_t *from, uint32_t from_at, uint32_t weight,
                  const mfp_map *target, uint32_t *to, uint32_t to_at, uint32_t channels)
{
    for (uint32_t c = 0; c < channels; c += WORD) {
        const uint32_t count = channels - c < WORD ? channels - c : WORD;
        if (kind == MFP_MAX)
            max_lanes(source, from, from_at + c, target, to, to_at + c, count);
        else
            add_lanes(source, from, from_at + c, weight, target, to, to_at + c, count);
    }
}

static void pool_place(const mfp_map *source, const uint32_t *from, const mfp_pooling *pooling, uint32_t y, uint32_t x,
                       const mfp_map *target, uint32_t *to)
{
    const mfp_window *window = &pooling->window;
    const uint32_t channels = target->channels, to_at = (y * target->width + x) * channels;
    for (uint32_t i = 0; i < window->size[0]; i++) {
        for (uint32_t j = 0; j < window->size[1]; j++) {
            const uint32_t place = seen_place(window, source->height, source->width, y, x, i, j);
            if (place != OUTSIDE)
                merge(pooling->kind, source, from, place * channels, 1, target, to, to_at, channels);
        }
    }
}

void mfp_pool(const mfp_map *source, mfp_view view, const mfp_pooling *pooling, const mfp_map *target, uint32_t steps,
              uint32_t *out)
{
    const uint32_t stride = target->planes * target->words;
    mfp_clear(out, stride * steps);
    for (uint32_t t = 0; t < steps; t++)
        for (uint32_t y = 0; y < target->height; y++)
            for (uint32_t x = 0; x < target->width; x++)
                pool_place(source, view.bits + t * view.stride, pooling, y, x, target, out + t * stride);
}

void mfp_join(const mfp_map *map, mfp_view view, uint32_t window, uint32_t place, uint32_t steps, uint32_t *out)
{
    const uint32_t stride = map->planes * map->words, numbers = map->channels * map->height * map->width;
    for (uint32_t t = 0; t < steps; t++, place++) {
        uint32_t *to = out + place / window * stride;
        if (place % window == 0) mfp_clear(to, stride);
        merge(MFP_MAX, map, view.bits + t * view.stride, 0, 1, map, to, 0, numbers);
    }
}

void mfp_add(const mfp_map *source, mfp_view view, uint32_t weight, const mfp_map *target, uint32_t channel,
             uint32_t steps, uint32_t *out)
{
    /* where both have the same channels, all places are next to each other and count as one */
    const uint32_t all = source->height * source->width;
    const uint32_t places = source->channels == target->channels ? 1u : all;
    const uint32_t channels = source->channels * (all / places);
    for (uint32_t t = 0; t < steps; t++)
        for (uint32_t place = 0; place < places; place++)
            merge(MFP_SUM, source, view.bits + t * view.stride, place * channels, weight, target,
                  out + t * target->planes * target->words, place * target->channels + channel, channels);
}

void mfp_gather(const mfp_map *source, mfp_view view, const mfp_table *places, uint32_t fill, const mfp_map *target,
                uint32_t steps, uint32_t *out)
{
    const uint32_t stride = target->planes * target->words;
    const uint32_t numbers = target->channels * target->height * target->width;
    mfp_clear(out, stride * steps);
    for (uint32_t n = 0; n < numbers; n++) {
        const int64_t place = table_number(places, n);
        const uint32_t planes = place < 0 || source->planes > target->planes ? target->planes : source->planes;
        for (uint32_t t = 0; t < steps; t++) {
            const uint32_t *from = view.bits + t * view.stride;
            for (uint32_t p = 0; p < planes; p++) {
                const uint32_t bit = place < 0 ? fill >> p : get_bits(from + p * source->words, (uint32_t)place, 1);
                flip_bits(out + t * stride + p * target->words, n, bit & 1u, 1);
            }
        }
    }
}

void mfp_ones(const mfp_map *target, uint32_t steps, uint32_t *out)
{
    const uint32_t last = target->channels * target->height * target->width % WORD;
    for (uint32_t t = 0; t < steps; t++, out += target->words) {
        for (uint32_t i = 0; i < target->words; i++) out[i] = UINT32_C(0xffffffff);
        if (last) out[target->words - 1u] >>= WORD - last;
    }
}

/* to += left * right, 32 numbers at once: the right ones once for each plane of the left ones, where these have a 1. */
static void multiply_word(const mfp_map *left, const uint32_t *a, const mfp_map *right, const uint32_t *b,
                          const mfp_map *target, uint32_t *to)
{
    for (uint32_t shift = 0; shift < left->planes; shift++) {
        const uint32_t where = a[shift * left->words];
        uint32_t carry = 0;
        for (uint32_t p = shift; p < target->planes; p++) {
            const uint32_t sum = to[p * target->words], q = p - shift;
            const uint32_t added = q < right->planes ? b[q * right->words] & where : 0;
            to[p * target->words] = sum ^ added ^ carry;
            carry = (sum & added) | (carry & (sum | added));
        }
    }
}

void mfp_multiply(const mfp_map *left, mfp_view left_view, const mfp_map *right, mfp_view right_view,
                  const mfp_map *target, uint32_t steps, uint32_t *out)
{
    const uint32_t stride = target->planes * target->words;
    mfp_clear(out, stride * steps);
    for (uint32_t t = 0; t < steps; t++)
        for (uint32_t i = 0; i < target->words; i++)
            multiply_word(left, left_view.bits + t * left_view.stride + i, right,
                          right_view.bits + t * right_view.stride + i, target, out + t * stride + i);
}

/* Every `step`-th number of a channel from place `at` on, `count` of them, as planes of bits side by side. */
static void gather_line(const mfp_map *map, const uint32_t *bits, uint32_t channel, uint32_t at, uint32_t step,
                        uint32_t count, uint32_t *line)
{
    const uint32_t words = (count + WORD - 1u) / WORD;
    mfp_clear(line, map->planes * words);
    for (uint32_t p = 0; p < map->planes; p++)
        for (uint32_t k = 0; k < count; k++) {
            const uint32_t from = (at + k * step) * map->channels + channel;
            flip_bits(line + p * words, k, get_bits(bits + p * map->words, from, 1), 1);
        }
}

/* All of one channel of `to`: the rows of the left matrix are gathered once, each column of the right one once. */
static void matmul_channel(const mfp_map *left, const uint32_t *a, const mfp_map *right, const uint32_t *b,
                           uint32_t channel, const mfp_map *target, uint32_t *to, uint32_t *rows)
{
    const uint32_t depth = left->width, words = (depth + WORD - 1u) / WORD;
    uint32_t *column = rows + left->height * left->planes * words;
    for (uint32_t y = 0; y < left->height; y++)
        gather_line(left, a, channel, y * depth, 1, depth, rows + y * left->planes * words);
    for (uint32_t x = 0; x < right->width; x++) {
        const uint32_t *row = rows;
        gather_line(right, b, channel, x, right->width, depth, column);
        for (uint32_t y = 0; y < left->height; y++) {
            uint32_t sum = 0;
            for (uint32_t p = 0; p < left->planes; p++, row += words)
                for (uint32_t q = 0; q < right->planes; q++)
                    add_common(row, words, column + q * words, 0, 1, UINT32_C(1) << (p + q), &sum, &sum);
            put_number(target, to, (y * target->width + x) * target->channels + channel, sum);
        }
    }
}

void mfp_matmul(const mfp_map *left, mfp_view left_view, const mfp_map *right, mfp_view right_view,
                const mfp_map *target, uint32_t steps, uint32_t *out, const mfp_scratch *scratch)
{
    const uint32_t stride = target->planes * target->words;
    mfp_clear(out, stride * steps);
    for (uint32_t t = 0; t < steps; t++)
        for (uint32_t c = 0; c < target->channels; c++)
            matmul_channel(left, left_view.bits + t * left_view.stride, right, right_view.bits + t * right_view.stride,
                           c, target, out + t * stride, scratch->patches);
}

int mfp_above(const uint8_t *levels, uint32_t count, uint8_t top)
{
    for (uint32_t i = 0; i < count; i++)
        if (levels[i] > top) return 1;
    return 0;
}

void mfp_pack(const mfp_map *map, const uint8_t *levels, uint32_t *out)
{
    const uint32_t places = map->height * map->width;
    mfp_clear(out, map->planes * map->words);
    for (uint32_t place = 0; place < places; place++) {
        for (uint32_t c = 0; c < map->channels; c++) {
            const uint8_t level = levels[c * places + place];
            for (uint32_t p = 0; p < map->planes; p++)
                flip_bits(out + p * map->words, place * map->channels + c, (uint32_t)(level >> p) & 1u, 1);
        }
    }
}

int mfp_above16(const uint16_t *levels, uint32_t count, uint16_t top)
{
    for (uint32_t i = 0; i < count; i++)
        if (levels[i] > top) return 1;
    return 0;
}

void mfp_pack16(const mfp_map *map, const uint16_t *levels, uint32_t *out)
{
    const uint32_t places = map->height * map->width;
    mfp_clear(out, map->planes * map->words);
    for (uint32_t place = 0; place < places; place++)
        for (uint32_t c = 0; c < map->channels; c++)
            put_number(map, out, place * map->channels + c, levels[c * places + place]);
}

void mfp_clear(uint32_t *words, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) words[i] = 0;
}

void mfp_shift(uint32_t *steps, uint32_t words, uint32_t past)
{
    for (uint32_t i = 0; i < past * words; i++) steps[i] = steps[i + words];
}

uint32_t mfp_largest(const int64_t *numbers, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        if (numbers[i] > numbers[best]) best = i;
    return best;
}
