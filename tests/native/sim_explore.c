/* All schedules of a small program, by depth-first search: a schedule is run from the beginning with the decisions that lead
 * to where the next one branches off, since the protocol's state cannot be copied.
 *
 * Reduction.  Two steps of different nodes commute: a step changes one node, takes the first message of one channel to that
 * node, and puts messages at the end of channels from it.  Neither can enable or disable the other (a delivery that is
 * possible stays possible until it is made, whatever is put behind its message), and in either order they lead to the same
 * state.  What the simulator itself keeps moves along happens-before only: `truth` of a byte is changed and read by threads
 * that a lock or a meeting orders, knowledge by those who give it and those who get it.  So it is enough to run one schedule
 * of each class of those that differ only in the order of neighbouring steps of different nodes (Mazurkiewicz 1977).  Sleep
 * sets do it: a step that was tried at a state need not be tried again after it, until a step of the same node is taken
 * (Godefroid 1996, chapter 5); they leave exactly one complete schedule of every class.  Not covered by this: what only real
 * time tells (that a try of a lock that was free all the time must succeed) is judged in that one schedule of each class.
 *
 * A bound on the depth does not disturb it: schedules that differ in the order of such steps have the same length. */
#include "sim_world.h"

#include <stdlib.h>
#include <string.h>

/* A state on the way, and what was tried there. */
struct fork {
    uint16_t choices[SIM_CHOICES], sleep[SIM_CHOICES];
    uint32_t choice_count, sleep_count;
    uint16_t chosen;
};

struct explorer {
    struct fork *path;
    uint32_t length, capacity, depth;
    bool reduce;
    struct sim_exploration *result;
};

static bool asleep(const struct fork *fork, uint16_t choice)
{
    for (uint32_t i = 0; i < fork->sleep_count; i++)
        if (fork->sleep[i] == choice)
            return true;
    return false;
}

/* The first choice that is not asleep.  False: all of them are. */
static bool pick(struct fork *fork)
{
    for (uint32_t i = 0; i < fork->choice_count; i++)
        if (!asleep(fork, fork->choices[i])) {
            fork->chosen = fork->choices[i];
            return true;
        }
    return false;
}

/* A state that was not reached before.  False: whatever can be done here was done elsewhere. */
static bool extend(struct explorer *explorer, const struct sim *sim, const uint16_t *choices, uint32_t count)
{
    if (explorer->length == explorer->capacity) {
        explorer->capacity = explorer->capacity ? 2 * explorer->capacity : 64;
        explorer->path = realloc(explorer->path, explorer->capacity * sizeof *explorer->path);
        if (!explorer->path)
            abort();
    }
    struct fork *fork = &explorer->path[explorer->length];
    const struct fork *before = explorer->length && explorer->reduce ? fork - 1 : NULL;
    memcpy(fork->choices, choices, count * sizeof *choices);
    fork->choice_count = count;
    fork->sleep_count = 0;
    for (uint32_t i = 0; before && i < before->sleep_count; i++)
        if (sim_choice_node(sim, before->sleep[i]) != sim_choice_node(sim, before->chosen))
            fork->sleep[fork->sleep_count++] = before->sleep[i];
    if (!pick(fork))
        return false;
    explorer->length++;
    return true;
}

/* Turn to the last state where something is left to try.  False: there is none. */
static bool turn_back(struct explorer *explorer)
{
    for (; explorer->length; explorer->length--) {
        struct fork *fork = &explorer->path[explorer->length - 1];
        fork->sleep[fork->sleep_count++] = fork->chosen;
        if (pick(fork))
            return true;
    }
    return false;
}

/* Along the path, and on from its end.  False: given up as redundant. */
static bool run_schedule(struct explorer *explorer, struct sim *sim)
{
    uint16_t choices[SIM_CHOICES];
    for (uint32_t at = 0; !explorer->depth || at < explorer->depth; at++) {
        uint32_t count = sim_choices(sim, choices);
        if (count == 0)
            break;
        if (at == explorer->length && !extend(explorer, sim, choices, count))
            return false;
        sim_choose(sim, explorer->path[at].chosen);
    }
    return true;
}

/* ---- outcomes --------------------------------------------------------------------------------------------------- */

/* Stable, and in place: there are few. */
static void sort_seen(struct sim_observation *seen, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        struct sim_observation moved = seen[i];
        uint32_t at = i;
        for (; at > 0 && seen[at - 1].thread > moved.thread; at--)
            seen[at] = seen[at - 1];
        seen[at] = moved;
    }
}

/* FNV-1a. */
static uint64_t hash_of(uint64_t hash, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
    return hash;
}

/* Steps of one node depend on each other, those of different nodes do not: so the class of a schedule is what each node did,
 * one after the other. */
