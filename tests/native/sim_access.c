/* What a thread does to memory: reads and writes, faults, pins, prefetching. */
#include "sim_world.h"

#include <stdio.h>

static bool pinned_by(const struct thread *thread, uint64_t offset, bool write)
{
    for (int i = 0; i < thread->pin_count; i++) {
        const struct sim_pin *pin = &thread->pins[i];
        if (offset - pin->page_offset < pin->page_bytes && (pin->write || !write))
            return true;
    }
    return false;
}

static void observe(struct thread *thread, unsigned char value)
{
    struct sim *sim = thread->home->sim;
    if (thread->byte == 0) {
        thread->seen = 0;
        thread->observation = sim->observed ? (*sim->observed)++ : 0;
    }
    if (thread->byte < SIM_OBSERVED_BYTES)
        thread->seen |= (uint64_t)value << 8 * thread->byte;
    if (thread->observation < sim->observation_room)
        sim->observations[thread->observation] = (struct sim_observation){.thread = (uint32_t)(thread - sim->threads),
                                                                          .op = thread->at - thread->script->first,
                                                                          .value = thread->seen};
}

/* Read or write as many bytes of the cell as the protection allows, `most` of them; true when all are done. */
static bool access_cell(struct thread *thread, uint32_t most)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct sim_op *op = op_of(thread);
    const struct sim_cell *cell = &sim->program.cells[op->what];
    const struct sim_slot *slot = &sim->program.slots[cell->slot];
    bool write = op->kind == SIM_WRITE;
    for (; thread->byte < cell->bytes; thread->byte++, most--) {
        if (most == 0)
            return false;
        uint64_t at = cell->offset + thread->byte, offset = slot->offset + at;
        if (write && !(op->pattern >> thread->byte % 32 & 1))
            continue;
        if (thread->space->access[offset / SIM_GRANULE_BYTES] < (write ? ACCESS_WRITE : ACCESS_READ)) {
            if (pinned_by(thread, offset, write))
                sim_fail(sim, home->number, "offset %llu is pinned and not accessible", (unsigned long long)offset);
            return false;
        }
        if (home->space_count > 1)
            sim_count_lag(thread->space, offset, write);
        if (write) {
            home->view[offset] = slot->truth[at] = (unsigned char)op->value;
            sim->stats.writes++;
            if (cell->guard != SIM_MAIN)
                sim_remember(thread->space, op->what, thread->byte, op->value);
            TRACE(sim, "node %d.%d writes %d at %llu", home->number, thread->number, op->value,
                  (unsigned long long)offset);
            continue;
        }
        sim->stats.reads++;
        TRACE(sim, "node %d.%d reads %d at %llu", home->number, thread->number, home->view[offset],
              (unsigned long long)offset);
        observe(thread, home->view[offset]);
        if (op->kind == SIM_PEEK) {
            sim->stats.peeks++;
            if (!sim->open && !sim_may_peek(thread->space, op->what, thread->byte, home->view[offset]))
                sim_fail(sim, home->number,
                         "thread %d peeked %d at offset %llu (region %u, byte %llu): too old or never "
                         "written; the latest is %d",
                         thread->number, home->view[offset], (unsigned long long)offset, slot->region,
                         (unsigned long long)at, slot->truth[at]);
        } else if (home->view[offset] != slot->truth[at])
            sim_fail(sim, home->number,
                     "thread %d read %d at offset %llu (region %u, byte %llu, page %llu), expected %d", thread->number,
                     home->view[offset], (unsigned long long)offset, slot->region, (unsigned long long)at,
                     (unsigned long long)(at / slot->page_bytes), slot->truth[at]);
    }
    thread->byte = 0;
    return true;
}

