/* check - those numbered invariants of the headers that need a look at every page and lock; the others are asserted
 * where they could break. */
#pragma once

#include "protocol/base/context.h"

/* Panics where one does not hold. */
void check_node(const struct node *node);
