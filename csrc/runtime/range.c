#include "runtime/range.h"

#include <errno.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/runtime.h"

#define RANGE_BYTES ((uint64_t)16 << 40)
#define RANGE_BYTES_MIN ((uint64_t)1 << 30)
#define ARENA_BYTES_MORE ((uint64_t)256 << 20)
#define ARENA_BYTES_MAX ((uint64_t)4 << 40)

/* Every page may have a twin there.  More than the memory of a host is never needed. */
static uint64_t arena_bytes(uint64_t range_bytes)
{
    return range_bytes < ARENA_BYTES_MAX - ARENA_BYTES_MORE ? range_bytes + ARENA_BYTES_MORE : ARENA_BYTES_MAX;
}

/* The arena lies behind both views. */
static int map_here(struct runtime *runtime, unsigned char *address, uint64_t bytes)
{
    int error = memory_map(&runtime->memory, address, bytes);
    if (error)
        return error;
    error = arena_map(&runtime->arena, address + 2 * bytes, arena_bytes(bytes));
    if (error)
        memory_unmap(&runtime->memory);
    return error;
}

/* All ranks map everything at the same place, or none does.  `refused` starts as EEXIST and becomes the reason why
 * it is not done: 0 when it could be done here, at some place; that something else lies at one place says nothing
 * of the next. */
static bool map_at(struct runtime *runtime, uint64_t bytes, int *refused)
{
    for (unsigned k = 0;; k++) {
        void *address = memory_candidate(k, 2 * bytes + arena_bytes(bytes));
        if (!address)
            return false;
        int error = map_here(runtime, address, bytes);
        bool all = transport_agree_min(runtime->transport, error == 0) == 1;
        if (all)
            return true;
        memory_unmap(&runtime->memory);
        arena_unmap(&runtime->arena);
        if (error != -EEXIST)
            *refused = -error;
    }
}

static const char *remedy_of(int error)
{
    switch (error) {
    case 0: return "another rank refuses, and says why";
    case EFBIG:
        return "files may not be so large, and shared memory is one to the kernel; `ulimit -f unlimited` in the job "
               "script, or a smaller DSM_RANGE_BYTES";
    case EPERM:
    case EACCES:
    case ENOSYS:
        return "a sandbox forbids memfd_create, which shared memory comes from; let the container's seccomp profile "
               "allow it";
    case ENOMEM:
        return "the address space is limited, and they are needed three times; `ulimit -v unlimited` in the job "
               "script, or a smaller DSM_RANGE_BYTES";
    case EEXIST: return "something else lies at each of the places; ask for less with DSM_RANGE_BYTES";
    default: return "`python -m dsm doctor` looks at the limits of this machine";
    }
}

int range_map(struct runtime *runtime)
{
    uint64_t asked = runtime->options.range_bytes;
    uint64_t bytes = asked ? asked : RANGE_BYTES;
    int refused = EEXIST;
    for (; bytes >= RANGE_BYTES_MIN || bytes == asked; bytes /= 2)
        if (map_at(runtime, bytes, &refused)) {
            runtime->memory.huge = !(runtime->options.without & DSM_WITHOUT_HUGE) && memory_can_huge();
            return DSM_OK;
        } else if (asked)
            break;
    return error_set(DSM_E_ENVIRONMENT, "%llu bytes of addresses cannot be had at the same place on all ranks: %s%s%s",
                     (unsigned long long)(asked ? asked : RANGE_BYTES_MIN), refused ? strerror(refused) : "",
                     refused ? ": " : "", remedy_of(refused));
}
