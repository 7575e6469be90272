/* From accumulated numbers to spikes. Included once with NUMBER (int32_t, int64_t), UNSIGNED and NAMED(x) for each
 * width. Sums wrap around; what they end in fits, which graph.potential_bound has made sure of. */

/* total[step][channel] += factor * acc. */
static void NAMED(add)(const Synapse *synapse, int64_t steps, int64_t block, int64_t lanes, const uint32_t *acc,
                       UNSIGNED *total)
{
    const int64_t *factor = synapse->factor ? synapse->factor + block * BLOCK : NULL;
    for (int64_t t = 0; t < steps; t++, acc += BLOCK, total += BLOCK) {
        if (factor)
            for (int64_t c = 0; c < lanes; c++) total[c] += (UNSIGNED)(NUMBER)(int32_t)acc[c] * (UNSIGNED)factor[c];
        else
            for (int64_t c = 0; c < lanes; c++) total[c] += (UNSIGNED)(NUMBER)(int32_t)acc[c];
    }
}

/* potential[channel] += tap * current, with one tap or one for each channel. */
static inline __attribute__((always_inline)) void NAMED(weigh)(const NUMBER *taps, int64_t per_channel,
                                                               const UNSIGNED *current, UNSIGNED *potential,
                                                               const int lanes)
{
    const UNSIGNED tap = (UNSIGNED)taps[0];
    if (per_channel)
#pragma omp simd
        for (int c = 0; c < lanes; c++) potential[c] += (UNSIGNED)taps[c] * current[c];
    else
#pragma omp simd
        for (int c = 0; c < lanes; c++) potential[c] += tap * current[c];
}

/* The spikes of step t of `lanes` channels of a block, from total[step - start][channel]. What is the same at every step is
 * weighed by the sum of the taps that are reached. Potentials stay in registers, so many channels at a time as HELD of them hold. */
static inline __attribute__((always_inline)) word NAMED(fire_lanes)(const Op *op, int64_t t, int64_t block,
                                                                    const UNSIGNED *total, int64_t start, int64_t same,
                                                                    const int lanes)
{
    typedef UNSIGNED vector __attribute__((vector_size(REGISTER), aligned(sizeof(UNSIGNED)), may_alias));
    const int64_t channels = (op->channels + BLOCK - 1) / BLOCK * BLOCK, first = block * BLOCK;
    const int64_t each = op->taps_per_channel != 0, width = each ? channels : 1, offset = each ? first : 0;
    const int64_t threshold_row = t < op->threshold_rows ? t : op->threshold_rows - 1;
    const NUMBER *threshold = (const NUMBER *)op->thresholds + threshold_row * channels + first;
    const int64_t rows = same ? op->sums_rows : op->taps_rows, row = t < rows ? t : rows - 1;
    const int64_t order = same ? 1 : op->order, reach = t + 1 < order ? t + 1 : order;
    const NUMBER *taps = (const NUMBER *)(same ? op->sums : op->taps) + row * order * width + offset;
    const UNSIGNED *current = total + (same ? 0 : (t - start) * BLOCK);
    enum { PIECE = REGISTER / (int)sizeof(UNSIGNED), HELD = 4 };
    _Alignas(64) UNSIGNED potentials[BLOCK];
    const int held = lanes / PIECE < HELD ? lanes / PIECE : HELD;
    for (int c = 0; c < lanes; c += held * PIECE) {
        vector sum[HELD] = {{0}};
        for (int64_t j = 0; j < reach; j++) {
            const UNSIGNED *numbers = current - j * BLOCK + c;
            const NUMBER *tap = taps + j * width + each * c;
            for (int i = 0; i < held; i++) {
                const vector one = *(const vector *)(const void *)(numbers + i * PIECE);
                sum[i] += each ? *(const vector *)(const void *)(tap + i * PIECE) * one : (UNSIGNED)*tap * one;
            }
        }
        for (int i = 0; i < held; i++) *(vector *)(void *)(potentials + c + i * PIECE) = sum[i];
    }
    return NAMED(fired)(potentials, threshold, lanes);
}

/* The same; of few channels, no more than a vector of them. */
static inline word NAMED(fire)(const Op *op, int64_t t, int64_t block, const UNSIGNED *total, int64_t start,
                               int64_t same)
{
    if (op->channels - block * BLOCK <= VECTOR) return NAMED(fire_lanes)(op, t, block, total, start, same, VECTOR);
    return NAMED(fire_lanes)(op, t, block, total, start, same, BLOCK);
}

