/* Theory of operation.
 *
 * A node is driven from two sides.  Threads come in through node_fault, lock_*, counter_*, meeting_*; messages come in
 * through node_receive.  Both end in node_settle, which delivers what the node sent to itself, takes the next step of a
 * collection, and tells the kernel of changed protections.  Whoever waits repeats its question after `wake`.
 *
 * Consistency rests on three things that happen here.  close_interval names the pages that were opened for writing since
 * the last one.  learn takes in other nodes' intervals: it raises the pages' `need` and takes their protection away.  And
 * pass_cut, at the departure of a meeting, chooses the owners of what was written, from a list that all nodes see alike.
 *
 * Protection is told to the kernel in batches of neighbouring pages.  A batch is flushed before its protection is relied
 * on: before a diff is cut, and before the caller gives up the mutex.  When the kernel has no room for another mapping,
 * everything is made inaccessible, which is always allowed (pins excepted) and is one mapping; threads fault again.
 */
#include "protocol/node.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- life ---------------------------------------------------------------------------------------------------- */

struct node *node_new(const struct node_options *options, const struct port *port)
{
    struct pool pool;
    pool_init(&pool, port);
    struct node *node = pool_take_zeroed(&pool, sizeof *node);
    node->pool = pool;
    node->port = *port;
    node->pool.port = &node->port;
    node->rank = options->rank;
    node->size = options->size;
    node->options = *options;
    node->policy = options->policy;
    size_t size = (size_t)options->size;
    node->vt = pool_take_zeroed(&node->pool, size * sizeof *node->vt);
    node->cut = pool_take_zeroed(&node->pool, size * sizeof *node->cut);
    node->logs = pool_take_zeroed(&node->pool, size * sizeof *node->logs);
    node->outbox_end = &node->outbox;
    node->to_self_end = &node->to_self;
    regions_init(&node->regions, &node->pool);
    node->pool.apart_bytes = node->pool.bytes_used;
    node->collection.threshold_bytes = options->budget_bytes;
    return node;
}

static void free_messages(struct node *node, struct message *message)
{
    while (message) {
        struct message *next = message->next;
        message_release(message, &node->pool);
        message = next;
    }
}

static void free_meetings(struct node *node)
{
    for (int which = 0; which < MEETING_CLASSES; which++) {
        struct meeting *meeting = &node->meetings[which];
        if (meeting->own)
            message_release(meeting->own, &node->pool);
        for (int k = 0; k < MEETING_CHILDREN; k++)
            if (meeting->children[k])
                message_release(meeting->children[k], &node->pool);
    }
}

void node_free(struct node *node)
{
    size_t size = (size_t)node->size;
    while (node->fetches)
        fetch_cancel(node, node->fetches);
    free_messages(node, node->outbox);
    free_messages(node, node->to_self);
    free_messages(node, node->early);
    free_meetings(node);
    for (uint32_t i = 0; i < node->lock_count; i++)
        lock_fini(node, node->locks[i]);
    for (struct counter_request *request = node->counter_requests, *next; request; request = next) {
        next = request->next;
        pool_give(&node->pool, request, sizeof *request);
    }
    for (size_t q = 0; q < size; q++)
        log_fini(&node->logs[q], &node->pool);
    regions_fini(&node->regions, &node->pool);
    if (node->locks)
        pool_give(&node->pool, node->locks, node->lock_capacity * sizeof(struct lock *));
    if (node->counters)
        pool_give(&node->pool, node->counters, node->counter_capacity * sizeof *node->counters);
    if (node->dirty)
        pool_give(&node->pool, node->dirty, node->dirty_capacity * sizeof(struct page *));
    pool_give(&node->pool, node->vt, size * sizeof *node->vt);
    pool_give(&node->pool, node->cut, size * sizeof *node->cut);
    pool_give(&node->pool, node->logs, size * sizeof *node->logs);
    struct pool pool = node->pool;
    struct port port = node->port;
    pool.port = &port;
    pool_give(&pool, node, sizeof *node);
    if (pool.bytes_used)
        port.panic(port.context, "pool: blocks were not given back");
    pool_fini(&pool);
}

