/* The log is persistent memory of the pool: no collection frees it, so it must not cause one.  What is full is cut
 * short, and says so. */
#include "protocol/page/accesses.h"

#include <string.h>

enum { LOG_ITEMS_FIRST = 256 };

static void *grown(struct pool *pool, void *items, uint32_t *capacity, uint32_t count, size_t item_bytes)
{
    if (count < *capacity)
        return items;
    uint32_t room = *capacity ? 2 * *capacity : LOG_ITEMS_FIRST;
    void *more = pool_take_persistent(pool, room * item_bytes);
    if (items) {
        memcpy(more, items, count * item_bytes);
        pool_give_persistent(pool, items, *capacity * item_bytes);
    }
    *capacity = room;
    return more;
}

static bool is_full(struct node *node)
{
    const struct access_log *log = &node->accesses->log;
    uint64_t bytes = (uint64_t)log->page_count * sizeof *log->pages + (uint64_t)log->run_count * sizeof *log->runs;
    return bytes >= node->options.races_bytes_max;
}

/* ---- what is accessed ------------------------------------------------------------------------------------------- */

void accesses_opened(struct node *node, struct page *page)
{
    struct accesses *accesses = node->accesses;
    if (page->accessed || (page->kept && !page->writers))
        return;
    page->accessed = true;
    accesses->opened = grown(&node->pool, accesses->opened, &accesses->opened_capacity, accesses->opened_count,
                             sizeof *accesses->opened);
    accesses->opened[accesses->opened_count++] = page;
}

static struct page_access *add_page(struct node *node, const struct page *page)
{
    struct access_log *log = &node->accesses->log;
    log->pages = grown(&node->pool, log->pages, &log->page_capacity, log->page_count, sizeof *log->pages);
    log->pages[log->page_count] = (struct page_access){.page = page_index(page),
                                                       .stretch = log->stretch_count,
                                                       .region = page_region(page)->id,
                                                       .run_first = log->run_count};
    node->accesses->logged = true;
    return &log->pages[log->page_count++];
}

void accesses_read(struct node *node, struct page *page)
{
    if (page->read)
        return;
    page->read = true;
    if (is_full(node))
        node->accesses->log.lost++;
    else
        add_page(node, page)->run_first = ACCESS_SEEN;
}

void accesses_keep(struct node *node, struct page *page)
{
    struct accesses *accesses = node->accesses;
    if (page->kept)
        return;
    page->kept = true;
    accesses->kept =
        grown(&node->pool, accesses->kept, &accesses->kept_capacity, accesses->kept_count, sizeof *accesses->kept);
    accesses->kept[accesses->kept_count++] = (struct kept_page){.page = page, .since = accesses->log.stretch_count};
}

/* The page may have been read until now. */
static void add_kept(struct node *node, const struct kept_page *kept)
{
    uint32_t next = node->accesses->log.stretch_count;
    if (kept->since >= next)
        return;
    if (is_full(node)) {
        node->accesses->log.lost++;
        return;
    }
    bool logged = node->accesses->logged;
    struct page_access *access = add_page(node, kept->page);
    node->accesses->logged = logged;
    access->stretch = next - 1;
    access->run_first = (uint32_t)kept->since;
}

/* Those that the space can touch no longer were kept until now.  `all`: the log ends. */
static void look_at_kept(struct node *node, bool all)
{
    struct accesses *accesses = node->accesses;
    uint32_t left = 0;
    for (uint32_t i = 0; i < accesses->kept_count; i++) {
        struct kept_page *kept = &accesses->kept[i];
        bool stays = kept->page->readers;
        if (all || !stays)
            add_kept(node, kept);
        if (all)
            kept->since = 0;
        kept->page->kept = stays;
        if (stays)
            accesses->kept[left++] = *kept;
    }
    accesses->kept_count = left;
}

