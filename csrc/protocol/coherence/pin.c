/* Most pins come in ascending order, so an insertion begins its search at the last one. */
#include "protocol/coherence/pin.h"

struct pin *pin_find(const struct node *node, const struct page *page)
{
    struct pin *pin = page->extension ? page->extension->pins : NULL;
    while (pin && pin->space != node->me)
        pin = pin->other;
    return pin;
}

struct pin *pin_make(struct node *node, struct page *page)
{
    struct pin *found = pin_find(node, page), **first = &node->pins->first[node->me], **link = first;
    if (found)
        return found;
    struct pin *last = node->pins->last[node->me];
    if (last && page_offset(last->page) < page_offset(page))
        link = &last->next;
    while (*link && page_offset((*link)->page) < page_offset(page))
        link = &(*link)->next;
    struct page_extension *extension = page_extension(page, &node->pool);
    struct pin *pin = pool_take(&node->pool, sizeof *pin);
    *pin = (struct pin){.next = *link, .other = extension->pins, .page = page, .space = node->me};
    *link = extension->pins = node->pins->last[node->me] = pin;
    return pin;
}

/* Out of the list of its page. */
static void leave_page(struct node *node, struct pin *pin)
{
    struct pin **link = &pin->page->extension->pins;
    while (*link != pin) {
        context_assert(node, *link, "pin: a page does not know of its pin");
        link = &(*link)->other;
    }
    *link = pin->other;
    page_tidy(pin->page, &node->pool);
    pool_give(&node->pool, pin, sizeof *pin);
}

void pin_remove(struct node *node, struct pin *pin)
{
    struct pin **link = &node->pins->first[pin->space];
    context_assert(node, pin->reads + pin->writes == 0, "pin: a pin leaves its list and is in use");
    while (*link != pin) {
        context_assert(node, *link, "pin: a pinned page is not listed");
        link = &(*link)->next;
    }
    *link = pin->next;
    node->pins->last[pin->space] = NULL;
    leave_page(node, pin);
}

void pin_remove_region(struct node *node, const struct region *region)
{
    for (uint32_t space = 0; space < node->spaces; space++) {
        node->pins->last[space] = NULL;
        for (struct pin **link = &node->pins->first[space], *pin; (pin = *link);) {
            if (page_region(pin->page) != region) {
                link = &pin->next;
                continue;
            }
            *link = pin->next;
            leave_page(node, pin);
        }
    }
}
