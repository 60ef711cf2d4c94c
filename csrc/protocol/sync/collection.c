/* Every step is taken from collection_step or from a departure, by whatever thread happens to make progress: the
 * application's threads need not know. */
#include "protocol/sync/collection.h"

#include "protocol/coherence/evict.h"
#include "protocol/coherence/fetch.h"
#include "protocol/coherence/stretch.h"
#include "protocol/coherence/writes.h"
#include "protocol/page/crowd.h"
#include "protocol/page/history.h"
#include "protocol/page/region.h"
#include "protocol/predict/update.h"
#include "protocol/sync/lock.h"
#include "protocol/sync/meeting.h"
#include "protocol/sync/release.h"

enum { VALIDATING_MAX = 256 }; /* fetches under way at a time, so that memory stays bounded while it is freed */

static void arrive(struct node *node)
{
    context_assert(node, node->collection.phase != COLLECTION_IDLE,
                   "collection: a step of a collection that has not begun");
    meeting_arrive(node, MEETING_COLLECTION);
}

static void begin(struct node *node)
{
    context_assert(node, node->collection.phase == COLLECTION_IDLE, "collection: a collection begins in another one");
    for (int k = 0; k < TREE_CHILDREN; k++) {
        node_id child = tree_child(node->number, k, node->size);
        if (child == NODE_NONE)
            continue;
        struct message *message = message_new(&node->pool, child, MESSAGE_COLLECT, RING_NOW, 8);
        message_put_u64(message, &node->pool, node->collection.count + 1);
        context_send(node, message);
    }
    node->collection.phase = COLLECTION_ARRIVING;
    node->collection.requested = true;
    context_event(node, EVENT_COLLECT, node->collection.count, NODE_NONE);
    arrive(node);
}

void collection_request(struct node *node)
{
    if (node->collection.phase != COLLECTION_IDLE || node->collection.requested)
        return;
    node->collection.requested = true;
    if (node->number == 0)
        begin(node);
    else
        context_send(node, message_new(&node->pool, 0, MESSAGE_REQUEST_COLLECTION, RING_NOW, 0));
}

void collection_receive_request(struct node *node, const struct message *message)
{
    struct reader reader = reader_of(message);
    if (!reader_ended(&reader))
        context_malformed(node, message);
    if (node->number == 0 && node->collection.phase == COLLECTION_IDLE)
        begin(node);
}

void collection_receive_collect(struct node *node, struct message *message)
{
    struct reader reader = reader_of(message);
    uint64_t number = reader_u64(&reader), next = node->collection.count + 1;
    bool begins = node->collection.phase == COLLECTION_IDLE && number == next;
    bool ends = node->collection.phase == COLLECTION_FORGETTING && !node->meetings[MEETING_COLLECTION].own;
    bool overtakes = ends && number == next + 1;
    if (!reader_ended(&reader) || !(begins || overtakes) || message->peer != tree_parent(node->number))
        context_malformed(node, message);
    if (overtakes)
        context_defer(node, message);
    else
        begin(node);
}

/* ---- steps over all pages --------------------------------------------------------------------------------------- */

static void for_all_pages(struct node *node, void (*what)(struct node *node, struct page *page))
{
    for (uint32_t i = 0; i < node->regions->count; i++)
        for (struct page_block *block = node->regions->live[i]->touched; block; block = block->next)
            for (int k = 0; k < REGION_BLOCK_PAGES; k++)
                what(node, &block->pages[k]);
}

/* The owner keeps a page alive; what may be written with no notice to come must not go away (H5). */
static void validate_page(struct node *node, struct page *page)
{
    bool kept = page->owner == node->number || page->writers || page_inspected(page);
    if (kept && !page_fetch(page) && node->fetches->count < VALIDATING_MAX && !page_valid(page))
        fetch_start(node, page, true);
}

