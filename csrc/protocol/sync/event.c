/* The home of a flag takes no notices, so a node that only passes requests on gets no stale pages. */
#include "protocol/sync/event.h"

#include "protocol/coherence/push.h"
#include "protocol/sync/notices.h"
#include "protocol/sync/release.h"

static node_id home_of(const struct node *node, const struct flag *flag)
{
    return (node_id)(flag->id % (uint32_t)node->size);
}

/* ---- messages out ------------------------------------------------------------------------------------------------ */

static void send_await(struct node *node, node_id to, const struct flag *flag, const struct flag_waiter *waiter)
{
    struct message *message = message_new(&node->pool, to, MESSAGE_AWAIT, RING_LATER, 64);
    message_put_u32(message, &node->pool, flag->id);
    message_put_u32(message, &node->pool, (uint32_t)waiter->node);
    message_put_u32(message, &node->pool, (uint32_t)waiter->rank);
    message_put_u64(message, &node->pool, waiter->after);
    message_put_vector(message, &node->pool, &waiter->known);
    context_send(node, message);
}

/* What the home is told: it drops the requests of the processes that were published to. */
static void put_set(struct node *node, struct message *message, const struct flag *flag, bool home)
{
    message_put_u32(message, &node->pool, flag->id);
    message_put_u64(message, &node->pool, flag->set);
    uint32_t count = 0;
    uint64_t count_at = message_put_count(message, &node->pool);
    for (node_id q = 0; home && q < node->size; q++)
        if (flag_peer_of(node, q)->subscribed) {
            message_put_u32(message, &node->pool, (uint32_t)q);
            message_put_u32(message, &node->pool, (uint32_t)flag_peer_of(node, q)->rank);
            count++;
        }
    message_set_count(message, count_at, count);
}

static void publish(struct node *node, const struct flag *flag, node_id to, int32_t rank, uint64_t number,
                    struct vector *known)
{
    context_assert(node, to != node->number, "flag: this node publishes to itself");
    push_send(node, to, vector_get(known, node->number));
    struct message *message = message_new(&node->pool, to, MESSAGE_PUBLISH, RING_NEVER, 128);
    message->rank = rank;
    message_put_u64(message, &node->pool, number);
    message_put_u64(message, &node->pool, node->cuts);
    put_set(node, message, flag, number && home_of(node, flag) == to);
    vector_raise(known, &node->pool, to, node->vt[to]); /* its own */
    notices_put(node, message, known);
    context_send(node, message);
}

static void publish_unasked(struct node *node, const struct flag *flag, node_id to)
{
    struct flag_peer *peer = flag_peer_of(node, to);
    publish(node, flag, to, peer->rank, ++peer->sent, &peer->told);
    for (node_id q = 0; q < node->size; q++)
        if (node->vt[q] > node->cut[q])
            vector_raise(&peer->told, &node->pool, q, node->vt[q]);
}

static void subscribe(struct node *node, const struct flag_waiter *waiter)
{
    struct flag_peer *peer = flag_peer_of(node, waiter->node);
    if (peer->subscribed || node->options.published_unused_max == 0)
        return;
    peer->subscribed = true;
    peer->since = node->stamp;
    if (peer->rank == RANK_ANY)
        peer->rank = waiter->rank; /* for good: another one would have to wait for what the first has not taken in */
    if (peer->sent == 0)
        vector_copy(&peer->told, &node->pool, &waiter->known);
}

