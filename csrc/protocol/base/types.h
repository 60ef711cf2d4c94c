/* types - the scalars of the protocol.
 *
 * Vocabulary (Keleher, Cox, Zwaenepoel 1992, 1994; Amza et al. 1996)
 *   node            processes of one host that share memory: one copy and one state of each page, one mutex
 *   space           one of these processes; what its kernel lets it touch is changed by itself only
 *   lag             of a space: to have more access than the state of the page allows, until it synchronises
 *   interval        what one node does between two synchronisations; named by (node, Lamport stamp)
 *   stamp           Lamport clock, 64 bits; every message carries its sender's and the receiver merges it
 *   write notice    "node q modified page p in its interval that closed at stamp s"
 *   twin            copy of a page from before the writes that other nodes lack; comparing with it finds these
 *   diff            the changed bytes of a page, encoded, with the stamp (tag) at which they were sealed
 *   seal            make a page ready to be sent: protect it, then encode its diff; the next write faults again
 *   meeting         all nodes arrive, then all depart
 *   cut             a departure is a consistent cut: a node that has departed knows every interval it lists
 *   owner           agreed by all at each cut: the node that keeps the page alive, and is asked for it where no copy
 *                   is here and no notice has named a later writer
 *   manager         of a lock: the node that knows which node asked last
 *   collection      four meetings after which no node needs any diff, twin, vector or log
 *   exclusive       no other node has a copy: no twin and no notices until a node fetches the page
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int32_t node_id;
typedef uint64_t stamp;
typedef uint32_t region_id;

enum { NODE_NONE = -1 };

/* A mask of 64 bits says which spaces may touch a page.  A host with more processes is several nodes. */
enum { SPACES_MAX = 64 };

/* What a thread waits for: a page to read or to write, a lock, a meeting, a counter, a flag. */
enum wait_kind {
    WAIT_NONE,
    WAIT_FOR_READ,
    WAIT_FOR_WRITE,
    WAIT_FOR_LOCK,
    WAIT_FOR_MEETING,
    WAIT_FOR_COUNTER,
    WAIT_FOR_FLAG,
    WAIT_KINDS
};

enum access { ACCESS_NONE = 0, ACCESS_READ = 1, ACCESS_WRITE = 2 };
