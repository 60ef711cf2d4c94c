/* serve - answers requests for pages (wire.h), at once: from the state before whatever this node is fetching itself
 * (R4). */
#ifndef PROTOCOL_COHERENCE_SERVE_H
#define PROTOCOL_COHERENCE_SERVE_H

#include "protocol/page/page.h"

void serve_receive(struct node *node, struct message *message);

#endif
