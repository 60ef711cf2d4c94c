/* Random programs: race-free, but for cells that are racy on purpose.
 *
 * A phase ends with a meeting of the main threads.  In each phase a cell has one writer, or one lock, or only readers; so
 * whoever reads it knows which write is the latest.  Lock threads use cells and locks of their own, and know nothing of
 * phases.  All of it is made before the run starts: who makes a failing program smaller needs not touch the schedule.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/sync/meeting.h"

enum { MAIN_CELLS_PER_SLOT = 10, OPS_PER_PHASE_MAX = 14, PREFETCH_PAUSE = 40 };

/* ---- the maker ------------------------------------------------------------------------------------------------- */

struct maker {
    struct sim_program *program;
    const struct sim_knobs *knobs;
    struct sim_random *random;
    struct sim_ops *ops; /* that are written to now */
    uint32_t main_locks;
    uint32_t live;                 /* bits: slots that exist, as far as a program can know */
    uint32_t permanent;            /* number of slots that are never freed */
    uint32_t freed[SIM_RANKS_MAX]; /* bits: slots that were freed, and the rank has not forgotten them */
    enum { ROLE_OWN, ROLE_READ, ROLE_LOCK } role[SIM_CELLS_MAX];
    uint8_t whose[SIM_CELLS_MAX]; /* writer, or lock */
    int pins[SIM_RANKS_MAX];      /* of the main threads */
    uint8_t racy[SIM_CELLS_MAX];  /* cells that anybody uses */
    uint32_t racy_count;
    uint8_t racy_value[SIM_CELLS_MAX]; /* the latest that was written to it */
};

static uint32_t below(struct maker *maker, uint32_t limit)
{
    return sim_random_below(maker->random, limit);
}

static int chance(struct maker *maker, int64_t permille)
{
    return sim_random_chance(maker->random, permille);
}

uint32_t sim_ops_add(struct sim_ops *ops, struct sim_op op)
{
    if (ops->count == ops->capacity) {
        ops->capacity = ops->capacity ? 2 * ops->capacity : 64;
        ops->items = realloc(ops->items, ops->capacity * sizeof *ops->items);
        if (!ops->items)
            abort();
    }
    ops->items[ops->count] = op;
    return ops->count++;
}

static uint32_t emit(struct maker *maker, enum sim_op_kind kind, uint32_t what, uint32_t value, uint32_t pattern)
{
    return sim_ops_add(maker->ops, (struct sim_op){.kind = kind, .what = what, .value = value, .pattern = pattern});
}

static struct sim_script *add_script(struct maker *maker, int rank, int helper)
{
    struct sim_script *script = &maker->program->scripts[maker->program->script_count++];
    script->rank = rank;
    script->helper = helper;
    maker->ops = &script->ops;
    return script;
}

static uint32_t add_slot(struct maker *maker)
{
    static const uint32_t initial_bytes[] = {0, 0, 1, 2, 4, 8, 16};
    struct sim_program *program = maker->program;
    uint32_t index = program->slot_count++;
    struct sim_slot *slot = &program->slots[index];
    slot->page_bytes = (uint64_t)maker->knobs->page_bytes;
    if (chance(maker, 200))
        slot->page_bytes = 64u << below(maker, 3);
    uint32_t pages = chance(maker, 50) ? 17 + below(maker, 30) : 1 + below(maker, 5);
    slot->bytes = slot->page_bytes * pages;
    if (chance(maker, 300))
        slot->bytes -= below(maker, (uint32_t)slot->page_bytes);
    slot->initial_bytes = initial_bytes[below(maker, 7)];
    for (uint32_t i = 0; i < slot->initial_bytes; i++)
        slot->initial[i] = (unsigned char)below(maker, (uint32_t)maker->knobs->values + 1);
    return index;
}

