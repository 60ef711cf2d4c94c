/* How threads come to pages: faults, and pins, which promise that no fault will come. */
#include "protocol/node.h"

/* ---- faults ---------------------------------------------------------------------------------------------------- */

static void count_fault(struct node *node, struct page *page, bool write, bool local)
{
    struct region_stats *stats = &page_region(page)->stats;
    node->stats.faults_read += !write;
    node->stats.faults_write += write;
    node->stats.faults_local += local;
    stats->faults_read += !write;
    stats->faults_write += write;
    stats->faults_local += local;
    context_event(node, write ? EVENT_FAULT_WRITE : EVENT_FAULT_READ, page, 0, node->rank);
}

static enum fault_answer answer_fault(struct node *node, struct page *page, bool write)
{
    bool valid = page_valid(page);
    if (valid && page->marker)
        readahead_read(node, page);
    if (!valid || (page_history(page) && page_history(page)->probe))
        history_touch(page, &node->pool);
    while (!page_valid(page)) {
        if (page_fetch(page)) {
            page_fetch(page)->ahead = false;
            return FAULT_WAIT;
        }
        if (node->collection.holding)
            return FAULT_WAIT;
        fetch_start(node, page, false);
        if (!page_pinned(page))
            readahead_read(node, page);
    }
    bool closed = !page->writable || page->access == ACCESS_READ;
    if (write && !writes_open(node, page))
        return FAULT_WAIT; /* a collection is under way, or the page is being sent */
    if (write && closed)
        readahead_write(node, page);
    page_fill(page, &node->port);
    protection_set(node, page, page->writable ? ACCESS_WRITE : ACCESS_READ);
    return FAULT_DONE;
}

enum fault_answer access_fault(struct node *node, uint64_t offset, bool write, bool first)
{
    struct region *region = region_at(&node->regions, offset);
    if (!region)
        return FAULT_OUTSIDE;
    struct page *page = region_page(region, &node->pool, (offset - region->offset) / region->page_bytes);
    enum fault_answer answer = answer_fault(node, page, write);
    if (first)
        count_fault(node, page, write, answer == FAULT_DONE);
    node_settle(node);
    if (answer == FAULT_DONE && page->access < (write ? ACCESS_WRITE : ACCESS_READ)) {
        answer = answer_fault(node, page, write); /* the kernel had no room, and everything was made inaccessible */
        node_settle(node);
        if (answer == FAULT_DONE && page->access < (write ? ACCESS_WRITE : ACCESS_READ))
            context_panic(node,
                          "the kernel has no room for one more mapping beside the pinned pages (vm.max_map_count)");
    }
    return answer;
}

/* ---- pins ------------------------------------------------------------------------------------------------------ */

static struct page *page_at(struct node *node, uint64_t offset)
{
    struct region *region = region_at(&node->regions, offset);
    if (!region)
        context_panic(node, "pin: no region at offset %llu", (unsigned long long)offset);
    return region_page(region, &node->pool, (offset - region->offset) / region->page_bytes);
}

/* The list ascends, and so do most pins: the search begins at the last one. */
static void insert_pinned(struct node *node, struct page *page)
{
    struct page **link = &node->pinned;
    if (node->pinned_last && page_offset(node->pinned_last) < page_offset(page))
        link = &node->pinned_last->extension->pin_next;
    while (*link && page_offset(*link) < page_offset(page))
        link = &(*link)->extension->pin_next;
    page->extension->pin_next = *link;
    *link = page;
    node->pinned_last = page;
}

static void remove_pinned(struct node *node, struct page *page)
{
    struct page **link = &node->pinned;
    while (*link != page)
        link = &(*link)->extension->pin_next;
    *link = page->extension->pin_next;
    node->pinned_last = NULL;
}

void access_pin(struct node *node, uint64_t offset, bool write)
{
    struct page *page = page_at(node, offset);
    struct page_extension *extension = page_extension(page, &node->pool);
    if (!page_pinned(page))
        insert_pinned(node, page);
    if (!write) {
        extension->pins_read++;
        return;
    }
    if (page->preopened) {
        page->preopened = false; /* from here on nobody looks at it */
        writes_mark_dirty(node, page);
    }
    extension->pins_write++;
    if (!page->twin)
        page_twin(page, &node->pool, &node->port); /* it was exclusive; from now on it may be served while open */
}

void access_unpin(struct node *node, uint64_t offset, bool write)
{
    struct page *page = page_at(node, offset);
    if (!(write ? page_pinned_write(page) : page_pinned_read(page)))
        context_panic(node, "page %llu of region %u is not pinned", (unsigned long long)page_index(page),
                      page_region(page)->id);
    --*(write ? &page->extension->pins_write : &page->extension->pins_read);
    if (!page_pinned(page))
        remove_pinned(node, page);
    page_tidy(page, &node->pool);
    if (!page_valid(page))
        protection_make_stale(node, page);
    node_settle(node);
}

bool access_caught_up(struct node *node)
{
    bool valid = update_done(node);
    for (struct page *page = node->pinned; page; page = page->extension->pin_next)
        if (!page_valid(page)) {
            valid = false;
            if (!page_fetch(page) && !node->collection.holding)
                fetch_start(node, page, false);
        }
    node_settle(node);
    return valid;
}
