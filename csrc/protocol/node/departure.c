/* The acquire side of a meeting: notices, then the cut, then the outcome of the meeting. */
#include "protocol/node/departure.h"

#include <string.h>

#include "protocol/coherence/alone.h"
#include "protocol/coherence/cache.h"
#include "protocol/coherence/changes.h"
#include "protocol/coherence/fetch.h"
#include "protocol/coherence/pin.h"
#include "protocol/coherence/preopened.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/writes.h"
#include "protocol/node/check.h"
#include "protocol/node/dice.h"
#include "protocol/page/accesses.h"
#include "protocol/page/region.h"
#include "protocol/predict/update.h"
#include "protocol/sync/collection.h"
#include "protocol/sync/cut.h"
#include "protocol/sync/meeting.h"
#include "protocol/sync/notices.h"

/* Callers have checked their arguments; arguments from the wire are checked again. */
static bool can_carry_out(const struct node *node, const struct variant *agreed)
{
    if (agreed->kind != MEETING_ALLOCATE)
        return true;
    uint64_t page_bytes = agreed->numbers[1], granule = node->port->granule_bytes, value_bytes = agreed->value.count;
    bool power_of_two = (page_bytes & (page_bytes - 1)) == 0;
    bool value_repeats = value_bytes == 0 || (value_bytes <= granule && granule % value_bytes == 0);
    return page_bytes >= granule && power_of_two && value_repeats;
}

/* It comes down the tree, and not before this node's own arrival has gone up.  It may overtake the departure of the
 * other class, and no further one. */
static bool is_due(const struct node *node, const struct message *message, uint32_t which, uint64_t number)
{
    node_id above = node->number ? tree_parent(node->number) : node->number;
    return which < MEETING_CLASSES && message->peer == above && node->meetings[which].state == MEETING_ARRIVED &&
           !node->meetings[which].own && number > node->cuts && number - node->cuts <= meeting_departures_due(node);
}

/* Make the region inaccessible and forget all that this node knows of it. */
static void remove_region(struct node *node, struct region *region)
{
    context_assert(node, region_find(node->regions, region->id) == region, "departure: a region is freed twice");
    protection_remove_region(node, region);
    accesses_remove_region(node, region);
    writes_remove_region(node, region);
    preopened_remove_region(node, region);
    update_remove_region(node, region);
    pin_remove_region(node, region);
    fetch_remove_region(node, region);
    cache_remove_region(node, region);
    changes_add_region(node, region->id);
    region_remove(node->regions, &node->pool, region);
    node->wake = true;
}

static void allocate(struct node *node, struct meeting *meeting, const struct variant *agreed)
{
    char name[REGION_NAME_BYTES];
    ballot_copy_text(name, sizeof name, agreed->name);
    struct region *region = region_add(node->regions, &node->pool, agreed->numbers[0], agreed->numbers[1],
                                       agreed->value.bytes, agreed->value.count, name);
    meeting->result = region ? region->id : 0;
    if (!region)
        meeting->outcome = MEETING_NO_SPACE;
    else if (alone_is(node))
        changes_add_region(node, region->id);
}

/* All nodes do the same in the same order, so all choose the same numbers and addresses. */
static void carry_out(struct node *node, struct meeting *meeting, const struct outcome *outcome)
{
    const struct variant *agreed = &outcome->agreed;
    for (uint32_t i = 0; i < outcome->forgotten_count; i++)
        region_release(node->regions, &node->pool, outcome->forgotten[i]);
    switch ((enum meeting_kind)agreed->kind) {
    case MEETING_ALLOCATE: allocate(node, meeting, agreed); break;
    case MEETING_FREE: {
        struct region *region = region_find(node->regions, (region_id)agreed->numbers[0]);
        if (region)
            remove_region(node, region);
        break;
    }
    case MEETING_RECOUNT: meeting->result = (uint32_t)agreed->numbers[0]; break;
    case MEETING_BARRIER:
    case MEETING_FINALIZE:
    case MEETING_COLLECT:
    case MEETING_KINDS: break;
    }
}

void departure_receive(struct node *node, struct message *message)
{
    struct reader reader = reader_of(message);
    struct outcome outcome;
    uint32_t which = reader_u32(&reader);
    uint64_t number = reader_u64(&reader);
    ballot_read_outcome(&reader, &outcome);
    bool agreed = outcome.outcome == MEETING_AGREED;
    if (reader.bad || !is_due(node, message, which, number) || (agreed && !can_carry_out(node, &outcome.agreed)))
        context_malformed(node, message);
    if (number > node->cuts + 1) {
        context_defer(node, message);
        return;
    }
    if (node->forwarded < number) {
        node->forwarded = number;
        node->unfinished = meeting_forward(node, message, (enum meeting_class)which) && !node->options.without_forwards;
        if (node->unfinished) {
            context_defer(node, message);
            return;
        }
    }

    struct reader intervals = reader;
    notices_apply(node, message, &reader);
    cut_pass(node, message, intervals, which == MEETING_THREADS);

    struct meeting *meeting = &node->meetings[which];
    meeting->outcome = (enum meeting_outcome)outcome.outcome;
    ballot_copy_text(meeting->text, sizeof meeting->text, outcome.text);
    context_event(node, EVENT_DEPART, outcome.agreed.kind, message->peer);
    if (which == MEETING_COLLECTION) {
        meeting_depart(node, MEETING_COLLECTION);
        collection_departed(node, outcome.root_stamp);
    } else {
        if (outcome.outcome != MEETING_MADE_DIFFERS)
            meeting->made = outcome.agreed.numbers[BALLOT_MADE];
        if (agreed)
            carry_out(node, meeting, &outcome);
        dice_open_pages(node);
    }

    update_bring(node);
    node->redeliver = true; /* messages of nodes that departed before this one */
    if (which == MEETING_THREADS)
        meeting_depart(node, MEETING_THREADS);
    context_assert(node,
                   alone_is(node) ||
                       node->cuts == node->meetings[MEETING_THREADS].passed + node->meetings[MEETING_COLLECTION].passed,
                   "departure: a departure that was no cut (R7)");
    if (node->policy.check_meetings)
        check_node(node);
    node->wake = true;
}
