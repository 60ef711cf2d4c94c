/* sim_world - the insides of a run: who is where in its program, what is under way, what is known to be true.
 *
 *   sim.c           a run, step by step              sim_access.c   reads, writes, pins of a thread
 *   sim_memory.c    chunks, protection               sim_calls.c    locks, counters, meetings of a thread
 *   sim_network.c   channels                         sim_oracle.c   what must hold
 *   sim_steer.c     runs whose every step is decided sim_explore.c  all of them
 *   sim_races.c     what a search for races must find
 *   sim_diff.c      diffs, applied under the eyes of other threads
 *   sim_live.c      pages, copied and compared while others write them
 */
#ifndef TESTS_NATIVE_SIM_WORLD_H
#define TESTS_NATIVE_SIM_WORLD_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>

#include "protocol/node/face.h"
#include "sim.h"

enum {
    RANGE_BYTES = 32 * 1024,
    SIM_PAGE_BYTES_MAX = RANGE_BYTES,
    RETRIES_PER_STEP = 4,
    PIECE_BYTES = 8, /* in which pages are torn */
    CHUNKS_KEPT = 64,
    CHUNK_KEPT_BYTES = 1 << 20,
    CHUNK_BYTES_MAX = 64 << 20,
    EVENTS_SHOWN = 40,
    SLOW_PERMILLE = 50, /* of the looks of a space that is slow */
    CHECK_PERIOD = 61
};

/* A message on its way: its wire, then what travels behind it. */
struct parcel {
    struct parcel *next;
    struct message *sent;   /* of the sender, which has not been told that all of it was taken; or NULL */
    struct message *placed; /* of the receiver, which knows of the wire; or NULL */
    uint64_t bytes, bulk;
    uint32_t sender, space; /* the space that sent it, the one that it is for */
    unsigned char data[];
};

struct channel {
    struct parcel *head, **tail;
    uint64_t stalled_until;
    int active_at; /* position in the list of channels that hold something, or -1 */
};

struct sim_pin {
    uint64_t page_offset, page_bytes, offset;
    bool write;
};

/* What a node, a space, a lock or a meeting knows, in the sense of happens-before: how many of each node's writes (a vector
 * clock).  The threads of a node share its memory, so its own writes are known to all of its spaces.  Others' writes are
 * known to the node when one of its threads has been told of them, and to a space when it has followed the node, which it
 * does at its own acquires and departures. */
struct knowledge {
    uint32_t writes[SIM_NODES_MAX];
};

enum stage { STAGE_BEGIN, STAGE_WAIT, STAGE_PINS };

struct thread {
    const struct sim_script *script;
    struct sim_node *home;
    struct sim_space *space;
    int number;    /* on its node */
    uint32_t at;   /* operation */
    uint32_t byte; /* of the cell, how far it is */
    enum stage stage;
    bool blocked, in_fault, done;
    uint64_t sleep_until, ticket, patience;
    uint64_t steps;           /* that it was run */
    uint64_t seen;            /* by the last read */
    uint32_t observation;     /* under way */
    uint64_t add_low;         /* counter: sum of what was certainly added before */
    uint64_t changes;         /* lock: of lock_truth when this try began, */
    bool was_free;            /* and whether the lock was free then */
    struct knowledge learned; /* by the wait for a flag that is ending, */
    stamp learned_set;        /* and from which set, by whom */
    node_id learned_from;
    struct sim_pin pins[SIM_PINS_MAX];
    int pin_count;
};

struct chunk {
    struct chunk *next, **link;
    size_t bytes;
    uint64_t unused;
};

/* A process: what its page table allows. */
struct sim_space {
    struct sim_node *home;
    uint32_t number; /* on its node */
    int rank;
    struct port port;
    unsigned char access[RANGE_BYTES / SIM_GRANULE_BYTES];
    uint64_t edges;
    bool started, slow;
    struct knowledge knowledge;
    uint64_t meetings; /* that its main thread has arrived at */
};

struct sim_node {
    struct sim *sim;
    int number;
    struct node *node;
    unsigned char *view;
    struct chunk *chunks;
    struct knowledge knowledge;
    struct sim_space *spaces; /* the first of its own in the run's */
    uint32_t space_count;
};

