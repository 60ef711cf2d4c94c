/* Guesses are judged where they are cheap to be wrong: at the reader, which knows what its threads touch. */
#include "protocol/history.h"

#include "protocol/page.h"

enum { USED_MAX = 3, SAMPLES_FROM = 4, SAMPLES_AT_LEAST_EVERY = 64 };

struct page_history *history_of(struct page *page, struct pool *pool)
{
    struct page_more *more = page_more(page, pool);
    if (!more->history) {
        more->history = pool_take_apart(pool, sizeof *more->history);
        *more->history = (struct page_history){0};
    }
    return more->history;
}

void history_free(struct page *page, struct pool *pool)
{
    struct page_history *history = page_history(page);
    if (!history)
        return;
    history_drop_pushes(history, pool);
    if (history->subscribers)
        pool_give(pool, history->subscribers, history->subscriber_capacity * sizeof *history->subscribers);
    pool_give_apart(pool, history, sizeof *history);
    page->more->history = NULL;
    page_tidy(page, pool);
}

void history_touch(struct page *page, struct pool *pool)
{
    struct page_history *history = history_of(page, pool);
    history->touched = true;
    history->sample = false;
}

bool history_new_version(struct page_history *history)
{
    if (history->touched && history->used < USED_MAX)
        history->used++;
    bool unused = history->sample && !history->touched;
    if (unused || (!history->touched && history->used < HISTORY_WANTED))
        history->used = unused ? HISTORY_WANTED - 1 : 0;
    history->touched = history->sample = false;
    return history->used >= HISTORY_WANTED;
}

bool history_sample_due(const struct page_history *history)
{
    uint32_t brought = history->brought;
    return brought >= SAMPLES_FROM && ((brought & (brought - 1)) == 0 || brought % SAMPLES_AT_LEAST_EVERY == 0);
}

void history_drop_pushes(struct page_history *history, struct pool *pool)
{
    for (struct push *push = history->pushes, *next; push; push = next) {
        next = push->next;
        message_release(push->message, pool);
        vector_clear(&push->have, pool);
        pool_give(pool, push, sizeof *push);
    }
    history->pushes = NULL;
}

void history_forget(struct page *page, struct pool *pool, stamp floor)
{
    struct page_history *history = page_history(page);
    if (!history)
        return;
    history_drop_pushes(history, pool);
    for (uint32_t i = 0; i < history->subscriber_count; i++)
        history->subscribers[i].since = floor;
}

static struct subscriber *subscriber_of(struct page *page, node_id node)
{
    struct page_history *history = page_history(page);
    for (uint32_t i = 0; history && i < history->subscriber_count; i++)
        if (history->subscribers[i].node == node)
            return &history->subscribers[i];
    return NULL;
}

void history_subscribe(struct page *page, struct pool *pool, node_id node, stamp since)
{
    struct page_history *history = history_of(page, pool);
    if (subscriber_of(page, node))
        return;
    history->subscribers = pool_grow(pool, history->subscribers, &history->subscriber_capacity,
                                     history->subscriber_count + 1, sizeof *history->subscribers);
    history->subscribers[history->subscriber_count++] = (struct subscriber){.since = since, .node = node};
}

void history_unsubscribe(struct page *page, node_id node)
{
    struct subscriber *subscriber = subscriber_of(page, node);
    if (subscriber)
        *subscriber = page_history(page)->subscribers[--page_history(page)->subscriber_count];
}

void history_sent(struct page *page, node_id node, stamp tag)
{
    struct subscriber *subscriber = subscriber_of(page, node);
    if (subscriber && subscriber->since < tag)
        subscriber->since = tag;
}
