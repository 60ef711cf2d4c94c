/* Why a memfd mapped twice: a page must be complete before any thread of the program can see it, and mprotect is the
 * only switch that all threads see at once.  So the runtime writes through a view of its own.
 *
 * Why so large a range costs nothing: the file is sparse, shared file mappings are not charged against overcommit
 * (pages are, one by one, when they are touched), and page tables appear with the pages.  What does refuse a large
 * range is RLIMIT_AS, which counts both views, RLIMIT_FSIZE, and the processor's address space.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define GIB ((uint64_t)1 << 30)
#define TIB ((uint64_t)1 << 40)

/* Places where nothing is mapped as a rule.  With 47 or 48 bits (x86-64, most AArch64) programs and their heaps lie
 * at 0x5555... or 0xaaaa... and above, libraries and stacks at the top, and 0x2400... to 0x4c00... is empty; the
 * shadow of AddressSanitizer ends at 0x1000... (x86-64) or 0x2010... (AArch64), its allocators begin at 0x5000... and
 * 0x6000.... 0x5700... is for ThreadSanitizer, which knows addresses only in a few windows.  The low rows are for
 * kernels of 42 and 39 bits, where everything else lies in the upper half. */
static const struct {
    uint64_t first, end, step;
} candidate_windows[] = {
    {36 * TIB, 76 * TIB, 4 * TIB},
    {87 * TIB, 90 * TIB, TIB},
    {TIB, 2 * TIB + TIB / 2, TIB / 4},
    {64 * GIB, 320 * GIB, 64 * GIB},
};

static uint64_t round_to_pages(uint64_t bytes)
{
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}

static int open_backing(uint64_t bytes)
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
    uint64_t room = bytes + MEMORY_HUGE_BYTES;
    unsigned char *found = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED)
        return MAP_FAILED;
    uint64_t before = -(uintptr_t)found % MEMORY_HUGE_BYTES;
    void *mapped = mmap(found + before, bytes, protection, flags | MAP_FIXED, file, 0);
    if (mapped == MAP_FAILED) {
        munmap(found, room);
        return MAP_FAILED;
    }
    if (before)
        munmap(found, before);
    munmap(found + before + bytes, MEMORY_HUGE_BYTES - before);
    return mapped;
}

/* Both MADV flags stay with every piece that mprotect cuts from the mapping later. */
static int map_view(int file, void *address, uint64_t bytes, int protection, unsigned char **view)
{
    int flags = MAP_SHARED | MAP_NORESERVE | (address ? MAP_FIXED_NOREPLACE : 0);
    void *mapped =
        address ? mmap(address, bytes, protection, flags, file, 0) : map_aligned(file, bytes, protection, flags);
    if (mapped == MAP_FAILED)
        return -errno;
    int error = 0;
    if (address && mapped != address) /* a kernel before 4.17 takes the address for a hint */
        error = EEXIST;
    else if (madvise(mapped, bytes, MADV_DONTFORK) != 0 || madvise(mapped, bytes, MADV_DONTDUMP) != 0)
        error = errno;
    if (error) {
        munmap(mapped, bytes);
        return -error;
    }
    *view = mapped;
    return 0;
}

int memory_map(struct memory *memory, void *address, uint64_t bytes)
{
    *memory = (struct memory){.file = -1};
    if (bytes == 0 || bytes % (uint64_t)sysconf(_SC_PAGESIZE) != 0)
        return -EINVAL;
    int file = open_backing(bytes);
    if (file < 0)
        return file;
    unsigned char *application = NULL, *system = NULL;
    int error = map_view(file, NULL, bytes, PROT_READ | PROT_WRITE, &system);
    if (error == 0)
        error = map_view(file, address, bytes, PROT_NONE, &application);
    if (error == -ENOMEM && system && address) {
        /* An address that this kernel does not give to programs is refused in the same words as a limit; only for a
         * limit does it help to ask for less. */
        unsigned char *anywhere;
        if (map_view(file, NULL, bytes, PROT_NONE, &anywhere) == 0) {
            munmap(anywhere, bytes);
            error = -EEXIST;
        }
    }
    if (error) {
        if (system)
            munmap(system, bytes);
        close(file);
        return error;
    }
    *memory = (struct memory){.application = application, .system = system, .bytes = bytes, .file = file};
    return 0;
}

void memory_unmap(struct memory *memory)
{
    if (!memory->application)
        return;
    munmap(memory->application, memory->bytes);
    munmap(memory->system, memory->bytes);
    close(memory->file);
    *memory = (struct memory){.file = -1};
}

void *memory_candidate(unsigned k, uint64_t bytes)
{
    for (size_t i = 0; i < sizeof candidate_windows / sizeof candidate_windows[0]; i++) {
        uint64_t first = candidate_windows[i].first, end = candidate_windows[i].end, step = candidate_windows[i].step;
        if (bytes > end - first || first > UINTPTR_MAX - bytes)
            continue;
        uint64_t places = (end - first - bytes) / step + 1;
        if (k < places)
            return (void *)(uintptr_t)(first + k * step);
        k -= (unsigned)places;
    }
    return NULL;
}

static bool has_memory(const struct memory *memory, uint64_t offset, uint64_t bytes)
{
    for (uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE), at = 0; at < bytes; at += 64 * page_bytes)
        if (memory_touched(memory, offset + at))
            return true;
    return false;
}

