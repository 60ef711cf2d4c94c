/* arena - memory that the processes of a node map at one address, so that a pointer into it means the same in all.
 *
 * It is a sparse file, like the range (memory.h), and hands out chunks of it.  Places for them are cut by halves
 * (buddies: Knowlton 1965); where a place is larger than its chunk the rest costs addresses only.
 *
 *   head     the name, the root, the lists of free places
 *   table    an entry for each granule of 64 KiB, used for the first one of a free place
 *   chunks   behind them, from granule 0 on in the order of addresses
 *
 * Invariants
 *  1. Nothing in it points to code, or to memory outside of it and the system view.
 *  2. Memory of no chunk is a hole of the file: it reads as zeros.
 *  3. No free place has a free buddy of its size.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "backing.h"

struct arena {
    struct arena_head *head; /* its address; NULL: there is none */
    uint64_t bytes;
    int file;
};

/* Make an arena of `bytes`, with a random name, at `address` (NULL: anywhere).  0 or -errno, as of backing.h. */
int arena_map(struct arena *arena, void *address, uint64_t bytes);
/* Map another process' arena of the same size in place of the own one, which must hold no chunk; takes the descriptor.
 * 0 or -errno: ESTALE where the file does not have this name.  The own one is still there then, unless the kernel
 * refuses the mapping itself. */
int arena_join(struct arena *arena, int file, uint64_t name);
void arena_unmap(struct arena *arena);

/* Its random name: it tells one arena from another. */
uint64_t arena_name(const struct arena *arena);
/* Where its processes begin to look: a chunk; NULL at first. */
void **arena_root(const struct arena *arena);

/* Zeroed memory, aligned to a machine page; no malloc, so usable in a fault.  NULL: its addresses are used up.  Under
 * the mutex of the node, as is arena_chunk_free, which is given the size that was asked for. */
void *arena_chunk(struct arena *arena, uint64_t bytes);
void arena_chunk_free(struct arena *arena, void *chunk, uint64_t bytes);

/* In a child of fork(), which has no arena: see what is in it.  0 or -errno. */
int arena_look(const struct arena *arena);
