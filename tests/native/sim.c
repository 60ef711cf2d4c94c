/* The world of the simulated nodes: memory, network, threads, and the oracle that watches them.
 *
 * One step delivers one message or runs one thread up to the point where it has to wait, to be interrupted, or has
 * finished an operation.  Whatever fails ends the run by a long jump to sim_run, with a text that names the seed. */
#include "sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/node.h"

enum {
    RANGE_BYTES = 32 * 1024,
    RETRIES_PER_STEP = 4,
    CHUNKS_KEPT = 64,
    CHUNK_KEPT_BYTES = 1 << 20,
    CHUNK_BYTES_MAX = 64 << 20,
    EVENTS_SHOWN = 40,
    CHECK_PERIOD = 61
};

struct parcel {
    struct parcel *next;
    uint64_t bytes;
    unsigned char data[];
};

struct channel {
    struct parcel *head, **tail;
    uint64_t stalled_until;
    int active_at;                  /* position in the list of channels that hold something, or -1 */
};

struct pin {
    uint64_t page_offset, page_bytes, offset;
    bool write;
};

enum stage { STAGE_BEGIN, STAGE_WAIT, STAGE_PINS };

struct thread {
    const struct sim_script *script;
    struct sim_node *home;
    int number;                     /* on its node */
    uint32_t at;                    /* operation */
    uint32_t byte;                  /* of the cell, how far it is */
    enum stage stage;
    bool blocked, in_fault, done;
    uint64_t sleep_until, ticket, patience;
    uint32_t observation;           /* under way */
    uint64_t add_low;               /* counter: sum of what was certainly added before */
    uint64_t changes;               /* lock: of lock_truth when this try began, */
    bool was_free;                  /* and whether the lock was free then */
    struct pin pins[SIM_PINS_MAX];
    int pin_count;
};

struct chunk {
    struct chunk *next, **link;
    size_t bytes;
    uint64_t unused;
};

/* What a node, a lock or a meeting knows, in the sense of happens-before: how many of each node's writes (a vector clock).
 * The threads of a node share its memory, so what one of them knows all know. */
struct knowledge {
    uint32_t writes[SIM_NODES_MAX];
};

struct sim_node {
    struct sim *sim;
    int rank;
    struct node *node;
    unsigned char *view;
    unsigned char access[RANGE_BYTES / SIM_GRANULE_BYTES];
    struct chunk *chunks;
    uint64_t edges;
    bool started;
    struct knowledge knowledge;
    uint64_t meetings;              /* that its main thread has arrived at */
};

struct sum {
    int64_t before, delta;
};

struct counter_truth {
    uint32_t id;
    int64_t start, asked, added;    /* sums of deltas */
    struct sum *sums;
    uint32_t count, capacity;
};

struct lock_truth {
    uint32_t id;
    struct knowledge knowledge;     /* of those who released it */
    const struct thread *holder;
    uint64_t changes;               /* whenever a thread wants, takes, releases or gives up */
};

/* A write of one byte of a cell that is not the main threads'. */
struct past_write {
    struct knowledge knowledge;     /* of its node, this write included */
    uint32_t byte, value;
    int node;
};

struct history {
    struct past_write *items;
    uint32_t count, capacity;
};

struct sim {
    uint64_t seed, step;
    struct history history[SIM_CELLS_MAX];
    struct sim_observation *observations;
    uint32_t observation_room, *observed;
    struct {
        uint64_t number;
        struct knowledge knowledge;
    } met[2];                       /* the meeting under way, and the one that somebody may not have left yet */
    struct sim_knobs knobs;
    struct sim_random random;
    struct sim_program program;
    struct sim_stats stats;
    struct sim_node nodes[SIM_NODES_MAX];
    struct thread threads[SIM_THREADS_MAX];
    int thread_count, unfinished;
    struct thread *current;
    struct channel channels[SIM_NODES_MAX * SIM_NODES_MAX];
    int active[SIM_NODES_MAX * SIM_NODES_MAX], active_count;
    struct lock_truth locks[SIM_LOCKS_MAX];
    struct counter_truth counters[SIM_COUNTERS_MAX];
    bool trace, ending, damaged;
    int touched;                    /* node of this step */
    jmp_buf escape;
    char *failure;
};

/* ---- failing --------------------------------------------------------------------------------------------------- */

static size_t describe_events(const struct sim_node *home, char *text, size_t room)
{
    const struct node *node = home->node;
    size_t length = 0;
    if (!node)
        return 0;
    uint64_t first = node->event_count > EVENTS_SHOWN ? node->event_count - EVENTS_SHOWN : 0;
    for (uint64_t i = first; i < node->event_count && length < room; i++) {
        const struct event *event = &node->events[i % EVENTS_KEPT];
        length += (size_t)snprintf(text + length, room - length, "  node %d  stamp %llu  %s  region %u  page %llu  peer %d\n",
                                   home->rank, (unsigned long long)event->stamp, node_event_name(event->kind),
                                   event->region, (unsigned long long)event->page, event->peer);
    }
    return length < room ? length : room;
}

__attribute__((noreturn, format(printf, 3, 4)))
static void fail(struct sim *sim, int rank, const char *format, ...)
{
    char *text = sim->failure;
    size_t room = SIM_FAILURE_BYTES, length;
    length = (size_t)snprintf(text, room, "seed %llu, step %llu, node %d: ", (unsigned long long)sim->seed,
                              (unsigned long long)sim->step, rank);
    va_list arguments;
    va_start(arguments, format);
    length += (size_t)vsnprintf(text + length, room - length, format, arguments);
    va_end(arguments);
    if (length < room)
        length += (size_t)snprintf(text + length, room - length, "\n  knobs:");
    for (int i = 0; sim_knob_name(i) && length < room; i++)
        length += (size_t)snprintf(text + length, room - length, " %s=%lld", sim_knob_name(i),
                                   (long long)((const int64_t *)&sim->knobs)[i]);
    if (length < room)
        length += (size_t)snprintf(text + length, room - length, "\n");
    if (rank >= 0 && length < room)
        describe_events(&sim->nodes[rank], text + length, room - length);
    longjmp(sim->escape, 1);
}

#define TRACE(sim, ...)                                                                                                 \
    do {                                                                                                                \
        if ((sim)->trace) {                                                                                             \
            printf("%6llu  ", (unsigned long long)(sim)->step);                                                         \
            printf(__VA_ARGS__);                                                                                        \
            putchar('\n');                                                                                              \
        }                                                                                                               \
    } while (0)

/* ---- chunks of memory: every one is known, so that a leak is, too -------------------------------------------------- */

#ifndef SIM_SANITIZE
static struct chunk *kept[CHUNKS_KEPT];
static int kept_count;
#endif

