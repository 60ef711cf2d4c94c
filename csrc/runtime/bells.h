/* bells - when to wake a peer that computes while a message lies there for it.
 *
 * A bell costs the sender a system call and the peer's core a switch.  The sender knows only the peer's past: it rings
 * at once if the peer's last message came from its service thread; else the peer probably waits in a loop, and is rung
 * when it has not answered for about two round trips.  Replies, grants and departures are not rung, since their
 * receiver waits; the departures of a collection are, and so are the receivers of bulk transfers for which a thread
 * here waits.
 *
 * States of a peer: nothing to ring -> due at ring_at_ns -> rung up to 5 times, ever later -> nothing to ring.  A
 * message of the peer ends all that.
 *
 * Invariant: runtime->rings_due counts the peers with ring_at_ns.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct runtime;
struct message;

/* 0, or -1 where there is no memory. */
int bells_open(struct runtime *runtime);

/* A message of this kind and urgency (enum ring) goes to the peer. */
void bells_sending(struct runtime *runtime, int peer, uint8_t kind, uint8_t ring);
/* A thread here waits until pages have been sent, and their receivers may compute: note them, under both mutexes, */
void bells_mark_receivers(struct runtime *runtime);
/* and ring them. */
void bells_ring_receivers(struct runtime *runtime);
/* A message of the peer has come. */
void bells_heard_from(struct runtime *runtime, int peer, bool by_service);

/* Ring the peers whose time has come: by a thread that waits for the answers. */
void bells_ring_due(struct runtime *runtime, int64_t now_ns);
/* The same where no thread waits for the answers: no bell is repeated. */
void bells_ring_once(struct runtime *runtime, int64_t now_ns);
