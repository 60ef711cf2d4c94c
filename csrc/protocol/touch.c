/* How threads come to pages: faults, and pins, which promise that no fault will come. */
#include "protocol/node.h"

/* ---- faults ---------------------------------------------------------------------------------------------------- */

/* Sequential faults fetch ahead, in a window that doubles; pages that were never named to this node end it. */
static void read_ahead(struct node *node, struct region *region, uint64_t index)
{
    uint64_t most = node->options.ahead_bytes_max / region->page_bytes;
    if (region->ahead_next != index || index == 0)
        region->ahead_pages = 0;
    else
        region->ahead_pages = region->ahead_pages ? 2 * region->ahead_pages : 1;
    if (region->ahead_pages > most)
        region->ahead_pages = most;
    uint64_t next = index + 1, end = next + region->ahead_pages;
    for (; next < end && next < region->pages; next++) {
        struct page *page = region_page_if(region, next);
        if (!page)
            break;
        if (!page->fetch && !page_valid(page))
            fetch_start(node, page, true);
    }
    region->ahead_next = next;
}

static void count_fault(struct node *node, struct page *page, bool write, bool local)
{
    struct region_stats *stats = &page->region->stats;
    node->stats.faults_read += !write;
    node->stats.faults_write += write;
    node->stats.faults_local += local;
    stats->faults_read += !write;
    stats->faults_write += write;
    stats->faults_local += local;
    node_event(node, write ? EVENT_FAULT_WRITE : EVENT_FAULT_READ, page, 0, node->rank);
}

static enum fault_answer answer_fault(struct node *node, struct page *page, bool write)
{
    while (!page_valid(page)) {
        if (page->fetch) {
            page->fetch->ahead = false;
            return FAULT_WAIT;
        }
        if (node->collection.holding)
            return FAULT_WAIT;
        fetch_start(node, page, false);
        if (page->fetch && !page_pinned(page))
            read_ahead(node, page->region, page->index);
    }
    if (write && !page_open(node, page))
        return FAULT_WAIT;          /* a collection is under way, or the page is being sent */
    page_fill(page, &node->port);
    page_protect(node, page, page->writable ? ACCESS_WRITE : ACCESS_READ);
    return FAULT_DONE;
}

enum fault_answer node_fault(struct node *node, uint64_t offset, bool write, bool first)
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
        answer = answer_fault(node, page, write);   /* the kernel had no room, and everything was made inaccessible */
        node_settle(node);
        if (answer == FAULT_DONE && page->access < (write ? ACCESS_WRITE : ACCESS_READ))
            node_panic(node, "the kernel has no room for one more mapping beside the pinned pages (vm.max_map_count)");
    }
    return answer;
}

/* ---- pins ------------------------------------------------------------------------------------------------------ */

static struct page *page_at(struct node *node, uint64_t offset)
{
    struct region *region = region_at(&node->regions, offset);
    if (!region)
        node_panic(node, "pin: no region at offset %llu", (unsigned long long)offset);
    return region_page(region, &node->pool, (offset - region->offset) / region->page_bytes);
}

/* The list ascends, and so do most pins: the search begins at the last one. */
static void insert_pinned(struct node *node, struct page *page)
{
    struct page **link = &node->pinned;
    if (node->pinned_last && page_offset(node->pinned_last) < page_offset(page))
        link = &node->pinned_last->pin_next;
    while (*link && page_offset(*link) < page_offset(page))
        link = &(*link)->pin_next;
    page->pin_next = *link;
    *link = page;
    node->pinned_last = page;
}

static void remove_pinned(struct node *node, struct page *page)
{
    struct page **link = &node->pinned;
    while (*link != page)
        link = &(*link)->pin_next;
    *link = page->pin_next;
    node->pinned_last = NULL;
}

void node_pin(struct node *node, uint64_t offset, bool write)
{
    struct page *page = page_at(node, offset);
    if (!page_pinned(page))
        insert_pinned(node, page);
    if (!write) {
        page->pins_read++;
        return;
    }
    page->pins_write++;
    if (!page->twin)
        page_twin(page, &node->pool, &node->port);  /* it was exclusive; from now on it may be served while open */
}

void node_unpin(struct node *node, uint64_t offset, bool write)
{
    struct page *page = page_at(node, offset);
    uint32_t *pins = write ? &page->pins_write : &page->pins_read;
    if (*pins == 0)
        node_panic(node, "page %llu of region %u is not pinned", (unsigned long long)page->index, page->region->id);
    --*pins;
    if (!page_pinned(page))
        remove_pinned(node, page);
    if (!page_valid(page))
        page_make_stale(node, page);
    node_settle(node);
}

bool node_pins_valid(struct node *node)
{
    bool valid = true;
    for (struct page *page = node->pinned; page; page = page->pin_next)
        if (!page_valid(page)) {
            valid = false;
            if (!page->fetch && !node->collection.holding)
                fetch_start(node, page, false);
        }
    node_settle(node);
    return valid;
}
