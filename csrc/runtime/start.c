/* What all ranks must agree on before the protocol can run (thread level, address range, options, bells) is settled
 * here with plain MPI collectives; afterwards the protocol's own meetings take over. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "machine/clock.h"
#include "machine/signals.h"
#include "machine/mpi_process.h"
#include "runtime/bells.h"
#include "runtime/chaos_node.h"
#include "runtime/delivery.h"
#include "runtime/end.h"
#include "runtime/error.h"
#include "runtime/faults.h"
#include "runtime/guard.h"
#include "runtime/neighbour.h"
#include "runtime/node_port.h"
#include "runtime/nodes.h"
#include "runtime/print.h"
#include "runtime/profile.h"
#include "runtime/range.h"
#include "runtime/service.h"
#include "runtime/shared.h"
#include "runtime/thread.h"
#include "runtime/trace.h"
#include "runtime/watchdog.h"

#define BUDGET_BYTES ((uint64_t)64 << 20)
#define READAHEAD_BYTES ((uint64_t)4 << 20)
#define REFETCH_BYTES ((uint64_t)4 << 20)
#define PUSH_BYTES ((uint64_t)1 << 20)

enum { PUBLISHED_UNUSED = 64 }; /* a rank may set events well ahead of those that wait */
#define OPEN_BYTES ((uint64_t)4 << 20)
enum { READERS = 2, READERS_SMALL = 8 }; /* of a version of a page that one node serves */

#define BELL_TEST_NS (INT64_C(2) * 1000 * 1000 * 1000) /* hundreds of ranks on a few cores take turns */

static struct runtime *starting; /* dsm_init was called, and some rank has not called it yet */

/* ---- what all ranks agree on ---------------------------------------------------------------------------------- */

static int check_same(struct runtime *runtime, const char *what, uint64_t value)
{
    uint64_t low = transport_agree_min(runtime->transport, value),
             high = transport_agree_max(runtime->transport, value);
    if (low == high)
        return DSM_OK;
    return error_set(DSM_E_ARGUMENT, "%s differs between ranks: %llu here, from %llu to %llu; set it alike on all",
                     what, (unsigned long long)value, (unsigned long long)low, (unsigned long long)high);
}

/* A rank that cannot go on must not leave the others waiting for it. */
static int agreed(struct runtime *runtime, int error)
{
    bool all = transport_agree_min(runtime->transport, error == 0) == 1;
    if (!all && !error)
        return error_set(DSM_E_ENVIRONMENT, "another rank could not start; its own message says why");
    return error;
}

static int check_options(struct runtime *runtime)
{
    const struct dsm_options *options = &runtime->options;
    const struct {
        const char *what;
        uint64_t value;
    } same[] = {
        {"the way of progress (DSM_PROGRESS)", (uint64_t)options->progress},
        {"the size of the address range (DSM_RANGE_BYTES)", options->range_bytes},
        {"the memory that starts a collection (DSM_COLLECT_BYTES)", options->budget_bytes},
        {"the seed of chaos (DSM_CHAOS)", options->chaos_seed},
        {"the profile (DSM_PROFILE)", (uint64_t)options->profile},
        {"the ranks of a node (DSM_NODE)", (uint64_t)options->node},
        {"the search for races (DSM_RACES)", options->races_bytes},
        {"the format of messages (another version of dsm?)", MESSAGE_MAGIC},
    };
    int error = DSM_OK;
    for (size_t i = 0; i < sizeof same / sizeof same[0] && !error; i++)
        error = check_same(runtime, same[i].what, same[i].value);
    return error;
}