static uint64_t hash_of_class(const struct sim *sim)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (int node = 0; node < sim->program.nodes; node++) {
        for (uint32_t i = 0; i < sim->decision_count; i++)
            if (sim_choice_node(sim, sim->decisions[i]) == node)
                hash = hash_of(hash, &sim->decisions[i], sizeof *sim->decisions);
        hash = hash_of(hash, "|", 1);
    }
    return hash ? hash : 1;
}

static void put_hash(struct sim_exploration *result, uint64_t hash)
{
    uint64_t at = hash % result->hash_room;
    while (result->hashes[at] && result->hashes[at] != hash)
        at = (at + 1) % result->hash_room;
    result->classes += !result->hashes[at];
    result->hashes[at] = hash;
}

static void count_class(struct sim_exploration *result, uint64_t hash)
{
    if (2 * result->classes >= result->hash_room) {
        uint64_t *old = result->hashes, room = result->hash_room;
        result->hash_room = room ? 2 * room : 1024;
        result->hashes = calloc(result->hash_room, sizeof *result->hashes);
        if (!result->hashes)
            abort();
        result->classes = 0;
        for (uint64_t i = 0; i < room; i++)
            if (old[i])
                put_hash(result, old[i]);
        free(old);
    }
    put_hash(result, hash);
}

static void count_outcome(struct sim_exploration *result, struct sim_observation *seen, uint32_t count)
{
    sort_seen(seen, count);
    size_t bytes = count * sizeof *seen;
    uint64_t hash = hash_of(0, seen, bytes);
    for (uint32_t i = 0; i < result->outcome_count; i++)
        if (result->outcomes[i].hash == hash && result->outcomes[i].count == count &&
            memcmp(result->outcomes[i].seen, seen, bytes) == 0) {
            result->outcomes[i].schedules++;
            return;
        }
    if (result->outcome_count == result->outcome_capacity) {
        result->outcome_capacity = result->outcome_capacity ? 2 * result->outcome_capacity : 16;
        result->outcomes = realloc(result->outcomes, result->outcome_capacity * sizeof *result->outcomes);
        if (!result->outcomes)
            abort();
    }
    struct sim_outcome *outcome = &result->outcomes[result->outcome_count++];
    *outcome = (struct sim_outcome){.schedules = 1, .hash = hash, .count = count, .seen = malloc(bytes + 1)};
    if (!outcome->seen)
        abort();
    memcpy(outcome->seen, seen, bytes);
}

/* ---- all of them ------------------------------------------------------------------------------------------------ */

enum { SEEN_MAX = 256 };

static void keep_failing(struct sim_exploration *result, const struct sim *sim)
{
    size_t bytes = sim->decision_count * sizeof *sim->decisions;
    result->failed = 1;
    result->failing = malloc(bytes + 1);
    if (!result->failing)
        abort();
    if (bytes)
        memcpy(result->failing, sim->decisions, bytes);
    result->failing_count = sim->decision_count;
}

/* One schedule; false: it failed. */
static bool try_schedule(struct explorer *explorer, const struct sim_program *program, const struct sim_knobs *knobs,
                         struct sim_stats *total, char *failure)
{
    struct sim_exploration *result = explorer->result;
    struct sim_observation seen[SEEN_MAX];
    uint32_t count;
    struct sim *sim = sim_new(0, knobs, 0, failure);
    memset(seen, 0, sizeof seen);
    sim_watch(sim, seen, SEEN_MAX, &count);
    int failed = setjmp(sim->escape);
    if (failed) {
        keep_failing(result, sim);
    } else {
        sim_begin_steered(sim, program);
        if (run_schedule(explorer, sim)) {
            count_class(result, hash_of_class(sim));
            if (sim->decision_count > result->decisions_max)
                result->decisions_max = sim->decision_count;
            sim_end_steered(sim, total);
            result->schedules++;
            count_outcome(result, seen, count < SEEN_MAX ? count : SEEN_MAX);
        } else {
            result->redundant++;
        }
    }
    sim_delete(sim);
    return !failed;
}

struct sim_exploration *sim_explore(const struct sim_program *program, const struct sim_knobs *knobs, uint64_t limit,
                                    uint32_t depth, int reduce, struct sim_stats *total, char *failure)
{
    struct sim_knobs quiet = sim_knobs_quiet(knobs);
    struct explorer explorer = {.depth = depth, .reduce = reduce, .result = calloc(1, sizeof *explorer.result)};
    if (!explorer.result)
        abort();
    do {
        if (explorer.result->schedules == limit) {
            explorer.result->limited = 1;
            break;
        }
    } while (try_schedule(&explorer, program, &quiet, total, failure) && turn_back(&explorer));
    free(explorer.path);
    return explorer.result;
}

void sim_exploration_delete(struct sim_exploration *exploration)
{
    for (uint32_t i = 0; i < exploration->outcome_count; i++)
        free(exploration->outcomes[i].seen);
    free(exploration->outcomes);
    free(exploration->failing);
    free(exploration->hashes);
    free(exploration);
}
