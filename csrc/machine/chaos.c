/* Why messages are delayed where they arrive: a receiver knows what it keeps and goes on looking, so that no rank
 * sleeps over a message.  For the protocol it is the same as a delay on the way. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "chaos.h"

#include "clock.h"

#include <stdlib.h>

enum { LOOKS_MAX = 64, SPELL_US_MAX = 3000 };

struct delayed {
    struct delayed *next;
    struct envelope envelope;
    uint64_t look;  /* due at this look or later, */
    int64_t due_ns; /* and not before */
};

/* Invariant: last is the end of the list that starts at first; both are NULL where it is empty. */
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

/* Half of the messages are not delayed, or no two would ever be close together. */
static void choose_delay(struct chaos *chaos, struct source *source, struct delayed *delayed)
{
    int64_t now = clock_now_ns();
    uint64_t *dice = &chaos->dice;
    if (chaos_roll(dice, 64) == 0)
        source->slow_until_ns = now + 1000 * (int64_t)chaos_roll(dice, SPELL_US_MAX);
    delayed->due_ns = source->slow_until_ns;
    switch (chaos_roll(dice, 8)) {
    case 0: delayed->due_ns = now + 1000 * (int64_t)chaos_roll(dice, chaos->delay_us_max); break;
    case 1:
    case 2:
    case 3: delayed->look = chaos->looks + chaos_roll(dice, LOOKS_MAX); break;
    default: break;
    }
}

void chaos_keep(struct chaos *chaos, const struct envelope *envelope)
{
    struct source *source = &chaos->sources[envelope->source];
    struct delayed *delayed = chaos->buffers.take(chaos->buffers.context, sizeof *delayed);
    *delayed = (struct delayed){.envelope = *envelope};
    if (source->last)
        source->last->next = delayed;
    else
        source->first = delayed;
    source->last = delayed;
    chaos->kept++;
    choose_delay(chaos, source, delayed);
}

/* The first envelope of a source that is due; *before is the one before it.  MPI matches parts by their order only, so
 * an envelope with parts overtakes none of those. */
static struct delayed *first_due(const struct chaos *chaos, const struct source *source, int64_t now,
                                 struct delayed **before)
{
    bool parts_before = false;
    *before = NULL;
    for (struct delayed *delayed = source->first; delayed; delayed = delayed->next) {
        bool parts = delayed->envelope.kind != ENVELOPE_ALONE;
        if (delayed->look <= chaos->looks && delayed->due_ns <= now && !(parts && parts_before))
            return delayed;
        parts_before = parts_before || parts;
        *before = delayed;
    }
    return NULL;
}

static void take_out(struct source *source, struct delayed *before, const struct delayed *delayed)
{
    *(before ? &before->next : &source->first) = delayed->next;
    if (!delayed->next)
        source->last = before;
}

bool chaos_take(struct chaos *chaos, struct envelope *envelope)
{
    if (chaos->kept == 0)
        return false;
    int64_t now = clock_now_ns();
    int begin = (int)chaos_roll(&chaos->dice, (uint64_t)chaos->size);
    chaos->looks++;
    for (int i = 0; i < chaos->size; i++) {
        struct source *source = &chaos->sources[(begin + i) % chaos->size];
        struct delayed *before, *delayed = first_due(chaos, source, now, &before);
        if (!delayed)
            continue;
        take_out(source, before, delayed);
        chaos->kept--;
        *envelope = delayed->envelope;
        chaos->buffers.give(chaos->buffers.context, delayed, sizeof *delayed);
        return true;
    }
    return false;
}

unsigned chaos_kept(const struct chaos *chaos)
{
    return chaos->kept;
}

bool chaos_begins_late(struct chaos *chaos)
{
    return chaos_roll(&chaos->dice, 4) != 0;
}
