/* An arrival is a tally: the ballots that were brought below this node of the tree, equal ones counted once.  Inner nodes
 * merge the tallies of their children with their own; the root reads the last one and decides.  Of the intervals each is
 * passed on once.
 *
 *   ARRIVE := uint32 class, tally, uint32 intervals, interval*
 *   DEPART := uint32 class, uint32 outcome, uint64 root stamp, text, variant, ids, uint32 intervals, interval*
 *   tally  := uint32 variants, variant*, uint32 refusing node + 1, text, ids
 *   variant:= uint32 first node, uint32 nodes, uint32 kind, uint64 numbers[4], text what, text name, text value
 *   text   := uint32 bytes, bytes          ids := uint32 count, uint32 id*
 */
#include "protocol/meeting.h"

#include <stdio.h>
#include <string.h>

#include "protocol/node.h"

struct text {
    const char *bytes;
    uint32_t count;
};

struct variant {
    uint32_t first, nodes, kind;
    uint64_t numbers[4];
    struct text what, name, value;
};

struct tally {
    struct variant variants[MEETING_VARIANTS_MAX];
    uint32_t variant_count;
    uint32_t refusing; /* node + 1 */
    struct text refusal;
    uint32_t forgotten[MEETING_FORGOTTEN_MAX];
    uint32_t forgotten_count;
};

/* ---- the tree ------------------------------------------------------------------------------------------------ */

node_id tree_parent(node_id node)
{
    return node == 0 ? NODE_NONE : (node - 1) / TREE_CHILDREN;
}

node_id tree_child(node_id node, int k, node_id nodes)
{
    int64_t child = (int64_t)node * TREE_CHILDREN + 1 + k;
    return child < nodes ? (node_id)child : NODE_NONE;
}

const char *meeting_kind_name(enum meeting_kind kind)
{
    switch (kind) {
    case MEETING_BARRIER: return "barrier()";
    case MEETING_ALLOCATE: return "an allocation";
    case MEETING_FREE: return "free()";
    case MEETING_LOCK_NEW: return "the creation of a lock";
    case MEETING_COUNTER_NEW: return "the creation of a counter";
    case MEETING_FINALIZE: return "finalize()";
    case MEETING_COLLECT: return "a collection";
    case MEETING_KINDS: break;
    }
    return "an unknown call";
}

/* ---- reading and writing --------------------------------------------------------------------------------------- */

static void put_text(struct node *node, struct message *message, struct text text)
{
    message_put_u32(message, &node->pool, text.count);
    message_put_bytes(message, &node->pool, text.bytes, text.count);
}

static struct text read_text(struct reader *reader)
{
    struct text text = {.count = reader_u32(reader)};
    text.bytes = reader_bytes(reader, text.count);
    if (reader->bad)
        text.count = 0;
    return text;
}

static bool same_text(struct text a, struct text b)
{
    return a.count == b.count && (a.count == 0 || memcmp(a.bytes, b.bytes, a.count) == 0);
}

static void put_variant(struct node *node, struct message *message, const struct variant *variant)
{
    message_put_u32(message, &node->pool, variant->first);
    message_put_u32(message, &node->pool, variant->nodes);
    message_put_u32(message, &node->pool, variant->kind);
    for (int i = 0; i < 4; i++)
        message_put_u64(message, &node->pool, variant->numbers[i]);
    put_text(node, message, variant->what);
    put_text(node, message, variant->name);
    put_text(node, message, variant->value);
}

static struct variant read_variant(struct reader *reader)
{
    struct variant variant;
    variant.first = reader_u32(reader);
    variant.nodes = reader_u32(reader);
    variant.kind = reader_u32(reader);
    for (int i = 0; i < 4; i++)
        variant.numbers[i] = reader_u64(reader);
    variant.what = read_text(reader);
    variant.name = read_text(reader);
    variant.value = read_text(reader);
    if (variant.kind == 0 || variant.kind >= MEETING_KINDS)
        reader->bad = true;
    return variant;
}

static void put_ids(struct node *node, struct message *message, const uint32_t *ids, uint32_t count)
{
    message_put_u32(message, &node->pool, count);
    message_put_bytes(message, &node->pool, ids, count * sizeof *ids);
}

