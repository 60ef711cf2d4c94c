/* The acquire side of a lock, and of a flag. */
#include "protocol/node/grant.h"

#include "protocol/predict/update.h"
#include "protocol/sync/event.h"
#include "protocol/sync/lock.h"
#include "protocol/sync/meeting.h"
#include "protocol/sync/notices.h"

/* The sender's log no longer holds the notices that this node's own departure will bring (R7). */
static bool knows_later_cut(const struct node *node, const struct message *message, uint64_t cuts)
{
    /* No node can be further ahead than by the departures that this one has still to receive. */
    if (cuts > node->cuts && cuts - node->cuts > meeting_departures_due(node))
        context_malformed(node, message);
    return cuts > node->cuts;
}

void grant_receive(struct node *node, struct message *message)
{
    struct reader reader = reader_of(message);
    struct lock *lock = lock_find(node, reader_u32(&reader));
    uint64_t cuts = reader_u64(&reader);
    uint32_t released_by = node->options.races ? reader_u32(&reader) : UINT32_MAX;
    stamp released_at = node->options.races ? reader_u64(&reader) : 0;
    bool known = released_by == UINT32_MAX || (released_by < (uint32_t)node->size && released_at <= node->stamp);
    if (reader.bad || !known)
        context_malformed(node, message);
    if (knows_later_cut(node, message, cuts)) {
        context_defer(node, message);
        return;
    }
    if (!lock || lock->token || !lock->asked || lock->withdrawing)
        context_malformed(node, message);
    notices_apply(node, message, &reader);
    update_bring(node);
    context_event(node, EVENT_TOKEN, lock->id, message->peer);
    lock->released_by = (node_id)released_by;
    lock->released_at = released_at;
    lock_take_token(node, lock);
}

void grant_receive_publish(struct node *node, struct message *message)
{
    struct reader reader = reader_of(message);
    uint64_t number = reader_u64(&reader), cuts = reader_u64(&reader);
    struct reader told = reader;
    event_skip_told(node, message, &reader);
    if (event_overtook(node, message, number) || knows_later_cut(node, message, cuts)) {
        context_defer(node, message);
        return;
    }
    notices_apply(node, message, &reader);
    update_bring(node);
    event_take_told(node, message, told, number);
    event_count_unasked(node, message, number);
    node->redeliver |= number; /* a later one that came earlier */
    node->wake = true;
}
