/* The network: reliable, and no order is promised, not between two nodes either (knob `disorder`). */
#include "sim_world.h"

#include <stdlib.h>
#include <string.h>

struct channel *sim_channel(struct sim *sim, int from, int to)
{
    return &sim->channels[from * SIM_NODES_MAX + to];
}

/* Requests for pages that arrive, or messages from beyond the next departure. */
static bool has_deferred(const struct node *node, bool requests)
{
    for (const struct message *message = node->deferred; message; message = message->next)
        if ((message_header(message)->kind == MESSAGE_FETCH) == requests)
            return true;
    return false;
}

static uint64_t bulk_bytes(const struct message *message)
{
    uint64_t bytes = 0;
    for (int i = 0; i < message->segment_count; i++)
        bytes += message->segments[i].bytes;
    return bytes;
}

static struct parcel *parcel_new(const struct message *message)
{
    uint64_t behind = bulk_bytes(message);
    struct parcel *parcel = malloc(sizeof *parcel + message->wire_bytes + behind);
    if (!parcel)
        abort();
    *parcel = (struct parcel){.bytes = message->wire_bytes, .bulk = behind};
    memcpy(parcel->data, message->wire, message->wire_bytes);
    unsigned char *at = parcel->data + message->wire_bytes;
    for (int i = 0; i < message->segment_count; at += message->segments[i++].bytes)
        memcpy(at, message->segments[i].at, message->segments[i].bytes);
    return parcel;
}

/* The space of the receiver that it is for: one that waits for an answer, or any. */
static uint32_t endpoint(struct sim *sim, int from, const struct message *message)
{
    const struct sim_node *to = &sim->nodes[message->peer];
    if (message->rank != RANK_ANY) {
        if (message->rank < 0 || message->rank >= sim->program.ranks || sim->spaces[message->rank].home != to)
            sim_fail(sim, from, "message to rank %d, which is not of node %d", message->rank, message->peer);
        return sim->spaces[message->rank].number;
    }
    if (to->space_count == 1 || !sim->knobs.any_space)
        return 0;
    return sim->steered ? to->space_count - 1 : sim_random_below(&sim->random, to->space_count);
}

bool sim_channel_is_slow(const struct sim *sim, int index)
{
    return sim->nodes[index % SIM_NODES_MAX].spaces[sim->channels[index].head->space].slow;
}

/* True: the message goes back to its node only later (node_sent). */
static bool channel_put(struct sim *sim, int from, struct message *message)
{
    int to = message->peer;
    if (to < 0 || to >= sim->program.nodes || to == from)
        sim_fail(sim, from, "message to node %d", to);
    const struct message_header *header = message_header(message);
    if (header->bytes != message->wire_bytes || header->sender != (uint32_t)from || header->magic != MESSAGE_MAGIC)
        sim_fail(sim, from, "a message with a wrong header: %llu bytes of %llu, sender %u",
                 (unsigned long long)header->bytes, (unsigned long long)message->wire_bytes, header->sender);
    struct channel *channel = sim_channel(sim, from, to);
    struct parcel *parcel = parcel_new(message);
    parcel->sender = sim->nodes[from].node->me;
    parcel->space = endpoint(sim, from, message);
    if (!channel->head) {
        channel->tail = &channel->head;
        channel->active_at = sim->active_count;
        sim->active[sim->active_count++] = from * SIM_NODES_MAX + to;
    }
    *channel->tail = parcel;
    channel->tail = &parcel->next;
    sim->stats.messages++;
    sim->stats.message_bytes += message->wire_bytes + parcel->bulk;
    sim->stats.kind_messages[header->kind % 32]++;
    TRACE(sim, "node %d  sends kind %d stamp %llu to %d, %llu bytes and %llu apart", from, header->kind,
          (unsigned long long)header->stamp, to, (unsigned long long)message->wire_bytes,
          (unsigned long long)parcel->bulk);
    if (parcel->bulk == 0)
        return false;
    sim->stats.bulk_sent++;
    sim->stats.bulk_bytes += parcel->bulk;
    parcel->sent = message;
    return true;
}

