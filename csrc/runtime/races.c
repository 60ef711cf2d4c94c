/* Calls of dsm.h about races.  The structs of dsm.h are those of the protocol under other names. */
#include <stdlib.h>

#include "protocol/sync/races.h"
#include "runtime/call.h"
#include "runtime/error.h"

#define SAME(theirs, ours, field) \
    _Static_assert(offsetof(struct theirs, field) == offsetof(struct ours, field), #theirs " and " #ours " differ")

SAME(dsm_stretch, stretch, ended);
SAME(dsm_stretch_edge, stretch_edge, node);
SAME(dsm_page_access, page_access, run_count);
SAME(dsm_byte_run, byte_run, to);
SAME(dsm_access_log, access_log, lost);
SAME(dsm_race, race, stretches[1]);
_Static_assert(sizeof(struct dsm_access_log) == sizeof(struct access_log), "logs differ");

static void pass(struct node *node, enum dsm_boundary boundary, uint32_t number, uint32_t site)
{
    const struct lock *lock = boundary == DSM_AFTER_LOCK ? lock_find(node, number) : NULL;
    const struct flag *flag = boundary == DSM_AFTER_FLAG ? flag_find(node, number) : NULL;
    if (lock)
        races_after_lock(node, lock, site);
    else if (flag)
        races_after_flag(node, flag->setter, flag->set, site);
    else if (boundary == DSM_BEFORE_MEETING)
        races_before_meeting(node, site);
    else if (boundary == DSM_AFTER_MEETING)
        races_after_meeting(node, site);
    else
        races_before_release(node, site);
}

int dsm_boundary(int boundary, uint32_t number, uint32_t site)
{
    struct runtime *runtime = call_enter("the search for races");
    if (!runtime)
        return DSM_E_STATE;
    if (runtime->node->options.races) {
        pass(runtime->node, (enum dsm_boundary)boundary, number, site);
        node_settle(runtime->node);
        progress_flush(runtime);
    }
    progress_leave(runtime);
    return DSM_OK;
}

int dsm_accesses_take(struct dsm_access_log *log)
{
    struct runtime *runtime = call_lock("the search for races");
    if (!runtime)
        return DSM_E_STATE;
    *(struct access_log *)(void *)log = races_take(runtime->node);
    progress_unlock(runtime);
    return DSM_OK;
}

int dsm_accesses_give(struct dsm_access_log *log)
{
    struct runtime *runtime = call_lock("the search for races");
    if (!runtime)
        return DSM_E_STATE;
    accesses_give((struct access_log *)(void *)log, &runtime->node->pool);
    progress_unlock(runtime);
    return DSM_OK;
}

int dsm_races(const struct dsm_access_log *logs, int nodes, struct dsm_race *races, uint64_t room, uint64_t *count,
              uint64_t *pairs_skipped)
{
    const struct access_log *ours = (const void *)logs;
    void *scratch = malloc(races_scratch_bytes(ours, nodes));
    if (!scratch)
        return error_set(DSM_E_MEMORY, "no memory to compare what the ranks accessed");
    struct races_found found = races_compare(ours, nodes, scratch, (struct race *)(void *)races, room);
    free(scratch);
    *count = found.count;
    *pairs_skipped = found.pairs_skipped;
    return DSM_OK;
}
