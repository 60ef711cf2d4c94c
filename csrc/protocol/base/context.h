/* context - the node that a function of the protocol runs on; every function is given it.
 *
 * A node is one process of the job.  Here are its identity, its port, its clock, the messages that it sends and defers,
 * and the knobs and statistics that all layers share.  The state of the layers above hangs on it by pointers, so that
 * no file below needs to know it.
 *
 * Nothing in the protocol waits, sends, or takes the time.  A call changes the state and leaves results as data:
 * messages in the outbox, and `wake`, which says that something changed that a waiting thread may be waiting for.  Many
 * nodes fit in one process, and nothing here can tell simulation from production.
 */
#pragma once

#include "protocol/base/reader.h"

/* Knobs of the simulator, and of chaos under MPI.  All zero: as in production. */
struct policy {
    enum { WHOLE_AUTO, WHOLE_NEVER, WHOLE_ALWAYS, WHOLE_RANDOM } whole; /* whole pages instead of diffs */
    enum { BULK_AUTO, BULK_NEVER, BULK_ALWAYS, BULK_RANDOM } bulk;      /* whole pages by bulk transfer */
    uint32_t stay_open_permille;                                        /* serve a page and leave it open (R10) */
    uint32_t preopen_permille;                                          /* open a page before it is written (R10) */
    uint32_t guess_permille;                                            /* predict something of a page without ground */
    uint32_t changes_kept;                                              /* entries in the log of changes; 0: as usual */
    uint32_t evict_permille;                                            /* look at cached pages within the bound, too */
    uint32_t random_state;
    bool check_all;      /* check_node after each step */
    bool check_meetings; /* and after each departure of threads */
};

struct node_options {
    node_id number, size;
    uint32_t spaces;              /* processes that map the node's memory, 1 to SPACES_MAX */
    uint32_t ranks;               /* of the job: the processes of all nodes */
    uint64_t budget_bytes;        /* of protocol memory, above what remained after the last collection */
    uint64_t readahead_bytes_max; /* fetched ahead of a stream, at most; 0: none */
    uint64_t refetch_bytes_max;   /* of the update set, under way at a time; 0: none is refetched */
    uint64_t
        push_bytes_max; /* pushed to a node at a time, and refetched at a time by a node that subscribes; 0: none */
    uint64_t open_bytes_max; /* opened ahead of write faults, at most; 0: none */
    uint64_t cache_bytes;    /* held of other nodes' pages, at most; 0: no bound, and nothing is counted */
    uint32_t readers_max;    /* of a version, in large requests: more are sent on to these (page/crowd.h); 0: none is */
    uint32_t readers_small_max;    /* the same, in small requests */
    uint32_t published_unused_max; /* flags published unasked that a node uses none of; 0: none is (sync/event.h) */
    uint64_t races_bytes_max;      /* of the log of accesses, at most */
    bool races;                    /* log accesses (page/accesses.h); of a node with one space, */
    bool races_stay_open;          /* which keeps pages open over stretches (coherence/stretch.h) */
    bool without_guesses, without_columns, without_pieces, without_appetite, without_forwards,
        without_habits; /* what is switched off */
    struct policy policy;
};

/* What a node counts; regions (page/page.h) and locks (sync/lock.h) count for themselves. */
struct node_stats {
    uint64_t intervals_closed, barriers, collections, counter_operations, protects;
    uint64_t pages_readahead, pages_refetched, refetch_waits, pushes_sent, pushes_used, pushes_unused, probes,
        probes_unused;
    uint64_t pages_preopened, pages_preopened_unused, copies_given_up, pages_sent_on;
};

/* The last things that happened, for the last words of a broken node and for traces. */
enum event_kind {
    EVENT_NONE,
    EVENT_FAULT_READ,
    EVENT_FAULT_WRITE,
    EVENT_FETCH,
    EVENT_SERVE,
    EVENT_INSTALL,
    EVENT_APPLY,
    EVENT_SEAL,
    EVENT_OPEN,
    EVENT_STALE,
    EVENT_CLOSE,
    EVENT_ACQUIRE,
    EVENT_RELEASE,
    EVENT_ASK,
    EVENT_PASS,
    EVENT_GRANT,
    EVENT_TOKEN,
    EVENT_ARRIVE,
    EVENT_DEPART,
    EVENT_COLLECT,
    EVENT_GIVE_UP,
    /* For the port only: there may be many of them at a time. */
    EVENT_FETCHED, /* the page is up to date */
    EVENT_WROTE,   /* a run of an interval of this node: its first page, and how many */
    EVENT_CONTEST, /* the peer has written a page that this node has written since the last cut, too */
    EVENT_COMMON,  /* so many bytes in which diffs of two writers of the page are of the same place */
    EVENT_KINDS
};

struct event {
    stamp stamp;
    uint64_t object; /* page of the region, or lock, or kind of meeting */
    uint64_t amount; /* bytes that came; pages of a run */
    region_id region;
    node_id peer;
    enum event_kind kind;
};

enum { EVENTS_KEPT = 256 };

