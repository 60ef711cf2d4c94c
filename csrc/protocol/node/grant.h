/* grant - the steps of a node when the token of a lock comes, with the notices of its last holder.
 *
 * Where the sender has passed a cut that this node has not, the message is deferred until this node departs, too: the
 * sender's log no longer holds what that departure will bring (R7).  Otherwise: notices are applied, the update set is
 * refetched, the token is here, and a thread may take it (lock_poll).
 *
 * A flag that was set comes with the notices of its setter in the same way, and the thread that waits sees it set.
 *
 *   GRANT   := uint32 lock, uint64 cuts that the sender has passed, intervals (sync/notices.h)
 *   PUBLISH := uint64 number (0: asked for), uint64 cuts, told (sync/event.c), intervals
 */
#pragma once

#include "protocol/base/context.h"

void grant_receive(struct node *node, struct message *message);
void grant_receive_publish(struct node *node, struct message *message);
