/* Programs that a test writes down, operation by operation: litmus programs, scenarios, what is to be explored. */
#include "sim.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/sync/meeting.h"

_Static_assert((int)SIM_BARRIER == MEETING_BARRIER && (int)SIM_ALLOCATE == MEETING_ALLOCATE &&
                   (int)SIM_FREE == MEETING_FREE,
               "one meaning");

enum { HELPER_PAUSE = 40 };

/* Is there room for so many ranks? */
static bool fits(int nodes, const int *spaces)
{
    int ranks = 0;
    if (nodes < 1 || nodes > SIM_NODES_MAX)
        return false;
    for (int node = 0; node < nodes; node++) {
        int own = spaces ? spaces[node] : 1;
        if (own < 1 || own > SIM_SPACES_MAX)
            return false;
        ranks += own;
    }
    return ranks <= SIM_RANKS_MAX;
}

struct sim_program *sim_program_new(int nodes, const int *spaces)
{
    struct sim_program *program = fits(nodes, spaces) ? calloc(1, sizeof *program) : NULL;
    if (!program)
        return NULL;
    sim_program_place(program, nodes, spaces);
    for (int rank = 0; rank < program->ranks; rank++)
        program->scripts[program->script_count++].rank = rank;
    return program;
}

void sim_program_delete(struct sim_program *program)
{
    if (program)
        sim_program_free(program);
    free(program);
}

int sim_program_slot(struct sim_program *program, uint64_t bytes, uint64_t page_bytes)
{
    if (program->slot_count == SIM_SLOTS_MAX || bytes == 0 || page_bytes < SIM_GRANULE_BYTES ||
        page_bytes & (page_bytes - 1))
        return -1;
    program->slots[program->slot_count] = (struct sim_slot){.bytes = bytes, .page_bytes = page_bytes};
    return (int)program->slot_count++;
}

int sim_program_slot_later(struct sim_program *program, uint64_t bytes, uint64_t page_bytes)
{
    int slot = sim_program_slot(program, bytes, page_bytes);
    if (slot >= 0)
        program->slots[slot].later = 1;
    return slot;
}

int sim_program_cell(struct sim_program *program, int slot, uint32_t offset, uint32_t bytes)
{
    if (program->cell_count == SIM_CELLS_MAX || slot < 0 || (uint32_t)slot >= program->slot_count || bytes == 0 ||
        (uint64_t)offset + bytes > program->slots[slot].bytes)
        return -1;
    program->cells[program->cell_count] =
        (struct sim_cell){.slot = (uint32_t)slot, .offset = offset, .bytes = bytes, .guard = SIM_ANYBODY};
    return (int)program->cell_count++;
}

int sim_program_locks(struct sim_program *program, int count)
{
    if (count < 1 || count > (int)(SIM_LOCKS_MAX - program->lock_count))
        return -1;
    program->lock_count += (uint32_t)count;
    return (int)program->lock_count - count;
}

int sim_program_counters(struct sim_program *program, int count)
{
    if (count < 1 || count > (int)(SIM_COUNTERS_MAX - program->counter_count))
        return -1;
    program->counter_count += (uint32_t)count;
    return (int)program->counter_count - count;
}

int sim_program_flags(struct sim_program *program, int count)
{
    if (count < 1 || count > (int)(SIM_FLAGS_MAX - program->flag_count))
        return -1;
    program->flag_count += (uint32_t)count;
    return (int)program->flag_count - count;
}

int sim_program_thread(struct sim_program *program, int rank)
{
    if (rank < 0 || rank >= program->ranks)
        return -1;
    if (!(program->claimed >> rank & 1)) {
        program->claimed |= 1u << rank;
        return rank;
    }
    if (program->script_count == SIM_THREADS_MAX)
        return -1;
    program->scripts[program->script_count].rank = rank;
    return (int)program->script_count++;
}

/* How many things there are that `what` can name. */
static uint32_t limit_of(const struct sim_program *program, int kind)
{
    switch (kind) {
    case SIM_WRITE:
    case SIM_READ:
    case SIM_PEEK:
    case SIM_PIN:
    case SIM_HINT: return program->cell_count;
    case SIM_ACQUIRE:
    case SIM_RELEASE: return program->lock_count;
    case SIM_ADD: return program->counter_count;
    case SIM_SET:
    case SIM_CLEAR:
    case SIM_AWAIT: return program->flag_count;
    case SIM_FORGET: return program->slot_count;
    case SIM_MEET: return SIM_FREE + 1;
    case SIM_UNPIN:
    case SIM_IDLE:
    case SIM_REQUEST: return 1;
    default: return 0;
    }
}

