/* Calls of dsm.h about whole arrays, which are regions of the shared range. */
#include "runtime/call.h"
#include "runtime/collective.h"
#include "runtime/error.h"

enum { PAGE_BYTES_MIN = 4096, PAGE_BYTES_MAX = 64 << 20 };

static void describe(const struct runtime *runtime, const struct region *region, struct dsm_region *out)
{
    *out = (struct dsm_region){
        .id = region->id,
        .address = runtime->memory.application + region->offset,
        .bytes = region->bytes,
        .page_bytes = region->page_bytes,
        .pages = region->pages,
    };
}

int dsm_allocate(uint64_t bytes, uint64_t page_bytes, const void *initial, uint32_t initial_bytes, const char *name,
                 const char *what, double slice_s, struct dsm_region *region)
{
    if (bytes == 0)
        return error_set(DSM_E_ARGUMENT, "an allocation of 0 bytes");
    if (page_bytes < PAGE_BYTES_MIN || page_bytes > PAGE_BYTES_MAX || (page_bytes & (page_bytes - 1)))
        return error_set(DSM_E_ARGUMENT, "page size %llu is not a power of two from 4 KiB to 64 MiB",
                         (unsigned long long)page_bytes);
    if (initial && (initial_bytes == 0 || PAGE_BYTES_MIN % initial_bytes))
        return error_set(DSM_E_ARGUMENT, "an initial value of %u bytes does not divide a page", initial_bytes);
    struct ballot ballot = {
        .kind = MEETING_ALLOCATE,
        .numbers = {bytes, page_bytes, initial ? initial_bytes : 0},
        .what = what,
        .name = name,
        .value = initial,
    };
    uint32_t id;
    int error = collective_meet("an allocation", &ballot, slice_s, &id);
    if (error)
        return error;
    struct runtime *runtime = call_lock("an allocation");
    if (!runtime)
        return DSM_E_STATE;
    describe(runtime, region_find(runtime->node->regions, id), region);
    progress_unlock(runtime);
    return DSM_OK;
}

int dsm_free(uint32_t region, const char *refusal, const char *what, double slice_s)
{
    struct ballot ballot = {.kind = MEETING_FREE, .numbers = {region}, .what = what, .refusal = refusal};
    return collective_meet("free()", &ballot, slice_s, NULL);
}

int dsm_forget(uint32_t region)
{
    struct runtime *runtime = call_lock("forget");
    if (!runtime)
        return DSM_E_STATE;
    region_forget(runtime->node->regions, region, runtime->node->me);
    progress_unlock(runtime);
    return DSM_OK;
}

int dsm_region_of(const void *address, struct dsm_region *out)
{
    struct runtime *runtime = call_lock("a look at an array");
    if (!runtime)
        return DSM_E_STATE;
    uint64_t offset = (uint64_t)((uintptr_t)address - (uintptr_t)runtime->memory.application);
    struct region *region = offset < runtime->memory.bytes ? region_at(runtime->node->regions, offset) : NULL;
    if (region)
        describe(runtime, region, out);
    progress_unlock(runtime);
    return region ? DSM_OK : error_set(DSM_E_ARGUMENT, "address %p lies in no shared array", address);
}