/* ---- last words ---------------------------------------------------------------------------------------------- */

const char *node_event_name(enum event_kind kind)
{
    static const char *const names[EVENT_KINDS] = {
        "none", "fault read", "fault write", "fetch", "serve", "install", "apply", "seal", "open",
        "stale", "close", "acquire", "release", "ask", "pass", "grant", "token", "arrive", "depart", "collect",
    };
    return kind < EVENT_KINDS ? names[kind] : "unknown";
}

void node_event(struct node *node, enum event_kind kind, const struct page *page, uint64_t other, node_id peer)
{
    node->events[node->event_count++ % EVENTS_KEPT] = (struct event){
        .stamp = node->stamp,
        .page = page ? page->index : other,
        .region = page ? page->region->id : 0,
        .peer = peer,
        .kind = kind,
    };
}

void node_panic(const struct node *node, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    node->port.panic(node->port.context, text);
    __builtin_trap();               /* a port that returns would let a broken protocol go on */
}

void node_malformed(const struct node *node, const struct message *message)
{
    const struct message_header *header = message_header(message);
    node_panic(node, "malformed message of kind %u from rank %d (%llu bytes)", header->kind, message->peer,
               (unsigned long long)message->wire_bytes);
}

bool node_chance(struct node *node, uint32_t permille)
{
    if (permille == 0)
        return false;
    uint32_t x = node->policy.random_state;      /* xorshift (Marsaglia 2003) */
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    node->policy.random_state = x;
    return x % 1000 < permille;
}

/* ---- clock, outbox ------------------------------------------------------------------------------------------- */

stamp node_tick(struct node *node)
{
    return ++node->stamp;
}

void node_send(struct node *node, struct message *message)
{
    message->next = NULL;
    struct message ***end = message->peer == node->rank ? &node->to_self_end : &node->outbox_end;
    **end = message;
    *end = &message->next;
}

struct message *node_take_outbox(struct node *node)
{
    struct message *first = node->outbox;
    node->outbox = NULL;
    node->outbox_end = &node->outbox;
    for (struct message *message = first; message; message = message->next) {
        struct message_header *header = message_header(message);
        header->sender = (uint32_t)node->rank;
        header->stamp = node->stamp;
        header->bytes = message->wire_bytes;
    }
    return first;
}

bool node_take_wake(struct node *node)
{
    bool wake = node->wake;
    node->wake = false;
    return wake;
}

/* ---- protection ---------------------------------------------------------------------------------------------- */

/* Tell the kernel again what the pinned pages of a region may; everything else: nothing.  False: some of it failed. */
static bool relax_region(struct node *node, struct region *region)
{
    const struct port *port = &node->port;
    uint64_t from = region->offset, end = from + region->pages * region->page_bytes, edges = 0, calls = 1;
    bool done = true;
    for (struct page_block *block = region->touched; block; block = block->next)
        for (int k = 0; k < REGION_BLOCK_PAGES; k++)
            if (!page_pinned(&block->pages[k]))
                block->pages[k].access = ACCESS_NONE;
    for (const struct page *page = node->pinned; page; page = page->pin_next) {
        if (page->region != region)
            continue;
        /* The list ascends (node_pin): the bytes before this page, then the page itself. */
        uint64_t at = page_offset(page);
        if (at > from)
            done &= port->protect(port->context, from, at - from, ACCESS_NONE) == 0;
        done &= port->protect(port->context, at, region->page_bytes, (enum access)page->access) == 0;
        from = at + region->page_bytes;
        edges += 2;
        calls += 2;
    }
    if (from < end)
        done &= port->protect(port->context, from, end - from, ACCESS_NONE) == 0;
    node->edges = node->edges - region->edges + edges;
    region->edges = edges;
    node->stats.protects += calls;
    return done;
}

/* What fails in the first round, because the regions after it still take up the room, must not fail in the second: memory
 * that stays accessible against what is recorded would be written without a notice. */
