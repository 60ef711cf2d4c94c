/* grant - what happens on a node when the token of a lock comes, with the notices of its last holder.
 *
 *   GRANT := uint32 lock, uint64 cuts that the sender has passed, intervals (sync/notices.h)
 */
#ifndef PROTOCOL_NODE_GRANT_H
#define PROTOCOL_NODE_GRANT_H

#include "protocol/base/context.h"

void grant_receive(struct node *node, struct message *message);

#endif
