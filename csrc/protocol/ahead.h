/* ahead - bringing pages before they are touched: along streams, and because the last versions were used (history.h).
 *
 * wanted   pages of which a new version is known, in the order in which it became known; they are brought in a window of
 *          bytes, after the notices of a grant or a departure are all in (ahead_learned), and as others arrive (ahead_pump).
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
void ahead_read(struct node *node, struct page *page);
/* A write fault opened the page. */
void ahead_write(struct node *node, struct page *page);

/* A notice makes the page stale.  True: it is wanted, and what becomes of its access is decided by ahead_learned. */
bool ahead_stale(struct node *node, struct page *page);
/* All notices are in: use what was pushed, fetch what is wanted. */
void ahead_learned(struct node *node);
/* A push came after its notice: it may be used at once. */
void ahead_pushed(struct node *node, struct page *page);
void ahead_pump(struct node *node);
/* No fetch of wanted pages is under way or to come. */
bool ahead_done(const struct node *node);
/* The page is stale, will be brought, and may be read meanwhile: every acquire and every barrier of this node waits for
 * ahead_done before it returns, so no thread that may read it has a right to the new version yet. */
bool ahead_coming(const struct page *page);
/* Nothing may be fetched now (a collection): what is wanted is brought with what the next notices name. */
void ahead_put_off(struct node *node);
/* The copy was dropped, since nobody here looked at it: the next version is wanted all the same. */
void ahead_dropped(struct page *page);
void ahead_remove_region(struct node *node, const struct region *region);

#endif
