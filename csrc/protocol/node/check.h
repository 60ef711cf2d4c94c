/* check - the numbered invariants of the headers, looked at all at once. */
#ifndef PROTOCOL_NODE_CHECK_H
#define PROTOCOL_NODE_CHECK_H

#include "protocol/base/context.h"

/* Panics where one does not hold. */
void check_node(const struct node *node);

#endif
