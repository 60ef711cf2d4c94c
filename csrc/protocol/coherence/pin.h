/* pin - a space keeps its access to a page, whatever other nodes write: for the kernel and for MPI, which do not fault.
 *
 * A pin is lag that does not end: the space passes the page over when it follows the changes, and an acquire and a
 * barrier of the space bring it up to date before they return.
 *
 * Invariants
 *  1. The pins of a space ascend by the addresses of their pages; each has a count.
 */
#pragma once

#include "protocol/page/page.h"

struct pin {
    struct pin *next;  /* of the space */
    struct pin *other; /* of the page, by another space */
    struct page *page;
    uint32_t space, reads, writes;
};

struct pins {
    struct pin *first[SPACES_MAX];
    struct pin *last[SPACES_MAX]; /* the one that was inserted last, or NULL */
};

/* Of the space that is inside, or NULL. */
struct pin *pin_find(const struct node *node, const struct page *page);
/* The same, made if there is none: the caller counts. */
struct pin *pin_make(struct node *node, struct page *page);
/* Nothing is counted any more. */
void pin_remove(struct node *node, struct pin *pin);
/* The region goes, with its pages: the pins of all spaces. */
void pin_remove_region(struct node *node, const struct region *region);
