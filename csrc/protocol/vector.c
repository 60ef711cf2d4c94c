/* Linear search: a page has few writers, and a vector of three entries beats every cleverer table. */
#include "protocol/vector.h"

#include <string.h>

stamp vector_get(const struct vector *vector, node_id node)
{
    for (uint32_t i = 0; i < vector->count; i++)
        if (vector->entries[i].node == node)
            return vector->entries[i].stamp;
    return 0;
}

void vector_raise(struct vector *vector, struct pool *pool, node_id node, stamp to)
{
    if (to == 0)
        return;
    for (uint32_t i = 0; i < vector->count; i++)
        if (vector->entries[i].node == node) {
            if (vector->entries[i].stamp < to)
                vector->entries[i].stamp = to;
            return;
        }
    vector->entries = pool_grow(pool, vector->entries, &vector->capacity, vector->count + 1, sizeof *vector->entries);
    vector->entries[vector->count++] = (struct vector_entry){.stamp = to, .node = node};
}

void vector_copy(struct vector *to, struct pool *pool, const struct vector *from)
{
    to->entries = pool_grow(pool, to->entries, &to->capacity, from->count, sizeof *to->entries);
    to->count = from->count;
    if (from->count)
        memcpy(to->entries, from->entries, from->count * sizeof *from->entries);
}

void vector_clear(struct vector *vector, struct pool *pool)
{
    if (vector->entries)
        pool_give(pool, vector->entries, vector->capacity * sizeof *vector->entries);
    *vector = (struct vector){0};
}

bool vector_covers(const struct vector *high, const struct vector *low, node_id except)
{
    for (uint32_t i = 0; i < low->count; i++)
        if (low->entries[i].node != except && vector_get(high, low->entries[i].node) < low->entries[i].stamp)
            return false;
    return true;
}

void vector_check(const struct vector *vector, const struct port *port)
{
    for (uint32_t i = 0; i < vector->count; i++) {
        if (vector->entries[i].stamp == 0)
            port->panic(port->context, "vector: invariant 1: a stamp is 0");
        for (uint32_t k = 0; k < i; k++)
            if (vector->entries[k].node == vector->entries[i].node)
                port->panic(port->context, "vector: invariant 1: a node occurs twice");
    }
}