static void *port_chunk(void *context, size_t bytes)
{
    struct sim_node *home = context;
    struct chunk *chunk;
    if (bytes > CHUNK_BYTES_MAX)
        fail(home->sim, home->rank, "a chunk of %zu bytes", bytes);
#ifndef SIM_SANITIZE
    if (bytes == CHUNK_KEPT_BYTES && kept_count > 0) {
        chunk = kept[--kept_count];
        memset(chunk, 0, sizeof *chunk + bytes);
    } else
#endif
        chunk = calloc(1, sizeof *chunk + bytes);
    if (!chunk)
        abort();
    chunk->bytes = bytes;
    chunk->next = home->chunks;
    chunk->link = &home->chunks;
    if (chunk->next)
        chunk->next->link = &chunk->next;
    home->chunks = chunk;
    return chunk + 1;
}

static void chunk_release(struct chunk *chunk)
{
    if (chunk->next)
        chunk->next->link = chunk->link;
    *chunk->link = chunk->next;
#ifndef SIM_SANITIZE
    if (chunk->bytes == CHUNK_KEPT_BYTES && kept_count < CHUNKS_KEPT) {
        kept[kept_count++] = chunk;
        return;
    }
#endif
    free(chunk);
}

static void port_chunk_free(void *context, void *memory, size_t bytes)
{
    struct sim_node *home = context;
    struct chunk *chunk = (struct chunk *)memory - 1;
    if (chunk->bytes != bytes)
        fail(home->sim, home->rank, "chunk of %zu bytes given back as %zu", chunk->bytes, bytes);
    chunk_release(chunk);
}

/* ---- memory and protection ------------------------------------------------------------------------------------- */

static void bystanders(struct sim_node *home);

static uint64_t edges_around(const struct sim_node *home, uint64_t first, uint64_t last)
{
    uint64_t edges = 0, granules = RANGE_BYTES / SIM_GRANULE_BYTES;
    for (uint64_t i = first; i <= last; i++)
        if (i > 0 && i < granules && home->access[i] != home->access[i - 1])
            edges++;
    return edges;
}

static int port_protect(void *context, uint64_t offset, uint64_t bytes, enum access access)
{
    struct sim_node *home = context;
    struct sim *sim = home->sim;
    if (offset % SIM_GRANULE_BYTES || bytes % SIM_GRANULE_BYTES || !bytes || offset + bytes > RANGE_BYTES ||
        (unsigned)access > ACCESS_WRITE)
        fail(sim, home->rank, "protect(%llu, %llu, %d)", (unsigned long long)offset, (unsigned long long)bytes, access);
    uint64_t first = offset / SIM_GRANULE_BYTES, count = bytes / SIM_GRANULE_BYTES;
    sim->stats.protects++;
    bystanders(home);
    uint64_t before = edges_around(home, first, first + count);
    unsigned char old[RANGE_BYTES / SIM_GRANULE_BYTES];
    memcpy(old, home->access + first, count);
    memset(home->access + first, (int)access, count);
    uint64_t after = edges_around(home, first, first + count);
    if (sim->knobs.edges > 0 && after > before && home->edges + after - before > (uint64_t)sim->knobs.edges) {
        memcpy(home->access + first, old, count);
        sim->stats.protects_failed++;
        TRACE(sim, "node %d  protect %llu+%llu %d FAILS", home->rank, (unsigned long long)offset,
              (unsigned long long)bytes, access);
        return -1;
    }
    home->edges += after - before;
    TRACE(sim, "node %d  protect %llu+%llu %d", home->rank, (unsigned long long)offset, (unsigned long long)bytes, access);
    bystanders(home);
    return 0;
}

static void port_discard(void *context, uint64_t offset, uint64_t bytes)
{
    struct sim_node *home = context;
    if (offset + bytes > RANGE_BYTES)
        fail(home->sim, home->rank, "discard beyond the range");
    memset(home->view + offset, 0, bytes);
}

__attribute__((noreturn)) static void port_panic(void *context, const char *text)
{
    struct sim_node *home = context;
    fail(home->sim, home->rank, "panic: %s", text);
}

/* ---- network ---------------------------------------------------------------------------------------------------- */

static struct channel *channel_between(struct sim *sim, int from, int to)
{
    return &sim->channels[from * SIM_NODES_MAX + to];
}

static void channel_put(struct sim *sim, int from, const struct message *message)
{
    int to = message->peer;
    if (to < 0 || to >= sim->program.nodes || to == from)
        fail(sim, from, "message to node %d", to);
    const struct message_header *header = message_header(message);
    if (header->bytes != message->wire_bytes || header->sender != (uint32_t)from || header->magic != MESSAGE_MAGIC)
        fail(sim, from, "a message with a wrong header: %llu bytes of %llu, sender %u", (unsigned long long)header->bytes,
             (unsigned long long)message->wire_bytes, header->sender);
    struct channel *channel = channel_between(sim, from, to);
    struct parcel *parcel = malloc(sizeof *parcel + message->wire_bytes);
    if (!parcel)
        abort();
    parcel->next = NULL;
    parcel->bytes = message->wire_bytes;
    memcpy(parcel->data, message->wire, message->wire_bytes);
    if (!channel->head) {
        channel->tail = &channel->head;
        channel->active_at = sim->active_count;
        sim->active[sim->active_count++] = from * SIM_NODES_MAX + to;
    }
    *channel->tail = parcel;
    channel->tail = &parcel->next;
    sim->stats.messages++;
    sim->stats.message_bytes += message->wire_bytes;
    sim->stats.kind_messages[header->kind % 16]++;
    TRACE(sim, "node %d  sends kind %d stamp %llu to %d, %llu bytes", from, header->kind,
          (unsigned long long)header->stamp, to, (unsigned long long)message->wire_bytes);
}

static struct parcel *channel_take(struct sim *sim, int index)
{
    struct channel *channel = &sim->channels[index];
    struct parcel *parcel = channel->head;
    channel->head = parcel->next;
    if (!channel->head) {
        int last = sim->active[--sim->active_count];
        sim->active[channel->active_at] = last;
        sim->channels[last].active_at = channel->active_at;
        channel->active_at = -1;
    }
    return parcel;
}

/* After every entry into a node: its messages go into the channels, its threads are woken. */
static void pump(struct sim_node *home)
{
    struct sim *sim = home->sim;
    sim->touched = home->rank;
    for (struct message *message = node_take_outbox(home->node), *next; message; message = next) {
        next = message->next;
        channel_put(sim, home->rank, message);
        message_free(message, &home->node->pool);
    }
    if (home->node->early)
        sim->stats.early++;
    if (!node_take_wake(home->node))
        return;
    for (int i = 0; i < sim->thread_count; i++)
        if (sim->threads[i].home == home)
            sim->threads[i].blocked = false;
}

static void settle(struct sim_node *home)
{
    node_settle(home->node);
    pump(home);
}

