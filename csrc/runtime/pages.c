/* Calls of dsm.h about single pages of an array: their state, pins, and hints to fetch them. */
#include "runtime/call.h"
#include "runtime/error.h"
#include "runtime/faults.h"
#include "runtime/nodes.h"

int dsm_page_info(uint32_t id, uint64_t index, struct dsm_page_info *info)
{
    struct runtime *runtime = call_lock("a look at a page");
    if (!runtime)
        return DSM_E_STATE;
    struct region *region = region_find(runtime->node->regions, id);
    bool there = region && index < region->pages;
    const struct page *page = there ? region_page_if(region, index) : NULL;
    *info = (struct dsm_page_info){.owner = -1, .copy = true, .valid = true};
    if (page)
        *info = (struct dsm_page_info){
            .owner = page->owner == NODE_NONE ? -1 : nodes_first(runtime, page->owner),
            .copy = page->copy,
            .valid = page_valid(page),
            .writable = page_open(page),
            .twin = page->twin != NULL,
            .pinned = pin_find(runtime->node, page) != NULL,
        };
    progress_unlock(runtime);
    return there ? DSM_OK : error_set(DSM_E_ARGUMENT, "no page %llu of array %u", (unsigned long long)index, id);
}

/* ---- pins ---------------------------------------------------------------------------------------------------- */

/* Pages, by the offset of the first and the one behind the last. */
struct span {
    uint64_t from, end, page_bytes;
};

/* The pages of the bytes, which must lie in one region; of no bytes none. */
static int span_of(const char *call, void *address, uint64_t bytes, struct span *span)
{
    *span = (struct span){.page_bytes = 1};
    if (bytes == 0)
        return DSM_OK;
    struct runtime *runtime = call_lock(call);
    if (!runtime)
        return DSM_E_STATE;
    uint64_t offset = (uint64_t)((uintptr_t)address - (uintptr_t)runtime->memory.application);
    const struct region *region = offset < runtime->memory.bytes ? region_at(runtime->node->regions, offset) : NULL;
    bool fits = region && offset - region->offset + bytes <= region->pages * region->page_bytes;
    if (fits) {
        span->page_bytes = region->page_bytes;
        span->from = offset / region->page_bytes * region->page_bytes;
        span->end = offset + bytes;
    }
    progress_unlock(runtime);
    return fits ? DSM_OK
                : error_set(DSM_E_ARGUMENT, "%llu bytes at %p do not lie in one shared array",
                            (unsigned long long)bytes, address);
}

int dsm_pin(void *address, uint64_t bytes, bool write)
{
    struct span span;
    int error = span_of("pinned", address, bytes, &span);
    if (error)
        return error;
    if (runtime_state() == RUNTIME_ACTIVE && alone_is(runtime_current->node)) {
        faults_open_alone(runtime_current, span.from, span.end, write);
        return DSM_OK; /* nothing takes access away */
    }
    for (uint64_t at = span.from; at < span.end; at += span.page_bytes) {
        struct runtime *runtime = call_enter("pinned");
        if (!runtime)
            return DSM_E_STATE;
        struct question question = faults_question(at, write);
        question.page.pins = true;
        struct wait *wait = waits_begin(runtime->waits, write ? WAIT_FOR_WRITE : WAIT_FOR_READ, at);
        bool done = faults_await(runtime, &question);
        faults_count_wait(runtime, at, waits_end(wait, true));
        progress_leave(runtime);
        if (!done)
            return call_not_yet("pinned");
    }
    return DSM_OK;
}

int dsm_unpin(void *address, uint64_t bytes, bool write)
{
    struct span span;
    if (runtime_state() > RUNTIME_ACTIVE)
        return DSM_OK; /* all pins have ended with dsm */
    int error = span_of("the end of pinned", address, bytes, &span);
    if (error)
        return error;
    struct runtime *runtime = call_enter("the end of pinned");
    if (!runtime)
        return DSM_E_STATE;
    for (uint64_t at = span.from; at < span.end; at += span.page_bytes)
        access_unpin(runtime->node, at, write);
    progress_flush(runtime);
    progress_leave(runtime);
    return DSM_OK;
}

/* ---- prefetching --------------------------------------------------------------------------------------------- */

/* No thread waits for the answers: the service thread receives them if no other does. */
static void add_runs(struct runtime *runtime, const struct region *region, uint64_t from, uint64_t bytes,
                     uint64_t stride, uint64_t runs)
{
    for (uint64_t k = 0; k < runs; k++) {
        uint64_t at = from + k * stride;
        prefetch_add(runtime->node, region, at / region->page_bytes, (at + bytes - 1) / region->page_bytes + 1);
    }
    node_settle(runtime->node);
    progress_flush(runtime);
    if (runtime->node->prefetches->under_way && runtime->options.progress == DSM_PROGRESS_DOORBELL)
        doorbell_ring(runtime->doorbell, runtime->rank);
}

int dsm_prefetch(const void *address, uint64_t bytes, uint64_t stride, uint64_t runs)
{
    if (bytes == 0 || runs == 0)
        return DSM_OK;
    struct runtime *runtime = call_enter("prefetch()");
    if (!runtime)
        return DSM_E_STATE;
    uint64_t offset = (uint64_t)((uintptr_t)address - (uintptr_t)runtime->memory.application);
    const struct region *region = offset < runtime->memory.bytes ? region_at(runtime->node->regions, offset) : NULL;
    uint64_t from = region ? offset - region->offset : 0, room = region ? region->pages * region->page_bytes - from : 0;
    bool fits = bytes <= room && (runs == 1 || stride <= (room - bytes) / (runs - 1));
    if (fits)
        add_runs(runtime, region, from, bytes, stride, runs);
    progress_leave(runtime);
    return fits ? DSM_OK
                : error_set(DSM_E_ARGUMENT, "prefetch: %llu bytes at %p do not lie in one shared array",
                            (unsigned long long)bytes, address);
}
