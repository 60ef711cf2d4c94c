/* Why so large a file costs nothing: it is sparse, shared file mappings are not charged against overcommit (pages are,
 * one by one, when they are touched), and page tables appear with the pages.  What does refuse a large view is
 * RLIMIT_AS, RLIMIT_FSIZE, and the processor's address space.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "backing.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

int backing_open(uint64_t bytes)
{
    /* The kernel answers a file beyond this limit with SIGXFSZ, which kills. */
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < bytes)
        return -EFBIG;
    if (bytes > INT64_MAX)
        return -ENOMEM;
    int file = memfd_create("dsm", MFD_CLOEXEC);
    if (file < 0)
        return -errno;
    if (ftruncate(file, (off_t)bytes) != 0) {
        int error = errno == EFBIG || errno == EINVAL ? ENOMEM : errno;
        close(file);
        return -error;
    }
    return file;
}

/* A huge page lies at a multiple of its size, and so must the view; where the kernel chooses, there is more room
 * first. */
static void *map_aligned(int file, uint64_t bytes, int protection, int flags)
{
    uint64_t room = bytes + BACKING_HUGE_BYTES;
    unsigned char *found = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED)
        return MAP_FAILED;
    uint64_t before = -(uintptr_t)found % BACKING_HUGE_BYTES;
    void *mapped = mmap(found + before, bytes, protection, flags | MAP_FIXED, file, 0);
    if (mapped == MAP_FAILED) {
        munmap(found, room);
        return MAP_FAILED;
    }
    if (before)
        munmap(found, before);
    munmap(found + before + bytes, BACKING_HUGE_BYTES - before);
    return mapped;
}

/* Both flags stay with every piece that mprotect cuts from the mapping later. */
static int keep_here(void *view, uint64_t bytes)
{
    return madvise(view, bytes, MADV_DONTFORK) != 0 || madvise(view, bytes, MADV_DONTDUMP) != 0 ? -errno : 0;
}

/* An address that this kernel does not give to programs is refused in the same words as a limit; only for a limit does
 * it help to ask for less. */
static int refusal(int error, int file, uint64_t bytes)
{
    if (error != ENOMEM)
        return -error;
    void *anywhere = mmap(NULL, bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (anywhere == MAP_FAILED)
        return -ENOMEM;
    munmap(anywhere, bytes);
    return -EEXIST;
}

int backing_map(int file, void *address, uint64_t bytes, int protection, void **view)
{
    int flags = MAP_SHARED | MAP_NORESERVE | (address ? MAP_FIXED_NOREPLACE : 0);
    void *mapped =
        address ? mmap(address, bytes, protection, flags, file, 0) : map_aligned(file, bytes, protection, flags);
    if (mapped == MAP_FAILED)
        return address ? refusal(errno, file, bytes) : -errno;
    /* A kernel before 4.17 takes the address for a hint. */
    int error = address && mapped != address ? -EEXIST : keep_here(mapped, bytes);
    if (error)
        munmap(mapped, bytes);
    else
        *view = mapped;
    return error;
}

int backing_replace(int file, void *view, uint64_t bytes, int protection)
{
    if (mmap(view, bytes, protection, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, file, 0) == MAP_FAILED)
        return -errno;
    return keep_here(view, bytes);
}

/* fallocate and MADV_REMOVE were measured alike: a hole costs what lies in it (1.4 us a page) and the page tables
 * around it; 1 TiB that holds nothing takes 30 us. */
int backing_discard(int file, uint64_t offset, uint64_t bytes)
{
    if (bytes == 0)
        return 0;
    int result;
    do
        result = fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);
    while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : -errno;
}
