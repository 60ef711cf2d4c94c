/* ballot - a meeting decides: every rank brings a ballot (its call and the arguments), and the root's
 * outcome is the outcome everywhere.
 *
 * On the way up ballots are tallied: equal ones are counted once, as one variant.
 *
 *   tally   := uint32 variants, variant*, uint32 refusing rank + 1, text, ids
 *   variant := uint32 first rank, uint32 ranks, uint32 kind, uint64 numbers[4], text what, text name, text value
 *   outcome := uint32 outcome, uint64 root stamp, text, variant, ids
 *   text    := uint32 bytes, bytes          ids := uint32 count, uint32 id*
 *
 * The ids are freed regions over which no array is left: a region's addresses are used again when every node names it.
 *
 * A rank makes locks, counters and flags by itself, since all count alike.  The next meeting sees whether they do: a
 * ballot has a sum of all that its rank has made.
 */
#pragma once

#include "protocol/base/context.h"

enum { BALLOT_TEXT_BYTES = 1024, BALLOT_FORGOTTEN_MAX = 64, BALLOT_VARIANTS_MAX = 4 };
enum { BALLOT_MADE = 3 }; /* of a ballot's numbers */

enum meeting_kind {
    MEETING_BARRIER = 1,
    MEETING_ALLOCATE,
    MEETING_FREE,
    MEETING_RECOUNT, /* ranks have made different things: from which number do they go on? */
    MEETING_FINALIZE,
    MEETING_COLLECT,
    MEETING_KINDS
};

enum meeting_outcome {
    MEETING_AGREED = 0,
    MEETING_KINDS_DIFFER,   /* ranks met in different calls */
    MEETING_BALLOTS_DIFFER, /* the same call with other arguments */
    MEETING_MADE_DIFFERS,   /* ranks have made other locks, counters or flags before it */
    MEETING_REFUSED,        /* some rank cannot */
    MEETING_NO_SPACE        /* agreed, but the range has no room (found by every node alike) */
};

/* One rank's ballot.  `what` is compared between nodes and shown where they differ; so are numbers and value. */
struct ballot {
    enum meeting_kind kind;
    uint64_t numbers[4]; /* ALLOCATE: bytes, page_bytes, bytes of value; FREE: region; RECOUNT: the most things of a
                            kind; at BALLOT_MADE, but for RECOUNT: the sum of what was made */
    const char *what;
    const char *name;    /* of the region */
    const char *refusal; /* why this rank cannot, or NULL */
    const void *value;   /* ALLOCATE: the initial value, numbers[2] bytes */
};

struct ballot_text {
    const char *bytes; /* not ended by 0; they lie in the message */
    uint32_t count;
};

/* Equal ballots. */
struct variant {
    uint32_t first, ranks, kind;
    uint64_t numbers[4];
    struct ballot_text what, name, value;
};

struct tally {
    struct variant variants[BALLOT_VARIANTS_MAX];
    uint32_t variant_count;
    uint32_t refusing; /* rank + 1 */
    struct ballot_text refusal;
    uint32_t forgotten[BALLOT_FORGOTTEN_MAX];
    uint32_t forgotten_count;
};

struct outcome {
    uint32_t outcome; /* enum meeting_outcome */
    stamp root_stamp;
    struct ballot_text text; /* of an outcome that is not AGREED */
    struct variant agreed;
    uint32_t forgotten[BALLOT_FORGOTTEN_MAX];
    uint32_t forgotten_count;
};

const char *ballot_kind_name(enum meeting_kind kind);

/* The tally of one ballot; the caller fills in `forgotten`. */
struct tally ballot_cast(const struct node *node, const struct ballot *ballot);
/* One more rank at a barrier, which has made nothing since the last meeting; `tally` counts nothing else. */
void ballot_count_barrier(struct tally *tally, uint32_t rank, uint64_t made);
void ballot_merge(struct tally *into, const struct tally *tally);
void ballot_put(struct node *node, struct message *message, const struct tally *tally);
void ballot_read(struct reader *reader, struct tally *tally);

/* At the root: decide, and put the outcome. */
void ballot_decide(struct node *node, struct message *message, const struct tally *tally);
void ballot_read_outcome(struct reader *reader, struct outcome *outcome);
/* As a string in `room` bytes, cut off where it is longer. */
void ballot_copy_text(char *to, size_t room, struct ballot_text text);
