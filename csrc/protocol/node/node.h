/* node - the face of the protocol: how a node is made, how messages come in and go out.
 *
 * Threads come in through access.h (faults, pins) and the calls of sync/ (locks, counters, meetings, roll calls,
 * trails) and prefetch.h; messages come in through node_receive.  The caller holds one mutex around every call, and
 * ends every series of calls from outside with node_settle where the call does not do it itself.
 *
 * A thread that waits asks again after `wake`: access_fault, lock_poll, counter_poll, meeting_take are all questions
 * that can be repeated.  node_settle delivers the messages of a node to itself.
 *
 * No order of messages is needed, not of one sender's either (docs/wire.md says why, for each kind).
 */
#pragma once

#include "protocol/base/context.h"

/* The calling process enters first, as space 0.  Ports stay where they are. */
struct node *node_new(const struct node_options *options, const struct port *port);
/* The caller has the mutex: from here on the node acts for the space whose port this is. */
void node_enter(struct node *node, const struct port *port, uint32_t space);
void node_free(struct node *node);

/* A message of another node; the node takes it. */
void node_receive(struct node *node, struct message *message);
/* The wire of a message of another node has come, and segments travel behind it: says where they go.  When they are
 * there, node_receive takes the message.  Messages are placed and received in any order, those of one sender, too. */
void node_place(struct node *node, struct message *message);
/* All bytes of a message with segments, which came out of the outbox, have been taken; the node takes it back. */
void node_sent(struct node *node, struct message *message);

/* The messages to send, in order; the caller takes them, and asks until there are none: when the copies of a departure
 * have been taken, the next call takes the departure in. */
struct message *node_take_outbox(struct node *node);
bool node_take_wake(struct node *node);
/* Deliver what the node sent to itself, take the next step of a collection, tell the kernel of changed protections.
 * The functions of sync/ that threads call do not do it themselves: call it after them. */
void node_settle(struct node *node);
