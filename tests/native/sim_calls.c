/* What a thread calls: locks, counters, meetings, collections, and waiting for each other. */
#include "sim_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- locks and counters ------------------------------------------------------------------------------------------- */

/* The end of an acquire or a barrier: what is pinned is brought up to date, and only then the call returns, knowing what
 * those knew from whom it came. */
static void wait_for_pins(struct thread *thread, const struct knowledge *source)
{
    bool valid = access_caught_up(thread->home->node);
    thread->blocked = !valid;
    sim_pump(thread->home);
    if (!valid) {
        thread->home->sim->stats.pins_waited++;
        return;
    }
    sim_after_acquire(thread);
    sim_pump(thread->home);
    sim_learn(&thread->home->knowledge, source);
    sim_follow(thread->space);
    next_op(thread);
}

static void hold(struct thread *thread, struct lock_truth *truth)
{
    struct sim *sim = thread->home->sim;
    TRACE(sim, "node %d.%d takes lock %u", thread->home->number, thread->number, truth->id);
    if (truth->holder)
        sim_fail(sim, thread->home->number, "thread %d was given lock %u, which a thread of node %d holds",
                 thread->number, truth->id, truth->holder->home->number);
    truth->holder = thread;
    truth->changes++;
    thread->stage = STAGE_PINS;
    sim_settle(thread->home);
}

/* Half of the time, as a thread may have given it up. */
static bool takes_alone(struct thread *thread, struct lock *lock)
{
    struct sim_node *home = thread->home;
    struct lock_user user = {.rank = (uint32_t)thread->space->rank, .thread = (uint32_t)thread->number};
    return alone_is(home->node) && sim_random_below(&home->sim->random, 2) &&
           lock_take_alone(home->node, lock, thread->space->number, &user, NULL);
}

void sim_do_acquire(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct sim_op *op = op_of(thread);
    struct lock_truth *truth = &sim->locks[op->what];
    struct lock *lock = lock_use(home->node, truth->id);
    if (thread->stage == STAGE_PINS) {
        wait_for_pins(thread, &truth->knowledge);
        return;
    }
    if (thread->stage == STAGE_BEGIN) {
        thread->was_free = op->value == SIM_TRYING && sim_lock_is_free(sim, truth);
        thread->changes = ++truth->changes;
        if (takes_alone(thread, lock)) {
            hold(thread, truth);
            return;
        }
        sim->stats.tries_of_free_locks += thread->was_free;
        thread->ticket = lock_enqueue(home->node, lock, (uint32_t)thread->number, NULL, op->value == SIM_TRYING);
        thread->stage = STAGE_WAIT;
        thread->patience = sim_now(thread) + op->pattern;
        sim->stats.tries += op->value == SIM_TRYING;
        TRACE(sim, "node %d.%d wants lock %u (%u)", home->number, thread->number, truth->id, op->value);
        sim_settle(home);
    }
    enum lock_answer answer = lock_poll(home->node, lock, thread->ticket);
    if (answer == LOCK_TAKEN) {
        hold(thread, truth);
        return;
    }
    if (answer == LOCK_REFUSED) {
        if (op->value != SIM_TRYING)
            sim_fail(sim, home->number, "an acquire of lock %u was refused", truth->id);
        if (thread->was_free && thread->changes == truth->changes)
            sim_fail(sim, home->number, "a try of lock %u was refused, and it was free all the time", truth->id);
        sim->stats.tries_refused++;
    } else if (op->value == SIM_PATIENT || sim_now(thread) < thread->patience) {
        thread->blocked = op->value == SIM_PATIENT;
        sim_settle(home);
        return;
    } else {
        TRACE(sim, "node %d.%d gives up lock %u", home->number, thread->number, truth->id);
        lock_cancel(home->node, lock, thread->ticket);
        sim->stats.acquires_cancelled++;
    }
    truth->changes++;
    sim_settle(home);
    thread->at = op->jump;
    thread->stage = STAGE_BEGIN;
}

void sim_do_release(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct lock_truth *truth = &home->sim->locks[op_of(thread)->what];
    struct lock *lock = lock_find(home->node, truth->id);
    if (!lock || !lock_held(lock) || truth->holder != thread)
        sim_fail(home->sim, home->number, "lock %u is not held by its holder", truth->id);
    sim_before_release(thread);
    truth->holder = NULL;
    truth->changes++;
    sim_learn(&truth->knowledge, &thread->home->knowledge);
    TRACE(home->sim, "node %d.%d releases lock %u", home->number, thread->number, truth->id);
    if (!alone_is(home->node) || !lock_give_alone(lock, (uint32_t)thread->space->rank))
        lock_release(home->node, lock, (uint32_t)thread->space->rank);
    sim_settle(home);
    next_op(thread);
}

