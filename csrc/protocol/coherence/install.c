/* Diffs of one writer come in order, and those of several nearly so: an insertion sort is enough, and allocates
 * nothing. */
#include "protocol/coherence/install.h"

#include <string.h>

#include "protocol/page/common.h"

/* ---- diffs ------------------------------------------------------------------------------------------------------ */

static void keep_part(struct node *node, struct fetch *fetch, struct fetch_part part)
{
    context_assert(node, fetch->gathering, "install: a diff is kept by a fetch that gathers none");
    context_assert(node, part.message->holders > 0, "install: a diff is kept of a message that was given back");
    fetch->parts = pool_grow(&node->pool, fetch->parts, &fetch->part_capacity, fetch->part_count + 1, sizeof part);
    fetch->parts[fetch->part_count++] = part;
    part.message->holders++;
}

void install_take_diffs(struct node *node, struct fetch *fetch, struct message *message, struct reader *reader,
                        stamp tag, const struct vector *theirs)
{
    struct page *page = fetch->page;
    uint32_t count = reader_u32(reader);
    context_assert(node, fetch->gathering, "install: diffs for a fetch that gathers none");
    context_assert(node, !page->arriving, "install: diffs for a page that arrives");
    for (uint32_t i = 0; i < count && !reader->bad; i++) {
        struct fetch_part part = {.node = message->peer, .message = message};
        part.tag = reader_u64(reader);
        part.bytes = reader_u64(reader);
        part.body = reader_bytes(reader, part.bytes);
        if (reader->bad || !diff_valid(part.body, part.bytes, page_region(page)->page_bytes))
            context_malformed(node, message);
        if (part.tag <= context_known(node, &fetch->have, message->peer))
            continue;
        keep_part(node, fetch, part);
        page_region(page)->stats[node->me].diffs_received++;
        page_region(page)->stats[node->me].diff_bytes_received += part.bytes;
    }
    if (!reader_ended(reader))
        context_malformed(node, message);
    vector_raise(&fetch->have, &node->pool, message->peer, tag);
    for (uint32_t i = 0; i < theirs->count; i++) {
        struct vector_entry entry = vector_at(theirs, i);
        vector_raise(&page->need, &node->pool, entry.node, entry.stamp);
    }
}

static int by_tag(const void *a, const void *b)
{
    const struct fetch_part *x = a, *y = b;
    if (x->tag != y->tag)
        return x->tag < y->tag ? -1 : 1;
    return x->node < y->node ? -1 : x->node > y->node;
}

static void sort_parts(struct fetch_part *parts, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        struct fetch_part part = parts[i];
        uint32_t k = i;
        for (; k > 0 && by_tag(&parts[k - 1], &part) > 0; k--)
            parts[k] = parts[k - 1];
        parts[k] = part;
    }
}

void install_drop_parts(struct node *node, struct fetch *fetch)
{
    for (uint32_t i = 0; i < fetch->part_count; i++)
        message_release(fetch->parts[i].message, &node->pool);
    fetch->part_count = 0;
}

/* For the port: in how many bytes the diffs of other writers meet each other, and what was written here since the last
 * cut. */
static void note_common(struct node *node, const struct fetch *fetch)
{
    const struct page *page = fetch->page;
    uint64_t common = 0;
    for (const struct fetch_part *part = fetch->parts; part < fetch->parts + fetch->part_count; part++) {
        for (const struct fetch_part *other = fetch->parts; other < part; other++)
            if (other->node != part->node)
                common += common_of_diffs(part->body, part->bytes, other->body, other->bytes);
        for (const struct diff *own = page_diffs_after(page, node->cut[node->number]); own; own = own->next)
            common += common_of_diffs(part->body, part->bytes, own->body, own->bytes);
        if (page->twin)
            common += common_with_twin(node->port->view + page_offset(page), page->twin, part->body, part->bytes);
    }
    if (common)
        page_note(node, EVENT_COMMON, page, NODE_NONE, common);
}

/* All missing diffs are here; the order of their tags respects happens-before (R2).  Writes of this node that are not
 * encoded yet stay on top: their tag will be above all of these, so every node sees them last.  Only a program with a
 * race can tell: a diff with a lower tag than the value that the write here replaced would take the write away, and
 * other nodes, which apply it in its order, would see that old value again. */
