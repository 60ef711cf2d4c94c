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
 *                                  |  collection, not brought up to date
 *                                  v
 *                                ABSENT  ---- whole page installed ---------------->  VALID
 *
 * `mode` says which writes need a notice that is still to come (enum page_mode):
 *
 *            write fault           preopened_open                   inspection: unchanged, to be closed
 *   CLOSED ---------------> OPEN       CLOSED, LAGGED --> PREOPENED -----------------------------------> LAGGED
 *      ^                     |                              |   ^                                         |  |
 *      +---- sealed, stale --+      inspection: changed     |   | sealed, and left open                   |  |
 *      |                     ^------------------------------+   OPEN, PREOPENED                           |  |
 *      +--------------------------------------------------------------------------------------------------+  |
 *             inspection: changed (it is noticed now), or no space can write it any more                     |
 *      CLOSED, OPEN, PREOPENED -- sealed while some space can write it; PREOPENED -- stale ------------------+
 *
 * `readers` and `writers` are the spaces whose kernels let them read and write, a bit each (more bits than kernels
 * allow at most).  A space changes its own access only.  So it may *lag*: have more access than the state allows, until
 * it follows the changes at its next acquire or departure (coherence/changes.h), or as long as it pins the page.  It
 * may have less at any time; that costs a local fault.
 *
 * Invariants (node/check.c)
 *  1. An open page is valid.  A space that lags has the page still to follow, or pins it.
 *  2. A twin exists only where there is a copy.  Where some space can write there is a twin, the state that was sent to
 *     other nodes last (or the initial value); or the page is OPEN and exclusive.
 *  3. Tags of the diffs ascend.
 *  4. The page is fetched by at most one fetch.
 *  5. `extension` is not empty; it has `deferred_twin` where it has `deferred_tag`, and then there is a copy.
 *  6. A PREOPENED or LAGGED page has a twin, and is listed (coherence/preopened.h).
 */
#pragma once

#include "protocol/base/context.h"
#include "protocol/page/appetite.h"
#include "protocol/page/diff.h"
#include "protocol/page/streams.h"

struct crowd;
struct fetch;
struct page_history;
struct pin;

enum page_mode {
    PAGE_CLOSED,    /* a write faults */
    PAGE_OPEN,      /* open, and in the open interval, or noticed and not sent since: writes need no notice now */
    PAGE_PREOPENED, /* open before it is written: in no interval until an inspection finds it changed */
    PAGE_LAGGED     /* closed, and some space that lags may write it: likewise */
};

/* The part of a page's state that few pages have at a time, made when a page comes to need it. */
struct page_extension {
    struct diff *diffs, *diffs_last;
    stamp deferred_tag;           /* sealed with this stamp, and the diff is not encoded yet; 0: there is none */
    unsigned char *deferred_twin; /* its twin, to be compared with the next twin, or with the page if there is none */
    struct fetch *fetch;
    struct crowd *crowd;          /* readers that have the page, too (crowd.h), or NULL */
    struct page_history *history; /* of pages that are shared, or NULL */
    struct pin *pins;             /* of its spaces (coherence/pin.h) */
};

