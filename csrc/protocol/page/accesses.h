/* accesses - which bytes this node wrote, and which pages it read, between two synchronisations: the log of
 * `run --races`.  Kept only with the option `races`, and then of a node with one space.
 *
 *   stretch   what lies between two synchronising calls of a rank, whatever the protocol calls an interval
 *   edge      an acquire: the stretch comes after all stretches of `node` that ended at `since` or before
 *
 * Stretchs of two nodes are ordered by their edges (sync/races.h), and by the meetings between them: one that began
 * after departure d comes after all that ended before arrival d.
 *
 * Invariants
 *  1. The ends of the stretches of a log ascend; edges ascend by their stretch, and pages but for kept ones.
 *  2. A page is listed as opened, or as kept, exactly while it is marked so; the space has access to no other page, and
 *     can write none that is only kept.
 */
#pragma once

#include "protocol/page/page.h"

/* The same in memory and for the readers of the log (dsm.h). */
struct stretch {
    stamp end;
    uint64_t arrivals, departures; /* at meetings, before it began */
    uint32_t began, ended;         /* where in the program: the caller's numbers */
};

struct stretch_edge {
    stamp since;
    uint32_t stretch;
    node_id node;
};

#define ACCESS_SEEN UINT32_MAX

/* A page that was written (run_count is not 0), or read (run_first is ACCESS_SEEN), or kept open: it may have been read
 * in the stretches from run_first to `stretch`. */
struct page_access {
    uint64_t page; /* of the region */
    uint32_t stretch;
    region_id region;
    uint32_t run_first, run_count;
};

/* Bytes of a page: [from, to). */
struct byte_run {
    uint32_t from, to;
};

struct access_log {
    struct stretch *stretches;
    struct stretch_edge *edges;
    struct page_access *pages;
    struct byte_run *runs;
    uint32_t stretch_count, edge_count, page_count, run_count;
    uint32_t stretch_capacity, edge_capacity, page_capacity, run_capacity;
    uint64_t lost; /* accesses for which there was no room */
};

/* A page that stays accessible, and since which stretch. */
struct kept_page {
    struct page *page;
    uint64_t since;
};

struct accesses {
    struct access_log log;
    struct stretch open; /* the stretch that will be next in the log; its end is not known yet */
    bool logged;         /* something of the open stretch is in the log */
    stamp cut;           /* when the last one ended: what this node releases names it */
    struct page **opened;
    struct kept_page *kept;
    uint32_t opened_count, opened_capacity, kept_count, kept_capacity;
};

/* The space has access to the page from now on. */
void accesses_opened(struct node *node, struct page *page);
/* A thread is about to read it. */
void accesses_read(struct node *node, struct page *page);
/* It stays accessible in the stretch that begins. */
void accesses_keep(struct node *node, struct page *page);
/* These bytes were found to be written. */
void accesses_wrote(struct node *node, const struct page *page, const struct diff *diff);
/* The open stretch comes after what `from` released at `since`. */
void accesses_after(struct node *node, node_id from, stamp since);
/* The open stretch ends: `open` is the next one from now on. */
void accesses_end(struct node *node, stamp end, uint32_t site);
/* The log of the stretches that have ended is the caller's; a new one begins. */
struct access_log accesses_take(struct node *node);
void accesses_give(struct access_log *log, struct pool *pool);
void accesses_remove_region(struct node *node, const struct region *region);
void accesses_fini(struct node *node);
