/* Arrays that come and go in a loop have the same size as a rule: a piece that is given back serves the next one of its
 * size. */
#include "runtime/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "machine/clock.h"

#define LEDGER_ROOM ((uint64_t)1 << 23) /* pages: 32 GiB of arrays; fewer where the machine refuses */

enum { ROOM_LEAST = 1 << 12, TICK_NS = 100 * 1000 };

struct ledger *ledger_new(const struct runtime *runtime)
{
    struct ledger *ledger = calloc(1, sizeof *ledger);
    if (!ledger)
        return NULL;
    ledger->regions = calloc(LEDGER_REGIONS, sizeof *ledger->regions);
    ledger->asked = calloc(runtime->nodes.count, sizeof *ledger->asked);
    for (ledger->room = LEDGER_ROOM; !ledger->memory && ledger->room >= ROOM_LEAST; ledger->room /= 2)
        ledger->memory = calloc(ledger->room, sizeof *ledger->memory);
    if (!ledger->regions || !ledger->asked || !ledger->memory)
        return NULL;
    ledger->began_ns = clock_now_ns();
    ledger->alone = runtime->nodes.spaces == 1;
    atomic_store(&ledger->peer, NODE_NONE);
    return ledger;
}

void ledger_watch(struct ledger *ledger, uint32_t region, uint64_t pages)
{
    struct ledger_piece piece = {.count = pages};
    for (uint32_t i = 0; i < ledger->spares && !piece.pages; i++)
        if (ledger->spare[i].count == pages) {
            piece = ledger->spare[i];
            ledger->spare[i] = ledger->spare[--ledger->spares];
        }
    if (!piece.pages && pages <= ledger->room - ledger->used) {
        piece.pages = ledger->memory + ledger->used;
        ledger->used += pages;
    }
    if (piece.pages && region < LEDGER_REGIONS)
        ledger->regions[region] = piece;
    else
        ledger->left++;
}

void ledger_unwatch(struct ledger *ledger, uint32_t region)
{
    if (region >= LEDGER_REGIONS || !ledger->regions[region].pages)
        return;
    struct ledger_piece *piece = &ledger->regions[region];
    memset(piece->pages, 0, piece->count * sizeof *piece->pages);
    if (ledger->spares < LEDGER_SPARE)
        ledger->spare[ledger->spares++] = *piece;
    *piece = (struct ledger_piece){0};
}

const struct dsm_profile_page *ledger_pages(const struct ledger *ledger, uint32_t region)
{
    return region < LEDGER_REGIONS ? ledger->regions[region].pages : NULL;
}

static struct dsm_profile_page *page_of(struct ledger *ledger, uint32_t region, uint64_t page)
{
    if (region >= LEDGER_REGIONS || page >= ledger->regions[region].count)
        return NULL;
    return &ledger->regions[region].pages[page];
}

/* Where several processes are one node, its intervals do not say which of them has written. */
static void note_written(const struct ledger *ledger, struct dsm_profile_page *page, bool tells)
{
    if (tells && !page->first_written)
        page->first_written = (uint32_t)((clock_now_ns() - ledger->began_ns) / TICK_NS + 1);
}

static void note_contest(struct dsm_profile_page *page, uint64_t phase, node_id rival)
{
    if (page->phase != (uint32_t)phase)
        page->contested++;
    page->phase = (uint32_t)phase;
    page->rivals |= (uint64_t)1 << (rival % 64);
}

static void note_page(struct runtime *runtime, struct ledger *ledger, const struct event *event,
                      struct dsm_profile_page *page)
{
    switch (event->kind) {
    case EVENT_FAULT_READ: page->read++; break;
    case EVENT_FAULT_WRITE:
        page->opened++;
        note_written(ledger, page, true);
        break;
    case EVENT_OPEN:
        page->opened++;
        note_written(ledger, page, !ledger->alone);
        break;
    case EVENT_FETCHED: page->fetched++; break;
    case EVENT_CONTEST: note_contest(page, runtime->node->cuts + 1, event->peer); break;
    case EVENT_COMMON: page->common_bytes += page->contested ? (uint32_t)event->amount : 0; break;
    case EVENT_APPLY: page->diff_bytes += page->contested ? (uint32_t)event->amount : 0; break;
    case EVENT_WROTE:
        for (uint64_t i = 0; i < event->amount && page_of(ledger, event->region, event->object + i); i++) {
            page[i].written++;
            note_written(ledger, page + i, ledger->alone);
        }
        break;
    default: break;
    }
}

static void add(_Atomic uint64_t *total, uint64_t amount)
{
    atomic_fetch_add_explicit(total, amount, memory_order_relaxed);
}

static void note_source(struct ledger *ledger, node_id peer)
{
    atomic_store_explicit(&ledger->peer, peer, memory_order_relaxed);
    add(&ledger->sources, 1);
}

static void note_total(struct ledger *ledger, const struct event *event)
{
    switch (event->kind) {
    case EVENT_FETCHED: add(&ledger->pages, 1); break;
    case EVENT_WROTE: add(&ledger->runs, 1); break;
    case EVENT_INSTALL: add(&ledger->bytes, event->amount); break;
    case EVENT_APPLY:
        add(&ledger->bytes, event->amount);
        note_source(ledger, event->peer);
        break;
    case EVENT_FETCH:
        ledger->asked[event->peer]++;
        note_source(ledger, event->peer);
        break;
    default: break;
    }
}

void ledger_note(struct runtime *runtime, struct ledger *ledger, const struct event *event)
{
    enum {
        OF_PAGES = 1 << EVENT_OPEN | 1 << EVENT_FAULT_READ | 1 << EVENT_FAULT_WRITE | 1 << EVENT_FETCHED |
        1 << EVENT_CONTEST | 1 << EVENT_COMMON | 1 << EVENT_APPLY | 1 << EVENT_WROTE
    };
    note_total(ledger, event);
    struct dsm_profile_page *page = OF_PAGES >> event->kind & 1 ? page_of(ledger, event->region, event->object) : NULL;
    if (page)
        note_page(runtime, ledger, event, page);
}
