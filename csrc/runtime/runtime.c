/* Start and end.  Everything that all ranks must agree on before the protocol can run (thread level, address range,
 * options, bells) is settled here with plain MPI collectives; afterwards the protocol's own meetings take over. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/runtime.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define RANGE_BYTES ((uint64_t)16 << 40)
#define RANGE_BYTES_MIN ((uint64_t)1 << 30)
#define BUDGET_BYTES ((uint64_t)64 << 20)
#define READAHEAD_BYTES ((uint64_t)4 << 20)
#define REFETCH_BYTES ((uint64_t)4 << 20)
#define PUSH_BYTES ((uint64_t)1 << 20)
#define OPEN_BYTES ((uint64_t)4 << 20)

enum { GRANULE_BYTES = 4096, EVENTS_TOLD = 24, BELL_TEST_NS = 500 * 1000 * 1000, BROKEN_S = 2, DEATH_S = 2 };

struct runtime *runtime_current;
static _Atomic int the_state = RUNTIME_NEW; /* enum runtime_state */
static struct runtime *starting;            /* dsm_init was called, and some rank has not called it yet */
static _Thread_local char error_text[2048];

enum runtime_state runtime_state(void)
{
    return (enum runtime_state)atomic_load(&the_state);
}

void runtime_enter_state(enum runtime_state state)
{
    atomic_store(&the_state, (int)state);
}

uint32_t runtime_thread(void)
{
    static _Thread_local uint32_t thread;
    if (thread == 0)
        thread = (uint32_t)gettid();
    return thread;
}

/* ---- errors -------------------------------------------------------------------------------------------------- */

const char *dsm_error_name(int error)
{
    switch (error) {
    case DSM_OK: return "DSM_OK";
    case DSM_AGAIN: return "DSM_AGAIN";
    case DSM_E_ARGUMENT: return "DSM_E_ARGUMENT";
    case DSM_E_STATE: return "DSM_E_STATE";
    case DSM_E_VIEWS: return "DSM_E_VIEWS";
    case DSM_E_MEMORY: return "DSM_E_MEMORY";
    case DSM_E_ENVIRONMENT: return "DSM_E_ENVIRONMENT";
    case DSM_E_MEETING: return "DSM_E_MEETING";
    case DSM_E_OVERFLOW: return "DSM_E_OVERFLOW";
    }
    return "unknown error";
}

int runtime_error(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error_text, sizeof error_text, format, arguments);
    va_end(arguments);
    return error;
}

const char *dsm_last_error(void)
{
    return error_text;
}

/* ---- death --------------------------------------------------------------------------------------------------- */

