/* readahead - pages that are fetched, or opened for writing, before a thread touches them: along the streams of a
 * region (page/streams.h), and small pieces around a miss.
 *
 * A page in the middle of what was fetched ahead stays inaccessible: it is a marker, whose first use asks for more.
 */
#pragma once

#include "protocol/page/page.h"

/* A read fault on a page that was not here, or the first use of a marker. */
void readahead_read(struct node *node, struct page *page);
/* A write fault opened the page. */
void readahead_write(struct node *node, struct page *page);
