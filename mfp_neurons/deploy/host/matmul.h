/* MatMul: for each channel a matrix of one map times a matrix of another. Channels lie together in a map, so the
 * matrices are first laid out one by one: as words along what is summed, where few bits are counted, else as numbers. */
#ifndef MFP_MATMUL_H
#define MFP_MATMUL_H

#include "rows.h"
#include "threads.h"

enum {
    COUNTED = 4, /* words that are counted in about the time that a number takes to be multiplied */
};

/* Where an operand has number k of row or column i of a channel: words [channel][plane][k / 64] or numbers [channel][k]
 * of each i on the left side, i in the innermost place on the right side. */
typedef struct {
    const Map *map;
    int64_t rows, length; /* of i, of k */
    int64_t planes, words; /* words of k */
    int64_t width; /* of i, as whole blocks on the right side; 0 on the left */
    void *values;
} Operand;

static int counts_bits(const Call *call, const Op *op)
{
    const Map *left = call->maps + op->sources[0], *right = call->maps + op->sources[1];
    const int64_t words = (left->width + BLOCK - 1) / BLOCK;
    return left->planes * right->planes * words * COUNTED <= left->width;
}

static Operand operand(const Call *call, const Op *op, int side, Scratch *scratch)
{
    const Map *map = call->maps + op->sources[side];
    Operand operand = {.map = map, .rows = side ? map->width : map->height, .length = side ? map->height : map->width};
    operand.planes = map->planes;
    operand.words = (operand.length + BLOCK - 1) / BLOCK;
    operand.width = side ? (map->width + BLOCK - 1) / BLOCK * BLOCK : 0;
    const int64_t lines = map->channels * (side ? operand.width : operand.rows);
    const int64_t line = counts_bits(call, op) ? operand.planes * operand.words * (int64_t)sizeof(word)
                                               : operand.length * (int64_t)sizeof(int32_t);
    operand.values = take(scratch, lines * line);
    return operand;
}

/* Index of word or number k of plane p of line i of a channel. */
static inline int64_t place_in_operand(const Operand *o, int64_t lengths, int64_t planes, int64_t c, int64_t i,
                                       int64_t p, int64_t k)
{
    if (o->width) return ((c * planes + p) * lengths + k) * o->width + i;
    return ((c * o->rows + i) * planes + p) * lengths + k;
}

/* Bit j of word i becomes bit i of word j. */
static inline void transpose(word *rows)
{
    word low = 0xffffffff; /* of each pair of parts, the one in the lower bits */
    for (int size = 32; size; size >>= 1, low ^= low << size) {
        for (int i = 0; i < 64; i = ((i | size) + 1) & ~size) {
            const word moved = (rows[i] >> size ^ rows[i | size]) & low;
            rows[i] ^= moved << size;
            rows[i | size] ^= moved;
        }
    }
}

/* The place of the map that has number k of line i of every channel. */
static inline const uint8_t *place_of_operand(const Operand *o, int64_t sample, int64_t t, int64_t i, int64_t k)
{
    return o->width ? address(o->map, sample, t, k, i) : address(o->map, sample, t, i, k);
}

/* Words of a map of bits: those of 64 places, channels in their bits, become those of 64 channels. */
static void lay_out_bits(const Operand *o, int64_t sample, int64_t t)
{
    word *to = o->values;
    for (int64_t i = 0; i < o->rows; i++) {
        for (int64_t w = 0; w < o->words; w++) {
            const int64_t left = o->length - w * BLOCK, count = left < BLOCK ? left : BLOCK;
            for (int64_t at = 0; at < o->planes * o->map->words; at++) {
                word rows[BLOCK] = {0};
                for (int64_t k = 0; k < count; k++)
                    rows[k] = ((const word *)(const void *)place_of_operand(o, sample, t, i, w * BLOCK + k))[at];
                transpose(rows);
                const int64_t first = at % o->map->words * BLOCK, plane = at / o->map->words;
                for (int64_t c = first; c < o->map->channels && c < first + BLOCK; c++)
                    to[place_in_operand(o, o->words, o->planes, c, i, plane, w)] = rows[c - first];
            }
        }
    }
}

