/* Requests that leave a node at the same moment for the same peer travel in one message, and so do the answers, in
 * pieces of a bounded size; nothing else here knows of messages with more than one page. */
#include "protocol/coherence/fetch.h"

#include "protocol/coherence/bulk.h"
#include "protocol/coherence/cache.h"
#include "protocol/coherence/preopened.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/pushed.h"
#include "protocol/coherence/seal.h"
#include "protocol/coherence/wire.h"
#include "protocol/page/history.h"

/* ---- asking ----------------------------------------------------------------------------------------------------- */

/* The request to this peer that has not left yet, or a new one: as many pages as an answer holds, so that the answer
 * to the first request is on its way while the next one is read. */
static struct message *request_to(struct node *node, node_id peer, uint64_t page_bytes)
{
    uint32_t most = page_bytes < FETCH_PIECE_BYTES ? (uint32_t)(FETCH_PIECE_BYTES / page_bytes) : 1;
    for (struct message *message = node->outbox; message; message = message->next)
        if (message->peer == peer && message_header(message)->kind == MESSAGE_FETCH &&
            message_header(message)->count < most)
            return message;
    struct message *message =
        message_new(&node->pool, peer, MESSAGE_FETCH, RING_NEVER, 256); /* so far it asks for none */
    message_put_u64(message, &node->pool, node->cuts);
    context_tick(node); /* its stamp names it (crowd.h) */
    context_send(node, message);
    return message;
}

static void ask(struct node *node, struct fetch *fetch, node_id peer, uint32_t flags)
{
    struct page *page = fetch->page;
    context_assert(node, !fetch->postponed, "fetch: a postponed fetch sends requests (R14)");
    context_assert(node, !page->arriving, "fetch: more is requested of a page that arrives");
    context_assert(node, page->copy || flags & FETCH_WHOLE_MUST,
                   "fetch: diffs are requested for a page without a copy");
    if (peer == node->number)
        context_panic(node, "page %llu of region %u: would be fetched from this node itself",
                      (unsigned long long)page_index(page), page_region(page)->id);
    if (fetch->subscribes) {
        flags |= FETCH_SUBSCRIBE;
        history_of(page, &node->pool)->subscribed = true;
    }
    struct message *message = request_to(node, peer, page_region(page)->page_bytes);
    message->ring = RING_LATER;
    wire_put_request(node, message, page, context_known(node, &fetch->have, peer), flags);
    if (flags & FETCH_WHOLE_OK)
        message_put_vector(message, &node->pool, &page->have);
    if (page_untouched(page) && node->port->expect)
        node->port->expect(node->port->context, page_offset(page), page_region(page)->page_bytes);
    fetch->awaited++;
    fetch->peer = peer;
    fetch->asked = node->stamp;
    page_region(page)->stats[node->me].fetch_requests++;
    page_event(node, EVENT_FETCH, page, peer);
}

/* The number of writers whose writes the page needs and `have` lacks; *latest has the highest stamp. */
static uint32_t behind(const struct node *node, const struct page *page, const struct vector *have, node_id *latest)
{
    uint32_t count = 0;
    stamp highest = 0;
    *latest = NODE_NONE;
    for (uint32_t i = 0; i < page->need.count; i++) {
        struct vector_entry entry = vector_at(&page->need, i);
        if (entry.node == node->number || vector_get(have, entry.node) >= entry.stamp)
            continue;
        count++;
        if (entry.stamp > highest || (entry.stamp == highest && entry.node > *latest)) {
            highest = entry.stamp;
            *latest = entry.node;
        }
    }
    return count;
}

/* Ask every writer that is ahead of `fetch->have` for its diffs.  `flags` only where there is one writer. */
static void gather(struct node *node, struct fetch *fetch, uint32_t flags)
{
    struct page *page = fetch->page;
    for (uint32_t i = 0; i < page->need.count; i++) {
        struct vector_entry entry = vector_at(&page->need, i);
        if (entry.node != node->number && vector_get(&fetch->have, entry.node) < entry.stamp)
            ask(node, fetch, entry.node, flags);
    }
    context_assert(node, fetch->awaited > 0, "fetch: a round without a request");
}

