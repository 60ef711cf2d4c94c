/* dsm.h - the C face of dsm, distributed shared memory for MPI programs.
 *
 * The part between the two markers is handed verbatim to cffi, so it holds declarations and integer macros only.
 *
 * Conventions.  A function returns DSM_OK or a negative `enum dsm_error`; dsm_last_error() then returns, for the
 * calling thread, what went wrong, where, and the remedy.  Output parameters come last.  A function with `slice_s` may
 * wait: it returns DSM_AGAIN when that many seconds have passed (negative: never), and the same call with the same
 * arguments goes on waiting; so a caller can look at its own signals in between.  "Collective": all ranks call it in
 * the same order.
 */
#ifndef DSM_H
#define DSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cffi: begin */

enum dsm_error {
    DSM_OK = 0,
    DSM_AGAIN = -1,         /* not yet: the slice ended, or a lock that was tried is not free */
    DSM_E_ARGUMENT = -2,    /* an argument of this call is wrong, or ranks disagree about it     ValueError   */
    DSM_E_STATE = -3,       /* the call does not fit the state: not started, lock not held ...   RuntimeError */
    DSM_E_VIEWS = -4,       /* arrays over the memory are still alive on some rank               BufferError  */
    DSM_E_MEMORY = -5,      /* the address range or the machine's memory is exhausted            MemoryError  */
    DSM_E_ENVIRONMENT = -6, /* the machine, the MPI or the launcher does not allow it            DSMError     */
    DSM_E_MEETING = -7,     /* ranks met in different collective calls                           DSMError     */
    DSM_E_OVERFLOW = -8,    /* the sum does not fit a counter                                    OverflowError */
    DSM_E_MADE = -9         /* ranks have made different things: dsm_recount                     ValueError   */
};

/* How a rank that computes learns of a request: asleep until a datagram, polling all the time, or every 100 us. */
enum dsm_progress { DSM_PROGRESS_DOORBELL = 0, DSM_PROGRESS_SPIN = 1, DSM_PROGRESS_POLL = 2 };

/* Bits of what can be switched off, to see what it gains (docs/performance.md). */
enum dsm_without {
    DSM_WITHOUT_READAHEAD = 1,    /* read-ahead along streams */
    DSM_WITHOUT_REFETCH = 2,      /* fetching pages again whose last versions were used */
    DSM_WITHOUT_PUSH = 4,         /* sending them before they are asked for */
    DSM_WITHOUT_PREOPEN = 8,      /* opening pages before they are written */
    DSM_WITHOUT_HUGE = 16,        /* huge pages for what is opened in pieces of them */
    DSM_WITHOUT_JOIN = 32,        /* small messages to one process travelling as one */
    DSM_WITHOUT_EVICT = 64,       /* giving up copies of other nodes' pages: no bound */
    DSM_WITHOUT_CROWDS = 128,     /* pages from nodes that were sent them */
    DSM_WITHOUT_PUBLISH = 256,    /* events sent to nodes that waited for others of the same rank, before they wait */
    DSM_WITHOUT_GUESSES = 512,    /* streams that are guessed to be like the last one */
    DSM_WITHOUT_PIECES = 1024,    /* fetching the neighbours of a missed page that were written with it */
    DSM_WITHOUT_APPETITE = 2048,  /* fetching all that a writer names where all of it was used */
    DSM_WITHOUT_COLUMNS = 4096,   /* streams side by side, each twice as wide as the one before */
    DSM_WITHOUT_FORWARDS = 65536, /* departures passed on before they are taken in */
    DSM_WITHOUT_HABITS = 131072   /* notices that repeat a node's last ones told as "the same" */
};

