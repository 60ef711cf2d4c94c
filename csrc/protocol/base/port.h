/* port - all that the protocol asks of the world.
 *
 * In production it is mprotect, mmap and death; in the simulator, plain arrays.  Offsets count from the start of the
 * shared range.  `view` is the same range on the side that is always writable.
 */
#pragma once

#include "protocol/base/types.h"

struct event;

struct port {
    void *context;
    uint32_t rank; /* of this process in the job */
    unsigned char *view;
    uint64_t range_bytes;
    uint32_t granule_bytes; /* smallest unit of protection and smallest page: 4096; less in the simulator */
    uint32_t huge_bytes; /* unit in which the kernel can make memory at once; the same on all nodes, since regions are
                             * placed by it */
    bool makes_huge;     /* and it can do so for this space */
    uint64_t edges_max;  /* changes of protection along the range that the kernel can hold */
    /* Set the program's access to these bytes.  0, or not 0 when the kernel has no room for one more mapping. */
    int (*protect)(void *context, uint64_t offset, uint64_t bytes, enum access access);
    /* The bytes read as zeros from now on. */
    void (*discard)(void *context, uint64_t offset, uint64_t bytes);
    /* A bit for each of the 64 granules from `offset` on, the first one lowest: set where the granule may hold
     * something else than zeros.  NULL: the port cannot tell without looking. */
    uint64_t (*touched)(void *context, uint64_t offset);
    /* These bytes of the range have no memory yet, and will be put: an idle thread may make memory for them.  NULL:
     * the port does not need the hint. */
    void (*expect)(void *context, uint64_t offset, uint64_t bytes);
    /* Write to bytes of the range that have no memory yet.  NULL: write through the view. */
    void (*put)(void *context, uint64_t offset, const unsigned char *bytes, uint64_t count);
    /* What this thread of a rank of this node waits for, and the number of the object.  NULL: the port does not
     * know. */
    enum wait_kind (*waits)(void *context, uint32_t rank, uint32_t thread, uint64_t *object);
    /* Something happened (context_event).  NULL: nobody records it. */
    void (*note)(void *context, const struct event *event);
    /* Zeroed memory, never NULL (the port dies instead). */
    void *(*chunk)(void *context, size_t bytes);
    void (*chunk_free)(void *context, void *chunk, size_t bytes);
    /* A broken invariant or a malformed message: does not return. */
    void (*panic)(void *context, const char *text);
};
