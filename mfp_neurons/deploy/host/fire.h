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
static inline void NAMED(weigh)(const NUMBER *taps, int64_t per_channel, const UNSIGNED *current, UNSIGNED *potential)
{
    const UNSIGNED tap = (UNSIGNED)taps[0];
    if (per_channel)
        for (int c = 0; c < BLOCK; c++) potential[c] += (UNSIGNED)taps[c] * current[c];
    else
        for (int c = 0; c < BLOCK; c++) potential[c] += tap * current[c];
}

/* The spikes of step t, a word of them, from total[step - start][channel]. What is the same at every step is weighed
 * by the sum of the taps that are reached. */
static inline word NAMED(fire)(const Op *op, int64_t t, int64_t block, const UNSIGNED *total, int64_t start,
                               int64_t same)
{
    const int64_t channels = (op->channels + BLOCK - 1) / BLOCK * BLOCK, first = block * BLOCK;
    const int64_t width = op->taps_per_channel ? channels : 1, offset = op->taps_per_channel ? first : 0;
    const int64_t threshold_row = t < op->threshold_rows ? t : op->threshold_rows - 1;
    const NUMBER *threshold = (const NUMBER *)op->thresholds + threshold_row * channels + first;
    UNSIGNED potential[BLOCK] = {0};
    if (same) {
        const int64_t row = t < op->sums_rows ? t : op->sums_rows - 1;
        NAMED(weigh)((const NUMBER *)op->sums + row * width + offset, op->taps_per_channel, total, potential);
    } else {
        const int64_t reach = t + 1 < op->order ? t + 1 : op->order;
        const int64_t row = t < op->taps_rows ? t : op->taps_rows - 1;
        const NUMBER *taps = (const NUMBER *)op->taps + row * op->order * width + offset;
        const UNSIGNED *current = total + (t - start) * BLOCK;
        for (int64_t j = 0; j < reach; j++, taps += width, current -= BLOCK)
            NAMED(weigh)(taps, op->taps_per_channel, current, potential);
    }
    uint8_t hit[BLOCK];
    for (int c = 0; c < BLOCK; c++) hit[c] = (NUMBER)potential[c] >= threshold[c];
    return pack(hit);
}

/* The same where own spikes take part: `own` has them, `slot` is that of step t. Words of them without a spike, most of
 * all, cost nothing. */
static inline word NAMED(fire_fed_back)(const Op *op, int64_t t, int64_t block, const UNSIGNED *total, int64_t start,
                                        int64_t same, const Train *own, int64_t slot)
{
    const int64_t channels = (op->channels + BLOCK - 1) / BLOCK * BLOCK, first = block * BLOCK;
    const int64_t width = op->taps_per_channel ? channels : 1, offset = op->taps_per_channel ? first : 0;
    const int64_t reach = t + 1 < op->order ? t + 1 : op->order, back = t < op->own_steps ? t : op->own_steps;
    const NUMBER *taps = (const NUMBER *)op->taps + offset;
    const UNSIGNED *current = total + (same ? 0 : (t - start) * BLOCK);
    UNSIGNED potential[BLOCK] = {0};
    int32_t row[BLOCK] = {0}; /* of the thresholds */
    if (op->feedback == OWN_AGE) {
        word counts = ~(word)0; /* channels without a spike since */
        for (int64_t j = 0; j < reach && counts; j++, taps += width, current -= same ? 0 : BLOCK) {
            UNSIGNED heard[BLOCK];
            for (int c = 0; c < BLOCK; c++) heard[c] = current[c] & -(UNSIGNED)(counts >> c & 1);
            NAMED(weigh)(taps, op->taps_per_channel, heard, potential);
            if (j < back) counts &= ~step_before(own, &slot);
            if (j + 1 < op->threshold_rows && j < t)
                for (int c = 0; c < BLOCK; c++) row[c] += (int32_t)(counts >> c & 1);
        }
    } else {
        for (int64_t j = 0; j < reach; j++, taps += width, current -= same ? 0 : BLOCK)
            NAMED(weigh)(taps, op->taps_per_channel, current, potential);
        const int64_t step = t < op->threshold_rows ? t : op->threshold_rows - 1;
        const int32_t now = (int32_t)(step * op->choices + op->own_start);
        for (int c = 0; c < BLOCK; c++) row[c] = now;
        const int64_t apart = op->own_per_channel ? channels : 1;
        for (int64_t j = 0; j < back; j++) {
            const word fired = step_before(own, &slot);
            if (fired == 0) continue;
            if (op->feedback == OWN_TABLE) {
                const int32_t tap = ((const int32_t *)op->own_taps)[j];
                for (int c = 0; c < BLOCK; c++) row[c] += tap & -(int32_t)(fired >> c & 1);
            } else {
                UNSIGNED spikes[BLOCK];
                for (int c = 0; c < BLOCK; c++) spikes[c] = (UNSIGNED)(fired >> c & 1);
                NAMED(weigh)((const NUMBER *)op->own_taps + j * apart + (op->own_per_channel ? first : 0),
                             op->own_per_channel, spikes, potential);
            }
        }
    }
    const NUMBER *threshold = (const NUMBER *)op->thresholds + first;
    uint8_t hit[BLOCK];
    for (int c = 0; c < BLOCK; c++) hit[c] = (NUMBER)potential[c] >= threshold[row[c] * channels + c];
    return pack(hit);
}
