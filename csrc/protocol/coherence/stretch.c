/* A page is closed before it is encoded, as it is when it is served: a write after that faults, and is in the next
 * diff.  A pinned page stays open; its snapshot becomes its twin. */
#include "protocol/coherence/stretch.h"

#include "protocol/base/sort.h"
#include "protocol/coherence/pin.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/seal.h"

static bool page_before(const void *a, const void *b)
{
    return page_offset(a) < page_offset(b);
}

static bool may_be_written(const struct page *page)
{
    return page->copy && !page->arriving && (page->twin || page_open(page));
}

/* Still accessible: read in the next stretch as far as this log can tell. */
static void keep(struct node *node, struct page *page)
{
    page->accessed = false;
    accesses_opened(node, page);
    accesses_read(node, page);
}

void stretch_harvest(struct node *node)
{
    struct accesses *accesses = node->accesses;
    uint32_t count = accesses->opened_count;
    sort_pointers((void **)accesses->opened, count, page_before);
    for (uint32_t i = 0; i < count; i++)
        if (!pin_find(node, accesses->opened[i]))
            protection_set(node, accesses->opened[i], ACCESS_NONE);
    protection_flush(node);
    for (uint32_t i = 0; i < count; i++)
        if (may_be_written(accesses->opened[i]))
            seal_page(node, accesses->opened[i], false);
}

void stretch_end(struct node *node, uint32_t site)
{
    struct accesses *accesses = node->accesses;
    stretch_harvest(node);
    accesses_end(node, context_tick(node), site);
    uint32_t count = accesses->opened_count;
    accesses->opened_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct page *page = accesses->opened[i];
        page->accessed = page->read = false;
        if (page_access(node, page) != ACCESS_NONE)
            keep(node, page);
    }
}