static void relax(struct node *node)
{
    bool done = false;
    node->batch.bytes = 0;
    for (int round = 0; round < 2 && !done; round++) {
        done = true;
        for (uint32_t i = 0; i < node->regions.count; i++)
            done &= relax_region(node, node->regions.live[i]);
    }
    if (!done)
        node_panic(node, "the kernel has no room for the mappings of the pages that are pinned (vm.max_map_count)");
}

void page_protect_flush(struct node *node)
{
    if (node->batch.bytes == 0)
        return;
    uint64_t offset = node->batch.offset, bytes = node->batch.bytes;
    node->batch.bytes = 0;
    node->stats.protects++;
    if (node->edges > node->port.edges_max ||
        node->port.protect(node->port.context, offset, bytes, node->batch.access) != 0)
        relax(node);
}

static enum access access_at(const struct region *region, uint64_t index)
{
    const struct page *page = index < region->pages ? region_page_if(region, index) : NULL;
    return page ? (enum access)page->access : ACCESS_NONE;
}

static uint64_t edges_around(const struct page *page)
{
    enum access before = page->index ? access_at(page->region, page->index - 1) : ACCESS_NONE;
    enum access after = access_at(page->region, page->index + 1);
    return (uint64_t)(before != page->access) + (uint64_t)(after != page->access);
}

void page_protect(struct node *node, struct page *page, enum access access)
{
    if (page->access == access)
        return;
    uint64_t edges = edges_around(page);
    page->access = (uint8_t)access;
    uint64_t now = edges_around(page);
    page->region->edges += now - edges;
    node->edges += now - edges;
    uint64_t offset = page_offset(page), bytes = page->region->page_bytes;
    if (node->batch.bytes && node->batch.access == access && node->batch.offset + node->batch.bytes == offset) {
        node->batch.bytes += bytes;
        return;
    }
    page_protect_flush(node);
    /* A flush may have made everything inaccessible, this page included, unless it is pinned. */
    if (page->access != access)
        return;
    node->batch.offset = offset;
    node->batch.bytes = bytes;
    node->batch.access = access;
}

/* ---- intervals ------------------------------------------------------------------------------------------------ */

void node_mark_dirty(struct node *node, struct page *page)
{
    if (page->dirty)
        return;
    page->dirty = true;
    node->dirty = pool_grow(&node->pool, node->dirty, &node->dirty_capacity, node->dirty_count + 1, sizeof(struct page *));
    node->dirty[node->dirty_count++] = page;
}

bool page_open(struct node *node, struct page *page)
{
    if (page->writable)
        return true;
    if (node->collection.holding)
        return false;
    node_mark_dirty(node, page);
    page->writable = true;
    if (!page->twin) {
        page_twin(page, &node->pool, &node->port);
        node->stats.twins_made++;
        page->region->stats.twins_made++;
    }
    node_event(node, EVENT_OPEN, page, 0, node->rank);
    return true;
}

void page_shut(struct node *node, struct page *page)
{
    if (page->access == ACCESS_WRITE && !page_stays_open(page))
        page_protect(node, page, ACCESS_READ);
}

static void count_diff(struct node *node, struct page *page)
{
    node->stats.diffs_made++;
    page->region->stats.diffs_made++;
}

/* A page pinned for writing stays open: what is cut and sent is a snapshot, which becomes the twin (R10). */
static void seal_pinned(struct node *node, struct page *page, stamp tag)
{
    uint64_t bytes = page->region->page_bytes;
    unsigned char *snapshot = pool_take(&node->pool, bytes);
    memcpy(snapshot, node->port.view + page_offset(page), bytes);
    if (page->twin) {
        page_cut(page, snapshot, &node->pool, tag);
        count_diff(node, page);
    }
    page_twin_drop(page, &node->pool);
    page->twin = snapshot;
    if (collection_silent(node))
        page->owed = node->collection.owing = true;
    else
        node_mark_dirty(node, page);
}

