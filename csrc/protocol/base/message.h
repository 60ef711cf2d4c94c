/* message - the bytes that nodes exchange, and how they are written; reader.h reads them.
 *
 * A message is a header and a body of fields in the byte order of the machine (all nodes of a job are of one kind; init
 * compares).  docs/wire.md has all layouts on one page; each stands at the head of the file that is named here.
 *
 *   kind                from                    to                             body
 *   FETCH               requester               a writer, or the owner         cuts, request*     coherence/wire.h
 *   REPLY               server                  requester                      run*               coherence/wire.h
 *   PUSH                writer                  its subscribers                page*              coherence/push.h
 *   ACQUIRE             requester               manager of the lock            request            sync/lock.h
 *   PASS                manager                 the last requester             the same           sync/lock.h
 *   GRANT               holder                  next node                      cuts, intervals    node/grant.h
 *   BUSY                the last requester      a node that only tries         lock               sync/lock.h
 *   WITHDRAW            a refused node          manager of the lock            lock, predecessor  sync/lock.h
 *   WITHDRAWN           manager                 the refused node               lock, follower     sync/lock.h
 *   ARRIVE              child                   its parent in the tree         tally, intervals   sync/meeting.c
 *   DEPART              parent                  its children                   outcome, intervals sync/meeting.c
 *   ADD, SUM            a node                  home of the counter, and back  counter, number    sync/counter.c
 *   REQUEST_COLLECTION  a node                  node 0                         nothing            sync/collection.h
 *   COLLECT             parent                  its children                   number             sync/collection.h
 *   ROLL_CALL           a waiting node          along the tree                 meeting, caller    sync/roll.c
 *   ABSENT              a node that is missing  the caller                     meeting            sync/roll.c
 *   HELD                holder                  the node that waits behind it  lock, trail        sync/trail.c
 *   FORWARD             server                  a node that has the pages      origin, pages      coherence/wire.h
 *   AWAIT               a node that waits       home of the flag, its setter   flag, vector       sync/event.c
 *   SET                 setter                  home of the flag               flag, published    sync/event.c
 *   PUBLISH             setter                  a node that waits, subscribers flag, intervals    node/grant.c
 *   UNSUBSCRIBE         subscriber              setter                         nothing            sync/event.c
 */
#pragma once

#include "protocol/base/vector.h"

enum message_kind {
    MESSAGE_FETCH = 1,
    MESSAGE_REPLY,
    MESSAGE_PUSH,
    MESSAGE_ACQUIRE,
    MESSAGE_PASS,
    MESSAGE_GRANT,
    MESSAGE_BUSY,
    MESSAGE_WITHDRAW,
    MESSAGE_WITHDRAWN,
    MESSAGE_ARRIVE,
    MESSAGE_DEPART,
    MESSAGE_ADD,
    MESSAGE_SUM,
    MESSAGE_REQUEST_COLLECTION,
    MESSAGE_COLLECT,
    MESSAGE_ROLL_CALL,
    MESSAGE_ABSENT,
    MESSAGE_HELD,
    MESSAGE_FORWARD,
    MESSAGE_AWAIT,
    MESSAGE_SET,
    MESSAGE_PUBLISH,
    MESSAGE_UNSUBSCRIBE,
    MESSAGE_KINDS
};

/* When a computing receiver has to be woken for it. */
enum ring { RING_NEVER, RING_LATER, RING_NOW };

enum { MESSAGE_MAGIC = 0x6d736439 }; /* "9dsm": changes with the format */

/* Of one message: what the transport can hold for it. */
enum { MESSAGE_SEGMENTS_MAX = 32 };

/* No clock comes so far; a larger stamp would let the receiver's wrap. */
#define STAMP_END ((stamp)1 << 62)

/* First bytes of every message on the wire. */
struct message_header {
    uint32_t magic;
    uint8_t kind;
    uint8_t by_service; /* sent by the service thread of a rank that computes (a hint for bells) */
    uint16_t poller;    /* a rank of the sender's node that waits and polls, + 1; 0: none is known (a hint, too) */
    uint32_t count;     /* of what the body repeats */
    uint32_t sender;
    stamp stamp;    /* the sender's clock */
    uint64_t bytes; /* of the whole message */
};

/* Bytes that travel behind the wire, in the order of the segments, without a copy of ours: neighbouring whole pages,
 * straight from the sender's memory to where they belong at the receiver. */
struct segment {
    uint64_t offset, bytes; /* of the shared range; without an offset where they go to a buffer */
    unsigned char *at;      /* where they come from; received: where they go, */
    bool in_place;          /* which is the shared range, or else a buffer of the pool, */
    bool untouched;         /* or a buffer first and then the range, where it has no memory yet */
};

/* One message in memory: `wire` is what travels first.  Made by message_new (to be sent) or message_wrap (received).
 * One with segments is in a list of its node (coherence/bulk.h) from the first segment on until it is freed. */
struct message {
    struct message *next; /* in the outbox */
    struct message *bulk_next, **bulk_link;
    node_id peer; /* receiver, or sender of a received one */
    int32_t rank; /* the process of that node that it goes to, or came from; RANK_ANY: any of them */
    uint8_t ring; /* enum ring */
    uint8_t segment_count;
    uint32_t holders;    /* readers of a received one */
    unsigned char *wire; /* of the pool, wire_capacity bytes */
    uint64_t wire_bytes, wire_capacity;
    struct segment *segments; /* MESSAGE_SEGMENTS_MAX of the pool, or NULL */
};

/* The processes of a node have an endpoint each, and a thread that waits looks at its own one.  So what goes to any of
 * them goes to the one that was seen to wait last (`poller`). */
enum { RANK_ANY = -1 };

/* To any process of the node. */
struct message *message_new(struct pool *pool, node_id peer, enum message_kind kind, enum ring ring,
                            uint64_t body_bytes);
/* To the process that has sent `request`: it waits for the answer. */
struct message *message_answer(struct pool *pool, const struct message *request, enum message_kind kind,
                               uint64_t body_bytes);
/* Wrap received bytes (of the pool, pool_take_persistent with `bytes`). */
struct message *message_wrap(struct pool *pool, node_id peer, int32_t rank, void *wire, uint64_t bytes);
struct message_header *message_header(const struct message *message);
void message_free(struct message *message, struct pool *pool);
/* One holder less; the last one frees it. */
void message_release(struct message *message, struct pool *pool);

/* Writing: append to the body; grows. */
void *message_space(struct message *message, struct pool *pool, uint64_t bytes);
void message_put_u32(struct message *message, struct pool *pool, uint32_t value);
void message_put_u64(struct message *message, struct pool *pool, uint64_t value);
void message_put_bytes(struct message *message, struct pool *pool, const void *bytes, uint64_t count);
/* Room for a uint32 count that is known later: where it lies. */
uint64_t message_put_count(struct message *message, struct pool *pool);
void message_set_count(struct message *message, uint64_t at, uint32_t count);
/* uint32 count, then (uint32 node, uint64 stamp)* */
void message_put_vector(struct message *message, struct pool *pool, const struct vector *vector);

/* One segment more. */
struct segment *message_segment(struct message *message, struct pool *pool);
/* Into a list, and out of it where it is in one. */
void message_link(struct message **list, struct message *message);
void message_unlink(struct message *message);