/* Cells close together, so that pages and words are shared falsely; some straddle pages. */
static void add_cells(struct maker *maker, uint32_t slot)
{
    static const uint32_t lengths[] = {1, 1, 1, 1, 1, 2, 3, 8, 9, 70};
    struct sim_program *program = maker->program;
    uint64_t bytes = program->slots[slot].bytes, page_bytes = program->slots[slot].page_bytes;
    uint64_t at = chance(maker, 500) ? 0 : below(maker, (uint32_t)bytes);
    uint32_t wanted = 2 + below(maker, MAIN_CELLS_PER_SLOT);
    for (uint32_t i = 0; i < wanted && program->cell_count < SIM_CELLS_MAX; i++) {
        uint32_t length = lengths[below(maker, 10)];
        if (length == 70)
            length = 1 + below(maker, 200);
        if (at + length > bytes)
            break;
        program->cells[program->cell_count++] =
            (struct sim_cell){.slot = slot, .offset = (uint32_t)at, .bytes = length, .guard = SIM_MAIN};
        at += length;
        if (chance(maker, 300))
            at += below(maker, 8);
        else if (chance(maker, 300))
            at = (at / page_bytes + 1) * page_bytes - below(maker, 2);
    }
}

static void emit_write(struct maker *maker, uint32_t cell)
{
    uint32_t value = 1 + below(maker, (uint32_t)maker->knobs->values - 1);
    if (chance(maker, 200))
        value = 0;
    uint32_t pattern = chance(maker, 500) ? ~0u : (uint32_t)sim_random_next(maker->random);
    emit(maker, SIM_WRITE, cell, value, pattern | 1);
}

/* The next value that this cell never had; 0: there is none. */
static uint32_t racy_value(struct maker *maker, uint32_t cell)
{
    const struct sim_slot *slot = &maker->program->slots[maker->program->cells[cell].slot];
    while (maker->racy_value[cell] < UINT8_MAX) {
        uint8_t value = ++maker->racy_value[cell];
        if (!memchr(slot->initial, value, sizeof slot->initial))
            return value;
    }
    return 0;
}

/* Without any lock but those that the thread happens to hold. */
static void emit_race(struct maker *maker)
{
    if (maker->racy_count == 0)
        return;
    for (uint32_t i = 1 + below(maker, 3); i > 0; i--) {
        uint32_t cell = maker->racy[below(maker, maker->racy_count)];
        uint32_t value = chance(maker, 500) ? racy_value(maker, cell) : 0;
        if (value)
            emit(maker, SIM_WRITE, cell, value,
                 chance(maker, 500) ? ~0u : (uint32_t)sim_random_next(maker->random) | 1);
        else
            emit(maker, SIM_PEEK, cell, 0, 0);
    }
}

static void emit_section(struct maker *maker, uint32_t lock, const uint32_t *cells, uint32_t count)
{
    uint32_t patience = SIM_PATIENT;
    if (chance(maker, 2 * maker->knobs->tries))
        patience = chance(maker, 500) ? SIM_IMPATIENT : SIM_TRYING;
    uint32_t acquire = emit(maker, SIM_ACQUIRE, lock, patience, 1 + below(maker, 60));
    for (uint32_t i = 1 + below(maker, 2); i > 0; i--) {
        uint32_t cell = cells[below(maker, count)];
        emit(maker, SIM_READ, cell, 0, 0);
        if (chance(maker, 700))
            emit_write(maker, cell);
        if (chance(maker, 300))
            emit(maker, SIM_IDLE, 0, 1 + below(maker, 10), 0);
        if (chance(maker, 300))
            emit_race(maker);
    }
    emit(maker, SIM_RELEASE, lock, 0, 0);
    maker->ops->items[acquire].jump = maker->ops->count;
}

static uint32_t usable_cells(struct maker *maker, uint32_t *cells)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < maker->program->cell_count; i++)
        if (maker->program->cells[i].guard == SIM_MAIN && (maker->live >> maker->program->cells[i].slot & 1))
            cells[count++] = i;
    return count;
}

static uint32_t guarded_cells(const struct maker *maker, uint32_t lock, uint32_t *cells)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < maker->program->cell_count; i++)
        if (maker->program->cells[i].guard == (int)lock)
            cells[count++] = i;
    return count;
}

