/* A pushed page stays open: its twin becomes the snapshot that was sent, so a writer of the same pages in every
 * interval takes no fault and changes no protection. */
#include "protocol/coherence/push.h"

#include <string.h>

#include "protocol/coherence/protection.h"
#include "protocol/coherence/seal.h"
#include "protocol/coherence/wire.h"
#include "protocol/page/history.h"
#include "protocol/page/interval.h"
#include "protocol/page/region.h"

/* One diff of a page always fits.  Where all of the page changed that is a quarter more than the page, but no
 * request, and the page stays open. */
static uint64_t pushed_bytes_max(const struct region *region)
{
    return diff_bytes_max(region->page_bytes) + 2 * sizeof(uint64_t);
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

static void put_push(struct node *node, struct page *page, struct subscriber *subscriber)
{
    stamp tag = vector_get(&page->have, node->number);
    context_assert(node, subscriber->node != node->number, "push: this node subscribes to itself");
    context_assert(node, subscriber->since < tag, "push: a subscriber has all that is pushed");
    uint32_t count;
    if (wire_diffs_since(page, subscriber->since, &count) > pushed_bytes_max(page_region(page)))
        return; /* it has missed many: the whole page will be less */
    struct message *message = push_to(node, subscriber->node);
    message_put_u32(message, &node->pool, page_region(page)->id);
    message_put_u32(message, &node->pool, 0);
    message_put_u64(message, &node->pool, page_index(page));
    uint64_t size_at = message->wire_bytes;
    message_put_u64(message, &node->pool, 0);
    message_put_u64(message, &node->pool, tag);
    message_put_u64(message, &node->pool, subscriber->since);
    uint64_t body_at = message->wire_bytes;
    wire_put_have(node, message, page, false);
    wire_put_diffs(node, message, page, subscriber->since, count);
    uint64_t size = message->wire_bytes - body_at;
    memcpy(message->wire + size_at, &size, sizeof size);
    message_header(message)->count++;
    subscriber->since = tag;
    node->stats[node->me].pushes_sent++;
}

/* True: something was pushed, and the page was sealed for it. */
static bool push_page(struct node *node, struct page *page, node_id to)
{
    struct page_history *history = page_history(page);
    bool sealed = false;
    for (uint32_t i = 0; history && i < history->subscriber_count; i++) {
        struct subscriber *subscriber = &history->subscribers[i];
        bool lacks = subscriber->since < vector_get(&page->have, node->number);
        if (!lacks || (to != NODE_NONE && subscriber->node != to))
            continue;
        if (!sealed && page_open(page))
            seal_open(node, page);
        else if (!sealed)
            seal_page(node, page, false);
        sealed = true;
        put_push(node, page, subscriber);
    }
    return sealed;
}

void push_send(struct node *node, node_id to, stamp known)
{
    const struct interval_log *log = &node->logs[node->number];
    uint64_t bytes = 0;
    if (node->collection.phase != COLLECTION_IDLE)
        return;
    protection_flush(node); /* R4 */
    for (uint32_t i = interval_after(log, known); i < log->count; i++) {
        const struct interval *interval = log->items[log->first + i];
        for (uint32_t r = 0; r < interval->run_count; r++) {
            const struct run *run = &interval->runs[r];
            const struct region *region = region_find(node->regions, run->region);
            for (uint32_t k = 0; region && k < run->pages && bytes < node->options.push_bytes_max; k++) {
                struct page *page = region_page_if(region, run->first + k);
                if (page->copy && push_page(node, page, to))
                    bytes += region->page_bytes;
            }
        }
    }
}