static uint32_t read_ids(struct reader *reader, uint32_t *ids)
{
    uint32_t count = reader_u32(reader);
    if (count > MEETING_FORGOTTEN_MAX)
        reader->bad = true;
    const void *bytes = reader_bytes(reader, reader->bad ? 0 : count * sizeof *ids);
    if (reader->bad)
        return 0;
    if (count)
        memcpy(ids, bytes, count * sizeof *ids);
    return count;
}

static void put_tally(struct node *node, struct message *message, const struct tally *tally)
{
    message_put_u32(message, &node->pool, tally->variant_count);
    for (uint32_t i = 0; i < tally->variant_count; i++)
        put_variant(node, message, &tally->variants[i]);
    message_put_u32(message, &node->pool, tally->refusing);
    put_text(node, message, tally->refusal);
    put_ids(node, message, tally->forgotten, tally->forgotten_count);
}

static void read_tally(struct reader *reader, struct tally *tally)
{
    tally->variant_count = reader_u32(reader);
    if (tally->variant_count == 0 || tally->variant_count > MEETING_VARIANTS_MAX)
        reader->bad = true;
    for (uint32_t i = 0; i < tally->variant_count && !reader->bad; i++)
        tally->variants[i] = read_variant(reader);
    tally->refusing = reader_u32(reader);
    tally->refusal = read_text(reader);
    tally->forgotten_count = read_ids(reader, tally->forgotten);
}

/* ---- merging ------------------------------------------------------------------------------------------------- */

static bool same_variant(const struct variant *a, const struct variant *b)
{
    return a->kind == b->kind && memcmp(a->numbers, b->numbers, sizeof a->numbers) == 0 &&
           same_text(a->what, b->what) && same_text(a->name, b->name) && same_text(a->value, b->value);
}

static void merge_variant(struct tally *into, const struct variant *variant)
{
    for (uint32_t i = 0; i < into->variant_count; i++)
        if (same_variant(&into->variants[i], variant)) {
            into->variants[i].nodes += variant->nodes;
            if (variant->first < into->variants[i].first)
                into->variants[i].first = variant->first;
            return;
        }
    /* Beyond the first few the differences are only counted: the text of the error has an end. */
    if (into->variant_count < MEETING_VARIANTS_MAX)
        into->variants[into->variant_count++] = *variant;
}

static void merge_tally(struct tally *into, const struct tally *tally)
{
    for (uint32_t i = 0; i < tally->variant_count; i++)
        merge_variant(into, &tally->variants[i]);
    if (tally->refusing && (!into->refusing || tally->refusing < into->refusing)) {
        into->refusing = tally->refusing;
        into->refusal = tally->refusal;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < into->forgotten_count; i++)
        for (uint32_t k = 0; k < tally->forgotten_count; k++)
            if (into->forgotten[i] == tally->forgotten[k]) {
                into->forgotten[kept++] = into->forgotten[i];
                break;
            }
    into->forgotten_count = kept;
}

/* ---- arriving ------------------------------------------------------------------------------------------------ */

static uint32_t forgotten_here(const struct node *node, uint32_t *ids)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < node->regions.grave_count && count < MEETING_FORGOTTEN_MAX; i++)
        if (node->regions.graves[i].forgotten &&
            !bulk_uses(node, node->regions.graves[i].offset, node->regions.graves[i].bytes))
            ids[count++] = node->regions.graves[i].id;
    return count;
}

static struct text text_of(const char *string)
{
    return (struct text){.bytes = string, .count = string ? (uint32_t)strlen(string) : 0};
}

static struct message *own_arrival(struct node *node, enum meeting_class which, const struct ballot *ballot)
{
    struct tally tally = {.variant_count = 1};
    struct variant *variant = &tally.variants[0];
    *variant = (struct variant){.first = (uint32_t)node->rank, .nodes = 1, .kind = (uint32_t)ballot->kind};
    memcpy(variant->numbers, ballot->numbers, sizeof variant->numbers);
    variant->what = text_of(ballot->what);
    variant->name = text_of(ballot->name);
    if (ballot->value)
        variant->value = (struct text){.bytes = ballot->value, .count = (uint32_t)ballot->numbers[2]};
    if (ballot->refusal) {
        tally.refusing = (uint32_t)node->rank + 1;
        tally.refusal = text_of(ballot->refusal);
    }
    if (ballot->kind == MEETING_ALLOCATE)
        tally.forgotten_count = forgotten_here(node, tally.forgotten);
    struct message *message = message_new(&node->pool, node->rank, MESSAGE_ARRIVE, RING_NEVER, 256);
    message_put_u32(message, &node->pool, which);
    put_tally(node, message, &tally);
    return message;
}

