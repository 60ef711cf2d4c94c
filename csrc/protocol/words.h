/* words - the scalars of the protocol, and the port to the world outside.
 *
 * Vocabulary (Keleher, Cox, Zwaenepoel 1992, 1994; Amza et al. 1996)
 *   node            one process of the job; its number is its MPI rank
 *   interval        what one node does between two synchronisations; named by (node, Lamport stamp)
 *   stamp           Lamport clock, 64 bits; every message carries its sender's and the receiver merges it
 *   write notice    "node q modified page p in its interval that closed at stamp s"
 *   twin            copy of a page taken before the first write, to find the changed bytes later
 *   diff            the changed bytes of a page, tagged with the stamp at which they were cut
 *   seal            protect a page and cut its diff before it is served, so that the next write is noticed again
 *   meeting         all nodes arrive, then all depart; the departure is a cut
 *   cut             every interval that a departure lists is known everywhere
 *   owner           the node to ask for a page when no copy is here, agreed by all at each cut
 *   manager         the node that knows who asked for a lock last; the home of a counter
 *   collection      meetings after which nobody needs any diff, twin, vector or log
 *   exclusive       no other node has a copy: no twin and no notices until somebody fetches the page
 */
#ifndef PROTOCOL_WORDS_H
#define PROTOCOL_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int32_t node_id;
typedef uint64_t stamp;
typedef uint32_t region_id;

enum { NODE_NONE = -1 };

/* What a thread waits for: a page to read or to write, a lock, a meeting, a counter. */
enum wait_kind {
    WAIT_NONE,
    WAIT_FOR_READ,
    WAIT_FOR_WRITE,
    WAIT_FOR_LOCK,
    WAIT_FOR_MEETING,
    WAIT_FOR_COUNTER,
    WAIT_KINDS
};

enum access { ACCESS_NONE = 0, ACCESS_READ = 1, ACCESS_WRITE = 2 };

/* All that the protocol asks of the world.  In production: mprotect, mmap and death; in the simulator: plain arrays.
 * Offsets count from the start of the shared range, which is `view` on the side that is always writable. */
struct port {
    void *context;
    unsigned char *view;
    uint64_t range_bytes;
    uint32_t granule_bytes; /* smallest unit of protection and smallest page: 4096; less in the simulator */
    uint32_t huge_bytes;    /* memory comes in one piece for so much at a multiple of it, if it is asked for so; the
                                     * same on all nodes, since regions are placed by it */
    uint64_t edges_max;     /* changes of protection along the range that the kernel can hold */
    /* Make the bytes accessible to the program as told; 0, or not 0 when the kernel has no room for one more mapping. */
    int (*protect)(void *context, uint64_t offset, uint64_t bytes, enum access access);
    /* The bytes read as zeros from now on. */
    void (*discard)(void *context, uint64_t offset, uint64_t bytes);
    /* Which of the 64 granules from `offset` on may hold something else than zeros: a bit each, the first one lowest.
     * NULL: the port cannot tell without looking. */
    uint64_t (*touched)(void *context, uint64_t offset);
    /* These bytes of the range, which nobody has touched, will be put: while nothing else is to be done the port may make
     * room.  NULL: it need not know. */
    void (*expect)(void *context, uint64_t offset, uint64_t bytes);
    /* Write to bytes of the range that were not touched before.  NULL: by the view. */
    void (*put)(void *context, uint64_t offset, const unsigned char *bytes, uint64_t count);
    /* The peer copies what travels apart from here itself, without a message more.  NULL: no peer does. */
    bool (*copied_by)(void *context, node_id peer);
    /* What this thread waits for now, and of these which.  NULL: the port does not know. */
    enum wait_kind (*waits)(void *context, uint32_t thread, uint64_t *object);
    /* Zeroed memory, never NULL (the port dies instead). */
    void *(*chunk)(void *context, size_t bytes);
    void (*chunk_free)(void *context, void *chunk, size_t bytes);
    /* A broken invariant or a malformed message: does not return. */
    void (*panic)(void *context, const char *text);
};

#endif