stamp page_seal(struct node *node, struct page *page)
{
    if (page->owed)
        return vector_get(&page->have, node->rank);     /* the same snapshot for everybody until the collection ends */
    stamp tag = node_tick(node);
    page_fill(page, &node->port);
    if (page->pins_write) {
        seal_pinned(node, page, tag);
    } else {
        page->writable = false;
        if (page->twin) {
            page_cut(page, node->port.view + page_offset(page), &node->pool, tag);
            page_twin_drop(page, &node->pool);
            count_diff(node, page);
        }
    }
    vector_raise(&page->have, &node->pool, node->rank, tag);
    node_event(node, EVENT_SEAL, page, tag, node->rank);
    return tag;
}

static bool page_before(const struct page *a, const struct page *b)
{
    return a->region->id != b->region->id ? a->region->id < b->region->id : a->index < b->index;
}

/* Heap sort: pages are opened mostly in order, but nothing may grow with the square of what a program touches, and
 * nothing may allocate. */
static void sift_down(struct page **pages, uint32_t at, uint32_t count)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count)
            return;
        if (child + 1 < count && page_before(pages[child], pages[child + 1]))
            child++;
        if (!page_before(pages[at], pages[child]))
            return;
        struct page *moved = pages[at];
        pages[at] = pages[child];
        pages[child] = moved;
        at = child;
    }
}

static void sort_pages(struct page **pages, uint32_t count)
{
    bool sorted = true;
    for (uint32_t i = 1; i < count && sorted; i++)
        sorted = page_before(pages[i - 1], pages[i]);
    if (sorted)
        return;
    for (uint32_t i = count / 2; i-- > 0;)
        sift_down(pages, i, count);
    for (uint32_t last = count; last-- > 1;) {
        struct page *top = pages[0];
        pages[0] = pages[last];
        pages[last] = top;
        sift_down(pages, 0, last);
    }
}

static bool continues(const struct page *a, const struct page *b)
{
    return a->region == b->region && a->index + 1 == b->index;
}

void node_close_interval(struct node *node)
{
    uint32_t count = node->dirty_count, runs = count ? 1 : 0;
    if (count == 0)
        return;
    stamp closed = node_tick(node);
    node->vt[node->rank] = closed;
    sort_pages(node->dirty, count);
    for (uint32_t i = 1; i < count; i++)
        runs += !continues(node->dirty[i - 1], node->dirty[i]);
    struct interval *interval = pool_take(&node->pool, sizeof *interval + runs * sizeof(struct run));
    *interval = (struct interval){.node = node->rank, .run_count = runs, .stamp = closed};
    struct run *run = interval->runs - 1;
    for (uint32_t i = 0; i < count; i++) {
        struct page *page = node->dirty[i];
        if (i == 0 || !continues(node->dirty[i - 1], page))
            *++run = (struct run){.region = page->region->id, .first = page->index};
        run->pages++;
        page->dirty = false;
        vector_raise(&page->have, &node->pool, node->rank, closed);
        vector_raise(&page->need, &node->pool, node->rank, closed);
    }
    node->dirty_count = 0;
    log_append(&node->logs[node->rank], &node->pool, interval);
    node->stats.intervals_closed++;
    node_event(node, EVENT_CLOSE, NULL, count, node->rank);
}

void node_put_known(struct node *node, struct message *message)
{
    uint32_t count = 0;
    uint64_t count_at = message->wire_bytes;
    message_put_u32(message, &node->pool, 0);
    for (node_id q = 0; q < node->size; q++)
        if (node->vt[q] > node->cut[q]) {
            message_put_u32(message, &node->pool, (uint32_t)q);
            message_put_u64(message, &node->pool, node->vt[q]);
            count++;
        }
    memcpy(message->wire + count_at, &count, sizeof count);
}

