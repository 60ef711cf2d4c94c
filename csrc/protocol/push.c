/* What is pushed stays open: its twin becomes the snapshot that was sent, so a writer of the same pages in every interval
 * takes no fault and changes no protection. */
#include "protocol/push.h"

#include <string.h>

#include "protocol/node.h"

/* One diff of a page always fits.  Where all of the page changed that is a quarter more than the page, but no request, and
 * the page stays open: CG 6,304 messages and 2,476 write faults became 4,684 and 53. */
#define PUSHED_BYTES_MAX(page_bytes) (diff_bytes_max(page_bytes) + 2 * sizeof(uint64_t))

/* ---- the writer ---------------------------------------------------------------------------------------------------- */

static bool subscribes(const struct page_history *history, node_id to)
{
    for (uint32_t i = 0; i < history->subscriber_count; i++)
        if (to == NODE_NONE || history->subscribers[i].node == to)
            return true;
    return false;
}

void push_encode(struct node *node, node_id to)
{
    uint64_t bytes = 0;
    if (node->options.push_bytes_max == 0 || node->collection.phase != COLLECTION_IDLE)
        return;
    for (uint32_t i = 0; i < node->dirty_count && bytes < node->options.push_bytes_max; i++) {
        struct page *page = node->dirty[i];
        struct page_history *history = page_history(page);
        if (!history || page_stays_open(page) || !page->copy || !subscribes(history, to))
            continue;
        bytes += page_region(page)->page_bytes;
        history->cut = true;
        if (page->writable) {
            seal_snapshot(node, page);
        } else {
            protection_flush(node); /* a notice of the same message may have closed it: the kernel is told first */
            seal_page(node, page, false);
        }
    }
}

static struct message *push_to(struct node *node, node_id peer)
{
    for (struct message *message = node->outbox; message; message = message->next)
        if (message->peer == peer && message_header(message)->kind == MESSAGE_PUSH)
            return message;
    struct message *message = message_new(&node->pool, peer, MESSAGE_PUSH, RING_NEVER, 1024);
    context_send(node, message);
    return message;
}

static void put_push(struct node *node, struct page *page, struct subscriber *subscriber, stamp closed)
{
    uint32_t count;
    if (wire_diffs_since(page, subscriber->since, &count) > PUSHED_BYTES_MAX(page_region(page)->page_bytes))
        return; /* it has missed many: the whole page will be less */
    struct message *message = push_to(node, subscriber->node);
    message_put_u32(message, &node->pool, page_region(page)->id);
    message_put_u32(message, &node->pool, 0);
    message_put_u64(message, &node->pool, page_index(page));
    uint64_t size_at = message->wire_bytes;
    message_put_u64(message, &node->pool, 0);
    message_put_u64(message, &node->pool, closed);
    message_put_u64(message, &node->pool, subscriber->since);
    uint64_t body_at = message->wire_bytes;
    wire_put_have(node, message, page, false);
    wire_put_diffs(node, message, page, subscriber->since, count);
    uint64_t size = message->wire_bytes - body_at;
    memcpy(message->wire + size_at, &size, sizeof size);
    message_header(message)->count++;
    subscriber->since = closed;
    node->stats.pushes_sent++;
}

void push_send(struct node *node, node_id to, stamp closed)
{
    for (uint32_t i = 0; i < node->dirty_count; i++) {
        struct page *page = node->dirty[i];
        struct page_history *history = page_history(page);
        if (!history || !history->cut)
            continue;
        history->cut = false;
        for (uint32_t k = 0; k < history->subscriber_count; k++)
            if (to == NODE_NONE || history->subscribers[k].node == to)
                put_push(node, page, &history->subscribers[k], closed);
    }
}

/* ---- the reader ------------------------------------------------------------------------------------------------- */

/* What comes from the wire is looked at when it comes, not when it is used. */
static bool body_valid(const struct node *node, const struct push *push, uint64_t page_bytes)
{
    struct reader body = push->body;
    for (uint32_t i = 0; i < push->have.count; i++)
        if (vector_at(&push->have, i).stamp > node->stamp)
            return false;
    for (uint32_t i = 0, count = reader_u32(&body); i < count && !body.bad; i++) {
        stamp tag = reader_u64(&body);
        uint64_t bytes = reader_u64(&body);
        const unsigned char *diff = reader_bytes(&body, bytes);
        if (!diff || !diff_valid(diff, bytes, page_bytes) || tag > push->tag)
            return false;
    }
    return reader_ended(&body) && push->since <= push->tag && push->tag <= node->stamp;
}

/* The copy that is here lacks nothing that comes before the push, and something of it. */
static bool fits(const struct node *node, const struct push *push, const struct vector *have)
{
    stamp known = context_known(node, have, push->writer);
    return push->since <= known && known < push->tag;
}

static void keep(struct node *node, struct page *page, const struct push *push)
{
    struct push *kept = pool_take(&node->pool, sizeof *kept), **end = &page_history(page)->pushes;
    uint32_t count = 0;
    *kept = *push;
    kept->message->holders++;
    for (; *end; end = &(*end)->next)
        count++;
    *end = kept;
    if (count >= HISTORY_PUSHES_MAX) { /* nobody uses them; what follows on a hole is of no use either */
        node->stats.pushes_unused += count + 1;
        history_drop_pushes(page_history(page), &node->pool);
    }
}

static void receive_page(struct node *node, struct message *message, struct reader *reader)
{
    region_id id = reader_u32(reader);
    reader_u32(reader);
    uint64_t index = reader_u64(reader), size = reader_u64(reader);
    struct push push = {.writer = message->peer, .message = message};
    push.tag = reader_u64(reader);
    push.since = reader_u64(reader);
    push.body = *reader;
    if (reader_bytes(reader, size))
        push.body.end = push.body.at + size;
    struct region *region = reader->bad ? NULL : region_find(&node->regions, id);
    if (!region)
        return;
    reader_vector(&push.body, &node->pool, node->size, node->collection.floor, &push.have);
    if (index >= region->pages || push.body.bad || !body_valid(node, &push, region->page_bytes))
        context_malformed(node, message);
    struct page *page = region_page_if(region, index);
    if (page && page->copy && page_history(page) && !node->collection.holding) {
        keep(node, page, &push);
        update_pushed(node, page);
    } else {
        vector_clear(&push.have, &node->pool);
        node->stats.pushes_unused++;
    }
}

void pushed_receive(struct node *node, struct message *message)
{
    struct reader reader = message_reader(message);
    for (uint32_t i = 0, count = message_header(message)->count; i < count && !reader.bad; i++)
        receive_page(node, message, &reader);
    if (!reader_ended(&reader))
        context_malformed(node, message);
}

void pushed_use(struct node *node, struct fetch *fetch)
{
    struct page *page = fetch->page;
    if (page->copy) {
        fetch->gathering = true;
        vector_copy(&fetch->have, &node->pool, &page->have);
        for (struct push *push = page_history(page)->pushes; push; push = push->next) {
            bool use = fits(node, push, &fetch->have);
            if (use)
                install_take_diffs(node, fetch, push->message, &push->body, push->tag, &push->have);
            *(use ? &node->stats.pushes_used : &node->stats.pushes_unused) += 1;
        }
    }
    history_drop_pushes(page_history(page), &node->pool);
}
