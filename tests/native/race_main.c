/* A program with an answer, for the real runtime: two threads on every rank take locks, wait, try and give up, write bytes
 * next to each other, pin, count, and look at things, while the first thread of each goes through barriers.
 *
 *   race --seconds=S --seed=N [--ranks=2] [--budget=BYTES] [--chaos=SEED] [--progress=0|1|2]
 *
 * What must hold: all cells of a lock show the same number to whoever holds it, and in the end how often it was taken; a
 * counter's numbers are all different and ascend; the last value that a thread wrote to a byte of its own stays there;
 * after a barrier everybody sees what everybody wrote before it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "race.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dsm.h"

enum { THREADS = 2, LOCKS = 3, CELLS = 5, CELL_STRIDE = 700, OWN_BYTES = 3000, STEPS = 60, PAGE_BYTES = 4096 };

static const double slice_s = 0.02;

struct settings {
    long ranks, seconds, seed, budget, chaos, progress;
};

struct worker {
    int rank, number; /* of all threads of the job */
    uint64_t dice;
    uint64_t taken[LOCKS], added;
    int64_t last_ticket;
    unsigned char own[OWN_BYTES]; /* what its bytes must hold */
    uint64_t steps, tries, refused, cancelled, pins;
};

static struct settings settings = {.ranks = 2, .seconds = 5, .seed = 1};
static uint32_t *guarded;    /* LOCKS cells side by side, CELLS times */
static unsigned char *owned; /* a byte of each thread, side by side */
static uint64_t *told;       /* by rank: phase, then taken[LOCKS], then added; behind all: stop */
static uint32_t locks[LOCKS], counter;
static atomic_bool ending;

static void fail(const struct worker *worker, const char *what, long long found, long long wanted)
{
    fprintf(stderr, "FAILED: rank %d thread %d after %llu steps: %s: %lld instead of %lld\n", worker->rank,
            worker->number, (unsigned long long)worker->steps, what, found, wanted);
    _exit(3);
}

static void must(int error, const char *call)
{
    if (!error)
        return;
    fprintf(stderr, "FAILED: %s: %s: %s\n", call, dsm_error_name(error), dsm_last_error());
    _exit(3);
}

