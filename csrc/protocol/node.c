/* Theory of operation.
 *
 * A node is driven from two sides.  Threads come in through access_fault, lock_*, counter_*, meeting_*; messages come in
 * through node_receive.  Both end in node_settle, which delivers what the node sent to itself, takes the next step of a
 * collection, and tells the kernel of changed protections.  Whoever waits repeats its question after `wake`.
 *
 * Consistency rests on three things (notices.c).  release_interval names the pages that were opened for writing since
 * the last one.  notices_apply takes in other nodes' intervals: it raises the pages' `need` and takes their protection away.
 * And cut_pass, at the departure of a meeting, chooses the owners of what was written.
 */
#include "protocol/node.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- life ---------------------------------------------------------------------------------------------------- */

struct node *node_new(const struct node_options *options, const struct port *port)
{
    struct pool pool;
    pool_init(&pool, port);
    struct node *node = pool_take_zeroed(&pool, sizeof *node);
    node->pool = pool;
    node->port = *port;
    node->pool.port = &node->port;
    node->rank = options->rank;
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
    regions_init(&node->regions, &node->pool);
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

static void free_meetings(struct node *node)
{
    for (int which = 0; which < MEETING_CLASSES; which++) {
        struct meeting *meeting = &node->meetings[which];
        if (meeting->own)
            message_release(meeting->own, &node->pool);
        for (int k = 0; k < TREE_CHILDREN; k++)
            if (meeting->children[k])
                message_release(meeting->children[k], &node->pool);
    }
}

void node_free(struct node *node)
{
    size_t size = (size_t)node->size;
    while (node->fetches)
        fetch_cancel(node, node->fetches);
    prefetch_fini(node);
    free_messages(node, node->outbox);
    free_messages(node, node->to_self);
    free_messages(node, node->deferred);
    while (node->sending)
        message_free(node->sending, &node->pool);
    while (node->arriving)
        message_free(node->arriving, &node->pool);
    free_meetings(node);
    for (uint32_t i = 0; i < node->lock_count; i++)
        lock_fini(node, node->locks[i]);
    for (struct counter_request *request = node->counter_requests, *next; request; request = next) {
        next = request->next;
        pool_give(&node->pool, request, sizeof *request);
    }
    for (size_t q = 0; q < size; q++)
        interval_forget(&node->logs[q], &node->pool);
    regions_fini(&node->regions, &node->pool);
    if (node->locks)
        pool_give(&node->pool, node->locks, node->lock_capacity * sizeof(struct lock *));
    if (node->counters)
        pool_give(&node->pool, node->counters, node->counter_capacity * sizeof *node->counters);
    if (node->dirty)
        pool_give(&node->pool, node->dirty, node->dirty_capacity * sizeof(struct page *));
    if (node->opened)
        pool_give(&node->pool, node->opened, node->opened_capacity * sizeof(struct page *));
    if (node->wanted.pages)
        pool_give(&node->pool, node->wanted.pages, node->wanted.capacity * sizeof(struct page *));
    pool_give(&node->pool, node->vt, size * sizeof *node->vt);
    pool_give(&node->pool, node->cut, size * sizeof *node->cut);
    pool_give(&node->pool, node->logs, size * sizeof *node->logs);
    struct pool pool = node->pool;
    struct port port = node->port;
    pool.port = &port;
    pool_give(&pool, node, sizeof *node);
    if (pool.bytes_used)
        port.panic(port.context, "pool: blocks were not given back");
    pool_fini(&pool);
}

/* ---- last words ---------------------------------------------------------------------------------------------- */

const char *context_event_name(enum event_kind kind)
{
    static const char *const names[EVENT_KINDS] = {
        "none",  "fault read", "fault write", "fetch", "serve", "install", "apply", "seal",   "open",   "stale",
        "close", "acquire",    "release",     "ask",   "pass",  "grant",   "token", "arrive", "depart", "collect",
    };
    return kind < EVENT_KINDS ? names[kind] : "unknown";
}

void context_event(struct node *node, enum event_kind kind, const struct page *page, uint64_t other, node_id peer)
{
    node->events[node->event_count++ % EVENTS_KEPT] = (struct event){
        .stamp = node->stamp,
        .page = page ? page_index(page) : other,
        .region = page ? page_region(page)->id : 0,
        .peer = peer,
        .kind = kind,
    };
}

void context_panic(const struct node *node, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    node->port.panic(node->port.context, text);
    __builtin_trap(); /* a port that returns would let a broken protocol go on */
}

void context_malformed(const struct node *node, const struct message *message)
{
    const struct message_header *header = message_header(message);
    context_panic(node, "malformed message of kind %u from rank %d (%llu bytes)", header->kind, message->peer,
                  (unsigned long long)message->wire_bytes);
}

bool context_chance(struct node *node, uint32_t permille)
{
    if (permille == 0)
        return false;
    uint32_t x = node->policy.random_state; /* xorshift (Marsaglia 2003) */
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    node->policy.random_state = x;
    return x % 1000 < permille;
}

/* ---- clock, outbox ------------------------------------------------------------------------------------------- */

stamp context_tick(struct node *node)
{
    return ++node->stamp;
}

void context_send(struct node *node, struct message *message)
{
    message->next = NULL;
    struct message ***end = message->peer == node->rank ? &node->to_self_end : &node->outbox_end;
    **end = message;
    *end = &message->next;
}

struct message *node_take_outbox(struct node *node)
{
    struct message *first = node->outbox;
    node->outbox = NULL;
    node->outbox_end = &node->outbox;
    for (struct message *message = first; message; message = message->next) {
        struct message_header *header = message_header(message);
        header->sender = (uint32_t)node->rank;
        header->stamp = node->stamp;
        header->bytes = message->wire_bytes;
    }
    return first;
}

bool node_take_wake(struct node *node)
{
    bool wake = node->wake;
    node->wake = false;
    return wake;
}

/* ---- regions -------------------------------------------------------------------------------------------------- */

void node_remove_region(struct node *node, struct region *region)
{
    protection_remove_region(node, region);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < node->dirty_count; i++)
        if (page_region(node->dirty[i]) != region)
            node->dirty[kept++] = node->dirty[i];
    node->dirty_count = kept;
    preopened_remove_region(node, region);
    update_remove_region(node, region);
    node->pinned_last = NULL;
    for (struct page **link = &node->pinned; *link;) {
        if (page_region(*link) == region)
            *link = (*link)->extension->pin_next;
        else
            link = &(*link)->extension->pin_next;
    }
    for (struct fetch *fetch = node->fetches, *next; fetch; fetch = next) {
        next = fetch->next;
        if (page_region(fetch->page) == region)
            fetch_cancel(node, fetch);
    }
    region_remove(&node->regions, &node->pool, region);
    node->wake = true;
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

static void dispatch(struct node *node, struct message *message)
{
    switch ((enum message_kind)message_header(message)->kind) {
    case MESSAGE_FETCH: serve_receive(node, message); return;
    case MESSAGE_REPLY: reply_receive(node, message); return;
    case MESSAGE_PUSH: pushed_receive(node, message); return;
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
    case MESSAGE_REQUEST_COLLECTION:
        if (message->wire_bytes > sizeof(struct message_header))
            break;
        collection_receive_request(node);
        return;
    case MESSAGE_COLLECT:
        if (message->wire_bytes > sizeof(struct message_header))
            break;
        collection_receive_collect(node);
        return;
    case MESSAGE_ROLL_CALL: roll_receive_call(node, message); return;
    case MESSAGE_ABSENT: roll_receive_absent(node, message); return;
    case MESSAGE_HELD: trail_receive_held(node, message); return;
    case MESSAGE_KINDS: break;
    }
    context_malformed(node, message);
}

bool node_not_made_yet(const struct node *node, uint32_t number, uint32_t next)
{
    return number == next && node->meetings[MEETING_THREADS].state == MEETING_ARRIVED;
}

void context_defer(struct node *node, struct message *message)
{
    message->holders++;
    message->next = NULL;
    *node->deferred_end = message;
    node->deferred_end = &message->next;
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
    } while (node->to_self);
    node->delivering = false;
    if (node->prefetches.under_way)
        prefetch_step(node);
    protection_flush(node);
    if (node->policy.check_all)
        check_node(node);
}

