/* sim - the simulator: many nodes of the real protocol in one process, under a seeded network, memory and schedule.
 *
 * The simulator owns everything that the protocol asks of the world (struct port) and everything that production leaves
 * to chance: which message is delivered next, which thread runs next, when a thread loses patience.  So one number, the
 * seed, replays a run exactly, and what takes MPI weeks to meet takes the simulator seconds.
 *
 *   program      what the threads of all nodes do, made from the seed by sim_program.c: lists of operations
 *   cell         a few neighbouring bytes of one region that are used together
 *   slot         a region, as the program names it (its number is known only when the meeting has agreed)
 *   truth        the bytes of a slot as the latest writes in the order of the schedule have left them
 *   channel      messages from one node to another that are under way; they may overtake each other (knob `disorder`)
 *   space        a process of a node: its own table of what it may access, and threads; the memory is the node's
 *   rank         the number of a space in the job: those of node 0 come first
 *   blocked      a thread was told to wait, and asks again only after its node said `wake`
 *   bystander    another thread of the node, which goes on reading and writing while the protocol changes protection
 *
 *   peek         a read of what others may be writing: a race, but not without a promise
 *
 * The oracle: in a race-free program every read returns the latest write in the order of the schedule, which is the order
 * of real time.  A peek returns the value of some write, or the initial one, that no other write followed before the peek;
 * both "followed" and "before" mean happens-before, which releases, acquires and meetings carry from node to node.  A
 * write is also before all that the threads of its node do after it, in whatever space: they share its memory.  Racy writes
 * of one byte all differ: a write of what is there already leaves no difference, and is none for this protocol.  Locks are
 * exclusive, counters exact, a try of a free lock succeeds, nothing deadlocks, no value is lost that somebody may still
 * want, and at the end all memory is given back.
 */
#ifndef TESTS_NATIVE_SIM_H
#define TESTS_NATIVE_SIM_H

#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

/* Settings of a run.  -1: the seed chooses. */
struct sim_knobs {
    int64_t nodes;           /* 1 to 16 */
    int64_t spaces;          /* of each node, 1 to 4; 0: the seed draws them for each node */
    int64_t regions;         /* that live from the first phase to the last, 1 to 4 */
    int64_t page_bytes;      /* 64 to 256, a power of two */
    int64_t phases;          /* 1 to 8 */
    int64_t lock_threads;    /* per space, 0 to 2 */
    int64_t prefetch;        /* 0 or 1: a prefetching thread per node */
    int64_t collect;         /* mean steps between two wishes for a collection; 0: nobody wishes */
    int64_t budget_bytes;    /* of protocol memory */
    int64_t readahead_bytes; /* read-ahead */
    int64_t refetch_bytes;   /* window for pages that are wanted again; 0: none is brought */
    int64_t push_bytes;      /* pushed at a time; 0: none */
    int64_t readers;         /* of a version that a node serves itself (readers_max); 0: all */
    int64_t open_bytes;      /* opened ahead of write faults; 0: none */
    int64_t guess;           /* permille of the guesses about pages that are made without ground */
    int64_t whole;           /* 0 to 3, enum of struct policy */
    int64_t bulk;            /* 0 to 3, enum of struct policy */
    int64_t eager;           /* permille of the messages of which all is taken at once */
    int64_t stay_open;       /* permille */
    int64_t preopen;         /* permille */
    int64_t deliver;         /* permille of the steps that deliver a message if there is one */
    int64_t stalls;          /* permille of the steps that stall a channel or a thread for a while */
    int64_t disorder;        /* permille of the messages that may overtake earlier ones of their channel */
    int64_t bystanders;      /* permille of the changes of protection that others use to read and write */
    int64_t torn;         /* permille of the pieces in which pages are copied, compared and changed after which others
                                read or write some of their bytes */
    int64_t changes_kept; /* entries in a node's log of changes; 0: as in production */
    int64_t any_space;    /* where what no space waits for goes; 0: the first space, 1: any (if decided: the last) */
    int64_t slow;         /* permille of the spaces that seldom look for messages */
    int64_t edges;        /* mappings that the simulated kernel has room for in each space; 0: plenty */
    int64_t edges_told;   /* 1: the port names that limit, 0: protection just fails */
    int64_t tries;        /* permille of the critical sections that only try to enter; as many are impatient */
    int64_t pins;         /* permille of the operations that pin something first */
    int64_t changes;      /* permille of the phases that allocate, free, or disagree at their end */
    int64_t counters;     /* 0 to 3 */
    int64_t flags;        /* threads that hand cells round by flags, 0 to 4 */
    int64_t publishes;    /* published unasked to a node that uses none of them, at most; 0: none is published so */
    int64_t races;        /* permille of the lasting cells that any thread reads and writes, as it likes */
    int64_t values;       /* number of different values written, 2 to 255 */
    int64_t damage;       /* permille of the messages that arrive damaged: nothing may crash; 0 if not said */
    int64_t check;        /* 0: at the end, 1: at times, 2: after every step */
    int64_t steps_max;    /* an endless run is a failure */
    int64_t cache_bytes;  /* held of other nodes' pages; 0: no bound, and nothing is given up */
    int64_t expects;      /* permille of the steps at which a waiter that expects a set does not ask for it */
    int64_t linger;       /* permille: a node that has passed a departure on takes it in at its next step only */
    int64_t detect;       /* 1: accesses are logged, and races found in them are those that there were; 2: and pages
                             stay open over stretches; 0, if not said: neither */
    int64_t evict;        /* permille of the steps that look whether a copy can be given up, within the bound, too */
};