/* A call that returns from time to time, as those of Python do. */
#define WAIT(call)                             \
    do {                                       \
        int error_;                            \
        while ((error_ = (call)) == DSM_AGAIN) \
            ;                                  \
        must(error_, #call);                   \
    } while (0)

static uint32_t below(struct worker *worker, uint32_t limit)
{
    uint64_t z = worker->dice += 0x9e3779b97f4a7c15u; /* SplitMix64 (Steele, Lea, Flood 2014) */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(((z ^ (z >> 31)) >> 32) * limit >> 32);
}

/* ---- what threads do --------------------------------------------------------------------------------------------- */

static bool take(struct worker *worker, uint32_t lock)
{
    uint64_t ticket = 0;
    switch (below(worker, 8)) {
    case 0: /* try */
        worker->tries++;
        while (dsm_try_acquire(lock, "race_main.c", &ticket, slice_s) == DSM_AGAIN)
            if (ticket == 0) {
                worker->refused++;
                return false;
            }
        return true;
    case 1: /* a little patience */
        if (dsm_acquire(lock, "race_main.c", &ticket, 1e-4 * below(worker, 20)) == DSM_OK)
            return true;
        must(dsm_acquire_cancel(lock, &ticket), "acquire_cancel");
        worker->cancelled++;
        return false;
    default: WAIT(dsm_acquire(lock, "race_main.c", &ticket, slice_s)); return true;
    }
}

static void section(struct worker *worker)
{
    uint32_t which = below(worker, LOCKS);
    if (!take(worker, locks[which]))
        return;
    uint32_t before = guarded[which];
    for (int c = 1; c < CELLS; c++)
        if (guarded[c * CELL_STRIDE + (int)which] != before)
            fail(worker, "a cell of the lock", guarded[c * CELL_STRIDE + (int)which], before);
    for (int c = 0; c < CELLS; c++)
        guarded[c * CELL_STRIDE + (int)which] = before + 1;
    worker->taken[which]++;
    must(dsm_release(locks[which]), "release");
}

static void write_own(struct worker *worker)
{
    uint32_t at = below(worker, OWN_BYTES);
    unsigned char *byte = &owned[at * (uint32_t)settings.ranks * THREADS + (uint32_t)worker->number];
    if (*byte != worker->own[at])
        fail(worker, "an own byte", *byte, worker->own[at]);
    *byte = ++worker->own[at];
}

static void write_pinned(struct worker *worker)
{
    uint32_t at = below(worker, OWN_BYTES);
    unsigned char *byte = &owned[at * (uint32_t)settings.ranks * THREADS + (uint32_t)worker->number];
    must(dsm_pin(byte, 1, true), "pin");
    if (*byte != worker->own[at])
        fail(worker, "an own byte, pinned", *byte, worker->own[at]);
    *byte = ++worker->own[at];
    must(dsm_unpin(byte, 1, true), "unpin");
    worker->pins++;
}

static void count(struct worker *worker)
{
    uint64_t ticket = 0;
    int64_t before;
    WAIT(dsm_counter_add(counter, 1, &ticket, slice_s, &before));
    if (worker->added && before <= worker->last_ticket)
        fail(worker, "a number of the counter, after", before, worker->last_ticket);
    worker->last_ticket = before;
    worker->added++;
}

static void look(struct worker *worker)
{
    struct dsm_region region;
    struct dsm_page_info page;
    struct dsm_stats stats;
    must(dsm_region_of(owned + below(worker, OWN_BYTES), &region), "region_of");
    must(dsm_page_info(region.id, 0, &page), "page_info");
    must(dsm_stats(&stats), "stats");
    must(dsm_stats_of_lock(locks[0], &stats), "stats_of_lock");
    dsm_locked(locks[below(worker, LOCKS)]);
}

static void step(struct worker *worker)
{
    uint32_t what = below(worker, 100);
    worker->steps++;
    if (what < 45)
        section(worker);
    else if (what < 75)
        write_own(worker);
    else if (what < 80)
        write_pinned(worker);
    else if (what < 92)
        count(worker);
    else
        look(worker);
}

static void *second_thread(void *context)
{
    while (!atomic_load(&ending))
        step(context);
    return NULL;
}

/* ---- a rank ------------------------------------------------------------------------------------------------------ */

static void *allocate(uint64_t bytes, const char *name)
{
    struct dsm_region region;
    WAIT(dsm_allocate(bytes, PAGE_BYTES, NULL, 0, name, name, slice_s, &region));
    return region.address;
}

static uint64_t *told_by(int rank)
{
    return told + rank * (LOCKS + 2);
}

static void meet_and_compare(struct worker *worker, uint64_t phase)
{
    told_by(worker->rank)[0] = phase;
    WAIT(dsm_barrier(slice_s));
    for (int rank = 0; rank < settings.ranks; rank++)
        if (told_by(rank)[0] != phase)
            fail(worker, "what a rank said before the barrier", (long long)told_by(rank)[0], (long long)phase);
    WAIT(dsm_barrier(slice_s));
}

static void compare_sums(struct worker *workers)
{
    uint64_t *mine = told_by(workers[0].rank);
    for (int lock = 0; lock < LOCKS; lock++)
        mine[1 + lock] = workers[0].taken[lock] + workers[1].taken[lock];
    mine[1 + LOCKS] = workers[0].added + workers[1].added;
    WAIT(dsm_barrier(slice_s));
    uint64_t sums[LOCKS + 1] = {0}, ticket = 0;
    for (int rank = 0; rank < settings.ranks; rank++)
        for (int i = 0; i <= LOCKS; i++)
            sums[i] += told_by(rank)[1 + i];
    for (int lock = 0; lock < LOCKS; lock++)
        for (int c = 0; c < CELLS; c++)
            if (guarded[c * CELL_STRIDE + lock] != sums[lock])
                fail(workers, "the sum of a lock", guarded[c * CELL_STRIDE + lock], (long long)sums[lock]);
    int64_t total;
    WAIT(dsm_counter_add(counter, 0, &ticket, slice_s, &total));
    if (total != (int64_t)sums[LOCKS])
        fail(workers, "the counter", total, (long long)sums[LOCKS]);
    if (sums[0] == 0 || total == 0)
        fail(workers, "nothing was done", total, 1);
}

static void print_summary(const struct worker *workers, uint64_t phases)
{
    struct dsm_stats stats;
    must(dsm_stats(&stats), "stats");
    printf("rank %d: %llu steps, %llu phases, %llu read and %llu write faults, %llu fetches, %llu messages, "
           "%llu lock grants, %llu collections, %llu tries refused, %llu waits given up, %llu pins, %llu bells heard\n",
           workers->rank, (unsigned long long)(workers[0].steps + workers[1].steps), (unsigned long long)phases,
           (unsigned long long)stats.faults_read, (unsigned long long)stats.faults_write,
           (unsigned long long)stats.fetches, (unsigned long long)stats.messages_sent,
           (unsigned long long)stats.lock_grants, (unsigned long long)stats.collections,
           (unsigned long long)(workers[0].refused + workers[1].refused),
           (unsigned long long)(workers[0].cancelled + workers[1].cancelled),
           (unsigned long long)(workers[0].pins + workers[1].pins), (unsigned long long)stats.bells_heard);
}

static int run_rank(const struct race_job *job)
{
    static struct worker workers[THREADS];
    struct dsm_options options = {.progress = (int32_t)settings.progress,
                                  .node = 1,
                                  .oversubscribed = 1,
                                  .watchdog_s = 0.3,
                                  .check = 1,
                                  .range_bytes = 1 << 30,
                                  .budget_bytes = (uint64_t)settings.budget};
    options.chaos_seed = (uint64_t)settings.chaos;
    pthread_t second;
    uint64_t phase = 0;
    WAIT(dsm_init(job, &options, slice_s));
    guarded = allocate(CELLS * CELL_STRIDE * sizeof *guarded, "guarded");
    owned = allocate(OWN_BYTES * (uint64_t)settings.ranks * THREADS, "owned");
    told = allocate(sizeof *told * ((LOCKS + 2) * RACE_RANKS_MAX + 1), "told");
    for (int i = 0; i < LOCKS; i++)
        WAIT(dsm_lock_new("a lock", "a lock", &locks[i]));
    WAIT(dsm_counter_new(0, "a counter", "", &counter));
    for (int i = 0; i < THREADS; i++)
        workers[i] = (struct worker){.rank = job->rank,
                                     .number = job->rank * THREADS + i,
                                     .dice = (uint64_t)settings.seed * 1000 + (uint64_t)(job->rank * THREADS + i)};
    uint64_t *stop = told + (LOCKS + 2) * RACE_RANKS_MAX;
    time_t end = time(NULL) + settings.seconds;
    if (pthread_create(&second, NULL, second_thread, &workers[1]) != 0)
        must(DSM_E_ENVIRONMENT, "pthread_create");
    while (!*stop) {
        for (int i = 0; i < STEPS; i++)
            step(&workers[0]);
        meet_and_compare(workers, ++phase);
        if (job->rank == 0)
            *stop = time(NULL) >= end;
        WAIT(dsm_barrier(slice_s));
    }
    atomic_store(&ending, true);
    pthread_join(second, NULL);
    compare_sums(workers);
    print_summary(workers, phase);
    WAIT(dsm_finalize(false, slice_s));
    return 0;
}

/* ThreadSanitizer knows addresses in a few windows only, and where it refuses one it asks the kernel for address 0; so the
 * range goes at once to the lowest row of memory.c, which it knows (linked with --wrap=memory_candidate). */
void *__wrap_memory_candidate(unsigned k, uint64_t bytes);
void *__wrap_memory_candidate(unsigned k, uint64_t bytes)
{
    (void)bytes;
    return k < 4 ? (void *)((uintptr_t)(k + 1) << 36) : NULL;
}

/* ---- the job ----------------------------------------------------------------------------------------------------- */

static void parse(int argc, char **argv)
{
    const struct {
        const char *name;
        long *to;
    } known[] = {{"--ranks=", &settings.ranks}, {"--seconds=", &settings.seconds},
                 {"--seed=", &settings.seed},   {"--budget=", &settings.budget},
                 {"--chaos=", &settings.chaos}, {"--progress=", &settings.progress}};
    for (int i = 1; i < argc; i++) {
        bool found = false;
        for (size_t k = 0; k < sizeof known / sizeof known[0]; k++)
            if (strncmp(argv[i], known[k].name, strlen(known[k].name)) == 0) {
                *known[k].to = strtol(argv[i] + strlen(known[k].name), NULL, 0);
                found = true;
            }
        if (!found || settings.ranks < 1 || settings.ranks > RACE_RANKS_MAX) {
            fprintf(stderr, "not an argument: %s\n", argv[i]);
            exit(2);
        }
    }
}

static pid_t start_rank(int rank, int (*files)[RACE_RANKS_MAX], struct race_shared *shared)
{
    pid_t process = fork();
    if (process != 0)
        return process;
    struct race_job job = {.rank = rank, .size = (int)settings.ranks, .shared = shared};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    memcpy(job.files, files[rank], sizeof job.files);
    exit(run_rank(&job));
}

int main(int argc, char **argv)
{
    static int files[RACE_RANKS_MAX][RACE_RANKS_MAX];
    pid_t processes[RACE_RANKS_MAX];
    parse(argc, argv);
    struct race_shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        must(DSM_E_MEMORY, "mmap");
    for (int a = 0; a < settings.ranks; a++)
        for (int b = 0; b < a; b++) {
            int pair[2];
            if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
                must(DSM_E_ENVIRONMENT, "socketpair");
            files[a][b] = pair[0];
            files[b][a] = pair[1];
        }
    for (int rank = 0; rank < settings.ranks; rank++)
        processes[rank] = start_rank(rank, files, shared);
    int worst = 0;
    for (int left = (int)settings.ranks; left > 0; left--) {
        int status;
        wait(&status);
        if (status == 0)
            continue;
        fprintf(stderr, "a rank ended with status %d\n",
                WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        worst = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        for (int rank = 0; rank < settings.ranks && WIFSIGNALED(status); rank++)
            kill(processes[rank], SIGKILL);
    }
    return worst;
}
