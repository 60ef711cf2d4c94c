/* node_port - what the protocol asks of this machine (struct port), answered by machine/. */
#pragma once

#include "protocol/base/port.h"

struct runtime;

struct port node_port_make(struct runtime *runtime);

/* While nothing arrives: do what the next message would have to wait for, a little at a time, about as long as an
 * answer takes; several times that where the machine is a virtual one that gave its free memory back. */
void node_port_prepare(struct runtime *runtime);
