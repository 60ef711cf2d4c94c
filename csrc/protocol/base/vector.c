/* Linear search: a page has few writers, and a vector of three entries beats every cleverer table. */
#include "protocol/base/vector.h"

#include <string.h>

struct vector_entry vector_at(const struct vector *vector, uint32_t position)
{
    if (vector->count > 1)
        return vector->entries[position];
    return (struct vector_entry){.stamp = vector->stamp, .node = vector->node};
}

/* Where the node's stamp stands, or NULL. */
static const stamp *find(const struct vector *vector, node_id node)
{
    if (vector->count == 1)
        return vector->node == node ? &vector->stamp : NULL;
    for (uint32_t i = 0; i < vector->count; i++)
        if (vector->entries[i].node == node)
            return &vector->entries[i].stamp;
    return NULL;
}

stamp vector_get(const struct vector *vector, node_id node)
{
    const stamp *found = find(vector, node);
    return found ? *found : 0;
}

/* Room for `count` entries, at least two; those that are there are kept. */
static void grow(struct vector *vector, struct pool *pool, uint32_t count)
{
    struct vector_entry first = vector_at(vector, 0), *entries = vector->count > 1 ? vector->entries : NULL;
    uint32_t capacity = entries ? vector->capacity : 0;
    vector->entries = pool_grow(pool, entries, &capacity, count, sizeof *entries);
    vector->capacity = capacity;
    if (vector->count == 1)
        vector->entries[0] = first;
}

void vector_raise(struct vector *vector, struct pool *pool, node_id node, stamp to)
{
    if (to == 0)
        return;
    stamp *found = (stamp *)(uintptr_t)find(vector, node);
    if (found) {
        *found = *found < to ? to : *found;
        return;
    }
    if (vector->count == 0) {
        *vector = (struct vector){.stamp = to, .node = node, .count = 1};
        return;
    }
    grow(vector, pool, vector->count + 1);
    vector->entries[vector->count++] = (struct vector_entry){.stamp = to, .node = node};
}

void vector_copy(struct vector *to, struct pool *pool, const struct vector *from)
{
    if (from->count <= 1) {
        vector_clear(to, pool);
        *to = *from;
        return;
    }
    grow(to, pool, from->count);
    to->count = from->count;
    memcpy(to->entries, from->entries, from->count * sizeof *from->entries);
}

void vector_clear(struct vector *vector, struct pool *pool)
{
    if (vector->count > 1)
        pool_give(pool, vector->entries, vector->capacity * sizeof *vector->entries);
    *vector = (struct vector){0};
}

bool vector_covers(const struct vector *high, const struct vector *low, node_id except)
{
    for (uint32_t i = 0; i < low->count; i++) {
        struct vector_entry entry = vector_at(low, i);
        if (entry.node != except && vector_get(high, entry.node) < entry.stamp)
            return false;
    }
    return true;
}

void vector_check(const struct vector *vector, const struct port *port)
{
    for (uint32_t i = 0; i < vector->count; i++) {
        if (vector_at(vector, i).stamp == 0)
            port->panic(port->context, "vector: invariant 1: a stamp is 0");
        for (uint32_t k = 0; k < i; k++)
            if (vector_at(vector, k).node == vector_at(vector, i).node)
                port->panic(port->context, "vector: invariant 1: a node occurs twice");
    }
}
