/* pushed - the reader's half of pushes (push.h).
 *
 * A push is an early reply.  It is kept until a notice makes the page stale (where the notice came first it is used at
 * once), and then serves the fetch, which ends at once if nothing else is missing.  It is used only if it starts at or
 * before what the copy has; what it says of other writers' diffs (R3) counts as in a reply, but not before it is used.
 */
#pragma once

#include "protocol/coherence/install.h"

/* The next page of a PUSH is read, and kept with the page's history.  NULL: it is of no use here. */
struct page *pushed_read(struct node *node, struct message *message, struct reader *reader);
/* The fetch awaits no reply: it takes the pushes of its page that continue what it has. */
void pushed_use(struct node *node, struct fetch *fetch);
