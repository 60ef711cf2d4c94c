/* profile - what DSM_PROFILE records of this process: calls of the program by their sites, faults in groups, locks, and
 * the events of the node (ledger.h).  Python reads it at the end (dsm.h, struct dsm_profile).
 *
 * All memory is there from the start, most of it never touched: nothing is allocated in a fault.  What is full is
 * counted and left out; of the events the shortest are, so that the whole run can be seen.
 *
 * Threads: each has an entry of its own.  The tables of all threads are under the profile's own mutex, which is taken
 * last and held for some nanoseconds; what ledger.h counts is under the node's.
 */
#pragma once

#include <pthread.h>

#include "runtime/runtime.h"

/* Faults of a thread close behind each other. */
struct profile_group {
    int64_t begin_ns, end_ns;
    uint64_t pages, bytes, sources; /* of the process, when it began */
    uint32_t region, count;         /* count 0: there is none */
};

/* Of a thread, beside what dsm.h shows. */
struct profile_thread {
    struct dsm_profile_thread *shown;
    int64_t data_entered_ns, data_left_ns; /* its waits for data at the begin of its call, and at the end of the last */
    uint64_t faults_left;
    struct profile_group group;
    struct dsm_profile_array touched[DSM_PROFILE_ARRAYS]; /* in this phase */
};

struct profile {
    struct dsm_profile shown;
    pthread_mutex_t mutex;
    struct profile_thread *threads;
    uint64_t pages_marked, bytes_marked, runs_marked, faults_marked,
        sources_marked; /* at the last call of any thread */
    bool brought;       /* pages came in that call or the phase before it */
    uint64_t faults;
    int64_t moment_every_ns, moment_due_ns;
    struct ledger *ledger;
};

/* 0, or an error with its text. */
int profile_begin(struct runtime *runtime);
/* The faults of this thread that are still a group become an event; what is left out elsewhere is counted. */
void profile_settle(struct profile *profile);
/* This thread has waited so long for a page.  Under the mutexes that a fault has. */
void profile_fault(struct runtime *runtime, uint32_t region, uint64_t waited_ns);
