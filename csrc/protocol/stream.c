/* Small tables and linear searches: a miss costs microseconds, looking through eight streams a few nanoseconds. */
#include "protocol/stream.h"

enum { FIRST_PAGES = 4, STRIDES_FROM = 4 };

static bool missed(const struct streams *streams, uint64_t index)
{
    for (int i = 0; i < STREAM_MISSES; i++)
        if (streams->misses[i] == index + 1)
            return true;
    return false;
}

/* The stride from one of the last few misses of which there is proof; 0: none.  Among sixteen random pages of a few hundred
 * there is nearly always one that makes two equal strides, and seldom one that makes three. */
static int64_t stride_to(const struct streams *streams, uint64_t index)
{
    for (unsigned back = 1; back <= STRIDES_FROM; back++) {
        uint64_t other = streams->misses[(streams->missed + STREAM_MISSES - back) % STREAM_MISSES];
        if (other == 0)
            break;
        uint64_t stride = index + 1 - other;
        bool proof = (back == 1 && stride == 1) ||
                     (stride && missed(streams, index - 2 * stride) && missed(streams, index - 3 * stride));
        if (proof)
            return (int64_t)stride;
    }
    return 0;
}

static struct stream *stream_at(struct streams *streams, uint64_t index)
{
    for (int i = 0; i < STREAMS; i++) {
        struct stream *stream = &streams->items[i];
        if (stream->stride && (stream->next == index || stream->trip == index))
            return stream;
    }
    return NULL;
}

static void go_on(struct stream *stream, uint64_t first, uint64_t pages, struct stream_run *run)
{
    uint64_t stride = (uint64_t)stream->stride;
    stream->pages = pages;
    stream->next = first + pages * stride;
    stream->trip = first + pages / 2 * stride;
    *run = (struct stream_run){.first = first, .count = pages, .trip = stream->trip, .stride = stream->stride};
}

bool streams_miss(struct streams *streams, uint64_t index, uint64_t most, struct stream_run *run)
{
    struct stream *stream = stream_at(streams, index);
    if (most == 0)
        return false;
    if (stream) {
        uint64_t pages = 2 * stream->pages < most ? 2 * stream->pages : most;
        go_on(stream, stream->next == index ? index + (uint64_t)stream->stride : stream->next, pages, run);
        return true;
    }
    int64_t stride = stride_to(streams, index);
    streams->misses[streams->missed] = index + 1;
    streams->missed = (uint8_t)((streams->missed + 1) % STREAM_MISSES);
    if (stride == 0)
        return false;
    stream = &streams->items[streams->replaced];
    streams->replaced = (uint8_t)((streams->replaced + 1) % STREAMS);
    stream->stride = stride;
    go_on(stream, index + (uint64_t)stride, FIRST_PAGES < most ? FIRST_PAGES : most, run);
    return true;
}