/* Back the bytes of a huge page by one, if they have no memory yet.  The kernel joins only where some of it has a
 * small page (EINVAL else), and fails where memory is in pieces: then the next ones are left alone, ever more of
 * them. */
static bool make_huge(struct memory *memory, uint64_t offset)
{
    enum { LEFT_MAX = 1 << 16 };
    if (!memory->huge || has_memory(memory, offset, MEMORY_HUGE_BYTES))
        return false;
    if (memory->huge_left > 0) {
        memory->huge_left--;
        return false;
    }
    __atomic_fetch_or(memory->system + offset, 0, __ATOMIC_RELAXED); /* a thread may write there by now */
    bool made = madvise(memory->system + offset, MEMORY_HUGE_BYTES, MADV_COLLAPSE) == 0;
    if (made)
        memory->huge_failures = 0;
    else {
        memory->huge_left = memory->huge_failures;
        if (memory->huge_failures < LEFT_MAX)
            memory->huge_failures = 2 * memory->huge_failures + 1;
    }
    return made;
}

int memory_protect(struct memory *memory, uint64_t offset, uint64_t bytes, enum memory_access access)
{
    static const int protections[] = {
        [MEMORY_NONE] = PROT_NONE,
        [MEMORY_READ] = PROT_READ,
        [MEMORY_WRITE] = PROT_READ | PROT_WRITE,
    };
    if (offset > memory->bytes || bytes > memory->bytes - offset)
        return -EINVAL;
    if (access == MEMORY_WRITE)
        for (uint64_t at = (offset + MEMORY_HUGE_BYTES - 1) / MEMORY_HUGE_BYTES * MEMORY_HUGE_BYTES;
             at + MEMORY_HUGE_BYTES <= offset + bytes; at += MEMORY_HUGE_BYTES)
            make_huge(memory, at);
    return mprotect(memory->application + offset, bytes, protections[access]) == 0 ? 0 : -errno;
}

/* fallocate and MADV_REMOVE were measured alike: a hole costs what lies in it (1.4 us a page) and the page tables
 * around it; 1 TiB that holds nothing takes 30 us. */
int memory_discard(struct memory *memory, uint64_t offset, uint64_t bytes)
{
    if (offset > memory->bytes || bytes > memory->bytes - offset)
        return -EINVAL;
    if (bytes == 0)
        return 0;
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    int result;
    do
        result = fallocate(memory->file, mode, (off_t)offset, (off_t)bytes);
    while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : -errno;
}

/* By the system view a page costs 3.6 us (the fault 2.9), by the file 1.7, of which 1.2 can be spent before
 * (memory_prepare).  Where the file cannot be written, the view decides: the kernel kills when there is no memory. */
void memory_put(struct memory *memory, uint64_t offset, const unsigned char *bytes, uint64_t count)
{
    while (count > 0) {
        ssize_t written = pwrite(memory->file, bytes, count, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            break;
        bytes += written;
        offset += (uint64_t)written;
        count -= (uint64_t)written;
    }
    memcpy(memory->system + offset, bytes, count);
}

uint64_t memory_prepare(struct memory *memory, uint64_t offset, uint64_t end)
{
    enum { PREPARED_BYTES = 4 * 4096 };
    if (end % MEMORY_HUGE_BYTES == 0 && end - offset >= MEMORY_HUGE_BYTES && make_huge(memory, end - MEMORY_HUGE_BYTES))
        return end - MEMORY_HUGE_BYTES;
    uint64_t bytes = end - offset < PREPARED_BYTES ? end - offset : PREPARED_BYTES;
    (void)!fallocate(memory->file, FALLOC_FL_KEEP_SIZE, (off_t)(end - bytes), (off_t)bytes);
    return end - bytes;
}

/* mincore looks into the file, not into the page tables; where it fails, everything may have been touched. */
uint64_t memory_touched(const struct memory *memory, uint64_t offset)
{
    enum { PAGES = 64 };
    unsigned char resident[PAGES];
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE), pages = PAGES, bits = 0;
    if (offset >= memory->bytes)
        return 0;
    if (pages > (memory->bytes - offset) / page_bytes)
        pages = (memory->bytes - offset) / page_bytes;
    if (mincore(memory->system + offset, pages * page_bytes, resident) != 0)
        return UINT64_MAX;
    for (uint64_t i = 0; i < pages; i++)
        bits |= (uint64_t)(resident[i] & 1) << i;
    return bits;
}

/* No huge pages here: they were measured five times dearer than small ones to touch first on a virtual machine, and
 * pools grow by little. */
void *memory_chunk(size_t bytes)
{
    if (bytes == 0 || bytes > SIZE_MAX / 2)
        return NULL;
    void *chunk = mmap(NULL, round_to_pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return chunk == MAP_FAILED ? NULL : chunk;
}

void memory_chunk_free(void *chunk, size_t bytes)
{
    if (chunk)
        munmap(chunk, round_to_pages(bytes));
}

void *memory_chunk_grow(void *chunk, size_t old_bytes, size_t new_bytes)
{
    void *grown = memory_chunk(new_bytes);
    if (!grown)
        return NULL;
    if (chunk)
        memcpy(grown, chunk, old_bytes);
    memory_chunk_free(chunk, old_bytes);
    return grown;
}

uint64_t memory_mappings_max(void)
{
    unsigned long mappings = 65530;
    FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
    if (file) {
        if (fscanf(file, "%lu", &mappings) != 1)
            mappings = 65530;
        fclose(file);
    }
    return mappings;
}
