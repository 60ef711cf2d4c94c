/* node - one process of the job, as the protocol sees it: all its state, and the ways in.
 *
 * Nothing here waits, sends, or takes the time.  A call changes the state and leaves results as data: messages in the
 * outbox, and `wake`, which says that something changed that a waiting thread may be waiting for.  A thread that waits
 * asks again: access_fault, lock_poll, counter_poll, meeting_take are all questions that can be repeated.  The caller holds
 * one mutex around every call.  Messages to itself a node delivers before the call returns.
 *
 * Many nodes fit in one process; nothing here can tell simulation from production.
 */
#ifndef PROTOCOL_NODE_H
#define PROTOCOL_NODE_H

#include "protocol/apart.h"
#include "protocol/collection.h"
#include "protocol/ahead.h"
#include "protocol/counter.h"
#include "protocol/fetch.h"
#include "protocol/history.h"
#include "protocol/interval.h"
#include "protocol/lock.h"
#include "protocol/meeting.h"
#include "protocol/prefetch.h"
#include "protocol/push.h"
#include "protocol/region.h"
#include "protocol/roll.h"

/* What the simulator turns, and chaos under MPI.  All zero: as in production. */
struct policy {
    enum { WHOLE_AUTO, WHOLE_NEVER, WHOLE_ALWAYS, WHOLE_RANDOM } whole;
    enum { BULK_AUTO, BULK_NEVER, BULK_ALWAYS, BULK_RANDOM } bulk; /* whole pages, behind the wire (apart.h) */
    uint32_t stay_open_permille;                                   /* serve a page and leave it open (R10) */
    uint32_t preopen_permille;                                     /* open a page before it is written (R10) */
    uint32_t guess_permille; /* guess something of a page without ground (history.h) */
    uint32_t random_state;
    bool check_all;      /* every *_check after each step */
    bool check_meetings; /* and after each departure of threads */
};

struct node_options {
    node_id rank, size;
    uint64_t budget_bytes;        /* of protocol memory, above what remained after the last collection */
    uint64_t readahead_bytes_max; /* read-ahead of a stream, at most; 0: none */
    uint64_t
        refetch_bytes_max;   /* of pages that are wanted again (history.h), under way at a time; 0: none is brought */
    uint64_t push_bytes_max; /* pages pushed to a node at a time, and wanted at a time by who subscribes; 0: none */
    uint64_t open_bytes_max; /* opened ahead of write faults, at most; 0: none */
    struct policy policy;
};

struct node_stats {
    uint64_t faults_read, faults_write, faults_local, fetches, fetch_requests;
    uint64_t pages_received, pages_served, diffs_received, diffs_served, diffs_made, diff_bytes_received,
        diff_bytes_served, twins_made, intervals_closed, notices_received, invalidations, barriers, collections;
    uint64_t lock_acquires, lock_acquires_local, lock_grants, counter_operations, protects;
    uint64_t pages_readahead, pages_refetched, pushes_sent, pushes_used, pushes_unused, probes, probes_unused;
    uint64_t pages_preopened, pages_preopened_unused;
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
    EVENT_KINDS
};

struct event {
    stamp stamp;
    uint64_t page; /* or lock, or meeting */
    region_id region;
    node_id peer;
    enum event_kind kind;
};

enum { EVENTS_KEPT = 256 };

struct node {
    node_id rank, size;
    struct port port;
    struct pool pool;
    struct policy policy;
    struct node_options options;

    stamp stamp;         /* Lamport clock */
    stamp *vt;           /* latest interval known of every node */
    stamp *cut;          /* and up to which the last cut went */
    uint64_t cuts;       /* passed so far */
    struct log *logs;    /* one per node */
    struct page **dirty; /* pages of the open interval */
    uint32_t dirty_count, dirty_capacity;
    struct page **opened; /* early, and not found changed yet */
    uint32_t opened_count, opened_capacity;

    struct regions regions;
    struct fetch *fetches; /* under way */
    uint32_t fetch_count;
    struct wanted wanted;
    struct prefetches prefetches;
    struct message *sending;  /* with segments, until the last byte of them has been taken */
    struct message *arriving; /* placed, and not received yet */
    uint32_t postponed;       /* fetches that wait for something in `sending` */
    bool send_blocked;        /* somebody here waits for something in `sending` */
    struct page *pinned;      /* list, in ascending order of addresses */
    struct page *pinned_last; /* where the last one was put in, or NULL */

    struct lock **locks;
    uint32_t lock_count, lock_capacity;
    struct counter *counters;
    uint32_t counter_count, counter_capacity;
    struct counter_request *counter_requests;
    uint64_t tickets;

    struct meeting meetings[MEETING_CLASSES];
    struct roll roll;
    struct collection collection;

    /* A batch of neighbouring pages whose protection the kernel has not been told yet. */
    struct {
        uint64_t offset, bytes;
        enum access access;
    } batch;
    uint64_t edges; /* changes of protection along the whole range */

    struct message *outbox, **outbox_end;
    struct message *to_self, **to_self_end;
    struct message *deferred, **deferred_end; /* wait for a departure, or for pages that arrive */
    bool redeliver;                           /* what they wait for may have come */
    bool delivering;                          /* to_self is being emptied further up the stack */
    bool wake;

    struct node_stats stats;
    struct event events[EVENTS_KEPT];
    uint64_t event_count;
};