static void write_all(const char *text)
{
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

static void write_events(const struct node *node)
{
    uint64_t count = node->event_count < EVENTS_TOLD ? node->event_count : EVENTS_TOLD;
    for (uint64_t i = node->event_count - count; i < node->event_count; i++) {
        const struct event *event = &node->events[i % EVENTS_KEPT];
        char line[160];
        snprintf(line, sizeof line, "dsm:   stamp %llu %s region %u page %llu rank %d\n",
                 (unsigned long long)event->stamp, context_event_name(event->kind), event->region,
                 (unsigned long long)event->object, event->peer);
        write_all(line);
    }
}

/* A thread is ending this process already, and its message is the one.  What crashes meanwhile stands aside, too: MPI_Abort
 * takes MPI down under the feet of the service thread, and a signal would hide the status.  Not for ever, since an exit
 * handler may want a lock that this thread holds (the GIL). */
void runtime_stand_aside(const struct runtime *runtime)
{
    if (runtime->dying != gettid())
        sleep(DEATH_S);
    _exit(runtime->dying_status);
}

void runtime_die(const struct runtime *runtime, const char *text, int status, bool events)
{
    struct runtime *own = runtime_current;
    int nobody = 0;
    if (own && !atomic_compare_exchange_strong(&own->dying, &nobody, gettid()))
        runtime_stand_aside(own);
    if (own)
        own->dying_status = status;
    char line[1024];
    int rank = -1, size = 0;
    if (runtime) {
        rank = runtime->rank;
        size = runtime->size;
    } else {
        mpi_process_world(&rank, &size);
    }
    snprintf(line, sizeof line, "dsm: rank %d of %d: %s\n", rank, size, text);
    write_all(line);
    if (events && runtime && runtime->node)
        write_events(runtime->node);
    for (int peer = 0; runtime && runtime->doorbell && peer < runtime->size; peer++)
        doorbell_farewell(runtime->doorbell, peer);
    if (!runtime || runtime->transport)
        mpi_process_abort(status);
    _exit(status);
}

void runtime_warn(const struct runtime *runtime, const char *text)
{
    char line[1024];
    snprintf(line, sizeof line, "dsm: rank %d of %d: %s\n", runtime->rank, runtime->size, text);
    write_all(line);
}

void dsm_abort(const char *text, int status)
{
    runtime_die(runtime_current, text, status, false);
}

/* ---- the protocol's port ---------------------------------------------------------------------------------------- */

static int port_protect(void *context, uint64_t offset, uint64_t bytes, enum access access)
{
    struct runtime *runtime = context;
    int error = memory_protect(&runtime->memory, offset, bytes, (enum memory_access)access);
    if (error && error != -ENOMEM)
        runtime_die(runtime, strerror(-error), 1, true);
    return error;
}

static void port_discard(void *context, uint64_t offset, uint64_t bytes)
{
    struct runtime *runtime = context;
    int error = memory_discard(&runtime->memory, offset, bytes);
    runtime->expected_count = 0;
    if (error)
        runtime_die(runtime, strerror(-error), 1, true);
}

static uint64_t port_touched(void *context, uint64_t offset)
{
    const struct runtime *runtime = context;
    return memory_touched(&runtime->memory, offset);
}

static void port_expect(void *context, uint64_t offset, uint64_t bytes)
{
    struct runtime *runtime = context;
    unsigned count = runtime->expected_count;
    if (count && runtime->expected[count - 1].end == offset)
        runtime->expected[count - 1].end += bytes;
    else if (count < EXPECTED_MAX)
        runtime->expected[runtime->expected_count++] = (struct expected){offset, offset + bytes};
}

static bool port_copied_by(void *context, node_id peer)
{
    const struct runtime *runtime = context;
    return board_copied_by(runtime->board, peer);
}

static void port_put(void *context, uint64_t offset, const unsigned char *bytes, uint64_t count)
{
    struct runtime *runtime = context;
    memory_put(&runtime->memory, offset, bytes, count);
}

static enum wait_kind port_waits(void *context, uint32_t thread, uint64_t *object)
{
    return watchdog_waits(context, thread, object);
}

static void *port_chunk(void *context, size_t bytes)
{
    void *chunk = memory_chunk(bytes);
    if (!chunk)
        runtime_die(context, "the memory of this machine is exhausted (twins, diffs or messages)", 1, false);
    return chunk;
}

static void port_chunk_free(void *context, void *chunk, size_t bytes)
{
    (void)context;
    memory_chunk_free(chunk, bytes);
}

static void port_panic(void *context, const char *text)
{
    runtime_die(context, text, 1, true);
}

static void *buffer_take(void *context, uint64_t bytes)
{
    struct runtime *runtime = context;
    return pool_take_persistent(&runtime->node->pool, bytes);
}

static void buffer_give(void *context, void *buffer, uint64_t bytes)
{
    struct runtime *runtime = context;
    pool_give_persistent(&runtime->node->pool, buffer, bytes);
}

static void buffer_sent(void *context, void *token)
{
    progress_sent(context, token);
}

static int buffer_place(void *context, int source, void *buffer, uint64_t bytes, struct transport_part *parts,
                        void **token)
{
    struct message *placed;
    int count = progress_place(context, source, buffer, bytes, parts, &placed);
    *token = placed;
    return count;
}

/* MPI fails when a rank dies under it, often before anybody has said which: who knows (the dead rank's neighbour, or
 * mpiexec) goes first. */
static void transport_broken(void *context, const char *text)
{
    char line[1024];
    nanosleep(&(struct timespec){.tv_sec = BROKEN_S}, NULL);
    snprintf(line, sizeof line, "%s (has another rank died? then mpiexec or another rank says which)", text);
    runtime_die(context, line, 1, true);
}

static void print_waits(void)
{
    struct runtime *runtime = runtime_current;
    if (runtime)
        atomic_store(&runtime->print_waits, true);
}

/* ---- init ---------------------------------------------------------------------------------------------------- */

/* Everybody maps the range at the same place, or nobody does.  `refused` starts as EEXIST and becomes why it is not done:
 * 0 when it could be done here, at some place; that something else lies at one says nothing of the next. */
static bool map_at(struct runtime *runtime, uint64_t bytes, int *refused)
{
    for (unsigned k = 0;; k++) {
        void *address = memory_candidate(k, bytes);
        if (!address)
            return false;
        int error = memory_map(&runtime->memory, address, bytes);
        bool all = transport_agree_min(runtime->transport, error == 0) == 1;
        if (all)
            return true;
        if (error == 0)
            memory_unmap(&runtime->memory);
        if (error != -EEXIST)
            *refused = -error;
    }
}

static const char *cure_of_refusal(int error)
{
    switch (error) {
    case 0: return "another rank refuses, and says why";
    case EFBIG:
        return "files may not be so large, and shared memory is one to the kernel; `ulimit -f unlimited` in the job "
               "script, or a smaller DSM_RANGE_BYTES";
    case EPERM:
    case EACCES:
    case ENOSYS:
        return "a sandbox forbids memfd_create, which shared memory comes from; let the container's seccomp profile "
               "allow it";
    case ENOMEM:
        return "the address space is limited, and they are needed twice; `ulimit -v unlimited` in the job script, or a "
               "smaller DSM_RANGE_BYTES";
    case EEXIST: return "something else lies at each of the places; ask for less with DSM_RANGE_BYTES";
    default: return "`python -m dsm doctor` looks at the limits of this machine";
    }
}

static int map_range(struct runtime *runtime)
{
    uint64_t asked = runtime->options.range_bytes;
    uint64_t bytes = asked ? asked : RANGE_BYTES;
    int refused = EEXIST;
    for (; bytes >= RANGE_BYTES_MIN || bytes == asked; bytes /= 2)
        if (map_at(runtime, bytes, &refused)) {
            runtime->memory.huge = !(runtime->options.without & DSM_WITHOUT_HUGE);
            return DSM_OK;
        } else if (asked)
            break;
    return runtime_error(DSM_E_ENVIRONMENT,
                         "%llu bytes of addresses cannot be had at the same place on all ranks: %s%s%s",
                         (unsigned long long)(asked ? asked : RANGE_BYTES_MIN), refused ? strerror(refused) : "",
                         refused ? ": " : "", cure_of_refusal(refused));
}

static int check_same(struct runtime *runtime, const char *what, uint64_t value)
{
    uint64_t low = transport_agree_min(runtime->transport, value),
             high = transport_agree_max(runtime->transport, value);
    if (low == high)
        return DSM_OK;
    return runtime_error(DSM_E_ARGUMENT, "%s differs between ranks: %llu here, from %llu to %llu; set it alike on all",
                         what, (unsigned long long)value, (unsigned long long)low, (unsigned long long)high);
}

/* One rank that cannot go on must not leave the others waiting for it. */
static int agreed(struct runtime *runtime, int error)
{
    bool all = transport_agree_min(runtime->transport, error == 0) == 1;
    if (!all && !error)
        return runtime_error(DSM_E_ENVIRONMENT, "another rank could not start; its own message says why");
    return error;
}

static int check_options(struct runtime *runtime)
{
    const struct dsm_options *options = &runtime->options;
    int error = check_same(runtime, "the way of progress (DSM_PROGRESS)", (uint64_t)options->progress);
    if (!error)
        error = check_same(runtime, "the size of the address range (DSM_RANGE_BYTES)", options->range_bytes);
    if (!error)
        error = check_same(runtime, "the memory that starts a collection (DSM_COLLECT_BYTES)", options->budget_bytes);
    if (!error)
        error = check_same(runtime, "the seed of chaos (DSM_CHAOS)", options->chaos_seed);
    if (!error)
        error = check_same(runtime, "the format of messages (another version of dsm?)", MESSAGE_MAGIC);
    return error;
}

static int open_bells(struct runtime *runtime)
{
    size_t size = (size_t)runtime->size;
    struct doorbell_address mine, *all = calloc(size, sizeof *all);
    uint64_t drawn[2] = {0}; /* the token, which whoever knows it can ring with, and the job's name, which is told */
    int error = doorbell_open(&runtime->doorbell, &mine);
    if (getrandom(drawn, sizeof drawn, 0) != sizeof drawn)
        drawn[0] = drawn[1] = (uint64_t)clock_now_ns();
    bool all_open = transport_agree_min(runtime->transport, error == 0 && all) == 1;
    if (!all_open) {
        free(all);
        return runtime_error(DSM_E_ENVIRONMENT,
                             "a rank cannot open a datagram socket for its doorbell%s%s; "
                             "DSM_PROGRESS=poll works without",
                             error ? ": " : "", error ? strerror(-error) : "");
    }
    transport_gather(runtime->transport, &mine, (int)sizeof mine, all);
    transport_broadcast(runtime->transport, drawn, (int)sizeof drawn);
    runtime->job = drawn[1];
    error = doorbell_connect(runtime->doorbell, all, runtime->rank, runtime->size, drawn[0]);
    free(all);
    if (transport_agree_min(runtime->transport, error == 0) != 1)
        return runtime_error(DSM_E_ENVIRONMENT,
                             "a rank cannot use the addresses of the doorbells; DSM_PROGRESS=poll works "
                             "without");
    return DSM_OK;
}

static int open_boards(struct runtime *runtime)
{
    struct board_card mine, *all = calloc((size_t)runtime->size, sizeof *all);
    bool copies = !(runtime->options.without & DSM_WITHOUT_COPY);
    runtime->board = board_open(&mine, runtime->rank, runtime->size, copies ? runtime->memory.file : -1);
    if (runtime->options.without & DSM_WITHOUT_BOARD)
        mine.process = -1;
    bool made = runtime->board && all;
    if (transport_agree_min(runtime->transport, made) == 1) {
        transport_gather(runtime->transport, &mine, (int)sizeof mine, all);
        /* Hosts that are namespaces of one machine see each other's processes, and are to be as far apart as others are. */
        for (int peer = 0; peer < runtime->size; peer++)
            if (!doorbell_same_host(runtime->doorbell, peer))
                all[peer].process = -1;
        made = board_connect(runtime->board, all) == 0;
    }
    free(all);
    int error = agreed(runtime, made ? DSM_OK : runtime_error(DSM_E_MEMORY, "no memory for %d ranks", runtime->size));
    bool seen = !error;
    for (int peer = 0; peer < runtime->size && seen; peer++)
        seen = board_read(runtime->board, peer) != BOARD_UNKNOWN;
    runtime->all_seen = transport_agree_min(runtime->transport, seen) == 1;
    if (!error)
        transport_copy_by(runtime->transport, runtime->board);
    return error;
}

/* Where a firewall swallows datagrams, polling is slow but works. */
static void test_bells(struct runtime *runtime)
{
    if (transport_agree_min(runtime->transport, runtime->one_host) == 1)
        return;
    doorbell_test_ring(runtime->doorbell);
    uint64_t missing = (uint64_t)doorbell_test_missing(runtime->doorbell, BELL_TEST_NS);
    missing = transport_agree_max(runtime->transport, missing);
    if (missing == 0)
        return;
    runtime->options.progress = DSM_PROGRESS_POLL;
    if (runtime->rank == 0)
        write_all(
            "dsm: datagrams do not pass between the hosts (a firewall?), so ranks poll every 100 us instead of being "
            "woken: allow UDP between them, or set DSM_PROGRESS=poll to silence this\n");
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

static void make_node(struct runtime *runtime)
{
    struct port port = {
        .context = runtime,
        .view = runtime->memory.system,
        .range_bytes = runtime->memory.bytes,
        .granule_bytes = GRANULE_BYTES,
        .huge_bytes = MEMORY_HUGE_BYTES,
        .edges_max = memory_mappings_max() / 2,
        .protect = port_protect,
        .discard = port_discard,
        .touched = port_touched,
        .expect = port_expect,
        .put = port_put,
        .copied_by = port_copied_by,
        .waits = port_waits,
        .chunk = port_chunk,
        .chunk_free = port_chunk_free,
        .panic = port_panic,
    };
    uint32_t without = runtime->options.without;
    struct node_options options = {
        .rank = runtime->rank,
        .size = runtime->size,
        .budget_bytes = runtime->options.budget_bytes ? runtime->options.budget_bytes : BUDGET_BYTES,
        .readahead_bytes_max = without & DSM_WITHOUT_READAHEAD ? 0 : READAHEAD_BYTES,
        .refetch_bytes_max = without & DSM_WITHOUT_REFETCH ? 0 : REFETCH_BYTES,
        .push_bytes_max = without & DSM_WITHOUT_PUSH ? 0 : PUSH_BYTES,
        .open_bytes_max = without & DSM_WITHOUT_PREOPEN ? 0 : OPEN_BYTES,
        .policy.check_all = runtime->options.check >= 2,
        .policy.check_meetings = runtime->options.check >= 1,
    };
    if (runtime->options.chaos_seed)
        disturb_options(runtime, &options);
    runtime->node = node_new(&options, &port);
}

static void end_in_time(void);

static int start_threads(struct runtime *runtime)
{
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
    int error = pthread_create(&runtime->service, NULL, progress_service, runtime);
    if (!error)
        error = pthread_create(&runtime->watchdog, NULL, watchdog_thread, runtime);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? runtime_error(DSM_E_ENVIRONMENT, "cannot start a thread: %s", strerror(error)) : DSM_OK;
}

void runtime_make_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void init_mutex(struct runtime *runtime)
{
    pthread_mutexattr_t mutex;
    pthread_mutexattr_init(&mutex);
    pthread_mutexattr_settype(&mutex, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&runtime->mutex, &mutex);
    pthread_mutexattr_destroy(&mutex);
    runtime_make_condition(&runtime->changed);
}

/* Ask all ranks to start.  From here on a death, and a question (SIGUSR1), know this rank. */
static int begin(const void *mpi_comm, const struct dsm_options *options)
{
    char text[512];
    struct runtime *runtime = calloc(1, sizeof *runtime);
    if (!runtime)
        return runtime_error(DSM_E_MEMORY, "no memory for the runtime");
    struct transport_buffers buffers = {.context = runtime,
                                        .take = buffer_take,
                                        .give = buffer_give,
                                        .broken = transport_broken,
                                        .sent = buffer_sent,
                                        .place = buffer_place};
    if (transport_open(&runtime->transport, mpi_comm, &buffers, text, (int)sizeof text) != 0) {
        free(runtime);
        return runtime_error(DSM_E_ENVIRONMENT, "%s", text);
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
    fault_watch_usr1(print_waits);
    return DSM_OK;
}

static void tell_late(struct runtime *runtime, int64_t now)
{
    static int64_t began_ns, told_ns;
    int64_t longest = (int64_t)(runtime->options.watchdog_s * 1e9);
    began_ns = began_ns ? began_ns : now;
    bool late = longest > 0 && now - began_ns > longest && (!told_ns || now - told_ns > 10 * longest);
    if (!atomic_exchange(&runtime->print_waits, false) && !late)
        return;
    told_ns = now;
    char line[320];
    snprintf(
        line, sizeof line,
        "dsm: rank %d of %d has waited %.1f s for all ranks to start dsm: some rank has not made its first collective "
        "call (dsm.init(), dsm.zeros() ...), which all ranks make, in the same order\n",
        runtime->rank, runtime->size, (double)(now - began_ns) * 1e-9);
    write_all(line);
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
            return runtime_error(DSM_E_ENVIRONMENT, "%s", text);
        }
        if (opened)
            return DSM_OK;
        now = clock_now_ns();
        tell_late(runtime, now);
        if (now >= end_ns)
            return DSM_AGAIN;
        nanosleep(&(struct timespec){.tv_nsec = looks < LOOKS ? SOON_NS : LATER_NS}, NULL);
    }
}

static int start(struct runtime *runtime)
{
    runtime->peers = calloc((size_t)runtime->size, sizeof *runtime->peers);
    if (!runtime->peers)
        return runtime_error(DSM_E_MEMORY, "no memory for %d ranks", runtime->size);
    int error = check_options(runtime);
    if (!error && runtime->options.chaos_seed &&
        transport_start_chaos(runtime->transport, runtime->options.chaos_seed) != 0)
        error = runtime_error(DSM_E_MEMORY, "no memory for %d ranks", runtime->size);
    if (!error)
        error = agreed(runtime, trace_open(runtime));
    if (!error)
        error = map_range(runtime);
    if (!error)
        error = open_bells(runtime);
    if (!error)
        error = open_boards(runtime);
    if (error)
        return error;
    int here = ranks_here(runtime);
    runtime->one_host = here == runtime->size;
    if (runtime->options.progress == DSM_PROGRESS_DOORBELL)
        test_bells(runtime);
    if (runtime->options.oversubscribed < 0)
        runtime->options.oversubscribed = here > cores_here();
    watchdog_choose_neighbour(runtime);
    make_node(runtime);
    error = faults_begin(runtime);
    if (error)
        return error;
    if (mpi_process_before_finalize(end_in_time) != 0)
        return runtime_error(DSM_E_ENVIRONMENT, "MPI takes no call for its end");
    return start_threads(runtime);
}

int dsm_init(const void *mpi_comm, const struct dsm_options *options, double slice_s)
{
    if (runtime_state() == RUNTIME_ACTIVE)
        return runtime_error(DSM_E_STATE, "dsm has been started already");
    if (runtime_state() != RUNTIME_NEW)
        return runtime_error(DSM_E_STATE, "dsm was finalized; it starts once per process");
    int error = starting ? DSM_OK : begin(mpi_comm, options);
    if (!error)
        error = await_all(starting, slice_s);
    if (error == DSM_AGAIN)
        return DSM_AGAIN;
    if (!error)
        error = start(starting);
    starting = NULL;
    if (error)
        runtime_current = NULL; /* what it had is left: ranks that fail alike end, or go on without dsm */
    else
        runtime_enter_state(RUNTIME_ACTIVE);
    return error;
}

/* ---- the end ------------------------------------------------------------------------------------------------- */

void runtime_end(struct runtime *runtime)
{
    progress_end(runtime);
    atomic_store(&runtime->stopping, true);
    doorbell_ring(runtime->doorbell, runtime->rank);
    pthread_join(runtime->service, NULL);
    pthread_join(runtime->watchdog, NULL);
    transport_close(runtime->transport);
    runtime->transport = NULL;
    doorbell_close(runtime->doorbell);
    runtime->doorbell = NULL;
    board_close(runtime->board);
    runtime->board = NULL;
    /* The range stays reserved and the names of the arrays stay known, so that a late access can be explained. */
    memory_protect(&runtime->memory, 0, runtime->memory.bytes, MEMORY_NONE);
    memory_discard(&runtime->memory, 0, runtime->memory.bytes);
}

/* Nothing of dsm works afterwards, and the other ranks come here as well.  Again where one of them was at the end of its
 * program only. */
static void end_in_time(void)
{
    struct runtime *runtime = runtime_current;
    if (!runtime || runtime->process != getpid() || runtime->dying)
        return;
    unsigned interrupts = fault_interrupts();
    while (runtime_state() == RUNTIME_ACTIVE) {
        int error = dsm_finalize(false, 0.1);
        if (error && error != DSM_AGAIN)
            runtime_die(runtime, error_text, 1, false);
        if (fault_interrupts() != interrupts)
            runtime_die(runtime, "interrupted (Ctrl-C) at its end, while other ranks had not come to theirs", 130,
                        false);
    }
}

void dsm_end(void)
{
    if (runtime_current)
        runtime_current->at_exit = true;
    end_in_time();
}