void node_put_intervals(struct node *node, struct message *message, const struct vector *known)
{
    uint32_t count = 0;
    uint64_t count_at = message->wire_bytes;
    message_put_u32(message, &node->pool, 0);
    for (node_id q = 0; q < node->size; q++) {
        const struct log *log = &node->logs[q];
        uint32_t from = log->count ? log_after(log, vector_get(known, q)) : 0;
        for (uint32_t i = from; i < log->count; i++) {
            const struct interval *interval = log->items[log->first + i];
            message_put_bytes(message, &node->pool, interval, interval_bytes(interval));
            count++;
        }
    }
    memcpy(message->wire + count_at, &count, sizeof count);
}

/* ---- write notices ------------------------------------------------------------------------------------------- */

/* The next interval of a message, as a copy of the pool; NULL (and reader->bad) where the bytes are not one. */
static struct interval *read_interval(struct node *node, struct reader *reader)
{
    struct interval head;
    const void *bytes = reader_bytes(reader, sizeof head);
    if (!bytes)
        return NULL;
    memcpy(&head, bytes, sizeof head);
    const void *runs = reader_bytes(reader, head.run_count * (uint64_t)sizeof(struct run));
    if (!runs || head.node < 0 || head.node >= node->size) {
        reader->bad = true;
        return NULL;
    }
    struct interval *interval = pool_take(&node->pool, interval_bytes(&head));
    *interval = head;
    if (head.run_count)
        memcpy(interval->runs, runs, head.run_count * sizeof(struct run));
    return interval;
}

static void make_stale(struct node *node, struct page *page)
{
    if (page->pins_write)
        return;                     /* exempt until it is unpinned; an acquire brings it up to date (node_pins_valid) */
    page->writable = false;
    if (page->pins_read) {
        if (page->access == ACCESS_WRITE)
            page_protect(node, page, ACCESS_READ);
        return;
    }
    if (page->access != ACCESS_NONE) {
        page_protect(node, page, ACCESS_NONE);
        node->stats.invalidations++;
        page->region->stats.invalidations++;
        node_event(node, EVENT_STALE, page, 0, NODE_NONE);
    }
}

static void learn_run(struct node *node, const struct interval *interval, const struct run *run, struct region *region)
{
    for (uint64_t i = 0; i < run->pages; i++) {
        struct page *page = region_page(region, &node->pool, run->first + i);
        vector_raise(&page->need, &node->pool, interval->node, interval->stamp);
        if (!page_valid(page))
            make_stale(node, page);
    }
    node->stats.notices_received += run->pages;
    region->stats.notices_received += run->pages;
}

/* NULL: the region was freed.  A run that does not fit its region is not believed. */
static struct region *region_of_run(struct node *node, const struct message *message, const struct run *run)
{
    struct region *region = region_find(&node->regions, run->region);
    if (region && (run->first >= region->pages || run->pages > region->pages - run->first))
        node_malformed(node, message);
    return region;
}

void node_learn(struct node *node, const struct message *message, struct reader *reader)
{
    uint32_t count = reader_u32(reader);
    for (uint32_t i = 0; i < count && !reader->bad; i++) {
        struct interval *interval = read_interval(node, reader);
        if (!interval)
            break;
        if (interval->stamp > node->stamp)
            node->stamp = interval->stamp;
        if (interval->stamp <= node->vt[interval->node]) {
            pool_give(&node->pool, interval, interval_bytes(interval));
            continue;
        }
        node->vt[interval->node] = interval->stamp;
        log_append(&node->logs[interval->node], &node->pool, interval);
        for (uint32_t r = 0; r < interval->run_count; r++) {
            struct region *region = region_of_run(node, message, &interval->runs[r]);
            if (region)
                learn_run(node, interval, &interval->runs[r], region);
        }
    }
    if (reader->bad)
        node_malformed(node, message);
}

/* ---- cuts (R7) ------------------------------------------------------------------------------------------------- */

static void note_writer(struct node *node, const struct interval *interval, struct page *page)
{
    if (page->cut_stamp == 0)
        page->cut_owner_wrote = false;
    if (interval->node == page->owner)
        page->cut_owner_wrote = true;
    if (interval->stamp > page->cut_stamp || (interval->stamp == page->cut_stamp && interval->node > page->cut_writer)) {
        page->cut_stamp = interval->stamp;
        page->cut_writer = interval->node;
    }
    (void)node;
}