static void add_run(struct node *node, struct page_access *access, uint32_t from, uint32_t to)
{
    struct access_log *log = &node->accesses->log;
    if (access->run_count && log->runs[log->run_count - 1].to == from) {
        log->runs[log->run_count - 1].to = to;
        return;
    }
    log->runs = grown(&node->pool, log->runs, &log->run_capacity, log->run_count, sizeof *log->runs);
    log->runs[log->run_count++] = (struct byte_run){.from = from, .to = to};
    access->run_count++;
}

void accesses_wrote(struct node *node, const struct page *page, const struct diff *diff)
{
    if (is_full(node)) {
        node->accesses->log.lost++;
        return;
    }
    struct page_access *access = add_page(node, page);
    struct diff_walk walk = {.at = diff->body, .end = diff->body + diff->bytes};
    for (uint32_t from, to; diff_next_run(&walk, &from, &to);)
        add_run(node, access, from, to);
    context_assert(node, access->run_count, "accesses: a diff of no bytes");
}

/* ---- stretches -------------------------------------------------------------------------------------------------- */

void accesses_after(struct node *node, node_id from, stamp since)
{
    struct access_log *log = &node->accesses->log;
    if (from == NODE_NONE || from == node->number)
        return;
    log->edges = grown(&node->pool, log->edges, &log->edge_capacity, log->edge_count, sizeof *log->edges);
    log->edges[log->edge_count++] = (struct stretch_edge){.since = since, .stretch = log->stretch_count, .node = from};
}

/* A stretch without an access orders nothing, unless it follows another node's, or is the first after a meeting. */
void accesses_end(struct node *node, stamp end, uint32_t site)
{
    struct accesses *accesses = node->accesses;
    struct access_log *log = &accesses->log;
    context_assert(node, end > accesses->cut, "accesses: a stretch ends before the last one");
    bool edges = log->edge_count && log->edges[log->edge_count - 1].stretch == log->stretch_count;
    uint32_t last = log->stretch_count - 1;
    bool meets = log->stretch_count == 0 || log->stretches[last].departures != accesses->open.departures;
    if (accesses->logged || edges || meets || accesses->kept_count) {
        log->stretches =
            grown(&node->pool, log->stretches, &log->stretch_capacity, log->stretch_count, sizeof *log->stretches);
        accesses->open.end = end;
        accesses->open.ended = site;
        log->stretches[log->stretch_count++] = accesses->open;
    }
    accesses->logged = false;
    accesses->cut = end;
    accesses->open.began = site;
    look_at_kept(node, false);
}

struct access_log accesses_take(struct node *node)
{
    look_at_kept(node, true);
    struct access_log log = node->accesses->log;
    node->accesses->log = (struct access_log){0};
    return log;
}

void accesses_give(struct access_log *log, struct pool *pool)
{
    if (log->stretches)
        pool_give_persistent(pool, log->stretches, log->stretch_capacity * sizeof *log->stretches);
    if (log->edges)
        pool_give_persistent(pool, log->edges, log->edge_capacity * sizeof *log->edges);
    if (log->pages)
        pool_give_persistent(pool, log->pages, log->page_capacity * sizeof *log->pages);
    if (log->runs)
        pool_give_persistent(pool, log->runs, log->run_capacity * sizeof *log->runs);
    *log = (struct access_log){0};
}

void accesses_remove_region(struct node *node, const struct region *region)
{
    struct accesses *accesses = node->accesses;
    accesses->opened_count = page_list_remove_region(accesses->opened, accesses->opened_count, region);
    uint32_t left = 0;
    for (uint32_t i = 0; i < accesses->kept_count; i++)
        if (page_region(accesses->kept[i].page) == region)
            add_kept(node, &accesses->kept[i]);
        else
            accesses->kept[left++] = accesses->kept[i];
    accesses->kept_count = left;
}

void accesses_fini(struct node *node)
{
    struct accesses *accesses = node->accesses;
    accesses_give(&accesses->log, &node->pool);
    if (accesses->kept)
        pool_give_persistent(&node->pool, accesses->kept, accesses->kept_capacity * sizeof *accesses->kept);
    if (accesses->opened)
        pool_give_persistent(&node->pool, accesses->opened, accesses->opened_capacity * sizeof *accesses->opened);
}
