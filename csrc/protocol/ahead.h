/* ahead - bringing pages before they are touched: along streams, and because the last versions were used (history.h).
 *
 * wanted   pages of which a new version is known, in the order in which it became known; they are brought in a window of
 *          bytes, after the notices of a grant or a departure are all in (update_bring), and as others arrive (update_pump).
 *          A collection, in which nothing may be fetched, takes none away: it would end the guesses of a whole program
 */
#ifndef PROTOCOL_AHEAD_H
#define PROTOCOL_AHEAD_H

#include "protocol/words.h"

struct node;
struct page;
struct region;

struct wanted {
    struct page **pages; /* [first, count) are still to be brought */
    uint32_t first, count, capacity;
    uint32_t learned;   /* from here on they were named by the notices that are just taken in */
    uint32_t under_way; /* fetches */
    uint64_t bytes;     /* of these */
    uint32_t round;
};

/* A read fault on a page that was not here, or a trip page. */
void readahead_read(struct node *node, struct page *page);
/* A write fault opened the page. */
void readahead_write(struct node *node, struct page *page);

/* A notice makes the page stale.  True: it is wanted, and what becomes of its access is decided by update_bring. */
bool update_stale(struct node *node, struct page *page);
/* All notices are in: use what was pushed, fetch what is wanted. */
void update_bring(struct node *node);
/* A push came after its notice: it may be used at once. */
void update_pushed(struct node *node, struct page *page);
void update_pump(struct node *node);
/* No fetch of wanted pages is under way or to come. */
bool update_done(const struct node *node);
/* The page is stale, will be brought, and may be read meanwhile: every acquire and every barrier of this node waits for
 * update_done before it returns, so no thread that may read it has a right to the new version yet. */
bool history_coming(const struct page *page);
/* Nothing may be fetched now (a collection): what is wanted is brought with what the next notices name. */
void update_defer(struct node *node);
/* The copy was dropped, since nobody here looked at it: the next version is wanted all the same. */
void update_dropped(struct page *page);
void update_remove_region(struct node *node, const struct region *region);

#endif
