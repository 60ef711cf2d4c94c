/* fuzz - bytes from anywhere, delivered to nodes of the real protocol in the states that a small job passes through.
 *
 *   entry     one thing that happens to a node: a call of a thread, or a message
 *   world     a few nodes with two threads each, run on a seeded schedule; what happens to every node is recorded
 *   state     a node as it is after the first k of its entries, kept so that it can be put back after every input
 *   input     state (2 bytes), sender (1), what is looked at afterwards (1: enum fuzz_after; and whether something travels behind
 *             a reply), and a message
 *   seed      an input that holds the message which the state received in its world
 *
 * A malformed message may do nothing, or end the node by a panic in words.  Anything else is a failure: what the
 * sanitizers see (every block of protocol memory is one of malloc), more memory than FUZZ_BASE_BYTES and
 * FUZZ_BYTES_PER_BYTE of the message, a panic without words, an empty or endless one, memory that is not given back.
 */
#ifndef TESTS_NATIVE_FUZZ_H
#define TESTS_NATIVE_FUZZ_H

#include <setjmp.h>

#include "protocol/node/face.h"

enum {
    FUZZ_RANGE_BYTES = 8192,
    FUZZ_GRANULE_BYTES = 64,
    FUZZ_NODES = 6, /* the root, four children of it, and one child of rank 1 */
    FUZZ_THREADS = 2,
    FUZZ_STATES = 1024,
    FUZZ_PREFIX_BYTES = 4,
    FUZZ_MESSAGE_MAX = 1 << 14,
    /* A request of 24 bytes is answered with a page (up to 256 bytes here) and what is around it; every page of the few
     * small regions may be named by one run of 16 bytes; and 2 bytes name again what a node wrote in its last step. */
    FUZZ_BASE_BYTES = 28 << 10,
    FUZZ_BYTES_PER_BYTE = 64
};

/* ---- one node (fuzz_node.c) ---------------------------------------------------------------------------------------- */

enum fuzz_entry_kind {
    FUZZ_FAULT,   /* a: offset, b: write */
    FUZZ_STORE,   /* a: offset, b: value; where the protection allows it */
    FUZZ_ENQUEUE, /* a: lock, b: only try */
    FUZZ_POLL,    /* the lock that the thread wants */
    FUZZ_CANCEL,
    FUZZ_RELEASE, /* a: lock */
    FUZZ_ADD,     /* a: counter, b: delta, c: at which number it starts */
    FUZZ_SUM,     /* of the operation under way */
    FUZZ_ARRIVE,  /* a: meeting kind, b, c: arguments */
    FUZZ_TAKE,    /* the departure */
    FUZZ_PIN,     /* a: offset, b: write */
    FUZZ_UNPIN,
    FUZZ_FORGET, /* all freed regions */
    FUZZ_COLLECT,
    FUZZ_MESSAGE, /* thread: sender; bytes; a: something behind it comes at once */
    FUZZ_PLACE,   /* the same, and what is behind it comes later: */
    FUZZ_FILL,    /* thread: sender; bytes: what is behind its message */
    FUZZ_ROLL,    /* call the roll */
    FUZZ_TELL,    /* tell of locks that are held */
    FUZZ_JOIN,    /* the last space has joined a barrier, and is about to make the node arrive */
    FUZZ_SET,     /* a: flag */
    FUZZ_CLEAR,   /* a: flag */
    FUZZ_AWAIT,   /* a: flag */
};

struct fuzz_entry {
    uint32_t kind; /* enum fuzz_entry_kind */
    int32_t thread;
    uint64_t a, b, c;
    const unsigned char *bytes;
    uint64_t count;
};

/* What a thread is in the middle of. */
struct fuzz_thread {
    uint64_t lock_ticket, counter_ticket;
    uint32_t lock, held;
    bool holds, pinned, pin_write;
    uint64_t pin_offset;
};

struct fuzz_block;

struct fuzz_node {
    struct node *node;
    struct port port;
    struct fuzz_thread threads[FUZZ_THREADS], threads_saved[FUZZ_THREADS];
    struct message *placed[FUZZ_NODES], *placed_saved[FUZZ_NODES]; /* by sender */
    unsigned char *view, *view_saved;
    unsigned char access[FUZZ_RANGE_BYTES / FUZZ_GRANULE_BYTES], access_saved[FUZZ_RANGE_BYTES / FUZZ_GRANULE_BYTES];
    struct fuzz_block *blocks; /* that are in use */
    struct fuzz_block *kept;   /* the same of the state that is put back */
    uint64_t live_bytes, kept_bytes, allowed_bytes;
    jmp_buf escape;
    bool guarded;
    char panic[512];
    /* What the node sends; NULL: dropped. */
    void (*send)(void *context, int from, const struct message *message);
    void *send_context;
};

struct fuzz_node *fuzz_node_new(int rank, int size, uint64_t budget_bytes);
/* Without looking for leaks. */
void fuzz_node_free(struct fuzz_node *home);
/* The text that the node died with, or NULL. */
const char *fuzz_node_do(struct fuzz_node *home, const struct fuzz_entry *entry);
const char *fuzz_node_check(struct fuzz_node *home);
/* Free the node itself: a panic, or a block that is left, is a failure. */
void fuzz_node_end(struct fuzz_node *home);
/* Keep the node as it is now ... */
void fuzz_node_keep(struct fuzz_node *home);
/* ... and put it back, whatever has happened to it. */
void fuzz_node_restore(struct fuzz_node *home);
/* Send what is in the outbox to nobody. */
void fuzz_node_drop_outbox(struct fuzz_node *home);
/* The first message of the outbox of a node without `send`, or 0. */
uint64_t fuzz_node_take(struct fuzz_node *home, void *bytes, uint64_t room, int *to);

/* Say what is wrong and abort. */
void fuzz_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* Called before; tells which input it was.  May be NULL. */
extern void (*fuzz_on_failure)(void);

/* ---- worlds and states (fuzz_states.c) ----------------------------------------------------------------------------- */

struct fuzz_random {
    uint64_t state;
};
uint64_t fuzz_random_next(struct fuzz_random *random);
uint32_t fuzz_random_below(struct fuzz_random *random, uint32_t limit);

struct fuzz_state {
    struct fuzz_node *home;
    const struct fuzz_entry *next; /* what happened next in its world */
    uint32_t next_count;
};

/* Make the FUZZ_STATES states; always the same ones. */
void fuzz_states_make(void);
struct fuzz_state *fuzz_state(uint32_t index);
/* How many states are in the middle of something; the names of these, NULL behind the last. */
const char *fuzz_census_name(int what);
uint32_t fuzz_census(int what);

/* ---- inputs (fuzz_target.c) ---------------------------------------------------------------------------------------- */

enum fuzz_after { FUZZ_GO_ON = 1, FUZZ_CHECK = 2, FUZZ_END = 4, FUZZ_PLACED = 8 };

struct fuzz_counts {
    uint64_t inputs, quiet, panics;
    uint64_t bytes_max; /* of memory above what the state had */
};
extern struct fuzz_counts fuzz_counts[MESSAGE_KINDS + 1]; /* by kind; the last: no kind */
/* Distinct panics, with numbers left out. */
void fuzz_print_counts(void);
const char *fuzz_kind_name(int kind);
int fuzz_kind_of(const char *name);

/* The seed of a state, or 0 if it received no message next. */
size_t fuzz_seed(uint32_t state, uint8_t *data, size_t room);
/* Make the header agree with the rest: magic, sender, length, and the kind if it is not 0. */
void fuzz_repair(uint8_t *data, size_t size, int kind);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
