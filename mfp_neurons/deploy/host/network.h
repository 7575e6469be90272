/* What Python hands over: an integer network laid out for one call. graph.py says what the numbers mean; structs.py reads
 * these structs, whose fields are pointers, numbers and structs before them, and fills them. Nothing here allocates. */
#ifndef MFP_NETWORK_H
#define MFP_NETWORK_H

#include <stdint.h>

typedef uint64_t word;

enum {
    BLOCK = 64, /* channels computed together: those of one word */
    VECTOR = 16, /* the last block of words has a multiple of it; blocks of bytes are whole */
    ROWS = 4, /* of weights that share one pass over the sums of a block */
    QUAD = 4, /* bytes that are multiplied together */
    TOGETHER = 4, /* steps that share one pass over the weights */
    CHUNK = 64, /* steps gathered at one time */
};

/* Numbers [sample][slot][row][column]: bits [plane][word] of the channels, or one integer without a sign a channel. */
typedef struct {
    void *data;
    int64_t channels, height, width;
    int64_t planes; /* bits a number */
    int64_t words; /* of 64 channels */
    int64_t bytes; /* 1, 2, 4: of one of those integers; 0: bits */
    int64_t slots; /* step t is in slot t % slots */
    int64_t same; /* 1: the same at every step */
    int64_t period; /* steps of the input that one of its steps takes */
    int64_t window; /* steps of its source that TIME_POOL makes one of; 1 for all others */
    /* where a stream keeps slots - 1 steps of it, then an open window's largest numbers, and how much one takes */
    int64_t past, past_bytes;
} Map;

typedef struct {
    int64_t size[2], stride[2], padding[2], dilation[2];
} Window;

enum SynapseKind { COUNT, BYTES, MULTIPLY, GROUPED };
enum PoolKind { NONE, MAX, ADD };

typedef struct {
    int64_t source; /* map */
    int64_t kind;
    Window window;
    int64_t height, width; /* of what is accumulated */
    int64_t pool;
    Window pooling;
    int64_t channels; /* out */
    int64_t rows; /* of weights: places of the window times words (COUNT), channels, or channels of a group. Of BYTES
                   * four of these channels, which may be of several places, are a row */
    int64_t joined; /* COUNT: places of the window that share a word, as they have few channels; rows are fewer then */
    int64_t inner; /* GROUPED: channels of a group */
    int64_t aligned; /* GROUPED: every channel reads the one of its own number */
    int64_t planes, base; /* COUNT: of the codes; see pack.plane_weights */
    int32_t plane_weight[8];
    const void *weights; /* [block][plane][row][lane]: words (COUNT), QUAD int8 (BYTES) or int8 */
    const int32_t *index; /* GROUPED: [inner][channel], the source channel */
    const int64_t *factor; /* [channel], or NULL: 1 */
} Synapse;

enum OpKind { NEURONS, CURRENTS, POOL, TIME_POOL, SUM, CONCAT, GATHER, ONES, PRODUCT, MATMUL, SCORES };
enum FeedbackKind { OPEN, OWN_SUM, OWN_TABLE, OWN_AGE };

typedef struct {
    int64_t kind;
    int64_t target; /* map */
    int64_t channels, height, width;
    const Synapse *synapses;
    int64_t synapse_count;
    const Synapse *recurrent; /* read the step before of the target itself */
    int64_t recurrent_count;
    int64_t order; /* K, 1 without taps */
    int64_t wide; /* 1: sums need 64 bits */
    int64_t taps_rows, taps_per_channel;
    const void *taps; /* [row][K][1 or channel]; int64_t if wide, else int32_t, as the thresholds. Of SCORES a row is
                       * a synapse, or NULL */
    int64_t sums_rows;
    const void *sums; /* [row][1 or channel]: of the taps that step t, or the last row, reaches */
    int64_t threshold_rows, choices;
    const void *thresholds; /* [row][choice][channel] */
    int64_t feedback, own_steps; /* kind, R; see graph.Feedback */
    int64_t own_per_channel, own_start; /* OWN_TABLE: the choice of no own spike */
    int64_t own_shift; /* OWN_SUM: of what the inputs add up to */
    const void *own_taps; /* [R][1 or channel] of the width of the others; of OWN_TABLE int32_t [R] */
    int64_t offset_rows;
    const int64_t *offset; /* SCORES, CURRENTS: [row][channel] */
    int64_t shift; /* CURRENTS: how many of the lowest bits are left out */
    int64_t before; /* SCORES: numbers of one step of a sample in those in front of it */
    const int64_t *sources; /* of operations without synapses: maps */
    const int64_t *source_weights;
    int64_t source_count;
    int64_t pool;
    Window window;
    const int64_t *origins; /* GATHER: [row][column][channel], where the source has it, or -1; see gather_numbers */
    const int64_t *copied; /* GATHER: [row][column], the place of the source that this one is a copy of, or -1 */
    int64_t fill;
} Op;

/* Steps [first, first + count) of all samples: of the input, or, in what an operation is given, of its sources. Arrays
 * of channels are padded to a multiple of BLOCK. */
typedef struct {
    const Map *maps;
    const Op *ops;
    int64_t op_count, map_count;
    int64_t samples, first, count;
    const void *levels; /* [count or 1][sample][channel][row][column], of 1 or 2 bytes, as map 0; none above its top */
    int64_t *scores; /* [head][count][sample][channel][row][column], of the scores' own steps */
    uint8_t *scratch; /* threads * scratch_bytes, aligned to 64 */
    int64_t scratch_bytes;
    int64_t threads, words_a_thread; /* at most so many, if each has so much to do */
    uint8_t *past; /* of a stream, or NULL */
} Call;

#endif
