/* departure - the steps of a node when a meeting departs. */
#pragma once

#include "protocol/base/context.h"

void departure_receive(struct node *node, struct message *message);
