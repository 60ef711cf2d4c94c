/* Theory of operation.
 *
 * A node is driven from two sides, by threads and by messages.  Both end in node_settle.
 *
 * Consistency rests on three things.  Before a node tells others anything, it closes its interval: the notices name the
 * pages that it opened for writing (sync/release.c).  The receiver applies the notices: they raise the pages'
 * `need` and take their protection away (sync/notices.c).  And at the departure of a meeting all nodes choose the
 * owners of the written pages from the same list (sync/cut.c).
 */
#include "protocol/node/node.h"

#include "protocol/coherence/bulk.h"
#include "protocol/coherence/evict.h"
#include "protocol/coherence/changes.h"
#include "protocol/coherence/fetch.h"
#include "protocol/coherence/pin.h"
#include "protocol/coherence/preopened.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/reply.h"
#include "protocol/coherence/serve.h"
#include "protocol/coherence/writes.h"
#include "protocol/node/check.h"
#include "protocol/node/departure.h"
#include "protocol/node/grant.h"
#include "protocol/page/accesses.h"
#include "protocol/page/interval.h"
#include "protocol/page/region.h"
#include "protocol/predict/prefetch.h"
#include "protocol/predict/update.h"
#include "protocol/sync/collection.h"
#include "protocol/sync/counter.h"
#include "protocol/sync/event.h"
#include "protocol/sync/habit.h"
#include "protocol/sync/lock.h"
#include "protocol/sync/meeting.h"
#include "protocol/sync/roll.h"
#include "protocol/sync/trail.h"

/* ---- life ---------------------------------------------------------------------------------------------------- */

/* A node with the state of all layers, in one block. */
struct whole {
    struct node node;
    struct regions regions;
    struct accesses accesses;
    struct protection protection;
    struct changes changes;
    struct pins pins;
    struct writes writes;
    struct preopened preopened;
    struct bulk bulk;
    struct cache cache;
    struct fetches fetches;
    struct update_set updates;
    struct prefetches prefetches;
    struct locks locks;
    struct counters counters;
    struct flags flags;
    struct habits habits;
    struct meeting meetings[MEETING_CLASSES];
    struct roll roll;
};

static void join(struct whole *whole)
{
    struct node *node = &whole->node;
    node->regions = &whole->regions;
    node->accesses = &whole->accesses;
    node->protection = &whole->protection;
    node->changes = &whole->changes;
    node->pins = &whole->pins;
    node->writes = &whole->writes;
    node->preopened = &whole->preopened;
    node->bulk = &whole->bulk;
    node->cache = &whole->cache;
    node->fetches = &whole->fetches;
    node->updates = &whole->updates;
    node->prefetches = &whole->prefetches;
    node->locks = &whole->locks;
    node->counters = &whole->counters;
    node->flags = &whole->flags;
    node->habits = &whole->habits;
    node->meetings = whole->meetings;
    node->roll = &whole->roll;
}

struct node *node_new(const struct node_options *options, const struct port *port)
{
    struct pool pool;
    pool_init(&pool, port);
    struct whole *whole = pool_take_zeroed(&pool, sizeof *whole);
    struct node *node = &whole->node;
    join(whole);
    node->pool = pool;
    node->port = port;
    node->number = options->number;
    node->spaces = options->spaces;
    node->size = options->size;
    node->options = *options;
    node->policy = options->policy;
    size_t size = (size_t)options->size;
    node->vt = pool_take_zeroed(&node->pool, size * sizeof *node->vt);
    node->cut = pool_take_zeroed(&node->pool, size * sizeof *node->cut);
    node->logs = pool_take_zeroed(&node->pool, size * sizeof *node->logs);
    node->outbox_end = &node->outbox;
    node->to_self_end = &node->to_self;
    node->deferred_end = &node->deferred;
    node->stats = pool_take_zeroed(&node->pool, node->spaces * sizeof *node->stats);
    meeting_init(node);
    regions_init(node->regions, &node->pool, node->spaces);
    node->pool.persistent_bytes = node->pool.bytes_used;
    node->collection.threshold_bytes = options->budget_bytes;
    return node;
}