struct dsm_options {
    int32_t progress;       /* enum dsm_progress */
    int32_t check;          /* 0; 1: every *_check after every collective call; 2: after every step */
    int32_t node;           /* ranks of a host that are one node, at most; 0: all of them */
    int32_t oversubscribed; /* 1: more ranks than cores on this host, -1: find out, 0: no */
    uint32_t without;       /* bits of enum dsm_without */
    double watchdog_s;      /* a longer wait prints a line; 0: never */
    uint64_t range_bytes;   /* address space to reserve; 0: the default */
    uint64_t budget_bytes;  /* protocol memory that starts a collection; 0: the default; 1: collect all the time */
    uint64_t cache_bytes;   /* of other nodes' pages that a node holds; 0: its share of half of `left_bytes` */
    uint64_t left_bytes;    /* memory that this host has left; 0: unknown */
    const char *trace_path; /* NULL: no trace; the rank is appended */
    uint64_t races_bytes;   /* of the log of accesses by which races are found; 0: no log */
    int32_t profile;        /* 1: record what dsm_profile shows */
    char watch_address[16]; /* IPv4 address and port that the state of each rank is sent to, now and then; */
    uint16_t watch_port;    /* 0: it is not */
    uint64_t chaos_seed;    /* for tests: disturb messages, pages and collections at random; 0: no */
};

/* One allocation of shared memory. */
struct dsm_region {
    uint32_t id;         /* never used again in a job */
    void *address;       /* the same on every rank */
    uint64_t bytes;      /* as asked for */
    uint64_t page_bytes; /* unit of coherence */
    uint64_t pages;
};

struct dsm_page_info {
    int32_t owner; /* a reader without a copy asks the node that this rank is the first of; -1: nobody has written it */
    bool copy;     /* some version of the page is here */
    bool valid;    /* the version that this rank must see is here */
    bool writable; /* writing it needs no fault, but for a stricter protection */
    bool twin;     /* has writes that no other rank has yet */
    bool pinned;
};

/* Counted since dsm_init or the last reset, on this rank; of all regions and locks, of one region, or of one lock
 * (what does not apply is 0).  Times in nanoseconds, sizes in bytes. */
struct dsm_stats {
    uint64_t faults_read, faults_write;    /* signals served */
    uint64_t faults_local;                 /* of these, without a message */
    uint64_t fetches;                      /* pages brought up to date from other ranks */
    uint64_t fetch_requests;               /* pages asked for, over all ranks asked */
    uint64_t pages_received, pages_served; /* whole pages */
    uint64_t diffs_received, diffs_served; /* diffs, in place of whole pages */
    uint64_t diffs_made;
    uint64_t diff_bytes_received, diff_bytes_served;
    uint64_t twins_made;
    uint64_t intervals_closed;
    uint64_t notices_received;           /* pages named in intervals of other ranks */
    uint64_t invalidations;              /* copies that became stale */
    uint64_t pages_readahead;            /* fetched ahead along streams */
    uint64_t pages_refetched;            /* fetched without a fault, because the last versions were used: */
    uint64_t refetch_waits;              /* times that an acquire or a barrier waited for such pages */
    uint64_t probes, probes_unused;      /* of these, watched to see whether they still are; and were not */
    uint64_t pushes_sent;                /* diffs of a page that were sent before they were asked for */
    uint64_t pushes_used, pushes_unused; /* and received */
    uint64_t pages_preopened, pages_preopened_unused; /* opened before they were written; and not written after all */
    uint64_t copies_given_up;                         /* of other nodes' pages, to keep within the bound */
    uint64_t pages_sent_on;                           /* readers that were sent to another reader, a page each */
    uint64_t barriers;                                /* and the other collective calls */
    uint64_t collections;
    uint64_t lock_acquires;
    uint64_t lock_acquires_local; /* of these, without a message: the token was here */
    uint64_t lock_grants;         /* tokens handed to other ranks */
    uint64_t counter_operations;
    uint64_t messages_sent, messages_received;
    uint64_t bytes_sent, bytes_received;
    uint64_t bells_rung, bells_heard;
    uint64_t protects; /* changes of page protection asked of the kernel */
    uint64_t wait_fault_ns, wait_lock_ns, wait_barrier_ns, wait_counter_ns, wait_flag_ns;
    /* Of the node, not of this rank alone: */
    uint64_t memory_bytes, memory_bytes_max; /* protocol memory: twins, diffs, logs, page states, messages */
    uint64_t twin_bytes, diff_bytes;         /* of these, twins and diffs */
    uint64_t data_bytes;                     /* memory behind the shared arrays */
    uint64_t cached_bytes;                   /* of this, pages that other nodes own */
};

