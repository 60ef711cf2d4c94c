/* Small tables and linear searches: a miss costs microseconds, looking through eight streams a few nanoseconds. */
#include "protocol/page/streams.h"

enum { FIRST_PAGES = 4, STRIDES_FROM = 4, RUN_LENGTH_PAGES = 8, GUESS_SHARE = 4 };

static bool missed(const struct streams *streams, uint64_t index)
{
    for (int i = 0; i < STREAM_MISSES; i++)
        if (streams->misses[i] == index + 1)
            return true;
    return false;
}

/* The stride from one of the last few misses of which there is proof; 0: none.  Among sixteen random pages of a few
 * hundred there is nearly always one that makes two equal strides, and seldom one that makes three. */
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
        if (stream->stride && (stream->next == index || stream->marker == index))
            return stream;
    }
    return NULL;
}

/* `index` lies among the rows of the stream, or among the misses that it was seen by. */
static bool reaches(const struct stream *stream, uint64_t index)
{
    uint64_t length = (stream->run_length + STRIDES_FROM) * (uint64_t)stream->stride;
    return stream->next - index <= length && stream->next >= index;
}

/* The stream whose columns end where one that begins at `index` has its first one, and which leaves some of a row
 * over. */
static const struct stream *beside(const struct streams *streams, uint64_t index, int64_t stride)
{
    for (int i = 0; i < STREAMS; i++) {
        const struct stream *stream = &streams->items[i];
        uint64_t row = (uint64_t)stride;
        if (stream->stride == stride && stride > 1 && stream->columns < row && reaches(stream, index) &&
            (stream->next + stream->width) % row == index % row)
            return stream;
    }
    return NULL;
}

static void go_on(struct stream *stream, const struct stream_miss *miss, uint64_t first, uint64_t pages,
                  struct stream_run *run)
{
    uint64_t stride = (uint64_t)stream->stride;
    if (pages * stream->width > miss->most)
        pages = miss->most > stream->width ? miss->most / stream->width : 1;
    stream->pages = pages;
    if (stride == 1 && miss->border && pages > miss->border - first % miss->border)
        pages = miss->border - first % miss->border;
    stream->run_length += pages;
    stream->next = first + pages * stride;
    stream->marker = first + pages / 2 * stride;
    stream->shortened = false;
    *run = (struct stream_run){.first = first,
                               .count = pages,
                               .marker = stream->marker,
                               .width = stream->width,
                               .stride = stream->stride,
                               .stream = stream};
}

/* One column beside another may be all; the next ones are ever wider. */
static void begin(struct streams *streams, const struct stream_miss *miss, int64_t stride, uint64_t pages,
                  uint64_t columns, struct stream_run *run)
{
    const struct stream *other = miss->columns ? beside(streams, miss->index, stride) : NULL;
    uint64_t width = columns, before = 0;
    if (other) {
        uint64_t left = (uint64_t)stride - other->columns;
        width = other->columns > other->width ? 2 * other->width : other->width;
        width = width < left ? width : left;
        before = other->columns;
    }
    struct stream *stream = &streams->items[streams->replaced];
    if (streams->guessed == streams->replaced + 1)
        streams->guessed = 0;
    streams->replaced = (uint8_t)((streams->replaced + 1) % STREAMS);
    *stream = (struct stream){.stride = stride, .width = width, .columns = before + width, .meetings = miss->meetings};
    go_on(stream, miss, miss->index + (uint64_t)stride, pages, run);
}

static bool guess(struct streams *streams, const struct stream_miss *miss, struct stream_run *run)
{
    if (!miss->guess || streams->run_length < RUN_LENGTH_PAGES)
        return false;
    if (streams->guessed) {
        streams->run_length = streams->guessed = 0;
        streams->columns = 1;
        return false;
    }
    uint64_t most = (miss->most + GUESS_SHARE - 1) / GUESS_SHARE;
    begin(streams, miss, streams->stride, streams->run_length < most ? streams->run_length : most, streams->columns,
          run);
    streams->guessed = (uint8_t)(1 + (run->stream - streams->items));
    return true;
}

static void ride(struct streams *streams, const struct stream_miss *miss, struct stream *stream, struct stream_run *run)
{
    bool at_next = stream->next == miss->index;
    stream->crosses = stream->meetings == miss->meetings && (stream->crosses || (stream->shortened && at_next));
    stream->meetings = miss->meetings;
    uint64_t first = at_next ? miss->index + (uint64_t)stream->stride : stream->next;
    stream->run_length += at_next;
    go_on(stream, miss, first, 2 * stream->pages, run);
    if (streams->guessed == stream - streams->items + 1)
        streams->guessed = 0;
    streams->run_length = stream->run_length / 2;
    streams->stride = stream->stride;
    streams->columns = stream->columns;
}

uint64_t streams_guessed(const struct streams *streams)
{
    if (!streams->guessed)
        return UINT64_MAX;
    const struct stream *stream = &streams->items[streams->guessed - 1];
    return stream->next - (uint64_t)stream->stride;
}

void streams_confirm(struct streams *streams)
{
    streams->guessed = 0;
}

bool streams_miss(struct streams *streams, const struct stream_miss *miss, struct stream_run *run)
{
    if (miss->most == 0)
        return false;
    struct stream *stream = stream_at(streams, miss->index);
    if (stream) {
        ride(streams, miss, stream, run);
        return true;
    }
    int64_t stride = stride_to(streams, miss->index);
    streams->misses[streams->missed] = miss->index + 1;
    streams->missed = (uint8_t)((streams->missed + 1) % STREAM_MISSES);
    if (guess(streams, miss, run)) /* first, as blocks of one size make a stride, too */
        return true;
    if (stride == 0)
        return false;
    begin(streams, miss, stride, FIRST_PAGES, 1, run);
    return true;
}

void streams_shorten(struct streams *streams, struct stream_run *run, uint64_t count)
{
    struct stream *stream = run->stream;
    if (stream->crosses || count >= run->count)
        return;
    bool continued = stream->run_length > run->count;
    stream->run_length -= run->count - count;
    if (continued)
        streams->run_length = stream->run_length;
    stream->next = run->first + count * (uint64_t)run->stride;
    stream->marker = run->first + count / 2 * (uint64_t)run->stride;
    stream->shortened = true;
    run->count = count;
    run->marker = stream->marker;
}
