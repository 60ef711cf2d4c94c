/* Why the lists of free places lie beside the memory: a link in a free place would keep a page of it, which is then no
 * longer zero.
 *
 * Why no huge pages: they were measured five times dearer than small ones to touch first on a virtual machine, and
 * pools grow by little. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "arena.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { GRANULE_BITS = 16, ORDERS = 32, NOWHERE = 0 };

#define GRANULE_BYTES ((uint64_t)1 << GRANULE_BITS)

/* Granules are counted from the first one behind the table, and named by their number + 1. */
struct entry {
    uint32_t next, before; /* in the list of its order */
    uint32_t free_order;   /* + 1; 0: no free place begins here */
};

struct arena_head {
    uint64_t name;
    void *root;
    uint64_t first;        /* where granule 0 lies, from the head on */
    uint32_t count;        /* granules there are */
    uint32_t top;          /* how many have ever been in a place */
    uint32_t free[ORDERS]; /* first free place of 1 << order granules */
    struct entry entries[];
};

/* ---- places ---------------------------------------------------------------------------------------------------- */

static unsigned order_of(uint64_t bytes)
{
    uint64_t granules = (bytes + GRANULE_BYTES - 1) >> GRANULE_BITS;
    return granules <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(granules - 1);
}

static void push(struct arena_head *head, uint32_t place, unsigned order)
{
    struct entry *entry = &head->entries[place];
    *entry = (struct entry){.next = head->free[order], .before = NOWHERE, .free_order = order + 1};
    if (entry->next)
        head->entries[entry->next - 1].before = place + 1;
    head->free[order] = place + 1;
}

static void take_out(struct arena_head *head, uint32_t place, unsigned order)
{
    struct entry *entry = &head->entries[place];
    if (entry->before)
        head->entries[entry->before - 1].next = entry->next;
    else
        head->free[order] = entry->next;
    if (entry->next)
        head->entries[entry->next - 1].before = entry->before;
    entry->free_order = 0;
}

static void give(struct arena_head *head, uint32_t place, unsigned order)
{
    for (;; order++) {
        uint32_t buddy = place ^ (UINT32_C(1) << order);
        if (buddy >= head->top || head->entries[buddy].free_order != order + 1)
            break;
        take_out(head, buddy, order);
        place = place < buddy ? place : buddy;
    }
    push(head, place, order);
}

/* Of granules that were in no place before; those that are passed over to reach a multiple become free. */
static bool extend(struct arena_head *head, unsigned order, uint32_t *place)
{
    uint64_t granules = UINT64_C(1) << order, from = (head->top + granules - 1) / granules * granules;
    if (from + granules > head->count)
        return false;
    while (head->top < from) {
        unsigned gap = (unsigned)__builtin_ctz(head->top);
        uint32_t at = head->top;
        head->top += UINT32_C(1) << gap;
        give(head, at, gap);
    }
    head->top += (uint32_t)granules;
    *place = (uint32_t)from;
    return true;
}

static bool take(struct arena_head *head, unsigned order, uint32_t *place)
{
    unsigned found = order;
    while (found < ORDERS && !head->free[found])
        found++;
    if (found >= ORDERS)
        return order < ORDERS && extend(head, order, place);
    *place = head->free[found] - 1;
    take_out(head, *place, found);
    while (found > order) {
        found--;
        push(head, *place + (UINT32_C(1) << found), found);
    }
    return true;
}

void *arena_chunk(struct arena *arena, uint64_t bytes)
{
    uint32_t place = 0;
    if (bytes == 0 || bytes > arena->bytes || !take(arena->head, order_of(bytes), &place))
        return NULL;
    return (unsigned char *)arena->head + arena->head->first + ((uint64_t)place << GRANULE_BITS);
}

/* A chunk that the system does not take back stays as it is: its place would not be zero. */
void arena_chunk_free(struct arena *arena, void *chunk, uint64_t bytes)
{
    struct arena_head *head = arena->head;
    if (!chunk)
        return;
    uint64_t offset = (uint64_t)((unsigned char *)chunk - (unsigned char *)head);
    unsigned order = order_of(bytes);
    if (backing_discard(arena->file, offset, GRANULE_BYTES << order) == 0)
        give(head, (uint32_t)((offset - head->first) >> GRANULE_BITS), order);
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static int begin(struct arena_head *head, uint64_t bytes)
{
    if (getrandom(&head->name, sizeof head->name, 0) != sizeof head->name)
        return -EIO;
    uint64_t table = sizeof *head + bytes / GRANULE_BYTES * sizeof head->entries[0];
    head->first = (table + GRANULE_BYTES - 1) / GRANULE_BYTES * GRANULE_BYTES;
    head->count = (uint32_t)((bytes - head->first) / GRANULE_BYTES);
    return 0;
}

int arena_map(struct arena *arena, void *address, uint64_t bytes)
{
    void *head;
    *arena = (struct arena){.file = -1};
    if (bytes < 4 * GRANULE_BYTES || bytes % GRANULE_BYTES != 0 || bytes >> GRANULE_BITS > INT32_MAX)
        return -EINVAL;
    int file = backing_open(bytes);
    if (file < 0)
        return file;
    int error = backing_map(file, address, bytes, PROT_READ | PROT_WRITE, &head);
    if (error) {
        close(file);
        return error;
    }
    madvise(head, bytes, MADV_NOHUGEPAGE);
    *arena = (struct arena){.head = head, .bytes = bytes, .file = file};
    error = begin(head, bytes);
    if (error)
        arena_unmap(arena);
    return error;
}

/* A file that is shorter would end its readers with SIGBUS. */
static int check(int file, uint64_t bytes, uint64_t name)
{
    struct stat status;
    uint64_t found;
    if (fstat(file, &status) != 0)
        return -errno;
    bool fits = S_ISREG(status.st_mode) && status.st_size == (off_t)bytes;
    return fits && pread(file, &found, sizeof found, 0) == sizeof found && found == name ? 0 : -ESTALE;
}

int arena_join(struct arena *arena, int file, uint64_t name)
{
    int error = check(file, arena->bytes, name);
    if (error) {
        close(file);
        return error;
    }
    error = backing_replace(file, arena->head, arena->bytes, PROT_READ | PROT_WRITE);
    madvise(arena->head, arena->bytes, MADV_NOHUGEPAGE);
    close(arena->file);
    arena->file = file;
    return error;
}

void arena_unmap(struct arena *arena)
{
    if (!arena->head)
        return;
    munmap(arena->head, arena->bytes);
    close(arena->file);
    *arena = (struct arena){.file = -1};
}

uint64_t arena_name(const struct arena *arena)
{
    return arena->head->name;
}

void **arena_root(const struct arena *arena)
{
    return &arena->head->root;
}

int arena_look(const struct arena *arena)
{
    void *seen = mmap(arena->head, arena->bytes, PROT_READ, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, arena->file, 0);
    return seen == MAP_FAILED ? -errno : 0;
}
