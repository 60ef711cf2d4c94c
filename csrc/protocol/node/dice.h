/* dice - random openings of pages, by the simulator and by chaos under MPI: allowed at any time. */
#pragma once

#include "protocol/base/context.h"

/* Open pages before they are written (R10), as the policy says. */
void dice_open_pages(struct node *node);
