/* scale - what one operation costs on up to 1,024 nodes: messages, bytes, rounds, and time by the LogGP model.
 *
 *   scale OPERATION NODES K  L o g G TRAP NOTICE      (times in picoseconds; G for a byte)
 *
 * All nodes run in this process, the real protocol each.  The network is the model of Alexandrov, Ionescu, Schauser and
 * Scheiman (SPAA 1995): to send or to receive a message occupies a node for o; between two messages its port rests for g,
 * and for G a byte; the last byte arrives L after it left.  Node and port are occupied as in LogGOPSim (Hoefler, Schneider,
 * Lumsdaine 2010).  Two costs of a node itself are added: TRAP for each page fault and NOTICE for each write notice taken in.
 * Everything else that a processor does takes no time.
 *
 * An operation is measured after what must precede it has run.  Its rounds are the longest chain of messages each of which
 * could not be sent before the one before it had come.  `mpi` is the time of hand-written message passing for the same
 * purpose over the same network. */
#define _DEFAULT_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "protocol/node/face.h"

enum {
    PAGE_BYTES = 4096,
    READAHEAD_BYTES = 1 << 20,
    READERS = 2,
    READERS_SMALL = 8,
    BLOCK_ROWS = 4,
    JACOBI_STEPS_BEFORE = 4
};

enum op_kind { OP_READ, OP_WRITE, OP_BARRIER, OP_ALLOCATE, OP_ACQUIRE, OP_RELEASE };

/* What a node's thread does next. */
struct op {
    enum op_kind kind;
    uint64_t page, from, bytes; /* READ, WRITE; ALLOCATE: pages */
};

struct parcel {
    uint64_t at_ps, number; /* order of arrival; of those at the same time, of sending */
    node_id from, to;
    uint32_t depth;
    uint64_t bytes;
    unsigned char data[];
};

struct rank {
    struct world *world;
    struct node *node;
    struct port port;
    node_id number;
    unsigned char *view, *access;   /* access: one for each page */
    uint64_t cpu_ps, out_ps, in_ps; /* busy until then: processor, port to the network, port from it */
    uint32_t depth;                 /* length of the longest chain of messages that led here */
    uint64_t messages, bytes;       /* sent and received */
    uint64_t bytes_sent;
    uint64_t chunk_bytes, traps;
    uint64_t notices; /* that took time */
    struct op *ops;
    uint32_t op_count, op_capacity, at;
    uint64_t ticket;
    bool waiting, faulting;
    uint64_t end_ps;
};

struct network {
    uint64_t L_ps, o_ps, g_ps, G_ps, trap_ps, notice_ps;
};

struct world {
    struct network network;
    node_id size;
    uint64_t k, pages;
    struct rank *ranks;
    struct parcel **heap;
    uint64_t heap_count, heap_capacity, sent, messages, bytes, notices;
    uint32_t rounds;
};

static void die(const char *what, node_id rank)
{
    fprintf(stderr, "scale: node %d: %s\n", rank, what);
    exit(1);
}

/* ---- the network ----------------------------------------------------------------------------------------------- */

static uint64_t latest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* When the last byte arrives. */
static uint64_t occupy_to_send(struct rank *rank, uint64_t bytes)
{
    const struct network *network = &rank->world->network;
    uint64_t start = latest(rank->cpu_ps, rank->out_ps), stream = (bytes - 1) * network->G_ps;
    rank->cpu_ps = start + network->o_ps;
    rank->out_ps = start + network->g_ps + stream;
    return rank->cpu_ps + stream + network->L_ps;
}

static void occupy_to_receive(struct rank *rank, uint64_t bytes, uint64_t at_ps)
{
    const struct network *network = &rank->world->network;
    uint64_t start = latest(at_ps, latest(rank->cpu_ps, rank->in_ps));
    rank->cpu_ps = start + network->o_ps;
    rank->in_ps = start + network->g_ps + (bytes - 1) * network->G_ps;
}

