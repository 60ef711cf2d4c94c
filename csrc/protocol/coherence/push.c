/* A pushed page stays open: its twin becomes the snapshot that was sent, so a writer of the same pages in every
 * interval takes no fault and changes no protection. */
#include "protocol/coherence/push.h"

#include <string.h>

#include "protocol/coherence/seal.h"
#include "protocol/coherence/wire.h"
#include "protocol/coherence/writes.h"
#include "protocol/page/history.h"

/* One diff of a page always fits.  Where all of the page changed that is a quarter more than the page, but no
 * request, and the page stays open. */
static uint64_t pushed_bytes_max(const struct region *region)
{
    return diff_bytes_max(region->page_bytes) + 2 * sizeof(uint64_t);
}

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
    for (uint32_t i = 0; i < node->writes->dirty_count && bytes < node->options.push_bytes_max; i++) {
        struct page *page = node->writes->dirty[i];
        struct page_history *history = page_history(page);
        context_assert(node, page->dirty, "push: a page of the open interval is not dirty");
        if (!history || !page->copy || !subscribes(history, to))
            continue;
        bytes += page_region(page)->page_bytes;
        context_assert(node, !history->encoded, "push: a page is encoded for two pushes");
        context_assert(node, !page->arriving, "push: a page is encoded while it arrives");
        history->encoded = true;
        if (page_open(page))
            seal_open(node, page);
        else
            seal_page(node, page, false);
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
    context_assert(node, subscriber->node != node->number, "push: this node subscribes to itself");
    context_assert(node, subscriber->since < closed, "push: a subscriber has writes that were not told yet");
    uint32_t count;
    if (wire_diffs_since(page, subscriber->since, &count) > pushed_bytes_max(page_region(page)))
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
    node->stats[node->me].pushes_sent++;
}

void push_send(struct node *node, node_id to, stamp closed)
{
    context_assert(node, closed == node->vt[node->number],
                   "push: diffs are pushed before their interval is closed (R9)");
    for (uint32_t i = 0; i < node->writes->dirty_count; i++) {
        struct page *page = node->writes->dirty[i];
        struct page_history *history = page_history(page);
        if (!history || !history->encoded)
            continue;
        history->encoded = false;
        for (uint32_t k = 0; k < history->subscriber_count; k++)
            if (to == NODE_NONE || history->subscribers[k].node == to)
                put_push(node, page, &history->subscribers[k], closed);
    }
}
