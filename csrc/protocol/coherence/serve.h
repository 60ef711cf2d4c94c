/* serve - answers requests for pages (wire.h): the server's side.  The requester's is reply.h.
 *
 * The answer leaves at once, from the state before whatever this node is fetching itself (R4).  It waits for nothing
 * but bytes: where a page of the request is arriving by a bulk transfer, the whole message is deferred until it is
 * there (R15).
 *
 *   1. every page of the request is protected, neighbours by one call (seal_shut, protection_flush)
 *   2. page by page: its writes are encoded (seal_page), and its diffs or the whole page are put into the reply
 *   3. a reply leaves whenever it is FETCH_PIECE_BYTES long, and at the end
 *
 * A page that nobody has written since it was sealed is sent as it is, whole; or the request is sent on to a reader
 * that was sent the same (R17, page/crowd.h):
 *
 *   reader --FETCH--> first --FORWARD--> member of the crowd --FORWARD--> a member of its crowd --REPLY--> reader
 *                       ^------FORWARD------+ its copy lacks something
 *
 * A member that still awaits the reply which made it a member defers the message until then.  That reply has left, so
 * no two readers wait for each other.
 */
#pragma once

#include "protocol/page/page.h"

void serve_receive(struct node *node, struct message *message);
void serve_receive_forward(struct node *node, struct message *message);
