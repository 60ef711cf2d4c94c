/* page - the unit of coherence on one node.
 *
 * need[q]   q is known here to have modified the page up to this stamp: of an interval, which a notice named, or of a
 * seal
 *           inside an interval that is still open, which a reply named (R3)
 * have[q]   q's modifications up to this stamp are in the copy that is here
 * A page is valid when there is a copy and need[q] <= have[q] for every q.
 *
 *              write notice                        last diff applied, or whole page installed
 *   VALID  ------------------->  STALE  ------------------------------------------>  VALID
 *     |  ^                         |  collection, not brought up to date
 *     |  | write fault: OPEN       v
 *     v  | (served: sealed)      ABSENT  ---- whole page installed ---------------->  VALID
 *    OPEN (VALID and writable; its twin is the state that was sent to other nodes last)
 *
 * `access` is the kernel's protection.  It never allows more than the state does, but for the exceptions of invariant
 * 1. It may allow less at any time; that costs one local fault.
 *
 * Invariants (node/check.c)
 *  1. access <= READ unless writable; access == NONE unless valid.  Excepted are pinned pages, and pages that are
 *     refetched before any thread passes the acquire or the barrier that made them stale (history_coming).
 *  2. A twin exists only where there is a copy.  (A dirty page may have none: it was served since it was opened.)
 *  3. Tags of the diffs ascend.
 *  4. The page is fetched by at most one fetch.
 *  5. `extension` is not empty; it has `deferred_twin` where it has `deferred_tag`, and then there is a copy.
 *  6. A preopened page has a twin: the state that was sent to other nodes last, or the initial value.
 */
#pragma once

#include "protocol/base/context.h"
#include "protocol/page/diff.h"
#include "protocol/page/streams.h"

struct fetch;
struct page_history;

/* The part of a page's state that few pages have at a time, made when a page comes to need it. */
struct page_extension {
    struct diff *diffs, *diffs_last;
    stamp deferred_tag;           /* sealed with this stamp, and the diff is not encoded yet; 0: there is none */
    unsigned char *deferred_twin; /* its twin, to be compared with the next twin, or with the page if there is none */
    struct fetch *fetch;
    struct page_history *history; /* of pages that are shared, or NULL */
    struct page *pin_next;        /* list of pinned pages (coherence/pin.h) */
    uint32_t pins_read, pins_write;
};

/* An array has a million of them: its region and its index follow from where it lies (struct page_block). */
struct page {
    struct vector need, have;
    unsigned char *twin;              /* page_bytes of the pool, or the region's constant */
    struct page_extension *extension; /* or NULL */
    node_id owner;
    uint8_t slot : 7;             /* in its block */
    uint8_t preopened_unused : 1; /* it was preopened with the initial value, and found unchanged */
    uint8_t access;               /* enum access */
    bool copy : 1;                /* some version is here */
    bool fresh : 1;               /* the copy is the initial value */
    bool filled : 1;              /* and was put into the memory, as it is not zero */
    bool writable : 1;            /* open: writes need no notice now */
    bool dirty : 1;               /* belongs to the open interval */
    bool owed : 1;                /* pinned and served during a collection: a notice is due after it */
    bool preopened : 1;        /* opened before it was written: in no interval until an inspection finds it changed */
    bool preopened_stays : 1;  /* and stays open when an inspection finds it unchanged, some times */
    bool preopened_listed : 1; /* in node->preopened; it may have been served, and be preopened no longer */
    bool preopened_paused : 1; /* protected while a collection goes on */
    bool arriving : 1;         /* a whole page is being received over it: it has no copy meanwhile */
    bool marker : 1;           /* fetched ahead, and inaccessible, so that its first use asks for more */
    bool served : 1;           /* and closed for it: not written since */
    bool served_whole : 1;     /* its last diff was not worth it (page_worth_whole) */
    bool shared_writing : 1;   /* a whole page did not make it valid: several nodes write it at a time */
    bool cut_owner_wrote : 1;  /* while a cut is passed: the owner is among the writers */
};

/* A block fills one of the pool's blocks of 4 KiB (region.c). */
enum { REGION_BLOCK_PAGES = 72, REGION_NAME_BYTES = 64 };

struct region_stats {
    uint64_t faults_read, faults_write, faults_local, fetches, fetch_requests;
    uint64_t pages_received, pages_served, diffs_received, diffs_served, diffs_made, diff_bytes_received,
        diff_bytes_served, twins_made, notices_received, invalidations, wait_fault_ns;
};