static void choose_owner(struct node *node, const struct interval *interval, struct page *page)
{
    if (page->cut_stamp && !page->cut_owner_wrote)
        page->owner = page->cut_writer;
    page->cut_stamp = 0;
    (void)node;
    (void)interval;
}

/* Call `what` for every page that the list names, in intervals that were not in an earlier cut. */
static void for_cut_pages(struct node *node, const struct message *message, struct reader reader,
                          void (*what)(struct node *node, const struct interval *interval, struct page *page))
{
    uint32_t count = reader_u32(&reader);
    for (uint32_t i = 0; i < count; i++) {
        struct interval *interval = read_interval(node, &reader);
        if (!interval)
            return;
        if (interval->stamp > node->cut[interval->node])
            for (uint32_t r = 0; r < interval->run_count; r++) {
                struct region *region = region_of_run(node, message, &interval->runs[r]);
                for (uint64_t k = 0; region && k < interval->runs[r].pages; k++)
                    what(node, interval, region_page(region, &node->pool, interval->runs[r].first + k));
            }
        pool_give(&node->pool, interval, interval_bytes(interval));
    }
}

static void raise_cut(struct node *node, struct reader reader)
{
    uint32_t count = reader_u32(&reader);
    for (uint32_t i = 0; i < count; i++) {
        struct interval *interval = read_interval(node, &reader);
        if (!interval)
            return;
        if (interval->stamp > node->cut[interval->node])
            node->cut[interval->node] = interval->stamp;
        pool_give(&node->pool, interval, interval_bytes(interval));
    }
}

void node_pass_cut(struct node *node, const struct message *message, struct reader reader)
{
    for_cut_pages(node, message, reader, note_writer);
    for_cut_pages(node, message, reader, choose_owner);
    raise_cut(node, reader);
    for (node_id q = 0; q < node->size; q++)
        log_trim(&node->logs[q], &node->pool, node->cut[q]);
    node->cuts++;
}

/* ---- regions -------------------------------------------------------------------------------------------------- */

void node_remove_region(struct node *node, struct region *region)
{
    uint64_t bytes = region->pages * region->page_bytes;
    page_protect_flush(node);
    if (node->port.protect(node->port.context, region->offset, bytes, ACCESS_NONE) != 0)
        relax(node);
    node->edges -= region->edges;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < node->dirty_count; i++)
        if (node->dirty[i]->region != region)
            node->dirty[kept++] = node->dirty[i];
    node->dirty_count = kept;
    node->pinned_last = NULL;
    for (struct page **link = &node->pinned; *link;) {
        if ((*link)->region == region)
            *link = (*link)->pin_next;
        else
            link = &(*link)->pin_next;
    }
    for (struct fetch *fetch = node->fetches, *next; fetch; fetch = next) {
        next = fetch->next;
        if (fetch->page->region == region)
            fetch_cancel(node, fetch);
    }
    region_remove(&node->regions, &node->pool, region);
    node->wake = true;
}

/* ---- faults ---------------------------------------------------------------------------------------------------- */

/* Sequential faults fetch ahead, in a window that doubles; pages that were never named to this node end it. */
static void read_ahead(struct node *node, struct region *region, uint64_t index)
{
    uint64_t most = node->options.ahead_bytes_max / region->page_bytes;
    if (region->ahead_next != index || index == 0)
        region->ahead_pages = 0;
    else
        region->ahead_pages = region->ahead_pages ? 2 * region->ahead_pages : 1;
    if (region->ahead_pages > most)
        region->ahead_pages = most;
    uint64_t next = index + 1, end = next + region->ahead_pages;
    for (; next < end && next < region->pages; next++) {
        struct page *page = region_page_if(region, next);
        if (!page)
            break;
        if (!page->fetch && !page_valid(page))
            fetch_start(node, page, true);
    }
    region->ahead_next = next;
}

