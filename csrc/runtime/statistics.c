/* One table of names joins what the node counts to what dsm.h shows, so that no field can be forgotten in one place. */
#include <string.h>

#include "runtime/error.h"
#include "runtime/progress.h"

/* clang-format off */
#define OF_REGION(X) \
    X(faults_read) X(faults_write) X(faults_local) X(fetches) X(fetch_requests) X(pages_received) X(pages_served) \
    X(diffs_received) X(diffs_served) X(diffs_made) X(diff_bytes_received) X(diff_bytes_served) X(twins_made) \
    X(notices_received) X(invalidations)

#define OF_NODE(X) \
    X(intervals_closed) X(barriers) X(collections) X(counter_operations) X(protects) X(pages_readahead) \
    X(pages_refetched) X(probes) X(probes_unused) X(pushes_sent) X(pushes_used) X(pushes_unused) X(pages_preopened) \
    X(pages_preopened_unused)

#define OF_RUNTIME(X) \
    X(messages_sent) X(messages_received) X(bytes_sent) X(bytes_received) X(bells_rung) \
    X(bells_heard) X(wait_fault_ns) X(wait_lock_ns) X(wait_barrier_ns) X(wait_counter_ns)
/* clang-format on */

static struct runtime *started(void)
{
    if (runtime_state() == RUNTIME_NEW)
        error_set(DSM_E_STATE, "statistics before dsm.init()");
    return runtime_state() == RUNTIME_NEW ? NULL : runtime_current;
}

int dsm_stats(struct dsm_stats *stats)
{
    struct runtime *runtime = started();
    if (!runtime)
        return DSM_E_STATE;
    progress_lock(runtime);
    *stats = (struct dsm_stats){
        .memory_bytes = runtime->node->pool.bytes_used,
        .memory_bytes_max = runtime->node->pool.bytes_used_max,
    };
    const struct region_stats regions = regions_total(runtime->node->regions, runtime->node->me);
    const struct lock_stats locks = lock_total(runtime->node, runtime->node->me);
    stats->lock_acquires = locks.acquires;
    stats->lock_acquires_local = locks.acquires_local;
    stats->lock_grants = locks.grants;
#define COPY(field) stats->field = regions.field;
    OF_REGION(COPY)
#undef COPY
#define COPY(field) stats->field = runtime->node->stats[runtime->node->me].field;
    OF_NODE(COPY)
#undef COPY
#define COPY(field) stats->field = runtime->stats.field;
    OF_RUNTIME(COPY)
#undef COPY
    progress_unlock(runtime);
    return DSM_OK;
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
    memset(&runtime->stats, 0, sizeof runtime->stats);
    regions_reset_stats(node->regions, node->me);
    for (uint32_t i = 0; i < node->locks->count; i++)
        memset(&node->locks->items[i]->stats[node->me], 0, sizeof *node->locks->items[i]->stats);
    node->pool.bytes_used_max = node->pool.bytes_used;
    progress_unlock(runtime);
    return DSM_OK;
}
