/* What must hold: happens-before for every read, locks and counters as the threads saw them, and what is true of all nodes
 * together after every step.  Nothing here is decided by the code that it judges; the nodes' states are only looked at. */
#include "sim_world.h"

#include <stdlib.h>
#include <string.h>

/* ---- happens-before ---------------------------------------------------------------------------------------------- */

void sim_learn(struct knowledge *to, const struct knowledge *from)
{
    for (int node = 0; node < SIM_NODES_MAX; node++)
        if (from->writes[node] > to->writes[node])
            to->writes[node] = from->writes[node];
}

void sim_follow(struct sim_space *space)
{
    sim_learn(&space->knowledge, &space->home->knowledge);
}

/* What the space knows, and the writes that are in its node's memory. */
static struct knowledge known_in(const struct sim_space *space)
{
    struct knowledge known = space->knowledge;
    int number = space->home->number;
    known.writes[number] = space->home->knowledge.writes[number];
    return known;
}

void sim_remember(struct sim_space *space, uint32_t cell, uint32_t byte, uint32_t value)
{
    struct sim_node *home = space->home;
    struct sim *sim = home->sim;
    struct history *history = &sim->history[cell];
    if (history->count == history->capacity) {
        history->capacity = history->capacity ? 2 * history->capacity : 32;
        history->items = realloc(history->items, history->capacity * sizeof *history->items);
        if (!history->items)
            abort();
    }
    home->knowledge.writes[home->number]++;
    history->items[history->count++] = (struct past_write){.knowledge = known_in(space),
                                                           .byte = byte,
                                                           .value = value,
                                                           .stretch = home->node->accesses->log.stretch_count,
                                                           .node = home->number};
}

/* Does the write happen before what is known here? */
bool sim_knows(const struct knowledge *knowledge, const struct past_write *write)
{
    return knowledge->writes[write->node] >= write->knowledge.writes[write->node];
}

/* Does another write of this byte happen after `write` (NULL: the initial value) and before the reader? */
static bool overwritten(const struct history *history, const struct past_write *write, uint32_t byte,
                        const struct knowledge *reader)
{
    for (uint32_t i = history->count; i-- > 0;) {
        const struct past_write *other = &history->items[i];
        if (other == write)
            return false; /* what is before it in real time does not happen after it */
        if (other->byte == byte && sim_knows(reader, other) && (!write || sim_knows(&other->knowledge, write)))
            return true;
    }
    return false;
}

/* The value of some write that no other one overwrote, as far as happens-before orders them: so never out of thin air, never
 * older than a write that happens before the read, never from before a write of the same node. */
bool sim_may_peek(const struct sim_space *space, uint32_t cell, uint32_t byte, uint32_t value)
{
    const struct sim *sim = space->home->sim;
    const struct knowledge known = known_in(space);
    const struct history *history = &sim->history[cell];
    const struct sim_slot *slot = &sim->program.slots[sim->program.cells[cell].slot];
    for (uint32_t i = history->count; i-- > 0;) {
        const struct past_write *past = &history->items[i];
        if (past->byte == byte && past->value == value && !overwritten(history, past, byte, &known))
            return true;
    }
    uint64_t at = sim->program.cells[cell].offset + byte;
    return value == (slot->initial_bytes ? slot->initial[at % slot->initial_bytes] : 0) &&
           !overwritten(history, NULL, byte, &known);
}

/* ---- counters ---------------------------------------------------------------------------------------------------- */

static int compare_sums(const void *left, const void *right)
{
    int64_t a = ((const struct sum *)left)->before, b = ((const struct sum *)right)->before;
    return (a > b) - (a < b);
}

/* All that was added was added once: each sum begins where another ended. */
void sim_check_counters(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->program.counter_count; i++) {
        struct counter_truth *truth = &sim->counters[i];
        int64_t value = truth->start;
        if (truth->count)
            qsort(truth->sums, truth->count, sizeof *truth->sums, compare_sums);
        for (uint32_t k = 0; k < truth->count; k++) {
            if (truth->sums[k].before != value)
                sim_fail(sim, -1, "counter %u was %lld, where %lld should follow", truth->id,
                         (long long)truth->sums[k].before, (long long)value);
            value += truth->sums[k].delta;
        }
    }
}

