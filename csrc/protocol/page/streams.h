/* stream - misses at a constant stride: sequential reads, a column block of a matrix, every fourth page.
 *
 * A miss is a read fault that starts a fetch, or a write fault that opens a page.  A region has several streams at a
 * time: a loop over two columns of a matrix makes two.  A stride counts when it is seen three times (one page: once).
 * From then on each miss at the place that continues the stream doubles the pages done ahead.
 *
 *   misses      0   1   8   9  16  17  24         strides 1 and 7 in turn: two streams of stride 8
 *   next        the first page that was not done ahead
 *   marker      the page in the middle of the pages done ahead; its first use asks for more, so that the reader of a
 *               stream never waits for an empty window
 *   run_length  pages of the last stream; half of the pages done ahead where its end is not known.  A program that
 *               reads one block in order reads the next one alike.  So a miss outside all streams is guessed to begin
 *               such a stream, with as many pages at once.  After a guess that no miss continues, the next guess waits
 *               for a complete stream.
 *   columns     a transpose or a product of matrices reads a column of pages, then the next one: streams of one stride,
 *               side by side.  The second is as wide as the first, each further one twice as wide as the one before
 *               it, up to all of a row.  The next group is guessed to be as wide as this one became
 */
#pragma once

#include "protocol/base/types.h"

enum { STREAMS = 8, STREAM_MISSES = 16 };

struct stream {
    uint64_t next, marker;
    int64_t stride;      /* in pages; 0: not in use */
    uint64_t pages;      /* done ahead at the last miss */
    uint64_t run_length; /* rows behind its first one that it has come over, or that are done ahead */
    uint64_t width;      /* of each row, so many pages from that at the stride on */
    uint64_t columns;    /* and with those of the streams that it is beside of */
    bool shortened;      /* the last run ended before its time */
    bool crosses;        /* the reader went on where a run had been shortened, with no meeting in between */
    uint64_t meetings;   /* before the last miss */
};

struct streams {
    struct stream items[STREAMS];
    uint64_t misses[STREAM_MISSES]; /* + 1; 0: none yet */
    uint8_t replaced, missed;       /* where the next one goes */
    uint8_t guessed;                /* 1 + the place of a stream that was guessed and not continued yet; 0: none */
    uint64_t run_length;            /* by the last stream that was continued */
    int64_t stride;                 /* and its stride */
    uint64_t columns;               /* and its columns */
};

/* The pages to do ahead of a miss: `count` pages from `first`, at the stride, and of each the `width` from there on. */
struct stream_run {
    uint64_t first, count, marker, width;
    int64_t stride;
    struct stream *stream;
};

/* A miss, or a use of a marker. */
struct stream_miss {
    uint64_t index;    /* of the page */
    uint64_t most;     /* pages ahead at most */
    uint64_t border;   /* runs of neighbours end before a multiple of so many pages; 0: anywhere */
    uint64_t meetings; /* so far */
    bool guess;        /* allowed */
    bool columns;      /* likewise */
};

/* False: nothing is known to come. */
bool streams_miss(struct streams *streams, const struct stream_miss *miss, struct stream_run *run);

/* The run ends after `count` of its pages, behind which something else may begin; but not where the stream has
 * crossed such an end. */
void streams_shorten(struct streams *streams, struct stream_run *run, uint64_t count);

/* The last page of a guess that no miss has continued; UINT64_MAX: there is none. */
uint64_t streams_guessed(const struct streams *streams);
/* It was used to its end. */
void streams_confirm(struct streams *streams);