/* The intervals of an arrival that was read before: the reader stands at their count. */
static struct reader intervals_of(const struct message *message)
{
    struct reader reader = message_reader(message);
    struct tally skipped;
    reader_u32(&reader);
    read_tally(&reader, &skipped);
    return reader;
}

/* The longest list of a node's intervals among the arrivals, and who brought it. */
struct tail {
    stamp stamp;
    uint32_t from;
    uint32_t unused;
};

/* The bytes of the next interval, and whose it is. */
static const void *next_interval(struct node *node, const struct message *message, struct reader *reader,
                                 struct interval *head, uint64_t *bytes)
{
    const unsigned char *start = reader->at;
    const void *fixed = reader_bytes(reader, sizeof *head);
    if (fixed)
        memcpy(head, fixed, sizeof *head);
    if (!fixed || head->node < 0 || head->node >= node->size || head->stamp > node->stamp ||
        !reader_bytes(reader, head->run_count * (uint64_t)sizeof(struct run)))
        context_malformed(node, message);
    *bytes = (uint64_t)(reader->at - start);
    return start;
}

static void find_tails(struct node *node, struct message *const *from, uint32_t froms, struct tail *tails)
{
    struct interval head;
    uint64_t bytes;
    for (uint32_t i = 0; i < froms; i++) {
        struct reader reader = intervals_of(from[i]);
        for (uint32_t k = 0, count = reader_u32(&reader); k < count; k++) {
            next_interval(node, from[i], &reader, &head, &bytes);
            if (head.stamp > tails[head.node].stamp)
                tails[head.node] = (struct tail){.stamp = head.stamp, .from = i};
        }
        if (!reader_ended(&reader))
            context_malformed(node, from[i]);
    }
}

/* Every interval once.  What one arrival lists of a node begins where a cut ended and has no hole, so the list that
 * reaches furthest has all that the others have (but for what an earlier cut, which comes down first, has published). */
static void copy_intervals(struct node *node, struct message *to, struct message *const *from, uint32_t froms)
{
    uint32_t total = 0;
    uint64_t count_at = to->wire_bytes, bytes, room = (uint64_t)node->size * sizeof(struct tail);
    struct tail *tails = pool_take_zeroed(&node->pool, room);
    struct interval head;
    find_tails(node, from, froms, tails);
    message_put_u32(to, &node->pool, 0);
    for (uint32_t i = 0; i < froms; i++) {
        struct reader reader = intervals_of(from[i]);
        for (uint32_t k = 0, count = reader_u32(&reader); k < count; k++) {
            const void *interval = next_interval(node, from[i], &reader, &head, &bytes);
            if (tails[head.node].from != i)
                continue;
            message_put_bytes(to, &node->pool, interval, bytes);
            total++;
        }
    }
    memcpy(to->wire + count_at, &total, sizeof total);
    pool_give(&node->pool, tails, room);
}

static void depart(struct node *node, enum meeting_class which, const struct tally *tally, struct message *const *from,
                   uint32_t froms);

/* Everybody below has arrived: tell the parent, or decide. */
static void arrival_complete(struct node *node, enum meeting_class which)
{
    struct meeting *meeting = &node->meetings[which];
    struct message *from[TREE_CHILDREN + 1] = {meeting->own};
    uint32_t froms = 1;
    for (int k = 0; k < TREE_CHILDREN; k++)
        if (meeting->children[k])
            from[froms++] = meeting->children[k];
    struct tally tally, other;
    for (uint32_t i = 0; i < froms; i++) {
        struct reader reader = message_reader(from[i]);
        reader_u32(&reader);
        read_tally(&reader, i ? &other : &tally);
        if (reader.bad)
            context_malformed(node, from[i]);
        if (i)
            merge_tally(&tally, &other);
    }
    if (node->rank == 0) {
        depart(node, which, &tally, from, froms);
    } else {
        enum ring ring = which == MEETING_COLLECTION ? RING_NOW : RING_NEVER;
        struct message *up = message_new(&node->pool, tree_parent(node->rank), MESSAGE_ARRIVE, ring, 512);
        message_put_u32(up, &node->pool, which);
        put_tally(node, up, &tally);
        copy_intervals(node, up, from, froms);
        context_send(node, up);
    }
    for (uint32_t i = 0; i < froms; i++)
        message_release(from[i], &node->pool);
    meeting->own = NULL;
    memset(meeting->children, 0, sizeof meeting->children);
}

