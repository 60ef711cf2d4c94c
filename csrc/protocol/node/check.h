/* check - the numbered invariants of the headers, looked at all at once. */
#pragma once

#include "protocol/base/context.h"

/* Panics where one does not hold. */
void check_node(const struct node *node);
