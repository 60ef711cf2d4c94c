/* chaos - a network as bad as MPI may be for nodes of several processes, for tests (DSM_CHAOS).
 *
 * It sits between MPI and the transport's caller: each envelope that has arrived is delayed, for a number of looks,
 * for some time, or because all messages of its source are slow for a while; and parts are received late.  Messages
 * overtake each other, those of one source, too, as if it sent from several endpoints.  The same seed gives the same
 * dice, but not the same schedule: threads and MPI have theirs.
 *
 * States of an envelope: kept -> due -> taken.
 *
 * Invariants
 *  1. Envelopes of one source with parts are taken in the order in which they were kept.
 *  2. `kept` counts the envelopes in all lists.
 */
#pragma once

#include "envelope.h"

struct chaos;

/* A number below `limit` (not 0) from the dice, which begin as any number: SplitMix64 (Steele, Lea, Flood 2014). */
uint64_t chaos_roll(uint64_t *dice, uint64_t limit);
/* The dice of one rank. */
uint64_t chaos_dice(uint64_t seed, int rank);

/* NULL: no memory. */
struct chaos *chaos_open(uint64_t seed, int rank, int size, const struct transport_buffers *buffers);
void chaos_close(struct chaos *chaos);

void chaos_keep(struct chaos *chaos, const struct envelope *envelope);
/* An envelope that is due; false: there is none. */
bool chaos_take(struct chaos *chaos, struct envelope *envelope);
unsigned chaos_kept(const struct chaos *chaos);

/* The parts of a message are not received at this look. */
bool chaos_begins_late(struct chaos *chaos);
