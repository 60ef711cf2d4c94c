/* Runs whose every step is decided: replayed, explored (sim_explore.c), or driven by hand.
 *
 * Setup, and the final meetings, take one fixed fair order: what is to be decided is what the threads do between. */
#include "sim_world.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(SIM_THREAD_CHOICE == SIM_NODES_MAX * SIM_NODES_MAX, "threads are counted behind the channels");

struct sim_knobs sim_knobs_quiet(const struct sim_knobs *knobs)
{
    struct sim_knobs quiet = *knobs;
    for (int i = 0; sim_knob_name(i); i++)
        if (*sim_knob_at(&quiet, i) < 0)
            *sim_knob_at(&quiet, i) = 0;
    quiet.collect = quiet.prefetch = quiet.stalls = quiet.bystanders = quiet.damage = 0;
    quiet.eager = 1000; /* what is told to a sender while its message is received would be a step of two nodes */
    if (knobs->budget_bytes < 0)
        quiet.budget_bytes = 1 << 30;
    if (knobs->check < 0)
        quiet.check = 2;
    if (knobs->steps_max < 0)
        quiet.steps_max = 100000;
    return quiet;
}

/* Where the thread has to stop for now. */
static uint32_t end_of_part(const struct thread *thread)
{
    const struct sim_script *script = thread->script;
    switch (thread->home->sim->part) {
    case PART_SETUP: return script->first;
    case PART_BODY: return script->last;
    case PART_END: break;
    }
    return script->ops.count;
}

uint32_t sim_choices(const struct sim *sim, uint16_t *choices)
{
    uint32_t count = 0;
    for (int i = 0; i < sim->active_count; i++) {
        uint32_t at = count++;
        for (; at > 0 && choices[at - 1] > sim->active[i]; at--)
            choices[at] = choices[at - 1];
        choices[at] = (uint16_t)sim->active[i];
    }
    for (int i = 0; i < sim->thread_count; i++) {
        const struct thread *thread = &sim->threads[i];
        if (!thread->done && !thread->blocked && thread->at < end_of_part(thread))
            choices[count++] = (uint16_t)(SIM_THREAD_CHOICE + i);
    }
    return count;
}

int sim_choice_node(const struct sim *sim, uint16_t choice)
{
    return choice < SIM_THREAD_CHOICE ? choice % SIM_NODES_MAX : sim->threads[choice - SIM_THREAD_CHOICE].home->number;
}

static void remember_decision(struct sim *sim, uint16_t choice)
{
    if (sim->decision_count == sim->decision_capacity) {
        sim->decision_capacity = sim->decision_capacity ? 2 * sim->decision_capacity : 64;
        sim->decisions = realloc(sim->decisions, sim->decision_capacity * sizeof *sim->decisions);
        if (!sim->decisions)
            abort();
    }
    sim->decisions[sim->decision_count++] = choice;
}

void sim_choose(struct sim *sim, uint16_t choice)
{
    uint16_t choices[SIM_CHOICES];
    uint32_t count = sim_choices(sim, choices), i = 0;
    if (++sim->step > (uint64_t)sim->knobs.steps_max)
        sim_fail_stuck(sim, "no end in sight");
    while (i < count && choices[i] != choice)
        i++;
    if (i == count)
        sim_fail(sim, -1, "decision %u: there is no message, or the thread cannot run", choice);
    if (sim->part == PART_BODY)
        remember_decision(sim, choice);
    sim->chosen_at[choice] = sim->step;
    if (choice < SIM_THREAD_CHOICE) {
        sim_deliver(sim, choice);
    } else {
        struct thread *thread = &sim->threads[choice - SIM_THREAD_CHOICE];
        thread->steps++;
        sim_run_thread(thread);
    }
    sim_check_step(sim);
}

bool sim_choose_fairly(struct sim *sim)
{
    uint16_t choices[SIM_CHOICES];
    uint32_t count = sim_choices(sim, choices), longest = 0;
    for (uint32_t i = 1; i < count; i++)
        if (sim->chosen_at[choices[i]] < sim->chosen_at[choices[longest]])
            longest = i;
    if (count)
        sim_choose(sim, choices[longest]);
    return count > 0;
}