/* Sums over runs. */
struct sim_stats {
    uint64_t programs, steps, deliveries, overtaken, messages, message_bytes, node_runs;
    uint64_t reads, writes, peeks, bystander_accesses, tears, lagging_reads, lagging_writes;
    uint64_t faults_read, faults_write, faults_local, fetches, fetch_requests;
    uint64_t pages_received, diffs_received, diffs_made, twins_made, intervals_closed, notices_received, invalidations;
    uint64_t collections, cuts, lock_acquires, lock_acquires_local, lock_grants, deferred;
    uint64_t tries, tries_of_free_locks, tries_refused, acquires_cancelled;
    uint64_t counter_adds, pins_read, pins_write, pins_waited;
    uint64_t meetings, disagreements, refusals, allocations, allocations_without_space, frees, addresses_reused;
    uint64_t pages_readahead, pages_refetched, refetch_waits, probes, probes_unused, pushes_sent, pushes_used,
        pushes_unused, pages_preopened, pages_preopened_unused, copies_given_up;
    uint64_t bulk_sent, bulk_bytes, bulk_in_place, bulk_late, requests_deferred;
    uint64_t prefetches, protects, protects_failed, checks;
    uint64_t damages, programs_damaged, damages_noticed;
    uint64_t flag_sets, flag_waits, flag_waits_ended, flag_waits_unasked;
    uint64_t programs_detected, stretches, racy_bytes, pages_raced;
    uint64_t kind_messages[32];
    uint64_t pool_bytes_max;
};

enum { SIM_FAILURE_BYTES = 16384 };