static bool before(const struct parcel *a, const struct parcel *b)
{
    return a->at_ps != b->at_ps ? a->at_ps < b->at_ps : a->number < b->number;
}

static void heap_push(struct world *world, struct parcel *parcel)
{
    if (world->heap_count == world->heap_capacity) {
        world->heap_capacity = world->heap_capacity ? 2 * world->heap_capacity : 1024;
        world->heap = realloc(world->heap, world->heap_capacity * sizeof *world->heap);
        if (!world->heap)
            die("out of memory", NODE_NONE);
    }
    uint64_t at = world->heap_count++;
    for (; at > 0 && before(parcel, world->heap[(at - 1) / 2]); at = (at - 1) / 2)
        world->heap[at] = world->heap[(at - 1) / 2];
    world->heap[at] = parcel;
}

static struct parcel *heap_pop(struct world *world)
{
    struct parcel *first = world->heap[0], *last = world->heap[--world->heap_count];
    uint64_t at = 0, count = world->heap_count;
    for (;;) {
        uint64_t child = 2 * at + 1;
        if (child + 1 < count && before(world->heap[child + 1], world->heap[child]))
            child++;
        if (child >= count || !before(world->heap[child], last))
            break;
        world->heap[at] = world->heap[child];
        at = child;
    }
    world->heap[at] = last;
    return first;
}

static void send(struct rank *rank, struct message *message)
{
    struct world *world = rank->world;
    struct parcel *parcel = malloc(sizeof *parcel + message->wire_bytes);
    if (!parcel)
        die("out of memory", rank->number);
    *parcel = (struct parcel){.number = world->sent++,
                              .from = rank->number,
                              .to = message->peer,
                              .depth = rank->depth + 1,
                              .bytes = message->wire_bytes};
    memcpy(parcel->data, message->wire, message->wire_bytes);
    parcel->at_ps = occupy_to_send(rank, parcel->bytes);
    heap_push(world, parcel);
    rank->messages++;
    rank->bytes += parcel->bytes;
    rank->bytes_sent += parcel->bytes;
    world->messages++;
    world->bytes += parcel->bytes;
    message_free(message, &rank->node->pool);
}

/* Since it was asked last. */
static void pay_for_notices(struct rank *rank)
{
    uint64_t notices = regions_total(rank->node->regions, 0).notices_received - rank->notices;
    rank->notices += notices;
    rank->world->notices += notices;
    rank->cpu_ps += notices * rank->world->network.notice_ps;
}

/* The node goes on when its messages have left. */
static void send_outbox(struct rank *rank)
{
    for (struct message *message, *next; pay_for_notices(rank), (message = node_take_outbox(rank->node));)
        for (; message; message = next) {
            next = message->next;
            send(rank, message);
        }
    pay_for_notices(rank);
}

/* ---- the port of a node ---------------------------------------------------------------------------------------- */

static int port_protect(void *context, uint64_t offset, uint64_t bytes, enum access access)
{
    struct rank *rank = context;
    memset(rank->access + offset / PAGE_BYTES, (int)access, bytes / PAGE_BYTES);
    return 0;
}

static void port_discard(void *context, uint64_t offset, uint64_t bytes)
{
    memset(((struct rank *)context)->view + offset, 0, bytes);
}

static void *reserve(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        die("out of memory", NODE_NONE);
    return memory;
}

static void *port_chunk(void *context, size_t bytes)
{
    ((struct rank *)context)->chunk_bytes += bytes;
    return reserve(bytes);
}

static void port_chunk_free(void *context, void *chunk, size_t bytes)
{
    ((struct rank *)context)->chunk_bytes -= bytes;
    munmap(chunk, bytes);
}

static void port_panic(void *context, const char *text)
{
    die(text, ((struct rank *)context)->number);
}

