/* Levels of arrays; those of the last one hold the things. */
#include "protocol/base/table.h"

#include <stdatomic.h>
#include <string.h>

enum { BITS = 5 };
_Static_assert(1 << BITS == TABLE_WIDTH && 1 << BITS * TABLE_LEVELS == TABLE_MAX, "widths of the levels");

struct array {
    _Atomic(void *) at[TABLE_WIDTH];
};

/* How many numbers one entry of a level stands for; the root is level 0. */
static uint32_t width_of(int level)
{
    return 1u << BITS * (TABLE_LEVELS - 1 - level);
}

void *table_find(const struct table *table, uint32_t number)
{
    void *found = number < TABLE_MAX ? atomic_load(&table->root) : NULL;
    for (int level = 0; level < TABLE_LEVELS && found; level++)
        found = atomic_load(&((struct array *)found)->at[number / width_of(level) % TABLE_WIDTH]);
    return found;
}

void table_add(struct table *table, struct pool *pool, uint32_t number, void *thing)
{
    _Atomic(void *) *link = &table->root;
    for (int level = 0; level < TABLE_LEVELS; level++) {
        if (!atomic_load(link)) {
            struct array *made = pool_take_persistent(pool, sizeof *made);
            memset(made, 0, sizeof *made);
            atomic_store(link, made);
        }
        link = &((struct array *)atomic_load(link))->at[number / width_of(level) % TABLE_WIDTH];
    }
    atomic_store(link, thing);
}

void *table_next(const struct table *table, uint32_t *number)
{
    while (*number < TABLE_MAX) {
        void *found = atomic_load(&table->root);
        uint32_t missing = TABLE_MAX; /* numbers that the entry stands for at which the search ends */
        for (int level = 0; level < TABLE_LEVELS && found; level++) {
            missing = width_of(level);
            found = atomic_load(&((struct array *)found)->at[*number / missing % TABLE_WIDTH]);
        }
        *number = (*number / missing + 1) * missing;
        if (found)
            return found;
    }
    return NULL;
}

static void give(struct pool *pool, void *given, int level)
{
    if (!given)
        return;
    struct array *array = given;
    for (int i = 0; level < TABLE_LEVELS - 1 && i < TABLE_WIDTH; i++)
        give(pool, atomic_load(&array->at[i]), level + 1);
    pool_give_persistent(pool, array, sizeof *array);
}

void table_fini(struct table *table, struct pool *pool)
{
    give(pool, atomic_load(&table->root), 0);
}
