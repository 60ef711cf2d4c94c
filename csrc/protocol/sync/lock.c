/* Requests travel requester -> manager -> last requester; the token travels straight back.  With one request
 * outstanding per node and lock, the nodes that wait form one chain, and each has at most one behind it. */
#include "protocol/sync/lock.h"

#include <string.h>

#include "protocol/coherence/alone.h"
#include "protocol/coherence/preopened.h"
#include "protocol/coherence/push.h"
#include "protocol/page/accesses.h"
#include "protocol/sync/notices.h"
#include "protocol/sync/release.h"

struct lock *lock_find(const struct node *node, uint32_t id)
{
    return table_find(&node->locks->all, id);
}

struct lock *lock_next(const struct node *node, uint32_t *next)
{
    return table_next(&node->locks->all, next);
}

static uint32_t used_by(uint32_t rank)
{
    return 2 * (rank + 1);
}

static node_id manager_of(const struct node *node, const struct lock *lock)
{
    return (node_id)(lock->id % (uint32_t)node->size);
}

struct lock_stats lock_total(const struct node *node, uint32_t space)
{
    struct lock_stats total = {0};
    const struct lock *lock;
    for (uint32_t next = 0; (lock = lock_next(node, &next));) {
        total.acquires += lock->stats[space].acquires;
        total.acquires_local += lock->stats[space].acquires_local;
        total.grants += lock->stats[space].grants;
    }
    return total;
}

struct lock *lock_use(struct node *node, uint32_t id)
{
    struct lock *lock = lock_find(node, id);
    if (lock || id >= TABLE_MAX)
        return lock;
    lock = pool_take_persistent(&node->pool, sizeof *lock);
    *lock = (struct lock){.id = id, .waiting = NODE_NONE, .predecessor = NODE_NONE, .released_by = NODE_NONE};
    lock->stats = pool_take_persistent(&node->pool, node->spaces * sizeof *lock->stats);
    memset(lock->stats, 0, node->spaces * sizeof *lock->stats);
    lock->tail = manager_of(node, lock);
    lock->token = lock->tail == node->number;
    table_add(&node->locks->all, &node->pool, id, lock);
    return lock;
}

void lock_forget_trail(struct node *node, struct lock *lock)
{
    if (lock->told)
        pool_give(&node->pool, lock->told, sizeof *lock->told);
    lock->told = NULL;
}

static void drop(struct node *node, struct lock *lock)
{
    for (struct lock_waiter *waiter = lock->queue, *next; waiter; waiter = next) {
        next = waiter->next;
        pool_give(&node->pool, waiter, sizeof *waiter);
    }
    vector_clear(&lock->waiting_vector, &node->pool);
    lock_forget_trail(node, lock);
    pool_give_persistent(&node->pool, lock->stats, node->spaces * sizeof *lock->stats);
    pool_give_persistent(&node->pool, lock, sizeof *lock);
}

void locks_fini(struct node *node)
{
    struct lock *lock;
    for (uint32_t next = 0; (lock = lock_next(node, &next));)
        drop(node, lock);
    table_fini(&node->locks->all, &node->pool);
}

/* Invariants 1, 2 and 4, and the node that waits: before and after each transition. */
static void check_state(const struct node *node, const struct lock *lock)
{
    context_assert(node, lock->token || !lock_held(lock), "lock: held without the token");
    context_assert(node, !lock->token || !lock->asked, "lock: asked for a token that is here");
    context_assert(node, lock->asked || !lock->withdrawing, "lock: withdraws a request that was not made");
    context_assert(node, lock->asked_trying || !lock->withdrawing, "lock: withdraws a request that is firm");
    context_assert(node, lock->withdrawing == (lock->predecessor != NODE_NONE),
                   "lock: withdraws and knows no predecessor");
    context_assert(node, lock->withdrawing || !(lock->passed_on || lock->follower_due),
                   "lock: a node that stays in the chain has a follower");
    context_assert(node, !lock->passed_on || !lock->follower_due, "lock: a request is awaited that went on");
    context_assert(node, lock->waiting == NODE_NONE || !lock->withdrawing, "lock: a node waits behind one that leaves");
    context_assert(node, lock->waiting != NODE_NONE || !lock->waiting_vector.count,
                   "lock: no node waits, and it has notices");
}

