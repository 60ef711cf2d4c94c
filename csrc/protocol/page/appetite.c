/* Writers of one region are few, so a table that is searched from its start is enough. */
#include "protocol/page/appetite.h"

enum { FED_PROBES_EVERY = 16 };

struct appetite *appetite_of(const struct appetites *appetites, node_id writer)
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
    bool hungry = appetite_hungry(appetite);
    if (hungry ? appetite->probes_used >= appetite->probes - appetite->probes / 4 : nearly_all) {
        appetite->versions++;
        appetite->fed += hungry;
    } else {
        appetite->versions = appetite->fed = 0;
    }
    appetite->named = appetite->used = appetite->probes = appetite->probes_used = 0;
}

struct appetite *appetite_notice(struct appetites *appetites, struct pool *pool, node_id writer, uint32_t batch,
                                 stamp closed, uint32_t pages)
{
    struct appetite *appetite = appetite_of(appetites, writer);
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

void appetite_use(const struct appetites *appetites, const struct vector *need, bool probe)
{
    for (uint32_t i = 0; i < need->count; i++) {
        struct vector_entry entry = vector_at(need, i);
        struct appetite *appetite = appetite_of(appetites, entry.node);
        if (!appetite || entry.stamp < appetite->since)
            continue;
        appetite->used += appetite->used < appetite->named;
        appetite->probes_used += probe && appetite->probes_used < appetite->probes;
    }
}

bool appetite_probes(const struct appetite *appetite)
{
    return (appetite->fed & (appetite->fed - 1)) == 0 || appetite->fed % FED_PROBES_EVERY == 0;
}
