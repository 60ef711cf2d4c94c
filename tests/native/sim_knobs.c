/* The knobs of a run: their names, and what the seed chooses for those that are not set. */
#include "sim.h"

#include <stdbool.h>
#include <string.h>

enum { EDGES_FOR_PINS = 28 };

static const struct {
    const char *name;
    size_t offset;
} knob_table[] = {
#define KNOB(name) {#name, offsetof(struct sim_knobs, name)}
    KNOB(nodes),         KNOB(spaces),      KNOB(regions),    KNOB(page_bytes),   KNOB(phases),
    KNOB(lock_threads),  KNOB(prefetch),    KNOB(collect),    KNOB(budget_bytes), KNOB(readahead_bytes),
    KNOB(refetch_bytes), KNOB(push_bytes),  KNOB(open_bytes), KNOB(guess),        KNOB(whole),
    KNOB(bulk),          KNOB(eager),       KNOB(stay_open),  KNOB(preopen),      KNOB(deliver),
    KNOB(stalls),        KNOB(disorder),    KNOB(bystanders), KNOB(torn),         KNOB(changes_kept),
    KNOB(any_space),     KNOB(slow),        KNOB(edges),      KNOB(edges_told),   KNOB(tries),
    KNOB(flags),         KNOB(publishes),   KNOB(pins),       KNOB(changes),      KNOB(counters),
    KNOB(races),         KNOB(values),      KNOB(damage),     KNOB(check),        KNOB(steps_max),
    KNOB(readers),       KNOB(cache_bytes), KNOB(evict),      KNOB(linger),       KNOB(detect),
    KNOB(expects),
#undef KNOB
};

enum { KNOB_COUNT = sizeof knob_table / sizeof knob_table[0] };

int64_t *sim_knob_at(struct sim_knobs *knobs, int index)
{
    return (int64_t *)(void *)((char *)knobs + knob_table[index].offset);
}

void sim_knobs_default(struct sim_knobs *knobs)
{
    for (int i = 0; i < KNOB_COUNT; i++)
        *sim_knob_at(knobs, i) = -1;
}

const char *sim_knob_name(int index)
{
    return index >= 0 && index < KNOB_COUNT ? knob_table[index].name : NULL;
}

int sim_knob_set(struct sim_knobs *knobs, const char *name, int64_t value)
{
    for (int i = 0; i < KNOB_COUNT; i++)
        if (strcmp(name, knob_table[i].name) == 0) {
            *sim_knob_at(knobs, i) = value;
            return 0;
        }
    return -1;
}

