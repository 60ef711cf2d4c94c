/* Calls of dsm.h that show what a profile has recorded. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <time.h>

#include "machine/clock.h"
#include "runtime/call.h"
#include "runtime/error.h"
#include "runtime/ledger.h"
#include "runtime/nodes.h"
#include "runtime/profile.h"

const struct dsm_profile *dsm_profile(void)
{
    struct runtime *runtime = runtime_current;
    if (!runtime || !runtime->profile)
        return NULL;
    profile_settle(runtime->profile);
    return &runtime->profile->shown;
}

int64_t dsm_profile_clock(void)
{
    return clock_now_ns();
}

void dsm_profile_watch(uint32_t region, uint64_t pages)
{
    struct runtime *runtime = call_lock("the profile of an array");
    if (!runtime)
        return;
    ledger_watch(runtime->profile->ledger, region, pages);
    progress_unlock(runtime);
}

const struct dsm_profile_page *dsm_profile_pages(uint32_t region)
{
    return ledger_pages(runtime_current->profile->ledger, region);
}

void dsm_profile_unwatch(uint32_t region)
{
    struct runtime *runtime = call_lock("the profile of an array");
    if (!runtime)
        return;
    ledger_unwatch(runtime->profile->ledger, region);
    progress_unlock(runtime);
}

int dsm_profile_owners(uint32_t id, uint64_t count, int32_t *owners, uint64_t *held)
{
    struct runtime *runtime = call_lock("the profile of an array");
    if (!runtime)
        return DSM_E_STATE;
    const struct region *region = region_find(runtime->node->regions, id);
    bool there = region && count == region->pages;
    *held = 0;
    for (uint64_t i = 0; there && i < count; i++) {
        const struct page *page = region_page_if(region, i);
        owners[i] = page && page->owner != NODE_NONE ? nodes_first(runtime, page->owner) : -1;
        *held += page && page->copy && !page->fresh;
    }
    progress_unlock(runtime);
    return there ? DSM_OK : error_set(DSM_E_ARGUMENT, "array %u has not %llu pages", id, (unsigned long long)count);
}

int64_t dsm_profile_service_ns(void)
{
    clockid_t clock;
    struct timespec used = {0};
    struct runtime *runtime = call_lock("the profile");
    if (!runtime)
        return 0;
    if (pthread_getcpuclockid(runtime->service, &clock) == 0)
        clock_gettime(clock, &used);
    progress_unlock(runtime);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}
