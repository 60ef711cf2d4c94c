/* One table of names joins what the node counts to what dsm.h shows, so that no field can be forgotten in one place. */
#include <string.h>

#include "protocol/coherence/cache.h"
#include "runtime/error.h"
#include "runtime/progress.h"

/* clang-format off */
#define OF_REGION(X) \
    X(faults_read) X(faults_write) X(faults_local) X(fetches) X(fetch_requests) X(pages_received) X(pages_served) \
    X(diffs_received) X(diffs_served) X(diffs_made) X(diff_bytes_received) X(diff_bytes_served) X(twins_made) \
    X(notices_received) X(invalidations)

#define OF_NODE(X) \
    X(intervals_closed) X(barriers) X(collections) X(counter_operations) X(protects) X(pages_readahead) \
    X(pages_refetched) X(refetch_waits) X(probes) X(probes_unused) X(pushes_sent) X(pushes_used) X(pushes_unused) \
    X(pages_preopened) X(pages_preopened_unused) X(copies_given_up) X(pages_sent_on)

#define OF_RUNTIME(X) \
    X(messages_sent) X(messages_received) X(bytes_sent) X(bytes_received) X(bells_rung) \
    X(bells_heard) X(wait_fault_ns) X(wait_lock_ns) X(wait_barrier_ns) X(wait_counter_ns) X(wait_flag_ns)
/* clang-format on */

static struct runtime *started(void)
{
    if (runtime_state() == RUNTIME_NEW)
        error_set(DSM_E_STATE, "statistics before dsm.init()");
    return runtime_state() == RUNTIME_NEW ? NULL : runtime_current;
}

static void add_space(const struct runtime *runtime, uint32_t space, struct dsm_stats *stats)
{
    const struct region_stats regions = regions_total(runtime->node->regions, space);
    const struct lock_stats locks = lock_total(runtime->node, space);
    stats->lock_acquires += locks.acquires;
    stats->lock_acquires_local += locks.acquires_local;
    stats->lock_grants += locks.grants;
#define ADD(field) stats->field += regions.field;
    OF_REGION(ADD)
#undef ADD
#define ADD(field) stats->field += runtime->node->stats[space].field;
    OF_NODE(ADD)
#undef ADD
#define ADD(field) stats->field += runtime->shared->stats[space].field;
    OF_RUNTIME(ADD)
#undef ADD
}

/* Of the spaces from the first one up to `end`. */
static int sum(struct runtime *runtime, uint32_t first, uint32_t end, struct dsm_stats *stats)
{
    uint64_t data_bytes = memory_held(&runtime->memory); /* a system call: before the mutex */
    progress_lock(runtime);
    const struct pool *pool = &runtime->node->pool;
    *stats = (struct dsm_stats){
        .memory_bytes = pool->bytes_used,
        .memory_bytes_max = pool->bytes_used_max,
        .twin_bytes = pool->twin_bytes,
        .diff_bytes = pool->diff_bytes,
        .data_bytes = data_bytes,
        .cached_bytes = runtime->node->cache->bytes,
    };
    for (uint32_t space = first; space < end; space++)
        add_space(runtime, space, stats);
    progress_unlock(runtime);
    return DSM_OK;
}

int dsm_stats(struct dsm_stats *stats)
{
    struct runtime *runtime = started();
    return runtime ? sum(runtime, runtime->nodes.space, runtime->nodes.space + 1, stats) : DSM_E_STATE;
}

int dsm_stats_of_host(struct dsm_stats *stats)
{
    struct runtime *runtime = started();
    return runtime ? sum(runtime, 0, runtime->nodes.spaces, stats) : DSM_E_STATE;
}

int dsm_stats_of_region(uint32_t id, struct dsm_stats *stats)
{
    struct runtime *runtime = started();
    if (!runtime)
        return DSM_E_STATE;
    progress_lock(runtime);
    const struct region *region = region_find(runtime->node->regions, id);
    *stats = (struct dsm_stats){0};
    if (region) {
        stats->wait_fault_ns = region->stats[runtime->node->me].wait_fault_ns;
#define COPY(field) stats->field = region->stats[runtime->node->me].field;
        OF_REGION(COPY)
#undef COPY
    }
    progress_unlock(runtime);
    return region ? DSM_OK : error_set(DSM_E_ARGUMENT, "no array %u", id);
}

int dsm_stats_of_lock(uint32_t id, struct dsm_stats *stats)
{
    struct runtime *runtime = started();
    if (!runtime)
        return DSM_E_STATE;
    progress_lock(runtime);
    const struct lock *lock = lock_find(runtime->node, id);
    *stats = (struct dsm_stats){0};
    if (lock) {
        stats->lock_acquires = lock->stats[runtime->node->me].acquires;
        stats->lock_acquires_local = lock->stats[runtime->node->me].acquires_local;
        stats->lock_grants = lock->stats[runtime->node->me].grants;
        stats->wait_lock_ns = lock->stats[runtime->node->me].wait_ns;
    }
    progress_unlock(runtime);
    return lock ? DSM_OK : error_set(DSM_E_ARGUMENT, "no lock %u", id);
}

int dsm_stats_reset(void)
{
    struct runtime *runtime = started();
    if (!runtime)
        return DSM_E_STATE;
    progress_lock(runtime);
    struct node *node = runtime->node;
    memset(&node->stats[node->me], 0, sizeof *node->stats);
    memset(runtime->stats, 0, sizeof *runtime->stats);
    regions_reset_stats(node->regions, node->me);
    const struct lock *lock;
    for (uint32_t next = 0; (lock = lock_next(node, &next));)
        memset(&lock->stats[node->me], 0, sizeof *lock->stats);
    node->pool.bytes_used_max = node->pool.bytes_used;
    progress_unlock(runtime);
    return DSM_OK;
}
