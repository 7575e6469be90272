/* MatMul: for each channel a matrix of one map times a matrix of another. Channels lie together in a map, so the
 * matrices are first laid out one by one: as words along what is summed, where few bits are counted, else as floats. No
 * sum is above 2**24 - 1; up to there floats hold whole numbers exactly, and processors multiply them fastest. */
#ifndef MFP_MATMUL_H
#define MFP_MATMUL_H

#include "rows.h"
#include "threads.h"

enum {
    COUNTED = 8, /* floats that are multiplied in about the time in which a word is counted */
    COLUMNS = 32, /* of products that stay in registers */
};

/* One side, as lines: rows of words along what is summed, or rows of floats as the map has them. Of a channel, plane,
 * line and block of 64 numbers, the word is at channel * per_channel + plane * per_plane + line * per_line + block *
 * per_block; floats of a line lie side by side. */
typedef struct {
    const Map *map;
    int64_t lines, length; /* how many, and of how many numbers */
    int64_t next_line, next; /* bytes of the map to the next line, to the next number in it */
    int64_t per_channel, per_plane, per_line, per_block;
    int counted;
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
    const int64_t place = place_bytes(map), row = map->width * place;
    const int64_t wide = (map->width + BLOCK - 1) / BLOCK * BLOCK;
    Operand o = {.map = map, .lines = map->height, .length = map->width, .next_line = row, .next = place};
    o.counted = counts_bits(call, op);
    if (o.counted && side) { /* what is summed goes down the columns, whose words of one block lie side by side */
        o.lines = map->width, o.length = map->height, o.next_line = place, o.next = row;
        o.per_line = 1, o.per_block = wide, o.per_plane = (o.length + BLOCK - 1) / BLOCK * wide;
        o.per_channel = map->planes * o.per_plane;
    } else if (o.counted) {
        o.per_block = 1, o.per_plane = (o.length + BLOCK - 1) / BLOCK, o.per_line = map->planes * o.per_plane;
        o.per_channel = o.lines * o.per_line;
    } else {
        o.per_block = BLOCK, o.per_line = wide, o.per_channel = o.lines * wide;
    }
    o.values = take(scratch, map->channels * o.per_channel * (int64_t)(o.counted ? sizeof(word) : sizeof(float)));
    return o;
}

/* One bit of each of 64 words. */
static inline word across(const word *words, int64_t bit)
{
    word line = 0;
#pragma omp simd reduction(| : line)
    for (int i = 0; i < BLOCK; i++) line |= (words[i] >> bit & 1) << i;
    return line;
}

/* Up to 64 numbers of a line of every channel, from a map of bits. */
static void lay_out_bits(const Operand *o, const uint8_t *from, int64_t count, int64_t at)
{
    for (int64_t w = 0; w < o->map->words; w++) {
        const int64_t left = o->map->channels - w * BLOCK, channels = left < BLOCK ? left : BLOCK;
        for (int64_t p = 0; p < o->map->planes; p++) {
            word words[BLOCK] = {0};
            for (int64_t i = 0; i < count; i++)
                words[i] = ((const word *)(const void *)(from + i * o->next))[p * o->map->words + w];
            int64_t to = at + w * BLOCK * o->per_channel + p * o->per_plane;
            for (int64_t c = 0; c < channels; c++, to += o->per_channel) {
                const word line = across(words, c);
                if (o->counted) {
                    ((word *)o->values)[to] = line;
                    continue;
                }
                float *numbers = (float *)o->values + to;
                if (p == 0) memset(numbers, 0, BLOCK * sizeof *numbers);
                for (int i = 0; i < BLOCK; i++) numbers[i] += (float)((int32_t)(line >> i & 1) << p);
            }
        }
    }
}

/* The same from a map of integers. */
static void lay_out_integers(const Operand *o, const uint8_t *from, int64_t count, int64_t at)
{
    const int64_t bytes = o->map->bytes;
    for (int64_t c = 0; c < o->map->channels; c++, from += bytes, at += o->per_channel) {
        int32_t numbers[BLOCK] = {0};
        for (int64_t i = 0; i < count; i++) numbers[i] = get_number(from + i * o->next, bytes, 0);
        if (!o->counted)
            for (int i = 0; i < BLOCK; i++) ((float *)o->values)[at + i] = (float)numbers[i];
        for (int64_t p = 0; o->counted && p < o->map->planes; p++) {
            uint8_t hit[BLOCK];
            for (int i = 0; i < BLOCK; i++) hit[i] = (uint8_t)(numbers[i] >> p & 1);
            ((word *)o->values)[at + p * o->per_plane] = pack(hit);
        }
    }
}

static void lay_out(const Operand *o, int64_t sample, int64_t t)
{
    const uint8_t *frame = address(o->map, sample, t, 0, 0);
    for (int64_t line = 0; line < o->lines; line++) {
        for (int64_t k = 0; k < o->length; k += BLOCK) {
            const int64_t left = o->length - k, count = left < BLOCK ? left : BLOCK;
            const uint8_t *from = frame + line * o->next_line + k * o->next;
            const int64_t at = line * o->per_line + k / BLOCK * o->per_block;
            if (o->map->bytes)
                lay_out_integers(o, from, count, at);
            else
                lay_out_bits(o, from, count, at);
        }
    }
}