/* ---- the token ----------------------------------------------------------------------------------------------- */

static void grant(struct node *node, struct lock *lock)
{
    context_assert(node, lock->token, "lock: a token is granted that is not here");
    context_assert(node, !lock_held(lock), "lock: a lock is granted that a thread holds");
    context_assert(node, lock->waiting != NODE_NONE, "lock: a lock is granted to nobody");
    context_assert(node, lock->waiting != node->number, "lock: a lock is granted to the node that has it");
    release_interval(node);
    push_send(node, lock->waiting, vector_get(&lock->waiting_vector, node->number));
    struct message *message = message_new(&node->pool, lock->waiting, MESSAGE_GRANT, RING_NEVER, 64);
    message->rank = lock->waiting_rank;
    message_put_u32(message, &node->pool, lock->id);
    message_put_u64(message, &node->pool, node->cuts);
    if (node->options.races) {
        message_put_u32(message, &node->pool, (uint32_t)lock->released_by);
        message_put_u64(message, &node->pool, lock->released_at);
    }
    notices_put(node, message, &lock->waiting_vector);
    context_event(node, EVENT_GRANT, lock->id, lock->waiting);
    lock->token = false;
    lock->waiting = NODE_NONE;
    vector_clear(&lock->waiting_vector, &node->pool);
    lock->stats[node->me].grants++;
    context_send(node, message);
}

static void refuse(struct node *node, struct lock *lock)
{
    context_assert(node, lock->waiting != NODE_NONE, "lock: nobody is refused");
    context_assert(node, lock->waiting_trying, "lock: a firm request is refused");
    struct message *busy = message_new(&node->pool, lock->waiting, MESSAGE_BUSY, RING_NEVER, 8);
    busy->rank = lock->waiting_rank;
    message_put_u32(busy, &node->pool, lock->id);
    lock->waiting = NODE_NONE;
    vector_clear(&lock->waiting_vector, &node->pool);
    context_send(node, busy);
}

/* The token goes on when no thread here uses it or waits for it.  A node that only tries is refused when it would have
 * to wait for a thread; it does not wait for a try that is not answered, nor for the end of a collection. */
static void answer_waiting(struct node *node, struct lock *lock)
{
    check_state(node, lock);
    if (lock->waiting == NODE_NONE)
        return;
    bool firm = lock->asked && !lock->asked_trying;
    if (lock->token && !lock_held(lock) && !lock->queue) {
        if (!preopened_owing(node))
            grant(node, lock);
    } else if (lock->waiting_trying && (lock->token || firm)) {
        refuse(node, lock);
    }
}

void lock_resume(struct node *node)
{
    struct lock *lock;
    for (uint32_t next = 0; (lock = lock_next(node, &next));)
        answer_waiting(node, lock);
}

/* Requests travel as: lock, requester, its process that waits, trying, its vector. */
static void put_request(struct node *node, struct message *message, const struct lock *lock, node_id who, int32_t rank,
                        bool trying)
{
    message_put_u32(message, &node->pool, lock->id);
    message_put_u32(message, &node->pool, (uint32_t)who);
    message_put_u32(message, &node->pool, (uint32_t)rank);
    message_put_u32(message, &node->pool, trying);
}

static void ask(struct node *node, struct lock *lock, bool trying)
{
    context_assert(node, !lock->asked, "lock: a second request for a token (R12)");
    context_assert(node, !lock->token, "lock: a request for a token that is here");
    context_assert(node, lock->queue, "lock: a request that no thread makes");
    lock->asked = true;
    lock->asked_trying = trying;
    context_event(node, EVENT_ASK, lock->id, manager_of(node, lock));
    struct message *message = message_new(&node->pool, manager_of(node, lock), MESSAGE_ACQUIRE, RING_LATER, 64);
    put_request(node, message, lock, node->number, (int32_t)node->port->rank, trying);
    notices_put_known(node, message);
    context_send(node, message);
}

/* ---- threads ------------------------------------------------------------------------------------------------- */

/* The end of a path says more than its beginning. */
static void copy_site(char *to, const char *site)
{
    size_t bytes = site ? strlen(site) : 0, room = TRAIL_SITE_BYTES - 1, cut = bytes > room ? bytes - room : 0;
    for (size_t i = 0; i < bytes - cut; i++)
        to[i] = cut && i < 3 ? '.' : (unsigned char)site[cut + i] < ' ' ? '?' : site[cut + i];
    to[bytes - cut] = 0;
}

