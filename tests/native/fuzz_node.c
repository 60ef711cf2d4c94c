/* One node in a port of its own.  Blocks of memory that belong to a kept state are never really freed: they are poisoned
 * when the node gives them back, and get their content again when the state is put back.  So an input costs the copy of
 * some ten kilobytes and not the making of a node. */
#include "fuzz.h"

#include <sanitizer/asan_interface.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Poisoned: between the bookkeeping and the block. */
enum { GAP_BYTES = 16 };

/* What comes behind a message that nobody sent. */
enum { FUZZ_BEHIND = 0xa5 };

struct fuzz_block {
    struct fuzz_block *next, **link;
    size_t bytes;
    unsigned char *saved;
    bool is_kept, given;
    _Alignas(16) unsigned char gap[GAP_BYTES];
};

void (*fuzz_on_failure)(void);

void fuzz_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("FAILED: ", stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    if (fuzz_on_failure)
        fuzz_on_failure();
    abort();
}

/* ---- the port ---------------------------------------------------------------------------------------------------- */

static unsigned char *memory_of(struct fuzz_block *block)
{
    return (unsigned char *)(block + 1);
}

static void *port_chunk(void *context, size_t bytes)
{
    struct fuzz_node *home = context;
    home->live_bytes += bytes;
    if (bytes > home->allowed_bytes || home->live_bytes > home->allowed_bytes)
        fuzz_fail("unbounded allocation: %zu bytes more than the %llu in use, where %llu are allowed", bytes,
                  (unsigned long long)(home->live_bytes - bytes), (unsigned long long)home->allowed_bytes);
    struct fuzz_block *block = calloc(1, sizeof *block + bytes);
    if (!block)
        abort();
    block->bytes = bytes;
    block->next = home->blocks;
    block->link = &home->blocks;
    if (block->next)
        block->next->link = &block->next;
    home->blocks = block;
    ASAN_POISON_MEMORY_REGION(block->gap, GAP_BYTES);
    return memory_of(block);
}

static void block_free(struct fuzz_block *block)
{
    if (block->next)
        block->next->link = block->link;
    *block->link = block->next;
    free(block->saved);
    free(block);
}

static void port_chunk_free(void *context, void *memory, size_t bytes)
{
    struct fuzz_node *home = context;
    struct fuzz_block *block = (struct fuzz_block *)memory - 1;
    if (block->given)
        fuzz_fail("a block of %zu bytes is given back twice", bytes);
    if (block->bytes != bytes)
        fuzz_fail("a block of %zu bytes is given back as %zu", block->bytes, bytes);
    home->live_bytes -= bytes;
    if (!block->is_kept) {
        block_free(block);
        return;
    }
    block->given = true;
    ASAN_POISON_MEMORY_REGION(memory, bytes);
}

static int port_protect(void *context, uint64_t offset, uint64_t bytes, enum access access)
{
    struct fuzz_node *home = context;
    if (offset % FUZZ_GRANULE_BYTES || bytes % FUZZ_GRANULE_BYTES || offset > FUZZ_RANGE_BYTES ||
        bytes > FUZZ_RANGE_BYTES - offset)
        fuzz_fail("protect(%llu, %llu)", (unsigned long long)offset, (unsigned long long)bytes);
    memset(home->access + offset / FUZZ_GRANULE_BYTES, (int)access, bytes / FUZZ_GRANULE_BYTES);
    return 0;
}

static void port_discard(void *context, uint64_t offset, uint64_t bytes)
{
    struct fuzz_node *home = context;
    if (offset > FUZZ_RANGE_BYTES || bytes > FUZZ_RANGE_BYTES - offset)
        fuzz_fail("discard(%llu, %llu)", (unsigned long long)offset, (unsigned long long)bytes);
    memset(home->view + offset, 0, bytes);
}

static enum wait_kind port_waits(void *context, uint32_t rank, uint32_t number, uint64_t *object)
{
    (void)rank;
    const struct fuzz_node *home = context;
    const struct fuzz_thread *thread = &home->threads[number % FUZZ_THREADS];
    *object = thread->lock_ticket ? thread->lock : 0;
    return thread->lock_ticket ? WAIT_FOR_LOCK : WAIT_NONE;
}

static void port_panic(void *context, const char *text)
{
    struct fuzz_node *home = context;
    if (!home->guarded)
        fuzz_fail("a panic where none may be: %s", text);
    if (strlen(text) < 12)
        fuzz_fail("a panic without words: '%s'", text);
    snprintf(home->panic, sizeof home->panic, "%s", text);
    longjmp(home->escape, 1);
}

