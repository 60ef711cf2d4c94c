/* runtime - the state of dsm in one process; the other files of this folder work on it.
 *
 * Threads
 *   application threads   enter through dsm.h or through a fault; while they wait they make progress themselves
 *   service thread        asleep until the doorbell rings; answers for a rank that computes (service.h)
 *   watchdog thread       asleep; now and then reports threads that have waited too long (watchdog.h)
 *
 * The process' own mutex guards the transport and every field that says nothing else; the node, which other processes
 * of the host may share one day, has a mutex of its own (shared.h), which is taken second.
 *
 * States: NEW -> ACTIVE -> ENDING -> ENDED (enum runtime_state).
 *
 * Invariants
 *  1. A thread that leaves the node has given its outbox to the transport (progress_flush), or does before it unlocks
 *     the process.
 *  2. No thread touches the application view while it holds a mutex.
 *  3. At most one thread polls the transport; other waiting threads sleep until it reports a change.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dsm.h"
#include "machine/arena.h"
#include "machine/doorbell.h"
#include "machine/masks.h"
#include "machine/memory.h"
#include "machine/mutex.h"
#include "machine/transport.h"
#include "protocol/node/face.h"
#include "runtime/made.h"
#include "runtime/waits.h"

enum { EXPECTED_MAX = 32 };

struct profile;

/* A thread that sleeps until it is roused by name, because no message brings what it waits for.  In memory of the pool,
 * so that a thread of any process can rouse it. */
struct sleeper {
    _Atomic uint32_t up;
};

/* A thread that sleeps until a counter of this node changes. */
struct awaiting {
    struct awaiting *next, **link;
    uint32_t counter;
    int64_t seen;
    struct sleeper sleeper;
};

/* What one process counts, by itself and under its own mutex (wait_fault_ns: the node's); all other statistics are the
 * node's. */
struct process_stats {
    _Alignas(128) uint64_t messages_sent;
    uint64_t messages_received, bytes_sent, bytes_received, bells_rung, bells_heard;
    uint64_t wait_fault_ns, wait_lock_ns, wait_barrier_ns, wait_counter_ns, wait_flag_ns;
};

/* What the processes of a node share (shared.h); under the node's mutex where nothing else is said. */
struct shared {
    struct mutex mutex;
    struct node *node;
    struct waits *waits;         /* of the threads of each space; without the mutex */
    struct process_stats *stats; /* of each space; the others may read it a little late */
    _Atomic uint32_t generation; /* counts the node's wakes; read without the mutex */
    _Atomic uint32_t sleepers;   /* threads that sleep on it: they are woken when it counts */
    _Atomic uint32_t pollers;    /* processes that have waited for a while, and poll */
    _Atomic int poller;          /* the rank of one that polls, + 1; 0: none */
    _Atomic bool orphaned;       /* there may be requests for locks whose thread has timed out */
    _Atomic int dying;           /* the rank that ends all others, + 1; 0: none */
    struct awaiting *awaiting;
    int64_t locks_reported_ns; /* last inquiry_report_locks, */
    int64_t roll_called_ns;    /* inquiry_ask_for_absent */
    uint64_t traced;           /* events of the node written so far (trace.h) */
};

enum { NODES_WHY_BYTES = 320 };

/* Which ranks are one node (nodes.h). */
struct nodes {
    int *of;    /* the node of each rank */
    int *first; /* the first rank of each node */
    int *to;    /* the rank of each node that is sent what any of them may take: it was seen to wait last */
    int *hosts; /* the lowest rank of the host of each rank */
    uint32_t count;
    uint32_t spaces, space;    /* processes of this node, and this one's place among them */
    char why[NODES_WHY_BYTES]; /* why ranks of this host are nodes of their own; "": they are not, or are to be */
};

struct runtime {
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* progress_wait sleeps on it while another thread polls */
    struct shared *shared;  /* in the arena, as is the node */
    struct node *node;
    struct port port;
    struct nodes nodes;
    struct transport *transport;
    struct memory memory;
    struct arena arena; /* of the node's memory */
    struct doorbell *doorbell;
    struct bell_state *bells; /* of each node (bells.c) */
    struct dsm_options options;
    int rank, size;
    pid_t process; /* a fork of it has no shared memory */
    uint64_t job;  /* names this job */
    bool one_host; /* all ranks run here */
    bool at_exit;  /* the program is over: the threads that still touch memory are left over */

    /* Progress (progress.h). */
    bool polling;              /* some thread polls the transport */
    _Atomic unsigned locking;  /* threads of the program that want the mutex now, and will poll when they wait */
    unsigned waiting;          /* threads between progress_enter and progress_leave */
    unsigned sleepers;         /* threads that sleep on `changed` */
    uint32_t told;             /* the generation that they know of */
    bool flush_due;            /* the node had messages to send, or threads to wake, when this process left it */
    bool postponed;            /* it had fetches that wait until MPI has finished a send */
    bool pool_ready;           /* an idle thread has nothing to prepare for the pool */
    struct returned *returned; /* blocks of the pool on their way back (shared.h) */
    unsigned rings_due;        /* nodes that wait for a bell */
    int64_t bell_ns;           /* when the service thread left a bell to a polling thread; 0: none is left */
    int64_t polled_ns;         /* when a thread of the program last looked */

    /* Calls of the program. */
    struct made made;          /* by this process */
    enum meeting_kind meeting; /* that a thread is in; 0: none */
    pthread_t meeting_thread;
    struct waits *waits;         /* of its threads, in `shared`; without the mutex */
    struct process_stats *stats; /* its own, in `shared` */

    /* Ranges without memory for which replies are under way (node_port.h). */
    struct expected {
        uint64_t offset, end;
    } expected[EXPECTED_MAX];
    unsigned expected_count;

    /* The guard of SIGSEGV (guard.h). */
    struct masks masks;
    int64_t guarded_ns; /* tick of its last look */
    unsigned thefts;

    /* Threads of dsm. */
    pthread_t service, watchdog;
    _Atomic bool stopping;
    _Atomic bool print_waits;      /* SIGUSR1 */
    _Atomic bool roll_wanted;      /* a thread in a meeting is to ask for the absent ranks */
    int neighbour, neighbour_file; /* the rank that this one watches, and its process (a pidfd); -1: none */

    /* Death (death.h). */
    _Atomic int dying; /* the thread that ends all ranks; 0: none */
    int dying_status;

    /* DSM_CHAOS (chaos_node.h). */
    uint64_t dice;
    int64_t collect_ns; /* when it wants the next collection */

    /* DSM_TRACE (trace.h). */
    int trace; /* file, or -1 */

    struct profile *profile; /* DSM_PROFILE (profile.h); NULL: nothing is recorded */
};

/* ENDING: calls that wait return an error, but faults still get their pages.  ENDED: no thread enters any more.
 * Changes under the mutex from ACTIVE on. */
enum runtime_state { RUNTIME_NEW, RUNTIME_ACTIVE, RUNTIME_ENDING, RUNTIME_ENDED };

/* The one pointer of the process: a signal handler has no other way to its state.  NULL before dsm_init. */
extern struct runtime *runtime_current;

enum runtime_state runtime_state(void);
void runtime_enter_state(enum runtime_state state);
