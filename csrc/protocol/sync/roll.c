/* Meetings are numbered by the departures before them.  A call that overtakes a departure, or is overtaken by one, is
 * about another meeting than the receiver's and is not answered; the next call is.
 *
 *   ROLL_CALL := uint64 meeting, uint32 caller, uint32 call
 *   ABSENT    := uint64 meeting, uint32 call, uint64 spaces
 */
#include "protocol/sync/roll.h"

#include "protocol/sync/meeting.h"

struct call {
    uint64_t meeting;
    node_id caller;
    uint32_t number;
};

static void send_call(struct node *node, node_id to, const struct call *call)
{
    context_assert(node, to != NODE_NONE, "roll: a call beyond the tree");
    context_assert(node, to != node->number, "roll: a call to this node itself");
    struct message *message = message_new(&node->pool, to, MESSAGE_ROLL_CALL, RING_NOW, 16);
    message_put_u64(message, &node->pool, call->meeting);
    message_put_u32(message, &node->pool, (uint32_t)call->caller);
    message_put_u32(message, &node->pool, call->number);
    context_send(node, message);
}

static void answer(struct node *node, const struct call *call)
{
    const struct meeting *meeting = &node->meetings[MEETING_THREADS];
    bool arrived = meeting->state == MEETING_ARRIVED;
    if (call->meeting != meeting->passed || (arrived && !meeting->own))
        return;                                                /* over, or not begun here, or all below have arrived */
    uint64_t absent = context_spaces(node) & ~meeting->joined; /* none: the last one is about to arrive */
    if (!arrived && absent && call->caller != node->number) {
        struct message *message = message_new(&node->pool, call->caller, MESSAGE_ABSENT, RING_NEVER, 24);
        message_put_u64(message, &node->pool, call->meeting);
        message_put_u32(message, &node->pool, call->number);
        message_put_u64(message, &node->pool, absent);
        context_send(node, message);
    }
    for (int k = 0; k < TREE_CHILDREN; k++) {
        node_id child = tree_child(node->number, k, node->size);
        if (child != NODE_NONE && !meeting->children[k])
            send_call(node, child, call);
    }
}

/* Some space of this node, or all, have arrived. */
static bool waits(const struct meeting *meeting)
{
    return meeting->joined || meeting->state == MEETING_ARRIVED;
}

void roll_call(struct node *node)
{
    const struct meeting *meeting = &node->meetings[MEETING_THREADS];
    if (!waits(meeting))
        return;
    context_assert(node, node->roll->meeting <= meeting->passed, "roll: the last call was about a later meeting");
    if (node->roll->meeting != meeting->passed)
        node->roll->absent = 0;
    node->roll->meeting = meeting->passed;
    node->roll->call++;
    struct call call = {.meeting = meeting->passed, .caller = node->number, .number = node->roll->call};
    if (node->number)
        send_call(node, tree_parent(node->number), &call);
    else
        answer(node, &call);
}

bool roll_known(const struct node *node)
{
    const struct meeting *meeting = &node->meetings[MEETING_THREADS];
    return node->roll->absent && node->roll->call - node->roll->answered <= 1 && waits(meeting) &&
           node->roll->meeting == meeting->passed;
}

void roll_receive_call(struct node *node, const struct message *message)
{
    struct reader reader = reader_of(message);
    struct call call = {.meeting = reader_u64(&reader)};
    uint32_t caller = reader_u32(&reader);
    call.caller = (node_id)caller;
    call.number = reader_u32(&reader);
    bool down = node->number && message->peer == tree_parent(node->number);
    bool up = message->peer && tree_parent(message->peer) == node->number;
    if (!reader_ended(&reader) || caller >= (uint32_t)node->size || !(up || down))
        context_malformed(node, message);
    if (up && node->number)
        send_call(node, tree_parent(node->number), &call);
    else
        answer(node, &call);
}

void roll_receive_absent(struct node *node, const struct message *message)
{
    struct reader reader = reader_of(message);
    struct roll *roll = node->roll;
    uint64_t meeting = reader_u64(&reader);
    uint32_t call = reader_u32(&reader);
    uint64_t spaces = reader_u64(&reader);
    if (!reader_ended(&reader) || !spaces)
        context_malformed(node, message);
    if (meeting != roll->meeting || call != roll->call)
        return; /* it answers an earlier call */
    if (roll->answered != call)
        roll->absent = 0;
    roll->answered = call;
    if (roll->absent < ROLL_NAMED_MAX)
        roll->named[roll->absent] = (struct absent){.node = message->peer, .spaces = spaces};
    roll->absent++;
}