struct sum {
    int64_t before, delta;
};

struct counter_truth {
    uint32_t id;
    int64_t start, asked, added; /* sums of deltas */
    struct sum *sums;
    uint32_t count, capacity;
};

enum { SIM_SETS_KEPT = 8 };

/* The last sets of a flag, and what their nodes knew. */
struct flag_truth {
    struct {
        stamp set;
        node_id setter;
        struct knowledge knowledge;
    } sets[SIM_SETS_KEPT];
    uint32_t count;
};

struct lock_truth {
    uint32_t id;
    struct knowledge knowledge; /* of those who released it */
    const struct thread *holder;
    uint64_t changes; /* whenever a thread wants, takes, releases or gives up */
};

/* A write of one byte of a cell that is not the main threads'. */
struct past_write {
    struct knowledge knowledge; /* of its space, this write included */
    uint32_t byte, value;
    uint32_t stretch; /* of its node's log */
    int node;
};

struct history {
    struct past_write *items;
    uint32_t count, capacity;
};

struct sim {
    uint64_t seed, step;
    struct history history[SIM_CELLS_MAX];
    struct sim_observation *observations;
    uint32_t observation_room, *observed;
    bool dead;
    struct {
        uint64_t number;
        struct knowledge knowledge;
    } met[2]; /* the meeting under way, and the one that somebody may not have left yet */
    struct sim_knobs knobs;
    struct sim_random random;
    struct sim_program program;
    struct sim_stats stats;
    struct sim_node nodes[SIM_NODES_MAX];
    struct sim_space spaces[SIM_RANKS_MAX];
    struct thread threads[SIM_THREADS_MAX];
    int thread_count, unfinished;
    struct thread *current;
    struct channel channels[SIM_NODES_MAX * SIM_NODES_MAX];
    int active[SIM_NODES_MAX * SIM_NODES_MAX], active_count;
    struct lock_truth locks[SIM_LOCKS_MAX];
    struct counter_truth counters[SIM_COUNTERS_MAX];
    struct flag_truth flags[SIM_FLAGS_MAX];
    bool trace, ending, damaged;
    bool steered; /* every step is decided by the caller, or by a fixed rule */
    bool open;    /* operations are still added: who has done all of his waits for more */
    enum { PART_SETUP, PART_BODY, PART_END } part; /* of a steered run */
    uint64_t chosen_at[SIM_NODES_MAX * SIM_NODES_MAX + SIM_THREADS_MAX];
    uint16_t *decisions; /* of the body */
    uint32_t decision_count, decision_capacity;
    int touched; /* node of this step */
    jmp_buf escape;
    char *failure;
};

#define TRACE(sim, ...)                                         \
    do {                                                        \
        if ((sim)->trace) {                                     \
            printf("%6llu  ", (unsigned long long)(sim)->step); \
            printf(__VA_ARGS__);                                \
            putchar('\n');                                      \
        }                                                       \
    } while (0)

static inline const struct sim_op *op_of(const struct thread *thread)
{
    return &thread->script->ops.items[thread->at];
}

static inline void next_op(struct thread *thread)
{
    thread->at++;
    thread->stage = STAGE_BEGIN;
}

/* The clock that a thread goes by.  Where every step is decided it is the thread's own, so that what other nodes do
 * changes nothing here. */
static inline uint64_t sim_now(const struct thread *thread)
{
    return thread->home->sim->steered ? thread->steps : thread->home->sim->step;
}

/* sim.c */
struct sim *sim_new(uint64_t seed, const struct sim_knobs *knobs, int trace, char *failure);
/* What threads read goes there. */
void sim_watch(struct sim *sim, struct sim_observation *observations, uint32_t room, uint32_t *count);
/* `written`: the program, or NULL: the seed makes one. */
void sim_set_up(struct sim *sim, const struct sim_program *written);
void sim_run_thread(struct thread *thread);
/* It has no operation left, and none will come. */
void sim_thread_may_be_done(struct thread *thread);
/* Everything is done: the nodes end, and nothing may be left. */
void sim_end(struct sim *sim, struct sim_stats *total);
void sim_delete(struct sim *sim);
void sim_fail_stuck(struct sim *sim, const char *what) __attribute__((noreturn));
void sim_fail(struct sim *sim, int number, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));

