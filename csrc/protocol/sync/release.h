/* release - the open interval is closed, and its write notices are ready to be sent: before a grant, and before an
 * arrival. */
#pragma once

#include "protocol/base/context.h"

/* Diffs that subscribers lack are pushed to them: to `to` only, or (NODE_NONE) to all. */
void release_interval(struct node *node, node_id to);
