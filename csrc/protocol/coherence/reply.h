/* reply - the requester's side of an answer (the server's is serve.h): runs of whole pages and diffs are taken in, and
 * fetches go on.
 *
 * Whole pages by bulk transfer come in two steps: their message says where their bytes go (reply_place), and is
 * received (reply_receive) when they are there.
 */
#pragma once

#include "protocol/page/page.h"

void reply_place(struct node *node, struct message *message);
void reply_receive(struct node *node, struct message *message);
