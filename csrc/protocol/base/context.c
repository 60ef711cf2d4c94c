/* Small things that every layer needs; node/node.c decides what happens to messages. */
#include "protocol/base/context.h"

#include <stdarg.h>
#include <stdio.h>

stamp context_tick(struct node *node)
{
    return ++node->stamp;
}

void context_send(struct node *node, struct message *message)
{
    message->next = NULL;
    struct message ***end = message->peer == node->number ? &node->to_self_end : &node->outbox_end;
    **end = message;
    *end = &message->next;
}

void context_defer(struct node *node, struct message *message)
{
    message->holders++;
    message->next = NULL;
    *node->deferred_end = message;
    node->deferred_end = &message->next;
}

const char *context_event_name(enum event_kind kind)
{
    static const char *const names[EVENT_KINDS] = {
        "none",   "fault read", "fault write", "fetch",   "serve", "install", "apply",  "seal",  "open",
        "stale",  "close",      "acquire",     "release", "ask",   "pass",    "grant",  "token", "arrive",
        "depart", "collect",    "give up",     "fetched", "wrote", "contest", "common",
    };
    return kind < EVENT_KINDS ? names[kind] : "unknown";
}

void context_note(struct node *node, struct event event)
{
    if (context_noted(node))
        node->port->note(node->port->context, &event);
}

void context_page_event(struct node *node, enum event_kind kind, region_id region, uint64_t page, node_id peer,
                        uint64_t amount)
{
    struct event event = {
        .stamp = node->stamp, .object = page, .amount = amount, .region = region, .peer = peer, .kind = kind};
    node->events[node->event_count++ % EVENTS_KEPT] = event;
    context_note(node, event);
}

void context_event(struct node *node, enum event_kind kind, uint64_t object, node_id peer)
{
    context_page_event(node, kind, 0, object, peer, 0);
}

void context_panic(const struct node *node, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    node->port->panic(node->port->context, text);
    __builtin_trap(); /* a port that returns would let a broken protocol go on */
}

void context_malformed(const struct node *node, const struct message *message)
{
    const struct message_header *header = message_header(message);
    context_panic(node, "malformed message of kind %u from rank %d (%llu bytes)", header->kind, message->peer,
                  (unsigned long long)message->wire_bytes);
}

bool context_chance(struct node *node, uint32_t permille)
{
    if (permille == 0)
        return false;
    uint32_t x = node->policy.random_state; /* xorshift (Marsaglia 2003) */
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    node->policy.random_state = x;
    return x % 1000 < permille;
}

stamp context_known(const struct node *node, const struct vector *have, node_id writer)
{
    stamp known = vector_get(have, writer);
    return known < node->collection.floor ? node->collection.floor : known;
}
