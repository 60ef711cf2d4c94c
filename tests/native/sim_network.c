/* The network that MPI promises: reliable, in order between two nodes, anything between others. */
#include "sim_world.h"

#include <stdlib.h>
#include <string.h>

struct channel *sim_channel(struct sim *sim, int from, int to)
{
    return &sim->channels[from * SIM_NODES_MAX + to];
}

static void channel_put(struct sim *sim, int from, const struct message *message)
{
    int to = message->peer;
    if (to < 0 || to >= sim->program.nodes || to == from)
        sim_fail(sim, from, "message to node %d", to);
    const struct message_header *header = message_header(message);
    if (header->bytes != message->wire_bytes || header->sender != (uint32_t)from || header->magic != MESSAGE_MAGIC)
        sim_fail(sim, from, "a message with a wrong header: %llu bytes of %llu, sender %u",
                 (unsigned long long)header->bytes,
             (unsigned long long)message->wire_bytes, header->sender);
    struct channel *channel = sim_channel(sim, from, to);
    struct parcel *parcel = malloc(sizeof *parcel + message->wire_bytes);
    if (!parcel)
        abort();
    parcel->next = NULL;
    parcel->bytes = message->wire_bytes;
    memcpy(parcel->data, message->wire, message->wire_bytes);
    if (!channel->head) {
        channel->tail = &channel->head;
        channel->active_at = sim->active_count;
        sim->active[sim->active_count++] = from * SIM_NODES_MAX + to;
    }
    *channel->tail = parcel;
    channel->tail = &parcel->next;
    sim->stats.messages++;
    sim->stats.message_bytes += message->wire_bytes;
    sim->stats.kind_messages[header->kind % 16]++;
    TRACE(sim, "node %d  sends kind %d stamp %llu to %d, %llu bytes", from, header->kind,
          (unsigned long long)header->stamp, to, (unsigned long long)message->wire_bytes);
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

/* After every entry into a node: its messages go into the channels, its threads are woken. */
void sim_pump(struct sim_node *home)
{
    struct sim *sim = home->sim;
    sim->touched = home->rank;
    for (struct message *message = node_take_outbox(home->node), *next; message; message = next) {
        next = message->next;
        channel_put(sim, home->rank, message);
        message_free(message, &home->node->pool);
    }
    if (home->node->early)
        sim->stats.early++;
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

void sim_deliver(struct sim *sim, int index)
{
    int from = index / SIM_NODES_MAX, to = index % SIM_NODES_MAX;
    struct sim_node *home = &sim->nodes[to];
    struct parcel *parcel = channel_take(sim, index);
    if (sim_random_chance(&sim->random, sim->knobs.damage))
        damage(sim, parcel);
    const struct message_header *header = (const void *)parcel->data;
    TRACE(sim, "node %d  receives kind %d stamp %llu from %d", to, header->kind, (unsigned long long)header->stamp, from);
    void *wire = pool_take(&home->node->pool, parcel->bytes);
    memcpy(wire, parcel->data, parcel->bytes);
    struct message *message = message_wrap(&home->node->pool, from, wire, parcel->bytes);
    free(parcel);
    sim->stats.deliveries++;
    node_receive(home->node, message);
    sim_pump(home);
}

