/* runtime - joins the protocol to the machine: one per process.
 *
 * Thread map
 *   application threads   enter through dsm.h or through a fault; while they wait they make progress themselves
 *   service thread        asleep until the doorbell rings; answers for a rank that computes
 *   watchdog thread       asleep; now and then looks for a thread that has waited too long, and prints a line
 *
 * One mutex guards the node, the transport and everything below that does not say otherwise.  At most one thread polls the
 * transport at a time; other waiting threads sleep until it tells them that something changed.
 *
 * Invariants
 *  1. Whoever gives up the mutex has given the node's outbox to the transport (progress_flush).
 *  2. Nobody touches the application view while holding the mutex.
 */
#ifndef RUNTIME_RUNTIME_H
#define RUNTIME_RUNTIME_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dsm.h"
#include "machine/board.h"
#include "machine/clock.h"
#include "machine/doorbell.h"
#include "machine/fault.h"
#include "machine/masks.h"
#include "machine/memory.h"
#include "machine/mpi_process.h"
#include "machine/transport.h"
#include "protocol/node/face.h"

enum { WAITS_MAX = 4096, EXPECTED_MAX = 32 };

/* A thread that waits, for the watchdog; `kind` is written last and read first.  The watchdog looks without the mutex, and
 * the wait may end, and another begin in its place, while it does: each field is whole, but they may be of two waits. */
struct wait {
    _Atomic int kind;         /* enum wait_kind */
    _Atomic uint64_t object;  /* offset of the page, number of the lock or counter, kind of the meeting */
    _Atomic int64_t since_ns; /* when it began, slices before this one included */
    _Atomic int64_t slice_ns; /* when this slice began */
    _Atomic int64_t told_ns;  /* last line about it */
    _Atomic int64_t asked_ns; /* last question who is missing */
    _Atomic uint32_t thread;  /* gettid */
    _Atomic uint32_t beside;  /* threads that it waits for, too */
};

/* A thread that sleeps until it is roused by name: it waits for something that no message brings by itself, and polling is
 * for others.  On its stack; under the mutex. */
struct sleeper {
    pthread_cond_t roused;
    bool up;
};

/* A thread that sleeps until a counter of this rank changes. */
struct awaiting {
    struct awaiting *next, **link;
    uint32_t counter;
    int64_t seen;
    struct sleeper sleeper;
};

/* What is known of how a peer answers. */
struct peer_state {
    bool by_service;    /* its last answer came from its service thread: it computes */
    bool for_page;      /* a page was asked for: not even a holder of locks is left in peace */
    uint8_t rung;       /* how often since the request */
    int64_t heard_ns;   /* when it last sent something */
    int64_t ring_at_ns; /* a request went out that it may sleep through; 0: none */
};

struct runtime {
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* something happened that a sleeping waiter may wait for */
    struct node *node;
    struct transport *transport;
    struct memory memory;
    struct doorbell *doorbell;
    struct board *board;
    struct peer_state *peers;
    struct dsm_options options;
    int rank, size;
    pid_t process; /* a fork of it has no shared memory */
    uint64_t job;  /* names this job */
    bool one_host; /* all ranks run here */
    bool all_seen; /* each rank can read the boards of all */

    bool polling;             /* some thread polls the transport */
    _Atomic unsigned locking; /* threads of the program that want the mutex now, and will poll when they wait */
    unsigned waiting;         /* threads between progress_enter and progress_leave */
    unsigned asleep;          /* of these, threads in progress_sleep, which do not poll */
    bool serving;             /* the service thread is awake */
    unsigned held;            /* locks that threads of the program hold */
    unsigned sleepers;        /* threads that sleep on `changed` */
    struct awaiting *awaiting;
    uint64_t generation;       /* counts the node's wakes */
    _Atomic bool standing;     /* there may be requests for locks whose thread has timed out */
    unsigned rings_due;        /* peers with ring_at_ns */
    int64_t bell_ns;           /* when the service thread left a bell to a thread that polls; 0: not */
    int64_t polled_ns;         /* when a thread of the program last looked */
    bool at_exit;              /* the program is over: what still touches memory after the end does so unasked */
    enum meeting_kind meeting; /* that an application thread is in; 0: none */
    pthread_t meeting_thread;
    struct expected {
        uint64_t offset, end; /* of the range, without memory yet, and a reply will come */
    } expected[EXPECTED_MAX]; /* the rest is not prepared for */
    unsigned expected_count;