uint64_t lock_enqueue(struct node *node, struct lock *lock, uint32_t thread, const char *site, bool trying)
{
    struct lock_waiter *waiter = pool_take(&node->pool, sizeof *waiter);
    *waiter = (struct lock_waiter){.lock = lock, .space = node->me, .trying = trying, .before = lock->queue_last};
    waiter->user.rank = node->port->rank;
    waiter->user.thread = thread;
    copy_site(waiter->user.site, site);
    *(lock->queue ? &lock->queue_last->next : &lock->queue) = waiter;
    lock->queue_last = waiter;
    atomic_fetch_or(&lock->use, LOCK_LINE);
    context_assert(node, lock->queue, "lock: nobody is in line");
    return (uintptr_t)waiter;
}

/* A ticket is the address of a place, so that a thread finds its own in a long line at once. */
struct lock_waiter *lock_waiter_of(const struct node *node, const struct lock *lock, uint64_t ticket)
{
    struct lock_waiter *waiter = (void *)(uintptr_t)ticket;
    if (waiter->lock != lock)
        context_panic(node, "lock %u: nobody waits with ticket %llu", lock->id, (unsigned long long)ticket);
    return waiter;
}

static void dequeue(struct node *node, struct lock *lock, struct lock_waiter *waiter)
{
    context_assert(node, waiter->lock == lock, "lock: a thread leaves the line of another lock");
    context_assert(node, lock->queue, "lock: a thread leaves an empty line");
    *(waiter->before ? &waiter->before->next : &lock->queue) = waiter->next;
    *(waiter->next ? &waiter->next->before : &lock->queue_last) = waiter->before;
    if (!lock->queue)
        atomic_fetch_and(&lock->use, ~(uint32_t)LOCK_LINE);
    waiter->lock = NULL;
    pool_give(&node->pool, waiter, sizeof *waiter);
    node->wake |= lock->queue != NULL; /* another thread may be the first now */
}

/* One answer is enough for this thread: is it no?  Not because of another try: if that fails, this one asks for
 * itself. */
static bool is_refused(const struct lock *lock, const struct lock_waiter *waiter)
{
    if (waiter->refused || lock->queue != waiter || lock->token)
        return true;
    return lock->asked && !lock->asked_trying;
}

enum lock_answer lock_poll(struct node *node, struct lock *lock, uint64_t ticket)
{
    struct lock_waiter *waiter = lock_waiter_of(node, lock, ticket);
    bool first = lock->queue == waiter;
    check_state(node, lock);
    uint32_t none = LOCK_LINE, mine = used_by(waiter->user.rank) | LOCK_LINE;
    if (first && lock->token && atomic_compare_exchange_strong(&lock->use, &none, mine)) {
        lock->overtaken = 0;
        lock->holder = waiter->user;
        lock->held_long = false;
        lock->stats[node->me].acquires++;
        if (!waiter->asked) {
            lock->stats[node->me].acquires_local++;
        }
        context_event(node, EVENT_ACQUIRE, lock->id, node->number);
        dequeue(node, lock, waiter);
        answer_waiting(node, lock);
        return LOCK_TAKEN;
    }
    if (waiter->trying && is_refused(lock, waiter)) {
        lock_cancel(node, lock, ticket);
        return LOCK_REFUSED;
    }
    if (first && !lock->token && !lock->asked) {
        waiter->asked = true;
        ask(node, lock, waiter->trying);
    }
    return LOCK_WAIT;
}

void lock_cancel(struct node *node, struct lock *lock, uint64_t ticket)
{
    dequeue(node, lock, lock_waiter_of(node, lock, ticket));
    answer_waiting(node, lock);
}

bool lock_orphaned(const struct node *node)
{
    const struct lock *lock;
    for (uint32_t next = 0; (lock = lock_next(node, &next));)
        if (lock->asked && !lock->queue)
            return true;
    return false;
}