struct node *node_new(const struct node_options *options, const struct port *port);
void node_free(struct node *node);

/* ---- ways in ------------------------------------------------------------------------------------------------- */

enum fault_answer {
    FAULT_DONE,   /* the protection allows the access now: retry it */
    FAULT_WAIT,   /* ask again after the next wake */
    FAULT_OUTSIDE /* no region there */
};

/* A thread touched `offset`.  `first` on the first of a series of equal questions (statistics, read-ahead). */
enum fault_answer access_fault(struct node *node, uint64_t offset, bool write, bool first);

/* A message of another node; the node takes it. */
void node_receive(struct node *node, struct message *message);
/* The wire of a message of another node has come, and segments travel behind it: says where they go.  When they are there,
 * node_receive takes the message.  Messages of one sender are placed in their order. */
void node_place(struct node *node, struct message *message);
/* All bytes of a message with segments, which came out of the outbox, have been taken; the node takes it back. */
void node_sent(struct node *node, struct message *message);

/* Pins: the page at `offset` must be accessible (access_fault said DONE under the same hold of the mutex). */
void access_pin(struct node *node, uint64_t offset, bool write);
void access_unpin(struct node *node, uint64_t offset, bool write);
/* Before an acquire or a barrier returns: start what pinned pages lack; true when these are up to date, and the pages that
 * are wanted again are here. */
bool access_caught_up(struct node *node);

/* The messages to send, in order; the caller takes them. */
struct message *node_take_outbox(struct node *node);
bool node_take_wake(struct node *node);
/* End of every entry from outside: deliver to self, step the collection, tell the kernel.  The functions of lock.h,
 * counter.h, meeting.h, roll.h and trail.h that threads call do not do it themselves: call it after them. */
void node_settle(struct node *node);

void check_node(const struct node *node);

/* ---- for the other files of the protocol --------------------------------------------------------------------- */

stamp context_tick(struct node *node);
void context_send(struct node *node, struct message *message);
void context_event(struct node *node, enum event_kind kind, const struct page *page, uint64_t other, node_id peer);
const char *context_event_name(enum event_kind kind);
/* Does not return. */
void context_panic(const struct node *node, const char *format, ...) __attribute__((format(printf, 2, 3)));
void context_malformed(const struct node *node, const struct message *message);
bool context_chance(struct node *node, uint32_t permille);

/* Other nodes may have departed from a meeting already, and use what it made: a lock or counter of the number that is next
 * here.  Such messages, and grants that build on a cut that this node has not passed, wait for its own departure. */
bool node_not_made_yet(const struct node *node, uint32_t number, uint32_t next);
void context_defer(struct node *node, struct message *message);

/* Make the region inaccessible and forget all that this node knows of it. */
void node_remove_region(struct node *node, struct region *region);

/* notices.c */
/* What subscribers have not is pushed to them: to `to` only, or (NODE_NONE) to all. */
void release_interval(struct node *node, node_id to);
/* Put the intervals above the vector's entries, and above the last cut, into the message. */
void notices_put(struct node *node, struct message *message, const struct vector *known);
/* What this node knows, as entries above the last cut. */
void notices_put_known(struct node *node, struct message *message);
/* Take in write notices: the acquire side of every synchronisation. */
void notices_apply(struct node *node, const struct message *message, struct reader *reader);
/* The same list in the departure of a meeting, which all nodes see alike: choose owners, trim logs. */
void cut_pass(struct node *node, const struct message *message, struct reader reader);

/* protection.c */
void protection_set(struct node *node, struct page *page, enum access access);
/* Make all of a region that is about to go inaccessible. */
void protection_remove_region(struct node *node, struct region *region);
void protection_flush(struct node *node);

/* opening.c */
/* The page belongs to the open interval. */
void writes_mark_dirty(struct node *node, struct page *page);
/* A write fault, or one ahead of its time: the page belongs to the open interval.  False: a collection is under way, or
 * the page is being sent. */
bool writes_open(struct node *node, struct page *page);
/* A guess that the page will be written: open it, but let it belong to no interval as long as it has not changed (R10). */
bool preopened_open(struct node *node, struct page *page, bool stays);
/* In the open interval, or since it was opened early. */
bool preopened_written(const struct node *node, const struct page *page);
/* Look at what was opened early: what has changed belongs to the open interval. */
void preopened_inspect(struct node *node);
/* The same, and nothing is open early until preopened_resume: during a collection nothing may be written unseen. */
void preopened_pause(struct node *node);
void preopened_resume(struct node *node);
void preopened_remove_region(struct node *node, const struct region *region);
/* Cut what was written since others were sent the page, and leave it open early: no fault when it is written again. */
void seal_snapshot(struct node *node, struct page *page);
/* Before a page is served: protect it (batched) ... */
void seal_shut(struct node *node, struct page *page);
/* ... and, after protection_flush, cut what was written, or `late`.  Returns the tag. */
stamp seal_page(struct node *node, struct page *page, bool late);
/* Cut what `late` has put off: before others' writes change the page or its twin, and before its diffs are asked for. */
void seal_encode_deferred(struct node *node, struct page *page);
/* Something was written elsewhere that this copy lacks: take the access away, as far as pins allow. */
void protection_make_stale(struct node *node, struct page *page);

#endif