uint64_t sim_random_next(struct sim_random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t sim_random_below(struct sim_random *random, uint32_t limit)
{
    return (uint32_t)(((sim_random_next(random) >> 32) * limit) >> 32);
}

int sim_random_chance(struct sim_random *random, int64_t permille)
{
    return permille > 0 && sim_random_below(random, 1000) < (uint64_t)permille;
}

/* One of a list; what is listed twice is twice as likely. */
static int64_t pick(struct sim_random *random, const int64_t *choices, size_t bytes)
{
    return choices[sim_random_below(random, (uint32_t)(bytes / sizeof *choices))];
}

#define CHOOSE(knob, ...)                                       \
    do {                                                        \
        const int64_t choices[] = {__VA_ARGS__};                \
        int64_t choice = pick(random, choices, sizeof choices); \
        if (knobs->knob < 0)                                    \
            knobs->knob = choice;                               \
    } while (0)

/* What shapes nodes of several spaces, crowds and flags.  From dice of their own: a program is the same without. */
static void choose_spaces(struct sim_knobs *knobs, uint64_t seed)
{
    struct sim_random own = {.state = ~seed}, *random = &own;
    CHOOSE(spaces, 1, 1, 1, 1, 2, 2, 3, 0);
    bool several = knobs->spaces != 1;
    CHOOSE(torn, 0, several * 200, several * 700);
    CHOOSE(changes_kept, 0, several * 4, several * 30);
    CHOOSE(any_space, 0, several);
    CHOOSE(slow, 0, several * 200, several * 500);
    CHOOSE(flags, 0, 0, 2, 3, 4);
    CHOOSE(publishes, 0, 1, 2, 64, 64);
    CHOOSE(readers, 1, 1, 2, 3, 0);
}

/* Likewise from dice of their own. */
static void choose_cache(struct sim_knobs *knobs, uint64_t seed)
{
    struct sim_random own = {.state = seed ^ UINT32_MAX}, *random = &own;
    CHOOSE(cache_bytes, 0, 0, 300, 2000, 1 << 30);
    CHOOSE(evict, 0, 0, 100, 500, 900);
}

/* Likewise. */
static void choose_departures(struct sim_knobs *knobs, uint64_t seed)
{
    struct sim_random own = {.state = seed ^ ((uint64_t)UINT32_MAX << 16)}, *random = &own;
    CHOOSE(linger, 0, 0, 300, 900);
    CHOOSE(expects, 0, 500, 950);
}

/* Every choice is drawn, settled or not, so that settling one knob leaves the others as the seed had them. */
void sim_knobs_choose(struct sim_knobs *knobs, struct sim_random *random)
{
    choose_spaces(knobs, random->state);
    choose_cache(knobs, random->state);
    choose_departures(knobs, random->state);
    if (knobs->detect > 0)
        knobs->spaces = 1; /* what a node of several spaces accesses is not logged */
    else
        knobs->detect = 0;
    CHOOSE(nodes, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6, 7, 9);
    CHOOSE(regions, 1, 1, 1, 2, 3);
    CHOOSE(page_bytes, 64, 64, 128, 256);
    CHOOSE(phases, 1, 2, 3, 4, 5, 6);
    CHOOSE(lock_threads, 0, 1, 1, 2);
    CHOOSE(prefetch, 0, 1);
    CHOOSE(collect, 0, 0, 30, 100, 300, 1000, 1000, 1000);
    CHOOSE(budget_bytes, 1, 2000, 20000, 20000, 20000, 1 << 30, 1 << 30, 1 << 30, 1 << 30, 1 << 30, 1 << 30, 1 << 30);
    CHOOSE(readahead_bytes, 0, 0, 256, 4096);
    CHOOSE(refetch_bytes, 0, 256, 4096, 4096);
    CHOOSE(push_bytes, 0, 256, 4096, 4096);
    CHOOSE(open_bytes, 0, 0, 256, 4096);
    CHOOSE(guess, 0, 0, 200, 700);
    CHOOSE(whole, 0, 0, 1, 2, 3, 3);
    CHOOSE(stay_open, 0, 0, 0, 500);
    CHOOSE(preopen, 0, 0, 0, 300);
    CHOOSE(deliver, 100, 300, 500, 500, 800, 950);
    CHOOSE(stalls, 0, 0, 5, 50);
    CHOOSE(bystanders, 0, 300, 1000);
    CHOOSE(edges_told, 0, 1);
    CHOOSE(tries, 0, 200, 200, 450);
    CHOOSE(pins, 0, 0, 0, 50, 200);
    int edges_free = knobs->edges < 0;
    CHOOSE(edges, 0, 0, 0, 6, 12);
    if (edges_free && knobs->edges > 0 && knobs->pins > 0)
        knobs->edges = EDGES_FOR_PINS; /* pinned pages need theirs at all times */
    CHOOSE(changes, 0, 300, 700);
    CHOOSE(counters, 0, 0, 1, 2);
    CHOOSE(races, 0, 0, 0, 0, 100, 400);
    CHOOSE(values, 2, 3, 255, 255);
    CHOOSE(damage, 0);
    CHOOSE(check, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2);
    CHOOSE(bulk, 2, 2, 3, 1);
    CHOOSE(eager, 0, 500, 1000);
    CHOOSE(disorder, 0, 300, 1000);
    CHOOSE(steps_max, 30000000); /* collections without end let nine nodes come through in 3 million */
}
