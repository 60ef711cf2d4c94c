/* Lists of messages, not marks on pages: few transfers are under way at a time, and pages are many. */
#include "protocol/coherence/bulk.h"

static bool overlaps(const struct message *list, uint64_t offset, uint64_t bytes)
{
    for (const struct message *message = list; message; message = message->bulk_next)
        for (int i = 0; i < message->segment_count; i++) {
            const struct segment *segment = &message->segments[i];
            if (segment->in_place && segment->offset < offset + bytes && offset < segment->offset + segment->bytes)
                return true;
        }
    return false;
}

bool bulk_leaves(const struct node *node, const struct page *page)
{
    return node->bulk->sending && overlaps(node->bulk->sending, page_offset(page), page_region(page)->page_bytes);
}

bool bulk_uses(const struct node *node, uint64_t offset, uint64_t bytes)
{
    return overlaps(node->bulk->sending, offset, bytes) || overlaps(node->bulk->arriving, offset, bytes);
}

void bulk_put(struct node *node, struct message *message, uint64_t offset, uint64_t bytes)
{
    context_assert(node, bytes > 0, "bulk: an empty segment");
    context_assert(node, offset + bytes <= node->port->range_bytes, "bulk: a segment reaches beyond the range");
    context_assert(node, message->segment_count < MESSAGE_SEGMENTS_MAX, "bulk: a message with too many segments");
    struct segment *segment = message_segment(message, &node->pool);
    *segment = (struct segment){.offset = offset, .bytes = bytes, .at = node->port->view + offset, .in_place = true};
    if (!message->bulk_link)
        message_link(&node->bulk->sending, message);
}

bool bulk_worth(struct node *node, const struct message *message, uint64_t bytes)
{
    if (message->segment_count == MESSAGE_SEGMENTS_MAX || bytes > BULK_BYTES_MAX)
        return false;
    switch (node->policy.bulk) {
    case BULK_NEVER: return false;
    case BULK_ALWAYS: return true;
    case BULK_RANDOM: return context_chance(node, 500);
    case BULK_AUTO: break;
    }
    return bytes >= BULK_BYTES_MIN;
}
