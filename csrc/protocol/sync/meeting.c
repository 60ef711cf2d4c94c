/* An arrival is a tally of the ballots below a node of the tree, and the intervals that are known there, each once.
 *
 *   ARRIVE := uint32 class, tally, intervals
 *   DEPART := uint32 class, uint64 number, outcome, intervals        tally, outcome: ballot.h; intervals: notices.h
 */
#include "protocol/sync/meeting.h"

#include <string.h>

#include "protocol/coherence/bulk.h"
#include "protocol/coherence/preopened.h"
#include "protocol/page/region.h"
#include "protocol/sync/notices.h"
#include "protocol/sync/release.h"
#include "protocol/sync/tree.h"

static uint32_t forgotten_here(const struct node *node, uint32_t *ids)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < node->regions->grave_count && count < BALLOT_FORGOTTEN_MAX; i++) {
        const struct region_grave *grave = &node->regions->graves[i];
        if (grave->forgotten == context_spaces(node) && !bulk_uses(node, grave->offset, grave->bytes))
            ids[count++] = grave->id;
    }
    return count;
}

/* The ballot joins those of the node's other spaces, in the form of a message. */
static void cast(struct node *node, enum meeting_class which, const struct ballot *ballot)
{
    struct meeting *meeting = &node->meetings[which];
    struct message *before = meeting->own;
    struct tally tally = ballot_cast(node, ballot), others;
    if (before) {
        struct reader reader = reader_of(before);
        reader_u32(&reader);
        ballot_read(&reader, &others);
        ballot_merge(&tally, &others);
    }
    if (ballot->kind == MEETING_ALLOCATE)
        tally.forgotten_count = forgotten_here(node, tally.forgotten);
    meeting->own = message_new(&node->pool, node->number, MESSAGE_ARRIVE, RING_NEVER, 256);
    message_put_u32(meeting->own, &node->pool, which);
    ballot_put(node, meeting->own, &tally);
    if (before)
        message_release(before, &node->pool);
}

/* All nodes below have arrived: send the tally to the parent, or decide. */
static void pass_up(struct node *node, enum meeting_class which)
{
    struct meeting *meeting = &node->meetings[which];
    context_assert(node, meeting->state == MEETING_ARRIVED, "meeting: an arrival goes up that was not made");
    context_assert(node, meeting->own, "meeting: an arrival goes up twice");
    context_assert(node, !meeting->withheld, "meeting: an arrival goes up while a notice is owed");
    struct message *from[TREE_CHILDREN + 1] = {meeting->own};
    struct reader readers[TREE_CHILDREN + 1];
    uint32_t froms = 1;
    for (int k = 0; k < TREE_CHILDREN; k++) {
        bool has_child = tree_child(node->number, k, node->size) != NODE_NONE;
        context_assert(node, has_child == (meeting->children[k] != NULL),
                       "meeting: an arrival goes up before a child's");
        if (has_child)
            from[froms++] = meeting->children[k];
    }
    struct tally tally, other;
    for (uint32_t i = 0; i < froms; i++) {
        readers[i] = reader_of(from[i]);
        reader_u32(&readers[i]);
        ballot_read(&readers[i], i ? &other : &tally);
        if (readers[i].bad)
            context_malformed(node, from[i]);
        if (i)
            ballot_merge(&tally, &other);
    }
    bool root = node->number == 0;
    node_id to = root ? node->number : tree_parent(node->number);
    enum message_kind kind = root ? MESSAGE_DEPART : MESSAGE_ARRIVE;
    enum ring ring = !root && which == MEETING_COLLECTION ? RING_NOW : RING_NEVER;
    struct message *up = message_new(&node->pool, to, kind, ring, 512);
    message_put_u32(up, &node->pool, which);
    if (root) {
        message_put_u64(up, &node->pool, node->cuts + meeting_departures_due(node) + 1);
        ballot_decide(node, up, &tally);
    } else {
        ballot_put(node, up, &tally);
    }
    notices_merge(node, up, from, readers, froms);
    context_send(node, up);
    for (uint32_t i = 0; i < froms; i++)
        message_release(from[i], &node->pool);
    meeting->own = NULL;
    memset(meeting->children, 0, sizeof meeting->children);
}

static void pass_up_if_complete(struct node *node, enum meeting_class which)
{
    struct meeting *meeting = &node->meetings[which];
    if (meeting->state != MEETING_ARRIVED || !meeting->own || meeting->withheld)
        return;
    for (int k = 0; k < TREE_CHILDREN; k++)
        if (tree_child(node->number, k, node->size) != NODE_NONE && !meeting->children[k])
            return;
    pass_up(node, which);
}

static void finish_arrival(struct node *node, enum meeting_class which)
{
    context_assert(node, node->meetings[which].own, "meeting: an arrival is finished that was not made");
    release_interval(node, NODE_NONE);
    notices_put(node, node->meetings[which].own, &(struct vector){0});
    pass_up_if_complete(node, which);
}