/* Cut it short, or overwrite a few fields; mostly so that the header still agrees with the length. */
static void damage(struct sim *sim, struct parcel *parcel)
{
    static const uint32_t values[] = {0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 16, 64};
    struct message_header header;
    sim->damaged = true;
    sim->stats.damages++;
    if (sim_random_chance(&sim->random, 300))
        parcel->bytes = sim_random_below(&sim->random, (uint32_t)parcel->bytes);
    else
        for (uint32_t i = 1 + sim_random_below(&sim->random, 3); i > 0; i--) {
            uint32_t value = values[sim_random_below(&sim->random, 8)];
            if (sim_random_chance(&sim->random, 300))
                value = (uint32_t)sim_random_next(&sim->random);
            uint64_t at = 4 * sim_random_below(&sim->random, (uint32_t)parcel->bytes / 4);
            memcpy(parcel->data + at, &value, sizeof value);
        }
    if (parcel->bytes >= sizeof header && sim_random_chance(&sim->random, 900)) {
        memcpy(&header, parcel->data, sizeof header);
        header.bytes = parcel->bytes;
        memcpy(parcel->data, &header, sizeof header);
    }
}

static void deliver(struct sim *sim, int index)
{
    int from = index / SIM_NODES_MAX, to = index % SIM_NODES_MAX;
    struct sim_node *home = &sim->nodes[to];
    struct parcel *parcel = channel_take(sim, index);
    if (sim_random_chance(&sim->random, sim->knobs.damage))
        damage(sim, parcel);
    const struct message_header *header = (const void *)parcel->data;
    TRACE(sim, "node %d  receives kind %d stamp %llu from %d", to, header->kind, (unsigned long long)header->stamp, from);
    void *wire = pool_take(&home->node->pool, parcel->bytes);
    memcpy(wire, parcel->data, parcel->bytes);
    struct message *message = message_wrap(&home->node->pool, from, wire, parcel->bytes);
    free(parcel);
    sim->stats.deliveries++;
    node_receive(home->node, message);
    pump(home);
}

/* ---- accesses --------------------------------------------------------------------------------------------------- */

static void learn(struct knowledge *to, const struct knowledge *from)
{
    for (int node = 0; node < SIM_NODES_MAX; node++)
        if (from->writes[node] > to->writes[node])
            to->writes[node] = from->writes[node];
}

static void remember_write(struct sim_node *home, uint32_t cell, uint32_t byte, uint32_t value)
{
    struct sim *sim = home->sim;
    struct history *history = &sim->history[cell];
    if (history->count == history->capacity) {
        history->capacity = history->capacity ? 2 * history->capacity : 32;
        history->items = realloc(history->items, history->capacity * sizeof *history->items);
        if (!history->items)
            abort();
    }
    home->knowledge.writes[home->rank]++;
    history->items[history->count++] =
        (struct past_write){.knowledge = home->knowledge, .byte = byte, .value = value, .node = home->rank};
}

/* Does the write happen before what is known here? */
static bool knows(const struct knowledge *knowledge, const struct past_write *write)
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
            return false;           /* what is before it in real time does not happen after it */
        if (other->byte == byte && knows(reader, other) && (!write || knows(&other->knowledge, write)))
            return true;
    }
    return false;
}

/* The value of some write that no other one overwrote, as far as happens-before orders them: so never out of thin air, never
 * older than a write that happens before the read, never from before a write of the same node. */
static bool may_peek(const struct sim_node *home, uint32_t cell, uint32_t byte, uint32_t value)
{
    const struct sim *sim = home->sim;
    const struct history *history = &sim->history[cell];
    const struct sim_slot *slot = &sim->program.slots[sim->program.cells[cell].slot];
    for (uint32_t i = history->count; i-- > 0;) {
        const struct past_write *past = &history->items[i];
        if (past->byte == byte && past->value == value && !overwritten(history, past, byte, &home->knowledge))
            return true;
    }
    uint64_t at = sim->program.cells[cell].offset + byte;
    return value == (slot->initial_bytes ? slot->initial[at % slot->initial_bytes] : 0) &&
           !overwritten(history, NULL, byte, &home->knowledge);
}

static const struct sim_op *op_of(const struct thread *thread)
{
    return &thread->script->ops.items[thread->at];
}

static bool pinned_by(const struct thread *thread, uint64_t offset, bool write)
{
    for (int i = 0; i < thread->pin_count; i++) {
        const struct pin *pin = &thread->pins[i];
        if (offset - pin->page_offset < pin->page_bytes && (pin->write || !write))
            return true;
    }
    return false;
}

static void observe(struct thread *thread, unsigned char value)
{
    struct sim *sim = thread->home->sim;
    if (!sim->observations)
        return;
    uint32_t number = thread->at - thread->script->first;
    if (thread->byte == 0) {
        thread->observation = (*sim->observed)++;
        if (thread->observation < sim->observation_room)
            sim->observations[thread->observation] =
                (struct sim_observation){.thread = (uint32_t)(thread - sim->threads), .op = number};
    }
    if (thread->byte < SIM_OBSERVED_BYTES && thread->observation < sim->observation_room)
        sim->observations[thread->observation].value |= (uint64_t)value << 8 * thread->byte;
}

/* Read or write as many bytes of the cell as the protection allows; true when all are done. */
static bool access_cell(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct sim_op *op = op_of(thread);
    const struct sim_cell *cell = &sim->program.cells[op->what];
    const struct sim_slot *slot = &sim->program.slots[cell->slot];
    bool write = op->kind == SIM_WRITE;
    for (; thread->byte < cell->bytes; thread->byte++) {
        uint64_t at = cell->offset + thread->byte, offset = slot->offset + at;
        if (write && !(op->pattern >> thread->byte % 32 & 1))
            continue;
        if (home->access[offset / SIM_GRANULE_BYTES] < (write ? ACCESS_WRITE : ACCESS_READ)) {
            if (pinned_by(thread, offset, write))
                fail(sim, home->rank, "offset %llu is pinned and not accessible", (unsigned long long)offset);
            return false;
        }
        if (write) {
            home->view[offset] = slot->truth[at] = (unsigned char)op->value;
            sim->stats.writes++;
            if (cell->guard != SIM_MAIN)
                remember_write(home, op->what, thread->byte, op->value);
            TRACE(sim, "node %d.%d writes %d at %llu", home->rank, thread->number, op->value, (unsigned long long)offset);
            continue;
        }
        sim->stats.reads++;
        TRACE(sim, "node %d.%d reads %d at %llu", home->rank, thread->number, home->view[offset],
              (unsigned long long)offset);
        observe(thread, home->view[offset]);
        if (op->kind == SIM_PEEK) {
            sim->stats.peeks++;
            if (!may_peek(home, op->what, thread->byte, home->view[offset]))
                fail(sim, home->rank, "thread %d peeked %d at offset %llu (region %u, byte %llu): too old or never written; "
                     "the latest is %d", thread->number, home->view[offset], (unsigned long long)offset, slot->region,
                     (unsigned long long)at, slot->truth[at]);
        } else if (home->view[offset] != slot->truth[at])
            fail(sim, home->rank, "thread %d read %d at offset %llu (region %u, byte %llu, page %llu), expected %d",
                 thread->number, home->view[offset], (unsigned long long)offset, slot->region, (unsigned long long)at,
                 (unsigned long long)(at / slot->page_bytes), slot->truth[at]);
    }
    thread->byte = 0;
    return true;
}