static void make_ranks(struct world *world)
{
    uint64_t range_bytes = (world->pages + 2) * PAGE_BYTES;
    world->ranks = calloc((size_t)world->size, sizeof *world->ranks);
    if (!world->ranks)
        die("out of memory", NODE_NONE);
    for (node_id q = 0; q < world->size; q++) {
        struct rank *rank = &world->ranks[q];
        rank->world = world;
        rank->number = q;
        rank->view = reserve(range_bytes);
        rank->access = reserve(range_bytes / PAGE_BYTES);
        rank->port = (struct port){
            .context = rank,
            .rank = (uint32_t)q,
            .view = rank->view,
            .range_bytes = range_bytes,
            .granule_bytes = PAGE_BYTES,
            .edges_max = UINT64_MAX,
            .protect = port_protect,
            .discard = port_discard,
            .chunk = port_chunk,
            .chunk_free = port_chunk_free,
            .panic = port_panic,
        };
        struct node_options options = {
            .number = q,
            .spaces = 1,
            .ranks = (uint32_t)world->size,
            .size = world->size,
            .budget_bytes = UINT64_MAX / 2,
            .readahead_bytes_max = READAHEAD_BYTES,
            .readers_max = READERS,
            .readers_small_max = READERS_SMALL,
            .policy.bulk = BULK_NEVER, /* the same bytes, in one message of the model */
        };
        rank->node = node_new(&options, &rank->port);
    }
}

/* ---- threads --------------------------------------------------------------------------------------------------- */

static bool access_done(struct rank *rank, const struct op *op)
{
    bool write = op->kind == OP_WRITE;
    uint64_t offset = op->page * PAGE_BYTES + op->from;
    if (rank->access[op->page] < (write ? ACCESS_WRITE : ACCESS_READ)) {
        if (!rank->faulting) {
            rank->cpu_ps += rank->world->network.trap_ps;
            rank->traps++;
        }
        enum access_answer answer = access_fault(rank->node, offset, write, !rank->faulting);
        rank->faulting = answer == ACCESS_WAIT;
        if (answer == ACCESS_OUTSIDE)
            die("an access outside of all regions", rank->number);
        return false;
    }
    rank->faulting = false;
    for (uint64_t i = 0; write && i < op->bytes; i++)
        rank->view[offset + i]++;
    return true;
}

/* Nothing is pinned or refetched here, so there is nothing to wait for. */
static void follow(struct rank *rank)
{
    if (access_behind(rank->node) && !access_caught_up(rank->node))
        die("a rank that follows has to wait", rank->number);
}

static bool meeting_done(struct rank *rank, const struct op *op)
{
    struct ballot ballot = {.kind = MEETING_BARRIER};
    if (op->kind == OP_ALLOCATE)
        ballot = (struct ballot){.kind = MEETING_ALLOCATE, .numbers = {op->page * PAGE_BYTES, PAGE_BYTES}};
    if (!rank->waiting) {
        rank->waiting = true;
        if (ballot.kind != MEETING_BARRIER)
            meeting_bring(rank->node, &ballot);
        if (meeting_join(rank->node, 0, (uint32_t)rank->number) == MEETING_ARRIVES)
            meeting_arrive(rank->node, MEETING_THREADS);
        node_settle(rank->node);
    }
    if (!meeting_take(rank->node, 0))
        return false;
    rank->waiting = false;
    follow(rank);
    return true;
}

static bool lock_done(struct rank *rank, const struct op *op)
{
    struct lock *lock = lock_use(rank->node, 0);
    bool done = true;
    if (op->kind == OP_RELEASE) {
        lock_release(rank->node, lock, (uint32_t)rank->number);
    } else {
        if (!rank->ticket)
            rank->ticket = lock_enqueue(rank->node, lock, 0, NULL, false);
        done = lock_poll(rank->node, lock, rank->ticket) == LOCK_TAKEN;
        if (done)
            rank->ticket = 0;
    }
    node_settle(rank->node);
    if (done)
        follow(rank);
    return done;
}

