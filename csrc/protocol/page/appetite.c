/* Writers of one region are few, so a table that is searched from its start is enough. */
#include "protocol/page/appetite.h"

/* NULL: it has named nothing yet. */
static struct appetite *find(const struct appetites *appetites, node_id writer)
{
    for (uint32_t i = 0; i < appetites->count; i++)
        if (appetites->items[i].writer == writer)
            return &appetites->items[i];
    return NULL;
}

/* A new batch shows what became of the last one. */
static void judge(struct appetite *appetite)
{
    bool nearly_all = appetite->used >= appetite->named - appetite->named / 8;
    if (appetite_hungry(appetite) ? appetite->probes_used >= appetite->probes - appetite->probes / 4 : nearly_all)
        appetite->versions++;
    else
        appetite->versions = 0;
    appetite->named = appetite->used = appetite->probes = appetite->probes_used = 0;
}

struct appetite *appetite_notice(struct appetites *appetites, struct pool *pool, node_id writer, uint32_t batch,
                                 stamp closed, uint32_t pages)
{
    struct appetite *appetite = find(appetites, writer);
    if (!appetite) {
        appetites->items =
            pool_grow(pool, appetites->items, &appetites->capacity, appetites->count + 1, sizeof *appetite);
        appetite = &appetites->items[appetites->count++];
        *appetite = (struct appetite){.writer = writer, .batch = batch, .since = closed};
    }
    if (appetite->batch != batch) {
        judge(appetite);
        appetite->batch = batch;
        appetite->since = closed;
    }
    appetite->named += pages;
    return appetite;
}

void appetite_count(const struct appetites *appetites, const struct vector *need, enum appetite_event event)
{
    for (uint32_t i = 0; i < need->count; i++) {
        struct vector_entry entry = vector_at(need, i);
        struct appetite *appetite = find(appetites, entry.node);
        if (!appetite || entry.stamp < appetite->since)
            continue;
        appetite->probes += event == APPETITE_PROBED;
        appetite->used += event != APPETITE_PROBED && appetite->used < appetite->named;
        appetite->probes_used += event == APPETITE_PROBE_USED && appetite->probes_used < appetite->probes;
    }
}
