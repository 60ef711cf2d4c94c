/* An arrival is a tally of the ballots below a node of the tree, and the intervals that are known there, each once.
 *
 *   ARRIVE := uint32 class, tally, intervals
 *   DEPART := uint32 class, uint64 number, outcome, intervals        tally, outcome: ballot.h; intervals: notices.h
 */
#include "protocol/sync/meeting.h"

#include <string.h>

#include "protocol/coherence/alone.h"
#include "protocol/coherence/bulk.h"
#include "protocol/coherence/preopened.h"
#include "protocol/coherence/push.h"
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

static struct message *put_tally(struct node *node, enum meeting_class which, const struct tally *tally)
{
    struct message *message = message_new(&node->pool, node->number, MESSAGE_ARRIVE, RING_NEVER, 256);
    message_put_u32(message, &node->pool, which);
    ballot_put(node, message, tally);
    return message;
}

static void merge(struct tally *into, const struct tally *other)
{
    if (into->variant_count)
        ballot_merge(into, other);
    else
        *into = *other;
}

/* The ballots of all spaces.  Their texts stay in the seats' messages. */
static struct tally gather(struct node *node, const struct meeting *meeting)
{
    struct tally tally = {.variant_count = 0}, other, barriers = {.variant_count = 0};
    for (uint32_t space = 0; space < node->spaces; space++) {
        const struct seat *seat = &meeting->seats[space];
        if (!seat->ballot) {
            ballot_count_barrier(&barriers, seat->rank, meeting->made);
            continue;
        }
        struct reader reader = reader_of(seat->ballot);
        reader_u32(&reader);
        ballot_read(&reader, &other);
        merge(&tally, &other);
    }
    if (barriers.variant_count)
        merge(&tally, &barriers);
    if (tally.variants[0].kind == MEETING_ALLOCATE)
        tally.forgotten_count = forgotten_here(node, tally.forgotten);
    return tally;
}

static void drop_ballots(struct node *node, struct meeting *meeting)
{
    for (uint32_t space = 0; meeting->seats && space < node->spaces; space++) {
        if (meeting->seats[space].ballot)
            message_release(meeting->seats[space].ballot, &node->pool);
        meeting->seats[space].ballot = NULL;
    }
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
    notices_merge(node, up, from, readers, froms, which == MEETING_THREADS);
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
    release_interval(node);
    push_send(node, NODE_NONE, 0);
    notices_put_all(node, node->meetings[which].own, which == MEETING_THREADS);
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

void meeting_init(struct node *node)
{
    node->meetings[MEETING_THREADS].seats = pool_take_zeroed(&node->pool, node->spaces * sizeof(struct seat));
}

void meeting_fini(struct node *node)
{
    for (int which = 0; which < MEETING_CLASSES; which++) {
        struct meeting *meeting = &node->meetings[which];
        drop_ballots(node, meeting);
        if (meeting->own)
            message_release(meeting->own, &node->pool);
        for (int k = 0; k < TREE_CHILDREN; k++)
            if (meeting->children[k])
                message_release(meeting->children[k], &node->pool);
    }
    pool_give(&node->pool, node->meetings[MEETING_THREADS].seats, node->spaces * sizeof(struct seat));
}

bool meeting_needs_no_ballot(const struct node *node, const struct ballot *ballot)
{
    return ballot->kind == MEETING_BARRIER && ballot->numbers[BALLOT_MADE] == node->meetings[MEETING_THREADS].made;
}

void meeting_bring(struct node *node, const struct ballot *ballot)
{
    struct seat *seat = &node->meetings[MEETING_THREADS].seats[node->me];
    context_assert(node, ballot->kind != MEETING_COLLECT, "meeting: a space brings a collection's ballot");
    context_assert(node, !meeting_needs_no_ballot(node, ballot), "meeting: a space brings a ballot that says nothing");
    context_assert(node, !seat->ballot, "meeting: a space brings a second ballot");
    struct tally tally = ballot_cast(node, ballot);
    seat->ballot = put_tally(node, MEETING_THREADS, &tally);
}

static bool all_at_barrier(const struct node *node)
{
    for (uint32_t space = 0; space < node->spaces; space++)
        if (node->meetings[MEETING_THREADS].seats[space].ballot)
            return false;
    return true;
}

enum meeting_join meeting_join(struct node *node, uint32_t space, uint32_t rank)
{
    struct meeting *meeting = &node->meetings[MEETING_THREADS];
    struct seat *seat = &meeting->seats[space];
    uint64_t me = (uint64_t)1 << space;
    if ((atomic_load(&meeting->joined) & me) || meeting_departed(node, space))
        context_panic(node, "meeting: rank %u joins while its last meeting is under way", rank);
    seat->rank = rank;
    if ((atomic_fetch_or(&meeting->joined, me) | me) != context_spaces(node))
        return MEETING_WAITS;
    if (!alone_is(node) || !all_at_barrier(node))
        return MEETING_ARRIVES;
    meeting->outcome = MEETING_AGREED;
    atomic_store(&meeting->joined, 0);
    atomic_fetch_add(&meeting->passed, 1);
    return MEETING_PASSES;
}

void meeting_arrive(struct node *node, enum meeting_class which)
{
    struct meeting *meeting = &node->meetings[which];
    context_assert(node, meeting->state != MEETING_ARRIVED, "meeting: a node arrives that has arrived");
    context_assert(node, !meeting->withheld, "meeting: an arrival of the last meeting is withheld");
    struct tally tally;
    if (which == MEETING_COLLECTION) {
        tally = ballot_cast(node, &(struct ballot){.kind = MEETING_COLLECT});
    } else {
        context_assert(node, meeting->joined == context_spaces(node), "meeting: a node arrives before its spaces");
        tally = gather(node, meeting);
        meeting->withheld = preopened_owing(node);
        atomic_store(&meeting->joined, 0);
    }
    meeting->own = put_tally(node, which, &tally);
    drop_ballots(node, meeting);
    context_event(node, EVENT_ARRIVE, tally.variants[0].kind, tree_parent(node->number));
    meeting->state = MEETING_ARRIVED;
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

bool meeting_forward(struct node *node, const struct message *message, enum meeting_class which)
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
    return tree_child(node->number, 0, node->size) != NODE_NONE;
}

void meeting_depart(struct node *node, enum meeting_class which)
{
    struct meeting *meeting = &node->meetings[which];
    meeting->state = MEETING_IDLE;
    atomic_fetch_add(&meeting->passed, 1);
}

bool meeting_departed(const struct node *node, uint32_t space)
{
    const struct meeting *meeting = &node->meetings[MEETING_THREADS];
    return meeting->seats[space].taken != atomic_load(&meeting->passed);
}

bool meeting_take(struct node *node, uint32_t space)
{
    struct meeting *meeting = &node->meetings[MEETING_THREADS];
    if (!meeting_departed(node, space))
        return false;
    meeting->seats[space].taken++;
    context_assert(node, !meeting_departed(node, space), "meeting: a space missed a departure");
    node->stats[space].barriers++;
    return true;
}

uint64_t meeting_departures_due(const struct node *node)
{
    uint64_t count = 0;
    for (int which = 0; which < MEETING_CLASSES; which++)
        count += node->meetings[which].state == MEETING_ARRIVED && !node->meetings[which].own;
    return count;
}
