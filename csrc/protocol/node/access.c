/* A fault starts the fetch that the page lacks, and opens it; it waits for nothing itself. */
#include "protocol/node/access.h"

#include "protocol/coherence/fetch.h"
#include "protocol/coherence/pin.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/writes.h"
#include "protocol/node/node.h"
#include "protocol/page/history.h"
#include "protocol/page/region.h"
#include "protocol/predict/readahead.h"
#include "protocol/predict/update.h"

/* ---- faults ----------------------------------------------------------------------------------------------------- */

static void count_fault(struct node *node, struct page *page, bool write, bool local)
{
    struct region_stats *stats = &page_region(page)->stats;
    stats->faults_read += !write;
    stats->faults_write += write;
    stats->faults_local += local;
    page_event(node, write ? EVENT_FAULT_WRITE : EVENT_FAULT_READ, page, node->number);
}

static enum access_answer answer_fault(struct node *node, struct page *page, bool write)
{
    bool valid = page_valid(page);
    if (valid && page->marker)
        readahead_read(node, page);
    if (!valid || (page_history(page) && page_history(page)->probe))
        history_touch(page, &node->pool);
    while (!page_valid(page)) {
        if (page_fetch(page)) {
            page_fetch(page)->speculative = false;
            return ACCESS_WAIT;
        }
        if (context_holds(node))
            return ACCESS_WAIT;
        fetch_start(node, page, false);
        if (!page_pinned(page))
            readahead_read(node, page);
    }
    bool closed = !page->writable || page->access == ACCESS_READ;
    if (write && !writes_open(node, page))
        return ACCESS_WAIT; /* a collection is under way, or the page is being sent */
    if (write && closed)
        readahead_write(node, page);
    context_assert(node, page->copy, "access: a page without a copy is shown to the program");
    context_assert(node, !write || page->writable, "access: a write fault left its page closed");
    context_assert(node, !page->arriving, "access: a page is shown to the program while it arrives (R15)");
    page_fill(page, node->port);
    protection_set(node, page, page->writable ? ACCESS_WRITE : ACCESS_READ);
    return ACCESS_DONE;
}

enum access_answer access_fault(struct node *node, uint64_t offset, bool write, bool first)
{
    struct region *region = region_at(node->regions, offset);
    if (!region)
        return ACCESS_OUTSIDE;
    struct page *page = region_page(region, &node->pool, (offset - region->offset) / region->page_bytes);
    enum access_answer answer = answer_fault(node, page, write);
    if (first)
        count_fault(node, page, write, answer == ACCESS_DONE);
    node_settle(node);
    if (answer == ACCESS_DONE && page->access < (write ? ACCESS_WRITE : ACCESS_READ)) {
        answer = answer_fault(node, page, write); /* the kernel had no room, and everything was made inaccessible */
        node_settle(node);
        if (answer == ACCESS_DONE && page->access < (write ? ACCESS_WRITE : ACCESS_READ))
            context_panic(node,
                          "the kernel has no room for one more mapping beside the pinned pages (vm.max_map_count)");
    }
    return answer;
}

/* ---- pins ------------------------------------------------------------------------------------------------------- */

static struct page *page_at(struct node *node, uint64_t offset)
{
    struct region *region = region_at(node->regions, offset);
    if (!region)
        context_panic(node, "pin: no region at offset %llu", (unsigned long long)offset);
    return region_page(region, &node->pool, (offset - region->offset) / region->page_bytes);
}

void access_pin(struct node *node, uint64_t offset, bool write)
{
    struct page *page = page_at(node, offset);
    struct page_extension *extension = page_extension(page, &node->pool);
    context_assert(node, page->access >= (write ? ACCESS_WRITE : ACCESS_READ), "access: a pin without the access");
    context_assert(node, page->copy, "access: a page is pinned that is not here");
    context_assert(node, !page->owed || page->twin, "access: a page is owed a notice and has no twin");
    if (!page_pinned(page))
        pin_insert(node, page);
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
        page_twin(page, &node->pool, node->port); /* it was exclusive; from now on it may be served while open */
}

void access_unpin(struct node *node, uint64_t offset, bool write)
{
    struct page *page = page_at(node, offset);
    if (!(write ? page_pinned_write(page) : page_pinned_read(page)))
        context_panic(node, "page %llu of region %u is not pinned", (unsigned long long)page_index(page),
                      page_region(page)->id);
    --*(write ? &page->extension->pins_write : &page->extension->pins_read);
    if (!page_pinned(page))
        pin_remove(node, page);
    page_tidy(page, &node->pool);
    if (!page_valid(page))
        protection_withdraw(node, page);
    node_settle(node);
}

bool access_caught_up(struct node *node)
{
    bool valid = update_done(node);
    for (struct page *page = node->pins->first; page; page = page->extension->pin_next)
        if (!page_valid(page)) {
            valid = false;
            if (!page_fetch(page) && !context_holds(node))
                fetch_start(node, page, false);
        }
    node_settle(node);
    return valid;
}
