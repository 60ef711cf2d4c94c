/* grant - the steps of a node when the token of a lock comes, with the notices of its last holder.
 *
 *   GRANT := uint32 lock, uint64 cuts that the sender has passed, intervals (sync/notices.h)
 */
#pragma once

#include "protocol/base/context.h"

void grant_receive(struct node *node, struct message *message);
