/* One growing buffer per message, header first, so that what is built is what is sent. */
#include "protocol/base/message.h"

#include <string.h>

struct message *message_new(struct pool *pool, node_id peer, enum message_kind kind, enum ring ring,
                            uint64_t body_bytes)
{
    struct message *message = pool_take(pool, sizeof *message);
    *message = (struct message){.peer = peer, .rank = RANK_ANY, .ring = (uint8_t)ring, .holders = 1};
    message->wire_capacity = sizeof(struct message_header) + body_bytes;
    message->wire = pool_take_persistent(pool, message->wire_capacity);
    message->wire_bytes = sizeof(struct message_header);
    struct message_header header = {.magic = MESSAGE_MAGIC, .kind = (uint8_t)kind};
    memcpy(message->wire, &header, sizeof header);
    return message;
}

struct message *message_answer(struct pool *pool, const struct message *request, enum message_kind kind,
                               uint64_t body_bytes)
{
    struct message *message = message_new(pool, request->peer, kind, RING_NEVER, body_bytes);
    message->rank = request->rank;
    return message;
}

struct message *message_wrap(struct pool *pool, node_id peer, int32_t rank, void *wire, uint64_t bytes)
{
    struct message *message = pool_take(pool, sizeof *message);
    *message = (struct message){
        .peer = peer, .rank = rank, .holders = 1, .wire = wire, .wire_bytes = bytes, .wire_capacity = bytes};
    return message;
}

struct message_header *message_header(const struct message *message)
{
    return (struct message_header *)(void *)message->wire;
}

void message_free(struct message *message, struct pool *pool)
{
    message_unlink(message);
    if (message->wire)
        pool_give_persistent(pool, message->wire, message->wire_capacity);
    for (int i = 0; i < message->segment_count; i++)
        if (!message->segments[i].in_place || message->segments[i].untouched)
            pool_give_persistent(pool, message->segments[i].at, message->segments[i].bytes);
    if (message->segments)
        pool_give_persistent(pool, message->segments, MESSAGE_SEGMENTS_MAX * sizeof *message->segments);
    pool_give(pool, message, sizeof *message);
}

void message_release(struct message *message, struct pool *pool)
{
    if (--message->holders == 0)
        message_free(message, pool);
}

void *message_space(struct message *message, struct pool *pool, uint64_t bytes)
{
    if (message->wire_bytes + bytes > message->wire_capacity) {
        uint64_t capacity = 2 * message->wire_capacity;
        if (capacity < message->wire_bytes + bytes)
            capacity = message->wire_bytes + bytes;
        unsigned char *grown = pool_take_persistent(pool, capacity);
        memcpy(grown, message->wire, message->wire_bytes);
        pool_give_persistent(pool, message->wire, message->wire_capacity);
        message->wire = grown;
        message->wire_capacity = capacity;
    }
    void *space = message->wire + message->wire_bytes;
    message->wire_bytes += bytes;
    return space;
}

void message_put_u32(struct message *message, struct pool *pool, uint32_t value)
{
    memcpy(message_space(message, pool, sizeof value), &value, sizeof value);
}

void message_put_u64(struct message *message, struct pool *pool, uint64_t value)
{
    memcpy(message_space(message, pool, sizeof value), &value, sizeof value);
}

void message_put_bytes(struct message *message, struct pool *pool, const void *bytes, uint64_t count)
{
    if (count)
        memcpy(message_space(message, pool, count), bytes, count);
}

uint64_t message_put_count(struct message *message, struct pool *pool)
{
    message_put_u32(message, pool, 0);
    return message->wire_bytes - sizeof(uint32_t);
}

void message_set_count(struct message *message, uint64_t at, uint32_t count)
{
    memcpy(message->wire + at, &count, sizeof count);
}

void message_put_vector(struct message *message, struct pool *pool, const struct vector *vector)
{
    message_put_u32(message, pool, vector->count);
    for (uint32_t i = 0; i < vector->count; i++) {
        struct vector_entry entry = vector_at(vector, i);
        message_put_u32(message, pool, (uint32_t)entry.node);
        message_put_u64(message, pool, entry.stamp);
    }
}

struct segment *message_segment(struct message *message, struct pool *pool)
{
    if (!message->segments)
        message->segments = pool_take_persistent(pool, MESSAGE_SEGMENTS_MAX * sizeof *message->segments);
    return &message->segments[message->segment_count++];
}

void message_link(struct message **list, struct message *message)
{
    message->bulk_next = *list;
    message->bulk_link = list;
    if (message->bulk_next)
        message->bulk_next->bulk_link = &message->bulk_next;
    *list = message;
}

void message_unlink(struct message *message)
{
    if (!message->bulk_link)
        return;
    *message->bulk_link = message->bulk_next;
    if (message->bulk_next)
        message->bulk_next->bulk_link = message->bulk_link;
    message->bulk_link = NULL;
}