void meeting_resume(struct node *node)
{
    struct meeting *meeting = &node->meetings[MEETING_THREADS];
    if (!meeting->withheld)
        return;
    context_assert(node, meeting->state == MEETING_ARRIVED, "meeting: an arrival is withheld that was not made");
    context_assert(node, node->collection.phase == COLLECTION_IDLE,
                   "meeting: a withheld arrival goes up during the collection");
    meeting->withheld = false;
    finish_arrival(node, MEETING_THREADS);
}

void meeting_arrive(struct node *node, enum meeting_class which, const struct ballot *ballot)
{
    struct meeting *meeting = &node->meetings[which];
    uint64_t all = which == MEETING_COLLECTION ? 1 : context_spaces(node),
             me = which == MEETING_COLLECTION ? 1 : (uint64_t)1 << node->me;
    if ((meeting->joined | meeting->leaving) & me)
        context_panic(node, "meeting: arrived at %s while another is under way", ballot_kind_name(ballot->kind));
    context_event(node, EVENT_ARRIVE, (uint64_t)ballot->kind, tree_parent(node->number));
    context_assert(node, meeting->state != MEETING_ARRIVED, "meeting: a space arrives where all have");
    context_assert(node, !meeting->withheld, "meeting: an arrival of the last meeting is withheld");
    context_assert(node, (which == MEETING_COLLECTION) == (ballot->kind == MEETING_COLLECT),
                   "meeting: a call of the other class");
    cast(node, which, ballot);
    meeting->joined |= me;
    if (meeting->joined != all)
        return;
    context_assert(node, !meeting->leaving, "meeting: a space arrives and has not taken the last departure");
    meeting->joined = 0;
    meeting->state = MEETING_ARRIVED;
    meeting->withheld = which == MEETING_THREADS && preopened_owing(node);
    if (!meeting->withheld)
        finish_arrival(node, which);
}

void meeting_receive_arrive(struct node *node, struct message *message)
{
    struct reader reader = reader_of(message);
    uint32_t which = reader_u32(&reader);
    int k = (int)(message->peer - (node->number * TREE_CHILDREN + 1));
    bool is_child = k >= 0 && k < TREE_CHILDREN;
    if (reader.bad || which >= MEETING_CLASSES || !is_child || node->meetings[which].children[k])
        context_malformed(node, message);
    message->holders++;
    node->meetings[which].children[k] = message;
    node->meetings[which].child_ranks[k] = message->rank;
    pass_up_if_complete(node, which);
}

void meeting_forward(struct node *node, const struct message *message, enum meeting_class which)
{
    context_assert(node, node->meetings[which].state == MEETING_ARRIVED, "meeting: a departure before the arrival");
    context_assert(node, !node->meetings[which].own, "meeting: a departure before the arrival went up");
    for (int k = 0; k < TREE_CHILDREN; k++) {
        node_id child = tree_child(node->number, k, node->size);
        if (child == NODE_NONE)
            continue;
        struct reader body = reader_of(message);
        uint64_t bytes = reader_left(&body);
        enum ring ring = which == MEETING_COLLECTION ? RING_NOW : RING_NEVER;
        struct message *copy = message_new(&node->pool, child, MESSAGE_DEPART, ring, bytes);
        message_put_bytes(copy, &node->pool, reader_bytes(&body, bytes), bytes);
        copy->rank = node->meetings[which].child_ranks[k];
        context_send(node, copy);
    }
}

void meeting_depart(struct node *node, enum meeting_class which)
{
    struct meeting *meeting = &node->meetings[which];
    meeting->state = which == MEETING_COLLECTION ? MEETING_IDLE : MEETING_DEPARTED;
    meeting->leaving = which == MEETING_COLLECTION ? 0 : context_spaces(node);
    meeting->passed++;
}

bool meeting_take(struct node *node, enum meeting_class which)
{
    struct meeting *meeting = &node->meetings[which];
    uint64_t me = (uint64_t)1 << node->me;
    if (!(meeting->leaving & me))
        return false;
    context_assert(node, which == MEETING_THREADS, "meeting: a thread takes a departure of the collection");
    context_assert(node, meeting->state == MEETING_DEPARTED, "meeting: a departure is taken that was not made");
    meeting->leaving &= ~me;
    node->stats[node->me].barriers++;
    if (!meeting->leaving)
        meeting->state = MEETING_IDLE;
    return true;
}

bool meeting_will_make(const struct node *node, uint32_t number, uint32_t next)
{
    return number == next && node->meetings[MEETING_THREADS].state == MEETING_ARRIVED;
}

uint64_t meeting_departures_due(const struct node *node)
{
    uint64_t count = 0;
    for (int which = 0; which < MEETING_CLASSES; which++)
        count += node->meetings[which].state == MEETING_ARRIVED && !node->meetings[which].own;
    return count;
}