/* An array has a million of them: its region and its index follow from where it lies (struct page_block). */
struct page {
    struct vector need, have;
    uint64_t readers, writers;        /* spaces, a bit each; a writer is a reader */
    unsigned char *twin;              /* page_bytes of the pool, or the region's constant */
    struct page_extension *extension; /* or NULL */
    node_id owner;
    uint8_t slot;              /* in its block */
    uint8_t mode : 2;          /* enum page_mode */
    bool copy : 1;             /* some version is here */
    bool fresh : 1;            /* the copy is the initial value; with no copy: the memory was given back */
    bool filled : 1;           /* and was put into the memory, as it is not zero */
    bool dirty : 1;            /* belongs to the open interval */
    bool preopened_stays : 1;  /* stays open when an inspection finds it unchanged, some times */
    bool reopens : 1;          /* it was open when it became stale, and is opened when it is up to date */
    bool preopened_listed : 1; /* in node->preopened; it may be inspected no longer */
    bool preopened_unused : 1; /* it was preopened with the initial value, and found unchanged */
    bool arriving : 1;         /* a whole page is being received over it: it has no copy meanwhile */
    bool marker : 1;           /* fetched ahead, and inaccessible, so that its first use asks for more */
    bool served_whole : 1;     /* its last diff was not worth it (page_worth_whole) */
    bool shared_writing : 1;   /* a whole page did not make it valid: several nodes write it at a time */
    bool cut_owner_wrote : 1;  /* while a cut is passed: the owner is among the writers */
    bool cached : 1;           /* counts as memory that this node holds of others (coherence/cache.h) */
    bool queued : 1;           /* in the queue of those; it may be cached no longer */
    bool lent : 1;             /* this node has owned it since the last collection: a slower node may ask here */
    bool unwanted : 1;         /* spaces are to give up their access, so that the copy can be given up */
    bool accessed : 1;         /* the space has had access in this stretch (accesses.h), */
    bool read : 1;             /* and a thread has read it */
    bool kept : 1;             /* access to it outlasts a stretch */
};

/* A block fills one of the pool's blocks of 4 KiB (region.c). */
enum { REGION_BLOCK_PAGES = 56, REGION_NAME_BYTES = 64 };

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
    struct open_block *opened;     /* of a node that is alone (coherence/alone.h), or NULL: none yet */
    uint64_t edges[SPACES_MAX];    /* of each space: changes of protection along the region */
    struct streams reads, writes;  /* misses (streams.h) */
    struct appetites appetites;    /* of each writer */
    struct region_stats *stats;    /* of each space */
};

/* A block of a region, of a node that is alone: the spaces that it is open to, a bit each. */
struct open_block {
    uint64_t spaces;
    bool filled; /* the initial value has been put there, if it is not zero */
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
    context_page_event(node, kind, page_region(page)->id, page_index(page), peer, 0);
}

/* The same with bytes that came. */
static inline void page_event_of(struct node *node, enum event_kind kind, const struct page *page, node_id peer,
                                 uint64_t bytes)
{
    context_page_event(node, kind, page_region(page)->id, page_index(page), peer, bytes);
}

/* For the port only. */
static inline void page_note(struct node *node, enum event_kind kind, const struct page *page, node_id peer,
                             uint64_t bytes)
{
    if (context_noted(node))
        context_note(node, (struct event){.object = page_index(page),
                                          .amount = bytes,
                                          .region = page_region(page)->id,
                                          .peer = peer,
                                          .kind = kind});
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

/* Of the space that is inside. */
static inline enum access page_access(const struct node *node, const struct page *page)
{
    if (page->writers >> node->me & 1)
        return ACCESS_WRITE;
    return page->readers >> node->me & 1 ? ACCESS_READ : ACCESS_NONE;
}

/* Any space may write it. */
static inline bool page_open(const struct page *page)
{
    return page->mode == PAGE_OPEN || page->mode == PAGE_PREOPENED;
}

/* It is inspected before each interval closes, and is sent as its twin, the snapshot that was sent last. */
static inline bool page_inspected(const struct page *page)
{
    return page->mode == PAGE_PREOPENED || page->mode == PAGE_LAGGED;
}

/* No space can write it, and what was written is encoded, or put aside to be: it can be sent as it is. */
static inline bool page_settled(const struct page *page)
{
    return page->copy && !page->fresh && page->mode == PAGE_CLOSED && !page->writers && !page->twin;
}

bool page_valid(const struct page *page);
uint64_t page_offset(const struct page *page);
bool page_twin_constant(const struct page *page);

/* Put the initial value into the memory of a fresh page. */
void page_fill(struct page *page, const struct port *port);

/* Nothing was written to it through the view yet.  As a rule it has no memory, and writing through the file costs
 * less. */
bool page_untouched(const struct page *page);
/* Write to untouched pages. */
void page_put(const struct port *port, uint64_t offset, const unsigned char *bytes, uint64_t count);

/* Memory for a twin. */
unsigned char *page_twin_take(const struct page *page, struct pool *pool);
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