/* ---- the global invariants ---------------------------------------------------------------------------------------- */

static bool grants_lock(unsigned kind, const unsigned char *wire, uint32_t lock)
{
    uint32_t named;
    if (kind != MESSAGE_GRANT)
        return false;
    memcpy(&named, wire + sizeof(struct message_header), sizeof named);
    return named == lock;
}

/* How many grants of this lock are under way or wait for their cut. */
static unsigned grants_under_way(struct sim *sim, uint32_t lock)
{
    unsigned grants = 0;
    for (int i = 0; i < sim->active_count; i++)
        for (const struct parcel *parcel = sim->channels[sim->active[i]].head; parcel; parcel = parcel->next) {
            const struct message_header *header = (const void *)parcel->data;
            grants += grants_lock(header->kind, parcel->data, lock);
        }
    for (int number = 0; number < sim->program.nodes; number++)
        for (const struct message *message = sim->nodes[number].node->deferred; message; message = message->next)
            grants += grants_lock(message_header(message)->kind, message->wire, lock);
    return grants;
}

/* The token of a lock that was not used there yet. */
static bool rests_at_first(const struct sim *sim, const struct lock_truth *truth, int number)
{
    return (int)(truth->id % (uint32_t)sim->program.nodes) == number;
}

static void check_locks(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->program.lock_count; i++) {
        struct lock_truth *truth = &sim->locks[i];
        unsigned tokens = 0;
        for (int number = 0; number < sim->program.nodes; number++) {
            const struct lock *lock = lock_find(sim->nodes[number].node, truth->id);
            tokens += lock ? lock->token : rests_at_first(sim, truth, number);
            if (!lock)
                continue;
            if (lock_held(lock) != (truth->holder && truth->holder->home->number == number))
                sim_fail(sim, number, "lock %u: held is %d", truth->id, lock_held(lock));
        }
        tokens += grants_under_way(sim, truth->id);
        if (tokens != 1)
            sim_fail(sim, sim->touched, "lock %u has %u tokens", truth->id, tokens);
    }
}

/* What the protocol has recorded of what the space may do with the page. */
static unsigned recorded(const struct sim_space *space, const struct page *page)
{
    uint64_t bit = (uint64_t)1 << space->number;
    if (!page || !(page->readers & bit))
        return ACCESS_NONE;
    return page->writers & bit ? ACCESS_WRITE : ACCESS_READ;
}

static const struct pin *pin_of(const struct sim_space *space, const struct page *page)
{
    const struct pin *pin = page->extension ? page->extension->pins : NULL;
    while (pin && pin->space != space->number)
        pin = pin->other;
    return pin;
}

/* The most that the state allows. */
static unsigned state_allows(const struct page *page)
{
    if (!page || !page_valid(page))
        return ACCESS_NONE;
    return page_open(page) ? ACCESS_WRITE : ACCESS_READ;
}

void sim_count_lag(const struct sim_space *space, uint64_t offset, bool write)
{
    const struct node *node = space->home->node;
    struct sim_stats *stats = &space->home->sim->stats;
    const struct region *region = node->size > 1 ? region_at(node->regions, offset) : NULL;
    uint64_t index = region ? (offset - region->offset) / region->page_bytes : 0;
    if (region && state_allows(region_page_if(region, index)) < (write ? ACCESS_WRITE : ACCESS_READ))
        *(write ? &stats->lagging_writes : &stats->lagging_reads) += 1;
}

/* The same; and where the space lags, whatever it has. */
static unsigned allowed_for(const struct sim_space *space, const struct page *page)
{
    if (!page)
        return ACCESS_NONE;
    if (pin_of(space, page) || changes_to_follow(space->home->node, page, space->number))
        return ACCESS_WRITE;
    return state_allows(page);
}