static void look_if_complete(struct node *node, enum meeting_class which)
{
    struct meeting *meeting = &node->meetings[which];
    if (!meeting->own || meeting->withheld)
        return;
    for (int k = 0; k < TREE_CHILDREN; k++)
        if (tree_child(node->rank, k, node->size) != NODE_NONE && !meeting->children[k])
            return;
    arrival_complete(node, which);
}

static void finish_arrival(struct node *node, enum meeting_class which)
{
    release_interval(node, NODE_NONE);
    notices_put(node, node->meetings[which].own, &(struct vector){0});
    look_if_complete(node, which);
}

void meeting_resume(struct node *node)
{
    struct meeting *meeting = &node->meetings[MEETING_THREADS];
    if (!meeting->withheld)
        return;
    meeting->withheld = false;
    finish_arrival(node, MEETING_THREADS);
}

void meeting_arrive(struct node *node, enum meeting_class which, const struct ballot *ballot)
{
    struct meeting *meeting = &node->meetings[which];
    if (meeting->state != MEETING_IDLE)
        context_panic(node, "meeting: arrived at %s while another is under way", meeting_kind_name(ballot->kind));
    context_event(node, EVENT_ARRIVE, NULL, (uint64_t)ballot->kind, tree_parent(node->rank));
    meeting->state = MEETING_ARRIVED;
    meeting->own = own_arrival(node, which, ballot);
    meeting->withheld = which == MEETING_THREADS && node->collection.owing;
    if (!meeting->withheld)
        finish_arrival(node, which);
}

void meeting_receive_arrive(struct node *node, struct message *message)
{
    struct reader reader = message_reader(message);
    uint32_t which = reader_u32(&reader);
    int k = (int)(message->peer - (node->rank * TREE_CHILDREN + 1));
    if (reader.bad || which >= MEETING_CLASSES || k < 0 || k >= TREE_CHILDREN || node->meetings[which].children[k])
        context_malformed(node, message);
    message->holders++;
    node->meetings[which].children[k] = message;
    look_if_complete(node, which);
}

/* ---- deciding, at the root ------------------------------------------------------------------------------------- */

/* How many bytes all the calls begin with. */
static uint32_t same_beginning(const struct tally *tally)
{
    uint32_t same = tally->variants[0].what.count;
    for (uint32_t i = 1; i < tally->variant_count; i++) {
        struct text what = tally->variants[i].what;
        uint32_t n = 0;
        while (n < same && n < what.count && what.bytes[n] == tally->variants[0].what.bytes[n])
            n++;
        same = n;
    }
    return same;
}

/* A call in at most so many bytes: where it is longer, its beginning and what comes where the calls begin to differ. */
static int show_call(char *text, size_t room, struct text what, uint32_t same, uint32_t most)
{
    enum { BEGINNING = 48, BEFORE = 24 };
    if (what.count <= most)
        return snprintf(text, room, "%.*s", (int)what.count, what.bytes);
    uint32_t from = same > BEGINNING + BEFORE ? same - BEFORE : BEGINNING;
    uint32_t left = what.count - from, rest = most - BEGINNING;
    return snprintf(text, room, "%.*s%s%.*s%s", BEGINNING, what.bytes, from > BEGINNING ? "..." : "",
                    (int)(left < rest ? left : rest), what.bytes + from, left > rest ? "..." : "");
}

