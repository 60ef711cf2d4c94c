/* dice - what the simulator does to pages at random, and chaos under MPI: all of it is allowed at any time. */
#pragma once

#include "protocol/base/context.h"

/* Open pages before they are written (R10), as the policy says. */
void dice_open_pages(struct node *node);