    int neighbour, neighbour_file; /* the next rank of this host, and its process (a pidfd), watched; -1: none */
    pthread_t service, watchdog;
    _Atomic bool stopping;
    _Atomic bool print_waits; /* SIGUSR1 */
    _Atomic bool roll_wanted; /* who waits in a meeting is to ask who is missing */
    int64_t told_of_locks_ns; /* when those that wait behind this rank were told why */
    _Atomic int dying;        /* the thread (gettid) that ends all ranks; 0: none */
    int dying_status;

    uint64_t dice;      /* of DSM_CHAOS */
    int64_t collect_ns; /* when it wants the next collection */

    int trace;       /* file of DSM_TRACE, or -1 */
    uint64_t traced; /* events written so far */

    struct wait waits[WAITS_MAX];
    _Atomic int waits_used; /* none behind these has been used yet */

    struct masks masks;
    int64_t looked_ns; /* tick of the last faults_look */
    unsigned thefts;   /* of SIGSEGV */

    struct { /* counted here, not in the node */
        uint64_t messages_sent, messages_received, bytes_sent, bytes_received, bytes_copied, bells_rung, bells_heard;
        uint64_t wait_fault_ns, wait_lock_ns, wait_barrier_ns, wait_counter_ns;
    } stats;
};

/* ENDING: threads that wait go home with an error, but for those that wait for a page, which they still get.  ENDED: nobody
 * enters any more.  Under the mutex from ACTIVE on. */
enum runtime_state { RUNTIME_NEW, RUNTIME_ACTIVE, RUNTIME_ENDING, RUNTIME_ENDED };

/* The one pointer of the process: a signal handler has no other way to its state.  NULL before dsm_init. */
extern struct runtime *runtime_current;

enum runtime_state runtime_state(void);
uint32_t runtime_thread(void);                          /* gettid of this thread */
void runtime_make_condition(pthread_cond_t *condition); /* whose times are those of clock_now_ns */

