/* pin - the list of pinned pages, in ascending order of addresses.
 *
 * A pinned page stays accessible to the kernel and to MPI, whatever other nodes write.  An acquire and a barrier bring
 * it up to date before they return.
 */
#pragma once

#include "protocol/page/page.h"

struct pins {
    struct page *first; /* linked by pin_next */
    struct page *last;  /* the page that was inserted last, or NULL */
};

void pin_insert(struct node *node, struct page *page);
void pin_remove(struct node *node, struct page *page);
/* The region goes, with its pages. */
void pin_remove_region(struct node *node, const struct region *region);
