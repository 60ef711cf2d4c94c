/* The reader predicts: it knows what its threads touch, and pays for a wrong prediction itself. */
#include "protocol/page/history.h"

enum { USED_MAX = 3, PROBES_FROM = 4, PROBES_AT_LEAST_EVERY = 64 };

struct page_history *history_of(struct page *page, struct pool *pool)
{
    struct page_extension *extension = page_extension(page, pool);
    if (!extension->history) {
        extension->history = pool_take_persistent(pool, sizeof *extension->history);
        *extension->history = (struct page_history){0};
    }
    return extension->history;
}

void history_free(struct page *page, struct pool *pool)
{
    struct page_history *history = page_history(page);
    if (!history)
        return;
    history_drop_pushes(history, pool);
    if (history->subscribers)
        pool_give(pool, history->subscribers, history->subscriber_capacity * sizeof *history->subscribers);
    pool_give_persistent(pool, history, sizeof *history);
    page->extension->history = NULL;
    page_tidy(page, pool);
}

void history_touch(struct page *page, struct pool *pool)
{
    struct page_history *history = history_of(page, pool);
    if (!history->touched)
        appetite_count(&page_region(page)->appetites, &page->need,
                       history->probe ? APPETITE_PROBE_USED : APPETITE_USED);
    history->touched = true;
    history->probe = false;
}

bool history_new_version(struct page_history *history)
{
    if (history->touched && history->used < USED_MAX)
        history->used++;
    bool unused = history->probe && !history->touched;
    if (unused || (!history->touched && history->used < HISTORY_UPDATE_USES))
        history->used = unused ? HISTORY_UPDATE_USES - 1 : 0;
    history->touched = history->probe = false;
    return history->used >= HISTORY_UPDATE_USES;
}

bool history_probe_due(const struct page_history *history)
{
    uint32_t brought = history->brought;
    return brought >= PROBES_FROM && ((brought & (brought - 1)) == 0 || brought % PROBES_AT_LEAST_EVERY == 0);
}

void history_free_push(struct push *push, struct pool *pool)
{
    message_release(push->message, pool);
    vector_clear(&push->have, pool);
    pool_give(pool, push, sizeof *push);
}

void history_drop_pushes(struct page_history *history, struct pool *pool)
{
    for (struct push *push = history->pushes, *next; push; push = next) {
        next = push->next;
        history_free_push(push, pool);
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