bool lock_release(struct node *node, struct lock *lock, uint32_t rank)
{
    uint32_t use = atomic_load(&lock->use);
    do {
        if ((use & ~(uint32_t)LOCK_LINE) != used_by(rank))
            return false;
    } while (!atomic_compare_exchange_weak(&lock->use, &use, use & LOCK_LINE));
    context_event(node, EVENT_RELEASE, lock->id, node->number);
    check_state(node, lock);
    lock->released_by = node->number;
    lock->released_at = node->accesses->cut;
    if (lock->waiting != NODE_NONE && !preopened_owing(node))
        grant(node, lock); /* a node that waits goes before our own threads */
    node->wake |= lock->queue != NULL;
    return true;
}

bool lock_take_alone(struct node *node, struct lock *lock, uint32_t space, const struct lock_user *user,
                     const char *site)
{
    enum { LOCK_OVERTAKES = 32 };
    context_assert(node, alone_is(node), "lock: a lock is taken without the mutex, and others may ask for it");
    uint32_t use = atomic_load(&lock->use);
    if (use > LOCK_LINE || (use == LOCK_LINE && atomic_load(&lock->overtaken) >= LOCK_OVERTAKES))
        return false;
    if (!atomic_compare_exchange_strong(&lock->use, &use, used_by(user->rank) | use))
        return false;
    if (use == LOCK_LINE)
        lock->overtaken++;
    lock->holder.rank = user->rank;
    lock->holder.thread = user->thread;
    copy_site(lock->holder.site, site);
    lock->stats[space].acquires++;
    lock->stats[space].acquires_local++;
    return true;
}

bool lock_give_alone(struct lock *lock, uint32_t rank)
{
    uint32_t mine = used_by(rank);
    return atomic_compare_exchange_strong(&lock->use, &mine, 0);
}

/* ---- messages ------------------------------------------------------------------------------------------------ */

struct lock_request {
    struct lock *lock;
    node_id who;
    int32_t rank;
    bool trying;
};

static struct lock_request read_request(struct node *node, const struct message *message, struct reader *reader)
{
    struct lock_request request = {.lock = lock_find(node, reader_u32(reader))};
    uint32_t who = reader_u32(reader), rank = reader_u32(reader);
    request.rank = (int32_t)rank;
    request.trying = reader_u32(reader) != 0;
    request.who = (node_id)who;
    if (reader->bad || !request.lock || who >= (uint32_t)node->size || rank >= node->options.ranks)
        context_malformed(node, message);
    return request;
}

static void pass_on(struct node *node, const struct message *request, node_id to)
{
    struct message *pass = message_new(&node->pool, to, MESSAGE_PASS, RING_LATER, 64);
    struct reader body = reader_of(request);
    uint64_t bytes = reader_left(&body);
    message_put_bytes(pass, &node->pool, reader_bytes(&body, bytes), bytes);
    context_send(node, pass);
}

void lock_receive_acquire(struct node *node, struct message *message)
{
    struct reader reader = reader_of(message), peek = reader;
    lock_use(node, reader_u32(&peek)); /* the manager may hear of it for the first time */
    struct lock_request request = read_request(node, message, &reader);
    struct vector known = {0};
    reader_vector(&reader, &node->pool, node->size, 0, &known);
    if (!reader_ended(&reader) || manager_of(node, request.lock) != node->number)
        context_malformed(node, message); /* or the next node would blame this one */
    vector_clear(&known, &node->pool);
    node_id last = request.lock->tail;
    request.lock->tail = request.who;
    pass_on(node, message, last);
}

/* Refused, and no request will come here any more. */
static void leave_chain(struct node *node, struct lock *lock)
{
    context_assert(node, lock->waiting == NODE_NONE, "lock: a node waits behind one that has left");
    lock->withdrawing = lock->asked = lock->passed_on = lock->follower_due = false;
    lock->predecessor = NODE_NONE;
    lock_forget_trail(node, lock);
    node->wake = true;
}

