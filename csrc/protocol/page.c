/* What a page can do with itself alone; who asks whom is fetch.c, what the kernel is told is protection.c. */
#include "protocol/page.h"

#include <string.h>

#include "protocol/region.h"

bool page_valid(const struct page *page)
{
    return page->copy && vector_covers(&page->have, &page->need, NODE_NONE);
}

bool page_pinned(const struct page *page)
{
    return page->pins_read || page->pins_write;
}

bool page_stays_open(const struct page *page)
{
    return page->pins_write || page->owed;
}

uint64_t page_offset(const struct page *page)
{
    return page->region->offset + page->index * page->region->page_bytes;
}

bool page_twin_constant(const struct page *page)
{
    return page->twin == page->region->constant;
}

void page_fill(struct page *page, const struct port *port)
{
    const struct region *region = page->region;
    if (!page->fresh || page->filled)
        return;
    page->filled = true;
    if (!region->initial)
        return;                     /* memory that was never touched is zero */
    unsigned char *bytes = port->view + page_offset(page);
    for (uint64_t at = 0; at < region->page_bytes; at += port->granule_bytes)
        memcpy(bytes + at, region->initial, port->granule_bytes);
}

void page_twin(struct page *page, struct pool *pool, const struct port *port)
{
    uint64_t bytes = page->region->page_bytes;
    if (page->fresh) {
        page_fill(page, port);
        page->fresh = false;
        page->twin = (unsigned char *)(uintptr_t)page->region->constant;
        return;
    }
    page->twin = pool_take(pool, bytes);
    memcpy(page->twin, port->view + page_offset(page), bytes);
}

void page_twin_own(struct page *page, struct pool *pool)
{
    if (!page->twin || !page_twin_constant(page))
        return;
    uint64_t bytes = page->region->page_bytes, granule = pool->port->granule_bytes;
    page->twin = pool_take(pool, bytes);
    for (uint64_t at = 0; at < bytes; at += granule)
        memcpy(page->twin + at, page->region->constant, granule);
}

void page_twin_drop(struct page *page, struct pool *pool)
{
    if (page->twin && !page_twin_constant(page))
        pool_give(pool, page->twin, page->region->page_bytes);
    page->twin = NULL;
}

void page_diffs_drop(struct page *page, struct pool *pool)
{
    for (struct diff *diff = page->diffs, *next; diff; diff = next) {
        next = diff->next;
        pool_give(pool, diff, sizeof *diff + diff->bytes);
    }
    page->diffs = page->diffs_last = NULL;
    page->diff_bytes = 0;
}

void page_cut(struct page *page, const unsigned char *now, struct pool *pool, stamp tag)
{
    uint64_t page_bytes = page->region->page_bytes, room = diff_bytes_max(page_bytes);
    uint64_t twin_bytes = page_twin_constant(page) ? pool->port->granule_bytes : page_bytes;
    unsigned char *body = pool_take(pool, room);
    uint64_t bytes = diff_cut(now, page->twin, page_bytes, twin_bytes, body);
    if (bytes) {
        struct diff *diff = pool_take(pool, sizeof *diff + bytes);
        *diff = (struct diff){.previous = page->diffs_last, .tag = tag, .bytes = bytes};
        memcpy(diff->body, body, bytes);
        if (page->diffs_last)
            page->diffs_last->next = diff;
        else
            page->diffs = diff;
        page->diffs_last = diff;
        page->diff_bytes += bytes;
    }
    pool_give(pool, body, room);
}

struct diff *page_diffs_after(const struct page *page, stamp tag)
{
    struct diff *first = NULL;
    for (struct diff *diff = page->diffs_last; diff && diff->tag > tag; diff = diff->previous)
        first = diff;
    return first;
}

void page_check(const struct page *page, const struct port *port)
{
    vector_check(&page->need, port);
    vector_check(&page->have, port);
    if (!page_pinned(page)) {
        if (page->access == ACCESS_WRITE && !page->writable)
            port->panic(port->context, "page: invariant 1: accessible for writing, but not open");
        if (page->access != ACCESS_NONE && !page_valid(page))
            port->panic(port->context, "page: invariant 1: accessible, but stale");
    }
    if (page->arriving && (page->copy || page->access != ACCESS_NONE || !page->fetch))
        port->panic(port->context, "apart: invariant 2: a page that is arriving has a copy, access, or no fetch");
    if (page->twin && !page->copy)
        port->panic(port->context, "page: invariant 2: a twin without a copy");
    for (const struct diff *diff = page->diffs; diff && diff->next; diff = diff->next)
        if (diff->tag >= diff->next->tag)
            port->panic(port->context, "page: invariant 3: tags do not ascend");
}
