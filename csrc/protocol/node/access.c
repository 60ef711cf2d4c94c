/* A fault starts the fetch that the page lacks, and opens it; it waits for nothing itself. */
#include "protocol/node/access.h"

#include "protocol/coherence/alone.h"
#include "protocol/coherence/cache.h"
#include "protocol/coherence/changes.h"
#include "protocol/coherence/fetch.h"
#include "protocol/coherence/pin.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/writes.h"
#include "protocol/node/node.h"
#include "protocol/page/accesses.h"
#include "protocol/page/history.h"
#include "protocol/page/region.h"
#include "protocol/predict/readahead.h"
#include "protocol/predict/update.h"

/* ---- faults ----------------------------------------------------------------------------------------------------- */

static void count_fault(struct node *node, struct region *region, uint64_t offset, bool write, bool local)
{
    region->stats[node->me].faults_read += !write;
    region->stats[node->me].faults_write += write;
    region->stats[node->me].faults_local += local;
    context_page_event(node, write ? EVENT_FAULT_WRITE : EVENT_FAULT_READ, region->id,
                       (offset - region->offset) / region->page_bytes, node->number, 0);
}

static enum access_answer answer_alone(struct node *node, struct region *region, uint64_t offset, bool write,
                                       bool first)
{
    alone_open(node, region, offset);
    if (first)
        count_fault(node, region, offset, write, true);
    node_settle(node);
    return ACCESS_DONE;
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
        readahead_read(node, page);
    }
    bool closed = !page_open(page) || page_access(node, page) == ACCESS_READ;
    if (write && !writes_open(node, page))
        return ACCESS_WAIT; /* a collection is under way, or the page is being sent */
    if (write && closed)
        readahead_write(node, page);
    context_assert(node, page->copy, "access: a page without a copy is shown to the program");
    context_assert(node, !write || page_open(page), "access: a write fault left its page closed");
    context_assert(node, !page->arriving, "access: a page is shown to the program while it arrives (R15)");
    page_fill(page, node->port);
    /* Never less than the space has: another thread of it may have pinned the page (H9). */
    enum access access = page_open(page) ? ACCESS_WRITE : ACCESS_READ;
    if (page_access(node, page) < access)
        protection_set(node, page, access);
    if (node->options.races && !write)
        accesses_read(node, page);
    return ACCESS_DONE;
}

enum access_answer access_fault(struct node *node, uint64_t offset, bool write, bool first)
{
    struct region *region = region_at(node->regions, offset);
    if (!region)
        return ACCESS_OUTSIDE;
    if (alone_is(node))
        return answer_alone(node, region, offset, write, first);
    struct page *page = region_page(region, &node->pool, (offset - region->offset) / region->page_bytes);
    enum access_answer answer = answer_fault(node, page, write);
    if (first)
        count_fault(node, region, offset, write, answer == ACCESS_DONE);
    node->cache->promised = answer == ACCESS_DONE;
    node_settle(node);
    if (answer == ACCESS_DONE && page_access(node, page) < (write ? ACCESS_WRITE : ACCESS_READ)) {
        answer = answer_fault(node, page, write); /* the kernel had no room, and everything was made inaccessible */
        node_settle(node);
        if (answer == ACCESS_DONE && page_access(node, page) < (write ? ACCESS_WRITE : ACCESS_READ))
            context_panic(node,
                          "the kernel has no room for one more mapping beside the pinned pages (vm.max_map_count)");
    }
    node->cache->promised = false;
    return answer;
}

node_id access_awaited(const struct node *node, uint64_t offset)
{
    const struct region *region = region_at(node->regions, offset);
    const struct page *page = region ? region_page_if(region, (offset - region->offset) / region->page_bytes) : NULL;
    return fetch_awaits(page ? page_fetch(page) : NULL);
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
    if (alone_is(node))
        return; /* nothing takes access away */
    struct page *page = page_at(node, offset);
    context_assert(node, page_access(node, page) >= (write ? ACCESS_WRITE : ACCESS_READ),
                   "access: a pin without the access");
    context_assert(node, page->copy, "access: a page is pinned that is not here");
    struct pin *pin = pin_make(node, page);
    ++*(write ? &pin->writes : &pin->reads);
}

void access_unpin(struct node *node, uint64_t offset, bool write)
{
    if (alone_is(node))
        return;
    struct page *page = page_at(node, offset);
    struct pin *pin = pin_find(node, page);
    uint32_t *count = !pin ? NULL : write ? &pin->writes : &pin->reads;
    if (!count || *count == 0)
        context_panic(node, "page %llu of region %u is not pinned", (unsigned long long)page_index(page),
                      page_region(page)->id);
    --*count;
    if (pin->reads + pin->writes == 0) {
        pin_remove(node, pin);
        changes_add(node, page); /* what was passed over while it was pinned */
    }
    node_settle(node);
}

/* ---- after an acquire ------------------------------------------------------------------------------------------- */

bool access_behind(const struct node *node)
{
    return changes_due(node, node->me) || node->pins->first[node->me] || !update_done(node);
}

/* The update set first, so that the space keeps its access to it.  Then it follows, and looks whether all that it
 * pins is valid, in one moment: a page that another thread pins in between, with access that lags, is among these. */
bool access_caught_up(struct node *node)
{
    bool valid = update_done(node);
    if (valid)
        changes_follow(node);
    for (const struct pin *pin = node->pins->first[node->me]; pin; pin = pin->next)
        if (!page_valid(pin->page)) {
            valid = false;
            if (!page_fetch(pin->page) && !context_holds(node))
                fetch_start(node, pin->page, false);
        }
    node_settle(node);
    return valid;
}