/* The phases of a collection (sync/collection.h); all layers act by them. */
enum collection_phase {
    COLLECTION_IDLE,
    COLLECTION_ARRIVING,
    COLLECTION_HOLDING,
    COLLECTION_CUTTING,
    COLLECTION_VALIDATING,
    COLLECTION_DROPPING,
    COLLECTION_FORGETTING
};

struct collection {
    enum collection_phase phase;
    bool requested;           /* node 0 was asked, or is node 0 */
    uint64_t threshold_bytes; /* of pool memory */
    stamp floor;              /* stamp of the last collection */
    stamp ended;              /* the clock when it ended here: pages do not know stamps that they got before */
    uint64_t count;
};

struct node {
    node_id number, size;
    uint32_t spaces;         /* processes that map the node's memory */
    uint32_t me;             /* the space whose process is inside (node_enter) */
    const struct port *port; /* of that process */
    struct pool pool;
    struct policy policy;
    struct node_options options;

    stamp stamp;        /* Lamport clock */
    stamp *vt;          /* latest interval known of every node */
    stamp *cut;         /* up to which the last cut went, for every node */
    uint64_t cuts;      /* passed so far */
    uint64_t forwarded; /* number of the last departure that went on to the children */
    bool unfinished;    /* it is to be taken in when that has left (node/departure.h) */
    struct collection collection;

    struct message *outbox, **outbox_end;
    struct message *to_self, **to_self_end;
    struct message *deferred, **deferred_end; /* they wait for a departure, or for pages that arrive */
    bool redeliver;                           /* deferred messages may be answerable now */
    bool delivering;                          /* to_self is being emptied further up the stack */
    bool wake;
    bool send_blocked; /* a thread or a fetch here waits until a bulk transfer has left */

    struct node_stats *stats; /* of each space: the process that does the work counts it */
    struct event events[EVENTS_KEPT];
    uint64_t event_count;

    struct regions *regions;       /* page/region.h */
    struct interval_log *logs;     /* page/interval.h: one per node */
    struct accesses *accesses;     /* page/accesses.h */
    struct protection *protection; /* coherence/protection.h */
    struct changes *changes;       /* coherence/changes.h */
    struct pins *pins;             /* coherence/pin.h */
    struct writes *writes;         /* coherence/writes.h */
    struct preopened *preopened;   /* coherence/preopened.h */
    struct bulk *bulk;             /* coherence/bulk.h */
    struct cache *cache;           /* coherence/cache.h */
    struct fetches *fetches;       /* coherence/fetch.h */
    struct update_set *updates;    /* predict/update.h */
    struct prefetches *prefetches; /* predict/prefetch.h */
    struct locks *locks;           /* sync/lock.h */
    struct counters *counters;     /* sync/counter.h */
    struct flags *flags;           /* sync/flag.h */
    struct habits *habits;         /* sync/habit.h */
    struct meeting *meetings;      /* sync/meeting.h: one per class */
    struct roll *roll;             /* sync/roll.h */
};

stamp context_tick(struct node *node);
/* Into the outbox; node_settle delivers a message to this node itself. */
void context_send(struct node *node, struct message *message);
/* Keep a message that cannot be answered yet.  It is dispatched again, in order, after `redeliver` was set. */
void context_defer(struct node *node, struct message *message);

void context_event(struct node *node, enum event_kind kind, uint64_t object, node_id peer);
void context_page_event(struct node *node, enum event_kind kind, region_id region, uint64_t page, node_id peer,
                        uint64_t amount);
/* An event for the port only, which is asked for: see context_noted. */
void context_note(struct node *node, struct event event);
const char *context_event_name(enum event_kind kind);
/* Does not return. */
void context_panic(const struct node *node, const char *format, ...)
    __attribute__((cold, noreturn, format(printf, 2, 3)));
/* The message names something that cannot be: does not return. */
void context_malformed(const struct node *node, const struct message *message) __attribute__((cold, noreturn));
/* An invariant.  It is looked at in every build; where it does not hold the node dies with its text. */
static inline void context_assert(const struct node *node, bool holds, const char *text)
{
    if (__builtin_expect(!holds, 0))
        context_panic(node, "%s", text);
}

/* The port records what happens. */
static inline bool context_noted(const struct node *node)
{
    return __builtin_expect(node->port->note != NULL, 0);
}

/* A bit for each space. */
static inline uint64_t context_spaces(const struct node *node)
{
    return UINT64_MAX >> (SPACES_MAX - node->spaces);
}

/* A die of the simulator. */
bool context_chance(struct node *node, uint32_t permille);

/* Is a collection holding?  Then no fault may start and no page may be opened. */
static inline bool context_holds(const struct node *node)
{
    return node->collection.phase >= COLLECTION_HOLDING;
}

/* True: no new notice may be given now (collection.h). */
static inline bool context_silent(const struct node *node)
{
    return node->collection.phase >= COLLECTION_CUTTING;
}

/* How much of a node's writes is in a copy that has `have`: stamps up to the last collection are implied (R8). */
stamp context_known(const struct node *node, const struct vector *have, node_id writer);
