/* stream - misses at a constant stride: sequential reads, a column block of a matrix, every fourth page.
 *
 * What misses is a page: a read fault that starts a fetch, or a write fault that opens one.  A region has several streams
 * at a time, since a loop over two columns of a matrix makes two.  A stride is believed when it is seen three times (one
 * page: once), and from then on each miss at the place that would continue it doubles what is done ahead.
 *
 *   misses     0   1   8   9  16  17  24         strides 1 and 7 in turn: two streams of stride 8
 *   stream     next: the first page that was not done ahead; trip: the page in the middle of what was, whose first use
 *              asks for more, so that a reader who streams never waits for an empty window
 */
#ifndef PROTOCOL_STREAM_H
#define PROTOCOL_STREAM_H

#include "protocol/words.h"

enum { STREAMS = 8, STREAM_MISSES = 16 };

struct stream {
    uint64_t next, trip;
    int64_t stride;                 /* in pages; 0: not in use */
    uint64_t pages;                 /* done ahead at the last miss */
};

struct streams {
    struct stream items[STREAMS];
    uint64_t misses[STREAM_MISSES]; /* + 1; 0: none yet */
    uint8_t replaced, missed;       /* where the next one goes */
};

/* What to do ahead of a miss: `count` pages from `first`, at the stride. */
struct stream_run {
    uint64_t first, count, trip;
    int64_t stride;
};

/* A miss at page `index`, or a use of a trip page.  `most`: pages ahead at most.  False: nothing is known to come. */
bool streams_miss(struct streams *streams, uint64_t index, uint64_t most, struct stream_run *run);

#endif