/* The numbers of a place, one for each channel. */
static inline void load_place(const Map *map, const uint8_t *place, int64_t sample, int64_t t, int64_t y, int64_t x,
                              int32_t *numbers)
{
    if (map->bytes)
        for (int64_t c = 0; c < map->channels; c++) numbers[c] = get_number(place, map->bytes, c);
    else
        load_numbers(map, sample, t, y, x, numbers);
}

/* Up to BLOCK numbers of every channel, `lines`, as word w of line i. */
static void pack_lines(const Operand *o, const int32_t *lines, int64_t i, int64_t w)
{
    for (int64_t c = 0; c < o->map->channels; c++, lines += BLOCK) {
        for (int64_t p = 0; p < o->planes; p++) {
            uint8_t hit[BLOCK];
            for (int bit = 0; bit < BLOCK; bit++) hit[bit] = (uint8_t)(lines[bit] >> p & 1);
            ((word *)o->values)[place_in_operand(o, o->words, o->planes, c, i, p, w)] = pack(hit);
        }
    }
}

/* Numbers as they are, or as words; `numbers` has room for those of a place, `lines` for BLOCK of every channel. */
static void lay_out_numbers(const Operand *o, int64_t sample, int64_t t, int counted, int32_t *numbers, int32_t *lines)
{
    const int64_t channels = o->map->channels;
    for (int64_t i = 0; i < o->rows; i++) {
        for (int64_t k = 0; k < o->length; k++) {
            const int64_t y = o->width ? k : i, x = o->width ? i : k;
            load_place(o->map, address(o->map, sample, t, y, x), sample, t, y, x, numbers);
            if (!counted) {
                for (int64_t c = 0; c < channels; c++)
                    ((int32_t *)o->values)[place_in_operand(o, o->length, 1, c, i, 0, k)] = numbers[c];
                continue;
            }
            if (k % BLOCK == 0) memset(lines, 0, (size_t)(channels * BLOCK) * sizeof *lines);
            for (int64_t c = 0; c < channels; c++) lines[c * BLOCK + k % BLOCK] = numbers[c];
            if (k % BLOCK == BLOCK - 1 || k == o->length - 1) pack_lines(o, lines, i, k / BLOCK);
        }
    }
}

/* out[column] of one row of a channel, for a block of columns. */
static void count_row(const Operand *left, const Operand *right, int64_t c, int64_t i, int64_t column, int32_t *out)
{
    const word *row = (const word *)left->values + place_in_operand(left, left->words, left->planes, c, i, 0, 0);
    uint32_t total[BLOCK] = {0};
    for (int64_t p = 0; p < left->planes; p++, row += left->words) {
        const int64_t first = place_in_operand(right, right->words, right->planes, c, column, 0, 0);
        const word *columns = (const word *)right->values + first;
        for (int64_t q = 0; q < right->planes; q++) {
            word sum[BLOCK] = {0};
            for (int64_t w = 0; w < left->words; w++, columns += right->width) {
                const word bits = row[w];
#pragma omp simd
                for (int j = 0; j < BLOCK; j++) sum[j] += popcount(bits & columns[j]);
            }
            for (int j = 0; j < BLOCK; j++) total[j] += (uint32_t)sum[j] << (p + q);
        }
    }
    for (int j = 0; j < BLOCK; j++) out[j] = (int32_t)total[j];
}

static void multiply_row(const Operand *left, const Operand *right, int64_t c, int64_t i, int64_t column, int32_t *out)
{
    const int32_t *row = (const int32_t *)left->values + place_in_operand(left, left->length, 1, c, i, 0, 0);
    const int64_t first = place_in_operand(right, right->length, 1, c, column, 0, 0);
    const int32_t *columns = (const int32_t *)right->values + first;
    uint32_t total[BLOCK] = {0}; /* of columns behind the last one, whatever lies there */
    for (int64_t k = 0; k < left->length; k++, columns += right->width) {
        const uint32_t number = (uint32_t)row[k];
        if (number == 0) continue;
        for (int j = 0; j < BLOCK; j++) total[j] += number * (uint32_t)columns[j];
    }
    memcpy(out, total, sizeof total);
}