static void count_fault(struct node *node, struct page *page, bool write, bool local)
{
    struct region_stats *stats = &page->region->stats;
    node->stats.faults_read += !write;
    node->stats.faults_write += write;
    node->stats.faults_local += local;
    stats->faults_read += !write;
    stats->faults_write += write;
    stats->faults_local += local;
    node_event(node, write ? EVENT_FAULT_WRITE : EVENT_FAULT_READ, page, 0, node->rank);
}

static enum fault_answer answer_fault(struct node *node, struct page *page, bool write)
{
    while (!page_valid(page)) {
        if (page->fetch) {
            page->fetch->ahead = false;
            return FAULT_WAIT;
        }
        if (node->collection.holding)
            return FAULT_WAIT;
        fetch_start(node, page, false);
        if (page->fetch && !page_pinned(page))
            read_ahead(node, page->region, page->index);
    }
    if (write && !page_open(node, page))
        return FAULT_WAIT;          /* a collection is under way */
    page_fill(page, &node->port);
    page_protect(node, page, page->writable ? ACCESS_WRITE : ACCESS_READ);
    return FAULT_DONE;
}

enum fault_answer node_fault(struct node *node, uint64_t offset, bool write, bool first)
{
    struct region *region = region_at(&node->regions, offset);
    if (!region)
        return FAULT_OUTSIDE;
    struct page *page = region_page(region, &node->pool, (offset - region->offset) / region->page_bytes);
    enum fault_answer answer = answer_fault(node, page, write);
    if (first)
        count_fault(node, page, write, answer == FAULT_DONE);
    node_settle(node);
    if (answer == FAULT_DONE && page->access < (write ? ACCESS_WRITE : ACCESS_READ)) {
        answer = answer_fault(node, page, write);   /* the kernel had no room, and everything was made inaccessible */
        node_settle(node);
        if (answer == FAULT_DONE && page->access < (write ? ACCESS_WRITE : ACCESS_READ))
            node_panic(node, "the kernel has no room for one more mapping beside the pinned pages (vm.max_map_count)");
    }
    return answer;
}

/* ---- pins ------------------------------------------------------------------------------------------------------ */

static struct page *page_at(struct node *node, uint64_t offset)
{
    struct region *region = region_at(&node->regions, offset);
    if (!region)
        node_panic(node, "pin: no region at offset %llu", (unsigned long long)offset);
    return region_page(region, &node->pool, (offset - region->offset) / region->page_bytes);
}

/* The list ascends, and so do most pins: the search begins at the last one. */
static void insert_pinned(struct node *node, struct page *page)
{
    struct page **link = &node->pinned;
    if (node->pinned_last && page_offset(node->pinned_last) < page_offset(page))
        link = &node->pinned_last->pin_next;
    while (*link && page_offset(*link) < page_offset(page))
        link = &(*link)->pin_next;
    page->pin_next = *link;
    *link = page;
    node->pinned_last = page;
}

static void remove_pinned(struct node *node, struct page *page)
{
    struct page **link = &node->pinned;
    while (*link != page)
        link = &(*link)->pin_next;
    *link = page->pin_next;
    node->pinned_last = NULL;
}

void node_pin(struct node *node, uint64_t offset, bool write)
{
    struct page *page = page_at(node, offset);
    if (!page_pinned(page)) {
        insert_pinned(node, page);
    }
    if (!write) {
        page->pins_read++;
        return;
    }
    page->pins_write++;
    if (!page->twin)
        page_twin(page, &node->pool, &node->port);  /* it was exclusive; from now on it may be served while open */
}

void node_unpin(struct node *node, uint64_t offset, bool write)
{
    struct page *page = page_at(node, offset);
    uint32_t *pins = write ? &page->pins_write : &page->pins_read;
    if (*pins == 0)
        node_panic(node, "page %llu of region %u is not pinned", (unsigned long long)page->index, page->region->id);
    --*pins;
    if (!page_pinned(page)) {
        remove_pinned(node, page);
    }
    if (!page_valid(page))
        make_stale(node, page);
    node_settle(node);
}