static void drop_stale_page(struct node *node, struct page *page)
{
    if (page_valid(page))
        return;
    context_assert(node, page->owner != node->number, "collection: the owner of a page drops it (R8)");
    context_assert(node, !page->writers, "collection: a page is dropped that some space can write (H5)");
    context_assert(node, page->mode == PAGE_CLOSED, "collection: an open page is dropped");
    context_assert(node, !page_fetch(page), "collection: a page is dropped while it is fetched");
    page->fresh = page->fresh && !page->copy;
    page->copy = false;
    page_twin_drop(page, &node->pool);
    page_diffs_drop(page, &node->pool);
    update_dropped(page);
}

static void forget_page(struct node *node, struct page *page)
{
    page_diffs_drop(page, &node->pool);
    crowd_forget(page, &node->pool);
    vector_clear(&page->need, &node->pool);
    vector_clear(&page->have, &node->pool);
    history_forget(page, &node->pool, node->collection.floor);
    page->shared_writing = page->lent = false;
    if (page_inspected(page))
        return; /* the next inspection compares it with what other nodes have: the twin */
    if (!(node->options.races && page->writers)) /* pinned: the twin shows what a stretch writes */
        page_twin_drop(page, &node->pool);
    if (page->writers)
        page->mode = PAGE_OPEN; /* it was noticed and not sent since: no other node has a copy */
}

static void forget(struct node *node, stamp root_stamp)
{
    context_assert(node, root_stamp >= node->collection.floor, "collection: a collection ends before the last one");
    context_assert(node, node->writes->dirty_count == 0, "collection: pages were written during a collection");
    context_assert(node, node->fetches->count == 0, "collection: a collection ends while pages are fetched");
    node->collection.floor = root_stamp;
    node->collection.ended = node->stamp;
    for_all_pages(node, forget_page);
    evict_collected(node);
    node->collection.requested = false;
    node->collection.phase = COLLECTION_IDLE;
    node->collection.count++;
    node->collection.threshold_bytes = collection_bytes(node) + node->options.budget_bytes;
    for (uint32_t space = 0; space < node->spaces; space++)
        node->stats[space].collections++;
    meeting_resume(node);
    lock_resume(node);
}

/* ---- steps --------------------------------------------------------------------------------------------------- */

uint64_t collection_bytes(const struct node *node)
{
    context_assert(node, node->pool.bytes_used >= node->pool.persistent_bytes,
                   "collection: more memory is persistent than is used");
    return node->pool.bytes_used - node->pool.persistent_bytes;
}

void collection_departed(struct node *node, stamp root_stamp)
{
    struct collection *collection = &node->collection;
    context_assert(node, node->meetings[MEETING_COLLECTION].state == MEETING_IDLE,
                   "collection: a step before the meeting has ended");
    switch (collection->phase) {
    case COLLECTION_ARRIVING:
        update_defer(node);
        collection->phase = COLLECTION_HOLDING;
        break;
    case COLLECTION_CUTTING: collection->phase = COLLECTION_VALIDATING; break;
    case COLLECTION_DROPPING:
        context_assert(node, node->fetches->count == 0, "collection: copies are dropped while pages are fetched");
        for_all_pages(node, drop_stale_page);
        collection->phase = COLLECTION_FORGETTING;
        arrive(node);
        break;
    case COLLECTION_FORGETTING: forget(node, root_stamp); break;
    case COLLECTION_IDLE:
    case COLLECTION_HOLDING:
    case COLLECTION_VALIDATING: context_panic(node, "a departure in the middle of a collection's step");
    }
    node->wake = true;
}

void collection_step(struct node *node)
{
    struct collection *collection = &node->collection;
    if (collection->phase == COLLECTION_IDLE) {
        if (collection_bytes(node) > collection->threshold_bytes || evict_wants_collection(node))
            collection_request(node);
    } else if (collection->phase == COLLECTION_HOLDING && node->fetches->count == 0) {
        if (node->options.races)
            stretch_harvest(node); /* what is open and noticed will have no twin that shows its writes */
        release_interval(node);    /* the last notices: the arrival finds no more */
        collection->phase = COLLECTION_CUTTING;
        arrive(node);
    } else if (collection->phase == COLLECTION_VALIDATING && node->fetches->count == 0) {
        for_all_pages(node, validate_page);
        if (node->fetches->count == 0) {
            collection->phase = COLLECTION_DROPPING;
            arrive(node);
        }
    }
}