static void free_messages(struct node *node, struct message *message)
{
    while (message) {
        struct message *next = message->next;
        message_release(message, &node->pool);
        message = next;
    }
}

static void give_array(struct node *node, void *array, uint32_t capacity, size_t element_bytes)
{
    if (array)
        pool_give(&node->pool, array, capacity * element_bytes);
}

void node_enter(struct node *node, const struct port *port, uint32_t space)
{
    context_assert(node, space < node->spaces, "node: a process enters that is not of this node");
    node->port = node->pool.port = port;
    node->me = space;
}

void node_free(struct node *node)
{
    size_t size = (size_t)node->size;
    while (node->fetches->first)
        fetch_cancel(node, node->fetches->first);
    prefetch_fini(node);
    free_messages(node, node->outbox);
    free_messages(node, node->to_self);
    free_messages(node, node->deferred);
    while (node->bulk->sending)
        message_free(node->bulk->sending, &node->pool);
    while (node->bulk->arriving)
        message_free(node->bulk->arriving, &node->pool);
    meeting_fini(node);
    for (uint32_t i = 0; i < node->regions->count; i++)
        pin_remove_region(node, node->regions->live[i]);
    locks_fini(node);
    flags_fini(node);
    habits_fini(node);
    counters_fini(node);
    for (size_t q = 0; q < size; q++)
        interval_forget(&node->logs[q], &node->pool);
    regions_fini(node->regions, &node->pool);
    accesses_fini(node);
    give_array(node, node->writes->dirty, node->writes->dirty_capacity, sizeof(struct page *));
    if (node->changes->log)
        pool_give_persistent(&node->pool, node->changes->log, node->changes->kept * sizeof *node->changes->log);
    if (node->cache->queue)
        pool_give_persistent(&node->pool, node->cache->queue, node->cache->capacity * sizeof(struct page *));
    give_array(node, node->preopened->pages, node->preopened->capacity, sizeof(struct page *));
    give_array(node, node->updates->pages, node->updates->capacity, sizeof(struct page *));
    pool_give(&node->pool, node->stats, node->spaces * sizeof *node->stats);
    pool_give(&node->pool, node->vt, size * sizeof *node->vt);
    pool_give(&node->pool, node->cut, size * sizeof *node->cut);
    pool_give(&node->pool, node->logs, size * sizeof *node->logs);
    struct pool pool = node->pool;
    pool_give(&pool, node, sizeof(struct whole));
    if (pool.bytes_used)
        pool.port->panic(pool.port->context, "pool: blocks were not given back");
    pool_fini(&pool);
}

/* ---- messages ----------------------------------------------------------------------------------------------- */

bool node_take_wake(struct node *node)
{
    bool wake = node->wake;
    node->wake = false;
    return wake;
}

static void dispatch(struct node *node, struct message *message)
{
    switch ((enum message_kind)message_header(message)->kind) {
    case MESSAGE_FETCH: serve_receive(node, message); return;
    case MESSAGE_REPLY: reply_receive(node, message); return;
    case MESSAGE_PUSH: update_receive_push(node, message); return;
    case MESSAGE_ACQUIRE: lock_receive_acquire(node, message); return;
    case MESSAGE_PASS: lock_receive_pass(node, message); return;
    case MESSAGE_GRANT: grant_receive(node, message); return;
    case MESSAGE_BUSY: lock_receive_busy(node, message); return;
    case MESSAGE_WITHDRAW: lock_receive_withdraw(node, message); return;
    case MESSAGE_WITHDRAWN: lock_receive_withdrawn(node, message); return;
    case MESSAGE_ARRIVE: meeting_receive_arrive(node, message); return;
    case MESSAGE_DEPART: departure_receive(node, message); return;
    case MESSAGE_ADD: counter_receive_add(node, message); return;
    case MESSAGE_SUM: counter_receive_sum(node, message); return;
    case MESSAGE_REQUEST_COLLECTION: collection_receive_request(node, message); return;
    case MESSAGE_COLLECT: collection_receive_collect(node, message); return;
    case MESSAGE_ROLL_CALL: roll_receive_call(node, message); return;
    case MESSAGE_ABSENT: roll_receive_absent(node, message); return;
    case MESSAGE_HELD: trail_receive_held(node, message); return;
    case MESSAGE_FORWARD: serve_receive_forward(node, message); return;
    case MESSAGE_AWAIT: event_receive_await(node, message); return;
    case MESSAGE_SET: event_receive_set(node, message); return;
    case MESSAGE_PUBLISH: grant_receive_publish(node, message); return;
    case MESSAGE_UNSUBSCRIBE: event_receive_unsubscribe(node, message); return;
    case MESSAGE_KINDS: break;
    }
    context_malformed(node, message);
}