struct fuzz_node *fuzz_node_new(int rank, int size, uint64_t budget_bytes)
{
    struct fuzz_node *home = calloc(1, sizeof *home);
    if (!home)
        abort();
    home->view = calloc(1, FUZZ_RANGE_BYTES);
    home->view_saved = calloc(1, FUZZ_RANGE_BYTES);
    if (!home->view || !home->view_saved)
        abort();
    home->allowed_bytes = UINT64_MAX;
    home->port = (struct port){
        .context = home,
        .rank = (uint32_t)rank,
        .view = home->view,
        .range_bytes = FUZZ_RANGE_BYTES,
        .granule_bytes = FUZZ_GRANULE_BYTES,
        .edges_max = UINT32_MAX,
        .protect = port_protect,
        .discard = port_discard,
        .waits = port_waits,
        .chunk = port_chunk,
        .chunk_free = port_chunk_free,
        .panic = port_panic,
    };
    struct node_options options = {.number = rank,
                                   .size = size,
                                   .spaces = 1,
                                   .ranks = (uint32_t)size,
                                   .budget_bytes = budget_bytes,
                                   .readahead_bytes_max = 512,
                                   .refetch_bytes_max = 512,
                                   .push_bytes_max = 512,
                                   .readers_max = 1,
                                   .readers_small_max = 1,
                                   .open_bytes_max = 256,
                                   .published_unused_max = 2};
    home->node = node_new(&options, &home->port);
    return home;
}

void fuzz_node_free(struct fuzz_node *home)
{
    while (home->blocks)
        block_free(home->blocks);
    free(home->view);
    free(home->view_saved);
    free(home);
}

/* ---- entries: what the runtime would do, with the checks that it makes before ------------------------------------ */

static void apply_fault(struct fuzz_node *home, uint64_t offset, bool write)
{
    access_fault(home->node, offset % FUZZ_RANGE_BYTES, write, true);
}

static void apply_store(struct fuzz_node *home, uint64_t offset, uint64_t value)
{
    offset %= FUZZ_RANGE_BYTES;
    if (home->access[offset / FUZZ_GRANULE_BYTES] == ACCESS_WRITE)
        home->view[offset] = (unsigned char)value;
}

/* A thread holds one lock, and may wait for another; if it gets that one, too, it gives it back. */
static void apply_lock(struct fuzz_node *home, struct fuzz_thread *thread, const struct fuzz_entry *entry)
{
    bool enqueue = entry->kind == FUZZ_ENQUEUE, release = entry->kind == FUZZ_RELEASE;
    struct lock *lock = lock_use(home->node, enqueue ? (uint32_t)entry->a : release ? thread->held : thread->lock);
    if (!lock)
        return;
    if (enqueue && !thread->lock_ticket && !(thread->holds && thread->held == lock->id)) {
        thread->lock = lock->id;
        thread->lock_ticket =
            lock_enqueue(home->node, lock, (uint32_t)(thread - home->threads), "program.py:7", entry->b != 0);
    } else if (entry->kind == FUZZ_POLL && thread->lock_ticket) {
        enum lock_answer answer = lock_poll(home->node, lock, thread->lock_ticket);
        if (answer != LOCK_WAIT)
            thread->lock_ticket = 0;
        if (answer == LOCK_TAKEN && thread->holds) {
            lock_release(home->node, lock, home->node->port->rank);
        } else if (answer == LOCK_TAKEN) {
            thread->holds = true;
            thread->held = lock->id;
        }
    } else if (entry->kind == FUZZ_CANCEL && thread->lock_ticket) {
        lock_cancel(home->node, lock, thread->lock_ticket);
        thread->lock_ticket = 0;
    } else if (release && thread->holds && lock_held(lock)) {
        thread->holds = false;
        lock_release(home->node, lock, home->node->port->rank);
    }
}

static void apply_counter(struct fuzz_node *home, struct fuzz_thread *thread, const struct fuzz_entry *entry)
{
    int64_t before;
    const struct counter *counter = NULL;
    if (entry->kind == FUZZ_ADD && !thread->counter_ticket)
        counter = counter_use(home->node, (uint32_t)entry->a, (int64_t)entry->c);
    if (counter)
        thread->counter_ticket = counter_add(home->node, counter, (int64_t)entry->b);
    else if (entry->kind == FUZZ_SUM && thread->counter_ticket &&
             counter_poll(home->node, thread->counter_ticket, &before))
        thread->counter_ticket = 0;
}

