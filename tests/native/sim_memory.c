/* The memory of the simulated nodes: chunks that are counted, protection as a kernel keeps it, with as little room for
 * mappings as the run wants. */
#include "sim_world.h"

#include <stdlib.h>
#include <string.h>

static struct sim_node *home_of(void *context)
{
    return ((struct sim_space *)context)->home;
}

/* ---- chunks of memory: every one is known, so that a leak is, too -------------------------------------------------- */

#ifndef SIM_SANITIZE
static struct chunk *kept[CHUNKS_KEPT];
static int kept_count;
#endif

static void *port_chunk(void *context, size_t bytes)
{
    struct sim_node *home = home_of(context);
    struct chunk *chunk;
    if (bytes > CHUNK_BYTES_MAX)
        sim_fail(home->sim, home->number, "a chunk of %zu bytes", bytes);
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

void sim_chunks_free(struct sim_node *home)
{
    while (home->chunks)
        chunk_release(home->chunks);
}

static void port_chunk_free(void *context, void *memory, size_t bytes)
{
    struct sim_node *home = home_of(context);
    struct chunk *chunk = (struct chunk *)memory - 1;
    if (chunk->bytes != bytes)
        sim_fail(home->sim, home->number, "chunk of %zu bytes given back as %zu", chunk->bytes, bytes);
    chunk_release(chunk);
}

/* ---- memory and protection ------------------------------------------------------------------------------------- */

static struct sim *running;

void sim_runs(struct sim *sim)
{
    running = sim;
}

static struct sim_node *home_of_view(const unsigned char *bytes)
{
    for (int number = 0; running && number < running->program.nodes; number++) {
        struct sim_node *home = &running->nodes[number];
        if (bytes >= home->view && bytes < home->view + RANGE_BYTES)
            return home;
    }
    return NULL;
}

void sim_changes(const unsigned char *bytes)
{
    struct sim_node *home = home_of_view(bytes);
    if (home)
        sim_bystanders(home);
}

struct sim_node *sim_torn(const unsigned char *bytes)
{
    return running && running->knobs.torn > 0 && !running->ending ? home_of_view(bytes) : NULL;
}

static uint64_t edges_around(const struct sim_space *space, uint64_t first, uint64_t last)
{
    uint64_t edges = 0, granules = RANGE_BYTES / SIM_GRANULE_BYTES;
    for (uint64_t i = first; i <= last; i++)
        if (i > 0 && i < granules && space->access[i] != space->access[i - 1])
            edges++;
    return edges;
}

static int port_protect(void *context, uint64_t offset, uint64_t bytes, enum access access)
{
    struct sim_space *space = context;
    struct sim_node *home = space->home;
    struct sim *sim = home->sim;
    if (offset % SIM_GRANULE_BYTES || bytes % SIM_GRANULE_BYTES || !bytes || offset + bytes > RANGE_BYTES ||
        (unsigned)access > ACCESS_WRITE)
        sim_fail(sim, home->number, "protect(%llu, %llu, %d)", (unsigned long long)offset, (unsigned long long)bytes,
                 access);
    uint64_t first = offset / SIM_GRANULE_BYTES, count = bytes / SIM_GRANULE_BYTES;
    sim->stats.protects++;
    sim_bystanders(home);
    uint64_t before = edges_around(space, first, first + count);
    unsigned char old[RANGE_BYTES / SIM_GRANULE_BYTES];
    memcpy(old, space->access + first, count);
    memset(space->access + first, (int)access, count);
    uint64_t after = edges_around(space, first, first + count);
    if (sim->knobs.edges > 0 && after > before && space->edges + after - before > (uint64_t)sim->knobs.edges) {
        memcpy(space->access + first, old, count);
        sim->stats.protects_failed++;
        TRACE(sim, "rank %d  protect %llu+%llu %d FAILS", space->rank, (unsigned long long)offset,
              (unsigned long long)bytes, access);
        return -1;
    }
    space->edges += after - before;
    TRACE(sim, "rank %d  protect %llu+%llu %d", home->number, (unsigned long long)offset, (unsigned long long)bytes,
          access);
    sim_bystanders(home);
    return 0;
}

static void port_discard(void *context, uint64_t offset, uint64_t bytes)
{
    struct sim_node *home = home_of(context);
    if (offset + bytes > RANGE_BYTES)
        sim_fail(home->sim, home->number, "discard beyond the range");
    memset(home->view + offset, 0, bytes);
}

static uint64_t port_touched(void *context, uint64_t offset)
{
    struct sim_node *home = home_of(context);
    uint64_t bits = 0;
    for (uint64_t at = offset; at < RANGE_BYTES && at < offset + 64 * SIM_GRANULE_BYTES; at++)
        bits |= (uint64_t)(home->view[at] != 0) << (at - offset) / SIM_GRANULE_BYTES;
    return bits;
}

__attribute__((noreturn)) static void port_panic(void *context, const char *text)
{
    struct sim_node *home = home_of(context);
    sim_fail(home->sim, home->number, "panic: %s", text);
}

void sim_enter(struct sim_space *space)
{
    node_enter(space->home->node, &space->port, space->number);
}

struct port sim_port(struct sim_space *space)
{
    const struct sim_knobs *knobs = &space->home->sim->knobs;
    return (struct port){
        .context = space,
        .rank = (uint32_t)space->rank,
        .view = space->home->view,
        .range_bytes = RANGE_BYTES,
        .granule_bytes = SIM_GRANULE_BYTES,
        .huge_bytes = 4 * SIM_GRANULE_BYTES,
        .makes_huge = space->rank % 2 == 0,
        .edges_max = knobs->edges > 0 && knobs->edges_told ? (uint64_t)knobs->edges : UINT32_MAX,
        .protect = port_protect,
        .discard = port_discard,
        .touched = port_touched,
        .chunk = port_chunk,
        .chunk_free = port_chunk_free,
        .panic = port_panic,
    };
}