/* What a thread of a program does, one after the other. */
enum sim_op_kind {
    SIM_WRITE,    /* what: cell, value, pattern: which bytes (0: all) */
    SIM_READ,     /* what: cell; must be the latest write in real time */
    SIM_PEEK,     /* what: cell, without the lock that its writers hold: what happens-before allows */
    SIM_ACQUIRE,  /* what: lock, value: enum sim_patience, pattern: steps, jump: where to go without it */
    SIM_RELEASE,  /* what: lock */
    SIM_ADD,      /* what: counter, value: delta */
    SIM_PIN,      /* what: cell, value: 1 for writing */
    SIM_UNPIN,    /* the last pin */
    SIM_MEET,     /* what: meeting kind, value: slot, lock or counter, pattern: how ballots differ,
                                   jump: by whom */
    SIM_FORGET,   /* what: slot */
    SIM_IDLE,     /* value: steps */
    SIM_START,    /* the other threads of the space may begin */
    SIM_GATE,     /* wait for SIM_START */
    SIM_JOIN,     /* wait for the other threads of the program in this space */
    SIM_PREFETCH, /* value: mean pause; for ever */
    SIM_COLLECT,  /* value: mean pause; for ever */
    SIM_HINT,     /* what: cell; start to fetch its first page, and go on */
    SIM_REQUEST,  /* ask for a collection, once */
    SIM_SET,      /* what: flag */
    SIM_CLEAR,    /* what: flag */
    SIM_AWAIT,    /* what: flag, value: enum sim_patience (not SIM_TRYING), pattern: steps, jump: where to go then */
    SIM_OPS
};

enum sim_patience { SIM_PATIENT, SIM_IMPATIENT, SIM_TRYING };

/* `what` of SIM_MEET. */
enum { SIM_BARRIER = 1, SIM_ALLOCATE = 2, SIM_FREE = 3 };

/* All knobs left to the seed. */
void sim_knobs_default(struct sim_knobs *knobs);
/* 0, or -1: there is no such knob. */
int sim_knob_set(struct sim_knobs *knobs, const char *name, int64_t value);
/* Name of a knob, NULL behind the last. */
const char *sim_knob_name(int index);
int64_t *sim_knob_at(struct sim_knobs *knobs, int index);

/* Run the program of one seed and add to `total`.  0, or -1: it failed, and `failure` (SIM_FAILURE_BYTES) says how; 1: it
 * failed after a message had been damaged, as it should.
 * `trace`: print every step to standard output. */
int sim_run(uint64_t seed, const struct sim_knobs *knobs, int trace, struct sim_stats *total, char *failure);

/* Run seeds first, first + 1, ...; the number of runs that passed before one failed. */
uint64_t sim_run_many(uint64_t first, uint64_t runs, const struct sim_knobs *knobs, struct sim_stats *total,
                      char *failure);

/* ---- programs that are written down -------------------------------------------------------------------------------- */

struct sim_program;

/* What a thread read: threads by their index, operations by theirs in the thread; up to 8 bytes, the first one lowest. */
struct sim_observation {
    uint32_t thread, op;
    uint64_t value;
};

/* A program whose main threads, one per rank, do nothing yet.  `spaces`: how many each node has, or NULL: one.  Regions,
 * locks and counters are made before the threads begin; when all have ended, the nodes meet and finalize.  Every function
 * below that returns an int returns the index of what it made, or -1: there is no room for it, or nothing of that index. */
struct sim_program *sim_program_new(int nodes, const int *spaces);
void sim_program_delete(struct sim_program *program);
int sim_program_slot(struct sim_program *program, uint64_t bytes, uint64_t page_bytes);
/* A slot that the threads allocate themselves: SIM_MEET, SIM_ALLOCATE, slot. */
int sim_program_slot_later(struct sim_program *program, uint64_t bytes, uint64_t page_bytes);
int sim_program_cell(struct sim_program *program, int slot, uint32_t offset, uint32_t bytes);
int sim_program_locks(struct sim_program *program, int count);
int sim_program_counters(struct sim_program *program, int count);
int sim_program_flags(struct sim_program *program, int count);
/* The first one of a rank is its main thread, the only one that may meet. */
int sim_program_thread(struct sim_program *program, int rank);
int sim_program_op(struct sim_program *program, int thread, int kind, uint32_t what, uint32_t value, uint32_t pattern,
                   uint32_t jump);

/* Run it once, the schedule by seed; as sim_run.  Knobs that shape programs are not looked at; `prefetch` and `collect` add
 * their helpers.  The first `room` of what SIM_READ and SIM_PEEK saw go to `observations`, in the order of the schedule;
 * *count is how many there were. */
