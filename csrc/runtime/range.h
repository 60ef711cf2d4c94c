/* range - the shared range of addresses, which all ranks map at the same place when dsm starts. */
#pragma once

struct runtime;

/* Collective.  0, or an error with its text. */
int range_map(struct runtime *runtime);
