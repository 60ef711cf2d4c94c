#include "offers.h"

#include "board.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_FIRST = 256 };

/* The parts of the `number`-th message whose parts this rank has offered to the peer. */
struct offer {
    int peer;
    uint64_t number;
    void *token;
};

int offers_open(struct offers *offers, int size, const struct transport_buffers *buffers)
{
    offers->buffers = buffers;
    offers->made = calloc((size_t)size, sizeof *offers->made);
    return offers->made ? 0 : -1;
}

void offers_close(struct offers *offers)
{
    memory_chunk_free(offers->items, offers->capacity * sizeof *offers->items);
    free(offers->made);
}

bool offers_make(struct offers *offers, int peer, void *token)
{
    if (!offers->board || !board_copied_by(offers->board, peer))
        return false;
    if (offers->count == offers->capacity) {
        size_t old = offers->capacity, new = old ? 2 * old : LIST_FIRST;
        offers->items = memory_chunk_grow(offers->items, old * sizeof *offers->items, new * sizeof *offers->items);
        if (!offers->items)
            offers->buffers->broken(offers->buffers->context, "no memory for the list of messages under way");
        offers->capacity = (unsigned)new;
    }
    offers->items[offers->count++] = (struct offer){.peer = peer, .number = ++offers->made[peer], .token = token};
    return true;
}

void offers_poll(struct offers *offers)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < offers->count; i++) {
        struct offer offer = offers->items[i];
        if (board_taken(offers->board, offer.peer) < offer.number)
            offers->items[kept++] = offer;
        else
            offers->buffers->sent(offers->buffers->context, offer.token);
    }
    offers->count = kept;
}

void offers_copy(struct offers *offers, int source, const struct transport_part *parts, int count)
{
    for (int i = 0; i < count; i++) {
        if (parts[i].offset == TRANSPORT_NOWHERE)
            continue;
        int error = board_copy(offers->board, source, parts[i].offset, parts[i].at, parts[i].bytes);
        if (error) {
            char text[128];
            snprintf(text, sizeof text, "reading the memory of rank %d failed: %s", source, strerror(-error));
            offers->buffers->broken(offers->buffers->context, text);
        }
        offers->copied += parts[i].bytes;
    }
    board_took(offers->board, source);
}
