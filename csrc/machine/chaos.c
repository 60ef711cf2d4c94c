/* Why messages are held where they arrive, not where they are sent: for the protocol it is the same, and the receiver
 * knows that something is held, so no rank sleeps over it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "chaos.h"

#include "clock.h"

#include <stdlib.h>
#include <string.h>

enum { PIECES_MAX = 8, LOOKS_MAX = 64, SPELL_US_MAX = 3000 };

struct delayed {
    struct delayed *next;
    void *buffer;
    uint64_t bytes;
    uint64_t look;  /* handed out at this look or later, */
    int64_t due_ns; /* and not before */
    bool more;      /* the rest of it has not arrived */
    int tag;
};

/* Invariant: last is the end of the list that starts at first; only the last one may have `more`. */
struct source {
    struct delayed *first, *last;
    int64_t slow_until_ns;
};

struct chaos {
    struct transport_buffers buffers;
    uint64_t dice, looks;
    uint64_t delay_us_max; /* the temper of this rank: mostly quick, or mostly slow */
    unsigned kept;
    int size;
    struct source sources[];
};

uint64_t chaos_roll(uint64_t *dice, uint64_t limit)
{
    uint64_t x = *dice += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (x ^ (x >> 31)) % limit;
}

uint64_t chaos_dice(uint64_t seed, int rank)
{
    uint64_t dice = seed;
    return chaos_roll(&dice, UINT64_MAX) + (uint64_t)rank * UINT64_C(0x632be59bd9b4e019);
}

struct chaos *chaos_open(uint64_t seed, int rank, int size, const struct transport_buffers *buffers)
{
    static const uint64_t tempers_us[] = {20, 200, 2000};
    struct chaos *chaos = calloc(1, sizeof *chaos + (size_t)size * sizeof chaos->sources[0]);
    if (!chaos)
        return NULL;
    chaos->buffers = *buffers;
    chaos->size = size;
    chaos->dice = chaos_dice(seed, rank);
    chaos->delay_us_max = tempers_us[chaos_roll(&chaos->dice, 3)];
    return chaos;
}

void chaos_close(struct chaos *chaos)
{
    free(chaos);
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

uint64_t chaos_piece(struct chaos *chaos, uint64_t bytes)
{
    uint64_t least = bytes / PIECES_MAX + 1;
    if (bytes <= least || chaos_roll(&chaos->dice, 4) != 0)
        return bytes;
    return least + chaos_roll(&chaos->dice, bytes - least);
}

/* ---- receiving ------------------------------------------------------------------------------------------------- */

/* The rest of a message goes behind what is here of it. */
static void join(struct chaos *chaos, struct delayed *held, void *buffer, uint64_t bytes)
{
    const struct transport_buffers *buffers = &chaos->buffers;
    unsigned char *whole = buffers->take(buffers->context, held->bytes + bytes);
    memcpy(whole, held->buffer, held->bytes);
    memcpy(whole + held->bytes, buffer, bytes);
    buffers->give(buffers->context, held->buffer, held->bytes);
    buffers->give(buffers->context, buffer, bytes);
    held->buffer = whole;
    held->bytes += bytes;
}

/* Half of the messages are not held at all, or no two would ever be close together. */
static void choose_delay(struct chaos *chaos, struct source *source, struct delayed *held)
{
    int64_t now = clock_now_ns();
    uint64_t *dice = &chaos->dice;
    if (chaos_roll(dice, 64) == 0)
        source->slow_until_ns = now + 1000 * (int64_t)chaos_roll(dice, SPELL_US_MAX);
    held->due_ns = source->slow_until_ns;
    switch (chaos_roll(dice, 8)) {
    case 0: held->due_ns = now + 1000 * (int64_t)chaos_roll(dice, chaos->delay_us_max); break;
    case 1:
    case 2:
    case 3: held->look = chaos->looks + chaos_roll(dice, LOOKS_MAX); break;
    default: break;
    }
}

void chaos_keep(struct chaos *chaos, int from, void *buffer, uint64_t bytes, bool more, int tag)
{
    struct source *source = &chaos->sources[from];
    struct delayed *held = source->last;
    if (held && held->more) {
        join(chaos, held, buffer, bytes);
    } else {
        held = chaos->buffers.take(chaos->buffers.context, sizeof *held);
        *held = (struct delayed){.buffer = buffer, .bytes = bytes};
        if (source->last)
            source->last->next = held;
        else
            source->first = held;
        source->last = held;
        chaos->kept++;
        choose_delay(chaos, source, held);
    }
    held->more = more;
    held->tag = tag;
}

int chaos_take(struct chaos *chaos, void **buffer, uint64_t *bytes, int *tag)
{
    if (chaos->kept == 0)
        return -1;
    int64_t now = clock_now_ns();
    int begin = (int)chaos_roll(&chaos->dice, (uint64_t)chaos->size);
    chaos->looks++;
    for (int i = 0; i < chaos->size; i++) {
        int from = (begin + i) % chaos->size;
        struct source *source = &chaos->sources[from];
        struct delayed *held = source->first;
        if (!held || held->more || held->look > chaos->looks || held->due_ns > now)
            continue;
        source->first = held->next;
        if (!source->first)
            source->last = NULL;
        chaos->kept--;
        *buffer = held->buffer;
        *bytes = held->bytes;
        *tag = held->tag;
        chaos->buffers.give(chaos->buffers.context, held, sizeof *held);
        return from;
    }
    return -1;
}

bool chaos_waits(struct chaos *chaos)
{
    return chaos_roll(&chaos->dice, 4) != 0;
}

unsigned chaos_kept(const struct chaos *chaos)
{
    return chaos->kept;
}