/* The bits of a word as numbers, one for each channel. */
static inline void NAMED(spread)(word bits, UNSIGNED *numbers)
{
    const uint32_t half[2] = {(uint32_t)bits, (uint32_t)(bits >> 32)}; /* as numbers may have 32 bits, too */
    for (int h = 0; h < 2; h++)
        for (int c = 0; c < BLOCK / 2; c++) numbers[h * (BLOCK / 2) + c] = half[h] >> c & 1;
}

/* What counts of the inputs: those behind the last own spike. The thresholds go by how many steps these are. */
static inline void NAMED(weigh_since)(const Op *op, int64_t t, const NUMBER *taps, int64_t width, const UNSIGNED *current,
                                      int64_t back, const Train *own, int64_t slot, UNSIGNED *potential, int32_t *row)
{
    const int64_t reach = t + 1 < op->order ? t + 1 : op->order;
    UNSIGNED counts[BLOCK], fired[BLOCK], heard[BLOCK];
    word silent = ~(word)0; /* channels that have not fired since */
    for (int c = 0; c < BLOCK; c++) counts[c] = ~(UNSIGNED)0;
    for (int64_t j = 0;; taps += width, current -= back) {
        for (int c = 0; c < BLOCK; c++) heard[c] = current[c] & counts[c];
        NAMED(weigh)(taps, op->taps_per_channel, heard, potential, BLOCK);
        if (++j == reach) return;
        const word spikes = step_before(own, &slot);
        silent &= ~spikes;
        if (silent == 0) return;
        if (spikes) {
            NAMED(spread)(spikes, fired);
            for (int c = 0; c < BLOCK; c++) counts[c] &= fired[c] - 1;
        }
        if (j < op->threshold_rows)
            for (int c = 0; c < BLOCK; c++) row[c] += (int32_t)(counts[c] & 1);
    }
}

/* The same where own spikes take part: `own` has them, `slot` is that of step t. Words without a spike, most of them,
 * cost nothing. */
static inline word NAMED(fire_fed_back)(const Op *op, int64_t t, int64_t block, const UNSIGNED *total, int64_t start,
                                        int64_t same, const Train *own, int64_t slot)
{
    const int64_t channels = (op->channels + BLOCK - 1) / BLOCK * BLOCK, first = block * BLOCK;
    const int64_t width = op->taps_per_channel ? channels : 1, offset = op->taps_per_channel ? first : 0;
    const int64_t reach = t + 1 < op->order ? t + 1 : op->order, steps = t < op->own_steps ? t : op->own_steps;
    const int64_t back = same ? 0 : BLOCK; /* to the current of the step before */
    const int64_t step = t < op->threshold_rows ? t : op->threshold_rows - 1;
    const NUMBER *taps = (const NUMBER *)op->taps + offset;
    const NUMBER *threshold = (const NUMBER *)op->thresholds + first;
    const UNSIGNED *current = total + (same ? 0 : (t - start) * BLOCK);
    UNSIGNED potential[BLOCK] = {0};
    int32_t row[BLOCK] = {0}; /* of the thresholds */
    if (op->feedback == OWN_AGE) {
        NAMED(weigh_since)(op, t, taps, width, current, back, own, slot, potential, row);
    } else {
        for (int64_t j = 0; j < reach; j++, taps += width, current -= back)
            NAMED(weigh)(taps, op->taps_per_channel, current, potential, BLOCK);
        for (int c = 0; c < BLOCK; c++) potential[c] <<= op->own_shift;
        const int64_t apart = op->own_per_channel ? channels : 1, own_offset = op->own_per_channel ? first : 0;
        UNSIGNED fired[BLOCK];
        for (int c = 0; c < BLOCK; c++) row[c] = (int32_t)(step * op->choices + op->own_start);
        for (int64_t j = 0; j < steps; j++) {
            const word spikes = step_before(own, &slot);
            if (spikes == 0) continue;
            NAMED(spread)(spikes, fired);
            if (op->feedback == OWN_SUM)
                NAMED(weigh)((const NUMBER *)op->own_taps + j * apart + own_offset, op->own_per_channel, fired, potential,
                             BLOCK);
            else
                for (int c = 0; c < BLOCK; c++) row[c] += ((const int32_t *)op->own_taps)[j] * (int32_t)fired[c];
        }
    }
    uint8_t hit[BLOCK];
    if (op->feedback == OWN_SUM) { /* one row for all channels, which takes no look-ups */
        const NUMBER *line = threshold + step * channels;
        for (int c = 0; c < BLOCK; c++) hit[c] = (NUMBER)potential[c] >= line[c];
    } else {
        for (int c = 0; c < BLOCK; c++) hit[c] = (NUMBER)potential[c] >= threshold[row[c] * channels + c];
    }
    return pack(hit);
}