static void next_op(struct thread *thread)
{
    thread->at++;
    thread->stage = STAGE_BEGIN;
}

/* While one thread is inside the protocol, which changes the protection, the others go on: what a real node's threads do
 * between two instructions of mprotect's caller. */
static void bystanders(struct sim_node *home)
{
    struct sim *sim = home->sim;
    if (sim->ending || !sim_random_chance(&sim->random, sim->knobs.bystanders))
        return;
    for (int i = 0; i < sim->thread_count; i++) {
        struct thread *thread = &sim->threads[i];
        if (thread->home != home || thread == sim->current || thread->done || thread->blocked || thread->in_fault ||
            thread->sleep_until > sim->step)
            continue;
        const struct sim_op *op = op_of(thread);
        if ((op->kind != SIM_READ && op->kind != SIM_WRITE && op->kind != SIM_PEEK) ||
            !sim->program.slots[sim->program.cells[op->what].slot].truth)
            continue;
        sim->stats.bystander_accesses++;
        if (access_cell(thread))
            next_op(thread);
    }
}

/* As a SIGSEGV handler: one question.  True when the access can be tried again. */
static bool fault(struct thread *thread, uint64_t offset, bool write)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    enum fault_answer answer = node_fault(home->node, offset, write, !thread->in_fault);
    TRACE(sim, "node %d.%d faults at %llu (%s): %d", home->rank, thread->number, (unsigned long long)offset,
          write ? "write" : "read", answer);
    thread->in_fault = thread->blocked = answer == FAULT_WAIT;
    pump(home);
    if (answer == FAULT_WAIT)
        return false;
    if (answer == FAULT_OUTSIDE)
        fail(sim, home->rank, "a live region is outside");
    if (home->access[offset / SIM_GRANULE_BYTES] < (write ? ACCESS_WRITE : ACCESS_READ))
        fail(sim, home->rank, "the fault at %llu is done, and the access is still refused", (unsigned long long)offset);
    return true;
}

static void do_access(struct thread *thread)
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
        if (!thread->in_fault && access_cell(thread)) {
            next_op(thread);
            return;
        }
        if (!fault(thread, slot->offset + cell->offset + thread->byte, op->kind == SIM_WRITE))
            return;
        if (sim_random_chance(&sim->random, 250))
            return;
    }
}

static void do_pin(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct sim_op *op = op_of(thread);
    const struct sim_cell *cell = &sim->program.cells[op->what];
    const struct sim_slot *slot = &sim->program.slots[cell->slot];
    struct pin *pin = &thread->pins[thread->pin_count];
    *pin = (struct pin){.page_bytes = slot->page_bytes, .write = op->value};
    if (slot->truth) {
        pin->offset = slot->offset + cell->offset;
        pin->page_offset = slot->offset + cell->offset / slot->page_bytes * slot->page_bytes;
        enum fault_answer answer = node_fault(home->node, pin->offset, pin->write, !thread->in_fault);
        thread->in_fault = thread->blocked = answer == FAULT_WAIT;
        if (answer == FAULT_DONE)
            node_pin(home->node, pin->offset, pin->write);
        TRACE(sim, "node %d.%d pins %llu (%s): %d", home->rank, thread->number, (unsigned long long)pin->offset,
              pin->write ? "write" : "read", answer);
        pump(home);
        if (answer == FAULT_WAIT)
            return;
        if (answer == FAULT_OUTSIDE)
            fail(sim, home->rank, "a live region is outside");
        *(pin->write ? &sim->stats.pins_write : &sim->stats.pins_read) += 1;
    } else
        pin->page_bytes = 0;
    thread->pin_count++;
    next_op(thread);
}

static void do_unpin(struct thread *thread)
{
    struct pin *pin = &thread->pins[--thread->pin_count];
    if (pin->page_bytes) {
        TRACE(thread->home->sim, "node %d.%d unpins %llu", thread->home->rank, thread->number,
              (unsigned long long)pin->offset);
        node_unpin(thread->home->node, pin->offset, pin->write);
        pump(thread->home);
    }
    next_op(thread);
}

/* The end of an acquire or a barrier: what is pinned is brought up to date, and only then the call returns, knowing what
 * those knew from whom it came. */
static void wait_for_pins(struct thread *thread, const struct knowledge *source)
{
    bool valid = node_pins_valid(thread->home->node);
    thread->blocked = !valid;
    pump(thread->home);
    if (!valid) {
        thread->home->sim->stats.pins_waited++;
        return;
    }
    learn(&thread->home->knowledge, source);
    next_op(thread);
}

/* ---- locks and counters ------------------------------------------------------------------------------------------- */

static unsigned grants_under_way(struct sim *sim, uint32_t lock);

/* No thread holds it or wants it, the token rests, and nothing keeps it there: a try must succeed. */
static bool lock_is_free(struct sim *sim, const struct lock_truth *truth)
{
    unsigned resting = 0;
    if (truth->holder || grants_under_way(sim, truth->id))
        return false;
    for (int rank = 0; rank < sim->program.nodes; rank++) {
        const struct node *node = sim->nodes[rank].node;
        const struct lock *lock = lock_find(node, truth->id);
        if (!lock || lock->queue || (lock->asked && !lock->asked_trying) || node->collection.owing)
            return false;
        resting += lock->token && lock->waiting == NODE_NONE;
    }
    return resting == 1;
}

static void do_acquire(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct sim_op *op = op_of(thread);
    struct lock_truth *truth = &sim->locks[op->what];
    struct lock *lock = lock_find(home->node, truth->id);
    if (!lock)
        fail(sim, home->rank, "lock %u is not known", truth->id);
    if (thread->stage == STAGE_PINS) {
        wait_for_pins(thread, &truth->knowledge);
        return;
    }
    if (thread->stage == STAGE_BEGIN) {
        thread->was_free = op->value == SIM_TRYING && lock_is_free(sim, truth);
        thread->changes = ++truth->changes;
        sim->stats.tries_of_free_locks += thread->was_free;
        thread->ticket = lock_enqueue(home->node, lock, op->value == SIM_TRYING);
        thread->stage = STAGE_WAIT;
        thread->patience = sim->step + op->pattern;
        sim->stats.tries += op->value == SIM_TRYING;
        TRACE(sim, "node %d.%d wants lock %u (%u)", home->rank, thread->number, truth->id, op->value);
        settle(home);
    }
    enum lock_answer answer = lock_poll(home->node, lock, thread->ticket);
    if (answer == LOCK_TAKEN) {
        TRACE(sim, "node %d.%d takes lock %u", home->rank, thread->number, truth->id);
        if (truth->holder)
            fail(sim, home->rank, "thread %d was given lock %u, which a thread of node %d holds", thread->number, truth->id,
                 truth->holder->home->rank);
        truth->holder = thread;
        truth->changes++;
        thread->stage = STAGE_PINS;
        settle(home);
        return;
    }
    if (answer == LOCK_REFUSED) {
        if (op->value != SIM_TRYING)
            fail(sim, home->rank, "an acquire of lock %u was refused", truth->id);
        if (thread->was_free && thread->changes == truth->changes)
            fail(sim, home->rank, "a try of lock %u was refused, and it was free all the time", truth->id);
        sim->stats.tries_refused++;
    } else if (op->value == SIM_PATIENT || sim->step < thread->patience) {
        thread->blocked = op->value == SIM_PATIENT;
        settle(home);
        return;
    } else {
        TRACE(sim, "node %d.%d gives up lock %u", home->rank, thread->number, truth->id);
        lock_cancel(home->node, lock, thread->ticket);
        sim->stats.acquires_cancelled++;
    }
    truth->changes++;
    settle(home);
    thread->at = op->jump;
    thread->stage = STAGE_BEGIN;
}