/* No step can be taken any more: has every thread come to the end of the part? */
static void must_be_at_the_end(struct sim *sim)
{
    for (int i = 0; i < sim->thread_count; i++)
        if (sim->threads[i].at < end_of_part(&sim->threads[i]))
            sim_fail_stuck(sim, "deadlock");
}

void sim_begin_steered(struct sim *sim, const struct sim_program *written)
{
    sim->steered = true;
    sim->part = PART_SETUP;
    sim_set_up(sim, written);
    while (sim_choose_fairly(sim))
        ;
    must_be_at_the_end(sim);
    sim->part = PART_BODY;
}

void sim_end_steered(struct sim *sim, struct sim_stats *total)
{
    while (sim_choose_fairly(sim))
        ;
    must_be_at_the_end(sim);
    if (sim->open) {
        sim->open = false;
        sim_program_close(&sim->program);
    }
    sim->part = PART_END;
    for (int i = 0; i < sim->thread_count; i++)
        sim_thread_may_be_done(&sim->threads[i]);
    while (sim->unfinished && sim_choose_fairly(sim))
        ;
    must_be_at_the_end(sim);
    sim_end(sim, total);
}

int sim_run_decided(const struct sim_program *program, const struct sim_knobs *knobs, const uint16_t *decisions,
                    uint32_t decision_count, int trace, struct sim_stats *total, char *failure,
                    struct sim_observation *observations, uint32_t room, uint32_t *count)
{
    struct sim_knobs quiet = sim_knobs_quiet(knobs);
    struct sim *sim = sim_new(0, &quiet, trace, failure);
    sim_watch(sim, observations, room, count);
    int failed = setjmp(sim->escape);
    if (!failed) {
        sim_begin_steered(sim, program);
        for (uint32_t i = 0; i < decision_count; i++)
            sim_choose(sim, decisions[i]);
        sim_end_steered(sim, total);
    }
    sim_delete(sim);
    return failed ? -1 : 0;
}

/* ---- by hand ---------------------------------------------------------------------------------------------------- */

struct sim *sim_open(const struct sim_program *program, const struct sim_knobs *knobs, int trace, char *failure)
{
    struct sim_knobs quiet = sim_knobs_quiet(knobs);
    quiet.bystanders = knobs->bystanders > 0 ? knobs->bystanders : 0;
    struct sim *sim = sim_new(0, &quiet, trace, failure);
    sim->open = true;
    if (setjmp(sim->escape)) {
        sim_delete(sim);
        return NULL;
    }
    sim_begin_steered(sim, program);
    return sim;
}

int sim_open_op(struct sim *sim, int thread, int kind, uint32_t what, uint32_t value, uint32_t pattern)
{
    int op = sim_program_op(&sim->program, thread, kind, what, value, pattern, 0);
    if (op < 0)
        return -1;
    struct sim_script *script = &sim->program.scripts[thread];
    script->last = script->ops.count;
    script->ops.items[op].jump = script->last; /* an acquire without success goes on behind it */
    return 0;
}

uint32_t sim_open_choices(const struct sim *sim, uint16_t *choices, uint32_t room)
{
    uint16_t all[SIM_CHOICES];
    uint32_t count = sim_choices(sim, all);
    memcpy(choices, all, (count < room ? count : room) * sizeof *all);
    return count;
}

int sim_open_choose(struct sim *sim, uint16_t choice)
{
    if (sim->dead || setjmp(sim->escape)) {
        sim->dead = true;
        return -1;
    }
    sim_choose(sim, choice);
    return 0;
}

int sim_open_idle(const struct sim *sim, int thread)
{
    return sim->threads[thread].at == sim->program.scripts[thread].ops.count;
}

int sim_open_holds(const struct sim *sim, int thread, int lock)
{
    return sim->locks[lock].holder == &sim->threads[thread];
}

uint64_t sim_open_seen(const struct sim *sim, int thread)
{
    return sim->threads[thread].seen;
}

int sim_close(struct sim *sim, struct sim_stats *total)
{
    if (!sim->dead && !setjmp(sim->escape))
        sim_end_steered(sim, total);
    else
        sim->dead = true;
    int failed = sim->dead;
    sim_delete(sim);
    return failed ? -1 : 0;
}
