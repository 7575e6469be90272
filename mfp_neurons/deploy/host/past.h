/* What a stream keeps: the last steps of maps that neurons look back at, as bits without gaps. */
#ifndef MFP_PAST_H
#define MFP_PAST_H

#include "words.h"

/* A string of bits, the first in the lowest bit of the first byte. */
typedef struct {
    uint8_t *at, *end;
    word held;
    int count; /* of bits in `held`; below 64 */
} Bits;

static inline void put_word(Bits *bits, word value)
{
    memcpy(bits->at, &value, sizeof value);
    bits->at += sizeof value;
}

/* Appends the lowest `count` bits of a value that has no others; 1 to 64. */
static inline void put(Bits *bits, word value, int count)
{
    bits->held |= value << bits->count;
    bits->count += count;
    if (bits->count < 64) return;
    put_word(bits, bits->held);
    bits->count -= 64;
    bits->held = bits->count ? value >> (count - bits->count) : 0;
}

static inline void put_end(Bits *bits) { memcpy(bits->at, &bits->held, (size_t)(bits->end - bits->at)); }

static inline word get_word(Bits *bits)
{
    word value = 0;
    const int64_t left = bits->end - bits->at, size = left < (int64_t)sizeof value ? left : (int64_t)sizeof value;
    memcpy(&value, bits->at, (size_t)size);
    bits->at += size;
    return value;
}

static inline word get(Bits *bits, int count)
{
    const word mask = count == 64 ? ~(word)0 : ((word)1 << count) - 1;
    word value = bits->held;
    if (bits->count < count) {
        const word next = get_word(bits);
        const int used = count - bits->count;
        value |= next << bits->count;
        bits->held = used == 64 ? 0 : next >> used;
        bits->count = 64 - used;
    } else {
        bits->held = count == 64 ? 0 : bits->held >> count;
        bits->count -= count;
    }
    return value & mask;
}

/* The bits of one slot of a map, put (`keep`) or taken back. */
static inline void copy_slot(const Map *map, int64_t samples, int64_t slot, Bits bits, int keep)
{
    const int64_t places = map->height * map->width;
    for (int64_t n = 0; n < samples; n++) {
        uint8_t *bytes = in_slot(map, n, slot, 0, 0);
        word *words = (word *)(void *)bytes;
        if (map->bytes) {
            for (int64_t i = 0; i < places * map->channels; i++) {
                if (keep)
                    put(&bits, bytes[i], (int)map->planes);
                else
                    bytes[i] = (uint8_t)get(&bits, (int)map->planes);
            }
            continue;
        }
        for (int64_t i = 0; i < places * map->planes; i++) {
            for (int64_t left = map->channels; left > 0; left -= BLOCK, words++) {
                const int count = left < BLOCK ? (int)left : BLOCK;
                if (keep)
                    put(&bits, *words, count);
                else
                    *words = get(&bits, count);
            }
        }
    }
    if (keep) put_end(&bits);
}

/* Where a stream keeps step t of a map. */
static inline Bits past_of(const Call *call, const Map *map, int64_t t)
{
    uint8_t *at = call->past + map->past + t % (map->slots - 1) * map->past_bytes;
    return (Bits){at, at + map->past_bytes, 0, 0};
}

/* Before a step: the past back into the slots of the maps. */
static void recall(const Call *call)
{
    for (int64_t i = 0; i < call->op_count; i++) {
        const Map *map = call->maps + i;
        for (int64_t back = 1; back < map->slots && back <= call->first; back++) {
            const int64_t t = call->first - back;
            copy_slot(map, call->samples, slot_of(map, t), past_of(call, map, t), 0);
        }
    }
}

/* After it: the newest in place of the oldest. */
static void keep(const Call *call)
{
    for (int64_t i = 0; i < call->op_count; i++) {
        const Map *map = call->maps + i;
        if (map->slots > 1)
            copy_slot(map, call->samples, slot_of(map, call->first), past_of(call, map, call->first), 1);
    }
}

#endif