static void do_release(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct lock_truth *truth = &home->sim->locks[op_of(thread)->what];
    struct lock *lock = lock_find(home->node, truth->id);
    if (!lock || !lock->held || truth->holder != thread)
        fail(home->sim, home->rank, "lock %u is not held by its holder", truth->id);
    truth->holder = NULL;
    truth->changes++;
    learn(&truth->knowledge, &thread->home->knowledge);
    TRACE(home->sim, "node %d.%d releases lock %u", home->rank, thread->number, truth->id);
    lock_release(home->node, lock);
    settle(home);
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

static void do_add(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct sim_op *op = op_of(thread);
    struct counter_truth *truth = &sim->counters[op->what];
    int64_t delta = (int64_t)op->value, before = 0;
    if (thread->stage == STAGE_BEGIN) {
        thread->add_low = (uint64_t)truth->added;
        truth->asked += delta;
        thread->ticket = counter_add(home->node, truth->id, delta);
        thread->stage = STAGE_WAIT;
        settle(home);
    }
    bool done = counter_poll(home->node, thread->ticket, &before);
    thread->blocked = !done;
    settle(home);
    if (!done)
        return;
    if (before < truth->start + (int64_t)thread->add_low || before + delta > truth->start + truth->asked)
        fail(sim, home->rank, "counter %u was %lld, possible is %lld to %lld", truth->id, (long long)before,
             (long long)(truth->start + (int64_t)thread->add_low), (long long)(truth->start + truth->asked - delta));
    truth->added += delta;
    counter_keep(truth, before, delta);
    sim->stats.counter_adds++;
    next_op(thread);
}

static int compare_sums(const void *left, const void *right)
{
    int64_t a = ((const struct sum *)left)->before, b = ((const struct sum *)right)->before;
    return (a > b) - (a < b);
}

/* All that was added was added once: each sum begins where another ended. */
static void check_counters(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->program.counter_count; i++) {
        struct counter_truth *truth = &sim->counters[i];
        int64_t value = truth->start;
        if (truth->count)
            qsort(truth->sums, truth->count, sizeof *truth->sums, compare_sums);
        for (uint32_t k = 0; k < truth->count; k++) {
            if (truth->sums[k].before != value)
                fail(sim, -1, "counter %u was %lld, where %lld should follow", truth->id,
                     (long long)truth->sums[k].before, (long long)value);
            value += truth->sums[k].delta;
        }
    }
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
    case MEETING_FREE:
        ballot.numbers[0] = slot->region;
        break;
    case MEETING_COUNTER_NEW:
        ballot.numbers[0] = (uint64_t)sim->program.counter_starts[op->value % SIM_COUNTERS_MAX];
        break;
    default:
        break;
    }
    if (odd && op->pattern == SIM_OTHER_ARGUMENTS)
        ballot.what = "a call with other arguments";
    if (odd && op->pattern == SIM_OTHER_CALL)
        ballot = (struct ballot){.kind = MEETING_LOCK_NEW, .what = "another call"};
    if (odd && op->pattern == SIM_REFUSES)
        ballot.refusal = "an array is alive";
    return ballot;
}

static void slot_allocated(struct thread *thread, struct sim_slot *slot, uint32_t id)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct region *region = region_find(&home->node->regions, id);
    if (!region || region->bytes != slot->bytes || region->page_bytes != slot->page_bytes)
        fail(sim, home->rank, "region %u is not what was allocated", id);
    if (!slot->truth) {
        sim->stats.allocations++;
        slot->region = id;
        slot->offset = region->offset;
        slot->truth = calloc(1, slot->bytes);
        if (!slot->truth)
            abort();
        for (uint64_t i = 0; slot->initial_bytes && i < slot->bytes; i++)
            slot->truth[i] = slot->initial[i % slot->initial_bytes];
        for (uint32_t i = 0; i < sim->program.slot_count; i++)
            sim->stats.addresses_reused += &sim->program.slots[i] != slot && sim->program.slots[i].region != 0 &&
                                           sim->program.slots[i].offset == slot->offset;
    }
    if (slot->region != id || slot->offset != region->offset)
        fail(sim, home->rank, "region %u at %llu here is region %u at %llu elsewhere", id,
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
        fail(sim, home->rank, "%s ended with outcome %d, not %d: %s", meeting_kind_name((enum meeting_kind)op->what),
             meeting->outcome, expected[op->pattern], meeting->text);
    if (meeting->outcome != MEETING_AGREED) {
        *(op->pattern == SIM_REFUSES ? &sim->stats.refusals : &sim->stats.disagreements) += 1;
        if (!meeting->text[0])
            fail(sim, home->rank, "a disagreement without a text");
        return;
    }
    uint32_t *known = op->what == MEETING_LOCK_NEW ? &sim->locks[op->value].id : &sim->counters[op->value % SIM_COUNTERS_MAX].id;
    struct sim_slot *slot = &sim->program.slots[op->value % SIM_SLOTS_MAX];
    switch (op->what) {
    case MEETING_ALLOCATE:
        slot_allocated(thread, slot, meeting->result);
        break;
    case MEETING_FREE:
        if (region_find(&home->node->regions, slot->region))
            fail(sim, home->rank, "region %u was freed and lives", slot->region);
        sim->stats.frees += slot->truth != NULL;
        free(slot->truth);
        slot->truth = NULL;
        break;
    case MEETING_LOCK_NEW:
    case MEETING_COUNTER_NEW:
        if (*known != UINT32_MAX && *known != meeting->result)
            fail(sim, home->rank, "number %u here is %u elsewhere", meeting->result, *known);
        *known = meeting->result;
        break;
    default:
        break;
    }
}

static void arrive_knowing(struct sim_node *home)
{
    struct sim *sim = home->sim;
    uint64_t number = ++home->meetings;
    if (sim->met[number % 2].number != number) {
        sim->met[number % 2].number = number;
        memset(&sim->met[number % 2].knowledge, 0, sizeof(struct knowledge));
    }
    learn(&sim->met[number % 2].knowledge, &home->knowledge);
}

