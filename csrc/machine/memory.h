/* memory - one range of addresses, the same on every rank, backed by a memfd that is mapped twice.
 *
 *   application view   what the user's program touches; its protection is the protocol's business
 *   system view        the same bytes, always writable; here the runtime builds pages.  One mprotect shows a page to
 *                      the program when it is complete, so no thread ever sees half a page
 *
 * Invariants
 *  1. Both views show the same bytes at the same offset, of the whole range.
 *  2. Mapped at an address, the system view lies behind the application view: pointers into it, too, mean the same on
 *     every rank.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backing.h"

enum memory_access { MEMORY_NONE = 0, MEMORY_READ = 1, MEMORY_WRITE = 2 };

struct memory {
    unsigned char *application;
    unsigned char *system;
    uint64_t bytes;
    int file;
    bool huge; /* what has no memory and is backed, or prepared for, as a whole gets a huge page */
    uint32_t huge_left, huge_failures; /* how many to leave alone, and to leave alone after the next failure */
};

/* Try to map a range of its own at `address` (NULL: both views anywhere), all of it inaccessible.  0 or -errno, as of
 * backing.h. */
int memory_map(struct memory *memory, void *address, uint64_t bytes);
/* Map another process' file of the same size in place of the own one, at the same addresses, all of it inaccessible;
 * takes the descriptor.  0 or -errno: then the range is lost. */
int memory_join(struct memory *memory, int file);
void memory_unmap(struct memory *memory);

/* The k-th address (k = 0, 1, ...) worth trying for a range of `bytes`; NULL when there are no more. */
void *memory_candidate(unsigned k, uint64_t bytes);

/* Set the protection of [offset, offset + bytes) of the application view.  0 or -errno (ENOMEM: too many mappings). */
int memory_protect(struct memory *memory, uint64_t offset, uint64_t bytes, enum memory_access access);

/* The kernel knows how (Linux 6.1). */
bool memory_can_huge(void);
/* Make huge pages for what has no memory yet, where the bytes cover one.  Any thread, at any time. */
void memory_back(struct memory *memory, uint64_t offset, uint64_t bytes);

/* Give the backing of the bytes back to the system: they read as zeros afterwards.  0 or -errno. */
int memory_discard(struct memory *memory, uint64_t offset, uint64_t bytes);

/* Write bytes of the range that were not touched before: without the fault that the first touch of each page takes,
 * and without zeroing what is written anyway. */
void memory_put(struct memory *memory, uint64_t offset, const unsigned char *bytes, uint64_t count);

/* Put memory behind the last of the bytes [offset, end), in time for memory_put.  Returns where it begins.  Only a
 * hint: it may fail. */
uint64_t memory_prepare(struct memory *memory, uint64_t offset, uint64_t end);

/* Which of the 64 machine pages from `offset` on have memory behind them (a bit each, the first one lowest): the
 * others were never touched, or given back, and read as zeros. */
uint64_t memory_touched(const struct memory *memory, uint64_t offset);

/* The memory behind the whole range, of all processes that map it, in bytes. */
uint64_t memory_held(const struct memory *memory);

/* Zeroed memory of this process, in whole machine pages; no malloc, so usable in a fault.  NULL when there is none. */
void *memory_chunk(size_t bytes);
void memory_chunk_free(void *chunk, size_t bytes);
/* A larger chunk in place of one (NULL with 0 bytes: none), with the same contents.  NULL when there is no memory. */
void *memory_chunk_grow(void *chunk, size_t old_bytes, size_t new_bytes);

/* How many mappings a process may have (vm.max_map_count; 65530 where it cannot be read). */
uint64_t memory_mappings_max(void);
