/* page - the unit of coherence on one node.
 *
 * need[q]   highest stamp of q's intervals that are known here to have modified the page
 * have[q]   q's modifications up to this stamp are in the copy that is here
 * A page is valid when there is a copy and need[q] <= have[q] for every q.
 *
 *              write notice                        last diff applied, or whole page installed
 *   VALID  ------------------->  STALE  ------------------------------------------>  VALID
 *     |  ^                         |  collection, not brought up to date
 *     |  | write fault: OPEN       v
 *     v  | (served: sealed)      ABSENT  ---- whole page installed ---------------->  VALID
 *    OPEN (VALID and writable; its twin is the state that others were sent last)
 *
 * `access` is what the kernel was told.  It is never weaker than the state allows and may be stricter at any time (a
 * stricter page costs one local fault), but for pinned pages.
 *
 * Invariants (page_check)
 *  1. access <= READ unless writable; access == NONE unless valid; pinned pages excepted.
 *  2. A twin exists only where there is a copy.  (A dirty page may have none: it was served since it was opened.)
 *  3. Tags of the diffs ascend.
 *  4. The page is fetched by at most one fetch.
 */
#ifndef PROTOCOL_PAGE_H
#define PROTOCOL_PAGE_H

#include "protocol/diff.h"
#include "protocol/vector.h"

struct region;
struct fetch;

struct page {
    struct region *region;
    uint64_t index;
    struct vector need, have;
    unsigned char *twin;            /* page_bytes of the pool, or the region's constant */
    struct diff *diffs, *diffs_last;
    uint64_t diff_bytes;            /* of all of them */
    struct fetch *fetch;
    struct page *pin_next;          /* list of pinned pages */
    uint32_t pins_read, pins_write;
    node_id owner;
    node_id cut_writer;             /* while a cut is passed: who wrote last, */
    stamp cut_stamp;                /* when (0: nobody), */
    bool cut_owner_wrote;           /* and whether the owner did, too */
    bool copy;                      /* some version is here */
    bool fresh;                     /* the copy is the initial value */
    bool filled;                    /* and it is in the memory */
    bool writable;                  /* open: writes need no notice now */
    bool dirty;                     /* belongs to the open interval */
    bool owed;                      /* pinned and served during a collection: a notice is due after it */
    bool shared_writing;            /* a whole page did not make it valid: several write it at a time */
    uint8_t access;                 /* enum access */
    bool arriving;                  /* a whole page is being received over it: it has no copy meanwhile */
};

bool page_valid(const struct page *page);
bool page_pinned(const struct page *page);
/* It is served from its twin, the snapshot that others were sent last, and not protected. */
bool page_stays_open(const struct page *page);
uint64_t page_offset(const struct page *page);
bool page_twin_constant(const struct page *page);

/* Put the initial value into the memory of a fresh page. */
void page_fill(struct page *page, const struct port *port);

/* Take a twin of the page as it is now (the constant, if it is fresh). */
void page_twin(struct page *page, struct pool *pool, const struct port *port);
/* A constant twin that is about to change becomes a copy of its own. */
void page_twin_own(struct page *page, struct pool *pool);
void page_twin_drop(struct page *page, struct pool *pool);
void page_diffs_drop(struct page *page, struct pool *pool);

/* Cut the diff between `now` (the page, or a snapshot of it) and the twin, and keep it under
 * `tag`.  Nothing is kept when nothing changed. */
void page_cut(struct page *page, const unsigned char *now, struct pool *pool, stamp tag);

/* The first of the diffs that were cut after `tag`, or NULL.  Looks from the latest: a reader lacks few of many. */
struct diff *page_diffs_after(const struct page *page, stamp tag);

void page_check(const struct page *page, const struct port *port);

#endif
