/* What a stream keeps, as bits without gaps: the last steps of maps that neurons look back at, and the largest
 * numbers so far in the open windows of TIME_POOL. */
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
                    put(&bits, (word)get_number(bytes, map->bytes, i), (int)map->planes);
                else
                    put_number(bytes, map->bytes, i, (int32_t)get(&bits, (int)map->planes));
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

/* Place `row` of what a stream keeps of a map. */
static inline Bits past_at(const Call *call, const Map *map, int64_t row)
{
    uint8_t *at = call->past + map->past + row * map->past_bytes;
    return (Bits){at, at + map->past_bytes, 0, 0};
}

/* Where a stream keeps step t of a map. */
static inline Bits past_of(const Call *call, const Map *map, int64_t t)
{
    return past_at(call, map, t % (map->slots - 1));
}

static inline Bits open_window(const Call *call, const Map *map) { return past_at(call, map, map->slots - 1); }

/* Whether a step of the input is the last of `period`. */
static inline int ends(const Call *call, int64_t period) { return (call->first + 1) % period == 0; }

/* The place in its window of the step that the source of TIME_POOL makes now, or -1 if it makes none. */
static inline int64_t place_in_window(const Call *call, const Map *map)
{
    const int64_t of_source = map->period / map->window;
    return ends(call, of_source) ? call->first / of_source % map->window : -1;
}

/* Before a step: the past back into the slots of the maps. */
static void recall(const Call *call)
{
    for (int64_t i = 0; i < call->map_count; i++) {
        const Map *map = call->maps + i;
        const int64_t now = call->first / map->period;
        if (map->window > 1 && place_in_window(call, map) > 0)
            copy_slot(map, call->samples, slot_of(map, now), open_window(call, map), 0);
        if (!ends(call, map->period)) continue; /* nobody looks at it */
        for (int64_t back = 1; back < map->slots && back <= now; back++)
            copy_slot(map, call->samples, slot_of(map, now - back), past_of(call, map, now - back), 0);
    }
}

/* After it: the newest in place of the oldest, or the window that is still open. */
static void keep(const Call *call)
{
    for (int64_t i = 0; i < call->map_count; i++) {
        const Map *map = call->maps + i;
        const int64_t now = call->first / map->period;
        if (ends(call, map->period)) {
            if (map->slots > 1) copy_slot(map, call->samples, slot_of(map, now), past_of(call, map, now), 1);
        } else if (map->window > 1 && place_in_window(call, map) >= 0) {
            copy_slot(map, call->samples, slot_of(map, now), open_window(call, map), 1);
        }
    }
}

#endif
