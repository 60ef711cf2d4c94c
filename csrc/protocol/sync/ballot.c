/* Beyond the first few ballots that differ, the ranks that cast them are only counted: the text of an error has an
 * end. */
#include "protocol/sync/ballot.h"

#include <stdio.h>
#include <string.h>

const char *ballot_kind_name(enum meeting_kind kind)
{
    switch (kind) {
    case MEETING_BARRIER: return "barrier()";
    case MEETING_ALLOCATE: return "an allocation";
    case MEETING_FREE: return "free()";
    case MEETING_RECOUNT: return "the count of what was made";
    case MEETING_FINALIZE: return "dsm.finalize()";
    case MEETING_COLLECT: return "a collection";
    case MEETING_KINDS: break;
    }
    return "an unknown call";
}

/* ---- reading and writing ---------------------------------------------------------------------------------------- */

static void put_text(struct node *node, struct message *message, struct ballot_text text)
{
    message_put_u32(message, &node->pool, text.count);
    message_put_bytes(message, &node->pool, text.bytes, text.count);
}

static struct ballot_text read_text(struct reader *reader)
{
    struct ballot_text text = {.count = reader_u32(reader)};
    text.bytes = reader_bytes(reader, text.count);
    if (reader->bad)
        text.count = 0;
    return text;
}

static bool same_text(struct ballot_text a, struct ballot_text b)
{
    return a.count == b.count && (a.count == 0 || memcmp(a.bytes, b.bytes, a.count) == 0);
}

static void put_variant(struct node *node, struct message *message, const struct variant *variant)
{
    message_put_u32(message, &node->pool, variant->first);
    message_put_u32(message, &node->pool, variant->ranks);
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
    variant.ranks = reader_u32(reader);
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
    if (count > BALLOT_FORGOTTEN_MAX)
        reader->bad = true;
    const void *bytes = reader_bytes(reader, reader->bad ? 0 : count * sizeof *ids);
    if (reader->bad)
        return 0;
    if (count)
        memcpy(ids, bytes, count * sizeof *ids);
    return count;
}

void ballot_put(struct node *node, struct message *message, const struct tally *tally)
{
    message_put_u32(message, &node->pool, tally->variant_count);
    for (uint32_t i = 0; i < tally->variant_count; i++)
        put_variant(node, message, &tally->variants[i]);
    message_put_u32(message, &node->pool, tally->refusing);
    put_text(node, message, tally->refusal);
    put_ids(node, message, tally->forgotten, tally->forgotten_count);
}

void ballot_read(struct reader *reader, struct tally *tally)
{
    tally->variant_count = reader_u32(reader);
    if (tally->variant_count == 0 || tally->variant_count > BALLOT_VARIANTS_MAX)
        reader->bad = true;
    for (uint32_t i = 0; i < tally->variant_count && !reader->bad; i++)
        tally->variants[i] = read_variant(reader);
    tally->refusing = reader_u32(reader);
    tally->refusal = read_text(reader);
    tally->forgotten_count = read_ids(reader, tally->forgotten);
}

/* ---- casting and merging ---------------------------------------------------------------------------------------- */

static bool same_variant(const struct variant *a, const struct variant *b)
{
    return a->kind == b->kind && memcmp(a->numbers, b->numbers, sizeof a->numbers) == 0 &&
           same_text(a->what, b->what) && same_text(a->name, b->name) && same_text(a->value, b->value);
}

/* Of a count the largest one is wanted: equal or not, it is one variant. */
static bool count_more(struct variant *into, const struct variant *variant)
{
    if (into->kind != MEETING_RECOUNT || variant->kind != MEETING_RECOUNT)
        return false;
    if (into->numbers[0] < variant->numbers[0])
        into->numbers[0] = variant->numbers[0];
    return true;
}

static void merge_variant(struct tally *into, const struct variant *variant)
{
    for (uint32_t i = 0; i < into->variant_count; i++)
        if (count_more(&into->variants[i], variant) || same_variant(&into->variants[i], variant)) {
            into->variants[i].ranks += variant->ranks;
            if (variant->first < into->variants[i].first)
                into->variants[i].first = variant->first;
            return;
        }
    /* Beyond the first few the differences are only counted: the text of the error has an end. */
    if (into->variant_count < BALLOT_VARIANTS_MAX)
        into->variants[into->variant_count++] = *variant;
}

void ballot_merge(struct tally *into, const struct tally *tally)
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

static struct ballot_text text_of(const char *string)
{
    return (struct ballot_text){.bytes = string, .count = string ? (uint32_t)strlen(string) : 0};
}

