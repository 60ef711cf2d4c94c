/* Operations on the state of one page.  coherence/fetch.c chooses the node to ask for it; coherence/protection.c sets
 * the kernel's protection. */
#include "protocol/page/page.h"

#include <string.h>

bool page_valid(const struct page *page)
{
    return page->copy && vector_covers(&page->have, &page->need, NODE_NONE);
}

struct page_extension *page_extension(struct page *page, struct pool *pool)
{
    if (!page->extension)
        page->extension = pool_take_zeroed(pool, sizeof *page->extension);
    return page->extension;
}

bool page_extension_empty(const struct page_extension *extension)
{
    return !extension->diffs && !extension->deferred_tag && !extension->fetch && !extension->crowd &&
           !extension->history && !extension->pins;
}

void page_tidy(struct page *page, struct pool *pool)
{
    if (!page->extension || !page_extension_empty(page->extension))
        return;
    pool_give(pool, page->extension, sizeof *page->extension);
    page->extension = NULL;
}

uint64_t page_offset(const struct page *page)
{
    return page_region(page)->offset + page_index(page) * page_region(page)->page_bytes;
}

bool page_twin_constant(const struct page *page)
{
    return page->twin == page_region(page)->constant;
}

void page_fill(struct page *page, const struct port *port)
{
    const struct region *region = page_region(page);
    if (!page->fresh || page->filled || !region->initial)
        return; /* memory that was never touched is zero */
    page->filled = true;
    unsigned char *bytes = port->view + page_offset(page);
    for (uint64_t at = 0; at < region->page_bytes; at += port->granule_bytes)
        memcpy(bytes + at, region->initial, port->granule_bytes);
}

bool page_untouched(const struct page *page)
{
    return page->fresh && !page->filled;
}

void page_put(const struct port *port, uint64_t offset, const unsigned char *bytes, uint64_t count)
{
    if (port->put)
        port->put(port->context, offset, bytes, count);
    else
        memcpy(port->view + offset, bytes, count);
}

unsigned char *page_twin_take(const struct page *page, struct pool *pool)
{
    uint64_t bytes = page_region(page)->page_bytes;
    pool->twin_bytes += bytes;
    return pool_take(pool, bytes);
}

void page_twin(struct page *page, struct pool *pool, const struct port *port)
{
    if (page->fresh) {
        page_fill(page, port);
        page->fresh = false;
        page->twin = (unsigned char *)(uintptr_t)page_region(page)->constant;
        return;
    }
    page->twin = page_twin_take(page, pool);
    memcpy(page->twin, port->view + page_offset(page), page_region(page)->page_bytes); /* no space can write it yet */
}

void page_twin_own(struct page *page, struct pool *pool)
{
    if (!page->twin || !page_twin_constant(page))
        return;
    uint64_t bytes = page_region(page)->page_bytes, granule = pool->port->granule_bytes;
    page->twin = page_twin_take(page, pool);
    for (uint64_t at = 0; at < bytes; at += granule)
        memcpy(page->twin + at, page_region(page)->constant, granule);
}

static void give_twin(const struct page *page, struct pool *pool, unsigned char *twin)
{
    if (!twin || twin == page_region(page)->constant)
        return;
    pool->twin_bytes -= page_region(page)->page_bytes;
    pool_give(pool, twin, page_region(page)->page_bytes);
}

void page_twin_drop(struct page *page, struct pool *pool)
{
    give_twin(page, pool, page->twin);
    page->twin = NULL;
}

static void drop_deferred(struct page *page, struct pool *pool)
{
    if (!page->extension->deferred_tag)
        return;
    give_twin(page, pool, page->extension->deferred_twin);
    page->extension->deferred_twin = NULL;
    page->extension->deferred_tag = 0;
}

void page_diffs_drop_until(struct page *page, struct pool *pool, stamp tag)
{
    struct page_extension *extension = page->extension;
    if (!extension)
        return;
    while (extension->diffs && extension->diffs->tag <= tag) {
        struct diff *diff = extension->diffs;
        extension->diffs = diff->next;
        pool->diff_bytes -= sizeof *diff + diff->bytes;
        pool_give(pool, diff, sizeof *diff + diff->bytes);
    }
    if (extension->diffs)
        extension->diffs->previous = NULL;
    else
        extension->diffs_last = NULL;
    if (extension->deferred_tag <= tag)
        drop_deferred(page, pool);
    page_tidy(page, pool);
}

void page_diffs_drop(struct page *page, struct pool *pool)
{
    page_diffs_drop_until(page, pool, UINT64_MAX);
}

bool page_worth_whole(const struct page *page, uint64_t diff_bytes)
{
    return 2 * diff_bytes >= page_region(page)->page_bytes;
}

static uint64_t encode(struct page *page, const unsigned char *now, const unsigned char *twin, struct pool *pool,
                       stamp tag)
{
    const struct region *region = page_region(page);
    uint64_t room = sizeof(struct diff) + diff_bytes_max(region->page_bytes);
    uint64_t twin_bytes = twin == region->constant ? pool->port->granule_bytes : region->page_bytes;
    struct diff *diff = pool_take(pool, room);
    uint64_t bytes = diff_encode(now, twin, region->page_bytes, twin_bytes, diff->body);
    if (bytes == 0) {
        pool_give(pool, diff, room);
        return 0;
    }
    diff = pool_trim(pool, diff, room, sizeof *diff + bytes);
    pool->diff_bytes += sizeof *diff + bytes;
    struct page_extension *extension = page_extension(page, pool);
    *diff = (struct diff){.previous = extension->diffs_last, .tag = tag, .bytes = bytes};
    if (extension->diffs_last)
        extension->diffs_last->next = diff;
    else
        extension->diffs = diff;
    extension->diffs_last = diff;
    return bytes;
}

uint64_t page_encode(struct page *page, const unsigned char *now, struct pool *pool, stamp tag)
{
    return encode(page, now, page->twin, pool, tag);
}

void page_defer_encoding(struct page *page, struct pool *pool, stamp tag)
{
    struct page_extension *extension = page_extension(page, pool);
    extension->deferred_tag = tag;
    extension->deferred_twin = page->twin;
    page->twin = NULL;
}

uint64_t page_encode_deferred(struct page *page, struct pool *pool, const struct port *port)
{
    if (!page->extension || !page->extension->deferred_tag)
        return 0;
    const unsigned char *now = page->twin ? page->twin : port->view + page_offset(page);
    uint64_t bytes = encode(page, now, page->extension->deferred_twin, pool, page->extension->deferred_tag);
    drop_deferred(page, pool);
    page_tidy(page, pool);
    return bytes;
}

struct diff *page_diffs_after(const struct page *page, stamp tag)
{
    struct diff *first = NULL;
    for (struct diff *diff = page->extension ? page->extension->diffs_last : NULL; diff && diff->tag > tag;
         diff = diff->previous)
        first = diff;
    return first;
}

uint32_t page_list_remove_region(struct page **pages, uint32_t count, const struct region *region)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++)
        if (page_region(pages[i]) != region)
            pages[kept++] = pages[i];
    return kept;
}
