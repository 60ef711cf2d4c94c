/* waits - what the threads of a rank wait for, for the watchdog and for the trails of lock holders.  They lie in the
 * arena, so that each process of the node can say it of the others.
 *
 * States of a record: free (WAIT_NONE) -> being filled in (-1) -> waiting (its kind) -> free.  A call that returns at
 * the end of a slice frees its record, and takes up the same wait when the thread comes back.
 *
 * Readers have no mutex: a wait may end, and another begin in its place, while they look.  Each field is whole, but
 * they may be of two waits.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "protocol/base/types.h"

enum { WAITS_MAX = 4096 };

/* `kind` is written last and read first. */
struct wait {
    _Atomic int kind;            /* enum wait_kind */
    _Atomic uint64_t object;     /* offset of the page, number of the lock or counter, kind of the meeting */
    _Atomic int64_t since_ns;    /* when it began, slices before this one included */
    _Atomic int64_t slice_ns;    /* when this slice began */
    _Atomic int64_t reported_ns; /* last line about it */
    _Atomic uint32_t thread;     /* thread_number */
    _Atomic uint32_t beside;     /* more threads that this one waits for */
};

struct waits {
    struct wait records[WAITS_MAX];
    _Atomic int used; /* no record behind these has been used yet */
};

/* This thread begins to wait, or goes on. */
struct wait *waits_begin(struct waits *waits, enum wait_kind kind, uint64_t object);
/* Returns how long this slice was, in nanoseconds.  Not done: the thread will come back for the same. */
uint64_t waits_end(struct wait *wait, bool done);
/* When a slice of so many seconds is over; -1: never. */
int64_t waits_deadline_ns(const struct wait *wait, double slice_s);

/* What a thread waits for. */
enum wait_kind waits_of(const struct waits *waits, uint32_t thread, uint64_t *object);