/* The last byte of what travels behind the message has left the sender's memory, where nothing may have changed, unless the
 * array was freed. */
static void take_all(struct sim *sim, int from, struct parcel *parcel)
{
    struct sim_node *home = &sim->nodes[from];
    struct message *message = parcel->sent;
    const unsigned char *at = parcel->data + parcel->bytes;
    for (int i = 0; i < message->segment_count; at += message->segments[i++].bytes)
        if (region_at(home->node->regions, message->segments[i].offset) &&
            memcmp(at, message->segments[i].at, message->segments[i].bytes) != 0)
            sim_fail(sim, from, "the %llu bytes at offset %llu change while they are being sent",
                     (unsigned long long)message->segments[i].bytes, (unsigned long long)message->segments[i].offset);
    parcel->sent = NULL;
    TRACE(sim, "node %d  has sent all to %d", from, message->peer);
    sim_enter(&home->spaces[parcel->sender]);
    node_sent(home->node, message);
}

static struct parcel *channel_take(struct sim *sim, int index)
{
    struct channel *channel = &sim->channels[index];
    struct parcel *parcel = channel->head;
    channel->head = parcel->next;
    if (!channel->head) {
        int last = sim->active[--sim->active_count];
        sim->active[channel->active_at] = last;
        sim->channels[last].active_at = channel->active_at;
        channel->active_at = -1;
    }
    return parcel;
}

/* A message of the channel comes to its front, past those that were sent before. */
static void overtake(struct sim *sim, struct channel *channel)
{
    struct parcel **link = &channel->head, *parcel;
    uint32_t count = 0;
    for (parcel = channel->head; parcel; parcel = parcel->next)
        count++;
    for (uint32_t i = sim_random_below(&sim->random, count); i > 0; i--)
        link = &(*link)->next;
    parcel = *link;
    if (parcel == channel->head)
        return;
    *link = parcel->next;
    if (!parcel->next)
        channel->tail = link;
    parcel->next = channel->head;
    channel->head = parcel;
    sim->stats.overtaken++;
}

static struct parcel *last_of(struct sim *sim, int from, int to)
{
    struct parcel *parcel = sim_channel(sim, from, to)->head;
    while (parcel->next)
        parcel = parcel->next;
    return parcel;
}

/* Its copies of a departure have left, and it has not gone on. */
static bool lingers(struct sim_node *home)
{
    return home->node->unfinished && !home->node->outbox &&
           sim_random_chance(&home->sim->random, home->sim->knobs.linger);
}

/* After every entry into a node: its messages go into the channels, its threads are woken. */
void sim_pump(struct sim_node *home)
{
    struct sim *sim = home->sim;
    sim->touched = home->number;
    for (struct message *message; !lingers(home) && (message = node_take_outbox(home->node));)
        for (struct message *next; message; message = next) {
            next = message->next;
            if (!channel_put(sim, home->number, message))
                message_free(message, &home->node->pool);
            else if (sim_random_chance(&sim->random, sim->knobs.eager))
                take_all(sim, home->number, last_of(sim, home->number, message->peer));
        }
    home->node->send_blocked = false;
    sim->stats.deferred += has_deferred(home->node, false);
    if (!node_take_wake(home->node))
        return;
    for (int i = 0; i < sim->thread_count; i++)
        if (sim->threads[i].home == home)
            sim->threads[i].blocked = false;
}

void sim_settle(struct sim_node *home)
{
    node_settle(home->node);
    sim_pump(home);
}