static bool op_done(struct rank *rank, const struct op *op)
{
    switch (op->kind) {
    case OP_READ:
    case OP_WRITE:
        /* A fault that ended without waiting has opened the page: the access is tried again at once. */
        return access_done(rank, op) || (!rank->faulting && access_done(rank, op));
    case OP_BARRIER:
    case OP_ALLOCATE: return meeting_done(rank, op);
    case OP_ACQUIRE:
    case OP_RELEASE: return lock_done(rank, op);
    }
    return false;
}

static void run_thread(struct rank *rank)
{
    while (rank->at < rank->op_count) {
        bool done = op_done(rank, &rank->ops[rank->at]);
        send_outbox(rank);
        if (!done && node_take_wake(rank->node))
            continue; /* a departure was taken in */
        if (!done)
            return;
        rank->at++;
        rank->end_ps = rank->cpu_ps;
    }
}

static void receive(struct rank *rank, struct parcel *parcel)
{
    struct node *node = rank->node;
    occupy_to_receive(rank, parcel->bytes, parcel->at_ps);
    rank->messages++;
    rank->bytes += parcel->bytes;
    if (parcel->depth > rank->depth)
        rank->depth = parcel->depth;
    if (rank->depth > rank->world->rounds)
        rank->world->rounds = rank->depth;
    void *wire = pool_take_persistent(&node->pool, parcel->bytes);
    memcpy(wire, parcel->data, parcel->bytes);
    node_receive(node, message_wrap(&node->pool, parcel->from, parcel->from, wire, parcel->bytes));
    send_outbox(rank);
    node_take_wake(node);
    run_thread(rank);
    free(parcel);
}

/* Run what the threads have been given to do, from time 0. */
static void run(struct world *world)
{
    world->messages = world->bytes = world->notices = world->sent = 0;
    world->rounds = 0;
    for (node_id q = 0; q < world->size; q++) {
        struct rank *rank = &world->ranks[q];
        rank->cpu_ps = rank->out_ps = rank->in_ps = rank->end_ps = 0;
        rank->messages = rank->bytes = rank->bytes_sent = rank->traps = 0;
        rank->depth = rank->at = 0;
    }
    for (node_id q = 0; q < world->size; q++)
        run_thread(&world->ranks[q]);
    while (world->heap_count) {
        struct parcel *parcel = heap_pop(world);
        receive(&world->ranks[parcel->to], parcel);
    }
    for (node_id q = 0; q < world->size; q++)
        if (world->ranks[q].at < world->ranks[q].op_count)
            die("waits for ever", q);
}

/* ---- what they are given to do ----------------------------------------------------------------------------------- */

static void add(struct world *world, node_id who, struct op op)
{
    struct rank *rank = &world->ranks[who];
    if (rank->op_count == rank->op_capacity) {
        rank->op_capacity = rank->op_capacity ? 2 * rank->op_capacity : 16;
        rank->ops = realloc(rank->ops, rank->op_capacity * sizeof *rank->ops);
        if (!rank->ops)
            die("out of memory", who);
    }
    rank->ops[rank->op_count++] = op;
}

static void add_all(struct world *world, struct op op)
{
    for (node_id q = 0; q < world->size; q++)
        add(world, q, op);
}

static struct op read_page(uint64_t page)
{
    return (struct op){.kind = OP_READ, .page = page};
}

static struct op write_page(uint64_t page)
{
    return (struct op){.kind = OP_WRITE, .page = page, .bytes = PAGE_BYTES};
}

static const struct op barrier = {.kind = OP_BARRIER};

/* Run what was added; what is added next is measured. */
static void prepare(struct world *world)
{
    run(world);
    for (node_id q = 0; q < world->size; q++)
        world->ranks[q].op_count = 0;
}

