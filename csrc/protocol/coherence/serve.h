/* serve - answers requests for pages (wire.h), at once: from the state before whatever this node is fetching itself
 * (R4). */
#pragma once

#include "protocol/page/page.h"

void serve_receive(struct node *node, struct message *message);