static void counter_keep(struct counter_truth *truth, int64_t before, int64_t delta)
{
    if (truth->count == truth->capacity) {
        truth->capacity = truth->capacity ? 2 * truth->capacity : 16;
        truth->sums = realloc(truth->sums, truth->capacity * sizeof *truth->sums);
        if (!truth->sums)
            abort();
    }
    truth->sums[truth->count++] = (struct sum){before, delta};
}

void sim_do_add(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct sim_op *op = op_of(thread);
    struct counter_truth *truth = &sim->counters[op->what];
    int64_t delta = (int64_t)op->value, before = 0;
    if (thread->stage == STAGE_BEGIN) {
        thread->add_low = (uint64_t)truth->added;
        truth->asked += delta;
        thread->ticket = counter_add(home->node, counter_use(home->node, truth->id, truth->start), delta);
        thread->stage = STAGE_WAIT;
        sim_settle(home);
    }
    bool done = counter_poll(home->node, thread->ticket, &before);
    thread->blocked = !done;
    sim_settle(home);
    if (!done)
        return;
    if (before < truth->start + (int64_t)thread->add_low || before + delta > truth->start + truth->asked)
        sim_fail(sim, home->number, "counter %u was %lld, possible is %lld to %lld", truth->id, (long long)before,
                 (long long)(truth->start + (int64_t)thread->add_low),
                 (long long)(truth->start + truth->asked - delta));
    truth->added += delta;
    counter_keep(truth, before, delta);
    sim->stats.counter_adds++;
    next_op(thread);
}

/* ---- flags -------------------------------------------------------------------------------------------------------- */

static struct flag *flag_of(struct thread *thread)
{
    struct flag *flag = flag_use(thread->home->node, op_of(thread)->what);
    if (!flag)
        sim_fail(thread->home->sim, thread->home->number, "flag %u is not known", op_of(thread)->what);
    return flag;
}

void sim_do_set(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct flag *flag = flag_of(thread);
    struct flag_truth *truth = &home->sim->flags[op_of(thread)->what];
    sim_before_release(thread);
    struct knowledge known = home->knowledge; /* others may write while the interval closes */
    stamp before = flag->set;
    bool alone = alone_is(home->node);
    bool done = alone || event_set(home->node, flag);
    if (alone)
        home->node->wake |= flag_turn_alone(flag, true);
    thread->blocked = !done;
    if (done && flag->set != before) {
        truth->sets[truth->count % SIM_SETS_KEPT].set = flag->set;
        truth->sets[truth->count % SIM_SETS_KEPT].setter = home->number;
        truth->sets[truth->count++ % SIM_SETS_KEPT].knowledge = known;
    }
    sim_settle(home);
    if (!done)
        return;
    TRACE(home->sim, "node %d.%d sets flag %u", home->number, thread->number, flag->id);
    home->sim->stats.flag_sets++;
    next_op(thread);
}

void sim_do_clear(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct flag *flag = flag_of(thread);
    bool alone = alone_is(home->node);
    bool done = alone || event_clear(home->node, flag);
    if (alone)
        flag_turn_alone(flag, false);
    thread->blocked = !done;
    sim_settle(home);
    if (!done)
        return;
    TRACE(home->sim, "node %d.%d clears flag %u", home->number, thread->number, flag->id);
    next_op(thread);
}

/* What is known to those that saw the set which this node knows. */
static void learn_from_set(struct thread *thread, const struct flag *flag)
{
    const struct flag_truth *truth = &thread->home->sim->flags[flag->id];
    memset(&thread->learned, 0, sizeof thread->learned);
    thread->learned_set = flag->set;
    thread->learned_from = flag->setter;
    for (uint32_t i = 0; i < SIM_SETS_KEPT && i < truth->count; i++)
        if (truth->sets[i].set == flag->set && truth->sets[i].setter == flag->setter)
            thread->learned = truth->sets[i].knowledge;
}

void sim_do_await(struct thread *thread)
{
    struct sim_node *home = thread->home;
    const struct sim_op *op = op_of(thread);
    struct flag *flag = flag_of(thread);
    bool alone = alone_is(home->node);
    if (thread->stage == STAGE_PINS) {
        wait_for_pins(thread, &thread->learned);
        return;
    }
    if (thread->stage == STAGE_BEGIN) {
        thread->ticket = alone ? flag->turns : flag->clear;
        thread->stage = STAGE_WAIT;
        thread->patience = sim_now(thread) + op->pattern;
        home->sim->stats.flag_waits++;
    }
    bool asks = !event_expects(home->node) || !sim_random_chance(&home->sim->random, home->sim->knobs.expects);
    bool done = alone ? thread->ticket % 2 || flag->turns != thread->ticket
                      : event_poll(home->node, flag, thread->ticket, asks);
    bool patient = op->value == SIM_PATIENT || sim_now(thread) < thread->patience;
    if (done) {
        TRACE(home->sim, "node %d.%d finds flag %u set", home->number, thread->number, flag->id);
        learn_from_set(thread, flag);
        thread->stage = STAGE_PINS;
    } else if (patient) {
        thread->blocked = op->value == SIM_PATIENT && asks;
        home->sim->stats.flag_waits_unasked += !asks;
    } else {
        home->sim->stats.flag_waits_ended++;
        thread->at = op->jump;
        thread->stage = STAGE_BEGIN;
    }
    sim_settle(home);
}