/* ---- life ---------------------------------------------------------------------------------------------------- */

/* Start on a duplicate of *mpi_comm (a pointer to an MPI_Comm).  All ranks pass the same options.  Collective. */
int dsm_init(const void *mpi_comm, const struct dsm_options *options, double slice_s);

/* End; waits for all ranks and goes on answering them meanwhile.  `at_exit`: the program is over, but what the
 * interpreter runs after it may read and write shared memory; so dsm stays active until dsm_end.  Collective. */
int dsm_finalize(bool at_exit, double slice_s);

/* The interpreter is through as well: end, if that has not been done.  Waits for all ranks, and ends them all where
 * it cannot.  Call it before MPI_Finalize, which calls it, too, if need be; but MPICH 5 gives up its locks before
 * it does, and a lock that the service thread holds in that moment is an error of MPI_Finalize (one run in a
 * hundred).  Collective. */
void dsm_end(void);

bool dsm_active(void);          /* started and not finalized */
uint64_t dsm_job(void);         /* drawn by chance at the start, the same on all ranks */
uint32_t dsm_nodes(void);       /* nodes of the job: ranks of a host that share its memory; 0: not started */
int32_t dsm_node_of(int rank);  /* the node of a rank, from 0 */
const char *dsm_node_why(void); /* why ranks of this host are nodes of their own; "": they are not, or are to be */
const char *dsm_last_error(void);
const char *dsm_error_name(int error);

/* Print `dsm: rank R of N: TEXT` and end all ranks with `status`, those of MPI_COMM_WORLD where dsm is not started.
 * Does not return.  Safe in a signal handler as far as MPI_Abort is. */
void dsm_abort(const char *text, int status);

/* ---- memory -------------------------------------------------------------------------------------------------- */

/* Allocate a region whose pages all begin with `initial` repeated (NULL: zeros; initial_bytes divides the smallest
 * page).  `what` is the call as the user wrote it, compared between ranks and shown where they differ.  Collective. */
int dsm_allocate(uint64_t bytes, uint64_t page_bytes, const void *initial, uint32_t initial_bytes, const char *name,
                 const char *what, double slice_s, struct dsm_region *region);

/* Give a region back.  `refusal` is the reason why this rank cannot (NULL: it can); one refusal keeps the region
 * everywhere and returns DSM_E_VIEWS on all ranks.  Afterwards the addresses are inaccessible.  Collective. */
int dsm_free(uint32_t region, const char *refusal, const char *what, double slice_s);

/* No pointer into a freed region is left on this rank.  When all ranks have said so its addresses are used again.
 * Local. */
int dsm_forget(uint32_t region);

/* The region that holds this address.  Local. */
int dsm_region_of(const void *address, struct dsm_region *region);
int dsm_page_info(uint32_t region, uint64_t page, struct dsm_page_info *info);

/* Start to fetch the pages of `runs` runs of `bytes` bytes, `stride` bytes apart and in one region, and go on: a hint.
 * Local. */
int dsm_prefetch(const void *address, uint64_t bytes, uint64_t stride, uint64_t runs);

/* Make bytes [address, address + bytes) resident and keep them accessible to the kernel and to MPI until the matching
 * dsm_unpin.  Nests.  Local. */
int dsm_pin(void *address, uint64_t bytes, bool write);
int dsm_unpin(void *address, uint64_t bytes, bool write);

/* ---- synchronisation ----------------------------------------------------------------------------------------- */

/* All that any rank wrote before is visible to every rank after.  Collective. */
int dsm_barrier(double slice_s);

/* Locks, counters and events are made by all ranks alike, in the same order.  No call that makes one waits: that all
 * ranks have made the same is found by the next collective call, which returns DSM_E_MADE where they have not.  `what`
 * is the call, which ranks compare; `name` is for messages ("": none). */

/* After DSM_E_MADE: what was made stays as it is, and from then on the numbers of new things are the same on all ranks
 * again.  Collective. */
int dsm_recount(double slice_s);

/* A lock with a token that rests where it was last used. */
int dsm_lock_new(const char *what, const char *name, uint32_t *lock);