/* Remember why a call fails, for dsm_last_error of this thread; returns `error`. */
int runtime_error(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Print the text with this rank and the protocol's last events, and end all ranks.  Any thread; does not return. */
void runtime_die(const struct runtime *runtime, const char *text, int status, bool events) __attribute__((noreturn));

/* Does not return, if a thread is ending this process already: its message is the one. */
void runtime_stand_aside(const struct runtime *runtime) __attribute__((noreturn));

/* Print the text with this rank to standard error, and go on. */
void runtime_warn(const struct runtime *runtime, const char *text);

/* After the last meeting: let the threads that wait go, and close everything. */
void runtime_end(struct runtime *runtime);
/* Called by progress_end alone. */
void runtime_enter_state(enum runtime_state state);

/* ---- calls.c ------------------------------------------------------------------------------------------------- */

/* progress_enter or progress_lock for a call of the program; NULL, with the error set, when dsm is not running. */
struct runtime *calls_enter(const char *call);
struct runtime *calls_lock(const char *call);
/* The code for a wait that progress_wait gave up: DSM_AGAIN, or an error because dsm has ended under it. */
int calls_not_yet(const char *call);
int64_t deadline_of(const struct wait *wait, double slice_s);

/* ---- faults.c ------------------------------------------------------------------------------------------------ */

/* From here on touching the range is served, and signals that end this process are explained. */
int faults_begin(struct runtime *runtime);
/* progress_wait for pages, which no caller can be sent home from; false when dsm ends. */
bool faults_await_pages(struct runtime *runtime, bool (*done)(struct runtime *runtime, void *context), void *context);
/* What a fault needs may have been taken away since: the handler, by a library that installed its own, or the signal, by a
 * mask.  It is taken back, where that can be, and said.  Looked at once in a tick of the kernel's clock (1 to 10 ms), which
 * costs 5 ns as a rule; at the handler each time if `stale`: pages may have become stale, and faults will come.  Under the
 * mutex. */
void faults_look(struct runtime *runtime, bool stale);
/* The same, by the watchdog. */
void faults_look_from_outside(struct runtime *runtime);

/* ---- progress.c ---------------------------------------------------------------------------------------------- */

void progress_lock(struct runtime *runtime);
void progress_unlock(struct runtime *runtime);
/* Send what the node wants sent, and tell waiters of a wake.  Under the mutex. */
void progress_flush(struct runtime *runtime);
/* Take the mutex for a call that may wait, poll or send: until progress_leave others see that this rank polls.  False,
 * without the mutex, when the runtime is past the state `last`. */
bool progress_enter(struct runtime *runtime, enum runtime_state last);
/* Give the mutex up: the thread goes back to its own work.  Nobody may be left to look after these: peers that were asked
 * and not rung yet, sends that MPI has not finished, and, where others cannot see when this rank stops polling, a bell that
 * the service thread left to this thread, whose last look may have been too early for the message. */
void progress_leave(struct runtime *runtime);
/* What the transport calls: all segments of a message have been sent; the wire of one with segments is here. */
void progress_sent(struct runtime *runtime, struct message *message);
int progress_place(struct runtime *runtime, int source, void *buffer, uint64_t bytes, struct transport_part *parts,
                   struct message **placed);
/* Sleep until the sleeper is roused; false when the deadline (negative: none) passes first.  Between progress_enter and
 * progress_leave. */
bool progress_sleep(struct runtime *runtime, struct sleeper *sleeper, int64_t deadline_ns);
void progress_rouse(struct sleeper *sleeper);
/* Receive what is there, up to a wake; true when there was anything.  Under the mutex. */
bool progress_poll(struct runtime *runtime);
/* Wait until `done` says so, making progress; false when the deadline (a time; negative: none) passes first, or dsm ends.
 * Under the mutex, which is given up in between. */
bool progress_wait(struct runtime *runtime, bool (*done)(struct runtime *runtime, void *context), void *context,
                   int64_t deadline_ns);
/* The end: wake all threads that wait, and answer other ranks until no thread of any rank waits for anything. */
void progress_end(struct runtime *runtime);
void *progress_service(void *runtime);
/* Ask the scheduler for short slices (Linux 6.12): who runs briefly and seldom goes before a computation when it wakes. */
void progress_short_slices(void);

/* ---- disturb.c ----------------------------------------------------------------------------------------------- */

/* DSM_CHAOS: choose what the seed leaves open, before the node is made. */
void disturb_options(struct runtime *runtime, struct node_options *options);
/* Do something that the protocol must stand at any time: start a collection, or take the protection of pages away.
 * Under the mutex. */
void disturb(struct runtime *runtime);

/* ---- trace.c ------------------------------------------------------------------------------------------------- */

/* 0, or an error with its text. */
int trace_open(struct runtime *runtime);
/* Write the node's events since the last time.  Under the mutex. */
void trace_write(struct runtime *runtime);

/* ---- watchdog.c ---------------------------------------------------------------------------------------------- */

/* Of a meeting: under the mutex. */
struct wait *watchdog_begin(struct runtime *runtime, enum wait_kind kind, uint64_t object);
/* Returns how long this slice was, in nanoseconds.  Not done: the thread will come back for the same. */
uint64_t watchdog_end(struct wait *wait, bool done);
void watchdog_print(struct runtime *runtime, int64_t longer_than_ns, int64_t again_after_ns);
/* From time to time, by the service thread: tell those who wait for locks that are held here.  Under the mutex. */
void watchdog_tell_of_locks(struct runtime *runtime);
/* What a thread of this rank waits for. */
enum wait_kind watchdog_waits(const struct runtime *runtime, uint32_t thread, uint64_t *object);
void *watchdog_thread(void *runtime);
/* Choose the next rank of this host to watch.  Collective. */
void watchdog_choose_neighbour(struct runtime *runtime);

#endif
