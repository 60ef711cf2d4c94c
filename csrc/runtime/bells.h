/* bells - when to wake a node whose processes compute while a message lies there for one of them.
 *
 * A bell costs the sender a system call and the receiver's core a switch.  The sender knows only the node's past: it
 * rings at once if the node's last message came from a service thread, and named no process that polls; else one of its
 * processes probably waits in a loop, and is rung when the node has not answered for about two round trips.  Replies,
 * grants and departures are not rung, since their receiver waits; the departures of a collection are, and so are the
 * receivers of bulk transfers for which a thread here waits.
 *
 * States of a node: nothing to ring -> due at ring_at_ns -> rung up to 5 times, ever later -> nothing to ring.  A
 * message of the node ends all that; but it need not be the answer, so where a thread waits for one it begins anew.
 *
 * Invariant: runtime->rings_due counts the nodes with ring_at_ns.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol/base/vector.h"

struct runtime;

/* 0, or -1 where there is no memory. */
int bells_open(struct runtime *runtime);

/* A message of this kind and urgency (enum ring) goes to the rank. */
void bells_sending(struct runtime *runtime, int rank, uint8_t kind, uint8_t ring);
/* A thread here waits until pages have been sent, and their receivers may compute: note them, under both mutexes, */
void bells_mark_receivers(struct runtime *runtime);
/* and ring them. */
void bells_ring_receivers(struct runtime *runtime);
/* A message of the node has come: all its processes compute, or one may poll. */
void bells_heard_from(struct runtime *runtime, node_id node, bool computes);

/* A thread here waits for an answer of the node.  Something else that the node sent may have ended its bell. */
void bells_await(struct runtime *runtime, node_id node, int64_t now_ns);

/* Ring the nodes whose time has come: by a thread that waits for the answers. */
void bells_ring_due(struct runtime *runtime, int64_t now_ns);
/* The same where no thread waits for the answers: no bell is repeated. */
void bells_ring_once(struct runtime *runtime, int64_t now_ns);
