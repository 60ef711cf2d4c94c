/* Lists of messages, not marks on pages: few are under way at a time, and pages are many. */
#include "protocol/apart.h"

#include "protocol/node.h"

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
    return node->sending && overlaps(node->sending, page_offset(page), page_region(page)->page_bytes);
}

bool bulk_uses(const struct node *node, uint64_t offset, uint64_t bytes)
{
    return overlaps(node->sending, offset, bytes) || overlaps(node->arriving, offset, bytes);
}

void bulk_put(struct node *node, struct message *message, uint64_t offset, uint64_t bytes)
{
    struct segment *segment = message_segment(message, &node->pool);
    *segment = (struct segment){.offset = offset, .bytes = bytes, .at = node->port.view + offset, .in_place = true};
    if (!message->bulk_link)
        message_link(&node->sending, message);
}

void node_sent(struct node *node, struct message *message)
{
    message_free(message, &node->pool);
    fetch_resume(node);
    node->wake = true;
    node_settle(node);
}