/* What one thread needs: both operands, one row of the products of all channels, the numbers of a place, and lines. */
typedef struct {
    Operand left, right;
    int32_t *products, *numbers, *lines;
} MatMul;

static MatMul matmul_in(Scratch *scratch, const Call *call, const Op *op)
{
    MatMul m = {.left = operand(call, op, 0, scratch), .right = operand(call, op, 1, scratch)};
    const int64_t channels = call->maps[op->target].words * BLOCK;
    m.products = take(scratch, channels * m.right.width * (int64_t)sizeof(int32_t));
    m.numbers = take(scratch, channels * (int64_t)sizeof(int32_t));
    m.lines = take(scratch, channels * BLOCK * (int64_t)sizeof(int32_t));
    return m;
}

static int64_t matmul_bytes(const Call *call, const Op *op)
{
    Scratch scratch = {0};
    matmul_in(&scratch, call, op);
    return (int64_t)scratch.next;
}

static void lay_out(const MatMul *m, const Operand *o, int64_t sample, int64_t t, int counted)
{
    if (counted && !o->map->bytes)
        lay_out_bits(o, sample, t);
    else
        lay_out_numbers(o, sample, t, counted, m->numbers, m->lines);
}

/* Products [channel][column] into a row of places, each with its channels side by side. */
static void store_row(const MatMul *m, const Map *target, int64_t sample, int64_t t, int64_t y)
{
    const int64_t channels = target->channels, bytes = target->bytes;
    uint8_t *to = address(target, sample, t, y, 0);
    for (int64_t x = 0; x < target->width; x++, to += channels * bytes) {
        const int32_t *products = m->products + x;
        if (bytes == 1)
            for (int64_t c = 0; c < channels; c++) to[c] = (uint8_t)products[c * m->right.width];
        else if (bytes)
            for (int64_t c = 0; c < channels; c++) put_number(to, bytes, c, products[c * m->right.width]);
        else {
            for (int64_t c = 0; c < channels; c++) m->numbers[c] = products[c * m->right.width];
            store_numbers(target, sample, t, y, x, m->numbers);
        }
    }
}

static void matmul_step(const Call *call, const Op *op, const MatMul *m, int64_t sample, int64_t t)
{
    const Map *target = call->maps + op->target;
    const int counted = counts_bits(call, op);
    lay_out(m, &m->left, sample, t, counted);
    lay_out(m, &m->right, sample, t, counted);
    for (int64_t i = 0; i < op->height; i++) {
        for (int64_t c = 0; c < op->channels; c++) {
            for (int64_t column = 0; column < op->width; column += BLOCK) {
                int32_t *out = m->products + c * m->right.width + column;
                if (counted)
                    count_row(&m->left, &m->right, c, i, column, out);
                else
                    multiply_row(&m->left, &m->right, c, i, column, out);
            }
        }
        store_row(m, target, sample, t, i);
    }
}

/* Steps of samples are shared out among threads. */
static void matmul_items(void *context, int64_t thread, Items *items)
{
    const Call *call = ((const Task *)context)->call;
    const Op *op = ((const Task *)context)->op;
    Scratch scratch = scratch_of(call, thread);
    const MatMul m = matmul_in(&scratch, call, op);
    int64_t item, end;
    while (take_items(items, &item, &end))
        for (; item < end; item++) matmul_step(call, op, &m, item % call->samples, call->first + item / call->samples);
}

static void matmul(const Call *call, const Op *op)
{
    const int64_t steps = call->maps[op->target].same ? 1 : call->count;
    const int64_t length = call->maps[op->sources[0]].width;
    share_task(call, op, call->samples * steps, op->channels * op->height * op->width * length, matmul_items);
}

#endif
