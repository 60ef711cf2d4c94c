/* reader - takes the fields of a message's body one after the other.
 *
 * A reader believes no length: what lies beyond the end reads as zeros and sets `bad`.  The caller checks pages, nodes
 * and regions, looks at `bad`, or at reader_ended, before it acts, and dies with the message's kind and sender
 * (context_malformed).
 */
#pragma once

#include "protocol/base/message.h"

struct reader {
    const unsigned char *at, *end;
    bool bad;
};

struct reader reader_of(const struct message *message);
uint32_t reader_u32(struct reader *reader);
uint64_t reader_u64(struct reader *reader);
const void *reader_bytes(struct reader *reader, uint64_t count);
/* Entries at or below `floor` are dropped; nodes must be below `nodes`. */
void reader_vector(struct reader *reader, struct pool *pool, node_id nodes, stamp floor, struct vector *vector);
uint64_t reader_left(const struct reader *reader);
/* All of it was read and nothing is left: else a count in it is wrong. */
bool reader_ended(const struct reader *reader);