/* The flag was set after the clear that the waiter knows. */
static void answer(struct node *node, const struct flag *flag, struct flag_waiter *waiter)
{
    const struct flag_peer *peer = flag_peer_of(node, waiter->node);
    bool own = flag->setter == node->number;
    if (own && peer->subscribed && peer->rank == waiter->rank && peer->since < flag->set)
        return; /* it is on its way */
    publish(node, flag, waiter->node, waiter->rank, 0, &waiter->known);
    if (own)
        subscribe(node, waiter);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static bool is_published(struct node *node, node_id to)
{
    return to != node->number && node->flags->peers && flag_peer_of(node, to)->subscribed;
}

static void release(struct node *node, const struct flag *flag, region_id what)
{
    release_naming(node, &(struct run){.region = what, .pages = 1, .first = flag->id});
}

bool event_set(struct node *node, struct flag *flag)
{
    if (flag_is_set(flag))
        return true;
    if (context_silent(node))
        return false;
    release(node, flag, RUN_SETS_FLAG);
    flag_learn_set(node, flag, node->vt[node->number], node->number);
    for (node_id q = 0; node->flags->peers && q < node->size; q++)
        if (is_published(node, q))
            publish_unasked(node, flag, q);
    while (flag->waiters) {
        struct flag_waiter *waiter = flag_take_waiter(node, &flag->waiters);
        if (waiter->node != node->number)
            answer(node, flag, waiter);
        flag_free_waiter(node, waiter);
    }
    node_id home = home_of(node, flag);
    if (home == node->number || is_published(node, home))
        return true;
    struct message *message = message_new(&node->pool, home, MESSAGE_SET, RING_LATER, 64);
    put_set(node, message, flag, true);
    context_send(node, message);
    return true;
}

bool event_clear(struct node *node, struct flag *flag)
{
    if (!flag_is_set(flag))
        return true;
    if (context_silent(node))
        return false;
    release(node, flag, RUN_CLEARS_FLAG);
    flag->clear = node->vt[node->number];
    return true;
}

bool event_expects(const struct node *node)
{
    return node->flags->expected == FLAG_EXPECTED;
}

/* A thread uses a set of another node. */
static void use(struct node *node, const struct flag *flag)
{
    struct flags *flags = node->flags;
    flag_peer_of(node, flag->setter)->unused = 0;
    if (!flag->unasked)
        flags->expected = 0;
    else if (flags->expected < FLAG_EXPECTED)
        flags->expected++;
}

bool event_poll(struct node *node, struct flag *flag, stamp after, bool ask)
{
    if (flag->set > after) { /* R18 */
        if (flag->setter != node->number)
            use(node, flag);
        return true;
    }
    if (!ask || (flag->asked && flag->asked_after >= after))
        return false;
    flag->asked = true;
    flag->asked_after = after;
    struct flag_waiter own = {.node = node->number, .rank = (int32_t)node->port->rank, .after = after};
    for (node_id q = 0; q < node->size; q++)
        if (node->vt[q] > node->cut[q])
            vector_raise(&own.known, &node->pool, q, node->vt[q]);
    send_await(node, home_of(node, flag), flag, &own);
    vector_clear(&own.known, &node->pool);
    return false;
}

/* ---- messages in ------------------------------------------------------------------------------------------------- */

/* At the home. */
static void keep_waiter(struct node *node, struct flag *flag, struct flag_waiter *waiter)
{
    struct flag_waiter **link = &flag->waiters;
    while (*link && (*link)->node != waiter->node)
        link = &(*link)->next;
    if (*link && (*link)->after > waiter->after)
        return; /* it asked again since */
    if (*link)
        flag_free_waiter(node, flag_take_waiter(node, link));
    struct flag_waiter *kept = pool_take(&node->pool, sizeof *kept);
    *kept = *waiter;
    kept->next = *link;
    *link = kept;
    waiter->known = (struct vector){0};
}

void event_receive_await(struct node *node, struct message *message)
{
    struct reader reader = reader_of(message);
    struct flag *flag = flag_use(node, reader_u32(&reader));
    uint32_t who = reader_u32(&reader), rank = reader_u32(&reader);
    struct flag_waiter waiter = {.node = (node_id)who, .rank = (int32_t)rank, .after = reader_u64(&reader)};
    bool known = flag && who < (uint32_t)node->size && rank < node->options.ranks;
    reader_vector(&reader, &node->pool, node->size, 0, &waiter.known);
    if (!reader_ended(&reader) || !known)
        context_malformed(node, message);
    bool home = home_of(node, flag) == node->number;
    if (flag->set > waiter.after) {
        if (waiter.node != node->number) /* else the set came from elsewhere meanwhile */
            answer(node, flag, &waiter);
    } else if (!home) {
        context_malformed(node, message);
    } else if (flag->told > waiter.after) {
        send_await(node, flag->teller, flag, &waiter);
    } else {
        keep_waiter(node, flag, &waiter);
    }
    vector_clear(&waiter.known, &node->pool);
}

static struct flag *read_told(struct node *node, const struct message *message, struct reader *reader, bool act)
{
    struct flag *flag = flag_use(node, reader_u32(reader));
    stamp set = reader_u64(reader);
    uint32_t count = reader_u32(reader);
    if (reader->bad || !flag || (count && home_of(node, flag) != node->number) || set > node->stamp)
        context_malformed(node, message);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t who = reader_u32(reader), rank = reader_u32(reader);
        if (reader->bad)
            context_malformed(node, message);
        struct flag_waiter **link = &flag->waiters;
        while (*link && (uint32_t)(*link)->node != who)
            link = &(*link)->next;
        if (act && *link && (*link)->after < set && (uint32_t)(*link)->rank == rank)
            flag_free_waiter(node, flag_take_waiter(node, link));
    }
    if (!act || home_of(node, flag) != node->number)
        return flag;
    if (set > flag->told) {
        flag->told = set;
        flag->teller = message->peer;
    }
    for (struct flag_waiter **link = &flag->waiters; *link;) {
        if ((*link)->after >= set) {
            link = &(*link)->next;
            continue;
        }
        struct flag_waiter *waiter = flag_take_waiter(node, link);
        if (waiter->node != node->number || flag->set <= waiter->after)
            send_await(node, message->peer, flag, waiter);
        flag_free_waiter(node, waiter);
    }
    return flag;
}

void event_receive_set(struct node *node, const struct message *message)
{
    struct reader reader = reader_of(message);
    read_told(node, message, &reader, true);
    if (!reader_ended(&reader))
        context_malformed(node, message);
}

void event_skip_told(struct node *node, const struct message *message, struct reader *reader)
{
    read_told(node, message, reader, false);
}

void event_take_told(struct node *node, const struct message *message, struct reader reader, bool unasked)
{
    read_told(node, message, &reader, true)->unasked = unasked;
}

bool event_overtook(struct node *node, const struct message *message, uint64_t number)
{
    uint64_t received = flag_peer_of(node, message->peer)->received;
    if (number && number <= received)
        context_malformed(node, message);
    return number > received + 1; /* R18 */
}

void event_count_unasked(struct node *node, const struct message *message, uint64_t number)
{
    struct flag_peer *peer = flag_peer_of(node, message->peer);
    if (!number)
        return;
    peer->received = number;
    if (++peer->unused < node->options.published_unused_max)
        return;
    peer->unused = 0;
    context_send(node, message_new(&node->pool, message->peer, MESSAGE_UNSUBSCRIBE, RING_NEVER, 0));
}

void event_receive_unsubscribe(struct node *node, const struct message *message)
{
    struct reader reader = reader_of(message);
    if (!reader_ended(&reader))
        context_malformed(node, message);
    flag_peer_of(node, message->peer)->subscribed = false;
}
