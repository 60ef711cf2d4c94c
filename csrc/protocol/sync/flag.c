/* Flags are never given back, as locks. */
#include "protocol/sync/flag.h"

/* ---- all flags --------------------------------------------------------------------------------------------------- */

struct flag *flag_find(const struct node *node, uint32_t id)
{
    return table_find(&node->flags->all, id);
}

struct flag *flag_use(struct node *node, uint32_t id)
{
    struct flag *flag = flag_find(node, id);
    if (flag || id >= TABLE_MAX)
        return flag;
    flag = pool_take_persistent(&node->pool, sizeof *flag);
    *flag = (struct flag){.id = id, .setter = NODE_NONE, .teller = NODE_NONE};
    table_add(&node->flags->all, &node->pool, id, flag);
    return flag;
}

static uint64_t peers_bytes(const struct node *node)
{
    return (uint64_t)node->size * sizeof(struct flag_peer);
}

struct flag_peer *flag_peer_of(struct node *node, node_id peer)
{
    if (!node->flags->peers) {
        node->flags->peers = pool_take_persistent(&node->pool, peers_bytes(node));
        for (node_id q = 0; q < node->size; q++)
            node->flags->peers[q] = (struct flag_peer){.rank = RANK_ANY};
    }
    return &node->flags->peers[peer];
}

struct flag_waiter *flag_take_waiter(struct node *node, struct flag_waiter **link)
{
    struct flag_waiter *waiter = *link;
    context_assert(node, waiter, "flag: no node waits");
    *link = waiter->next;
    return waiter;
}

void flag_free_waiter(struct node *node, struct flag_waiter *waiter)
{
    vector_clear(&waiter->known, &node->pool);
    pool_give(&node->pool, waiter, sizeof *waiter);
}

void flags_fini(struct node *node)
{
    struct flag *flag;
    for (uint32_t next = 0; (flag = table_next(&node->flags->all, &next));) {
        while (flag->waiters)
            flag_free_waiter(node, flag_take_waiter(node, &flag->waiters));
        pool_give_persistent(&node->pool, flag, sizeof *flag);
    }
    table_fini(&node->flags->all, &node->pool);
    if (!node->flags->peers)
        return;
    for (node_id q = 0; q < node->size; q++)
        vector_clear(&node->flags->peers[q].told, &node->pool);
    pool_give_persistent(&node->pool, node->flags->peers, peers_bytes(node));
}

void flag_check(const struct node *node)
{
    const struct flag *flag;
    for (uint32_t next = 0; (flag = table_next(&node->flags->all, &next));) {
        context_assert(node, !flag->asked || flag->set <= flag->asked_after,
                       "flag: invariant 1: asked for a set that is known");
        for (const struct flag_waiter *waiter = flag->waiters; waiter; waiter = waiter->next)
            for (const struct flag_waiter *other = waiter->next; other; other = other->next)
                context_assert(node, other->node != waiter->node, "flag: invariant 2: a node waits twice");
    }
}

/* ---- what is known of a flag ------------------------------------------------------------------------------------- */

void flag_learn_set(struct node *node, struct flag *flag, stamp set, node_id setter)
{
    if (set <= flag->set)
        return;
    flag->followed = 0;
    flag->unasked = false;
    flag->set = set;
    flag->setter = setter;
    flag->asked &= set <= flag->asked_after;
    node->wake = true;
}

bool flag_notice(struct node *node, const struct interval *interval, const struct run *run)
{
    struct flag *flag = run->pages == 1 && run->first < TABLE_MAX ? flag_use(node, (uint32_t)run->first) : NULL;
    if (flag && run->region == RUN_SETS_FLAG)
        flag_learn_set(node, flag, interval->stamp, interval->node);
    else if (flag && flag->clear < interval->stamp)
        flag->clear = interval->stamp;
    return flag;
}

bool flag_turn_alone(struct flag *flag, bool set)
{
    uint32_t turns = atomic_load(&flag->turns);
    while (turns % 2 != set)
        if (atomic_compare_exchange_weak(&flag->turns, &turns, turns + 1))
            return true;
    return false;
}
