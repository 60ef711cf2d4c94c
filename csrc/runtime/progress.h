/* progress - the process' mutex, and how a thread that waits sends, receives and sleeps.
 *
 * MPI is called under the process' mutex only.  The functions here say which mutexes they are called under; "both" are
 * the process' and the node's, which they may give up and take again.
 *
 * A thread waits with a question: it is asked again after each wake of the node, until it is answered.
 *
 * States of a thread: outside -> entered (progress_enter) -> polling, or asleep while another thread polls -> outside
 * (progress_leave).
 */
#pragma once

#include "runtime/shared.h"

/* What a thread waits for: one type for all calls and faults. */
struct question {
    /* True: there is nothing to wait for any more.  Under both mutexes. */
    bool (*answered)(struct runtime *runtime, struct question *question);
    node_id awaited; /* a node that is to answer, if `answered` has named one: it is rung until it does */
    union {
        struct {
            uint64_t offset;
            bool write, first, by_mpi, pins; /* first: not asked before; pins: to be pinned when it is here */
            enum access_answer answer;
        } page;
        struct {
            struct lock *lock;
            uint64_t ticket;
            enum lock_answer answer;
        } lock;
        struct {
            uint32_t counter;
            uint64_t ticket;
            int64_t before;
        } sum;
        struct {
            uint32_t counter;
            int64_t seen;
        } change;
        struct {
            struct flag *flag;
            stamp after;
            bool sets, asks;
        } flag;
    };
};

/* Both mutexes. */
void progress_lock(struct runtime *runtime);
void progress_unlock(struct runtime *runtime);
/* The process' own. */
void progress_lock_own(struct runtime *runtime);
void progress_unlock_own(struct runtime *runtime);
/* The calling thread is the service thread. */
void progress_become_service(void);

/* Send the node's outbox, and wake waiting threads if the node says so.  Under both; the node's is given up while MPI
 * sends. */
void progress_flush(struct runtime *runtime);
/* Receive what is there, up to a wake; true when there was anything.  Under the process' mutex. */
bool progress_poll(struct runtime *runtime);
/* The same for a thread that is about to do something for other nodes, if none has looked for some microseconds.  Under
 * both; the node's is given up meanwhile. */
void progress_glance(struct runtime *runtime);
/* Messages, or fetches that wait until a page has been sent, need looks to end.  Under the process' mutex. */
bool progress_under_way(const struct runtime *runtime);

/* Take both for a call that may wait, poll or send.  False, with none, when the runtime is past the state `last`. */
bool progress_enter(struct runtime *runtime, enum runtime_state last);
/* Give both up: the thread goes back to its own work.  It leaves no peer that was asked and not rung yet, no send that
 * MPI has not finished, and no bell of the service thread whose message it may have looked for too early: it rings
 * the service thread for these. */
void progress_leave(struct runtime *runtime);

/* The same for a call that needs the node's mutex at times only: the process' own. */
bool progress_enter_own(struct runtime *runtime, enum runtime_state last);
void progress_leave_own(struct runtime *runtime);
/* Wait until it has happened, likewise; it is asked under the process' mutex, which is given up meanwhile. */
bool progress_await(struct runtime *runtime, bool (*happened)(const struct runtime *runtime), int64_t deadline_ns);

/* Wait until the question is answered, making progress; false when the deadline (a time; negative: none) passes
 * first, or dsm ends.  Between progress_enter and progress_leave; both are given up meanwhile. */
bool progress_wait(struct runtime *runtime, struct question *question, int64_t deadline_ns);
/* Sleep until the sleeper is roused; false when the deadline passes first.  Likewise. */
bool progress_sleep(struct runtime *runtime, struct sleeper *sleeper, int64_t deadline_ns);
/* Under both. */
void progress_rouse(struct sleeper *sleeper);

/* Threads of this node that wait are to look again.  Under the process' mutex. */
void progress_wake(struct runtime *runtime);

/* The end: wake all threads that wait, and answer other ranks until no thread of any rank waits for anything. */
void progress_end(struct runtime *runtime);
