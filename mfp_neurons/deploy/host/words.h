/* Bits of numbers: counting, packing, unpacking, and where the numbers of a place are. */
#ifndef MFP_WORDS_H
#define MFP_WORDS_H

#include <string.h>

#include "network.h"

/* Where the processor counts bits the compiler knows how, in vectors if it can; elsewhere this does too. */
static inline word popcount(word x)
{
#if defined(__POPCNT__) || defined(__AVX512VPOPCNTDQ__) || defined(__aarch64__)
    return (word)__builtin_popcountll(x);
#else
    x -= x >> 1 & UINT64_C(0x5555555555555555);
    x = (x & UINT64_C(0x3333333333333333)) + (x >> 2 & UINT64_C(0x3333333333333333));
    x = (x + (x >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    x += x >> 8;
    x += x >> 16;
    x += x >> 32;
    return x & 127;
#endif
}

/* `count` bytes of 0 or 1, a multiple of 8, as the lowest bits of a word, the first in the lowest. */
static inline word pack_some(const uint8_t *hit, const int count)
{
    word packed = 0;
    for (int i = 0; i < count / 8; i++) {
        uint64_t eight;
        memcpy(&eight, hit + 8 * i, 8); /* little endian: Python sees to it */
        packed |= (eight * UINT64_C(0x0102040810204080)) >> 56 << 8 * i;
    }
    return packed;
}

static inline word pack(const uint8_t *hit) { return pack_some(hit, BLOCK); }

static inline int64_t slot_of(const Map *map, int64_t step) { return map->slots == 1 ? 0 : step % map->slots; }

/* The slot of the step that follows. */
static inline int64_t next_slot(const Map *map, int64_t slot) { return slot + 1 == map->slots ? 0 : slot + 1; }

/* What the numbers of a place take. */
static inline int64_t place_bytes(const Map *map)
{
    return map->bytes ? map->channels * map->bytes : map->planes * map->words * (int64_t)sizeof(word);
}

/* Where the numbers of a place are. */
static inline uint8_t *in_slot(const Map *map, int64_t sample, int64_t slot, int64_t y, int64_t x)
{
    const int64_t place = ((sample * map->slots + slot) * map->height + y) * map->width + x;
    return (uint8_t *)map->data + place * place_bytes(map);
}

static inline uint8_t *address(const Map *map, int64_t sample, int64_t step, int64_t y, int64_t x)
{
    return in_slot(map, sample, slot_of(map, step), y, x);
}

/* Bits of one place and block of 64 channels, step by step. */
typedef struct {
    const word *first; /* in slot 0 */
    int64_t slots, stride;
} Train;

static inline Train train_at(const Map *map, int64_t sample, int64_t y, int64_t x, int64_t block)
{
    const word *first = (const word *)(const void *)in_slot(map, sample, 0, y, x) + block;
    return (Train){first, map->slots, map->height * map->width * map->planes * map->words};
}

/* Of the step before that in `slot`, which moves there. */
static inline word step_before(const Train *train, int64_t *slot)
{
    *slot = (*slot ? *slot : train->slots) - 1;
    return train->first[*slot * train->stride];
}

static inline word *bits_at(const Map *map, int64_t sample, int64_t step, int64_t y, int64_t x)
{
    return (word *)(void *)address(map, sample, step, y, x);
}

/* Number i of those that are `bytes` long each. */
static inline int32_t get_number(const void *numbers, int64_t bytes, int64_t i)
{
    if (bytes == 1) return ((const uint8_t *)numbers)[i];
    if (bytes == 2) return ((const uint16_t *)numbers)[i];
    return ((const int32_t *)numbers)[i];
}

static inline void put_number(void *numbers, int64_t bytes, int64_t i, int32_t value)
{
    if (bytes == 1)
        ((uint8_t *)numbers)[i] = (uint8_t)value;
    else if (bytes == 2)
        ((uint16_t *)numbers)[i] = (uint16_t)value;
    else
        ((int32_t *)numbers)[i] = value;
}

/* The numbers of a place, [words * 64] of them; those beyond the last channel are 0. */
static inline void load_numbers(const Map *map, int64_t sample, int64_t step, int64_t y, int64_t x, int32_t *out)
{
    memset(out, 0, (size_t)(map->words * BLOCK) * sizeof *out);
    if (map->bytes) {
        const void *numbers = address(map, sample, step, y, x);
        const int64_t bytes = map->bytes;
        for (int64_t c = 0; c < map->channels; c++) out[c] = get_number(numbers, bytes, c);
        return;
    }
    const word *bits = bits_at(map, sample, step, y, x);
    for (int64_t p = 0; p < map->planes; p++) {
        for (int64_t w = 0; w < map->words; w++) {
            const word chosen = bits[p * map->words + w];
            if (chosen == 0) continue;
            int32_t *to = out + w * BLOCK;
            for (int c = 0; c < BLOCK; c++) to[c] |= (int32_t)(chosen >> c & 1) << p;
        }
    }
}

/* The numbers of a block of channels of a place; what stands behind the last channel is left out. */
static inline void store_block(const Map *map, void *place, int64_t block, const int32_t *from)
{
    const int64_t left = map->channels - block * BLOCK, bytes = map->bytes;
    const int count = left < BLOCK ? (int)left : BLOCK;
    if (bytes) {
        for (int c = 0; c < count; c++) put_number(place, bytes, block * BLOCK + c, from[c]);
        return;
    }
    const word channels = count == BLOCK ? ~(word)0 : ((word)1 << count) - 1;
    word *bits = (word *)place + block;
    for (int64_t p = 0; p < map->planes; p++, bits += map->words) {
        uint8_t hit[BLOCK];
        for (int c = 0; c < BLOCK; c++) hit[c] = (uint8_t)(from[c] >> p & 1);
        *bits = pack(hit) & channels;
    }
}

static inline void store_numbers(const Map *map, int64_t sample, int64_t step, int64_t y, int64_t x, const int32_t *in)
{
    uint8_t *place = address(map, sample, step, y, x);
    for (int64_t w = 0; w < map->words; w++) store_block(map, place, w, in + w * BLOCK);
}

#endif
