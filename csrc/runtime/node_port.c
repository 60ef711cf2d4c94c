#include "runtime/node_port.h"

#include "runtime/nodes.h"

#include <errno.h>
#include <string.h>

#include "runtime/death.h"
#include "runtime/shared.h"

enum { GRANULE_BYTES = 4096 };

static int protect(void *context, uint64_t offset, uint64_t bytes, enum access access)
{
    struct runtime *runtime = context;
    if (access == ACCESS_WRITE && runtime->nodes.count > 1) /* a node that is alone does it outside its mutex */
        memory_back(&runtime->memory, offset, bytes);
    int error = memory_protect(&runtime->memory, offset, bytes, (enum memory_access)access);
    if (error && error != -ENOMEM)
        death_end_all(runtime, strerror(-error), 1, true);
    return error;
}

/* Nothing is expected there any more. */
static void unexpect(struct runtime *runtime, uint64_t offset, uint64_t end)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < runtime->expected_count; i++)
        if (runtime->expected[i].end <= offset || end <= runtime->expected[i].offset)
            runtime->expected[kept++] = runtime->expected[i];
    runtime->expected_count = kept;
}

static void discard(void *context, uint64_t offset, uint64_t bytes)
{
    struct runtime *runtime = context;
    int error = memory_discard(&runtime->memory, offset, bytes);
    unexpect(runtime, offset, offset + bytes);
    if (error)
        death_end_all(runtime, strerror(-error), 1, true);
}

static uint64_t touched(void *context, uint64_t offset)
{
    const struct runtime *runtime = context;
    return memory_touched(&runtime->memory, offset);
}

static void expect(void *context, uint64_t offset, uint64_t bytes)
{
    struct runtime *runtime = context;
    unsigned count = runtime->expected_count;
    if (count && runtime->expected[count - 1].end == offset)
        runtime->expected[count - 1].end += bytes;
    else if (count < EXPECTED_MAX)
        runtime->expected[runtime->expected_count++] = (struct expected){offset, offset + bytes};
}

static void put(void *context, uint64_t offset, const unsigned char *bytes, uint64_t count)
{
    struct runtime *runtime = context;
    memory_put(&runtime->memory, offset, bytes, count);
}

static enum wait_kind waits(void *context, uint32_t rank, uint32_t thread, uint64_t *object)
{
    const struct runtime *runtime = context;
    return waits_of(&runtime->shared->waits[nodes_space(runtime, (int)rank)], thread, object);
}

static void *chunk(void *context, size_t bytes)
{
    struct runtime *runtime = context;
    void *made = arena_chunk(&runtime->arena, bytes);
    if (!made)
        death_end_all(runtime,
                      "the addresses for twins, diffs and messages are used up; ask for more with DSM_RANGE_BYTES", 1,
                      false);
    return made;
}

static void chunk_free(void *context, void *chunk, size_t bytes)
{
    struct runtime *runtime = context;
    arena_chunk_free(&runtime->arena, chunk, bytes);
}

static void panic(void *context, const char *text)
{
    death_end_all(context, text, 1, true);
}

struct port node_port_make(struct runtime *runtime)
{
    return (struct port){
        .context = runtime,
        .rank = (uint32_t)runtime->rank,
        .view = runtime->memory.system,
        .range_bytes = runtime->memory.bytes,
        .granule_bytes = GRANULE_BYTES,
        .huge_bytes = BACKING_HUGE_BYTES,
        .makes_huge = runtime->memory.huge,
        .edges_max = memory_mappings_max() / 2,
        .protect = protect,
        .discard = discard,
        .touched = touched,
        .expect = expect,
        .put = put,
        .waits = waits,
        .chunk = chunk,
        .chunk_free = chunk_free,
        .panic = panic,
    };
}

void node_port_prepare(struct runtime *runtime)
{
    if (runtime->expected_count == 0) {
        if (runtime->pool_ready || !shared_try(runtime))
            return;
        runtime->pool_ready = !pool_touch(&runtime->node->pool);
        shared_unlock(runtime);
        return;
    }
    struct expected *last = &runtime->expected[runtime->expected_count - 1];
    last->end = memory_prepare(&runtime->memory, last->offset, last->end);
    if (last->end == last->offset)
        runtime->expected_count--;
}
