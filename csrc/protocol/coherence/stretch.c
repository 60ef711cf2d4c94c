/* A page is closed before it is encoded, as it is when it is served: a write after that faults, and is in the next
 * diff.  Of a page that stays open a snapshot is encoded, which becomes its twin. */
#include "protocol/coherence/stretch.h"

#include "protocol/base/sort.h"
#include "protocol/coherence/pin.h"
#include "protocol/coherence/preopened.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/seal.h"

static bool page_before(const void *a, const void *b)
{
    return page_offset(a) < page_offset(b);
}

/* No other node is known to have written it. */
static bool is_private(const struct node *node, const struct page *page)
{
    return page->need.count == 0 || (page->need.count == 1 && vector_at(&page->need, 0).node == node->number);
}

static bool stays(const struct node *node, const struct page *page)
{
    if (pin_find(node, page))
        return true;
    return node->collection.phase == COLLECTION_IDLE && page->writers && page_open(page) && page_valid(page) &&
           page->twin && is_private(node, page);
}

static bool may_be_written(const struct page *page)
{
    return page->copy && !page->arriving && (page->twin || page_open(page));
}

static void encode(struct node *node, struct page *page)
{
    bool open = page->writers && page_open(page) && !pin_find(node, page);
    if (open && preopened_changed(node, page))
        seal_open(node, page);
    else if (!open)
        seal_page(node, page, false);
}

static void close_others(struct node *node, bool (*keeps)(const struct node *node, const struct page *page))
{
    struct accesses *accesses = node->accesses;
    sort_pointers((void **)accesses->opened, accesses->opened_count, page_before);
    for (uint32_t i = 0; i < accesses->opened_count; i++)
        if (!keeps(node, accesses->opened[i]))
            protection_set(node, accesses->opened[i], ACCESS_NONE);
    protection_flush(node);
    for (uint32_t i = 0; i < accesses->opened_count; i++)
        if (may_be_written(accesses->opened[i]))
            encode(node, accesses->opened[i]);
}

static bool is_pinned(const struct node *node, const struct page *page)
{
    return pin_find(node, page);
}

void stretch_harvest(struct node *node)
{
    close_others(node, is_pinned);
}

void stretch_end(struct node *node, uint32_t site, bool meets)
{
    struct accesses *accesses = node->accesses;
    close_others(node, meets && node->options.races_stay_open ? stays : is_pinned);
    accesses_end(node, context_tick(node), site);
    uint32_t count = accesses->opened_count;
    accesses->opened_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct page *page = accesses->opened[i];
        page->accessed = page->read = false;
        if (!page->readers)
            continue;
        accesses_keep(node, page);
        accesses_opened(node, page);
    }
}