static void do_meet(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct sim_op *op = op_of(thread);
    if (thread->stage == STAGE_PINS) {
        wait_for_pins(thread, &sim->met[home->meetings % 2].knowledge);
        return;
    }
    if (thread->stage == STAGE_BEGIN) {
        if (op->what == MEETING_FREE && !sim->program.slots[op->value].truth) {
            next_op(thread);                /* the range had no room for it */
            return;
        }
        struct ballot ballot = ballot_of(sim, op, op->jump == (uint32_t)home->rank);
        TRACE(sim, "node %d.%d arrives at %s", home->rank, thread->number, meeting_kind_name(ballot.kind));
        arrive_knowing(home);
        meeting_arrive(home->node, MEETING_THREADS, &ballot);
        thread->stage = STAGE_WAIT;
        settle(home);
    }
    bool left = meeting_take(home->node, MEETING_THREADS);
    thread->blocked = !left;
    if (left) {
        TRACE(sim, "node %d.%d departs from %s", home->rank, thread->number,
              meeting_kind_name((enum meeting_kind)op->what));
        departed(thread, op);
        thread->stage = STAGE_PINS;
    }
    settle(home);
}

static void do_forget(struct thread *thread)
{
    const struct sim_slot *slot = &thread->home->sim->program.slots[op_of(thread)->what];
    struct regions *regions = &thread->home->node->regions;
    for (uint32_t i = 0; i < regions->grave_count; i++)
        if (slot->region && regions->graves[i].id == slot->region)
            regions->graves[i].forgotten = true;
    next_op(thread);
}

/* ---- helpers ------------------------------------------------------------------------------------------------------ */

static void do_prefetch(struct thread *thread)
{
    struct sim_node *home = thread->home;
    struct sim *sim = home->sim;
    const struct regions *regions = &home->node->regions;
    if (!thread->in_fault) {
        if (thread->stage == STAGE_BEGIN || regions->count == 0) {
            thread->sleep_until = sim->step + 1 + sim_random_below(&sim->random, 2 * op_of(thread)->value);
            thread->stage = STAGE_WAIT;
            return;
        }
        const struct region *region = regions->live[sim_random_below(&sim->random, regions->count)];
        thread->ticket = region->offset + sim_random_below(&sim->random, (uint32_t)region->bytes);
        thread->stage = STAGE_BEGIN;
        sim->stats.prefetches++;
    }
    enum fault_answer answer = node_fault(home->node, thread->ticket, false, !thread->in_fault);
    TRACE(sim, "node %d.%d prefetches %llu: %d", home->rank, thread->number, (unsigned long long)thread->ticket, answer);
    thread->in_fault = thread->blocked = answer == FAULT_WAIT;
    if (thread->in_fault && sim_random_chance(&sim->random, 100)) {
        thread->in_fault = thread->blocked = false;     /* it was a hint only */
        thread->stage = STAGE_BEGIN;
    }
    pump(home);
}

static void do_collect(struct thread *thread)
{
    struct sim *sim = thread->home->sim;
    if (thread->stage == STAGE_WAIT) {
        TRACE(sim, "node %d wants a collection", thread->home->rank);
        collection_want(thread->home->node);
        settle(thread->home);
    }
    thread->stage = STAGE_WAIT;
    thread->sleep_until = sim->step + 1 + sim_random_below(&sim->random, 2 * op_of(thread)->value);
}

static void do_hint(struct thread *thread)
{
    const struct sim_cell *cell = &thread->home->sim->program.cells[op_of(thread)->what];
    const struct sim_slot *slot = &thread->home->sim->program.slots[cell->slot];
    if (slot->truth) {
        node_fault(thread->home->node, slot->offset + cell->offset, false, true);
        pump(thread->home);
        thread->home->sim->stats.prefetches++;
    }
    next_op(thread);
}

static void do_want(struct thread *thread)
{
    collection_want(thread->home->node);
    settle(thread->home);
    next_op(thread);
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
    for (int rank = 0; rank < sim->program.nodes; rank++)
        for (const struct message *message = sim->nodes[rank].node->early; message; message = message->next)
            grants += grants_lock(message_header(message)->kind, message->wire, lock);
    return grants;
}

static void check_locks(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->program.lock_count; i++) {
        struct lock_truth *truth = &sim->locks[i];
        unsigned tokens = 0, known = 0;
        if (truth->id == UINT32_MAX)
            continue;
        for (int rank = 0; rank < sim->program.nodes; rank++) {
            const struct lock *lock = lock_find(sim->nodes[rank].node, truth->id);
            if (!lock)
                continue;
            known++;
            tokens += lock->token;
            if (lock->held != (truth->holder && truth->holder->home->rank == rank))
                fail(sim, rank, "lock %u: held is %d", truth->id, lock->held);
        }
        if (known < (unsigned)sim->program.nodes)
            continue;
        tokens += grants_under_way(sim, truth->id);
        if (tokens != 1)
            fail(sim, sim->touched, "lock %u has %u tokens", truth->id, tokens);
    }
}

static void check_page(struct sim_node *home, const struct region *region, uint64_t index)
{
    const struct page *page = region_page_if(region, index);
    uint64_t granules = region->page_bytes / SIM_GRANULE_BYTES;
    uint64_t first = (region->offset + index * region->page_bytes) / SIM_GRANULE_BYTES;
    unsigned told = page ? page->access : ACCESS_NONE, allowed = ACCESS_NONE;
    if (page && page_valid(page))
        allowed = page->writable ? ACCESS_WRITE : ACCESS_READ;
    if (page && page_pinned(page)) {
        unsigned pinned = page->pins_write ? ACCESS_WRITE : ACCESS_READ;
        if (told < pinned)
            fail(home->sim, home->rank, "region %u page %llu is pinned and has access %u", region->id,
                 (unsigned long long)index, told);
        allowed = ACCESS_WRITE;
    }
    for (uint64_t i = 0; i < granules; i++)
        if (home->access[first + i] != told || told > allowed)
            fail(home->sim, home->rank, "region %u page %llu: access %u, recorded %u, allowed %u", region->id,
                 (unsigned long long)index, home->access[first + i], told, allowed);
}

static void check_memory(struct sim_node *home)
{
    const struct regions *regions = &home->node->regions;
    uint64_t granule = 0;
    for (uint32_t i = 0; i < regions->count; i++) {
        const struct region *region = regions->by_offset[i];
        for (; granule < region->offset / SIM_GRANULE_BYTES; granule++)
            if (home->access[granule] != ACCESS_NONE)
                fail(home->sim, home->rank, "offset %llu belongs to nobody and is accessible",
                     (unsigned long long)granule * SIM_GRANULE_BYTES);
        for (uint64_t index = 0; index < region->pages; index++)
            check_page(home, region, index);
        granule += region->pages * region->page_bytes / SIM_GRANULE_BYTES;
    }
}

static void check_node(struct sim *sim, int rank)
{
    sim->stats.checks++;
    node_check(sim->nodes[rank].node);
    check_memory(&sim->nodes[rank]);
}

static void check_step(struct sim *sim)
{
    if (sim->knobs.check == 2) {
        check_node(sim, sim->touched);
        check_locks(sim);
    } else if (sim->knobs.check == 1 && sim->step % CHECK_PERIOD == 0) {
        for (int rank = 0; rank < sim->program.nodes; rank++)
            check_node(sim, rank);
        check_locks(sim);
    }
}

