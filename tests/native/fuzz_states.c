/* Where the states come from: small jobs, run on a seeded schedule until every node has been through some things, and
 * replayed up to a point.  A node's state follows from what happened to it alone, so one node is replayed without the
 * others; the replay is compared with what was recorded. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

enum {
    WORLDS = 128,
    ENTRIES_MAX = 256,
    PARCELS_MAX = 4096,
    MEETINGS_MAX = 24,
    RARE_STATES = 24, /* of each thing that is rare */
    KIND_STATES = 26, /* of each kind of message that comes next, at least */
    TRIES_MAX = 1 << 20,
    FLAGS = 6,
    LOCKS = 5,
    COUNTERS = 3
};

struct parcel {
    unsigned char *bytes;
    uint64_t count, behind; /* of the message; of what is behind it */
    int from, to;
    bool placed, taken;
};

/* What seldom happens: a message kept for later, diffs held back, an owed notice, a collection that waits for fetches. */
enum rare { RARE_DEFERRED, RARE_PARTS, RARE_OWING, RARE_WITHHELD, RARE_HOLDING, RARES };

struct record {
    struct fuzz_entry items[ENTRIES_MAX];
    uint64_t stamps[ENTRIES_MAX]; /* of the node after the entry */
    uint64_t live_bytes[ENTRIES_MAX];
    enum rare rare[ENTRIES_MAX]; /* what the node is in the middle of */
    uint32_t count;
};

struct meeting_plan {
    uint64_t kind, b, c;
    int dissenter; /* who brings something else, or -1 */
};

struct world {
    struct fuzz_random random;
    struct fuzz_node *homes[FUZZ_NODES];
    struct record records[FUZZ_NODES];
    uint32_t met[FUZZ_NODES]; /* meetings that the first thread has arrived at */
    struct meeting_plan plan[MEETINGS_MAX];
    struct parcel parcels[PARCELS_MAX];
    uint32_t parcel_count, parcels_left;
    uint64_t budget_bytes;
};

static struct fuzz_state states[FUZZ_STATES];
static uint32_t state_count;

/* ---- dice -------------------------------------------------------------------------------------------------------- */