int sim_program_op(struct sim_program *program, int thread, int kind, uint32_t what, uint32_t value, uint32_t pattern,
                   uint32_t jump)
{
    if (kind == SIM_MEET && what == 0)
        what = SIM_BARRIER;
    if (kind == SIM_WRITE && pattern == 0)
        pattern = ~0u;
    if (thread < 0 || (uint32_t)thread >= program->script_count || what >= limit_of(program, kind) ||
        (kind == SIM_MEET &&
         (thread >= program->ranks || pattern > SIM_REFUSES || (what != SIM_BARRIER && value >= program->slot_count))))
        return -1;
    struct sim_op op = {(enum sim_op_kind)kind, what, value, pattern, jump};
    return (int)sim_ops_add(&program->scripts[thread].ops, op);
}

/* ---- what surrounds it ------------------------------------------------------------------------------------------ */

static void add(struct sim_script *script, enum sim_op_kind kind, uint32_t what, uint32_t value)
{
    sim_ops_add(&script->ops, (struct sim_op){.kind = kind, .what = what, .value = value});
}

static void begin(const struct sim_program *program, struct sim_script *script, int main_thread)
{
    if (!main_thread) {
        add(script, SIM_GATE, 0, 0);
        return;
    }
    for (uint32_t slot = 0; slot < program->slot_count; slot++)
        if (!program->slots[slot].later)
            add(script, SIM_MEET, MEETING_ALLOCATE, slot);
    for (uint32_t i = 0; i < program->lock_count + program->counter_count; i++)
        add(script, SIM_MEET, MEETING_BARRIER, 0); /* as with DSM_CHECK, where one follows each creation */
    add(script, SIM_START, 0, 0);
}

static void add_helper(struct sim_program *program, int rank, enum sim_op_kind kind, int64_t pause)
{
    if (program->script_count == SIM_THREADS_MAX || pause <= 0)
        return;
    struct sim_script *script = &program->scripts[program->script_count++];
    *script = (struct sim_script){.rank = rank, .helper = 1};
    add(script, kind, 0, (uint32_t)pause);
}

static int pins(const struct sim_program *program)
{
    for (uint32_t i = 0; i < program->script_count; i++)
        for (uint32_t k = 0; k < program->scripts[i].ops.count; k++)
            if (program->scripts[i].ops.items[k].kind == SIM_PIN)
                return 1;
    return 0;
}

void sim_program_complete(struct sim_program *program, const struct sim_program *written, struct sim_knobs *knobs,
                          struct sim_random *random)
{
    knobs->nodes = written->nodes;
    knobs->spaces = written->ranks > written->nodes ? 0 : 1;
    knobs->pins = pins(written);
    sim_knobs_choose(knobs, random);
    *program = *written;
    for (uint32_t i = 0; i < program->script_count; i++) {
        struct sim_script *script = &program->scripts[i];
        const struct sim_ops *own = &written->scripts[i].ops;
        script->ops = (struct sim_ops){0};
        begin(program, script, i < (uint32_t)program->ranks);
        script->first = script->ops.count;
        for (uint32_t k = 0; k < own->count; k++) {
            struct sim_op op = own->items[k];
            op.jump += op.kind == SIM_ACQUIRE || op.kind == SIM_AWAIT ? script->first : 0;
            sim_ops_add(&script->ops, op);
        }
        script->last = script->ops.count;
    }
    for (int rank = 0; rank < program->ranks; rank++) {
        if (rank > 0 && program->node_of[rank] == program->node_of[rank - 1])
            continue;
        add_helper(program, rank, SIM_PREFETCH, knobs->prefetch ? HELPER_PAUSE : 0);
        add_helper(program, rank, SIM_COLLECT, knobs->collect);
    }
}

void sim_program_close(struct sim_program *program)
{
    for (int rank = 0; rank < program->ranks; rank++) {
        struct sim_script *script = &program->scripts[rank];
        script->last = script->ops.count;
        add(script, SIM_JOIN, 0, 0);
        add(script, SIM_MEET, MEETING_BARRIER, 0);
        add(script, SIM_MEET, MEETING_FINALIZE, 0);
    }
}
