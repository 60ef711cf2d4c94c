/* A push is checked when it comes, not when it is used: then its sender can still be named. */
#include "protocol/coherence/pushed.h"

#include "protocol/page/history.h"
#include "protocol/page/region.h"

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

static void keep(struct node *node, struct page *page, const struct push *push)
{
    struct push *kept = pool_take(&node->pool, sizeof *kept), **end = &page_history(page)->pushes;
    uint32_t count = 0;
    context_assert(node, push->writer != node->number, "pushed: a push of this node itself");
    context_assert(node, page->copy, "pushed: a push is kept for a page without a copy");
    *kept = *push;
    kept->message->holders++;
    for (; *end; end = &(*end)->next)
        count++;
    *end = kept;
    context_assert(node, count <= HISTORY_PUSHES_MAX, "pushed: more pushes are kept than may be");
    if (count >= HISTORY_PUSHES_MAX) { /* no notice uses them, and none can use a push behind a hole */
        node->stats[node->me].pushes_unused += count + 1;
        history_drop_pushes(page_history(page), &node->pool);
    }
}

struct page *pushed_read(struct node *node, struct message *message, struct reader *reader)
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
    struct region *region = reader->bad ? NULL : region_find(node->regions, id);
    if (!region)
        return NULL;
    reader_vector(&push.body, &node->pool, node->size, node->collection.floor, &push.have);
    if (index >= region->pages || push.body.bad || !body_valid(node, &push, region->page_bytes))
        context_malformed(node, message);
    struct page *page = region_page_if(region, index);
    if (page && page->copy && page_history(page) && !context_holds(node)) {
        keep(node, page, &push);
        return page;
    }
    vector_clear(&push.have, &node->pool);
    node->stats[node->me].pushes_unused++;
    return NULL;
}

static void use(struct node *node, struct fetch *fetch, struct push *push)
{
    if (!fetch->gathering)
        vector_copy(&fetch->have, &node->pool, &fetch->page->have);
    fetch->gathering = true;
    install_take_diffs(node, fetch, push->message, &push->body, push->tag, &push->have);
}

/* A push of which no notice has come stays, and so does one behind a hole, until the diffs in the hole have been
 * fetched. */
void pushed_use(struct node *node, struct fetch *fetch)
{
    struct page *page = fetch->page;
    context_assert(node, fetch->awaited == 0, "pushed: a push is used while replies are awaited");
    context_assert(node, !page->arriving, "pushed: the page arrives already");
    for (struct push **link = &page_history(page)->pushes, *push; (push = *link);) {
        const struct vector *have = fetch->gathering ? &fetch->have : &page->have;
        stamp known = context_known(node, have, push->writer);
        bool named = vector_get(&page->need, push->writer) > known, fit = page->copy && named && push->since <= known;
        if (page->copy && push->tag > known && !fit) {
            link = &push->next;
            continue;
        }
        if (fit)
            use(node, fetch, push);
        *(fit ? &node->stats[node->me].pushes_used : &node->stats[node->me].pushes_unused) += 1;
        *link = push->next;
        history_free_push(push, &node->pool);
    }
}