uint64_t fuzz_random_next(struct fuzz_random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u; /* SplitMix64 (Steele, Lea, Flood 2014) */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t fuzz_random_below(struct fuzz_random *random, uint32_t limit)
{
    return (uint32_t)((fuzz_random_next(random) >> 32) * limit >> 32);
}

static bool chance(struct world *world, uint32_t percent)
{
    return fuzz_random_below(&world->random, 100) < percent;
}

/* ---- what happens in a world ------------------------------------------------------------------------------------- */

static void post(void *context, int from, const struct message *message)
{
    struct world *world = context;
    if (world->parcel_count == PARCELS_MAX)
        fuzz_fail("a world sends more than %d messages", PARCELS_MAX);
    struct parcel *parcel = &world->parcels[world->parcel_count++];
    *parcel = (struct parcel){.count = message->wire_bytes, .from = from, .to = message->peer};
    for (int i = 0; i < message->segment_count; i++)
        parcel->behind += message->segments[i].bytes;
    parcel->bytes = malloc(parcel->count + parcel->behind);
    if (!parcel->bytes)
        abort();
    memcpy(parcel->bytes, message->wire, message->wire_bytes);
    unsigned char *at = parcel->bytes + parcel->count;
    for (int i = 0; i < message->segment_count; at += message->segments[i++].bytes)
        memcpy(at, message->segments[i].at, message->segments[i].bytes);
    world->parcels_left++;
}

static enum rare rare_of(const struct node *node)
{
    if (node->deferred)
        return RARE_DEFERRED;
    for (const struct fetch *fetch = node->fetches->first; fetch; fetch = fetch->next)
        if (fetch->part_count > 0)
            return RARE_PARTS;
    if (node->meetings[MEETING_THREADS].withheld)
        return RARE_WITHHELD;
    if (preopened_owing(node))
        return RARE_OWING;
    return node->collection.phase == COLLECTION_HOLDING ? RARE_HOLDING : RARES;
}

static void happen(struct world *world, int rank, struct fuzz_entry entry)
{
    struct record *record = &world->records[rank];
    if (record->count == ENTRIES_MAX)
        return;
    const char *panic = fuzz_node_do(world->homes[rank], &entry);
    if (panic)
        fuzz_fail("a world without damage: node %d: %s", rank, panic);
    record->items[record->count] = entry;
    record->stamps[record->count] = world->homes[rank]->node->stamp;
    record->rare[record->count] = rare_of(world->homes[rank]->node);
    record->live_bytes[record->count++] = world->homes[rank]->live_bytes;
}

static void deliver(struct world *world)
{
    uint32_t chosen = fuzz_random_below(&world->random, world->parcel_count);
    struct parcel *parcel = NULL;
    for (uint32_t i = 0; i < world->parcel_count && !parcel; i++)
        if (!world->parcels[(chosen + i) % world->parcel_count].taken)
            parcel = &world->parcels[(chosen + i) % world->parcel_count];
    /* The first that is under way between these two, in order. */
    for (uint32_t i = 0; i < world->parcel_count; i++) {
        struct parcel *other = &world->parcels[i];
        if (other->taken || other->from != parcel->from || other->to != parcel->to)
            continue;
        struct fuzz_entry entry = {.kind = other->behind ? FUZZ_PLACE : FUZZ_MESSAGE,
                                   .thread = other->from,
                                   .bytes = other->bytes,
                                   .count = other->count};
        other->taken = !other->behind || other->placed;
        world->parcels_left -= other->taken;
        if (other->placed)
            entry = (struct fuzz_entry){
                .kind = FUZZ_FILL, .thread = other->from, .bytes = other->bytes + other->count, .count = other->behind};
        other->placed = true;
        happen(world, other->to, entry);
        return;
    }
}

/* The meetings that all nodes come to: a few arrays and counts first, one that a node refuses, and one about which
 * nodes disagree. */
static void make_plan(struct world *world)
{
    static const uint32_t kinds[] = {MEETING_BARRIER, MEETING_BARRIER, MEETING_BARRIER, MEETING_ALLOCATE,
                                     MEETING_FREE,    MEETING_RECOUNT, MEETING_RECOUNT, MEETING_FREE};
    static const struct meeting_plan first[] = {{MEETING_ALLOCATE, 300, 64, -1},  {MEETING_RECOUNT, 0, 0, -1},
                                                {MEETING_ALLOCATE, 700, 256, -1}, {MEETING_RECOUNT, 0, 0, -1},
                                                {MEETING_RECOUNT, 5, 0, -1},      {MEETING_ALLOCATE, 100, 128, -1},
                                                {MEETING_FREE, 3, 0, 4},          {MEETING_RECOUNT, 0, 0, 5}};
    enum { FIRST = sizeof first / sizeof first[0] };
    memcpy(world->plan, first, sizeof first);
    uint64_t freed = 3;
    for (uint32_t i = FIRST; i < MEETINGS_MAX; i++) {
        struct meeting_plan *plan = &world->plan[i];
        *plan = (struct meeting_plan){.kind = kinds[fuzz_random_below(&world->random, 8)], .dissenter = -1};
        if (plan->kind == MEETING_ALLOCATE) {
            plan->b = 1 + fuzz_random_below(&world->random, 1000);
            plan->c = 64u << fuzz_random_below(&world->random, 3);
        } else if (plan->kind == MEETING_FREE) {
            plan->b = freed++;
        }
        if (chance(world, plan->kind == MEETING_FREE ? 60 : 15))
            plan->dissenter = (int)fuzz_random_below(&world->random, FUZZ_NODES);
    }
}

static void first_thread(struct world *world, int rank)
{
    struct fuzz_node *home = world->homes[rank];
    uint64_t offset = fuzz_random_below(&world->random, 1400);
    struct meeting_plan plan = world->plan[world->met[rank]];
    if (meeting_departed(home->node, 0)) {
        happen(world, rank, (struct fuzz_entry){.kind = FUZZ_TAKE});
        return;
    }
    if (home->node->meetings[MEETING_THREADS].state == MEETING_ARRIVED) {
        if (chance(world, 20))
            happen(world, rank, (struct fuzz_entry){.kind = FUZZ_ROLL});
        return;
    }
    if (world->met[rank] < 6 ? chance(world, 70) : chance(world, 30) && world->met[rank] + 1 < MEETINGS_MAX) {
        world->met[rank]++;
        if (plan.dissenter == rank && plan.kind == MEETING_FREE)
            plan.c = 1;
        else if (plan.dissenter == rank)
            plan.kind = MEETING_BARRIER;
        happen(world, rank, (struct fuzz_entry){.kind = FUZZ_ARRIVE, .a = plan.kind, .b = plan.b, .c = plan.c});
    } else if (chance(world, 10)) {
        happen(world, rank, (struct fuzz_entry){.kind = FUZZ_FORGET});
    } else if (chance(world, 6)) {
        happen(world, rank, (struct fuzz_entry){.kind = FUZZ_COLLECT});
    } else if (chance(world, 40)) {
        for (uint64_t page = 0; page < 4; page++) /* one after the other, so that the next ones are fetched ahead */
            happen(world, rank, (struct fuzz_entry){.kind = FUZZ_FAULT, .a = offset % 128 + 64 * page});
    } else {
        happen(world, rank, (struct fuzz_entry){.kind = FUZZ_FAULT, .a = offset, .b = chance(world, 60)});
        happen(world, rank, (struct fuzz_entry){.kind = FUZZ_STORE, .a = offset, .b = 1 + offset % 251});
    }
}

static void second_thread(struct world *world, int rank)
{
    struct fuzz_node *home = world->homes[rank];
    const struct fuzz_thread *thread = &home->threads[1];
    struct fuzz_entry entry = {.kind = FUZZ_FAULT, .thread = 1, .a = fuzz_random_below(&world->random, 1400)};
    entry.b = chance(world, 60);
    if (chance(world, 15)) {
        enum fuzz_entry_kind kinds[] = {FUZZ_SET, FUZZ_SET, FUZZ_CLEAR, FUZZ_AWAIT, FUZZ_AWAIT};
        entry.kind = kinds[fuzz_random_below(&world->random, 5)];
        entry.a = fuzz_random_below(&world->random, FLAGS);
        happen(world, rank, entry);
        return;
    }
    if (world->met[rank] < 2)
        return;
    if (thread->counter_ticket) {
        entry.kind = FUZZ_SUM;
    } else if (thread->lock_ticket) {
        entry.kind = chance(world, 95) ? FUZZ_POLL : FUZZ_CANCEL;
    } else if (thread->holds && chance(world, 30)) {
        entry.kind = FUZZ_TELL;
    } else if (thread->holds && chance(world, 10)) {
        entry.kind = FUZZ_ENQUEUE;
        entry.a = fuzz_random_below(&world->random, LOCKS);
    } else if (thread->holds && chance(world, 40)) {
        entry.kind = FUZZ_RELEASE;
    } else if (thread->pinned && thread->pin_write && chance(world, 60)) {
        entry = (struct fuzz_entry){.kind = FUZZ_STORE, .thread = 1, .a = thread->pin_offset};
        entry.b = fuzz_random_below(&world->random, 256);
    } else if (thread->pinned && chance(world, 20)) {
        entry.kind = FUZZ_UNPIN;
    } else if (!thread->holds && chance(world, 50)) {
        entry.kind = FUZZ_ENQUEUE;
        entry.a = chance(world, 40) ? LOCKS - 1 : fuzz_random_below(&world->random, LOCKS);
        entry.b = chance(world, 40);
    } else if (chance(world, 20)) {
        entry.kind = FUZZ_ADD;
        entry.a = fuzz_random_below(&world->random, COUNTERS);
    } else if (chance(world, 10)) {
        entry.kind = FUZZ_PIN;
        entry.a %= 300; /* of the first array, which is never freed */
    }
    happen(world, rank, entry);
}

static void send_some_bulk(struct fuzz_node *home)
{
    home->node->policy.bulk = BULK_RANDOM;
    home->node->policy.random_state = 1;
}

static struct world *world_run(uint64_t seed)
{
    static const uint64_t budgets[] = {1, 2000, 1 << 20, 1 << 20};
    struct world *world = calloc(1, sizeof *world);
    if (!world)
        abort();
    world->random.state = seed;
    world->budget_bytes = budgets[seed % 4];
    make_plan(world);
    for (int rank = 0; rank < FUZZ_NODES; rank++) {
        world->homes[rank] = fuzz_node_new(rank, FUZZ_NODES, world->budget_bytes);
        send_some_bulk(world->homes[rank]);
        world->homes[rank]->send = post;
        world->homes[rank]->send_context = world;
    }
    uint32_t percent = 20 + 10 * (uint32_t)(seed % 7);
    for (int step = 0; step < 4000; step++) {
        int rank = (int)fuzz_random_below(&world->random, FUZZ_NODES);
        if (world->parcels_left && chance(world, percent))
            deliver(world);
        else if (chance(world, 60))
            first_thread(world, rank);
        else
            second_thread(world, rank);
        bool full = false;
        for (int k = 0; k < FUZZ_NODES; k++)
            full = full || world->records[k].count == ENTRIES_MAX;
        if (full)
            break;
    }
    return world;
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

static void add_state(const struct world *world, int rank, uint32_t entries)
{
    const struct record *record = &world->records[rank];
    struct fuzz_node *home = fuzz_node_new(rank, FUZZ_NODES, world->budget_bytes);
    send_some_bulk(home);
    for (uint32_t i = 0; i < entries; i++) {
        const char *panic = fuzz_node_do(home, &record->items[i]);
        fuzz_node_drop_outbox(home);
        if (panic || home->node->stamp != record->stamps[i] || home->live_bytes != record->live_bytes[i])
            fuzz_fail("the replay of node %d differs at entry %u%s%s", rank, i, panic ? ": " : "", panic ? panic : "");
    }
    fuzz_node_keep(home);
    states[state_count++] =
        (struct fuzz_state){.home = home, .next = record->items + entries, .next_count = record->count - entries};
}

static int kind_of(const struct fuzz_entry *entry)
{
    return entry->kind == FUZZ_MESSAGE || entry->kind == FUZZ_PLACE
               ? ((const struct message_header *)(const void *)entry->bytes)->kind
               : 0;
}

void fuzz_states_make(void)
{
    static struct world *worlds[WORLDS];
    uint32_t kinds[MESSAGE_KINDS] = {0};
    if (state_count)
        return;
    for (uint64_t i = 0; i < WORLDS; i++)
        worlds[i] = world_run(i);
    struct fuzz_random random = {.state = 1};
    /* First some rare states, then some of each kind of message that comes next, then whatever comes. */
    for (uint32_t tries = 0; state_count < FUZZ_STATES; tries++) {
        const struct world *world = worlds[fuzz_random_below(&random, WORLDS)];
        int rank = (int)fuzz_random_below(&random, FUZZ_NODES);
        const struct record *record = &world->records[rank];
        if (record->count < 2)
            continue;
        uint32_t entries = fuzz_random_below(&random, record->count);
        int kind = kind_of(&record->items[entries]);
        bool full = kind == 0 || kinds[kind] >= KIND_STATES;
        uint32_t wanted = state_count / RARE_STATES;
        if (wanted < RARES && (entries == 0 || record->rare[entries - 1] != (enum rare)wanted)) {
            if (tries > TRIES_MAX)
                fuzz_fail("too few nodes are in the middle of rare thing %u", wanted);
            continue;
        }
        bool by_kind = wanted >= RARES && state_count < RARES * RARE_STATES + KIND_STATES * MESSAGE_KINDS;
        if (by_kind && full && tries < 2 * TRIES_MAX)
            continue;
        kinds[kind]++;
        add_state(world, rank, entries);
    }
    for (int kind = 1; kind < MESSAGE_KINDS; kind++)
        if (kinds[kind] < KIND_STATES)
            fuzz_fail("only %u states receive a message of kind %d next", kinds[kind], kind);
}

struct fuzz_state *fuzz_state(uint32_t index)
{
    fuzz_states_make();
    return &states[index % FUZZ_STATES];
}

/* ---- census ------------------------------------------------------------------------------------------------------ */

enum what {
    FETCH_UNDER_WAY,
    GATHERING,
    PARTS_HELD,
    LOCK_HELD,
    LOCK_ASKED,
    LOCK_TRYING,
    LOCK_WITHDRAWING,
    NODE_WAITS,
    MEETING_THERE,
    MEETING_DEFERRED,
    CHILD_ARRIVED,
    COLLECTION_ARRIVES,
    COLLECTION_HOLDS,
    COLLECTION_CUTS,
    COLLECTION_VALIDATES,
    COLLECTION_DROPS,
    COLLECTION_FORGETS,
    PAGE_OWED,
    MESSAGE_DEFERRED,
    COUNTER_ASKED,
    PAGE_PINNED,
    GRAVE,
    DIFF_KEPT,
    PAGE_DIRTY,
    ARRIVING,
    WHATS
};

const char *fuzz_census_name(int what)
{
    static const char *const names[WHATS + 1] = {"fetch under way",
                                                 "gathering diffs",
                                                 "diffs held back",
                                                 "lock held",
                                                 "lock asked for",
                                                 "lock tried",
                                                 "lock withdrawing",
                                                 "a node waits for the lock",
                                                 "meeting under way",
                                                 "arrival deferred",
                                                 "a child has arrived",
                                                 "collection arriving",
                                                 "collection holding",
                                                 "collection cutting",
                                                 "collection validating",
                                                 "collection dropping",
                                                 "collection forgetting",
                                                 "page owed a notice",
                                                 "message deferred",
                                                 "counter asked",
                                                 "page pinned",
                                                 "freed region",
                                                 "diff kept",
                                                 "page dirty",
                                                 "pages arriving"};
    return names[what];
}

static bool lock_is(const struct lock *lock, enum what what)
{
    switch (what) {
    case LOCK_HELD: return lock_held(lock);
    case LOCK_ASKED: return lock->asked && !lock->asked_trying;
    case LOCK_TRYING: return lock->asked_trying && lock->asked && !lock->withdrawing;
    case LOCK_WITHDRAWING: return lock->withdrawing;
    default: return lock->waiting != NODE_NONE;
    }
}

static bool has_diffs(const struct node *node)
{
    for (uint32_t i = 0; i < node->regions->count; i++)
        for (const struct page_block *block = node->regions->live[i]->touched; block; block = block->next)
            for (int k = 0; k < REGION_BLOCK_PAGES; k++)
                if (block->pages[k].extension && block->pages[k].extension->diffs)
                    return true;
    return false;
}

static bool node_is(const struct node *node, enum what what)
{
    const struct meeting *meeting = &node->meetings[MEETING_THREADS];
    bool found = false;
    switch (what) {
    case FETCH_UNDER_WAY: return node->fetches->count > 0;
    case GATHERING:
    case PARTS_HELD:
        for (const struct fetch *fetch = node->fetches->first; fetch; fetch = fetch->next)
            found = found || (what == GATHERING ? fetch->gathering : fetch->part_count > 0);
        return found;
    case MEETING_THERE: return meeting->state == MEETING_ARRIVED;
    case MEETING_DEFERRED: return meeting->withheld;
    case CHILD_ARRIVED: return meeting->children[0] || meeting->children[1];
    case COLLECTION_ARRIVES: return node->collection.phase == COLLECTION_ARRIVING;
    case COLLECTION_HOLDS: return node->collection.phase == COLLECTION_HOLDING;
    case COLLECTION_CUTS: return node->collection.phase == COLLECTION_CUTTING;
    case COLLECTION_VALIDATES: return node->collection.phase == COLLECTION_VALIDATING;
    case COLLECTION_DROPS: return node->collection.phase == COLLECTION_DROPPING;
    case COLLECTION_FORGETS: return node->collection.phase == COLLECTION_FORGETTING;
    case PAGE_OWED: return preopened_owing(node);
    case MESSAGE_DEFERRED: return node->deferred != NULL;
    case COUNTER_ASKED: return node->counters->requests != NULL;
    case PAGE_PINNED: return node->pins->first[0] != NULL;
    case GRAVE: return node->regions->grave_count > 0;
    case DIFF_KEPT: return has_diffs(node);
    case PAGE_DIRTY: return node->writes->dirty_count > 0;
    case ARRIVING: return node->bulk->arriving != NULL;
    default: break;
    }
    const struct lock *lock;
    for (uint32_t next = 0; !found && (lock = lock_next(node, &next));)
        found = lock_is(lock, what);
    return found;
}

uint32_t fuzz_census(int what)
{
    uint32_t count = 0;
    fuzz_states_make();
    for (uint32_t i = 0; i < FUZZ_STATES; i++)
        count += node_is(states[i].home->node, (enum what)what);
    return count;
}
