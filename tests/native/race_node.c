/* Two processes at one node, before the runtime itself makes such nodes: this one runs dsm alone, and a child maps the
 * arena as another process of the host will, and does one thing there.
 *
 *   node sleep    the child polls: a thread that waits here leaves that to it, and prints how often it slept
 *   node poll     nobody else polls, and there are other nodes: the thread goes on looking
 *   node alone    nobody else polls, and there is no other node: it sleeps
 *   node beside   the child counts wakes: a second thread here, which sleeps beside the first one, hears of them
 *   node wake     the child sleeps until the node wakes its threads
 *   node left     the child dies with the mutex of the node
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
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "machine/clock.h"
#include "machine/futex.h"
#include "runtime/shared.h"

enum { CHILD_RANK = 7, SECOND_NS = 1000 * 1000 * 1000 };

static uint32_t locks[2];
static atomic_bool give_up;

static void must(int error, const char *call)
{
    if (!error)
        return;
    fprintf(stderr, "FAILED: %s: %d: %s\n", call, error, dsm_last_error());
    _exit(3);
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* ---- the other process ----------------------------------------------------------------------------------------- */

static struct shared *join_arena(const struct arena *arena)
{
    struct arena own;
    uint64_t name;
    int file = dup(arena->file);
    if (pread(file, &name, sizeof name, 0) != sizeof name)
        must(-1, "pread");
    must(arena_map(&own, arena->head, arena->bytes), "arena_map");
    must(arena_join(&own, file, name), "arena_join");
    return *arena_root(&own);
}

static void be_the_other(struct shared *shared, const char *what)
{
    if (strcmp(what, "sleep") == 0) {
        atomic_fetch_add(&shared->pollers, 1);
        pause();
    } else if (strcmp(what, "wake") == 0) {
        uint32_t seen = atomic_load(&shared->generation);
        atomic_fetch_add(&shared->sleepers, 1);
        futex_wait(&shared->generation, seen, clock_now_ns() + 20 * (int64_t)SECOND_NS);
        _exit(atomic_load(&shared->generation) == seen);
    } else if (strcmp(what, "beside") == 0) {
        for (;; pause_ms(2))
            atomic_fetch_add(&shared->generation, 1);
    } else if (strcmp(what, "left") == 0) {
        mutex_take(&shared->mutex, CHILD_RANK);
        kill(getpid(), SIGKILL);
    } else {
        pause();
    }
}

/* Returns when the child is where it is to be. */
static pid_t start_other(const char *what)
{
    struct arena arena = runtime_current->arena;
    pid_t child = fork();
    if (child == 0)
        be_the_other(join_arena(&arena), what);
    pause_ms(300);
    return child;
}

/* ---- this process ---------------------------------------------------------------------------------------------- */

static void *hold(void *ready)
{
    uint64_t ticket = 0;
    for (int i = 0; i < 2; i++)
        must(dsm_acquire(locks[i], "here", &ticket, -1), "acquire");
    atomic_store((atomic_bool *)ready, true);
    while (!atomic_load(&give_up))
        pause_ms(1);
    pause_ms(300);
    for (int i = 0; i < 2; i++)
        must(dsm_release(locks[i]), "release");
    return NULL;
}

/* For a second, or until it comes. */
static void wait_for_lock(uint32_t lock)
{
    uint64_t ticket = 0;
    int error = dsm_acquire(lock, "there", &ticket, 1);
    must(error == DSM_AGAIN ? dsm_acquire_cancel(lock, &ticket) : error ? error : dsm_release(lock), "acquire");
}

static long sleeps(void)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

/* Comes while another thread polls, and prints how often it woke. */
static void *wait_beside(void *ignored)
{
    (void)ignored;
    pause_ms(200);
    wait_for_lock(locks[1]);
    printf("%ld\n", sleeps());
    return NULL;
}

int main(int argc, char **argv)
{
    static struct race_shared meeting;
    static atomic_bool ready;
    const struct race_job job = {.size = 1, .shared = &meeting};
    const struct dsm_options options = {.range_bytes = 1 << 30};
    pthread_t holder, second;
    int status = 0;
    if (argc != 2)
        return 2;
    must(dsm_init(&job, &options, -1), "init");
    for (int i = 0; i < 2; i++)
        must(dsm_lock_new("a lock", "", &locks[i]), "lock_new");
    if (pthread_create(&holder, NULL, hold, &ready) != 0)
        must(-1, "pthread_create");
    while (!atomic_load(&ready))
        pause_ms(1);
    if (strcmp(argv[1], "alone") != 0)
        runtime_current->nodes.count = 2;
    pid_t child = start_other(argv[1]);
    bool wakes = strcmp(argv[1], "wake") == 0;
    bool two = strcmp(argv[1], "beside") == 0;
    if (two && pthread_create(&second, NULL, wait_beside, NULL) != 0)
        must(-1, "pthread_create");
    long before = sleeps();
    atomic_store(&give_up, wakes);
    wait_for_lock(locks[0]);
    if (two)
        pthread_join(second, NULL);
    else
        printf("%ld\n", sleeps() - before);
    atomic_store(&give_up, true);
    pthread_join(holder, NULL);
    if (!wakes)
        kill(child, SIGKILL);
    waitpid(child, &status, 0);
    printf("%d\n", status);
    must(dsm_finalize(false, -1), "finalize");
    return 0;
}
