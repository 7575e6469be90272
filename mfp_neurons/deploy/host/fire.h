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

/* Spikes of step t, a word of them. total[j] is what came `j` steps before: `back` is BLOCK, or 0 if it is always
 * the same. */
static word NAMED(fire)(const Op *op, int64_t t, int64_t block, int64_t lanes, const UNSIGNED *total, int64_t back)
{
    const int64_t channels = (op->channels + BLOCK - 1) / BLOCK * BLOCK, first = block * BLOCK;
    const int64_t reach = t + 1 < op->order ? t + 1 : op->order;
    const int64_t row = t < op->taps_rows ? t : op->taps_rows - 1;
    const int64_t threshold_row = t < op->threshold_rows ? t : op->threshold_rows - 1;
    const NUMBER *threshold = (const NUMBER *)op->thresholds + threshold_row * channels + first;
    const NUMBER *taps = op->taps;
    taps += op->taps_per_channel ? row * op->order * channels + first : row * op->order;
    uint8_t hit[BLOCK] = {0};
    for (int64_t v = 0; v < lanes; v += VECTOR) {
        UNSIGNED potential[VECTOR] = {0};
        for (int64_t j = 0; j < reach; j++) {
            const UNSIGNED *current = total - j * back + v;
            if (op->taps_per_channel) {
                const NUMBER *tap = taps + j * channels + v;
                for (int c = 0; c < VECTOR; c++) potential[c] += (UNSIGNED)tap[c] * current[c];
            } else {
                const UNSIGNED tap = (UNSIGNED)taps[j];
                for (int c = 0; c < VECTOR; c++) potential[c] += tap * current[c];
            }
        }
        for (int c = 0; c < VECTOR; c++) hit[v + c] = (NUMBER)potential[c] >= threshold[v + c];
    }
    return pack(hit);
}