static void write_shares(struct world *world)
{
    uint64_t share = PAGE_BYTES / world->k;
    for (node_id q = 1; q <= (node_id)world->k; q++)
        add(world, q, (struct op){.kind = OP_WRITE, .page = 0, .from = (uint64_t)(q - 1) * share, .bytes = share});
    add_all(world, barrier);
}

/* Node 0 reads a page that k others have written since it read it last, each a part of it, and all had read. */
static void fault(struct world *world)
{
    for (int turn = 0; turn < 2; turn++) {
        write_shares(world);
        for (node_id q = 0; q <= (node_id)world->k; q++)
            add(world, q, read_page(0));
        add_all(world, barrier);
    }
    write_shares(world);
    prepare(world);
    add(world, 0, read_page(0));
}

/* The lock goes from a node that has written k pages since it took it to one that has not had it since the last cut.
 * Node 0 manages it, and is neither of them where there is a third. */
static void lock(struct world *world)
{
    add(world, 1, (struct op){.kind = OP_ACQUIRE});
    for (uint64_t i = 0; i < world->k; i++)
        add(world, 1, write_page(i));
    add(world, 1, (struct op){.kind = OP_RELEASE});
    prepare(world);
    add(world, world->size > 2 ? 2 : 0, (struct op){.kind = OP_ACQUIRE});
}

/* All have had the lock once since the last cut, and written a page each; then the second to have it takes it again. */
static void lock_all(struct world *world)
{
    for (node_id q = 1; q <= world->size; q++) {
        node_id who = q % world->size;
        add(world, who, (struct op){.kind = OP_ACQUIRE});
        add(world, who, write_page((uint64_t)who));
        add(world, who, (struct op){.kind = OP_RELEASE});
        prepare(world);
    }
    add(world, 1, (struct op){.kind = OP_ACQUIRE});
}

/* The same, and then a barrier, to which the later ones bring all intervals of the earlier ones, too. */
static void lock_barrier(struct world *world)
{
    lock_all(world);
    prepare(world);
    for (node_id q = 0; q < world->size; q++)
        if (lock_held(lock_use(world->ranks[q].node, 0)))
            add(world, q, (struct op){.kind = OP_RELEASE});
    prepare(world);
    add_all(world, barrier);
}

static void dirty_barrier(struct world *world, uint64_t stride)
{
    for (node_id q = 0; q < world->size; q++)
        for (uint64_t i = 0; i < world->k; i++)
            add(world, q, write_page(((uint64_t)q * world->k + i) * stride));
    prepare(world);
    add_all(world, barrier);
}

/* All read k pages that node 0 wrote. */
static void broadcast(struct world *world)
{
    for (uint64_t i = 0; i < world->k; i++)
        add(world, 0, write_page(i));
    add_all(world, barrier);
    prepare(world);
    for (node_id q = 1; q < world->size; q++)
        for (uint64_t i = 0; i < world->k; i++)
            add(world, q, read_page(i));
}

/* One grid is read and the other written, then they change places: one barrier a step.  A row is a page. */
static void jacobi_step(struct world *world, uint64_t step)
{
    uint64_t rows = (uint64_t)world->size * BLOCK_ROWS, read_from = step % 2 * rows, write_to = rows - read_from;
    for (node_id q = 0; q < world->size; q++) {
        uint64_t first = (uint64_t)q * BLOCK_ROWS, end = first + BLOCK_ROWS;
        for (uint64_t row = first ? first - 1 : 0; row <= end && row < rows; row++)
            add(world, q, read_page(read_from + row));
        for (uint64_t row = first; row < end; row++)
            add(world, q, write_page(write_to + row));
    }
    add_all(world, barrier);
}

static void jacobi(struct world *world)
{
    for (uint64_t step = 0; step < JACOBI_STEPS_BEFORE; step++)
        jacobi_step(world, step);
    prepare(world);
    jacobi_step(world, JACOBI_STEPS_BEFORE);
}