/* Wait for the lock.  `site` says where in the program, for others that wait too long: a text that stays, or NULL.
 * *ticket is 0 at first; after DSM_AGAIN it keeps the thread's place in the queue: wait on with it, or leave the
 * queue with dsm_acquire_cancel. */
int dsm_acquire(uint32_t lock, const char *site, uint64_t *ticket, double slice_s);
int dsm_acquire_cancel(uint32_t lock, uint64_t *ticket);

/* Take the lock if it rests here and no thread is in line, without a ticket; else DSM_AGAIN. */
int dsm_acquire_here(uint32_t lock, const char *site);

/* Take the lock if it is free: asks its holder once.  DSM_AGAIN: it is not, or the answer takes longer than the
 * slice (the same rules for *ticket as above; 0 afterwards means that the answer was no). */
int dsm_try_acquire(uint32_t lock, const char *site, uint64_t *ticket, double slice_s);
int dsm_release(uint32_t lock);
bool dsm_locked(uint32_t lock); /* held by a thread of this rank */

/* A number that is atomic at its home.  Carries no write notices and orders nothing. */
int dsm_counter_new(int64_t start, const char *what, const char *name, uint32_t *counter);

/* Add `delta`; *before is the value it had.  Where the sum would not fit, nothing is added: DSM_E_OVERFLOW.
 * *ticket as in dsm_acquire. */
int dsm_counter_add(uint32_t counter, int64_t delta, uint64_t *ticket, double slice_s, int64_t *before);

/* Wait until a counter whose home is this rank (its number modulo the size) is no longer `seen`; *value is what it
 * is then.  Nothing is sent: an addition to the counter wakes the waiters.  `beside`: threads that this one waits
 * for, too.  Local. */
int dsm_counter_await(uint32_t counter, int64_t seen, uint32_t beside, double slice_s, int64_t *value);

/* An event: a flag.  A set releases, a wait acquires. */
int dsm_flag_new(const char *what, const char *name, uint32_t *flag);
/* They wait while a collection lets no notice out. */
int dsm_flag_set(uint32_t flag, double slice_s);
int dsm_flag_clear(uint32_t flag, double slice_s);
/* Known here as set, by all threads of this rank: a wait would be over at once.  Takes no mutex. */
bool dsm_flag_is_here(uint32_t flag);
/* Wait until it is set.  *ticket is 0 at first; after DSM_AGAIN it knows which sets count: a set that is cleared again
 * between two slices ends the wait, too. */
int dsm_flag_wait(uint32_t flag, uint64_t *ticket, double slice_s);
/* Whether it is known here as set.  Not: the home is asked, so a thread that asks again will see it. */
int dsm_flag_is_set(uint32_t flag, bool *set);

/* ---- races --------------------------------------------------------------------------------------------------- */

/* Where a rank synchronises.  Between two such calls lies a stretch. */
enum dsm_boundary {
    DSM_BEFORE_RELEASE,
    DSM_AFTER_LOCK,
    DSM_AFTER_FLAG,
    DSM_BEFORE_MEETING, /* a collective call */
    DSM_AFTER_MEETING
};

/* A stretch ends and the next one begins.  `number`: of the lock or flag; `site`: the caller's number for the place in
 * the program.  Does nothing where accesses are not logged.  Local. */
int dsm_boundary(int boundary, uint32_t number, uint32_t site);

struct dsm_stretch {
    uint64_t end; /* by Lamport's clock */
    uint64_t arrivals, departures;
    uint32_t began, ended; /* sites */
};

/* The stretch comes after what `node` did before the release that ended at `since`. */
struct dsm_stretch_edge {
    uint64_t since;
    uint32_t stretch;
    int32_t node;
};

/* A page of a region that was written: the bytes in `runs`; or read (run_count is 0, run_first UINT32_MAX), or kept
 * open: it may have been read in the stretches from run_first on. */
struct dsm_page_access {
    uint64_t page;
    uint32_t stretch;
    uint32_t region;
    uint32_t run_first, run_count;
};

struct dsm_byte_run {
    uint32_t from, to;
};

