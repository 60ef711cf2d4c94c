/* Numbered level by level, as a heap. */
#include "protocol/sync/tree.h"

node_id tree_parent(node_id node)
{
    return node == 0 ? NODE_NONE : (node - 1) / TREE_CHILDREN;
}

node_id tree_child(node_id node, int k, node_id nodes)
{
    int64_t child = (int64_t)node * TREE_CHILDREN + 1 + k;
    return child < nodes ? (node_id)child : NODE_NONE;
}
