/* shared - how a process gets at what the processes of a node share: struct shared (runtime.h) and the node, which lie
 * in the arena.
 *
 * Two mutexes: a process' own (progress.h) keeps its threads, its transport and its protections apart; the node's keeps
 * the processes of the node apart.
 *
 * Invariants
 *  1. A thread takes its process' mutex first, then the node's.  A fault of a node that is alone takes the second only
 *     (faults.c).
 *  2. A thread that has the node's mutex calls no MPI, and does not wait.
 *  3. Nothing here points to code, to a string or to a stack: those are of one process.
 *  4. node->port is that of the process that has the mutex (node_enter).
 */
#pragma once

#include "runtime/runtime.h"

/* Begin what the processes of a node share, in the arena.  0, or -1 where it has no room. */
int shared_begin(struct runtime *runtime);

/* All processes of the node, when the first one has made the node. */
void shared_join(struct runtime *runtime);

/* Take the node's mutex, for this process.  Its own is held, but for a fault of a node that is alone. */
void shared_lock(struct runtime *runtime);
bool shared_try(struct runtime *runtime);
void shared_unlock(struct runtime *runtime);

/* The rank that has the node's mutex, or -1; how often it has been taken so far.  Without a mutex. */
int shared_holder(struct runtime *runtime, unsigned *taken);

/* A block of the pool that this process needs no more: the node gets it back with the mutex. */
void shared_return(struct runtime *runtime, void *block, uint64_t bytes);