/* ---- meetings ---------------------------------------------------------------------------------------------------- */

static struct ballot ballot_of(const struct sim *sim, const struct sim_op *op, bool odd)
{
    const struct sim_slot *slot = &sim->program.slots[op->value % SIM_SLOTS_MAX];
    struct ballot ballot = {.kind = (enum meeting_kind)op->what, .what = "a call"};
    switch (ballot.kind) {
    case MEETING_ALLOCATE:
        ballot.numbers[0] = slot->bytes;
        ballot.numbers[1] = slot->page_bytes;
        ballot.numbers[2] = slot->initial_bytes;
        ballot.value = slot->initial_bytes ? slot->initial : NULL;
        ballot.name = "slot";
        break;
    case MEETING_FREE: ballot.numbers[0] = slot->region; break;
    default: break;
    }
    if (odd && op->pattern == SIM_OTHER_ARGUMENTS)
        ballot.what = "a call with other arguments";
    if (odd && op->pattern == SIM_OTHER_CALL)
        ballot = (struct ballot){.kind = MEETING_RECOUNT, .what = "another call"};
    if (odd && op->pattern == SIM_REFUSES)
        ballot.refusal = "an array is alive";
    return ballot;
}

/* Its addresses are those of no array that is alive, or that some rank has not forgotten yet. */
static void check_addresses(struct sim *sim, const struct sim_node *home, const struct sim_slot *slot)
{
    for (uint32_t i = 0; i < sim->program.slot_count; i++) {
        const struct sim_slot *other = &sim->program.slots[i];
        bool separately = slot->offset + slot->bytes <= other->offset || other->offset + other->bytes <= slot->offset;
        if (other == slot || other->region == 0 || separately)
            continue;
        if (other->truth || other->forgotten != (1u << sim->program.ranks) - 1)
            sim_fail(sim, home->number, "region %u is allocated over region %u, which ranks 0x%x have forgotten",
                     slot->region, other->region, other->forgotten);
    }
}

static void slot_allocated(struct thread *thread, struct sim_slot *slot, uint32_t id)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct region *region = region_find(home->node->regions, id);
    if (!region || region->bytes != slot->bytes || region->page_bytes != slot->page_bytes)
        sim_fail(sim, home->number, "region %u is not what was allocated", id);
    if (!slot->truth) {
        sim->stats.allocations++;
        slot->region = id;
        slot->offset = region->offset;
        slot->truth = calloc(1, slot->bytes);
        if (!slot->truth)
            abort();
        for (uint64_t i = 0; slot->initial_bytes && i < slot->bytes; i++)
            slot->truth[i] = slot->initial[i % slot->initial_bytes];
        check_addresses(sim, home, slot);
        for (uint32_t i = 0; i < sim->program.slot_count; i++)
            sim->stats.addresses_reused += &sim->program.slots[i] != slot && sim->program.slots[i].region != 0 &&
                                           sim->program.slots[i].offset == slot->offset;
    }
    if (slot->region != id || slot->offset != region->offset)
        sim_fail(sim, home->number, "region %u at %llu here is region %u at %llu elsewhere", id,
                 (unsigned long long)region->offset, slot->region, (unsigned long long)slot->offset);
}

static void departed(struct thread *thread, const struct sim_op *op)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct meeting *meeting = &home->node->meetings[MEETING_THREADS];
    static const enum meeting_outcome expected[] = {MEETING_AGREED, MEETING_BALLOTS_DIFFER, MEETING_KINDS_DIFFER,
                                                    MEETING_REFUSED};
    sim->stats.meetings++;
    if (op->what == MEETING_ALLOCATE && meeting->outcome == MEETING_NO_SPACE && op->pattern == SIM_ALIKE) {
        sim->stats.allocations_without_space++;
        return;
    }
    if (meeting->outcome != expected[op->pattern])
        sim_fail(sim, home->number, "%s ended with outcome %d, not %d: %s",
                 ballot_kind_name((enum meeting_kind)op->what), meeting->outcome, expected[op->pattern], meeting->text);
    if (meeting->outcome != MEETING_AGREED) {
        *(op->pattern == SIM_REFUSES ? &sim->stats.refusals : &sim->stats.disagreements) += 1;
        if (!meeting->text[0])
            sim_fail(sim, home->number, "a disagreement without a text");
        return;
    }
    struct sim_slot *slot = &sim->program.slots[op->value % SIM_SLOTS_MAX];
    switch (op->what) {
    case MEETING_ALLOCATE: slot_allocated(thread, slot, meeting->result); break;
    case MEETING_FREE:
        if (region_find(home->node->regions, slot->region))
            sim_fail(sim, home->number, "region %u was freed and lives", slot->region);
        sim->stats.frees += slot->truth != NULL;
        free(slot->truth);
        slot->truth = NULL;
        break;
    default: break;
    }
}

