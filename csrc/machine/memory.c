/* Why a memfd mapped twice: a page must be complete before any thread of the program can see it, and mprotect is the
 * only switch that all threads see at once.  So the runtime writes through a view of its own.
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
#include <sys/stat.h>
#include <unistd.h>

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

/* The view lies behind the place of the application, or anywhere like it. */
static int map_views(struct memory *memory, void *address, uint64_t bytes)
{
    void *system, *application, *behind = address ? (unsigned char *)address + bytes : NULL;
    int error = backing_map(memory->file, behind, bytes, PROT_READ | PROT_WRITE, &system);
    if (error)
        return error;
    error = backing_map(memory->file, address, bytes, PROT_NONE, &application);
    if (error) {
        munmap(system, bytes);
        return error;
    }
    memory->application = application;
    memory->system = system;
    memory->bytes = bytes;
    return 0;
}

int memory_map(struct memory *memory, void *address, uint64_t bytes)
{
    *memory = (struct memory){.file = -1};
    if (bytes == 0 || bytes % (uint64_t)sysconf(_SC_PAGESIZE) != 0)
        return -EINVAL;
    int file = backing_open(bytes);
    if (file < 0)
        return file;
    memory->file = file;
    int error = map_views(memory, address, bytes);
    if (error) {
        close(file);
        memory->file = -1;
    }
    return error;
}

int memory_join(struct memory *memory, int file)
{
    int error = backing_replace(file, memory->system, memory->bytes, PROT_READ | PROT_WRITE);
    if (!error)
        error = backing_replace(file, memory->application, memory->bytes, PROT_NONE);
    close(memory->file);
    memory->file = file;
    return error;
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

static bool has_memory(const struct memory *memory, uint64_t offset)
{
    for (uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE), at = 0; at < BACKING_HUGE_BYTES; at += 64 * page_bytes)
        if (memory_touched(memory, offset + at))
            return true;
    return false;
}

/* Back the bytes of a huge page by one, if they have no memory yet.  The kernel joins only where some of it has a
 * small page (EINVAL else), and fails where memory is in pieces: then the next ones are left alone, ever more of
 * them.  Threads may count at once (memory_back), and one count is lost then. */
static bool make_huge(struct memory *memory, uint64_t offset)
{
    enum { LEFT_MAX = 1 << 16 };
    if (!memory->huge || has_memory(memory, offset))
        return false;
    uint32_t left = __atomic_load_n(&memory->huge_left, __ATOMIC_RELAXED);
    if (left > 0) {
        __atomic_store_n(&memory->huge_left, left - 1, __ATOMIC_RELAXED);
        return false;
    }
    __atomic_fetch_or(memory->system + offset, 0, __ATOMIC_RELAXED); /* a thread may write there by now */
    bool made = madvise(memory->system + offset, BACKING_HUGE_BYTES, MADV_COLLAPSE) == 0;
    uint32_t failures = __atomic_load_n(&memory->huge_failures, __ATOMIC_RELAXED);
    if (!made)
        __atomic_store_n(&memory->huge_left, failures, __ATOMIC_RELAXED);
    failures = made ? 0 : failures < LEFT_MAX ? 2 * failures + 1 : failures;
    __atomic_store_n(&memory->huge_failures, failures, __ATOMIC_RELAXED);
    return made;
}

/* Of no bytes the kernel says whether it knows the advice. */
bool memory_can_huge(void)
{
    return madvise(NULL, 0, MADV_COLLAPSE) == 0;
}

void memory_back(struct memory *memory, uint64_t offset, uint64_t bytes)
{
    for (uint64_t at = (offset + BACKING_HUGE_BYTES - 1) / BACKING_HUGE_BYTES * BACKING_HUGE_BYTES;
         at + BACKING_HUGE_BYTES <= offset + bytes; at += BACKING_HUGE_BYTES)
        make_huge(memory, at);
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
    return mprotect(memory->application + offset, bytes, protections[access]) == 0 ? 0 : -errno;
}

int memory_discard(struct memory *memory, uint64_t offset, uint64_t bytes)
{
    if (offset > memory->bytes || bytes > memory->bytes - offset)
        return -EINVAL;
    return backing_discard(memory->file, offset, bytes);
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
    if (end % BACKING_HUGE_BYTES == 0 && end - offset >= BACKING_HUGE_BYTES &&
        make_huge(memory, end - BACKING_HUGE_BYTES))
        return end - BACKING_HUGE_BYTES;
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

uint64_t memory_held(const struct memory *memory)
{
    enum { BLOCK_BYTES = 512 }; /* of st_blocks */
    struct stat status;
    return fstat(memory->file, &status) == 0 ? (uint64_t)status.st_blocks * BLOCK_BYTES : 0;
}

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
