/* chaos - a network as bad as MPI may be, for tests (DSM_CHAOS).
 *
 * What is sent is cut into pieces of random lengths.  What has arrived is held back: for a number of looks, for some time,
 * or because its sender's messages are all slow for a while.  Those of one sender stay in their order, which MPI promises;
 * those of different senders overtake each other, which MPI allows.  Whoever holds the seed has the same dice again, but
 * not the same schedule: threads and MPI have theirs.
 *
 * Invariants
 *  1. Messages of one source come out whole, in the order of their last pieces.
 *  2. `kept` counts the messages that are held and the pieces that wait for their rest.
 */
#ifndef MACHINE_CHAOS_H
#define MACHINE_CHAOS_H

#include <stdbool.h>
#include <stdint.h>

#include "transport.h"

struct chaos;

/* A number below `limit` (not 0) from the dice, which begin as any number: SplitMix64 (Steele, Lea, Flood 2014). */
uint64_t chaos_roll(uint64_t *dice, uint64_t limit);
/* The dice of one rank. */
uint64_t chaos_dice(uint64_t seed, int rank);

/* NULL: no memory. */
struct chaos *chaos_open(uint64_t seed, int rank, int size, const struct transport_buffers *buffers);
void chaos_close(struct chaos *chaos);

/* How many of the `bytes` that are left of a message go into its next piece; the last one takes all that are left. */
uint64_t chaos_piece(struct chaos *chaos, uint64_t bytes);

/* Take in a piece that has arrived; `more` of the same message will follow.  The tag of the last one comes out with the
 * message. */
void chaos_keep(struct chaos *chaos, int source, void *buffer, uint64_t bytes, bool more, int tag);

/* A message whose time has come: its source, or -1. */
int chaos_take(struct chaos *chaos, void **buffer, uint64_t *bytes, int *tag);

/* What follows a message is not looked for at this look. */
bool chaos_waits(struct chaos *chaos);

unsigned chaos_kept(const struct chaos *chaos);

#endif