static void apply_flag(struct fuzz_node *home, const struct fuzz_entry *entry)
{
    struct flag *flag = flag_use(home->node, (uint32_t)entry->a);
    if (flag && entry->kind == FUZZ_SET)
        event_set(home->node, flag);
    else if (flag && entry->kind == FUZZ_CLEAR)
        event_clear(home->node, flag);
    else if (flag)
        event_poll(home->node, flag, flag->clear, !event_expects(home->node) || entry->b == 0);
}

static void apply_pin(struct fuzz_node *home, struct fuzz_thread *thread, const struct fuzz_entry *entry)
{
    uint64_t offset = entry->a % FUZZ_RANGE_BYTES;
    if (entry->kind == FUZZ_PIN && !thread->pinned) {
        if (access_fault(home->node, offset, entry->b != 0, true) != ACCESS_DONE)
            return;
        access_pin(home->node, offset, entry->b != 0);
        thread->pinned = true;
        thread->pin_write = entry->b != 0;
        thread->pin_offset = offset;
    } else if (entry->kind == FUZZ_UNPIN && thread->pinned) {
        thread->pinned = false;
        if (region_at(home->node->regions, thread->pin_offset))
            access_unpin(home->node, thread->pin_offset, thread->pin_write);
    }
}

static void apply_arrive(struct fuzz_node *home, const struct fuzz_entry *entry)
{
    static const unsigned char value[] = {7, 0, 9, 1};
    struct ballot ballot = {.kind = (enum meeting_kind)entry->a, .numbers = {entry->b, entry->c}, .what = "a call"};
    if (home->node->meetings[MEETING_THREADS].state != MEETING_IDLE || meeting_departed(home->node, 0))
        return;
    if (ballot.kind == MEETING_ALLOCATE) {
        ballot.name = "an array";
        ballot.value = value;
        ballot.numbers[2] = sizeof value;
    } else if (ballot.kind == MEETING_FREE && entry->c) {
        ballot.numbers[1] = 0;
        ballot.refusal = "cannot: an array is alive";
    }
    if (!meeting_needs_no_ballot(home->node, &ballot))
        meeting_bring(home->node, &ballot);
    if (meeting_join(home->node, 0, home->node->port->rank) == MEETING_ARRIVES)
        meeting_arrive(home->node, MEETING_THREADS);
}

static void apply_forget(struct fuzz_node *home)
{
    struct regions *regions = home->node->regions;
    for (uint32_t i = 0; i < regions->grave_count; i++)
        region_forget(regions, regions->graves[i].id, home->node->me);
}

static struct message *wrap(struct fuzz_node *home, const struct fuzz_entry *entry)
{
    void *wire = pool_take_persistent(&home->node->pool, entry->count);
    if (entry->count)
        memcpy(wire, entry->bytes, entry->count);
    return message_wrap(&home->node->pool, entry->thread, entry->thread, wire, entry->count);
}

static void apply_message(struct fuzz_node *home, const struct fuzz_entry *entry)
{
    struct message *message = wrap(home, entry);
    if (entry->a)
        node_place(home->node, message);
    for (int i = 0; i < message->segment_count; i++)
        memset(message->segments[i].at, FUZZ_BEHIND, message->segments[i].bytes);
    node_receive(home->node, message);
}

static void apply_place(struct fuzz_node *home, const struct fuzz_entry *entry)
{
    struct message *message = wrap(home, entry);
    node_place(home->node, message);
    home->placed[entry->thread] = message;
}

/* An input may have made impossible what the world had in store. */
static void apply_fill(struct fuzz_node *home, const struct fuzz_entry *entry)
{
    struct message *message = home->placed[entry->thread];
    uint64_t at = 0;
    if (!message)
        return;
    home->placed[entry->thread] = NULL;
    for (int i = 0; i < message->segment_count; at += message->segments[i++].bytes) {
        if (at + message->segments[i].bytes > entry->count)
            fuzz_fail("more is placed than comes");
        memcpy(message->segments[i].at, entry->bytes + at, message->segments[i].bytes);
    }
    node_receive(home->node, message);
}