static enum meeting_outcome decide(const struct tally *tally, char *text)
{
    enum { AROUND_BYTES = 64 }; /* the rank, and dots */
    size_t room = MEETING_TEXT_BYTES, used = 0;
    text[0] = 0;
    if (tally->variant_count > 1) {
        bool kinds = false;
        for (uint32_t i = 1; i < tally->variant_count; i++)
            kinds = kinds || tally->variants[i].kind != tally->variants[0].kind;
        uint32_t same = same_beginning(tally), most = MEETING_TEXT_BYTES / tally->variant_count - AROUND_BYTES;
        for (uint32_t i = 0; i < tally->variant_count; i++) {
            const struct variant *v = &tally->variants[i];
            char others[32] = "";
            if (v->nodes > 1)
                snprintf(others, sizeof others, " and %u more", v->nodes - 1);
            used += (size_t)snprintf(text + used, room - used, "%srank %u%s: ", i ? "; " : "", v->first, others);
            struct text what = v->what.count ? v->what : text_of(meeting_kind_name((enum meeting_kind)v->kind));
            used += (size_t)show_call(text + used, room - used, what, same, most);
        }
        return kinds ? MEETING_KINDS_DIFFER : MEETING_BALLOTS_DIFFER;
    }
    if (tally->refusing) {
        snprintf(text, room, "rank %u %.*s", tally->refusing - 1, (int)tally->refusal.count, tally->refusal.bytes);
        return MEETING_REFUSED;
    }
    return MEETING_AGREED;
}

static void depart(struct node *node, enum meeting_class which, const struct tally *tally, struct message *const *from,
                   uint32_t froms)
{
    char text[MEETING_TEXT_BYTES];
    enum meeting_outcome outcome = decide(tally, text);
    struct message *message = message_new(&node->pool, node->rank, MESSAGE_DEPART, RING_NEVER, 512);
    message_put_u32(message, &node->pool, which);
    message_put_u32(message, &node->pool, (uint32_t)outcome);
    message_put_u64(message, &node->pool, node->stamp);
    put_text(node, message, text_of(text));
    put_variant(node, message, &tally->variants[0]);
    put_ids(node, message, tally->forgotten, tally->forgotten_count);
    copy_intervals(node, message, from, froms);
    context_send(node, message);
}

/* ---- departing ----------------------------------------------------------------------------------------------- */

static void forward(struct node *node, const struct message *message, enum meeting_class which)
{
    for (int k = 0; k < TREE_CHILDREN; k++) {
        node_id child = tree_child(node->rank, k, node->size);
        if (child == NODE_NONE)
            continue;
        struct reader body = message_reader(message);
        uint64_t bytes = reader_left(&body);
        enum ring ring = which == MEETING_COLLECTION ? RING_NOW : RING_NEVER;
        struct message *copy = message_new(&node->pool, child, MESSAGE_DEPART, ring, bytes);
        message_put_bytes(copy, &node->pool, reader_bytes(&body, bytes), bytes);
        context_send(node, copy);
    }
}

/* Callers have checked what they call with; what comes from the wire is checked again. */
static bool can_carry_out(const struct node *node, const struct variant *agreed)
{
    if (agreed->kind != MEETING_ALLOCATE)
        return true;
    uint64_t page_bytes = agreed->numbers[1], granule = node->port.granule_bytes, value_bytes = agreed->value.count;
    return page_bytes >= granule && (page_bytes & (page_bytes - 1)) == 0 &&
           (value_bytes == 0 || (value_bytes <= granule && granule % value_bytes == 0));
}

static void copy_name(char *name, size_t room, struct text text)
{
    size_t bytes = text.count < room - 1 ? text.count : room - 1;
    if (bytes)
        memcpy(name, text.bytes, bytes);
    name[bytes] = 0;
}

