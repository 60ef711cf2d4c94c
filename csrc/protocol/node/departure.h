/* departure - what happens on a node when a meeting departs. */
#ifndef PROTOCOL_NODE_DEPARTURE_H
#define PROTOCOL_NODE_DEPARTURE_H

#include "protocol/base/context.h"

void departure_receive(struct node *node, struct message *message);

#endif