/* ---- the same by message passing ----------------------------------------------------------------------------------- */

static void mpi_message(struct world *world, node_id from, node_id to, uint64_t bytes)
{
    uint64_t at_ps = occupy_to_send(&world->ranks[from], bytes);
    occupy_to_receive(&world->ranks[to], bytes, at_ps);
}

static void mpi_start(struct world *world)
{
    for (node_id q = 0; q < world->size; q++)
        world->ranks[q].cpu_ps = world->ranks[q].out_ps = world->ranks[q].in_ps = 0;
}

static uint64_t mpi_end(struct world *world)
{
    uint64_t end_ps = 0;
    for (node_id q = 0; q < world->size; q++)
        end_ps = latest(end_ps, world->ranks[q].cpu_ps);
    return end_ps;
}

/* Every node sends `bytes` to the one `distance` further on, then all receive. */
static void mpi_shift(struct world *world, node_id distance, uint64_t bytes, bool around)
{
    uint64_t *at_ps = calloc((size_t)world->size, sizeof *at_ps);
    if (!at_ps)
        die("out of memory", NODE_NONE);
    for (node_id q = 0; q < world->size; q++)
        if (around || (q + distance >= 0 && q + distance < world->size))
            at_ps[(q + distance + world->size) % world->size] = occupy_to_send(&world->ranks[q], bytes);
    for (node_id q = 0; q < world->size; q++)
        if (at_ps[q])
            occupy_to_receive(&world->ranks[q], bytes, at_ps[q]);
    free(at_ps);
}

/* Dissemination (Hensgen, Finkel, Manber 1988). */
static uint64_t mpi_barrier(struct world *world)
{
    mpi_start(world);
    for (node_id distance = 1; distance < world->size; distance *= 2)
        mpi_shift(world, distance, 1, true);
    return mpi_end(world);
}

/* Halves of a binomial tree: the data all the way, or, if `scatter`, only what lies below, and then a ring. */
static uint64_t mpi_tree(struct world *world, uint64_t bytes, bool scatter)
{
    node_id top = 1;
    mpi_start(world);
    while (top < world->size)
        top *= 2;
    for (node_id half = top / 2; half >= 1; half /= 2)
        for (node_id q = 0; q + half < world->size; q += 2 * half)
            mpi_message(world, q, q + half, scatter ? 1 + bytes * (uint64_t)half / (uint64_t)top : bytes);
    for (node_id turn = 1; scatter && turn < world->size; turn++)
        mpi_shift(world, 1, 1 + bytes / (uint64_t)world->size, true);
    return mpi_end(world);
}

static uint64_t mpi_broadcast(struct world *world, uint64_t bytes)
{
    uint64_t tree_ps = mpi_tree(world, bytes, false), ring_ps = mpi_tree(world, bytes, true);
    return tree_ps < ring_ps ? tree_ps : ring_ps;
}

static uint64_t mpi_jacobi(struct world *world)
{
    mpi_start(world);
    mpi_shift(world, 1, PAGE_BYTES, false);
    mpi_shift(world, -1, PAGE_BYTES, false);
    return mpi_end(world);
}

static uint64_t mpi_send(struct world *world, uint64_t bytes)
{
    mpi_start(world);
    mpi_message(world, 1, 0, bytes ? bytes : 1);
    return mpi_end(world);
}

/* ---- one operation --------------------------------------------------------------------------------------------- */