/* Cut it short, or overwrite a few fields; mostly so that the header still agrees with the length. */
static void damage(struct sim *sim, struct parcel *parcel)
{
    static const uint32_t values[] = {0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 16, 64};
    struct message_header header;
    sim->damaged = true;
    sim->stats.damages++;
    if (sim_random_chance(&sim->random, 300))
        parcel->bytes = sim_random_below(&sim->random, (uint32_t)parcel->bytes);
    else
        for (uint32_t i = 1 + sim_random_below(&sim->random, 3); i > 0; i--) {
            uint32_t value = values[sim_random_below(&sim->random, 8)];
            if (sim_random_chance(&sim->random, 300))
                value = (uint32_t)sim_random_next(&sim->random);
            uint64_t at = 4 * sim_random_below(&sim->random, (uint32_t)parcel->bytes / 4);
            memcpy(parcel->data + at, &value, sizeof value);
        }
    if (parcel->bytes >= sizeof header && sim_random_chance(&sim->random, 900)) {
        memcpy(&header, parcel->data, sizeof header);
        header.bytes = parcel->bytes;
        memcpy(parcel->data, &header, sizeof header);
    }
}

static struct message *wrap(struct sim_node *home, int from, const struct parcel *parcel)
{
    struct pool *pool = &home->node->pool;
    const struct sim_space *sender = &home->sim->nodes[from].spaces[parcel->sender];
    void *wire = pool_take_persistent(pool, parcel->bytes);
    memcpy(wire, parcel->data, parcel->bytes);
    return message_wrap(pool, from, sender->rank, wire, parcel->bytes);
}

/* The wire of a message has come that has more behind it. */
static void place(struct sim *sim, int from, int to, struct parcel *parcel)
{
    struct sim_node *home = &sim->nodes[to];
    struct message *message = wrap(home, from, parcel);
    node_place(home->node, message);
    parcel->placed = message;
    if (bulk_bytes(message) != parcel->bulk)
        sim_fail(sim, to, "panic: %llu bytes are placed, and %llu come", (unsigned long long)bulk_bytes(message),
                 (unsigned long long)parcel->bulk);
    for (int i = 0; i < message->segment_count; i++)
        sim->stats.bulk_in_place += message->segments[i].in_place;
    TRACE(sim, "node %d  places %llu bytes from %d", to, (unsigned long long)parcel->bulk, from);
    sim_pump(home);
}

/* What is behind the message comes in pieces, by halves if nothing is torn; others may see it half done. */
static void fill(struct sim_node *home, struct parcel *parcel)
{
    const unsigned char *from = parcel->data + parcel->bytes;
    const struct message *message = parcel->placed;
    for (int i = 0; i < message->segment_count; from += message->segments[i++].bytes) {
        const struct segment *segment = &message->segments[i];
        uint64_t half = segment->bytes / 2, piece = sim_torn(segment->at) ? PIECE_BYTES : half;
        for (uint64_t at = 0; at < segment->bytes; at += piece) {
            if (piece != half)
                sim_tear(home);
            else if (at == half)
                sim_bystanders(home);
            memcpy(segment->at + at, from + at, piece);
        }
    }
}

void sim_deliver(struct sim *sim, int index)
{
    int from = index / SIM_NODES_MAX, to = index % SIM_NODES_MAX;
    struct sim_node *home = &sim->nodes[to];
    struct channel *channel = &sim->channels[index];
    sim_runs(sim);
    if (channel->head->next && sim_random_chance(&sim->random, sim->knobs.disorder))
        overtake(sim, channel);
    struct parcel *parcel = channel->head;
    sim_enter(&home->spaces[parcel->space]);
    sim->stats.deliveries++;
    if (!parcel->placed && sim_random_chance(&sim->random, sim->knobs.damage))
        damage(sim, parcel);
    if (parcel->bulk && !parcel->placed) {
        place(sim, from, to, parcel);
        return;
    }
    channel_take(sim, index);
    const struct message_header *header = (const void *)parcel->data;
    TRACE(sim, "node %d  receives kind %d stamp %llu from %d", to, header->kind, (unsigned long long)header->stamp,
          from);
    struct message *message = parcel->placed;
    if (message)
        fill(home, parcel);
    else
        message = wrap(home, from, parcel);
    if (parcel->sent) {
        sim->stats.bulk_late++;
        take_all(sim, from, parcel);
        sim_pump(&sim->nodes[from]);
    }
    free(parcel);
    sim->stats.requests_deferred += has_deferred(home->node, true);
    node_receive(home->node, message);
    sim_pump(home);
}