int sim_run_program(const struct sim_program *program, uint64_t seed, const struct sim_knobs *knobs, int trace,
                    struct sim_stats *total, char *failure, struct sim_observation *observations, uint32_t room,
                    uint32_t *count);

/* ---- runs whose every step is decided ----------------------------------------------------------------------------- */

/* A decision: i < SIM_THREAD_CHOICE delivers the next message from node i / 16 to node i % 16, others run thread
 * i - SIM_THREAD_CHOICE by one step, an entry into the protocol or an access.  Only what the threads do between setup and
 * final meeting is decided; the rest takes one fixed order.  Nothing is random: no stalls, no bystanders, knobs that are -1
 * are as quiet as can be, SIM_IDLE is nothing, and an impatient acquire counts the steps of its own thread. */
enum { SIM_THREAD_CHOICE = 256 };

/* Run it with these decisions, and in a fixed fair order when there are no more. */
int sim_run_decided(const struct sim_program *program, const struct sim_knobs *knobs, const uint16_t *decisions,
                    uint32_t decision_count, int trace, struct sim_stats *total, char *failure,
                    struct sim_observation *observations, uint32_t room, uint32_t *count);

/* What the threads saw in a schedule, sorted by thread and, within one, in its order. */
struct sim_outcome {
    uint64_t schedules; /* in which it was seen */
    uint64_t hash;
    uint32_t count;
    struct sim_observation *seen;
};

struct sim_exploration {
    uint64_t schedules;          /* that were run to the end */
    uint64_t redundant;          /* that were given up, because all they could do was done before */
    uint64_t classes;            /* of schedules that differ only in the order of steps of different nodes */
    uint64_t *hashes, hash_room; /* of those classes: a table; 0 is nothing */
    uint32_t decisions_max;      /* in one schedule */
    int limited;                 /* there are more schedules */
    int failed;
    struct sim_outcome *outcomes;
    uint32_t outcome_count, outcome_capacity;
    uint16_t *failing; /* decisions of the schedule that failed, to be given to sim_run_decided */
    uint32_t failing_count;
};

/* All schedules of a program, up to `limit` of them.  `depth`: only so many decisions are tried in all ways, and a fixed
 * fair order follows; 0: all of them.  `reduce`: one of the schedules that differ only in the order of steps of different
 * nodes (sim_explore.c says why that is enough).  Ends at the first failure. */
struct sim_exploration *sim_explore(const struct sim_program *program, const struct sim_knobs *knobs, uint64_t limit,
                                    uint32_t depth, int reduce, struct sim_stats *total, char *failure);
void sim_exploration_delete(struct sim_exploration *exploration);

/* The same by hand: a run that waits for decisions, and whose threads are told what to do while it runs.  Who drives it
 * judges what SIM_PEEK saw.  Bystanders (always, with 1000) are there if the knob says so. */
struct sim;

/* NULL: it failed already. */
struct sim *sim_open(const struct sim_program *program, const struct sim_knobs *knobs, int trace, char *failure);
/* One more operation for a thread; -1: refused. */
int sim_open_op(struct sim *sim, int thread, int kind, uint32_t what, uint32_t value, uint32_t pattern);
/* The decisions that can be taken; their number. */
uint32_t sim_open_choices(const struct sim *sim, uint16_t *choices, uint32_t room);
/* 0, or -1: it failed, and can only be closed. */
int sim_open_choose(struct sim *sim, uint16_t choice);
/* 1: the thread has done all it was told to. */
int sim_open_idle(const struct sim *sim, int thread);
int sim_open_holds(const struct sim *sim, int thread, int lock);
/* What the last read of this thread saw. */
uint64_t sim_open_seen(const struct sim *sim, int thread);
/* Everything that is begun is ended (no lock may be held then), the nodes meet and finalize; 0, or -1: something failed, now
 * or before. */
int sim_close(struct sim *sim, struct sim_stats *total);