void install_diffs(struct node *node, struct fetch *fetch)
{
    struct page *page = fetch->page;
    unsigned char *bytes = node->port->view + page_offset(page);
    bool written = page->twin || page->writers;
    context_assert(node, fetch->gathering, "install: nothing was gathered");
    context_assert(node, fetch->awaited == 0, "install: diffs are applied before all have come (R2)");
    context_assert(node, page->copy, "install: diffs are applied to a page without a copy");
    context_assert(node, !page->extension->deferred_tag,
                   "install: diffs of others change a page whose own diff is not encoded (R4)");
    page_fill(page, node->port);
    page->fresh = false;
    if (fetch->part_count)
        page_twin_own(page, &node->pool);
    sort_parts(fetch->parts, fetch->part_count);
    if (context_noted(node))
        note_common(node, fetch);
    for (uint32_t i = 0; i < fetch->part_count; i++) {
        const struct fetch_part *part = &fetch->parts[i];
        if (written)
            diff_apply_under(bytes, page->twin, part->body, part->bytes);
        else
            diff_apply(bytes, part->body, part->bytes);
        if (page->twin)
            diff_apply(page->twin, part->body, part->bytes);
        page_event_of(node, EVENT_APPLY, page, part->node, part->bytes);
    }
    install_drop_parts(node, fetch);
    stamp mine = vector_get(&page->have, node->number), needed = vector_get(&page->need, node->number);
    vector_copy(&page->have, &node->pool, &fetch->have);
    vector_raise(&page->have, &node->pool, node->number, mine > needed ? mine : needed);
    context_assert(node, fetch->part_count == 0, "install: diffs are left over");
    fetch->gathering = false;
}

/* ---- whole pages ------------------------------------------------------------------------------------------------ */

/* This node's diffs that the sender of a whole page lacks go on top (R6). */
static void put_own(const struct page *page, unsigned char *base, stamp known)
{
    for (const struct diff *diff = page_diffs_after(page, known); diff; diff = diff->next)
        diff_apply(base, diff->body, diff->bytes);
}

/* Threads are writing the page, or have written what nobody was sent yet.  What has come is compared with the twin, and
 * only the bytes in which it differs are put into page and twin, one by one (H4). */
static void merge(struct node *node, struct page *page, const unsigned char *base)
{
    uint64_t page_bytes = page_region(page)->page_bytes, room = diff_bytes_max(page_bytes);
    unsigned char *body = pool_take(&node->pool, room);
    page_twin_own(page, &node->pool);
    uint64_t bytes = diff_encode(base, page->twin, page_bytes, page_bytes, body);
    diff_apply_under(node->port->view + page_offset(page), page->twin, body, bytes);
    diff_apply(page->twin, body, bytes);
    pool_give(&node->pool, body, room);
}

/* Where threads may be looking, the page is built beside its place, so that no write of this node disappears from it
 * even for a moment. */
static void put_whole(struct node *node, struct page *page, const unsigned char *bytes, stamp known)
{
    struct pool *pool = &node->pool;
    uint64_t page_bytes = page_region(page)->page_bytes;
    unsigned char *view = node->port->view + page_offset(page);
    bool lacks = page_diffs_after(page, known) != NULL, beside = lacks && (page->twin || page->readers);
    context_assert(node, page->twin || !page->writers, "install: a page is replaced that is written without a twin");
    context_assert(node, !page->arriving || (bytes == view && !page->twin), "install: an arriving page is elsewhere");
    if (beside) {
        unsigned char *built = pool_take(pool, page_bytes);
        memcpy(built, bytes, page_bytes);
        put_own(page, built, known);
        if (page->twin)
            merge(node, page, built);
        else
            memcpy(view, built, page_bytes);
        pool_give(pool, built, page_bytes);
    } else if (page->twin) {
        merge(node, page, bytes);
    } else {
        if (bytes != view && page_untouched(page))
            page_put(node->port, page_offset(page), bytes, page_bytes);
        else if (bytes != view)
            memcpy(view, bytes, page_bytes);
        put_own(page, view, known);
    }
}

bool install_whole(struct node *node, struct page *page, const unsigned char *bytes, const struct vector *have)
{
    if (page->copy && !vector_covers(have, &page->have, node->number))
        return false;
    context_assert(node, !page->twin || page->copy, "install: a twin without a copy");
    context_assert(node, !page->extension->deferred_tag,
                   "install: a page is replaced whose own diff is not encoded (R4)");
    stamp known = vector_get(have, node->number), mine = vector_get(&page->have, node->number);
    put_whole(node, page, bytes, known);
    page->copy = true;
    page->fresh = page->arriving = false;
    vector_copy(&page->have, &node->pool, have);
    vector_raise(&page->have, &node->pool, node->number, mine);
    page_event_of(node, EVENT_INSTALL, page, NODE_NONE, page_region(page)->page_bytes);
    return true;
}
