/* The search for races, in runs with the knob `detect`.  What it reports must be what happens-before says: each pair of
 * writes of one byte by two nodes, neither known to the other's node when it was made. */
#include "sim_world.h"

#include <stdlib.h>
#include <string.h>

bool sim_detects(const struct sim *sim)
{
    return sim->knobs.detect && sim->program.nodes > 1;
}

void sim_before_release(struct thread *thread)
{
    struct node *node = thread->home->node;
    if (!sim_detects(thread->home->sim))
        return;
    if (op_of(thread)->kind == SIM_MEET)
        races_before_meeting(node, thread->at);
    else
        races_before_release(node, thread->at);
}

void sim_after_acquire(struct thread *thread)
{
    struct sim *sim = thread->home->sim;
    struct node *node = thread->home->node;
    const struct sim_op *op = op_of(thread);
    if (!sim_detects(sim))
        return;
    if (op->kind == SIM_MEET)
        races_after_meeting(node, thread->at);
    else if (op->kind == SIM_ACQUIRE)
        races_after_lock(node, lock_find(node, sim->locks[op->what].id), thread->at);
    else
        races_after_flag(node, thread->learned_from, thread->learned_set, thread->at);
}

/* ---- the end of a run --------------------------------------------------------------------------------------------- */

/* A byte that two nodes wrote in concurrent stretches; the lower node comes first. */
struct raced {
    uint64_t byte;
    uint32_t region, nodes[2], stretches[2];
    uint32_t unused;
};

struct raced_list {
    struct raced *items;
    size_t count, capacity;
};

static void add(struct raced_list *list, uint32_t region, uint64_t byte, const int nodes[2],
                const uint32_t stretches[2])
{
    int low = nodes[0] > nodes[1];
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 64;
        list->items = realloc(list->items, list->capacity * sizeof *list->items);
        if (!list->items)
            abort();
    }
    list->items[list->count++] = (struct raced){.byte = byte,
                                                .region = region,
                                                .nodes = {(uint32_t)nodes[low], (uint32_t)nodes[!low]},
                                                .stretches = {stretches[low], stretches[!low]}};
}

static int compare(const void *left, const void *right)
{
    return memcmp(left, right, sizeof(struct raced));
}

static void sort_and_thin(struct raced_list *list)
{
    size_t kept = 0;
    if (list->count)
        qsort(list->items, list->count, sizeof *list->items, compare);
    for (size_t i = 0; i < list->count; i++)
        if (i == 0 || compare(&list->items[i], &list->items[kept - 1]) != 0)
            list->items[kept++] = list->items[i];
    list->count = kept;
}

static void list_true_races(const struct sim *sim, struct raced_list *list)
{
    for (uint32_t c = 0; c < sim->program.cell_count; c++) {
        const struct sim_cell *cell = &sim->program.cells[c];
        const struct history *history = &sim->history[c];
        for (uint32_t i = 0; i < history->count; i++)
            for (uint32_t k = i + 1; k < history->count; k++) {
                const struct past_write *a = &history->items[i], *b = &history->items[k];
                if (a->byte == b->byte && a->node != b->node && !sim_knows(&b->knowledge, a) &&
                    !sim_knows(&a->knowledge, b))
                    add(list, sim->program.slots[cell->slot].region, cell->offset + (uint64_t)a->byte,
                        (int[]){a->node, b->node}, (uint32_t[]){a->stretch, b->stretch});
            }
    }
}

static void list_found_races(struct sim *sim, struct raced_list *list)
{
    enum { ROOM = 1 << 20 };
    struct access_log logs[SIM_NODES_MAX];
    int nodes = sim->program.nodes;
    for (int number = 0; number < nodes; number++) {
        struct sim_node *home = &sim->nodes[number];
        sim_enter(&home->spaces[0]);
        races_before_release(home->node, 0);
        logs[number] = home->node->accesses->log;
        sim->stats.stretches += logs[number].stretch_count;
    }
    void *scratch = malloc(races_scratch_bytes(logs, nodes) + 1);
    struct race *races = malloc(ROOM * sizeof *races);
    if (!scratch || !races)
        abort();
    struct races_found found = races_compare(logs, nodes, scratch, races, ROOM);
    uint64_t count = found.count < ROOM && !found.pairs_skipped ? found.count : 0;
    for (uint64_t i = 0; i < count; i++) {
        const struct race *race = &races[i];
        const struct region *region = region_find(sim->nodes[0].node->regions, race->region);
        sim->stats.pages_raced += race->kind != RACE_WRITES;
        for (uint32_t byte = race->from; region && race->kind == RACE_WRITES && byte < race->to; byte++)
            add(list, race->region, race->page * region->page_bytes + byte, race->nodes, race->stretches);
    }
    free(scratch);
    free(races);
}

static void fail(struct sim *sim, const struct raced *race, const char *what)
{
    sim_fail(sim, (int)race->nodes[0], "%s: region %u byte %llu, nodes %u and %u, in their stretches %u and %u", what,
             race->region, (unsigned long long)race->byte, race->nodes[0], race->nodes[1], race->stretches[0],
             race->stretches[1]);
}

/* A thread may write a page that is pinned, or stays open, while another one ends the stretch, or while the silence of a
 * collection keeps what was written to a pinned page from being encoded: it may belong to either stretch. */
static bool is_vague(const struct sim *sim)
{
    bool vague = sim->knobs.bystanders || sim->knobs.torn;
    if (vague && sim->knobs.detect == 2)
        return true;
    for (int number = 0; number < sim->program.nodes; number++)
        vague |= sim->nodes[number].node->collection.count > 0;
    return vague && sim->knobs.pins;
}

void sim_check_races(struct sim *sim)
{
    struct raced_list found = {0}, real = {0};
    struct raced missed = {0}, invented = {0};
    if (!sim_detects(sim) || sim->damaged || is_vague(sim))
        return;
    list_found_races(sim, &found);
    list_true_races(sim, &real);
    sort_and_thin(&found);
    sort_and_thin(&real);
    size_t i = 0, k = 0;
    bool misses = false, invents = false;
    while (!misses && !invents && (i < found.count || k < real.count)) {
        int order = i == found.count ? 1 : k == real.count ? -1 : compare(&found.items[i], &real.items[k]);
        if (order > 0 && (misses = true))
            missed = real.items[k];
        if (order < 0 && (invents = true))
            invented = found.items[i];
        i++;
        k++;
    }
    sim->stats.programs_detected++;
    sim->stats.racy_bytes += real.count;
    free(found.items);
    free(real.items);
    if (misses)
        fail(sim, &missed, "a race was not found");
    if (invents)
        fail(sim, &invented, "a race was found that there is not");
}