static void check_header(const struct node *node, const struct message *message)
{
    const struct message_header *header = message_header(message);
    if (message->wire_bytes < sizeof *header || header->magic != MESSAGE_MAGIC ||
        header->bytes != message->wire_bytes || header->sender != (uint32_t)message->peer || message->peer < 0 ||
        message->peer >= node->size || header->stamp >= STAMP_END)
        context_panic(node, "malformed message from rank %d (%llu bytes): not one of ours", message->peer,
                      (unsigned long long)message->wire_bytes);
}

void node_place(struct node *node, struct message *message)
{
    check_header(node, message);
    if (message_header(message)->kind != MESSAGE_REPLY)
        context_malformed(node, message);
    message_link(&node->arriving, message);
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

void check_node(const struct node *node)
{
    for (uint32_t i = 0; i < node->regions.count; i++)
        for (const struct page_block *block = node->regions.live[i]->touched; block; block = block->next)
            for (int k = 0; k < REGION_BLOCK_PAGES; k++)
                page_check(&block->pages[k], &node->port);
    for (node_id q = 0; q < node->size; q++)
        interval_check(&node->logs[q], node->cut[q], &node->port);
    for (uint32_t i = 0; i < node->lock_count; i++)
        lock_check(node->locks[i], &node->port);
}