/* sim_memory.c */
struct port sim_port(struct sim_space *space);
/* The process of this space goes into its node. */
void sim_enter(struct sim_space *space);
/* The run whose step is taken now, or NULL. */
void sim_runs(struct sim *sim);
/* Bytes are about to change in the middle of an entry into a node; not all of them are a node's view. */
void sim_changes(const unsigned char *bytes);
/* The node whose view is read or changed in pieces, between which others touch it (sim_tear); NULL: it is not. */
struct sim_node *sim_torn(const unsigned char *bytes);
/* Give back what a failed run has left. */
void sim_chunks_free(struct sim_node *home);

/* sim_network.c */
struct channel *sim_channel(struct sim *sim, int from, int to);
/* After every entry into a node: its messages go into the channels, its threads are woken. */
void sim_pump(struct sim_node *home);
/* The same after calls that do not settle themselves. */
void sim_settle(struct sim_node *home);
void sim_deliver(struct sim *sim, int index);
/* It is for a space that is slow to look. */
bool sim_channel_is_slow(const struct sim *sim, int index);

/* sim_oracle.c */
void sim_learn(struct knowledge *to, const struct knowledge *from);
/* Count an access beyond what the page's state allows. */
void sim_count_lag(const struct sim_space *space, uint64_t offset, bool write);
/* What the node knows is known to the space as well: it has followed. */
void sim_follow(struct sim_space *space);
void sim_remember(struct sim_space *space, uint32_t cell, uint32_t byte, uint32_t value);
bool sim_may_peek(const struct sim_space *space, uint32_t cell, uint32_t byte, uint32_t value);
bool sim_lock_is_free(struct sim *sim, const struct lock_truth *truth);
void sim_check_counters(struct sim *sim);
void sim_check_node(struct sim *sim, int number);
void sim_check_step(struct sim *sim);

/* Is a write of this node known there? */
bool sim_knows(const struct knowledge *knowledge, const struct past_write *write);

/* sim_races.c: the ends of stretches, and what the search for races finds at the end of a run */
bool sim_detects(const struct sim *sim);
void sim_before_release(struct thread *thread);
void sim_after_acquire(struct thread *thread);
void sim_check_races(struct sim *sim);

/* sim_steer.c */
enum { SIM_CHOICES = SIM_NODES_MAX * SIM_NODES_MAX + SIM_THREADS_MAX };
/* Knobs that are not set: as quiet as can be. */
struct sim_knobs sim_knobs_quiet(const struct sim_knobs *knobs);
/* The steps that can be taken now, ascending: deliver from channel i, or run thread i - SIM_THREAD_CHOICE. */
uint32_t sim_choices(const struct sim *sim, uint16_t *choices);
int sim_choice_node(const struct sim *sim, uint16_t choice);
void sim_choose(struct sim *sim, uint16_t choice);
/* Take the step that was not taken for the longest time.  False: there is none. */
bool sim_choose_fairly(struct sim *sim);
void sim_begin_steered(struct sim *sim, const struct sim_program *written);
void sim_end_steered(struct sim *sim, struct sim_stats *total);

/* sim_access.c: one step of an operation each */
void sim_bystanders(struct sim_node *home);
void sim_tear(struct sim_node *home);
void sim_do_access(struct thread *thread);
void sim_do_pin(struct thread *thread);
void sim_do_unpin(struct thread *thread);
void sim_do_prefetch(struct thread *thread);
void sim_do_hint(struct thread *thread);

/* sim_calls.c */
void sim_do_acquire(struct thread *thread);
void sim_do_release(struct thread *thread);
void sim_do_add(struct thread *thread);
void sim_do_meet(struct thread *thread);
void sim_do_set(struct thread *thread);
void sim_do_clear(struct thread *thread);
void sim_do_await(struct thread *thread);
void sim_do_forget(struct thread *thread);
void sim_do_collect(struct thread *thread);
void sim_do_request(struct thread *thread);
void sim_do_gate(struct thread *thread);
void sim_do_start(struct thread *thread);
void sim_do_idle(struct thread *thread);
void sim_do_join(struct thread *thread);

#endif