/* Would it touch memory now, while another thread of its node is inside the protocol? */
static bool stands_by(const struct thread *thread, const struct sim_node *home)
{
    const struct sim *sim = home->sim;
    if (thread->home != home || thread == sim->current || thread->done || thread->blocked || thread->in_fault ||
        thread->sleep_until > sim->step || thread->at == thread->script->ops.count)
        return false;
    const struct sim_op *op = op_of(thread);
    return (op->kind == SIM_READ || op->kind == SIM_WRITE || op->kind == SIM_PEEK) &&
           sim->program.slots[sim->program.cells[op->what].slot].truth;
}

static void let_access(struct thread *thread, uint32_t most)
{
    thread->home->sim->stats.bystander_accesses++;
    if (access_cell(thread, most)) {
        next_op(thread);
        sim_thread_may_be_done(thread);
    }
}

/* While one thread is inside the protocol, which changes the protection, the others go on: what a real node's threads do
 * between two instructions of mprotect's caller. */
void sim_bystanders(struct sim_node *home)
{
    struct sim *sim = home->sim;
    if (sim->ending || !sim_random_chance(&sim->random, sim->knobs.bystanders))
        return;
    for (int i = 0; i < sim->thread_count; i++)
        if (stands_by(&sim->threads[i], home))
            let_access(&sim->threads[i], UINT32_MAX);
}

/* One of them touches a few bytes: it may stop between two bytes of a cell, as the protocol does between two of a page. */
void sim_tear(struct sim_node *home)
{
    struct sim *sim = home->sim;
    struct thread *ready[SIM_THREADS_MAX];
    uint32_t count = 0;
    if (!sim_random_chance(&sim->random, sim->knobs.torn))
        return;
    for (int i = 0; i < sim->thread_count; i++)
        if (stands_by(&sim->threads[i], home))
            ready[count++] = &sim->threads[i];
    if (count == 0)
        return;
    sim->stats.tears++;
    let_access(ready[sim_random_below(&sim->random, count)], 1 + sim_random_below(&sim->random, PIECE_BYTES));
}

/* As a SIGSEGV handler: one question.  True when the access can be tried again. */
static bool fault(struct thread *thread, uint64_t offset, bool write)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    enum access_answer answer = access_fault(home->node, offset, write, !thread->in_fault);
    TRACE(sim, "node %d.%d faults at %llu (%s): %d", home->number, thread->number, (unsigned long long)offset,
          write ? "write" : "read", answer);
    thread->in_fault = thread->blocked = answer == ACCESS_WAIT;
    bool refused = thread->space->access[offset / SIM_GRANULE_BYTES] < (write ? ACCESS_WRITE : ACCESS_READ);
    sim_pump(home); /* which may take in a departure, and then evict */
    if (answer == ACCESS_WAIT)
        return false;
    if (answer == ACCESS_OUTSIDE)
        sim_fail(sim, home->number, "a live region is outside");
    if (refused)
        sim_fail(sim, home->number, "the fault at %llu is done, and the access is still refused",
                 (unsigned long long)offset);
    return true;
}

void sim_do_access(struct thread *thread)
{
    struct sim *sim = thread->home->sim;
    const struct sim_op *op = op_of(thread);
    const struct sim_cell *cell = &sim->program.cells[op->what];
    const struct sim_slot *slot = &sim->program.slots[cell->slot];
    if (!slot->truth) {
        next_op(thread);
        return;
    }
    for (int i = 0; i < RETRIES_PER_STEP; i++) {
        if (!thread->in_fault && access_cell(thread, UINT32_MAX)) {
            next_op(thread);
            return;
        }
        if (!fault(thread, slot->offset + cell->offset + thread->byte, op->kind == SIM_WRITE))
            return;
        if (sim->steered || sim_random_chance(&sim->random, 250))
            return;
    }
}