static void check_page(const struct sim_space *space, const struct region *region, uint64_t index)
{
    const struct page *page = region_page_if(region, index);
    uint64_t granules = region->page_bytes / SIM_GRANULE_BYTES;
    uint64_t first = (region->offset + index * region->page_bytes) / SIM_GRANULE_BYTES;
    unsigned told = recorded(space, page), allowed = allowed_for(space, page), pinned = ACCESS_NONE;
    const struct pin *pin = page ? pin_of(space, page) : NULL;
    if (space->home->node->size == 1)
        return; /* a node that is alone has no pages: it shows all, and opens blocks */
    if (pin)
        pinned = pin->writes ? ACCESS_WRITE : ACCESS_READ;
    if (told < pinned)
        sim_fail(space->home->sim, space->home->number, "region %u page %llu is pinned and has access %u in rank %d",
                 region->id, (unsigned long long)index, told, space->rank);
    for (uint64_t i = 0; i < granules; i++)
        if (space->access[first + i] != told || told > allowed)
            sim_fail(space->home->sim, space->home->number,
                     "region %u page %llu: access %u in rank %d, recorded %u, allowed %u", region->id,
                     (unsigned long long)index, space->access[first + i], space->rank, told, allowed);
}

static void check_memory(const struct sim_space *space)
{
    const struct regions *regions = space->home->node->regions;
    const struct changes *changes = space->home->node->changes;
    bool lags = changes->seen[space->number] != changes->count;
    uint64_t granule = 0;
    for (uint32_t i = 0; i < regions->count; i++) {
        const struct region *region = regions->by_offset[i];
        for (; granule < region->offset / SIM_GRANULE_BYTES; granule++)
            if (space->access[granule] != ACCESS_NONE && !lags)
                sim_fail(space->home->sim, space->home->number, "offset %llu belongs to nobody, rank %d may touch it",
                         (unsigned long long)granule * SIM_GRANULE_BYTES, space->rank);
        for (uint64_t index = 0; index < region->pages; index++)
            check_page(space, region, index);
        granule += region->pages * region->page_bytes / SIM_GRANULE_BYTES;
    }
}

/* Who would be asked for what is missing here must have something to answer with: a writer its diffs, the owner a copy.  Not
 * during a collection, when nobody asks. */
static void check_sources(struct sim *sim, struct sim_node *home, const struct region *region, uint64_t index)
{
    const struct page *page = region_page_if(region, index);
    if (!page || page_valid(page))
        return;
    bool asked = false;
    for (uint32_t i = 0; i < page->need.count; i++) {
        struct vector_entry entry = vector_at(&page->need, i);
        if (entry.node == home->number || vector_get(&page->have, entry.node) >= entry.stamp)
            continue;
        const struct node *writer = sim->nodes[entry.node].node;
        const struct region *theirs = region_find(writer->regions, region->id);
        const struct page *source = theirs ? region_page_if(theirs, index) : NULL;
        asked = true;
        if (theirs && (!source || !(source->copy || source->arriving) || writer->stamp < entry.stamp))
            sim_fail(sim, home->number,
                     "region %u page %llu: node %d has written it until stamp %llu and cannot give it", region->id,
                     (unsigned long long)index, entry.node, (unsigned long long)entry.stamp);
    }
    if (asked || page->copy)
        return;
    const struct node *owner = page->owner == NODE_NONE ? NULL : sim->nodes[page->owner].node;
    const struct region *theirs = owner ? region_find(owner->regions, region->id) : NULL;
    const struct page *source = theirs ? region_page_if(theirs, index) : NULL;
    if (!owner || (theirs && source && !source->copy && !source->arriving))
        sim_fail(sim, home->number, "region %u page %llu: no copy here, and none at its owner %d", region->id,
                 (unsigned long long)index, page->owner);
}

/* The byte in the diffs that this node puts on top of a page when it has arrived; false: it is in none. */
static bool byte_of_diffs(const struct page *page, uint64_t at, unsigned char *value)
{
    unsigned char zeros[SIM_PAGE_BYTES_MAX] = {0}, ones[SIM_PAGE_BYTES_MAX];
    memset(ones, 0xff, sizeof ones);
    for (const struct diff *diff = page->extension ? page->extension->diffs : NULL; diff; diff = diff->next) {
        diff_apply(zeros, diff->body, diff->bytes);
        diff_apply(ones, diff->body, diff->bytes);
    }
    *value = zeros[at];
    return zeros[at] == ones[at];
}