static int open_bells(struct runtime *runtime)
{
    struct doorbell_address mine, *all = calloc((size_t)runtime->size, sizeof *all);
    uint64_t drawn[2] = {0}; /* the token, with which any process can ring, and the job's name, which is public */
    if (getrandom(drawn, sizeof drawn, 0) != sizeof drawn)
        drawn[0] = drawn[1] = (uint64_t)clock_now_ns();
    runtime->doorbell = doorbell_open(&mine);
    bool made = all && runtime->doorbell;
    int error = agreed(runtime, made ? DSM_OK : error_set(DSM_E_MEMORY, "no memory for %d ranks", runtime->size));
    if (!error) {
        transport_gather(runtime->transport, &mine, (int)sizeof mine, all);
        transport_broadcast(runtime->transport, drawn, (int)sizeof drawn);
        runtime->job = drawn[1];
        error = doorbell_connect(runtime->doorbell, all, runtime->rank, runtime->size, drawn[0]);
        if (error)
            error = error_set(DSM_E_ENVIRONMENT, "the addresses of the doorbells cannot be used: %s", strerror(-error));
        error = agreed(runtime, error);
    }
    free(all);
    return error;
}

/* Where a firewall swallows datagrams, polling is slow but works. */
static void test_bells(struct runtime *runtime)
{
    doorbell_test_ring(runtime->doorbell);
    uint64_t missing = (uint64_t)doorbell_test_missing(runtime->doorbell, BELL_TEST_NS);
    missing = transport_agree_max(runtime->transport, missing);
    if (missing == 0)
        return;
    runtime->options.progress = DSM_PROGRESS_POLL;
    if (runtime->rank == 0)
        print_text(
            "dsm: datagrams do not pass between all ranks (a firewall, or no loopback device?), so ranks poll every "
            "100 us instead of being woken: allow UDP between the hosts and on the loopback address, or set "
            "DSM_PROGRESS=poll to silence this\n");
}

static int ranks_here(const struct runtime *runtime)
{
    int here = 0;
    for (int peer = 0; peer < runtime->size; peer++)
        here += doorbell_same_host(runtime->doorbell, peer);
    return here;
}

static int cores_here(void)
{
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : INT_MAX;
}