static void carry_out(struct node *node, struct meeting *meeting, const struct variant *agreed,
                      const uint32_t *forgotten, uint32_t forgotten_count)
{
    for (uint32_t i = 0; i < forgotten_count; i++)
        region_release(&node->regions, &node->pool, forgotten[i]);
    switch ((enum meeting_kind)agreed->kind) {
    case MEETING_ALLOCATE: {
        char name[REGION_NAME_BYTES];
        copy_name(name, sizeof name, agreed->name);
        struct region *region = region_add(&node->regions, &node->pool, agreed->numbers[0], agreed->numbers[1],
                                           agreed->value.bytes, agreed->value.count, name);
        meeting->result = region ? region->id : 0;
        if (!region)
            meeting->outcome = MEETING_NO_SPACE;
        break;
    }
    case MEETING_FREE: {
        struct region *region = region_find(&node->regions, (region_id)agreed->numbers[0]);
        if (region)
            node_remove_region(node, region);
        break;
    }
    case MEETING_LOCK_NEW:
        meeting->result = node->lock_count;
        lock_add(node, meeting->result);
        copy_name(node->locks[meeting->result]->name, LOCK_NAME_BYTES, agreed->name);
        break;
    case MEETING_COUNTER_NEW:
        meeting->result = node->counter_count++;
        node->counters = pool_grow(&node->pool, node->counters, &node->counter_capacity, node->counter_count,
                                   sizeof *node->counters);
        node->counters[meeting->result] = (struct counter){.value = (int64_t)agreed->numbers[0]};
        copy_name(node->counters[meeting->result].name, COUNTER_NAME_BYTES, agreed->name);
        break;
    case MEETING_BARRIER:
    case MEETING_FINALIZE:
    case MEETING_COLLECT:
    case MEETING_KINDS: break;
    }
}

/* The simulator's dice: open pages before they are written (R10). */
static void open_early(struct node *node)
{
    if (!node->policy.preopen_permille && !node->policy.guess_permille)
        return;
    for (uint32_t i = 0; i < node->regions.count; i++)
        for (struct page_block *block = node->regions.live[i]->touched; block; block = block->next)
            for (int k = 0; k < REGION_BLOCK_PAGES; k++) {
                struct page *page = &block->pages[k];
                if (page_index(page) < page_region(page)->pages &&
                    context_chance(node, node->policy.preopen_permille) && page_valid(page) && writes_open(node, page))
                    protection_set(node, page, ACCESS_WRITE);
                if (page_index(page) < page_region(page)->pages && context_chance(node, node->policy.guess_permille))
                    preopened_open(node, page, context_chance(node, 500));
            }
}

void departure_receive(struct node *node, struct message *message)
{
    struct reader reader = message_reader(message);
    uint32_t which = reader_u32(&reader), outcome = reader_u32(&reader);
    stamp root_stamp = reader_u64(&reader);
    struct text text = read_text(&reader);
    struct variant agreed = read_variant(&reader);
    uint32_t forgotten[MEETING_FORGOTTEN_MAX], forgotten_count = read_ids(&reader, forgotten);
    /* It comes down the tree, and not before this node's own arrival has gone up. */
    if (reader.bad || which >= MEETING_CLASSES || outcome > MEETING_NO_SPACE ||
        message->peer != (node->rank ? tree_parent(node->rank) : 0) || node->meetings[which].state != MEETING_ARRIVED ||
        node->meetings[which].own || text.count >= MEETING_TEXT_BYTES ||
        (outcome == MEETING_AGREED && !can_carry_out(node, &agreed)))
        context_malformed(node, message);
    forward(node, message, (enum meeting_class)which);
    struct meeting *meeting = &node->meetings[which];
    struct reader intervals = reader;
    notices_apply(node, message, &reader);
    cut_pass(node, message, intervals);
    meeting->outcome = (enum meeting_outcome)outcome;
    if (text.count)
        memcpy(meeting->text, text.bytes, text.count);
    meeting->text[text.count] = 0;
    meeting->state = MEETING_DEPARTED;
    meeting->passed++;
    context_event(node, EVENT_DEPART, NULL, agreed.kind, message->peer);
    if (which == MEETING_COLLECTION) {
        meeting->state = MEETING_IDLE;
        collection_departed(node, root_stamp);
    } else {
        node->stats.barriers++;
        if (outcome == MEETING_AGREED)
            carry_out(node, meeting, &agreed, forgotten, forgotten_count);
        open_early(node);
    }
    update_bring(node);
    node->redeliver = true;
    if (node->policy.check_meetings)
        check_node(node);
    node->wake = true;
}

bool meeting_take(struct node *node, enum meeting_class which)
{
    struct meeting *meeting = &node->meetings[which];
    if (meeting->state != MEETING_DEPARTED)
        return false;
    meeting->state = MEETING_IDLE;
    return true;
}