struct dsm_access_log {
    struct dsm_stretch *stretches;
    struct dsm_stretch_edge *edges;
    struct dsm_page_access *pages;
    struct dsm_byte_run *runs;
    uint32_t stretch_count, edge_count, page_count, run_count;
    uint32_t stretch_capacity, edge_capacity, page_capacity, run_capacity;
    uint64_t lost; /* accesses for which there was no room */
};

/* The log of the stretches that have ended, which a new one follows; give it back.  Local. */
int dsm_accesses_take(struct dsm_access_log *log);
int dsm_accesses_give(struct dsm_access_log *log);

/* `nodes[0]` wrote the bytes.  Kind 0: the other one too; 1: it read their page; 2: it had it open. */
struct dsm_race {
    uint64_t page;
    uint32_t from, to;
    uint32_t region;
    uint32_t kind;
    int32_t nodes[2];
    uint32_t stretches[2];
};

/* Compare the logs of all nodes.  The first `room` races go to `races`; pairs of accesses are skipped where two nodes
 * have very many to one page.  Needs no started dsm.  Local. */
int dsm_races(const struct dsm_access_log *logs, int nodes, struct dsm_race *races, uint64_t room, uint64_t *count,
              uint64_t *pairs_skipped);

/* ---- insight ------------------------------------------------------------------------------------------------- */

int dsm_stats(struct dsm_stats *stats);
int dsm_stats_of_host(struct dsm_stats *stats); /* summed over the ranks of this rank's node */
int dsm_stats_of_region(uint32_t region, struct dsm_stats *stats);
int dsm_stats_of_lock(uint32_t lock, struct dsm_stats *stats);
int dsm_stats_reset(void); /* this rank's totals, regions and locks */

/* ---- profile ------------------------------------------------------------------------------------------------- */

/* With dsm_options.profile a process records its calls, its faults and its pages.  Times are those of one clock of the
 * host, in nanoseconds.  Sites are numbers that the caller gives to places of the program. */

enum dsm_call {
    DSM_CALL_BARRIER = 0,
    DSM_CALL_ACQUIRE = 1,
    DSM_CALL_TRY = 2, /* an acquire that did not get the lock */
    DSM_CALL_RELEASE = 3,
    DSM_CALL_WAIT = 4,
    DSM_CALL_SET = 5,
    DSM_CALL_CLEAR = 6,
    DSM_CALL_NOTIFY = 7,
    DSM_CALL_ALLOCATION = 8,
    DSM_CALL_FREE = 9,
    DSM_CALL_COLLECTIVE = 10,
    DSM_CALL_PREFETCH = 11,
    DSM_CALL_COUNTER = 12,
    DSM_CALL_END = 13,
    DSM_CALLS = 14,
    DSM_EVENT_PHASE = 14, /* between two calls of a thread */
    DSM_EVENT_FAULTS = 15,
    DSM_EVENT_COLLECTION = 16
};

enum dsm_profile_limits { DSM_PROFILE_ARRAYS = 8 };

/* What this process knows of a page of an array.  A phase is the time between two barriers. */
struct dsm_profile_page {
    uint32_t read;                     /* read faults */
    uint32_t written;                  /* intervals of its node, closed by this process, that name it */
    uint32_t opened;                   /* times that this process got, or asked for, the right to write it */
    uint32_t fetched;                  /* times that it was brought up to date */
    uint32_t first_written;            /* in units of 100 us since the start, + 1; 0: never */
    uint32_t contested;                /* phases in which another node wrote it, too */
    uint32_t phase;                    /* the last one of these */
    uint32_t diff_bytes, common_bytes; /* of diffs that came while it was contested; and what two of them share */
    uint64_t rivals;                   /* the other nodes, modulo 64, a bit each */
};

/* faults 0: none. */
struct dsm_profile_array {
    uint32_t region, faults;
};

/* The calls at one site, and the phases that end there. */
struct dsm_profile_site {
    uint64_t calls, faults, pages, bytes;
    int64_t computed_ns, data_ns, waited_ns;
    uint32_t object;  /* of the last call */
    uint32_t objects; /* changes of it */
    struct dsm_profile_array arrays[DSM_PROFILE_ARRAYS];
};

