/* What the page calls: the generated network, its buffers, and a copy of the spikes that every layer fires.
 * Compiled for wasm32 without a C library; build.py says how. */
#include "digits.h"
#include "mfp_int.h"

#define EXPORT(name) __attribute__((export_name(name)))

static uint8_t input[DIGITS_INPUT_BYTES];
static int64_t scores[DIGITS_SCORES];
static digits_buffers buffers;
static digits_stream stream;
static uint32_t spikes[SPIKE_WORDS]; /* [layer][step][word], in the order in which the layers fire */
static uint32_t used;

/* The linker (--wrap) sends the network's calls of mfp_fire here. */
void __real_mfp_fire(const mfp_neurons *layer, const mfp_view *sources, uint32_t first, uint32_t steps, uint32_t from,
                     uint32_t *out, const mfp_scratch *scratch);

void __wrap_mfp_fire(const mfp_neurons *layer, const mfp_view *sources, uint32_t first, uint32_t steps, uint32_t from,
                     uint32_t *out, const mfp_scratch *scratch)
{
    const mfp_currents *to = &layer->currents;
    const uint32_t words = (to->channels * to->height * to->width + 31u) / 32u * (steps - from);
    __real_mfp_fire(layer, sources, first, steps, from, out, scratch);
    for (uint32_t i = 0; i < words; i++) spikes[used++] = out[i];
}

EXPORT("input") uint8_t *input_bytes(void) { return input; }
EXPORT("scores") const int64_t *score_numbers(void) { return scores; }
EXPORT("spikes") const uint32_t *spike_words(void) { return spikes; }

/* All of `input`, layer by layer; nothing is kept. */
EXPORT("run") uint32_t run(void)
{
    used = 0;
    digits_run(&buffers, input, scores);
    return digits_argmax(scores);
}

EXPORT("reset") void reset(void) { digits_reset(&stream); }

/* The first row of `input` as the next step of a stream. */
EXPORT("step") uint32_t step(void)
{
    used = 0;
    digits_step(&stream, input, scores);
    return digits_argmax(scores);
}