/* A main thread looks at what the lock threads do: with their lock, or without. */
static void emit_look(struct maker *maker)
{
    uint32_t cells[SIM_CELLS_MAX], lock = maker->main_locks + below(maker, 2);
    uint32_t count = guarded_cells(maker, lock, cells);
    if (count == 0)
        return;
    if (chance(maker, 400))
        emit_section(maker, lock, cells, count);
    else
        emit(maker, SIM_PEEK, cells[below(maker, count)], 0, 0);
}

static void emit_unpins(struct maker *maker, int rank)
{
    for (; maker->pins[rank] > 0; maker->pins[rank]--)
        emit(maker, SIM_UNPIN, 0, 0, 0);
}

static void emit_pin_or_not(struct maker *maker, int rank, const uint32_t *cells, uint32_t count)
{
    if (maker->pins[rank] > 0 && chance(maker, 300)) {
        emit(maker, SIM_UNPIN, 0, 0, 0);
        maker->pins[rank]--;
    }
    if (maker->pins[rank] < 2 && chance(maker, maker->knobs->pins)) {
        emit(maker, SIM_PIN, cells[below(maker, count)], below(maker, 2), 0);
        maker->pins[rank]++;
    }
}

/* One operation of a main thread on a cell, if its role allows this rank to use it. */
static void emit_use(struct maker *maker, int rank, uint32_t cell, const uint32_t *cells, uint32_t count)
{
    uint32_t locked[SIM_CELLS_MAX], locked_count = 0;
    switch (maker->role[cell]) {
    case ROLE_READ: emit(maker, SIM_READ, cell, 0, 0); break;
    case ROLE_OWN:
        if (maker->whose[cell] != rank)
            break;
        if (chance(maker, 700))
            emit_write(maker, cell);
        else
            emit(maker, SIM_READ, cell, 0, 0);
        break;
    case ROLE_LOCK:
        for (uint32_t i = 0; i < count; i++)
            if (maker->role[cells[i]] == ROLE_LOCK && maker->whose[cells[i]] == maker->whose[cell])
                locked[locked_count++] = cells[i];
        emit_section(maker, maker->whose[cell], locked, locked_count);
        break;
    }
}

/* At once, but where ranks of a node may do it one long after the other. */
static void emit_forgets(struct maker *maker, int rank)
{
    bool at_once = maker->program->ranks == maker->program->nodes;
    for (uint32_t slot = 0; slot < SIM_SLOTS_MAX; slot++)
        if ((maker->freed[rank] >> slot & 1) && (at_once || chance(maker, 500))) {
            emit(maker, SIM_FORGET, slot, 0, 0);
            maker->freed[rank] &= ~(1u << slot);
        }
}

static void emit_phase(struct maker *maker)
{
    uint32_t cells[SIM_CELLS_MAX], count = usable_cells(maker, cells);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t kind = below(maker, 4);
        maker->role[cells[i]] = kind == 0 ? ROLE_LOCK : kind == 1 ? ROLE_READ : ROLE_OWN;
        maker->whose[cells[i]] = (uint8_t)below(maker, kind == 0 ? maker->main_locks : (uint32_t)maker->program->ranks);
    }
    for (int rank = 0; rank < maker->program->ranks; rank++) {
        maker->ops = &maker->program->scripts[rank].ops;
        emit_forgets(maker, rank);
        uint32_t wanted = below(maker, OPS_PER_PHASE_MAX);
        while (chance(maker, 500))
            emit_look(maker);
        for (uint32_t i = 0; i < wanted && count > 0; i++) {
            emit_pin_or_not(maker, rank, cells, count);
            emit_use(maker, rank, cells[below(maker, count)], cells, count);
            if (chance(maker, 150))
                emit_look(maker);
            if (chance(maker, 250))
                emit_race(maker);
            if (maker->program->counter_count > 0 && chance(maker, 100))
                emit(maker, SIM_ADD, below(maker, maker->program->counter_count), 1 + below(maker, 3), 0);
            if (chance(maker, 200))
                emit(maker, SIM_IDLE, 0, 1 + below(maker, 50), 0);
        }
    }
}

