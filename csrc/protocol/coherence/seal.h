/* seal - a page is made ready to be sent: protected, and its writes encoded as a diff (R4, R10).
 *
 *   seal_shut, protection_flush, seal_page -->  CLOSED     no space can write it: the next write faults, and is noticed
 *                                          -->  LAGGED     some space still can, or pins it: a snapshot is sent (H3)
 *   seal_open                              -->  PREOPENED  it is left open (push.h): likewise
 *
 * The snapshot becomes the twin, so that the next inspection finds what was written since.
 */
#pragma once

#include "protocol/page/page.h"

/* Before a page is served: protect it (batched), and with it what lies open between it and the last one ... */
void seal_shut(struct node *node, struct page *page);
/* ... and, after protection_flush, encode its writes, or defer that (`late`); where some space can write it, of a
 * snapshot.  Returns the tag. */
stamp seal_page(struct node *node, struct page *page, bool late);
/* Encode the writes of an open page since it was last sent, and leave it open: the next write takes no fault. */
stamp seal_open(struct node *node, struct page *page);
/* Encode a deferred diff: before others' writes change the page or its twin, and before its diffs are sent. */
void seal_encode_deferred(struct node *node, struct page *page);
