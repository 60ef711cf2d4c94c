/* trace - DSM_TRACE: the node's events, one line each, in a file of this rank. */
#pragma once

struct runtime;

/* 0, or an error with its text. */
int trace_open(struct runtime *runtime);
/* Write the node's events since the last call.  Under the mutex. */
void trace_write(struct runtime *runtime);