/* One allocation (region.h). */
struct region {
    region_id id;
    uint64_t offset, bytes, page_bytes, pages;
    char name[REGION_NAME_BYTES];
    unsigned char *initial;        /* one granule of the initial value; NULL: zeros */
    const unsigned char *constant; /* the same, never NULL: twin of every fresh page */
    struct page_block **blocks;    /* REGION_BLOCK_PAGES pages each, made when one of them is touched or named */
    struct page_block *touched;    /* list of those that exist */
    uint64_t edges;                /* changes of protection along the region */
    struct streams reads, writes;  /* misses (streams.h) */
    struct region_stats stats;
};

struct page_block {
    struct page_block *next;
    struct region *region;
    uint64_t first; /* index of its first page */
    struct page pages[REGION_BLOCK_PAGES];
};

static inline const struct page_block *page_block_of(const struct page *page)
{
    return (const void *)((const unsigned char *)(page - page->slot) - offsetof(struct page_block, pages));
}

static inline struct region *page_region(const struct page *page)
{
    return page_block_of(page)->region;
}

static inline uint64_t page_index(const struct page *page)
{
    return page_block_of(page)->first + page->slot;
}

static inline void page_event(struct node *node, enum event_kind kind, const struct page *page, node_id peer)
{
    context_page_event(node, kind, page_region(page)->id, page_index(page), peer);
}

/* The rest of the page, made if it has none; and given back, if nothing is left in it. */
struct page_extension *page_extension(struct page *page, struct pool *pool);
void page_tidy(struct page *page, struct pool *pool);
bool page_extension_empty(const struct page_extension *extension);

static inline struct fetch *page_fetch(const struct page *page)
{
    return page->extension ? page->extension->fetch : NULL;
}

static inline struct page_history *page_history(const struct page *page)
{
    return page->extension ? page->extension->history : NULL;
}

static inline bool page_pinned_read(const struct page *page)
{
    return page->extension && page->extension->pins_read;
}

static inline bool page_pinned_write(const struct page *page)
{
    return page->extension && page->extension->pins_write;
}

bool page_valid(const struct page *page);
bool page_pinned(const struct page *page);
/* It is not protected when it is served: others are sent its twin, the snapshot that was sent last.  (Pinned for
 * writing, or owed a notice.) */
bool page_served_from_twin(const struct page *page);
uint64_t page_offset(const struct page *page);
bool page_twin_constant(const struct page *page);

/* Put the initial value into the memory of a fresh page. */
void page_fill(struct page *page, const struct port *port);

/* Nothing was written to it through the view yet.  As a rule it has no memory, and writing through the file costs
 * less. */
bool page_untouched(const struct page *page);
/* Write to untouched pages. */
void page_put(const struct port *port, uint64_t offset, const unsigned char *bytes, uint64_t count);

/* Take a twin of the page as it is now (the constant, if it is fresh). */
void page_twin(struct page *page, struct pool *pool, const struct port *port);
/* A constant twin that is about to change becomes a copy of its own. */
void page_twin_own(struct page *page, struct pool *pool);
void page_twin_drop(struct page *page, struct pool *pool);
void page_diffs_drop(struct page *page, struct pool *pool);

/* Encode the diff between `now` (the page, or a snapshot of it) and the twin, and keep it under `tag`.  Nothing is
 * kept when nothing changed.  Returns its bytes. */
uint64_t page_encode(struct page *page, const unsigned char *now, struct pool *pool, stamp tag);

/* Put the twin aside.  The diff of what was sealed with `tag` is encoded when a node asks for it, or before anything
 * but writes of this node changes the page; a new twin is taken before those. */
void page_defer_encoding(struct page *page, struct pool *pool, stamp tag);
/* Encode the deferred diff now, if there is one.  Returns its bytes. */
uint64_t page_encode_deferred(struct page *page, struct pool *pool, const struct port *port);
/* All other nodes have the writes up to `tag`, so none will ask for these diffs. */
void page_diffs_drop_until(struct page *page, struct pool *pool, stamp tag);

/* With so many changed bytes the whole page is sent rather than a diff, which is encoded, kept, sent, and applied
 * run by run. */
bool page_worth_whole(const struct page *page, uint64_t diff_bytes);

/* Take the pages of the region out of the list, which keeps its order.  Returns how many are left. */
uint32_t page_list_remove_region(struct page **pages, uint32_t count, const struct region *region);

/* The first of the diffs that were encoded after `tag`, or NULL.  Searches from the latest: a reader lacks few of
 * many. */
struct diff *page_diffs_after(const struct page *page, stamp tag);