/* ---- the schedule --------------------------------------------------------------------------------------------------- */

static void do_gate(struct thread *thread)
{
    if (thread->home->started)
        next_op(thread);
    else
        thread->blocked = true;
}

static void do_start(struct thread *thread)
{
    struct sim *sim = thread->home->sim;
    thread->home->started = true;
    for (int i = 0; i < sim->thread_count; i++)
        if (sim->threads[i].home == thread->home)
            sim->threads[i].blocked = false;
    next_op(thread);
}

static void do_join(struct thread *thread)
{
    struct sim *sim = thread->home->sim;
    for (int i = 0; i < sim->thread_count; i++) {
        const struct thread *other = &sim->threads[i];
        if (other != thread && other->home == thread->home && !other->script->helper && !other->done) {
            thread->blocked = true;
            return;
        }
    }
    next_op(thread);
}

static void finish(struct thread *thread)
{
    struct sim *sim = thread->home->sim;
    thread->done = true;
    sim->unfinished--;
    for (int i = 0; i < sim->thread_count; i++)     /* who joins it */
        if (sim->threads[i].home == thread->home)
            sim->threads[i].blocked = false;
}

static void run_thread(struct thread *thread)
{
    static void (*const actions[SIM_OPS])(struct thread *) = {
        [SIM_WRITE] = do_access,   [SIM_READ] = do_access, [SIM_PEEK] = do_access,    [SIM_ACQUIRE] = do_acquire, [SIM_RELEASE] = do_release,
        [SIM_ADD] = do_add,        [SIM_PIN] = do_pin,         [SIM_UNPIN] = do_unpin,     [SIM_MEET] = do_meet,
        [SIM_FORGET] = do_forget,  [SIM_START] = do_start,     [SIM_GATE] = do_gate,       [SIM_JOIN] = do_join,
        [SIM_PREFETCH] = do_prefetch, [SIM_COLLECT] = do_collect,
        [SIM_HINT] = do_hint,      [SIM_WANT] = do_want,
    };
    struct sim *sim = thread->home->sim;
    sim->current = thread;
    sim->touched = thread->home->rank;
    const struct sim_op *op = op_of(thread);
    if (op->kind == SIM_IDLE) {
        thread->sleep_until = sim->step + op->value;
        next_op(thread);
    } else
        actions[op->kind](thread);
    sim->current = NULL;
    if (thread->at == thread->script->ops.count)
        finish(thread);
}

static int choose_channel(struct sim *sim)
{
    int index = -1;
    for (int tries = 0; tries < 4; tries++) {
        index = sim->active[sim_random_below(&sim->random, (uint32_t)sim->active_count)];
        if (sim->channels[index].stalled_until <= sim->step)
            break;
    }
    return index;
}

static void stall_something(struct sim *sim)
{
    uint64_t until = sim->step + 1 + sim_random_below(&sim->random, 400);
    if (sim_random_chance(&sim->random, 500)) {
        struct thread *thread = &sim->threads[sim_random_below(&sim->random, (uint32_t)sim->thread_count)];
        if (thread->sleep_until < until)
            thread->sleep_until = until;
    } else {
        uint32_t nodes = (uint32_t)sim->program.nodes;
        int from = (int)sim_random_below(&sim->random, nodes), to = (int)sim_random_below(&sim->random, nodes);
        channel_between(sim, from, to)->stalled_until = until;
    }
}

/* A thread that can run now, or NULL.  `*wakes`: when the next sleeper of the program wakes. */
static struct thread *choose_thread(struct sim *sim, uint64_t *wakes)
{
    struct thread *runnable[SIM_THREADS_MAX];
    uint32_t count = 0;
    *wakes = UINT64_MAX;
    for (int i = 0; i < sim->thread_count; i++) {
        struct thread *thread = &sim->threads[i];
        if (thread->done || thread->blocked)
            continue;
        if (thread->sleep_until <= sim->step)
            runnable[count++] = thread;
        else if (thread->sleep_until < *wakes && !thread->script->helper)
            *wakes = thread->sleep_until;
    }
    return count ? runnable[sim_random_below(&sim->random, count)] : NULL;
}

static const char *state_name(const struct thread *thread)
{
    return thread->done ? "done" : thread->blocked ? "blocked" : "running";
}

__attribute__((noreturn)) static void fail_stuck(struct sim *sim, const char *what)
{
    char text[4096];
    size_t length = 0;
    for (int i = 0; i < sim->thread_count && length < sizeof text; i++) {
        const struct thread *thread = &sim->threads[i];
        if (thread->done)
            continue;
        const struct sim_op *op = op_of(thread);
        length += (size_t)snprintf(text + length, sizeof text - length, "\n  thread %d.%d %s in %s %u, stage %d%s",
                                   thread->home->rank, thread->number, state_name(thread), sim_op_name(op->kind), op->what,
                                   thread->stage, thread->in_fault ? ", in a fault" : "");
    }
    for (int rank = 0; rank < sim->program.nodes && length < sizeof text; rank++) {
        const struct node *node = sim->nodes[rank].node;
        length += (size_t)snprintf(text + length, sizeof text - length,
                                   "\n  node %d: collection phase %d, holding %d, %u fetches, %llu cuts, meetings %d and %d",
                                   rank, node->collection.phase, node->collection.holding, node->fetch_count,
                                   (unsigned long long)node->cuts, node->meetings[0].state, node->meetings[1].state);
    }
    fail(sim, sim->touched, "%s%s", what, text);
}

static void run_step(struct sim *sim)
{
    uint64_t wakes;
    sim->step++;
    if (sim->step > (uint64_t)sim->knobs.steps_max)
        fail_stuck(sim, "no end in sight");
    if (sim_random_chance(&sim->random, sim->knobs.stalls))
        stall_something(sim);
    struct thread *thread = choose_thread(sim, &wakes);
    bool can_deliver = sim->active_count > 0;
    if (can_deliver && (!thread || sim_random_chance(&sim->random, sim->knobs.deliver)))
        deliver(sim, choose_channel(sim));
    else if (thread)
        run_thread(thread);
    else if (wakes != UINT64_MAX)
        sim->step = wakes;
    else
        fail_stuck(sim, "deadlock");
    check_step(sim);
}

/* ---- a run ---------------------------------------------------------------------------------------------------------- */