/* cffi: end */

/* ---- the program ---------------------------------------------------------------------------------------------- */

enum {
    SIM_NODES_MAX = 16,
    SIM_RANKS_MAX = 16,
    SIM_SPACES_MAX = 4, /* of a node */
    SIM_SLOTS_MAX = 16,
    SIM_CELLS_MAX = 64,
    SIM_LOCKS_MAX = 8,
    SIM_COUNTERS_MAX = 3,
    SIM_FLAGS_MAX = 16,
    SIM_THREADS_MAX = 80,
    SIM_PINS_MAX = 4,
    SIM_OBSERVED_BYTES = 8,
    SIM_GRANULE_BYTES = 64
};

struct sim_slot {
    uint64_t bytes, page_bytes;
    unsigned char initial[16];
    uint32_t initial_bytes; /* 0: zeros */
    int later;              /* not made before the threads begin */
    /* While it runs: */
    uint64_t offset;    /* of the region in the range */
    uint32_t forgotten; /* bits: ranks that have no array over it any more */
    uint32_t region;
    unsigned char *truth;
};

struct sim_cell {
    uint32_t slot, offset, bytes;
    int guard; /* lock of the threads that use it, or enum sim_guard */
};

enum sim_guard {
    SIM_MAIN = -1,    /* phases order the main threads' uses of it: every read sees the latest write */
    SIM_ANYBODY = -2, /* nothing is known of who uses it: happens-before is watched */
    SIM_RING = -3     /* flags order the uses of it */
};

enum sim_ballots { SIM_ALIKE, SIM_OTHER_ARGUMENTS, SIM_OTHER_CALL, SIM_REFUSES };

struct sim_op {
    enum sim_op_kind kind;
    uint32_t what, value, pattern, jump;
};

struct sim_ops {
    struct sim_op *items;
    uint32_t count, capacity;
};

struct sim_script {
    int rank;
    int helper;           /* does not keep the run from ending */
    uint32_t first, last; /* operations of a program that was written down: [first, last) are its own */
    struct sim_ops ops;
};

struct sim_program {
    int nodes, ranks;
    int node_of[SIM_RANKS_MAX];
    struct sim_slot slots[SIM_SLOTS_MAX];
    uint32_t slot_count;
    struct sim_cell cells[SIM_CELLS_MAX];
    uint32_t cell_count;
    uint32_t lock_count, counter_count, flag_count;
    int64_t counter_starts[SIM_COUNTERS_MAX];
    struct sim_script scripts[SIM_THREADS_MAX];
    uint32_t script_count;
    uint32_t claimed; /* bits: ranks whose main thread was asked for */
};

/* SplitMix64 (Steele, Lea, Flood 2014): every seed is a good one. */
struct sim_random {
    uint64_t state;
};
uint64_t sim_random_next(struct sim_random *random);
uint32_t sim_random_below(struct sim_random *random, uint32_t limit);
int sim_random_chance(struct sim_random *random, int64_t permille);

/* Settle the knobs that are left to the seed. */
void sim_knobs_choose(struct sim_knobs *knobs, struct sim_random *random);
/* Give the nodes their ranks, as many as `spaces` says. */
void sim_program_place(struct sim_program *program, int nodes, const int *spaces);
/* A random program. */
void sim_program_make(struct sim_program *program, const struct sim_knobs *knobs, struct sim_random *random);
void sim_program_free(struct sim_program *program);
uint32_t sim_ops_add(struct sim_ops *ops, struct sim_op op);
/* A copy of a program that was written down, with what comes before its threads' operations, and helpers if the knobs say
 * so.  Settles the knobs. */
void sim_program_complete(struct sim_program *program, const struct sim_program *written, struct sim_knobs *knobs,
                          struct sim_random *random);
/* Put what comes after them behind the main threads' operations. */
void sim_program_close(struct sim_program *program);
const char *sim_op_name(enum sim_op_kind kind);

#endif
