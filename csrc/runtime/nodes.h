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

/* The first rank of a node. */
int nodes_first(const struct runtime *runtime, node_id node);
/* A message of a node named the rank, + 1, that polls there; 0: none, so its first rank is as good as the others. */
void nodes_heard(struct runtime *runtime, node_id node, unsigned poller);
/* The place of a rank among the processes of its node. */
uint32_t nodes_space(const struct runtime *runtime, int rank);
