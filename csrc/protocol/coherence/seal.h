/* seal - a page is made ready to be sent: protected, and its writes encoded as a diff (R4, R10).
 *
 *   OPEN -- seal_shut, protection_flush, seal_page --> VALID     the next write faults, and is noticed again
 *   OPEN -- seal_snapshot                          --> PREOPENED the page stays open; its twin is what was sent
 */
#pragma once

#include "protocol/page/page.h"

/* Before a page is served: protect it (batched), and with it what lies open between it and the last one.  A page
 * that was written again after each of the last times stays open ... */
void seal_shut(struct node *node, struct page *page);
/* ... and, after protection_flush, encode its writes, or defer that (`late`); an open page
 * is sealed as a snapshot.  Returns the tag. */
stamp seal_page(struct node *node, struct page *page, bool late);
/* Encode the writes since the page was last sent, and leave it preopened: the next write takes no fault. */
void seal_snapshot(struct node *node, struct page *page);
/* Encode a deferred diff: before others' writes change the page or its twin, and before its diffs are sent. */
void seal_encode_deferred(struct node *node, struct page *page);