static void emit_meeting(struct maker *maker, enum meeting_kind kind, uint32_t value, enum sim_ballots ballots)
{
    uint32_t odd = below(maker, (uint32_t)maker->program->ranks);
    if (maker->program->ranks == 1 && ballots != SIM_REFUSES)
        ballots = SIM_ALIKE;
    for (int rank = 0; rank < maker->program->ranks; rank++) {
        maker->ops = &maker->program->scripts[rank].ops;
        uint32_t op = emit(maker, SIM_MEET, kind, value, ballots);
        maker->ops->items[op].jump = odd;
    }
}

/* The end of a phase that does more than meet. */
static void emit_change(struct maker *maker)
{
    struct sim_program *program = maker->program;
    for (int rank = 0; rank < program->ranks; rank++) {
        maker->ops = &program->scripts[rank].ops;
        emit_unpins(maker, rank);
    }
    uint32_t temporary[SIM_SLOTS_MAX], count = 0;
    for (uint32_t slot = maker->permanent; slot < program->slot_count; slot++)
        if (maker->live >> slot & 1)
            temporary[count++] = slot;
    enum sim_ballots ballots = chance(maker, 200) ? SIM_OTHER_ARGUMENTS : SIM_ALIKE;
    if (count > 0 && chance(maker, 500)) {
        uint32_t slot = temporary[below(maker, count)];
        if (chance(maker, 200))
            ballots = SIM_REFUSES;
        if (program->ranks == 1 && ballots == SIM_OTHER_ARGUMENTS)
            ballots = SIM_ALIKE;
        emit_meeting(maker, MEETING_FREE, slot, ballots);
        if (ballots == SIM_ALIKE) {
            maker->live &= ~(1u << slot);
            for (int rank = 0; rank < program->ranks; rank++)
                maker->freed[rank] |= 1u << slot;
        }
    } else if (chance(maker, 200)) {
        emit_meeting(maker, MEETING_BARRIER, 0, SIM_OTHER_CALL);
    } else if (program->slot_count < SIM_SLOTS_MAX) {
        uint32_t slot = add_slot(maker);
        if (program->ranks == 1)
            ballots = SIM_ALIKE;
        emit_meeting(maker, MEETING_ALLOCATE, slot, ballots);
        if (ballots == SIM_ALIKE) {
            add_cells(maker, slot);
            maker->live |= 1u << slot;
        }
    }
}

static void emit_setup(struct maker *maker)
{
    struct sim_program *program = maker->program;
    for (int rank = 0; rank < program->ranks; rank++)
        add_script(maker, rank, 0);
    maker->permanent = (uint32_t)maker->knobs->regions;
    for (uint32_t i = 0; i < maker->permanent; i++) {
        uint32_t slot = add_slot(maker);
        add_cells(maker, slot);
        maker->live |= 1u << slot;
        emit_meeting(maker, MEETING_ALLOCATE, slot, SIM_ALIKE);
    }
    for (uint32_t i = 0; i < program->lock_count + program->counter_count; i++)
        emit_meeting(maker, MEETING_BARRIER, 0, SIM_ALIKE); /* as with DSM_CHECK, where one follows each creation */
    for (int rank = 0; rank < program->ranks; rank++) {
        maker->ops = &program->scripts[rank].ops;
        emit(maker, SIM_START, 0, 0, 0);
    }
}

/* Uses only cells of its own locks. */
static void add_lock_thread(struct maker *maker, int rank)
{
    add_script(maker, rank, 0);
    emit(maker, SIM_GATE, 0, 0, 0);
    for (uint32_t i = 3 + below(maker, 15); i > 0; i--) {
        uint32_t cells[SIM_CELLS_MAX], lock = maker->main_locks + below(maker, 2);
        uint32_t count = guarded_cells(maker, lock, cells);
        if (chance(maker, 300))
            emit_race(maker);
        if (count == 0)
            continue;
        int pin = chance(maker, maker->knobs->pins);
        if (pin)
            emit(maker, SIM_PIN, cells[below(maker, count)], below(maker, 2), 0);
        emit_section(maker, lock, cells, count);
        if (pin)
            emit(maker, SIM_UNPIN, 0, 0, 0);
        if (maker->program->counter_count > 0 && chance(maker, 100))
            emit(maker, SIM_ADD, below(maker, maker->program->counter_count), 1 + below(maker, 3), 0);
        if (chance(maker, 500))
            emit(maker, SIM_IDLE, 0, 1 + below(maker, 30), 0);
    }
}