/* The byte in the copy that this node has; false: it has none. */
static bool byte_of_copy(const struct sim_node *home, const struct sim_slot *slot, uint64_t at, unsigned char *value)
{
    const struct region *region = region_find(home->node->regions, slot->region);
    const struct page *page = region_page_if(region, at / slot->page_bytes);
    if (page && page->arriving)
        return byte_of_diffs(page, at % slot->page_bytes, value);
    if (page && !page->copy)
        return false;
    uint64_t block = region ? region_open_bytes(region, &home->spaces[0].port) : 1;
    bool filled = region && (!region->initial || (region->opened && region->opened[at / block].filled));
    if ((home->node->size == 1 && filled) || (page && (!page->fresh || page->filled)))
        *value = home->view[slot->offset + at];
    else
        *value = slot->initial_bytes ? slot->initial[at % slot->initial_bytes] : 0;
    return true;
}

/* Not everywhere while nodes depart from its allocation, or from the meeting that frees it. */
static bool lives_everywhere(const struct sim *sim, const struct sim_slot *slot)
{
    int number = 0;
    while (slot->truth && number < sim->program.nodes && region_find(sim->nodes[number].node->regions, slot->region))
        number++;
    return number == sim->program.nodes;
}

/* The latest value of every byte whose writes are ordered is in somebody's copy: it can be lost by nobody's leave. */
static void check_nothing_is_lost(struct sim *sim)
{
    bool lives[SIM_SLOTS_MAX];
    for (uint32_t i = 0; i < sim->program.slot_count; i++)
        lives[i] = lives_everywhere(sim, &sim->program.slots[i]);
    for (uint32_t i = 0; i < sim->program.cell_count; i++) {
        const struct sim_cell *cell = &sim->program.cells[i];
        const struct sim_slot *slot = &sim->program.slots[cell->slot];
        if (cell->guard == SIM_ANYBODY || !lives[cell->slot])
            continue;
        for (uint64_t at = cell->offset; at < cell->offset + (uint64_t)cell->bytes; at++) {
            int number = 0;
            unsigned char value;
            while (number < sim->program.nodes &&
                   !(byte_of_copy(&sim->nodes[number], slot, at, &value) && value == slot->truth[at]))
                number++;
            if (number == sim->program.nodes)
                sim_fail(sim, sim->touched, "region %u byte %llu: %d was written, and nobody has it any more",
                         slot->region, (unsigned long long)at, slot->truth[at]);
        }
    }
}

/* Every page can be rebuilt by somebody. */
static void check_pages(struct sim *sim)
{
    for (int number = 0; number < sim->program.nodes; number++) {
        struct sim_node *home = &sim->nodes[number];
        const struct regions *regions = home->node->regions;
        if (!context_holds(home->node))
            for (uint32_t i = 0; i < regions->count; i++)
                for (uint64_t index = 0; index < regions->live[i]->pages; index++)
                    check_sources(sim, home, regions->live[i], index);
    }
    check_nothing_is_lost(sim);
}

void sim_check_node(struct sim *sim, int number)
{
    const struct sim_node *home = &sim->nodes[number];
    sim->stats.checks++;
    check_node(home->node);
    for (uint32_t i = 0; i < home->space_count; i++)
        check_memory(&home->spaces[i]);
}

void sim_check_step(struct sim *sim)
{
    if (sim->knobs.check == 2) {
        sim_check_node(sim, sim->touched);
        check_locks(sim);
        check_pages(sim);
    } else if (sim->knobs.check == 1 && sim->step % CHECK_PERIOD == 0) {
        for (int number = 0; number < sim->program.nodes; number++)
            sim_check_node(sim, number);
        check_locks(sim);
        check_pages(sim);
    }
}

/* No thread holds it or wants it, the token rests, and nothing keeps it there: a try must succeed. */
bool sim_lock_is_free(struct sim *sim, const struct lock_truth *truth)
{
    unsigned resting = 0;
    if (truth->holder || grants_under_way(sim, truth->id))
        return false;
    for (int number = 0; number < sim->program.nodes; number++) {
        const struct node *node = sim->nodes[number].node;
        const struct lock *lock = lock_find(node, truth->id);
        if ((lock && (lock->queue || (lock->asked && !lock->asked_trying))) || preopened_owing(node))
            return false;
        resting += lock ? lock->token && lock->waiting == NODE_NONE : rests_at_first(sim, truth, number);
    }
    return resting == 1;
}