static void set_up_node(struct sim *sim, int rank)
{
    struct sim_node *home = &sim->nodes[rank];
    const struct sim_knobs *knobs = &sim->knobs;
    home->sim = sim;
    home->rank = rank;
    home->view = calloc(1, RANGE_BYTES);
    if (!home->view)
        abort();
    struct port port = {
        .context = home,
        .view = home->view,
        .range_bytes = RANGE_BYTES,
        .granule_bytes = SIM_GRANULE_BYTES,
        .edges_max = knobs->edges > 0 && knobs->edges_told ? (uint64_t)knobs->edges : UINT32_MAX,
        .protect = port_protect,
        .discard = port_discard,
        .chunk = port_chunk,
        .chunk_free = port_chunk_free,
        .panic = port_panic,
    };
    struct node_options options = {
        .rank = rank,
        .size = sim->program.nodes,
        .budget_bytes = (uint64_t)knobs->budget_bytes,
        .ahead_bytes_max = (uint64_t)knobs->ahead_bytes,
        .policy = {.stay_open_permille = (uint32_t)knobs->stay_open,
                   .open_early_permille = (uint32_t)knobs->open_early,
                   .random_state = (uint32_t)sim_random_next(&sim->random) | 1,
                   .check_all = knobs->check == 2},
    };
    options.policy.whole = (unsigned)knobs->whole;
    home->node = node_new(&options, &port);
}

/* `written`: the program, or NULL: the seed makes one. */
static void set_up(struct sim *sim, const struct sim_program *written)
{
    struct sim_random maker = {.state = sim->seed};
    if (written) {
        sim_program_complete(&sim->program, written, &sim->knobs, &maker);
    } else {
        sim_knobs_choose(&sim->knobs, &maker);
        sim_program_make(&sim->program, &sim->knobs, &maker);
    }
    sim->random.state = sim_random_next(&maker);
    for (int i = 0; i < SIM_NODES_MAX * SIM_NODES_MAX; i++)
        sim->channels[i].active_at = -1;
    for (int i = 0; i < SIM_LOCKS_MAX; i++)
        sim->locks[i].id = UINT32_MAX;
    for (int i = 0; i < SIM_COUNTERS_MAX; i++)
        sim->counters[i] = (struct counter_truth){.id = UINT32_MAX, .start = sim->program.counter_starts[i]};
    for (uint32_t i = 0; i < sim->program.script_count; i++) {
        struct thread *thread = &sim->threads[sim->thread_count++];
        const struct sim_script *script = &sim->program.scripts[i];
        thread->script = script;
        thread->home = &sim->nodes[script->node];
        for (uint32_t k = 0; k < i; k++)
            thread->number += sim->program.scripts[k].node == script->node;
        sim->unfinished += !script->helper;
        if (script->ops.count == 0)
            abort();
    }
    for (int rank = 0; rank < sim->program.nodes; rank++)
        set_up_node(sim, rank);
}

static void add_node_stats(struct sim_stats *to, const struct node *node)
{
    const struct node_stats *from = &node->stats;
    to->faults_read += from->faults_read;
    to->faults_write += from->faults_write;
    to->faults_local += from->faults_local;
    to->fetches += from->fetches;
    to->fetch_requests += from->fetch_requests;
    to->pages_received += from->pages_received;
    to->diffs_received += from->diffs_received;
    to->diffs_made += from->diffs_made;
    to->twins_made += from->twins_made;
    to->intervals_closed += from->intervals_closed;
    to->notices_received += from->notices_received;
    to->invalidations += from->invalidations;
    to->collections += from->collections;
    to->cuts += node->cuts;
    to->lock_acquires += from->lock_acquires;
    to->lock_acquires_local += from->lock_acquires_local;
    to->lock_grants += from->lock_grants;
    to->node_runs++;
    if (node->pool.bytes_used_max > to->pool_bytes_max)
        to->pool_bytes_max = node->pool.bytes_used_max;
}

/* Everything is done: the nodes end, and nothing may be left. */
static void end_nodes(struct sim *sim)
{
    sim->ending = true;
    check_counters(sim);
    for (int rank = 0; rank < sim->program.nodes; rank++) {
        struct sim_node *home = &sim->nodes[rank];
        check_node(sim, rank);
        add_node_stats(&sim->stats, home->node);
        node_free(home->node);
        home->node = NULL;
        if (home->chunks)
            fail(sim, rank, "a chunk of %zu bytes is leaked", home->chunks->bytes);
    }
}

static void clean_up(struct sim *sim)
{
    for (int i = 0; i < SIM_NODES_MAX * SIM_NODES_MAX; i++)
        for (struct parcel *parcel = sim->channels[i].head, *next; parcel; parcel = next) {
            next = parcel->next;
            free(parcel);
        }
    for (int rank = 0; rank < SIM_NODES_MAX; rank++) {
        while (sim->nodes[rank].chunks)
            chunk_release(sim->nodes[rank].chunks);
        free(sim->nodes[rank].view);
    }
    for (int i = 0; i < SIM_COUNTERS_MAX; i++)
        free(sim->counters[i].sums);
    for (int i = 0; i < SIM_CELLS_MAX; i++)
        free(sim->history[i].items);
    sim_program_free(&sim->program);
    free(sim);
}

static void add_stats(struct sim_stats *to, const struct sim_stats *from)
{
    uint64_t max = to->pool_bytes_max > from->pool_bytes_max ? to->pool_bytes_max : from->pool_bytes_max;
    for (size_t i = 0; i < sizeof *to / sizeof(uint64_t); i++)
        ((uint64_t *)to)[i] += ((const uint64_t *)from)[i];
    to->pool_bytes_max = max;
}

static struct sim *sim_new(uint64_t seed, const struct sim_knobs *knobs, int trace, char *failure)
{
    struct sim *sim = calloc(1, sizeof *sim);
    if (!sim)
        abort();
    sim->seed = seed;
    sim->knobs = *knobs;
    sim->trace = trace;
    sim->failure = failure;
    return sim;
}

/* To the end, and away with it. */
static int run(struct sim *sim, const struct sim_program *written, struct sim_stats *total)
{
    int failed = setjmp(sim->escape);
    if (!failed) {
        set_up(sim, written);
        while (sim->unfinished)
            run_step(sim);
        end_nodes(sim);
        sim->stats.programs = 1;
        sim->stats.steps = sim->step;
        add_stats(total, &sim->stats);
    }
    bool damaged = sim->damaged;
    total->programs_damaged += damaged;
    total->damages_noticed += damaged && failed;
    clean_up(sim);
    return !failed ? 0 : damaged ? 1 : -1;
}

int sim_run(uint64_t seed, const struct sim_knobs *knobs, int trace, struct sim_stats *total, char *failure)
{
    return run(sim_new(seed, knobs, trace, failure), NULL, total);
}

int sim_run_program(const struct sim_program *program, uint64_t seed, const struct sim_knobs *knobs, int trace,
                    struct sim_stats *total, char *failure, struct sim_observation *observations, uint32_t room,
                    uint32_t *count)
{
    struct sim *sim = sim_new(seed, knobs, trace, failure);
    sim->observations = observations;
    sim->observation_room = room;
    sim->observed = count;
    *count = 0;
    return run(sim, program, total);
}

uint64_t sim_run_many(uint64_t first, uint64_t runs, const struct sim_knobs *knobs, struct sim_stats *total, char *failure)
{
    for (uint64_t i = 0; i < runs; i++)
        if (sim_run(first + i, knobs, 0, total, failure) < 0)
            return i;
    return runs;
}