/* The nodes of a host share half of what it has left. */
static uint64_t cache_bytes(const struct runtime *runtime)
{
    const struct dsm_options *options = &runtime->options;
    const struct nodes *nodes = &runtime->nodes;
    uint64_t here = 0;
    if (options->without & DSM_WITHOUT_EVICT)
        return 0;
    if (options->cache_bytes)
        return options->cache_bytes;
    for (uint32_t node = 0; node < nodes->count; node++)
        here += nodes->hosts[nodes->first[node]] == nodes->hosts[runtime->rank];
    return options->left_bytes / 2 / here;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int make_node(struct runtime *runtime)
{
    enum { WINDOWS = 16 }; /* in the bound: what was fetched before its use must stay until then */
    uint32_t without = runtime->options.without;
    uint64_t cache = cache_bytes(runtime), window = cache ? cache / WINDOWS : UINT64_MAX;
    bool races = runtime->options.races_bytes && runtime->nodes.count > 1;
    struct node_options options = {
        .number = runtime->nodes.of[runtime->rank],
        .spaces = runtime->nodes.spaces,
        .ranks = (uint32_t)runtime->size,
        .size = (node_id)runtime->nodes.count,
        .budget_bytes = runtime->options.budget_bytes ? runtime->options.budget_bytes : BUDGET_BYTES,
        .readahead_bytes_max = without & DSM_WITHOUT_READAHEAD ? 0 : least(READAHEAD_BYTES, window),
        .refetch_bytes_max = without & DSM_WITHOUT_REFETCH ? 0 : least(REFETCH_BYTES, window),
        .push_bytes_max = without & DSM_WITHOUT_PUSH ? 0 : PUSH_BYTES,
        .published_unused_max = without & DSM_WITHOUT_PUBLISH ? 0 : PUBLISHED_UNUSED,
        .open_bytes_max = without & DSM_WITHOUT_PREOPEN || races ? 0 : OPEN_BYTES, /* a read of an open page hides */
        .cache_bytes = cache,
        .readers_max = without & DSM_WITHOUT_CROWDS ? 0 : READERS,
        .readers_small_max = without & DSM_WITHOUT_CROWDS ? 0 : READERS_SMALL,
        .races = races,
        .races_stay_open = !(without & DSM_WITHOUT_PREOPEN),
        .races_bytes_max = runtime->options.races_bytes,
        .without_guesses = without & DSM_WITHOUT_GUESSES,
        .without_columns = without & DSM_WITHOUT_COLUMNS,
        .without_pieces = without & DSM_WITHOUT_PIECES,
        .without_appetite = without & DSM_WITHOUT_APPETITE,
        .without_forwards = without & DSM_WITHOUT_FORWARDS,
        .without_habits = without & DSM_WITHOUT_HABITS,
        .policy.check_all = runtime->options.check >= 2,
        .policy.check_meetings = runtime->options.check >= 1,
    };
    if (runtime->options.chaos_seed)
        chaos_node_choose(runtime, &options);
    if (shared_begin(runtime) != 0)
        return error_set(DSM_E_MEMORY, "no room for the state of the node; ask for more with DSM_RANGE_BYTES");
    struct shared *shared = *arena_root(&runtime->arena);
    shared->node = node_new(&options, &runtime->port);
    return DSM_OK;
}

/* The first rank of a node makes it. */
static int join_node(struct runtime *runtime)
{
    runtime->port = node_port_make(runtime);
    int error = agreed(runtime, runtime->nodes.space == 0 ? make_node(runtime) : DSM_OK);
    if (!error)
        shared_join(runtime);
    if (!error && runtime->options.profile)
        error = agreed(runtime, profile_begin(runtime));
    return error;
}

static int start_threads(struct runtime *runtime)
{
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
    int error = pthread_create(&runtime->service, NULL, service_thread, runtime);
    if (!error)
        error = pthread_create(&runtime->watchdog, NULL, watchdog_thread, runtime);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? error_set(DSM_E_ENVIRONMENT, "cannot start a thread: %s", strerror(error)) : DSM_OK;
}

/* ---- init ---------------------------------------------------------------------------------------------------- */

static void print_waits(void)
{
    struct runtime *runtime = runtime_current;
    if (runtime)
        atomic_store(&runtime->print_waits, true);
}

static void init_mutex(struct runtime *runtime)
{
    pthread_mutexattr_t mutex;
    pthread_mutexattr_init(&mutex);
    pthread_mutexattr_settype(&mutex, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&runtime->mutex, &mutex);
    pthread_mutexattr_destroy(&mutex);
    thread_make_condition(&runtime->changed);
}

/* Ask all ranks to start.  From here on a death, and a question (SIGUSR1), know this rank. */
static int begin(const void *mpi_comm, const struct dsm_options *options)
{
    char text[512];
    struct runtime *runtime = calloc(1, sizeof *runtime);
    if (!runtime)
        return error_set(DSM_E_MEMORY, "no memory for the runtime");
    struct transport_buffers buffers = delivery_buffers(runtime);
    if (transport_open(&runtime->transport, mpi_comm, &buffers, text, (int)sizeof text) != 0) {
        free(runtime);
        return error_set(DSM_E_ENVIRONMENT, "%s", text);
    }
    runtime->options = *options;
    if (options->trace_path)
        runtime->options.trace_path = strdup(options->trace_path);
    runtime->rank = transport_rank(runtime->transport);
    runtime->size = transport_size(runtime->transport);
    runtime->process = getpid();
    runtime->neighbour_file = -1;
    init_mutex(runtime);
    starting = runtime_current = runtime;
    signals_watch_usr1(print_waits);
    return DSM_OK;
}

static void report_late(struct runtime *runtime, int64_t now)
{
    static int64_t began_ns, reported_ns;
    int64_t longest = (int64_t)(runtime->options.watchdog_s * 1e9);
    began_ns = began_ns ? began_ns : now;
    bool late = longest > 0 && now - began_ns > longest && (!reported_ns || now - reported_ns > 10 * longest);
    if (!atomic_exchange(&runtime->print_waits, false) && !late)
        return;
    reported_ns = now;
    char line[320];
    snprintf(
        line, sizeof line,
        "dsm: rank %d of %d has waited %.1f s for all ranks to start dsm: some rank has not made its first collective "
        "call (dsm.init(), dsm.zeros() ...), which all ranks make, in the same order\n",
        runtime->rank, runtime->size, (double)(now - began_ns) * 1e-9);
    print_text(line);
}

/* Wait until all ranks have begun.  Not inside of MPI: the caller looks at its signals between the slices. */
static int await_all(struct runtime *runtime, double slice_s)
{
    enum { LOOKS = 1000, SOON_NS = 20 * 1000, LATER_NS = 1000 * 1000 };
    int64_t now = clock_now_ns(), end_ns = slice_s < 0 ? INT64_MAX : now + (int64_t)(slice_s * 1e9);
    for (int looks = 0;; looks++) {
        char text[512];
        int opened = transport_opened(runtime->transport, text, (int)sizeof text);
        if (opened < 0) {
            runtime->transport = NULL;
            return error_set(DSM_E_ENVIRONMENT, "%s", text);
        }
        if (opened)
            return DSM_OK;
        now = clock_now_ns();
        report_late(runtime, now);
        if (now >= end_ns)
            return DSM_AGAIN;
        nanosleep(&(struct timespec){.tv_nsec = looks < LOOKS ? SOON_NS : LATER_NS}, NULL);
    }
}

static int start(struct runtime *runtime)
{
    if (bells_open(runtime) != 0)
        return error_set(DSM_E_MEMORY, "no memory for %d ranks", runtime->size);
    int error = check_options(runtime);
    if (!error && runtime->options.chaos_seed &&
        transport_start_chaos(runtime->transport, runtime->options.chaos_seed) != 0)
        error = error_set(DSM_E_MEMORY, "no memory for %d ranks", runtime->size);
    if (!error)
        error = agreed(runtime, trace_open(runtime));
    if (!error)
        error = range_map(runtime);
    if (!error)
        error = open_bells(runtime);
    if (!error && nodes_choose(runtime) != 0)
        error = error_set(DSM_E_MEMORY, "no memory for %d ranks", runtime->size);
    if (!error)
        error = agreed(runtime, nodes_join(runtime));
    if (error)
        return error;
    int here = ranks_here(runtime);
    runtime->one_host = here == runtime->size;
    if (runtime->options.progress == DSM_PROGRESS_DOORBELL && runtime->nodes.count > 1)
        test_bells(runtime);
    if (runtime->options.oversubscribed < 0)
        runtime->options.oversubscribed = here > cores_here();
    neighbour_choose(runtime);
    error = join_node(runtime);
    if (!error)
        error = faults_begin(runtime);
    if (error)
        return error;
    guard_begin(runtime);
    if (mpi_process_before_finalize(end_with_mpi) != 0)
        return error_set(DSM_E_ENVIRONMENT, "MPI takes no call for its end");
    return start_threads(runtime);
}

int dsm_init(const void *mpi_comm, const struct dsm_options *options, double slice_s)
{
    if (runtime_state() == RUNTIME_ACTIVE)
        return error_set(DSM_E_STATE, "dsm has been started already");
    if (runtime_state() != RUNTIME_NEW)
        return error_set(DSM_E_STATE, "dsm was finalized; it starts once per process");
    int error = starting ? DSM_OK : begin(mpi_comm, options);
    if (!error)
        error = await_all(starting, slice_s);
    if (error == DSM_AGAIN)
        return DSM_AGAIN;
    if (!error)
        error = start(starting);
    starting = NULL;
    if (error)
        runtime_current = NULL; /* its parts are left as they are: ranks that fail alike end, or go on without dsm */
    else
        runtime_enter_state(RUNTIME_ACTIVE);
    return error;
}
