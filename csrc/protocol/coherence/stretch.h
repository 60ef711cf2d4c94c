/* stretch - what a rank does between two synchronising calls, as `run --races` sees it (page/accesses.h).
 *
 * While a stretch lasts, each page that the space may touch is one that it has touched: a page is closed when a stretch
 * begins, so that its first read and its first write fault.  What was written shows in the diffs that are encoded when
 * the stretch ends, or before, when another node asks for them.  Nothing else of the protocol depends on stretches.
 */
#pragma once

#include "protocol/page/accesses.h"

/* What is written is encoded, and so logged; all but pinned pages are closed. */
void stretch_harvest(struct node *node);
/* The same, and the stretch ends at this site of the program.  Call it before a release, and after an acquire.
 * `meets`: at a collective call.  Then, with the option `races_stay_open`, a page that no other node is known to have
 * written stays open, and a snapshot of it is encoded: a program of barriers takes no fault for what only it writes. */
void stretch_end(struct node *node, uint32_t site, bool meets);