/* out[column] of one row of a channel, for a block of columns. */
static void count_row(const Operand *left, const Operand *right, int64_t c, int64_t i, int64_t column, int32_t *out)
{
    const word *row = (const word *)left->values + c * left->per_channel + i * left->per_line;
    uint32_t total[BLOCK] = {0};
    for (int64_t p = 0; p < left->map->planes; p++, row += left->per_plane) {
        const word *columns = (const word *)right->values + c * right->per_channel + column;
        for (int64_t q = 0; q < right->map->planes; q++) {
            word sum[BLOCK] = {0};
            for (int64_t w = 0; w < left->per_plane; w++, columns += right->per_block) {
                const word bits = row[w];
#pragma omp simd
                for (int j = 0; j < BLOCK; j++) sum[j] += popcount(bits & columns[j]);
            }
            for (int j = 0; j < BLOCK; j++) total[j] += (uint32_t)sum[j] << (p + q);
        }
    }
    memcpy(out, total, sizeof total);
}

/* The same of ROWS rows and COLUMNS columns, where numbers are multiplied. From a row of products to the next it is
 * `apart`. Rows behind the last one are that once more. */
static void multiply_rows(const Operand *left, const Operand *right, int64_t c, int64_t i, int64_t column, int32_t *out,
                          int64_t apart)
{
    const float *row[ROWS];
    for (int r = 0; r < ROWS; r++) {
        const int64_t line = i + r < left->lines ? i + r : left->lines - 1;
        row[r] = (const float *)left->values + c * left->per_channel + line * left->per_line;
    }
    const float *columns = (const float *)right->values + c * right->per_channel + column;
    float total[ROWS][COLUMNS] = {{0}};
    for (int64_t k = 0; k < left->length; k++, columns += right->per_line)
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < COLUMNS; j++) total[r][j] += row[r][k] * columns[j];
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < COLUMNS; j++) out[r * apart + j] = (int32_t)total[r][j];
}

/* What one thread needs: both operands, ROWS rows of the products of all channels, and the numbers of a place. */
typedef struct {
    Operand left, right;
    int64_t width; /* of a row of products, as whole blocks */
    int32_t *products, *numbers;
} MatMul;

static MatMul matmul_in(Scratch *scratch, const Call *call, const Op *op)
{
    MatMul m = {.left = operand(call, op, 0, scratch), .right = operand(call, op, 1, scratch)};
    const int64_t channels = call->maps[op->target].words * BLOCK;
    m.width = (op->width + BLOCK - 1) / BLOCK * BLOCK;
    m.products = take(scratch, ROWS * channels * m.width * (int64_t)sizeof(int32_t));
    m.numbers = take(scratch, channels * (int64_t)sizeof(int32_t));
    return m;
}

static int64_t matmul_bytes(const Call *call, const Op *op)
{
    Scratch scratch = {0};
    matmul_in(&scratch, call, op);
    return (int64_t)scratch.next;
}

/* Products [channel][column] into a row of places, each with its channels side by side. */
static void store_row(const MatMul *m, const int32_t *products, const Map *target, int64_t sample, int64_t t, int64_t y)
{
    const int64_t channels = target->channels, bytes = target->bytes;
    uint8_t *to = address(target, sample, t, y, 0);
    if (bytes) {
        for (int64_t c = 0; c < channels; c++, products += m->width, to += bytes)
            for (int64_t x = 0; x < target->width; x++) put_number(to + x * channels * bytes, bytes, 0, products[x]);
        return;
    }
    for (int64_t x = 0; x < target->width; x++, products++) {
        for (int64_t c = 0; c < channels; c++) m->numbers[c] = products[c * m->width];
        store_numbers(target, sample, t, y, x, m->numbers);
    }
}

static void matmul_step(const Call *call, const Op *op, const MatMul *m, int64_t sample, int64_t t)
{
    const Map *target = call->maps + op->target;
    const int64_t row = op->channels * m->width; /* of products */
    lay_out(&m->left, sample, t);
    lay_out(&m->right, sample, t);
    for (int64_t i = 0; i < op->height; i += ROWS) {
        const int64_t left = op->height - i, rows = left < ROWS ? left : ROWS;
        for (int64_t c = 0; c < op->channels; c++) {
            int32_t *products = m->products + c * m->width;
            if (m->left.counted)
                for (int64_t r = 0; r < rows; r++)
                    for (int64_t x = 0; x < op->width; x += BLOCK)
                        count_row(&m->left, &m->right, c, i + r, x, products + r * row + x);
            else
                for (int64_t x = 0; x < op->width; x += COLUMNS)
                    multiply_rows(&m->left, &m->right, c, i, x, products + x, row);
        }
        for (int64_t r = 0; r < rows; r++) store_row(m, m->products + r * row, target, sample, t, i + r);
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