static void arrive_knowing(struct sim_space *space)
{
    struct sim *sim = space->home->sim;
    uint64_t number = ++space->meetings;
    if (sim->met[number % 2].number != number) {
        sim->met[number % 2].number = number;
        memset(&sim->met[number % 2].knowledge, 0, sizeof(struct knowledge));
    }
    sim_learn(&sim->met[number % 2].knowledge, &space->home->knowledge);
}

void sim_do_meet(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct sim_op *op = op_of(thread);
    if (thread->stage == STAGE_PINS) {
        wait_for_pins(thread, &sim->met[thread->space->meetings % 2].knowledge);
        return;
    }
    if (thread->stage == STAGE_BEGIN) {
        if (op->what == MEETING_FREE && !sim->program.slots[op->value].truth) {
            next_op(thread); /* the range had no room for it */
            return;
        }
        struct ballot ballot = ballot_of(sim, op, op->jump == (uint32_t)thread->space->rank);
        TRACE(sim, "node %d.%d arrives at %s", home->number, thread->number, ballot_kind_name(ballot.kind));
        sim_before_release(thread);
        arrive_knowing(thread->space);
        if (ballot.kind != MEETING_BARRIER)
            meeting_bring(home->node, &ballot);
        enum meeting_join found = meeting_join(home->node, thread->space->number, (uint32_t)thread->space->rank);
        if (found == MEETING_ARRIVES)
            meeting_arrive(home->node, MEETING_THREADS);
        if (found == MEETING_PASSES)
            home->node->wake = true;
        thread->stage = STAGE_WAIT;
        sim_settle(home);
    }
    bool left = meeting_take(home->node, thread->space->number);
    thread->blocked = !left;
    if (left) {
        TRACE(sim, "node %d.%d departs from %s", home->number, thread->number,
              ballot_kind_name((enum meeting_kind)op->what));
        departed(thread, op);
        thread->stage = STAGE_PINS;
    }
    sim_settle(home);
}

void sim_do_forget(struct thread *thread)
{
    struct sim_slot *slot = &thread->home->sim->program.slots[op_of(thread)->what];
    slot->forgotten |= 1u << thread->space->rank;
    region_forget(thread->home->node->regions, slot->region, thread->space->number);
    next_op(thread);
}

/* ---- collections, and the other threads ---------------------------------------------------------------------------- */

void sim_do_collect(struct thread *thread)
{
    struct sim *sim = thread->home->sim;
    if (thread->stage == STAGE_WAIT) {
        TRACE(sim, "node %d wants a collection", thread->home->number);
        collection_request(thread->home->node);
        sim_settle(thread->home);
    }
    thread->stage = STAGE_WAIT;
    thread->sleep_until = sim->step + 1 + sim_random_below(&sim->random, 2 * op_of(thread)->value);
}

void sim_do_request(struct thread *thread)
{
    collection_request(thread->home->node);
    sim_settle(thread->home);
    next_op(thread);
}

void sim_do_idle(struct thread *thread)
{
    struct sim *sim = thread->home->sim;
    if (!sim->steered)
        thread->sleep_until = sim->step + op_of(thread)->value;
    next_op(thread);
}

void sim_do_gate(struct thread *thread)
{
    if (thread->space->started)
        next_op(thread);
    else
        thread->blocked = true;
}

void sim_do_start(struct thread *thread)
{
    struct sim *sim = thread->home->sim;
    thread->space->started = true;
    for (int i = 0; i < sim->thread_count; i++)
        if (sim->threads[i].space == thread->space)
            sim->threads[i].blocked = false;
    next_op(thread);
}

void sim_do_join(struct thread *thread)
{
    struct sim *sim = thread->home->sim;
    for (int i = 0; i < sim->thread_count; i++) {
        const struct thread *other = &sim->threads[i];
        if (other != thread && other->space == thread->space && !other->script->helper && !other->done) {
            thread->blocked = true;
            return;
        }
    }
    next_op(thread);
}
