/* The home of a counter answers at once, from whatever thread is making progress there. */
#include "protocol/sync/counter.h"

node_id counter_home(const struct node *node, uint32_t counter)
{
    return (node_id)(counter % (uint32_t)node->size);
}

struct counter *counter_find(const struct node *node, uint32_t id)
{
    return table_find(&node->counters->all, id);
}

struct counter *counter_use(struct node *node, uint32_t id, int64_t start)
{
    struct counter *counter = counter_find(node, id);
    if (counter || id >= TABLE_MAX)
        return counter;
    counter = pool_take_persistent(&node->pool, sizeof *counter);
    *counter = (struct counter){.id = id, .start = start, .value = start};
    table_add(&node->counters->all, &node->pool, id, counter);
    return counter;
}

void counters_fini(struct node *node)
{
    struct counter *counter;
    for (uint32_t next = 0; (counter = table_next(&node->counters->all, &next));)
        pool_give_persistent(&node->pool, counter, sizeof *counter);
    table_fini(&node->counters->all, &node->pool);
    for (struct counter_request *request = node->counters->requests, *next; request; request = next) {
        next = request->next;
        pool_give(&node->pool, request, sizeof *request);
    }
}

bool counter_fits(int64_t before, int64_t delta)
{
    return delta >= 0 ? before <= INT64_MAX - delta : before >= INT64_MIN - delta;
}

static int64_t fetch_and_add(struct node *node, uint32_t id, int64_t delta)
{
    struct counter *counter = counter_find(node, id);
    context_assert(node, counter, "counter: an addition to a counter that was not made");
    context_assert(node, counter_home(node, id) == node->number, "counter: an addition far from home");
    int64_t before = counter->value;
    if (counter_fits(before, delta))
        counter->value = before + delta;
    node->wake |= delta != 0; /* a thread may be waiting for another value */
    return before;
}

uint64_t counter_add(struct node *node, const struct counter *counter, int64_t delta)
{
    struct counter_request *request = pool_take(&node->pool, sizeof *request);
    *request = (struct counter_request){.next = node->counters->requests, .ticket = ++node->counters->tickets};
    node->counters->requests = request;
    node->stats[node->me].counter_operations++;
    node_id home = counter_home(node, counter->id);
    if (home == node->number) {
        request->before = fetch_and_add(node, counter->id, delta);
        request->done = true;
        return request->ticket;
    }
    struct message *message = message_new(&node->pool, home, MESSAGE_ADD, RING_LATER, 32);
    message_put_u32(message, &node->pool, counter->id);
    message_put_u64(message, &node->pool, request->ticket);
    message_put_u64(message, &node->pool, (uint64_t)counter->start);
    message_put_u64(message, &node->pool, (uint64_t)delta);
    context_send(node, message);
    return request->ticket;
}

bool counter_poll(struct node *node, uint64_t ticket, int64_t *before)
{
    struct counter_request **link = &node->counters->requests;
    while (*link && (*link)->ticket != ticket)
        link = &(*link)->next;
    struct counter_request *request = *link;
    if (!request)
        context_panic(node, "counter: no operation with ticket %llu", (unsigned long long)ticket);
    context_assert(node, ticket <= node->counters->tickets, "counter: a ticket that was not given out");
    if (!request->done)
        return false;
    *before = request->before;
    *link = request->next;
    pool_give(&node->pool, request, sizeof *request);
    return true;
}

void counter_receive_add(struct node *node, struct message *message)
{
    struct reader reader = reader_of(message);
    uint32_t counter = reader_u32(&reader);
    uint64_t ticket = reader_u64(&reader), start = reader_u64(&reader), delta = reader_u64(&reader);
    if (!reader_ended(&reader) || counter_home(node, counter) != node->number ||
        !counter_use(node, counter, (int64_t)start))
        context_malformed(node, message);
    struct message *sum = message_answer(&node->pool, message, MESSAGE_SUM, 32);
    message_put_u64(sum, &node->pool, ticket);
    message_put_u64(sum, &node->pool, (uint64_t)fetch_and_add(node, counter, (int64_t)delta));
    context_send(node, sum);
}

void counter_receive_sum(struct node *node, const struct message *message)
{
    struct reader reader = reader_of(message);
    uint64_t ticket = reader_u64(&reader);
    int64_t before = (int64_t)reader_u64(&reader);
    if (!reader_ended(&reader))
        context_malformed(node, message);
    for (struct counter_request *request = node->counters->requests; request; request = request->next)
        if (request->ticket == ticket) {
            request->before = before;
            request->done = true;
            node->wake = true;
            return;
        }
    context_malformed(node, message);
}