static void report(const struct world *world, const char *operation)
{
    uint64_t messages = 0, bytes = 0, sent = 0, end_ps = 0, pool = 0, chunks = 0, traps = 0;
    for (node_id q = 0; q < world->size; q++) {
        const struct rank *rank = &world->ranks[q];
        messages = latest(messages, rank->messages);
        bytes = latest(bytes, rank->bytes);
        sent = latest(sent, rank->bytes_sent);
        end_ps = latest(end_ps, rank->end_ps);
        pool = latest(pool, rank->node->pool.bytes_used);
        chunks = latest(chunks, rank->chunk_bytes);
        traps = latest(traps, rank->traps);
    }
    printf("{\"operation\": \"%s\", \"nodes\": %d, \"k\": %" PRIu64 ", \"messages\": %" PRIu64 ", \"bytes\": %" PRIu64
           ", \"rounds\": %u, \"rank_messages\": %" PRIu64 ", \"rank_bytes\": %" PRIu64
           ", \"rank_bytes_sent\": %" PRIu64 ", \"rank_faults\": %" PRIu64 ", \"notices\": %" PRIu64
           ", \"pool_bytes\": %" PRIu64 ", \"chunk_bytes\": %" PRIu64 ", \"time_us\": %.3f",
           operation, world->size, world->k, world->messages, world->bytes, world->rounds, messages, bytes, sent, traps,
           world->notices, pool, chunks, (double)end_ps / 1e6);
}

static uint64_t pages_of(const char *operation, uint64_t nodes, uint64_t k)
{
    if (strcmp(operation, "barrier") == 0)
        return nodes * (k ? k : 1);
    if (strcmp(operation, "barrier_apart") == 0)
        return 2 * nodes * (k ? k : 1);
    if (strcmp(operation, "jacobi") == 0)
        return 2 * nodes * BLOCK_ROWS;
    return latest(nodes, k) + 1;
}

/* Run what must precede the operation, and add the operation.  The time of message passing. */
static uint64_t arrange(struct world *world, const char *operation)
{
    uint64_t mpi_ps = 0;
    if (strcmp(operation, "fault") == 0 && world->k > 0 && world->k < (uint64_t)world->size) {
        mpi_ps = mpi_send(world, PAGE_BYTES);
        fault(world);
    } else if (strcmp(operation, "lock") == 0) {
        mpi_ps = mpi_send(world, 1);
        lock(world);
    } else if (strcmp(operation, "lock_all") == 0) {
        mpi_ps = mpi_send(world, 1);
        lock_all(world);
    } else if (strcmp(operation, "lock_barrier") == 0) {
        mpi_ps = mpi_barrier(world);
        lock_barrier(world);
    } else if (strcmp(operation, "barrier") == 0 || strcmp(operation, "barrier_apart") == 0) {
        mpi_ps = mpi_barrier(world);
        dirty_barrier(world, operation[strlen("barrier")] ? 2 : 1);
    } else if (strcmp(operation, "broadcast") == 0) {
        mpi_ps = mpi_broadcast(world, world->k * PAGE_BYTES);
        broadcast(world);
    } else if (strcmp(operation, "jacobi") == 0) {
        mpi_ps = mpi_jacobi(world);
        jacobi(world);
    } else {
        die("no such operation", NODE_NONE);
    }
    return mpi_ps;
}

int main(int count, char **texts)
{
    if (count != 10) {
        fprintf(stderr, "usage: scale OPERATION NODES K L o g G TRAP NOTICE\n");
        return 2;
    }
    uint64_t numbers[8];
    for (int i = 0; i < 8; i++)
        numbers[i] = strtoull(texts[i + 2], NULL, 10);
    struct world world = {
        .size = (node_id)numbers[0],
        .k = numbers[1],
        .network = {numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7]},
    };
    if (world.size < 2 || world.size > 4096)
        die("2 to 4,096 nodes", NODE_NONE);
    world.pages = pages_of(texts[1], numbers[0], world.k);
    make_ranks(&world);
    add_all(&world, (struct op){.kind = OP_ALLOCATE, .page = world.pages});
    prepare(&world);
    uint64_t mpi_ps = arrange(&world, texts[1]);
    run(&world);
    report(&world, texts[1]);
    printf(", \"mpi_us\": %.3f}\n", (double)mpi_ps / 1e6);
    return 0;
}
