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
 *  1. access <= READ unless writable; access == NONE unless valid; pinned pages excepted, and pages that are brought before
 *     any thread passes the acquire or the barrier that made them stale (history_coming).
 *  2. A twin exists only where there is a copy.  (A dirty page may have none: it was served since it was opened.)
 *  3. Tags of the diffs ascend.
 *  4. The page is fetched by at most one fetch.
 *  5. `more` is not empty; it has `before` where it has `deferred_tag`, and then there is a copy.
 *  6. A page that was opened early has a twin: what others were sent last, or the initial value.
 */
#ifndef PROTOCOL_PAGE_H
#define PROTOCOL_PAGE_H

#include "protocol/diff.h"
#include "protocol/vector.h"

struct region;
struct fetch;
struct page_history;

/* What few pages have at a time, made when one comes to need it. */
struct page_extension {
    struct diff *diffs, *diffs_last;
    stamp deferred_tag;    /* sealed with this stamp, and the diff is not cut yet; 0: there is none */
    unsigned char *before; /* its twin; what it is compared with is the next twin, or the page if there is none */
    struct fetch *fetch;
    struct page_history *history; /* of pages that are shared, or NULL */
    struct page *pin_next;        /* list of pinned pages */
    uint32_t pins_read, pins_write;
};

/* An array has a million of them: its region and its index follow from where it lies (struct page_block). */
struct page {
    struct vector need, have;
    unsigned char *twin;              /* page_bytes of the pool, or the region's constant */
    struct page_extension *extension; /* or NULL */
    node_id owner;
    uint8_t slot : 7;             /* in its block */
    uint8_t preopened_unused : 1; /* it was opened early with the initial value, and found unchanged */
    uint8_t access;               /* enum access */
    bool copy : 1;                /* some version is here */
    bool fresh : 1;               /* the copy is the initial value */
    bool filled : 1;              /* and was put into the memory, as it is not zero */
    bool writable : 1;            /* open: writes need no notice now */
    bool dirty : 1;               /* belongs to the open interval */
    bool owed : 1;                /* pinned and served during a collection: a notice is due after it */
    bool preopened : 1;        /* opened before it was written: belongs to no interval until a look finds it changed */
    bool preopened_stays : 1;  /* and stays open when a look finds it unchanged, some times */
    bool preopened_listed : 1; /* in node->opened; it may have been served meanwhile, and be early no longer */
    bool preopened_paused : 1; /* protected while a collection goes on */
    bool arriving : 1;         /* a whole page is being received over it: it has no copy meanwhile */
    bool marker : 1;           /* fetched ahead, and inaccessible, so that its first use asks for more */
    bool served : 1;           /* and closed for it: not written since */
    bool served_whole : 1;     /* its last diff was not worth it (page_worth_whole) */
    bool shared_writing : 1;   /* a whole page did not make it valid: several write it at a time */
    bool cut_owner_wrote : 1;  /* while a cut is passed: the owner is among the writers */
};

/* The rest of the page, made if it has none; and given back, if nothing is left in it. */
struct page_extension *page_extension(struct page *page, struct pool *pool);
void page_tidy(struct page *page, struct pool *pool);

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
/* It is served from its twin, the snapshot that others were sent last, and not protected. */
bool page_stays_open(const struct page *page);
uint64_t page_offset(const struct page *page);
bool page_twin_constant(const struct page *page);

/* Put the initial value into the memory of a fresh page. */
void page_fill(struct page *page, const struct port *port);

/* Nothing was written to it by the view yet: as a rule it has no memory, and writing through the file costs less. */
bool page_untouched(const struct page *page);
/* Write to untouched pages. */
void page_put(const struct port *port, uint64_t offset, const unsigned char *bytes, uint64_t count);

/* Take a twin of the page as it is now (the constant, if it is fresh). */
void page_twin(struct page *page, struct pool *pool, const struct port *port);
/* A constant twin that is about to change becomes a copy of its own. */
void page_twin_own(struct page *page, struct pool *pool);
void page_twin_drop(struct page *page, struct pool *pool);
void page_diffs_drop(struct page *page, struct pool *pool);

/* Cut the diff between `now` (the page, or a snapshot of it) and the twin, and keep it under
 * `tag`.  Nothing is kept when nothing changed.  Returns its bytes. */
uint64_t page_encode(struct page *page, const unsigned char *now, struct pool *pool, stamp tag);

/* The twin is put aside: the diff of what was sealed with `tag` is cut when it is asked for, or when the page changes but by
 * writes here, before which it gets another twin. */
void page_defer_encoding(struct page *page, struct pool *pool, stamp tag);
/* Cut it now, if there is one.  Returns its bytes. */
uint64_t page_encode_deferred(struct page *page, struct pool *pool, const struct port *port);
/* Everybody else has what was written here up to `tag`, and nobody will ask for its diffs. */
void page_diffs_drop_until(struct page *page, struct pool *pool, stamp tag);

/* Of so many changed bytes the whole page is sent rather than a diff, which is cut, kept, sent, and applied run by run. */
bool page_worth_whole(const struct page *page, uint64_t diff_bytes);

/* The first of the diffs that were cut after `tag`, or NULL.  Looks from the latest: a reader lacks few of many. */
struct diff *page_diffs_after(const struct page *page, stamp tag);

void page_check(const struct page *page, const struct port *port);

#endif
