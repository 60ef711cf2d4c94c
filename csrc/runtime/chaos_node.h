/* chaos_node - what DSM_CHAOS does to a node; machine/chaos.h does the same to messages.
 *
 * All of it is allowed at any time: a page may be less accessible than its state allows (page.h), and a collection may
 * begin whenever a node wants one.
 */
#pragma once

#include <stdbool.h>

struct runtime;
struct node_options;

/* Choose what the seed leaves open, before the node is made. */
void chaos_node_choose(struct runtime *runtime, struct node_options *options);
/* Take the access to pages away, or request a collection.  True: progress_flush has something to send.  Under the
 * mutex. */
bool chaos_node_step(struct runtime *runtime);
