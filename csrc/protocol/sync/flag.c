/* Flags are never given back, as locks. */
#include "protocol/sync/flag.h"

#include <string.h>

/* ---- all flags --------------------------------------------------------------------------------------------------- */

struct flag *flag_find(const struct node *node, uint32_t id)
{
    struct flag **chunk = id < FLAGS_MAX ? atomic_load(&node->flags->chunks[id / FLAG_CHUNK]) : NULL;
    return chunk ? chunk[id % FLAG_CHUNK] : NULL;
}

struct flag *flag_use(struct node *node, uint32_t id)
{
    struct flag *flag = flag_find(node, id);
    if (flag || id >= FLAGS_MAX)
        return flag;
    _Atomic(struct flag **) *chunk = &node->flags->chunks[id / FLAG_CHUNK];
    if (!*chunk) {
        struct flag **made = pool_take_persistent(&node->pool, FLAG_CHUNK * sizeof *made);
        memset(made, 0, FLAG_CHUNK * sizeof *made);
        atomic_store(chunk, made);
    }
    flag = pool_take_persistent(&node->pool, sizeof *flag);
    *flag = (struct flag){.id = id, .setter = NODE_NONE, .teller = NODE_NONE};
    return (*chunk)[id % FLAG_CHUNK] = flag;
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
    for (uint32_t c = 0; c < FLAGS_MAX / FLAG_CHUNK; c++) {
        struct flag **chunk = node->flags->chunks[c];
        for (uint32_t i = 0; chunk && i < FLAG_CHUNK; i++) {
            while (chunk[i] && chunk[i]->waiters)
                flag_free_waiter(node, flag_take_waiter(node, &chunk[i]->waiters));
            if (chunk[i])
                pool_give_persistent(&node->pool, chunk[i], sizeof *chunk[i]);
        }
        if (chunk)
            pool_give_persistent(&node->pool, chunk, FLAG_CHUNK * sizeof *chunk);
    }
    if (!node->flags->peers)
        return;
    for (node_id q = 0; q < node->size; q++)
        vector_clear(&node->flags->peers[q].told, &node->pool);
    pool_give_persistent(&node->pool, node->flags->peers, peers_bytes(node));
}

void flag_check(const struct node *node)
{
    for (uint32_t c = 0; c < FLAGS_MAX / FLAG_CHUNK; c++) {
        struct flag **chunk = node->flags->chunks[c];
        for (uint32_t i = 0; chunk && i < FLAG_CHUNK; i++) {
            const struct flag *flag = chunk[i];
            context_assert(node, !flag || !flag->asked || flag->set <= flag->asked_after,
                           "flag: invariant 1: asked for a set that is known");
            for (const struct flag_waiter *waiter = flag ? flag->waiters : NULL; waiter; waiter = waiter->next)
                for (const struct flag_waiter *other = waiter->next; other; other = other->next)
                    context_assert(node, other->node != waiter->node, "flag: invariant 2: a node waits twice");
        }
    }
}

/* ---- what is known of a flag ------------------------------------------------------------------------------------- */

void flag_learn_set(struct node *node, struct flag *flag, stamp set, node_id setter)
{
    if (set <= flag->set)
        return;
    flag->followed = 0;
    flag->set = set;
    flag->setter = setter;
    flag->asked &= set <= flag->asked_after;
    node->wake = true;
}

bool flag_notice(struct node *node, const struct interval *interval, const struct run *run)
{
    struct flag *flag = run->pages == 1 && run->first < FLAGS_MAX ? flag_use(node, (uint32_t)run->first) : NULL;
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