void lock_receive_pass(struct node *node, const struct message *message)
{
    struct reader reader = reader_of(message);
    struct lock_request request = read_request(node, message, &reader);
    struct lock *lock = request.lock;
    context_event(node, EVENT_PASS, lock->id, request.who);
    check_state(node, lock);
    if (!lock->token && !lock->asked)
        context_panic(node, "lock %u: rank %d waits behind this one, which has no token to come", lock->id,
                      request.who);
    if (lock->passed_on)
        context_panic(node, "lock %u: rank %d follows this one, which had a follower", lock->id, request.who);
    if (lock->withdrawing) {
        pass_on(node, message, lock->predecessor);
        if (lock->follower_due)
            leave_chain(node, lock);
        else
            lock->passed_on = true;
        return;
    }
    if (lock->waiting != NODE_NONE)
        context_panic(node, "lock %u: ranks %d and %d both wait behind this one", lock->id, lock->waiting, request.who);
    if (request.who == node->number)
        context_malformed(node,
                          message); /* a node asks once, and never behind itself: a trail would go round for ever */
    lock->waiting = request.who;
    lock->waiting_rank = request.rank;
    lock->waiting_trying = request.trying;
    reader_vector(&reader, &node->pool, node->size, 0, &lock->waiting_vector);
    if (!reader_ended(&reader))
        context_malformed(node, message);
    answer_waiting(node, lock);
}

void lock_receive_busy(struct node *node, const struct message *message)
{
    struct reader reader = reader_of(message);
    struct lock *lock = lock_find(node, reader_u32(&reader));
    bool tries = lock && lock->asked && lock->asked_trying && !lock->withdrawing;
    if (!reader_ended(&reader) || !tries)
        context_malformed(node, message);
    for (struct lock_waiter *waiter = lock->queue; waiter; waiter = waiter->next)
        if (waiter->trying && waiter->asked)
            waiter->refused = true;
    context_assert(node, lock->predecessor == NODE_NONE, "lock: a second predecessor");
    lock->withdrawing = true;
    lock->predecessor = message->peer;
    struct message *withdraw = message_new(&node->pool, manager_of(node, lock), MESSAGE_WITHDRAW, RING_LATER, 8);
    message_put_u32(withdraw, &node->pool, lock->id);
    message_put_u32(withdraw, &node->pool, (uint32_t)lock->predecessor);
    context_send(node, withdraw);
    if (lock->waiting != NODE_NONE) {
        struct message *pass = message_new(&node->pool, lock->predecessor, MESSAGE_PASS, RING_LATER, 64);
        put_request(node, pass, lock, lock->waiting, lock->waiting_rank, lock->waiting_trying);
        message_put_vector(pass, &node->pool, &lock->waiting_vector);
        lock->waiting = NODE_NONE;
        vector_clear(&lock->waiting_vector, &node->pool);
        lock->passed_on = true;
        context_send(node, pass);
    }
    check_state(node, lock);
    node->wake = true;
}

void lock_receive_withdraw(struct node *node, const struct message *message)
{
    struct reader reader = reader_of(message);
    struct lock *lock = lock_find(node, reader_u32(&reader));
    uint32_t predecessor = reader_u32(&reader);
    if (!reader_ended(&reader) || !lock || manager_of(node, lock) != node->number ||
        predecessor >= (uint32_t)node->size)
        context_malformed(node, message);
    bool follows = lock->tail != message->peer;
    if (!follows)
        lock->tail = (node_id)predecessor;
    struct message *withdrawn = message_answer(&node->pool, message, MESSAGE_WITHDRAWN, 8);
    message_put_u32(withdrawn, &node->pool, lock->id);
    message_put_u32(withdrawn, &node->pool, follows);
    context_send(node, withdrawn);
}

void lock_receive_withdrawn(struct node *node, const struct message *message)
{
    struct reader reader = reader_of(message);
    struct lock *lock = lock_find(node, reader_u32(&reader));
    bool follows = reader_u32(&reader) != 0;
    bool awaited = lock && lock->withdrawing && !lock->follower_due && (follows || !lock->passed_on);
    if (!reader_ended(&reader) || !awaited)
        context_malformed(node, message);
    if (!follows || lock->passed_on)
        leave_chain(node, lock);
    else
        lock->follower_due = true;
}

void lock_take_token(struct node *node, struct lock *lock)
{
    context_assert(node, lock->asked, "lock: a token comes that was not asked for");
    context_assert(node, !lock->token, "lock: a second token");
    context_assert(node, !lock->withdrawing, "lock: a token comes to a node that leaves the line");
    lock->token = true;
    lock->asked = false;
    lock_forget_trail(node, lock);
    answer_waiting(node, lock);
    node->wake = true;
}
