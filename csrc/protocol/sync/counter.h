/* counter - a number that is atomic at its home node.  It carries no write notices and orders nothing.
 *
 * A counter is made by its first use, which may be an addition from afar: all ranks count alike, and an addition says
 * at which number the counter starts.
 */
#pragma once

#include "protocol/base/context.h"
#include "protocol/base/table.h"

enum { COUNTER_NAME_BYTES = 56 };

struct counter {
    uint32_t id;
    int64_t start;
    int64_t value; /* at its home: the number modulo the size */
    char name[COUNTER_NAME_BYTES];
};

/* An operation of a thread of this node that is under way. */
struct counter_request {
    struct counter_request *next;
    uint64_t ticket;
    int64_t before;
    bool done;
};

struct counters {
    struct table all;
    struct counter_request *requests;
    uint64_t tickets;
};

/* True: the sum fits.  Otherwise the home adds nothing; the requester sees that by the value before. */
bool counter_fits(int64_t before, int64_t delta);
/* Start adding; the ticket is never 0.  A home counter is done at once. */
uint64_t counter_add(struct node *node, const struct counter *counter, int64_t delta);
/* True when it is done: *before is set and the ticket ended. */
bool counter_poll(struct node *node, uint64_t ticket, int64_t *before);

/* The node that has its value. */
node_id counter_home(const struct node *node, uint32_t counter);
/* NULL: not used here yet. */
struct counter *counter_find(const struct node *node, uint32_t id);
/* The same, made if need be; NULL: there are no so many. */
struct counter *counter_use(struct node *node, uint32_t id, int64_t start);
void counters_fini(struct node *node);

void counter_receive_add(struct node *node, struct message *message);
void counter_receive_sum(struct node *node, const struct message *message);