static void apply(struct fuzz_node *home, const struct fuzz_entry *entry)
{
    struct fuzz_thread *thread = &home->threads[entry->thread % FUZZ_THREADS];
    switch ((enum fuzz_entry_kind)entry->kind) {
    case FUZZ_FAULT: apply_fault(home, entry->a, entry->b != 0); return;
    case FUZZ_STORE: apply_store(home, entry->a, entry->b); return;
    case FUZZ_ENQUEUE:
    case FUZZ_POLL:
    case FUZZ_CANCEL:
    case FUZZ_RELEASE: apply_lock(home, thread, entry); break;
    case FUZZ_ADD:
    case FUZZ_SUM: apply_counter(home, thread, entry); break;
    case FUZZ_SET:
    case FUZZ_CLEAR:
    case FUZZ_AWAIT: apply_flag(home, entry); break;
    case FUZZ_ARRIVE: apply_arrive(home, entry); break;
    case FUZZ_TAKE: meeting_take(home->node, 0); break;
    case FUZZ_PIN:
    case FUZZ_UNPIN: apply_pin(home, thread, entry); break;
    case FUZZ_FORGET: apply_forget(home); break;
    case FUZZ_COLLECT: collection_request(home->node); break;
    case FUZZ_MESSAGE: apply_message(home, entry); return;
    case FUZZ_PLACE: apply_place(home, entry); break;
    case FUZZ_FILL: apply_fill(home, entry); break;
    case FUZZ_ROLL: roll_call(home->node); break;
    case FUZZ_TELL: trail_tell(home->node); break;
    case FUZZ_JOIN: meeting_join(home->node, 0, home->node->port->rank); break;
    }
    node_settle(home->node);
}

static void drop(struct fuzz_node *home, struct message *message)
{
    if (message->segment_count)
        node_sent(home->node, message);
    else
        message_free(message, &home->node->pool);
}

void fuzz_node_drop_outbox(struct fuzz_node *home)
{
    for (struct message *message; (message = node_take_outbox(home->node));)
        for (struct message *next; message; message = next) {
            next = message->next;
            if (home->send)
                home->send(home->send_context, home->node->number, message);
            drop(home, message);
        }
}

static void send_all(struct fuzz_node *home)
{
    if (home->send)
        fuzz_node_drop_outbox(home);
}

#define GUARDED(home, action)          \
    do {                               \
        (home)->guarded = true;        \
        if (_setjmp((home)->escape)) { \
            (home)->guarded = false;   \
            return (home)->panic;      \
        }                              \
        action;                        \
        (home)->guarded = false;       \
        return NULL;                   \
    } while (0)

const char *fuzz_node_do(struct fuzz_node *home, const struct fuzz_entry *entry)
{
    GUARDED(home, apply(home, entry); send_all(home));
}

const char *fuzz_node_check(struct fuzz_node *home)
{
    GUARDED(home, check_node(home->node));
}

uint64_t fuzz_node_take(struct fuzz_node *home, void *bytes, uint64_t room, int *to)
{
    struct message *message = node_take_outbox(home->node);
    if (!message)
        return 0;
    if (message->wire_bytes > room)
        fuzz_fail("a message of %llu bytes, and room for %llu", (unsigned long long)message->wire_bytes,
                  (unsigned long long)room);
    uint64_t count = message->wire_bytes;
    memcpy(bytes, message->wire, count);
    *to = message->peer;
    for (struct message *other = message->next, *next; other; other = next) {
        next = other->next;
        context_send(home->node, other);
    }
    drop(home, message);
    return count;
}

/* ---- keeping and putting back ------------------------------------------------------------------------------------ */

void fuzz_node_end(struct fuzz_node *home)
{
    node_free(home->node);
    for (const struct fuzz_block *block = home->blocks; block; block = block->next)
        if (!block->given)
            fuzz_fail("a block of %zu bytes is not given back", block->bytes);
}

void fuzz_node_keep(struct fuzz_node *home)
{
    for (struct fuzz_block *block = home->blocks; block; block = block->next) {
        block->is_kept = true;
        block->saved = malloc(block->bytes + 1);
        if (!block->saved)
            abort();
        memcpy(block->saved, memory_of(block), block->bytes);
    }
    home->kept = home->blocks;
    home->kept_bytes = home->live_bytes;
    memcpy(home->view_saved, home->view, FUZZ_RANGE_BYTES);
    memcpy(home->access_saved, home->access, sizeof home->access);
    memcpy(home->threads_saved, home->threads, sizeof home->threads);
    memcpy(home->placed_saved, home->placed, sizeof home->placed);
}

void fuzz_node_restore(struct fuzz_node *home)
{
    while (home->blocks != home->kept)
        block_free(home->blocks); /* new ones come before those that are kept */
    for (struct fuzz_block *block = home->kept; block; block = block->next) {
        if (block->given)
            ASAN_UNPOISON_MEMORY_REGION(memory_of(block), block->bytes);
        block->given = false;
        memcpy(memory_of(block), block->saved, block->bytes);
    }
    home->live_bytes = home->kept_bytes;
    home->allowed_bytes = UINT64_MAX;
    memcpy(home->view, home->view_saved, FUZZ_RANGE_BYTES);
    memcpy(home->access, home->access_saved, sizeof home->access);
    memcpy(home->threads, home->threads_saved, sizeof home->threads);
    memcpy(home->placed, home->placed_saved, sizeof home->placed);
}
