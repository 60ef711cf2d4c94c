/* What the unit tests need beyond the protocol's own functions: a port without a world, and a way to survive a panic. */
#include "native_unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES_MAX = 64 << 20 };

struct chunk_head {
    struct chunk_head *next, **link;
    size_t bytes;
    uint64_t unused;
};

static void die(void *context, const char *text)
{
    struct box *box = context;
    snprintf(box->panic, sizeof box->panic, "%s", text);
    if (!box->guarded) {
        fprintf(stderr, "panic outside of a guard: %s\n", text);
        abort();
    }
    longjmp(*(jmp_buf *)box->escape, 1);
}

static int protect(void *context, uint64_t offset, uint64_t bytes, enum access access)
{
    struct box *box = context;
    box->protects++;
    if (offset + bytes > box->port.range_bytes)
        die(box, "protect beyond the range");
    memset(box->access + offset / box->port.granule_bytes, (int)access, bytes / box->port.granule_bytes);
    return 0;
}

static void discard(void *context, uint64_t offset, uint64_t bytes)
{
    struct box *box = context;
    memset(box->port.view + offset, 0, bytes);
}

static void *chunk(void *context, size_t bytes)
{
    struct box *box = context;
    if (bytes > CHUNK_BYTES_MAX)
        die(box, "a chunk of absurd size");
    struct chunk_head *head = calloc(1, sizeof *head + bytes);
    if (!head)
        abort();
    head->bytes = bytes;
    head->next = box->chunks;
    head->link = (struct chunk_head **)&box->chunks;
    if (head->next)
        head->next->link = &head->next;
    box->chunks = head;
    box->chunk_count++;
    return head + 1;
}

static void chunk_free(void *context, void *memory, size_t bytes)
{
    struct box *box = context;
    struct chunk_head *head = (struct chunk_head *)memory - 1;
    if (head->bytes != bytes)
        die(box, "a chunk is given back with another size");
    if (head->next)
        head->next->link = head->link;
    *head->link = head->next;
    box->chunk_count--;
    free(head);
}

struct box *box_new(uint64_t range_bytes, uint32_t granule_bytes)
{
    struct box *box = calloc(1, sizeof *box);
    if (!box)
        abort();
    box->port = (struct port){
        .context = box,
        .view = calloc(1, range_bytes),
        .range_bytes = range_bytes,
        .granule_bytes = granule_bytes,
        .edges_max = UINT32_MAX,
        .protect = protect,
        .discard = discard,
        .chunk = chunk,
        .chunk_free = chunk_free,
        .panic = die,
    };
    box->access = calloc(1, range_bytes / granule_bytes);
    box->escape = malloc(sizeof(jmp_buf));
    if (!box->port.view || !box->access || !box->escape)
        abort();
    pool_init(&box->pool, &box->port);
    return box;
}

void box_free(struct box *box)
{
    for (struct chunk_head *head = box->chunks, *next; head; head = next) {
        next = head->next;
        free(head);
    }
    free(box->port.view);
    free(box->access);
    free(box->escape);
    free(box);
}

/* The text of the panic of what is done in between, or NULL. */
#define GUARDED(box, action)                          \
    do {                                              \
        (box)->guarded = true;                        \
        if (setjmp(*(jmp_buf *)(box)->escape) == 0) { \
            action;                                   \
            (box)->guarded = false;                   \
            return NULL;                              \
        }                                             \
        (box)->guarded = false;                       \
        return (box)->panic;                          \
    } while (0)

const char *box_log_check(struct box *box, const struct interval_log *log, stamp cut)
{
    GUARDED(box, interval_check(log, cut, &box->port));
}

const char *box_vector_check(struct box *box, const struct vector *vector)
{
    GUARDED(box, vector_check(vector, &box->port));
}

struct node *box_node(struct box *box, int rank, int size)
{
    struct node_options options = {
        .number = rank, .spaces = 1, .ranks = (uint32_t)size, .size = size, .budget_bytes = 1 << 30};
    box->port.rank = (uint32_t)rank;
    return node_new(&options, &box->port);
}

const char *box_node_free(struct box *box, struct node *node)
{
    GUARDED(box, node_free(node));
}

const char *box_receive(struct box *box, struct node *node, int from, const void *bytes, uint64_t count)
{
    void *wire = pool_take_persistent(&node->pool, count);
    memcpy(wire, bytes, count);
    GUARDED(box, node_receive(node, message_wrap(&node->pool, from, from, wire, count)));
}

const char *box_barrier(struct box *box, struct node *node)
{
    GUARDED(box, if (meeting_join(node, 0, node->port->rank) == MEETING_ARRIVES) meeting_arrive(node, MEETING_THREADS);
            node_settle(node));
}

uint64_t box_take(struct node *node, void *bytes, uint64_t room)
{
    struct message *message = node_take_outbox(node);
    if (!message)
        return 0;
    uint64_t count = message->wire_bytes <= room ? message->wire_bytes : 0;
    memcpy(bytes, message->wire, count);
    for (struct message *other = message->next, *next; other; other = next) {
        next = other->next;
        context_send(node, other);
    }
    message_free(message, &node->pool);
    return count;
}
