/* delivery - what the transport asks of this rank: memory for messages from the node's pool, and places for their
 * parts. */
#pragma once

#include "machine/envelope.h"

struct runtime;

struct transport_buffers delivery_buffers(struct runtime *runtime);
