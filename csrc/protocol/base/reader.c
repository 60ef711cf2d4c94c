/* Fields lie in the message at any alignment, so they are copied. */
#include "protocol/base/reader.h"

#include <string.h>

struct reader reader_of(const struct message *message)
{
    return (struct reader){.at = message->wire + sizeof(struct message_header),
                           .end = message->wire + message->wire_bytes};
}

const void *reader_bytes(struct reader *reader, uint64_t count)
{
    if (count > reader_left(reader)) {
        reader->bad = true;
        return NULL;
    }
    const void *bytes = reader->at;
    reader->at += count;
    return bytes;
}

uint32_t reader_u32(struct reader *reader)
{
    uint32_t value = 0;
    const void *bytes = reader_bytes(reader, sizeof value);
    if (bytes)
        memcpy(&value, bytes, sizeof value);
    return value;
}

uint64_t reader_u64(struct reader *reader)
{
    uint64_t value = 0;
    const void *bytes = reader_bytes(reader, sizeof value);
    if (bytes)
        memcpy(&value, bytes, sizeof value);
    return value;
}

void reader_vector(struct reader *reader, struct pool *pool, node_id nodes, stamp floor, struct vector *vector)
{
    uint32_t count = reader_u32(reader);
    for (uint32_t i = 0; i < count && !reader->bad; i++) {
        uint32_t node = reader_u32(reader);
        stamp entry = reader_u64(reader);
        if (node >= (uint32_t)nodes)
            reader->bad = true;
        else if (entry > floor && !reader->bad)
            vector_raise(vector, pool, (node_id)node, entry);
    }
}

uint64_t reader_left(const struct reader *reader)
{
    return (uint64_t)(reader->end - reader->at);
}

bool reader_ended(const struct reader *reader)
{
    return !reader->bad && reader->at == reader->end;
}