enum { RING_FLAG_STEP = 3, RING_ROUNDS_MAX = 12, RING_FIRST_FLAG = SIM_FLAGS_MAX - 1 };

static void emit_await(struct maker *maker, uint32_t flag)
{
    uint32_t patience = chance(maker, maker->knobs->tries) ? SIM_IMPATIENT : SIM_PATIENT;
    uint32_t op = emit(maker, SIM_AWAIT, flag, patience, 1 + below(maker, 60));
    maker->ops->items[op].jump = op; /* it waits again */
}

/* One turn of a thread: the cells are its own. */
static void emit_turn(struct maker *maker, const uint32_t *cells, uint32_t count)
{
    for (uint32_t i = 1 + below(maker, 3); i > 0; i--) {
        uint32_t cell = cells[below(maker, count)];
        if (chance(maker, 600))
            emit(maker, SIM_READ, cell, 0, 0);
        if (chance(maker, 600))
            emit_write(maker, cell);
        if (chance(maker, 300))
            emit(maker, SIM_IDLE, 0, 1 + below(maker, 20), 0);
    }
}

/* Threads that hand cells round, each waiting for its own flag; the first cell is written once, and all are told of it
 * by one flag, which stays set. */
static void add_ring(struct maker *maker)
{
    uint32_t cells[SIM_CELLS_MAX], count = guarded_cells(maker, (uint32_t)SIM_RING, cells), flags[4];
    uint32_t threads = (uint32_t)maker->knobs->flags, rounds = 1 + below(maker, RING_ROUNDS_MAX);
    if (count < 2 || threads < 2)
        return;
    for (uint32_t i = 0; i < threads; i++)
        flags[i] = i * RING_FLAG_STEP + below(maker, RING_FLAG_STEP);
    for (uint32_t i = 0; i < threads; i++) {
        add_script(maker, (int)below(maker, (uint32_t)maker->program->ranks), 0);
        emit(maker, SIM_GATE, 0, 0, 0);
        if (i == 0) {
            emit_write(maker, cells[0]);
            emit(maker, SIM_SET, RING_FIRST_FLAG, 0, 0);
        } else {
            emit_await(maker, RING_FIRST_FLAG);
            emit(maker, SIM_READ, cells[0], 0, 0);
        }
        for (uint32_t round = 0; round < rounds; round++) {
            if (i > 0 || round > 0) {
                emit_await(maker, flags[i]);
                emit(maker, SIM_CLEAR, flags[i], 0, 0);
            }
            emit_turn(maker, cells + 1, count - 1);
            emit(maker, SIM_SET, flags[(i + 1) % threads], 0, 0);
        }
    }
}

/* Of one of its ranks. */
static void add_helper(struct maker *maker, int node, enum sim_op_kind kind, int64_t pause)
{
    const struct sim_program *program = maker->program;
    int ranks[SIM_SPACES_MAX];
    uint32_t count = 0;
    for (int rank = 0; rank < program->ranks; rank++)
        if (program->node_of[rank] == node)
            ranks[count++] = rank;
    add_script(maker, ranks[count > 1 ? below(maker, count) : 0], 1);
    emit(maker, kind, 0, (uint32_t)pause, 0);
}

static void add_other_threads(struct maker *maker)
{
    const struct sim_program *program = maker->program;
    for (int node = 0, rank = 0; node < program->nodes; node++) {
        for (; rank < program->ranks && program->node_of[rank] == node; rank++)
            for (int64_t i = 0; i < maker->knobs->lock_threads; i++)
                add_lock_thread(maker, rank);
        if (maker->knobs->prefetch)
            add_helper(maker, node, SIM_PREFETCH, PREFETCH_PAUSE);
        if (maker->knobs->collect)
            add_helper(maker, node, SIM_COLLECT, maker->knobs->collect);
    }
}

