/* nodes - which ranks are one node of the protocol: those of a host, which share its memory.
 *
 * Ranks of a host are divided evenly where a node may not have so many (DSM_NODE, SPACES_MAX).  The first rank of a
 * node makes what they share; the others open it.  Where one of them cannot, each rank of that host is a node of its
 * own.
 *
 * States: chosen (nodes_choose) -> joined (nodes_join): the range and the arena of each rank are those of its node.
 */
#pragma once

#include "runtime/runtime.h"

/* Divide the ranks.  Collective.  0, or -1: no memory. */
int nodes_choose(struct runtime *runtime);
/* Map what the first rank of the node has made.  Collective.  0 or an error of dsm.h. */
int nodes_join(struct runtime *runtime);

/* The first rank of a node, which is sent what any of its processes may take. */
int nodes_first(const struct runtime *runtime, node_id node);
/* The place of a rank among the processes of its node. */
uint32_t nodes_space(const struct runtime *runtime, int rank);
