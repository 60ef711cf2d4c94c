/* release - the open interval is closed, and its write notices are ready to be sent: before a grant, before an arrival,
 * and when a flag changes. */
#pragma once

#include "protocol/base/context.h"
#include "protocol/page/interval.h"

void release_interval(struct node *node);
/* The same, and the interval has one more run (or NULL), which names no pages: so there is one even where nothing was
 * written. */
void release_naming(struct node *node, const struct run *flag);