void sim_do_pin(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct sim_op *op = op_of(thread);
    const struct sim_cell *cell = &sim->program.cells[op->what];
    const struct sim_slot *slot = &sim->program.slots[cell->slot];
    struct sim_pin *pin = &thread->pins[thread->pin_count];
    *pin = (struct sim_pin){.page_bytes = slot->page_bytes, .write = op->value};
    if (slot->truth) {
        pin->offset = slot->offset + cell->offset;
        pin->page_offset = slot->offset + cell->offset / slot->page_bytes * slot->page_bytes;
        enum access_answer answer = access_fault(home->node, pin->offset, pin->write, !thread->in_fault);
        thread->in_fault = thread->blocked = answer == ACCESS_WAIT;
        if (answer == ACCESS_DONE)
            access_pin(home->node, pin->offset, pin->write);
        TRACE(sim, "node %d.%d pins %llu (%s): %d", home->number, thread->number, (unsigned long long)pin->offset,
              pin->write ? "write" : "read", answer);
        sim_pump(home);
        if (answer == ACCESS_WAIT)
            return;
        if (answer == ACCESS_OUTSIDE)
            sim_fail(sim, home->number, "a live region is outside");
        *(pin->write ? &sim->stats.pins_write : &sim->stats.pins_read) += 1;
    } else
        pin->page_bytes = 0;
    thread->pin_count++;
    next_op(thread);
}

void sim_do_unpin(struct thread *thread)
{
    struct sim_pin *pin = &thread->pins[--thread->pin_count];
    if (pin->page_bytes) {
        TRACE(thread->home->sim, "node %d.%d unpins %llu", thread->home->number, thread->number,
              (unsigned long long)pin->offset);
        access_unpin(thread->home->node, pin->offset, pin->write);
        sim_pump(thread->home);
    }
    next_op(thread);
}

/* ---- prefetching --------------------------------------------------------------------------------------------------- */

static void prefetch_some(struct sim_node *home, const struct region *region)
{
    struct sim *sim = home->sim;
    uint64_t page = sim_random_below(&sim->random, (uint32_t)region->pages);
    uint64_t end = page + 1 + sim_random_below(&sim->random, (uint32_t)region->pages);
    TRACE(sim, "node %d prefetches pages %llu to %llu of region %u", home->number, (unsigned long long)page,
          (unsigned long long)end - 1, region->id);
    prefetch_add(home->node, region, page, end);
    node_settle(home->node);
    sim_pump(home);
    sim->stats.prefetches++;
}

void sim_do_prefetch(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct regions *regions = home->node->regions;
    if (!thread->in_fault) {
        if (thread->stage == STAGE_BEGIN || regions->count == 0) {
            thread->sleep_until = sim->step + 1 + sim_random_below(&sim->random, 2 * op_of(thread)->value);
            thread->stage = STAGE_WAIT;
            return;
        }
        const struct region *region = regions->live[sim_random_below(&sim->random, regions->count)];
        if (sim_random_chance(&sim->random, 400)) {
            thread->stage = STAGE_BEGIN;
            prefetch_some(home, region);
            return;
        }
        thread->ticket = region->offset + sim_random_below(&sim->random, (uint32_t)region->bytes);
        thread->stage = STAGE_BEGIN;
        sim->stats.prefetches++;
    }
    enum access_answer answer = access_fault(home->node, thread->ticket, false, !thread->in_fault);
    TRACE(sim, "node %d.%d prefetches %llu: %d", home->number, thread->number, (unsigned long long)thread->ticket,
          answer);
    thread->in_fault = thread->blocked = answer == ACCESS_WAIT;
    if (thread->in_fault && sim_random_chance(&sim->random, 100)) {
        thread->in_fault = thread->blocked = false; /* it was a hint only */
        thread->stage = STAGE_BEGIN;
    }
    sim_pump(home);
}

void sim_do_hint(struct thread *thread)
{
    const struct sim_cell *cell = &thread->home->sim->program.cells[op_of(thread)->what];
    const struct sim_slot *slot = &thread->home->sim->program.slots[cell->slot];
    if (slot->truth) {
        access_fault(thread->home->node, slot->offset + cell->offset, false, true);
        sim_pump(thread->home);
        thread->home->sim->stats.prefetches++;
    }
    next_op(thread);
}
