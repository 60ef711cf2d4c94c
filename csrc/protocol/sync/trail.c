/*   HELD := uint32 lock, uint32 hops, hop*
 *   hop  := uint32 lock, uint32 rank, uint32 thread, uint32 waits, uint64 object, uint32 bytes, site
 */
#include "protocol/sync/trail.h"

#include <string.h>

static bool is_on(const struct trail *trail, uint64_t lock)
{
    for (uint32_t i = 0; i < trail->count; i++)
        if (trail->hops[i].lock == lock)
            return true;
    return false;
}

static void add_holder(const struct node *node, const struct lock *lock, struct trail *trail)
{
    context_assert(node, trail->count < TRAIL_HOPS_MAX, "trail: too long");
    context_assert(node, lock->token, "trail: the holder has no token");
    struct hop *hop = &trail->hops[trail->count++];
    *hop = (struct hop){.lock = lock->id, .rank = lock_holder(lock)};
    if (lock->holder.rank == hop->rank) { /* else it is about to say so (lock_take_alone) */
        hop->thread = lock->holder.thread;
        memcpy(hop->site, lock->holder.site, TRAIL_SITE_BYTES);
    }
    if (node->port->waits)
        hop->waits = (uint32_t)node->port->waits(node->port->context, hop->rank, hop->thread, &hop->object);
}

static void add_told(const struct lock *lock, struct trail *trail)
{
    for (uint32_t i = 0; i < lock->told->count && trail->count < TRAIL_HOPS_MAX; i++) {
        if (is_on(trail, lock->told->hops[i].lock))
            return;
        trail->hops[trail->count++] = lock->told->hops[i];
    }
}

void trail_follow(const struct node *node, const struct lock *lock, struct trail *trail)
{
    trail->count = trail->age = 0;
    while (lock && trail->count < TRAIL_HOPS_MAX && !is_on(trail, lock->id)) {
        if (lock_held(lock))
            add_holder(node, lock, trail);
        else if (lock->told)
            add_told(lock, trail);
        else
            return;
        const struct hop *last = &trail->hops[trail->count - 1];
        lock =
            last->waits == WAIT_FOR_LOCK && last->object <= UINT32_MAX ? lock_find(node, (uint32_t)last->object) : NULL;
    }
}

bool trail_is_circle(const struct trail *trail)
{
    const struct hop *last = trail->count ? &trail->hops[trail->count - 1] : NULL;
    return last && last->waits == WAIT_FOR_LOCK && is_on(trail, last->object);
}

/* ---- telling ------------------------------------------------------------------------------------------------- */

static void send_held(struct node *node, const struct lock *lock, const struct trail *trail)
{
    context_assert(node, lock->waiting != NODE_NONE, "trail: a trail for nobody");
    context_assert(node, trail->count > 0, "trail: an empty trail is sent");
    context_assert(node, trail->count <= TRAIL_HOPS_MAX, "trail: too long");
    struct message *message = message_new(&node->pool, lock->waiting, MESSAGE_HELD, RING_NOW, 128);
    message_put_u32(message, &node->pool, lock->id);
    message_put_u32(message, &node->pool, trail->count);
    for (uint32_t i = 0; i < trail->count; i++) {
        const struct hop *hop = &trail->hops[i];
        uint32_t bytes = (uint32_t)strlen(hop->site);
        message_put_u32(message, &node->pool, hop->lock);
        message_put_u32(message, &node->pool, hop->rank);
        message_put_u32(message, &node->pool, hop->thread);
        message_put_u32(message, &node->pool, hop->waits);
        message_put_u64(message, &node->pool, hop->object);
        message_put_u32(message, &node->pool, bytes);
        message_put_bytes(message, &node->pool, hop->site, bytes);
    }
    context_send(node, message);
}

void trail_tell(struct node *node)
{
    struct trail trail;
    struct lock *lock;
    for (uint32_t next = 0; (lock = lock_next(node, &next));) {
        if (lock->told && ++lock->told->age > TRAIL_AGE_MAX)
            lock_forget_trail(node, lock);
        if (lock_held(lock) && lock->held_long && lock->waiting != NODE_NONE) {
            trail_follow(node, lock, &trail);
            send_held(node, lock, &trail);
        }
        lock->held_long = lock_held(lock);
    }
}

/* ---- reports of others --------------------------------------------------------------------------------------- */

static void read_hop(struct reader *reader, uint32_t ranks, struct hop *hop)
{
    hop->lock = reader_u32(reader);
    hop->rank = reader_u32(reader);
    hop->thread = reader_u32(reader);
    hop->waits = reader_u32(reader);
    hop->object = reader_u64(reader);
    uint32_t bytes = reader_u32(reader);
    if (hop->rank >= ranks || hop->waits >= WAIT_KINDS || bytes >= TRAIL_SITE_BYTES)
        reader->bad = true;
    const char *site = reader_bytes(reader, reader->bad ? 0 : bytes);
    hop->site[0] = 0;
    if (reader->bad)
        return;
    memcpy(hop->site, site, bytes);
    hop->site[bytes] = 0;
    for (uint32_t i = 0; i < bytes; i++)
        if ((unsigned char)hop->site[i] < ' ')
            reader->bad = true;
}

/* To the nodes that wait for a holder of this node that waits for the lock itself. */
static void pass_on(struct node *node, const struct lock *lock)
{
    context_assert(node, lock->told, "trail: nothing was told");
    struct trail trail;
    struct lock *own;
    for (uint32_t next = 0; lock->told->count < TRAIL_HOPS_MAX && (own = lock_next(node, &next));) {
        if (!lock_held(own) || own->waiting == NODE_NONE || is_on(lock->told, own->id))
            continue;
        trail_follow(node, own, &trail);
        if (is_on(&trail, lock->id))
            send_held(node, own, &trail);
    }
}

void trail_receive_held(struct node *node, const struct message *message)
{
    struct reader reader = reader_of(message);
    struct lock *lock = lock_find(node, reader_u32(&reader));
    struct trail trail = {.count = reader_u32(&reader)};
    if (!lock || trail.count == 0 || trail.count > TRAIL_HOPS_MAX)
        context_malformed(node, message);
    for (uint32_t i = 0; i < trail.count; i++)
        read_hop(&reader, node->options.ranks, &trail.hops[i]);
    if (!reader_ended(&reader) || trail.hops[0].lock != lock->id)
        context_malformed(node, message);
    if (!lock->asked)
        return; /* it has come meanwhile */
    if (!lock->told)
        lock->told = pool_take(&node->pool, sizeof *lock->told);
    *lock->told = trail;
    if (lock->waiting != NODE_NONE)
        send_held(node, lock, &trail);
    pass_on(node, lock);
}
