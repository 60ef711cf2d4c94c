/* The acquire side of a lock. */
#include "protocol/node/grant.h"

#include "protocol/predict/update.h"
#include "protocol/sync/lock.h"
#include "protocol/sync/meeting.h"
#include "protocol/sync/notices.h"

void grant_receive(struct node *node, struct message *message)
{
    struct reader reader = reader_of(message);
    struct lock *lock = lock_find(node, reader_u32(&reader));
    uint64_t cuts = reader_u64(&reader);
    if (reader.bad)
        context_malformed(node, message);
    if (cuts > node->cuts) {
        /* No node can be further ahead than by the departures that this one has still to receive. */
        if (cuts - node->cuts > meeting_departures_due(node))
            context_malformed(node, message);
        /* The sender's log no longer holds the notices that this node's own departure will bring (R7). */
        context_defer(node, message);
        return;
    }
    if (!lock || lock->token || !lock->asked || lock->withdrawing)
        context_malformed(node, message);
    notices_apply(node, message, &reader);
    update_bring(node);
    context_event(node, EVENT_TOKEN, lock->id, message->peer);
    lock_take_token(node, lock);
}