bool node_pins_valid(struct node *node)
{
    bool valid = true;
    for (struct page *page = node->pinned; page; page = page->pin_next)
        if (!page_valid(page)) {
            valid = false;
            if (!page->fetch && !node->collection.holding)
                fetch_start(node, page, false);
        }
    node_settle(node);
    return valid;
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

static void dispatch(struct node *node, struct message *message)
{
    switch ((enum message_kind)message_header(message)->kind) {
    case MESSAGE_FETCH: fetch_receive_want(node, message); return;
    case MESSAGE_REPLY: fetch_receive_reply(node, message); return;
    case MESSAGE_ACQUIRE: lock_receive_acquire(node, message); return;
    case MESSAGE_PASS: lock_receive_pass(node, message); return;
    case MESSAGE_GRANT: lock_receive_grant(node, message); return;
    case MESSAGE_BUSY: lock_receive_busy(node, message); return;
    case MESSAGE_WITHDRAW: lock_receive_withdraw(node, message); return;
    case MESSAGE_WITHDRAWN: lock_receive_withdrawn(node, message); return;
    case MESSAGE_ARRIVE: meeting_receive_arrive(node, message); return;
    case MESSAGE_DEPART: meeting_receive_depart(node, message); return;
    case MESSAGE_ADD: counter_receive_add(node, message); return;
    case MESSAGE_SUM: counter_receive_sum(node, message); return;
    case MESSAGE_WANT_COLLECT: collection_receive_want(node); return;
    case MESSAGE_COLLECT: collection_receive_collect(node); return;
    case MESSAGE_KINDS: break;
    }
    node_malformed(node, message);
}

bool node_not_made_yet(const struct node *node, uint32_t number, uint32_t next)
{
    return number == next && node->meetings[MEETING_THREADS].state == MEETING_ARRIVED;
}

void node_keep_early(struct node *node, struct message *message)
{
    struct message **end = &node->early;
    message->holders++;
    message->next = NULL;
    while (*end)
        end = &(*end)->next;
    *end = message;
}

void node_deliver_early(struct node *node)
{
    struct message *early = node->early;
    node->early = NULL;
    for (struct message *next; early; early = next) {
        next = early->next;
        dispatch(node, early);
        message_release(early, &node->pool);
    }
}

static void deliver_to_self(struct node *node)
{
    while (node->to_self) {
        struct message *message = node->to_self;
        node->to_self = message->next;
        if (!node->to_self)
            node->to_self_end = &node->to_self;
        message->next = NULL;
        dispatch(node, message);
        message_release(message, &node->pool);
    }
}

void node_settle(struct node *node)
{
    if (node->delivering)
        return;
    node->delivering = true;
    do {
        deliver_to_self(node);
        collection_step(node);
    } while (node->to_self);
    node->delivering = false;
    page_protect_flush(node);
    if (node->policy.check_all)
        node_check(node);
}

void node_receive(struct node *node, struct message *message)
{
    const struct message_header *header = message_header(message);
    if (message->wire_bytes < sizeof *header || header->magic != MESSAGE_MAGIC || header->bytes != message->wire_bytes ||
        header->sender != (uint32_t)message->peer || message->peer < 0 || message->peer >= node->size)
        node_panic(node, "malformed message from rank %d (%llu bytes): not one of ours", message->peer,
                   (unsigned long long)message->wire_bytes);
    if (header->stamp > node->stamp)
        node->stamp = header->stamp;    /* R1 */
    message->next = NULL;
    dispatch(node, message);
    message_release(message, &node->pool);
    node_settle(node);
}

void node_check(const struct node *node)
{
    for (uint32_t i = 0; i < node->regions.count; i++)
        for (const struct page_block *block = node->regions.live[i]->touched; block; block = block->next)
            for (int k = 0; k < REGION_BLOCK_PAGES; k++)
                page_check(&block->pages[k], &node->port);
    for (node_id q = 0; q < node->size; q++)
        log_check(&node->logs[q], node->cut[q], &node->port);
    for (uint32_t i = 0; i < node->lock_count; i++)
        lock_check(node->locks[i], &node->port);
}