/* A message that is deferred once more goes to the end of the queue, and so keeps its order. */
static void redeliver(struct node *node)
{
    while (node->redeliver) {
        struct message *message = node->deferred;
        node->redeliver = false;
        node->deferred = NULL;
        node->deferred_end = &node->deferred;
        for (struct message *next; message; message = next) {
            next = message->next;
            dispatch(node, message);
            message_release(message, &node->pool);
        }
    }
}

static void deliver(struct node *node, struct message *message)
{
    context_assert(node, message->holders > 0, "node: a message that was given back is delivered");
    message->next = NULL;
    dispatch(node, message);
    message_release(message, &node->pool);
    redeliver(node);
}

static void deliver_to_self(struct node *node)
{
    while (node->to_self) {
        struct message *message = node->to_self;
        node->to_self = message->next;
        if (!node->to_self)
            node->to_self_end = &node->to_self;
        deliver(node, message);
    }
}

void node_settle(struct node *node)
{
    if (node->delivering)
        return;
    node->delivering = true;
    do {
        deliver_to_self(node);
        collection_step(node);
        update_pump(node);
        evict_step(node);
    } while (node->to_self);
    node->delivering = false;
    context_assert(node, !node->to_self, "node: messages to this node itself are left");
    context_assert(node, !node->redeliver, "node: deferred messages are left that could be answered");
    if (node->prefetches->under_way)
        prefetch_step(node);
    protection_flush(node);
    if (node->policy.check_all)
        check_node(node);
}

struct message *node_take_outbox(struct node *node)
{
    if (!node->outbox && node->unfinished) {
        node->unfinished = false;
        node->redeliver = true;
        redeliver(node);
        node_settle(node);
    }
    struct message *first = node->outbox;
    node->outbox = NULL;
    node->outbox_end = &node->outbox;
    for (struct message *message = first; message; message = message->next) {
        struct message_header *header = message_header(message);
        header->sender = (uint32_t)node->number;
        header->stamp = node->stamp;
        header->bytes = message->wire_bytes;
    }
    return first;
}

static void check_header(const struct node *node, const struct message *message)
{
    const struct message_header *header = message_header(message);
    bool long_enough = message->wire_bytes >= sizeof *header;
    bool ours = long_enough && header->magic == MESSAGE_MAGIC && header->bytes == message->wire_bytes;
    bool of_a_node = message->peer >= 0 && message->peer < node->size;
    if (!ours || !of_a_node || header->sender != (uint32_t)message->peer || header->stamp >= STAMP_END)
        context_panic(node, "malformed message from rank %d (%llu bytes): not one of ours", message->peer,
                      (unsigned long long)message->wire_bytes);
}

void node_place(struct node *node, struct message *message)
{
    context_assert(node, !message->bulk_link, "node: a message is placed twice");
    check_header(node, message);
    if (message_header(message)->kind != MESSAGE_REPLY)
        context_malformed(node, message);
    message_link(&node->bulk->arriving, message);
    reply_place(node, message);
}

void node_receive(struct node *node, struct message *message)
{
    check_header(node, message);
    const struct message_header *header = message_header(message);
    if (header->stamp > node->stamp)
        node->stamp = header->stamp; /* R1 */
    deliver(node, message);
    node_settle(node);
}

void node_sent(struct node *node, struct message *message)
{
    context_assert(node, message->segment_count > 0, "node: a message without segments comes back");
    context_assert(node, message->bulk_link, "node: a message comes back that was not being sent");
    message_free(message, &node->pool);
    fetch_resume(node);
    node->wake = true;
    node_settle(node);
}