struct tally ballot_cast(const struct node *node, const struct ballot *ballot)
{
    context_assert(node, ballot->kind > 0, "ballot: a ballot without a call");
    context_assert(node, ballot->kind < MEETING_KINDS, "ballot: a ballot of an unknown call");
    struct tally tally = {.variant_count = 1};
    struct variant *variant = &tally.variants[0];
    *variant = (struct variant){.first = node->port->rank, .ranks = 1, .kind = (uint32_t)ballot->kind};
    memcpy(variant->numbers, ballot->numbers, sizeof variant->numbers);
    variant->what = text_of(ballot->what);
    variant->name = text_of(ballot->name);
    if (ballot->value)
        variant->value = (struct ballot_text){.bytes = ballot->value, .count = (uint32_t)ballot->numbers[2]};
    if (ballot->refusal) {
        tally.refusing = node->port->rank + 1;
        tally.refusal = text_of(ballot->refusal);
    }
    return tally;
}

void ballot_count_barrier(struct tally *tally, uint32_t rank, uint64_t made)
{
    struct variant *variant = &tally->variants[0];
    if (tally->variant_count == 0)
        *variant = (struct variant){.first = rank, .kind = MEETING_BARRIER, .numbers = {[BALLOT_MADE] = made}};
    tally->variant_count = 1;
    variant->ranks++;
    if (rank < variant->first)
        variant->first = rank;
}

/* ---- deciding --------------------------------------------------------------------------------------------------- */

/* How many bytes all the calls begin with. */
static uint32_t same_beginning(const struct tally *tally)
{
    uint32_t same = tally->variants[0].what.count;
    for (uint32_t i = 1; i < tally->variant_count; i++) {
        struct ballot_text what = tally->variants[i].what;
        uint32_t n = 0;
        while (n < same && n < what.count && what.bytes[n] == tally->variants[0].what.bytes[n])
            n++;
        same = n;
    }
    return same;
}

/* A call in at most so many bytes: where it is longer, its beginning and the part where the calls begin to differ. */
static int show_call(char *text, size_t room, struct ballot_text what, uint32_t same, uint32_t most)
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
    size_t room = BALLOT_TEXT_BYTES, used = 0;
    text[0] = 0;
    if (tally->variant_count > 1) {
        bool kinds = false, made = false;
        for (uint32_t i = 1; i < tally->variant_count; i++) {
            kinds |= tally->variants[i].kind != tally->variants[0].kind;
            made |= tally->variants[i].numbers[BALLOT_MADE] != tally->variants[0].numbers[BALLOT_MADE];
        }
        uint32_t same = same_beginning(tally), most = BALLOT_TEXT_BYTES / tally->variant_count - AROUND_BYTES;
        for (uint32_t i = 0; i < tally->variant_count; i++) {
            const struct variant *v = &tally->variants[i];
            char others[32] = "";
            if (v->ranks > 1)
                snprintf(others, sizeof others, " and %u more", v->ranks - 1);
            used += (size_t)snprintf(text + used, room - used, "%srank %u%s: ", i ? "; " : "", v->first, others);
            struct ballot_text what = v->what.count ? v->what : text_of(ballot_kind_name((enum meeting_kind)v->kind));
            used += (size_t)show_call(text + used, room - used, what, same, most);
        }
        return made ? MEETING_MADE_DIFFERS : kinds ? MEETING_KINDS_DIFFER : MEETING_BALLOTS_DIFFER;
    }
    if (tally->refusing) {
        snprintf(text, room, "rank %u %.*s", tally->refusing - 1, (int)tally->refusal.count, tally->refusal.bytes);
        return MEETING_REFUSED;
    }
    return MEETING_AGREED;
}

void ballot_decide(struct node *node, struct message *message, const struct tally *tally)
{
    char text[BALLOT_TEXT_BYTES];
    context_assert(node, node->number == 0, "ballot: another node than the root decides");
    context_assert(node, tally->variant_count > 0, "ballot: a decision without a ballot");
    message_put_u32(message, &node->pool, (uint32_t)decide(tally, text));
    message_put_u64(message, &node->pool, node->stamp);
    put_text(node, message, text_of(text));
    put_variant(node, message, &tally->variants[0]);
    put_ids(node, message, tally->forgotten, tally->forgotten_count);
}

void ballot_read_outcome(struct reader *reader, struct outcome *outcome)
{
    outcome->outcome = reader_u32(reader);
    outcome->root_stamp = reader_u64(reader);
    outcome->text = read_text(reader);
    outcome->agreed = read_variant(reader);
    outcome->forgotten_count = read_ids(reader, outcome->forgotten);
    if (outcome->outcome > MEETING_NO_SPACE || outcome->text.count >= BALLOT_TEXT_BYTES)
        reader->bad = true;
}

void ballot_copy_text(char *to, size_t room, struct ballot_text text)
{
    size_t bytes = text.count < room - 1 ? text.count : room - 1;
    if (bytes)
        memcpy(to, text.bytes, bytes);
    to[bytes] = 0;
}
