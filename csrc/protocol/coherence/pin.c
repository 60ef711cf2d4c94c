/* Most pins come in ascending order, so an insertion begins its search at the last one. */
#include "protocol/coherence/pin.h"

void pin_insert(struct node *node, struct page *page)
{
    context_assert(node, !page_pinned(page), "pin: a page is listed twice");
    struct page **link = &node->pins->first;
    if (node->pins->last && page_offset(node->pins->last) < page_offset(page))
        link = &node->pins->last->extension->pin_next;
    while (*link && page_offset(*link) < page_offset(page))
        link = &(*link)->extension->pin_next;
    context_assert(node, *link != page, "pin: a page is listed and not pinned");
    page->extension->pin_next = *link;
    *link = page;
    node->pins->last = page;
}

void pin_remove(struct node *node, struct page *page)
{
    context_assert(node, !page_pinned(page), "pin: a page leaves the list and is pinned");
    struct page **link = &node->pins->first;
    while (*link != page) {
        context_assert(node, *link, "pin: a pinned page is not listed");
        link = &(*link)->extension->pin_next;
    }
    *link = page->extension->pin_next;
    node->pins->last = NULL;
}

void pin_remove_region(struct node *node, const struct region *region)
{
    node->pins->last = NULL;
    for (struct page **link = &node->pins->first; *link;) {
        if (page_region(*link) == region)
            *link = (*link)->extension->pin_next;
        else
            link = &(*link)->extension->pin_next;
    }
}