/* True: several nodes write the page in turn, and one whole page replaces the diffs of all. */
static bool prefers_whole(struct node *node, const struct fetch *fetch, uint32_t writers)
{
    switch (node->policy.whole) {
    case WHOLE_NEVER: return false;
    case WHOLE_ALWAYS: return true;
    case WHOLE_RANDOM: return context_chance(node, 500);
    case WHOLE_AUTO: break;
    }
    return writers > 1 && !fetch->page->twin && !fetch->page->shared_writing;
}

/* The first requests of a round.  False: there is nothing to ask for. */
static bool start_round(struct node *node, struct fetch *fetch)
{
    struct page *page = fetch->page;
    context_assert(node, fetch->awaited == 0, "fetch: a round begins before the last one has ended");
    context_assert(node, fetch->part_count == 0, "fetch: a round begins with diffs of the last one");
    node_id latest;
    uint32_t writers = behind(node, page, &page->have, &latest);
    if (!page->copy) {
        node_id from = latest != NODE_NONE ? latest : page->owner;
        if (from == NODE_NONE)
            context_panic(node, "page %llu of region %u: no copy here and no owner",
                          (unsigned long long)page_index(page), page_region(page)->id);
        fetch->gathering = false;
        ask(node, fetch, from, FETCH_WHOLE_MUST);
        return true;
    }
    if (writers == 0)
        return false;
    fetch->gathering = true;
    vector_copy(&fetch->have, &node->pool, &page->have);
    if (fetch->diffs_only)
        gather(node, fetch, 0);
    else if (prefers_whole(node, fetch, writers))
        ask(node, fetch, latest, FETCH_WHOLE_OK | FETCH_PREFER_WHOLE);
    else
        gather(node, fetch, writers == 1 && node->policy.whole == WHOLE_AUTO ? FETCH_WHOLE_OK : 0);
    return true;
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static void fetch_free(struct node *node, struct fetch *fetch)
{
    context_assert(node, page_fetch(fetch->page) == fetch, "fetch: the page has another fetch (R11)");
    context_assert(node, node->fetches->count > 0, "fetch: more fetches end than began");
    context_assert(node, node->fetches->postponed >= fetch->postponed,
                   "fetch: more fetches were postponed than are counted");
    install_drop_parts(node, fetch);
    if (fetch->parts)
        pool_give(&node->pool, fetch->parts, fetch->part_capacity * sizeof *fetch->parts);
    vector_clear(&fetch->have, &node->pool);
    *fetch->link = fetch->next;
    if (fetch->next)
        fetch->next->link = fetch->link;
    fetch->page->extension->fetch = NULL;
    page_tidy(fetch->page, &node->pool);
    node->fetches->postponed -= fetch->postponed;
    node->fetches->count--;
    struct page_history *history = page_history(fetch->page);
    if (history && history->refetching) {
        history->refetching = false;
        context_assert(node, node->fetches->updates_under_way > 0,
                       "fetch: more of the update set comes than was fetched");
        context_assert(node, node->fetches->updates_bytes >= page_region(fetch->page)->page_bytes,
                       "fetch: more bytes of the update set come than were fetched");
        node->fetches->updates_under_way--;
        node->fetches->updates_bytes -= page_region(fetch->page)->page_bytes;
    }
    node->wake = true;
    pool_give(&node->pool, fetch, sizeof *fetch);
}

static void fetch_end(struct node *node, struct fetch *fetch)
{
    struct page *page = fetch->page;
    context_assert(node, page->copy, "fetch: a fetch ends without a copy");
    context_assert(node, fetch->awaited == 0, "fetch: a fetch ends and awaits replies");
    context_assert(node, !fetch->gathering, "fetch: a fetch ends before its diffs are applied");
    page_region(page)->stats[node->me].fetches++;
    page_note(node, EVENT_FETCHED, page, fetch->peer, 0);
    struct page_history *history = page_history(page);
    bool watched = fetch->speculative && (page->marker || (history && history->probe) || node->options.races);
    bool reopens = page->reopens && history && history->refetching && node->options.open_bytes_max;
    page->reopens = reopens;
    if (history)
        history->current = true;
    fetch_free(node, fetch);
    /* No thread may be waiting for a page that was fetched ahead.  It is opened all the same, to spare the fault,
     * unless its first use must show. */
    if (watched)
        return;
    if (!(reopens && preopened_open(node, page, true)) && page_access(node, page) == ACCESS_NONE)
        protection_set(node, page, ACCESS_READ);
    page->reopens = false;
}

void fetch_continue(struct node *node, struct fetch *fetch)
{
    struct page *page = fetch->page;
    node_id latest;
    context_assert(node, fetch->awaited == 0, "fetch: a fetch goes on before all replies are here");
    context_assert(node, !page->arriving, "fetch: a fetch goes on while its page arrives");
    if (page_history(page) && page_history(page)->pushes)
        pushed_use(node, fetch);
    if (fetch->gathering) {
        if (behind(node, page, &fetch->have, &latest)) {
            gather(node, fetch, 0);
            return;
        }
        install_diffs(node, fetch);
    }
    if (!page_valid(page)) {
        if (!start_round(node, fetch))
            context_panic(node, "page %llu of region %u: stale, and nobody to ask",
                          (unsigned long long)page_index(page), page_region(page)->id);
        return;
    }
    fetch_end(node, fetch);
}

static struct fetch *fetch_new(struct node *node, struct page *page, bool speculative)
{
    context_assert(node, !page_fetch(page), "fetch: a page is fetched twice at a time (R11)");
    context_assert(node, !context_holds(node) || node->collection.phase == COLLECTION_VALIDATING,
                   "fetch: a fetch starts during a collection (R8)");
    struct fetch *fetch = pool_take_zeroed(&node->pool, sizeof *fetch);
    fetch->page = page;
    fetch->speculative = speculative;
    fetch->next = node->fetches->first;
    fetch->link = &node->fetches->first;
    if (fetch->next)
        fetch->next->link = &fetch->next;
    node->fetches->first = fetch;
    node->fetches->count++;
    page_extension(page, &node->pool)->fetch = fetch;
    cache_add(node, page);
    return fetch;
}

static void fetch_begin(struct node *node, struct fetch *fetch)
{
    context_assert(node, !fetch->postponed, "fetch: a postponed fetch begins (R14)");
    context_assert(node, fetch->awaited == 0, "fetch: a fetch begins twice");
    seal_encode_deferred(node, fetch->page);
    fetch_continue(node, fetch);
}

/* Not while the page is being sent. */
static void fetch_begin_or_postpone(struct node *node, struct fetch *fetch)
{
    fetch->postponed = bulk_leaves(node, fetch->page);
    if (fetch->postponed) {
        node->fetches->postponed++;
        node->send_blocked = true;
        return;
    }
    fetch_begin(node, fetch);
}

void fetch_start(struct node *node, struct page *page, bool speculative)
{
    fetch_begin_or_postpone(node, fetch_new(node, page, speculative));
}

void fetch_start_update(struct node *node, struct page *page, bool subscribes)
{
    context_assert(node, !page_history(page)->refetching, "fetch: a page of the update set is fetched twice at a time");
    struct fetch *fetch = fetch_new(node, page, true);
    page_history(page)->refetching = true;
    fetch->subscribes = subscribes;
    node->fetches->updates_under_way++;
    node->fetches->updates_bytes += page_region(page)->page_bytes;
    fetch_begin_or_postpone(node, fetch);
}

void fetch_stop_pushes(struct node *node, struct page *page)
{
    context_assert(node, page_history(page)->subscribed, "fetch: pushes end that were not requested");
    page_history(page)->subscribed = false;
    for (uint32_t i = 0; i < page->need.count; i++) {
        node_id writer = vector_at(&page->need, i).node;
        if (writer != node->number)
            wire_put_request(node, request_to(node, writer, page_region(page)->page_bytes), page, 0, FETCH_STOP);
    }
}

void fetch_resume(struct node *node)
{
    for (struct fetch *fetch = node->fetches->first, *next; fetch && node->fetches->postponed; fetch = next) {
        next = fetch->next;
        if (!fetch->postponed || bulk_leaves(node, fetch->page))
            continue;
        fetch->postponed = false;
        node->fetches->postponed--;
        fetch_begin(node, fetch);
    }
}

void fetch_cancel(struct node *node, struct fetch *fetch)
{
    fetch_free(node, fetch);
}

void fetch_remove_region(struct node *node, const struct region *region)
{
    for (struct fetch *fetch = node->fetches->first, *next; fetch; fetch = next) {
        next = fetch->next;
        if (page_region(fetch->page) == region)
            fetch_cancel(node, fetch);
    }
}
