/* One input: put the state back, deliver the message, look at what is left.  The same for libFuzzer and for the driver that
 * needs nothing but a C compiler (fuzz_main.c). */
#include "fuzz.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PANICS_MAX = 128, PANIC_BYTES = 96, GO_ON_ENTRIES = 8 };

struct fuzz_counts fuzz_counts[MESSAGE_KINDS + 1];

static struct {
    char text[PANIC_BYTES];
    uint64_t count;
} panics[PANICS_MAX];

/* ---- accounts ---------------------------------------------------------------------------------------------------- */

static const char *const kind_names[MESSAGE_KINDS + 1] = {
    "any",     "fetch",     "reply",   "push",        "acquire",
    "pass",    "grant",     "busy",    "withdraw",    "withdrawn",
    "arrive",  "depart",    "add",     "sum",         "request_collection",
    "collect", "roll_call", "absent",  "held",        "forward",
    "await",   "set",       "publish", "unsubscribe", "none"};

const char *fuzz_kind_name(int kind)
{
    return kind_names[kind];
}

int fuzz_kind_of(const char *name)
{
    for (int kind = 0; kind < MESSAGE_KINDS; kind++)
        if (strcmp(kind_names[kind], name) == 0)
            return kind;
    fuzz_fail("no kind of message is called '%s'", name);
}

static void count_panic(const char *text)
{
    char plain[PANIC_BYTES] = "";
    size_t used = 0;
    for (; *text && used < sizeof plain - 1; text++) {
        bool digit = isdigit((unsigned char)*text);
        if (!digit || used == 0 || plain[used - 1] != '#')
            plain[used++] = digit ? '#' : *text;
    }
    for (int i = 0; i < PANICS_MAX; i++)
        if (panics[i].count == 0 || strcmp(panics[i].text, plain) == 0) {
            memcpy(panics[i].text, plain, sizeof plain);
            panics[i].count++;
            return;
        }
    fuzz_fail("more than %d different panics; the last is '%s'", PANICS_MAX, plain);
}

void fuzz_print_counts(void)
{
    uint64_t total = 0;
    printf("  %-14s %12s %12s %12s %12s\n", "kind", "inputs", "survived", "panics", "bytes at most");
    for (int kind = 0; kind <= MESSAGE_KINDS; kind++) {
        const struct fuzz_counts *counts = &fuzz_counts[kind];
        total += counts->inputs;
        if (counts->inputs)
            printf("  %-14s %12llu %12llu %12llu %12llu\n", kind ? kind_names[kind] : "unknown",
                   (unsigned long long)counts->inputs, (unsigned long long)counts->quiet,
                   (unsigned long long)counts->panics, (unsigned long long)counts->bytes_max);
    }
    printf("  total %llu\n", (unsigned long long)total);
    for (int i = 0; i < PANICS_MAX && panics[i].count; i++)
        printf("  %12llu  %s\n", (unsigned long long)panics[i].count, panics[i].text);
    fflush(stdout);
}

/* ---- seeds and headers ------------------------------------------------------------------------------------------- */

size_t fuzz_seed(uint32_t index, uint8_t *data, size_t room)
{
    const struct fuzz_state *state = fuzz_state(index);
    const struct fuzz_entry *next = state->next;
    if (state->next_count == 0 || (next->kind != FUZZ_MESSAGE && next->kind != FUZZ_PLACE) ||
        FUZZ_PREFIX_BYTES + next->count > room)
        return 0;
    data[0] = (uint8_t)index;
    data[1] = (uint8_t)(index >> 8);
    data[2] = (uint8_t)next->thread;
    data[3] = FUZZ_GO_ON | FUZZ_CHECK | FUZZ_END | (next->kind == FUZZ_PLACE ? FUZZ_PLACED : 0);
    memcpy(data + FUZZ_PREFIX_BYTES, next->bytes, next->count);
    return FUZZ_PREFIX_BYTES + (size_t)next->count;
}

static int sender_of(const uint8_t *data, int rank)
{
    int sender = data[2] % FUZZ_NODES;
    return sender != rank ? sender : (sender + 1) % FUZZ_NODES;
}

void fuzz_repair(uint8_t *data, size_t size, int kind)
{
    struct message_header header;
    if (size < FUZZ_PREFIX_BYTES + sizeof header)
        return;
    memcpy(&header, data + FUZZ_PREFIX_BYTES, sizeof header);
    const struct fuzz_state *state = fuzz_state((uint32_t)data[0] | (uint32_t)data[1] << 8);
    header.magic = MESSAGE_MAGIC;
    header.sender = (uint32_t)sender_of(data, state->home->node->number);
    header.bytes = size - FUZZ_PREFIX_BYTES;
    header.kind = (uint8_t)(kind ? kind : 1 + header.kind % (MESSAGE_KINDS - 1));
    memcpy(data + FUZZ_PREFIX_BYTES, &header, sizeof header);
}

/* ---- one input --------------------------------------------------------------------------------------------------- */

static const char *run(const struct fuzz_state *state, unsigned after, const struct fuzz_entry *message)
{
    struct fuzz_node *home = state->home;
    home->allowed_bytes = home->live_bytes + FUZZ_BASE_BYTES + FUZZ_BYTES_PER_BYTE * message->count;
    const char *panic = fuzz_node_do(home, message);
    /* What its world had in store for it, which the message may have made impossible. */
    for (uint32_t i = 0; !panic && (after & FUZZ_GO_ON) && i < state->next_count && i < GO_ON_ENTRIES; i++)
        panic = fuzz_node_do(home, &state->next[i]);
    if (!panic && (after & FUZZ_CHECK))
        panic = fuzz_node_check(home);
    return panic;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < FUZZ_PREFIX_BYTES)
        return 0;
    struct fuzz_state *state = fuzz_state((uint32_t)data[0] | (uint32_t)data[1] << 8);
    struct fuzz_node *home = state->home;
    struct fuzz_entry message = {.kind = FUZZ_MESSAGE,
                                 .thread = sender_of(data, home->node->number),
                                 .bytes = data + FUZZ_PREFIX_BYTES,
                                 .count = size - FUZZ_PREFIX_BYTES};
    uint8_t kind = message.count >= sizeof(struct message_header) ? message.bytes[4] : 0;
    message.a = kind == MESSAGE_REPLY && (data[3] & FUZZ_PLACED);
    struct fuzz_counts *counts = &fuzz_counts[kind < MESSAGE_KINDS ? kind : MESSAGE_KINDS];
    uint64_t used_before = home->node->pool.bytes_used_max = home->node->pool.bytes_used;
    const char *panic = run(state, data[3], &message);
    uint64_t used = home->node->pool.bytes_used_max - used_before;
    counts->inputs++;
    counts->panics += panic != NULL;
    counts->quiet += panic == NULL;
    if (used > counts->bytes_max)
        counts->bytes_max = used;
    if (panic)
        count_panic(panic);
    else if (data[3] & FUZZ_END)
        fuzz_node_end(home);
    fuzz_node_restore(home);
    return 0;
}