struct dsm_profile_event {
    int64_t begin_ns, end_ns;
    uint64_t bytes;
    uint32_t kind; /* enum dsm_call */
    uint32_t site, object, thread, count, pages;
    int32_t peer; /* the node that pages came from last; -1: none came */
    uint32_t unused;
};

/* A collective call: the nth of one process is the nth of every other. */
struct dsm_profile_meeting {
    int64_t begin_ns, end_ns, computed_ns;
    uint32_t site;
    uint16_t busy;    /* since the last one the process faulted or wrote */
    uint16_t brought; /* pages had come with the last one, which may have been read since */
};

struct dsm_profile_hold {
    int64_t asked_ns, acquired_ns, released_ns; /* 0: not yet */
    uint32_t lock, site;
};

struct dsm_profile_lock {
    uint64_t acquires;
    int64_t waited_ns, held_ns, acquired_ns; /* acquired_ns: 0: not held */
    uint64_t hold;                           /* its entry, + 1 */
};

struct dsm_profile_thread {
    uint32_t number; /* as the kernel knows it */
    uint32_t depth;  /* of calls in calls */
    int64_t began_ns, last_ns, data_ns, computed_ns;
    int64_t spent_ns[DSM_CALLS];
    uint64_t faults;
};

struct dsm_profile_moment {
    int64_t time_ns;
    uint64_t protocol_bytes, twin_bytes, diff_bytes, data_bytes, cached_bytes;
};

struct dsm_profile {
    int64_t began_ns;
    struct dsm_profile_site *sites;
    struct dsm_profile_event *events;
    struct dsm_profile_meeting *meetings;
    struct dsm_profile_hold *holds;
    struct dsm_profile_lock *locks;
    struct dsm_profile_thread *threads;
    struct dsm_profile_moment *moments;
    uint64_t *asked; /* pages asked of each node */
    uint32_t sites_max, locks_max, thread_count, event_count, meeting_count, hold_count, moment_count;
    /* What was left out: events shorter than so, and how many; meetings, holds and arrays without room. */
    int64_t shortest_ns;
    uint64_t events_left, meetings_left, holds_left, arrays_left;
};

/* NULL: nothing is recorded.  Local. */
const struct dsm_profile *dsm_profile(void);
int64_t dsm_profile_clock(void);
/* A call of the program begins, returns when; and ends.  Calls nest: the outermost one counts as a call.  Local. */
int64_t dsm_profile_enter(uint32_t call, uint32_t object);
void dsm_profile_leave(uint32_t call, uint32_t object, uint32_t site, int64_t begin_ns);
/* Record the pages of an array from now on; what was recorded; forget it.  Local. */
void dsm_profile_watch(uint32_t region, uint64_t pages);
const struct dsm_profile_page *dsm_profile_pages(uint32_t region);
void dsm_profile_unwatch(uint32_t region);
/* The first rank of the node that owns each page of an array, -1: none; and the pages of which this node has a copy
 * that holds more than the initial value.  A node that is alone does not know either.  Local. */
int dsm_profile_owners(uint32_t region, uint64_t count, int32_t *owners, uint64_t *held);
/* CPU time of the service thread.  Local. */
int64_t dsm_profile_service_ns(void);

/* ---- more insight -------------------------------------------------------------------------------------------- */

/* The stacks of threads that wait, for the lines of the watchdog.  A signal, or 0: the thread that gets it is to
 * write its stack to *file and then call the handler that was there before (faulthandler.register).  Then
 * dsm_stack_ready; files whose paths begin with one of the two texts are not shown. */
int dsm_stack_signal(int *file);
void dsm_stack_ready(int file, const char *skip, const char *skip_too);

/* Which MPI this was compiled with ("MPICH", "Open MPI", else the header's own words) and which one is loaded now. */
const char *dsm_mpi_header(void);
int dsm_mpi_library(char *text, int capacity);
int dsm_mpi_handle_bytes(void); /* sizeof(MPI_Comm) */
bool dsm_mpi_initialized(void);

/* cffi: end */

#ifdef __cplusplus
}
#endif

#endif