/* When all is said and done, everybody must see everything. */
static void emit_end(struct maker *maker)
{
    struct sim_program *program = maker->program;
    for (int rank = 0; rank < program->ranks; rank++) {
        maker->ops = &program->scripts[rank].ops;
        emit_unpins(maker, rank);
        emit(maker, SIM_JOIN, 0, 0, 0);
    }
    emit_meeting(maker, MEETING_BARRIER, 0, SIM_ALIKE);
    for (int rank = 0; rank < program->ranks; rank++) {
        maker->ops = &program->scripts[rank].ops;
        for (uint32_t cell = 0; cell < program->cell_count; cell++)
            if (maker->live >> program->cells[cell].slot & 1)
                emit(maker, program->cells[cell].guard == SIM_ANYBODY ? SIM_PEEK : SIM_READ, cell, 0, 0);
    }
    emit_meeting(maker, MEETING_FINALIZE, 0, SIM_ALIKE);
}

void sim_program_place(struct sim_program *program, int nodes, const int *spaces)
{
    program->nodes = nodes;
    for (int node = 0; node < nodes; node++)
        for (int i = 0; i < (spaces ? spaces[node] : 1) && program->ranks < SIM_RANKS_MAX; i++)
            program->node_of[program->ranks++] = node;
}

/* Every node gets a rank; the last ones have fewer than they should where there are not enough for all. */
static void place(struct maker *maker)
{
    int spaces[SIM_NODES_MAX], nodes = (int)maker->knobs->nodes, left = SIM_RANKS_MAX - nodes;
    for (int node = 0; node < nodes; node++) {
        int more = maker->knobs->spaces ? (int)maker->knobs->spaces - 1 : (int)below(maker, SIM_SPACES_MAX);
        more = more < left ? more : left;
        spaces[node] = 1 + more;
        left -= more;
    }
    sim_program_place(maker->program, nodes, spaces);
}

void sim_program_make(struct sim_program *program, const struct sim_knobs *knobs, struct sim_random *random)
{
    struct maker maker = {.program = program, .knobs = knobs, .random = random};
    memset(program, 0, sizeof *program);
    place(&maker);
    maker.main_locks = 1 + below(&maker, 3);
    program->lock_count = maker.main_locks + 2;
    program->counter_count = (uint32_t)knobs->counters;
    for (uint32_t i = 0; i < program->counter_count; i++)
        program->counter_starts[i] = (int64_t)below(&maker, 10) - 5;
    emit_setup(&maker);
    for (uint32_t cell = 0; cell < program->cell_count; cell++)
        if (chance(&maker, knobs->races)) {
            program->cells[cell].guard = SIM_ANYBODY;
            maker.racy[maker.racy_count++] = (uint8_t)cell;
        } else if (knobs->lock_threads && chance(&maker, 300)) {
            program->cells[cell].guard = (int)(maker.main_locks + below(&maker, 2));
        } else if (knobs->flags && chance(&maker, 300)) {
            program->cells[cell].guard = SIM_RING;
        }
    add_other_threads(&maker);
    add_ring(&maker);
    for (int64_t phase = 0; phase < knobs->phases; phase++) {
        emit_phase(&maker);
        if (chance(&maker, knobs->changes))
            emit_change(&maker);
        else
            emit_meeting(&maker, MEETING_BARRIER, 0, SIM_ALIKE);
    }
    emit_end(&maker);
}

void sim_program_free(struct sim_program *program)
{
    for (uint32_t i = 0; i < program->script_count; i++)
        free(program->scripts[i].ops.items);
    for (uint32_t i = 0; i < SIM_SLOTS_MAX; i++)
        free(program->slots[i].truth);
}

const char *sim_op_name(enum sim_op_kind kind)
{
    static const char *const names[SIM_OPS] = {
        "write", "read", "peek", "acquire",  "release", "add",  "pin",  "unpin", "meet",  "forget", "idle",
        "start", "gate", "join", "prefetch", "collect", "hint", "want", "set",   "clear", "await",
    };
    return (unsigned)kind < SIM_OPS ? names[kind] : "?";
}
