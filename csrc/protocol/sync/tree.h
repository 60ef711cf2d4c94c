/* tree - the tree of nodes that meetings, collections and roll calls run over: TREE_CHILDREN to a parent, node 0 at
 * the root. */
#pragma once

#include "protocol/base/types.h"

enum { TREE_CHILDREN = 4 };

/* NODE_NONE: it is the root. */
node_id tree_parent(node_id node);
/* NODE_NONE: there is none of this number. */
node_id tree_child(node_id node, int k, node_id nodes);
