/* What tests of the machine layer need in C: servers of faults, threads that fault, handlers of strangers, crashes. */
#define _GNU_SOURCE
#include "arena.h"
#include "clock.h"
#include "doorbell.h"
#include "fault.h"
#include "futex.h"
#include "memory.h"
#include "mutex.h"
#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct help {
    struct memory *memory;
    uint64_t unit_bytes;
    volatile uint64_t reads, writes;
};

/* ---- a server that opens the unit, as far as was asked for ----------------------------------------------------- */

static int serve(void *context, uint64_t offset, bool write, bool by_mpi)
{
    (void)by_mpi;
    struct help *help = context;
    __atomic_fetch_add(write ? &help->writes : &help->reads, 1, __ATOMIC_RELAXED);
    errno = ENOTTY;
    uint64_t first = offset / help->unit_bytes * help->unit_bytes;
    return memory_protect(help->memory, first, help->unit_bytes, write ? MEMORY_WRITE : MEMORY_READ) == 0;
}

int help_install(struct help *help)
{
    return fault_install(help->memory->application, help->memory->bytes, serve, help);
}

/* The alternate stack that the calling thread has; 0: none. */
static size_t alternate_bytes(void)
{
    stack_t now;
    return sigaltstack(NULL, &now) == 0 && !(now.ss_flags & SS_DISABLE) ? now.ss_size : 0;
}

struct stack_test {
    struct help help;
    size_t stack_bytes, during, after;
    int result;
};

static void on_stack(int number)
{
    (void)number;
}

/* As MPI may, it needs more room than an alternate stack has, and signals come meanwhile. */
static int serve_deeply(void *context, uint64_t offset, bool write, bool by_mpi)
{
    enum { DEEP_BYTES = 128 * 1024 };
    struct stack_test *test = context;
    volatile unsigned char deep[DEEP_BYTES];
    for (size_t at = 0; at < DEEP_BYTES; at += 64)
        deep[at] = (unsigned char)at;
    test->during = alternate_bytes();
    raise(SIGUSR2);
    return deep[64] == 64 && serve(&test->help, offset, write, by_mpi);
}

/* Each unit is touched; below the alternate stack is nothing. */
static void *stack_test(void *argument)
{
    struct stack_test *test = argument;
    struct memory *memory = test->help.memory;
    size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *base =
        mmap(NULL, guard + test->stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(base, guard, PROT_NONE);
    stack_t small = {.ss_sp = base + guard, .ss_size = test->stack_bytes};
    if (test->stack_bytes > 0 && sigaltstack(&small, NULL) != 0)
        test->result = -errno;
    for (uint64_t offset = 0; test->result == 0 && offset < memory->bytes; offset += test->help.unit_bytes)
        memory->application[offset] = 1;
    test->after = alternate_bytes();
    munmap(base, guard + test->stack_bytes);
    return NULL;
}

/* A thread that has an alternate stack of so many bytes (0: none) touches memory whose server needs more. */
int help_fault_on_stack_of(struct help *help, size_t stack_bytes, size_t *during, size_t *after)
{
    struct stack_test test = {.help = *help, .stack_bytes = stack_bytes};
    struct sigaction action = {.sa_handler = on_stack, .sa_flags = SA_ONSTACK}, before;
    pthread_t thread;
    test.result = fault_install(help->memory->application, help->memory->bytes, serve_deeply, &test);
    if (test.result != 0 || sigaction(SIGUSR2, &action, &before) != 0 ||
        pthread_create(&thread, NULL, stack_test, &test) != 0)
        return test.result ? test.result : -errno;
    pthread_join(thread, NULL);
    sigaction(SIGUSR2, &before, NULL);
    fault_remove();
    *during = test.during, *after = test.after;
    return test.result;
}

/* ---- threads that fault ---------------------------------------------------------------------------------------- */

struct hammer {
    struct help *help;
    int number, rounds;
};

static void *hammer(void *argument)
{
    struct hammer *mine = argument;
    struct memory *memory = mine->help->memory;
    for (int round = 0; round < mine->rounds; round++)
        for (uint64_t offset = 0; offset < memory->bytes; offset += mine->help->unit_bytes) {
            volatile uint32_t *word = (void *)(memory->application + offset);
            word[mine->number]++;
            memory_protect(memory, offset, mine->help->unit_bytes, MEMORY_NONE);
        }
    return NULL;
}

/* Each thread counts in its own word of every unit, and closes it under the others.  The words that are wrong in the
 * end. */
uint64_t help_hammer(struct help *help, int threads, int rounds)
{
    pthread_t ids[16];
    struct hammer arguments[16];
    for (int i = 0; i < threads; i++) {
        arguments[i] = (struct hammer){.help = help, .number = i, .rounds = rounds};
        pthread_create(&ids[i], NULL, hammer, &arguments[i]);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    uint64_t wrong = 0;
    for (uint64_t offset = 0; offset < help->memory->bytes; offset += help->unit_bytes)
        for (int i = 0; i < threads; i++)
            wrong += ((uint32_t *)(help->memory->system + offset))[i] != (uint32_t)rounds;
    return wrong;
}

int help_errno_kept(struct help *help)
{
    errno = EDOM;
    *(volatile unsigned char *)help->memory->application = 1;
    return errno == EDOM;
}

/* ---- handlers of strangers ------------------------------------------------------------------------------------- */

static unsigned char *neighbour;
static volatile int neighbour_served, neighbour_wrong;

static void neighbour_handler(int signal, siginfo_t *info, void *context)
{
    if (signal != SIGSEGV || info->si_addr != neighbour || !context)
        neighbour_wrong++;
    neighbour_served++;
    mprotect(neighbour, 4096, PROT_READ | PROT_WRITE);
}

/* Another library that serves faults of its own was there first: it goes on working.  The faults it was given. */
int help_neighbour_served(struct help *help, int faults)
{
    struct sigaction theirs = {.sa_flags = SA_SIGINFO, .sa_sigaction = neighbour_handler}, before;
    neighbour = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaction(SIGSEGV, &theirs, &before);
    int result = help_install(help);
    for (int i = 0; result == 0 && i < faults; i++) {
        mprotect(neighbour, 4096, PROT_NONE);
        *(volatile unsigned char *)neighbour = 1;
        memory_protect(help->memory, 0, help->unit_bytes, MEMORY_NONE);
        *(volatile unsigned char *)help->memory->application = 1;
    }
    fault_remove();
    struct sigaction now;
    sigaction(SIGSEGV, &before, &now);
    munmap(neighbour, 4096);
    return result == 0 && neighbour_wrong == 0 && now.sa_sigaction == neighbour_handler ? neighbour_served : -1;
}

static volatile int plain_calls;

static void plain_handler(int signal)
{
    plain_calls += signal == SIGSEGV;
}

/* Sent by kill() it is nobody's fault, so a former handler without SA_SIGINFO gets it. */
int help_sent_signal_reaches_former(struct help *help)
{
    struct sigaction theirs = {.sa_handler = plain_handler}, before;
    sigaction(SIGSEGV, &theirs, &before);
    int result = help_install(help);
    raise(SIGSEGV);
    raise(SIGSEGV);
    fault_remove();
    sigaction(SIGSEGV, &before, NULL);
    return result == 0 ? plain_calls : -1;
}

static struct sigaction thief_before;

static void thief_handler(int signal)
{
    static const char text[] = "thief was here\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    sigaction(signal, &thief_before, NULL);
}

/* Takes SIGSEGV, and when one comes puts back who was there before and lets the instruction fault again. */
void help_polite_thief(void)
{
    struct sigaction thief = {.sa_handler = thief_handler};
    sigaction(SIGSEGV, &thief, &thief_before);
}

/* ---- crashes --------------------------------------------------------------------------------------------------- */

int help_overflow(int depth)
{
    volatile char frame[4096];
    frame[0] = (char)depth;
    return depth < 0 ? 0 : help_overflow(depth + 1) + frame[0];
}

void help_crash(void)
{
    volatile uintptr_t nowhere = 64;
    *(volatile int *)nowhere = 1;
}

/* Bytes behind the end of a file give what exhausted memory gives. */
void help_bus_error(struct memory *memory)
{
    if (ftruncate(memory->file, 4096) == 0)
        *(volatile char *)(memory->system + 65536) = 1;
}

bool help_runs_from_range(struct help *help)
{
    void (*function)(void);
    void *start = help->memory->application;
    memcpy(&function, &start, sizeof function);
    function();
    return true;
}

/* A child has neither view: a touch kills it. */
int help_fork_is_clean(struct memory *memory)
{
    for (int view = 0; view < 2; view++) {
        pid_t child = fork();
        if (child == 0) {
            signal(SIGSEGV, SIG_DFL); /* pytest's handler would print where it crashed */
            *(volatile char *)(view ? memory->system : memory->application) = 1;
            _exit(0);
        }
        int status;
        if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV)
            return 0;
    }
    return 1;
}

/* ---- what processes share in an arena ---------------------------------------------------------------------------- */

struct meeting_place {
    struct mutex mutex;
    uint64_t count;
    _Atomic uint32_t word;
};

static struct meeting_place *meet_in(struct arena *arena)
{
    struct meeting_place *place = arena_chunk(arena, sizeof *place);
    mutex_make(&place->mutex);
    return place;
}

/* A child of fork() has lost the arena: it maps it again as another process does. */
static pid_t fork_into(const struct arena *arena)
{
    pid_t child = fork();
    if (child != 0)
        return child;
    struct arena own;
    int file = dup(arena->file);
    uint64_t name;
    if (pread(file, &name, sizeof name, 0) != sizeof name || arena_map(&own, arena->head, arena->bytes) != 0 ||
        arena_join(&own, file, name) != 0)
        _exit(9);
    return 0;
}

static int ended_well(pid_t child)
{
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Processes count together; the first one only tries. */
int help_mutex_counts(struct arena *arena, int processes, int rounds)
{
    struct meeting_place *place = meet_in(arena);
    pid_t children[16];
    for (int rank = 0; rank < processes; rank++) {
        children[rank] = fork_into(arena);
        for (int round = 0; children[rank] == 0 && round < rounds; round++) {
            while ((rank == 0 ? mutex_try : mutex_take)(&place->mutex, rank) != MUTEX_TAKEN)
                if (rank != 0)
                    _exit(1);
            if (place->mutex.holder != rank)
                _exit(2);
            place->count++;
            mutex_give(&place->mutex);
        }
        if (children[rank] == 0)
            _exit(0);
    }
    int good = 1;
    for (int rank = 0; rank < processes; rank++)
        good = ended_well(children[rank]) && good;
    good = good && mutex_take(&place->mutex, 0) == MUTEX_TAKEN && mutex_take(&place->mutex, 0) == MUTEX_MINE;
    good = good && mutex_try(&place->mutex, 0) != MUTEX_TAKEN && place->count == (uint64_t)(processes * rounds);
    mutex_give(&place->mutex);
    return good;
}

struct taker {
    struct meeting_place *place;
    int rank;
};

static void *take_and_leave(void *argument)
{
    struct taker *taker = argument;
    mutex_take(&taker->place->mutex, taker->rank);
    return NULL;
}

/* A process, or a thread of this one, dies with the mutex.  Everybody is told, every time, and of the same rank. */
int help_mutex_left(struct arena *arena, int rank, bool thread)
{
    struct meeting_place *place = meet_in(arena);
    struct taker taker = {place, rank};
    pthread_t id;
    pid_t child = thread ? 0 : fork_into(arena);
    if (thread) {
        pthread_create(&id, NULL, take_and_leave, &taker);
        pthread_join(id, NULL);
    } else if (child == 0) {
        take_and_leave(&taker);
        kill(getpid(), SIGKILL);
    }
    if (!thread)
        waitpid(child, NULL, 0);
    pid_t second = fork_into(arena);
    if (second == 0)
        _exit(mutex_take(&place->mutex, 100) != MUTEX_LEFT || place->mutex.holder != rank);
    int good = ended_well(second) && mutex_try(&place->mutex, 101) == MUTEX_LEFT && place->mutex.holder == rank;
    mutex_give(&place->mutex); /* this thread has it, whatever it was told, and its memory will be unmapped */
    return good;
}

/* Two processes wake each other in turns.  Without a wake a round would last until its time is over. */
int help_futex_wakes(struct arena *arena, int rounds)
{
    struct meeting_place *place = meet_in(arena);
    int64_t begin_ns = clock_now_ns(), late_ns = 5000 * (int64_t)1000000;
    pid_t child = fork_into(arena);
    uint32_t parity = child == 0;
    for (uint32_t turn = 0; turn < 2 * (uint32_t)rounds; turn++) {
        if (turn % 2 == parity) {
            atomic_store(&place->word, turn + 1);
            futex_wake(&place->word, 1);
        }
        while (atomic_load(&place->word) <= turn)
            futex_wait(&place->word, turn, clock_now_ns() + late_ns);
    }
    if (child == 0)
        _exit(0);
    futex_wait(&place->word, 0, clock_now_ns() + late_ns); /* another value: it does not sleep */
    return ended_well(child) && clock_now_ns() - begin_ns < late_ns;
}

/* ---- SIGINT, SIGUSR1 -------------------------------------------------------------------------------------------- */

static volatile int former_calls;

static void former_interrupt(int signal)
{
    former_calls += signal == SIGINT;
}

int help_interrupts_former(void)
{
    struct sigaction theirs = {.sa_handler = former_interrupt}, before, after;
    sigaction(SIGINT, &theirs, &before);
    former_calls = 0;
    int result = signals_watch_interrupt();
    unsigned early = signals_interrupts();
    raise(SIGINT);
    raise(SIGINT);
    unsigned seen = signals_interrupts();
    fault_remove();
    sigaction(SIGINT, &before, &after);
    return result == 0 && early == 0 && seen == 2 && after.sa_handler == former_interrupt ? former_calls : -1;
}

static volatile int printed, user_calls;

static void print(void)
{
    printed++;
}

static void user_handler(int signal)
{
    user_calls += signal == SIGUSR1;
}

/* How often we print on one SIGUSR1, with or without a handler of the user's. */
int help_usr1(bool handled)
{
    struct sigaction theirs = {.sa_handler = handled ? user_handler : SIG_DFL}, before;
    sigaction(SIGUSR1, &theirs, &before);
    printed = user_calls = 0;
    int result = signals_watch_usr1(print);
    raise(SIGUSR1);
    fault_remove();
    sigaction(SIGUSR1, &before, NULL);
    return result == 0 && user_calls == handled ? printed : -1;
}

/* ---- doorbell --------------------------------------------------------------------------------------------------- */

struct ringer {
    struct doorbell *bell;
    int rounds;
    struct timespec rung;
    volatile int turn;
};

static void *ring(void *argument)
{
    struct ringer *ringer = argument;
    for (int i = 0; i < ringer->rounds; i++) {
        while (ringer->turn != 2 * i)
            usleep(10);
        usleep(200);
        clock_gettime(CLOCK_MONOTONIC, &ringer->rung);
        ringer->turn = 2 * i + 1;
        doorbell_ring(ringer->bell, 0);
    }
    return NULL;
}

/* Mean time from ringing rank 0 to its waking; -1 when a bell was lost. */
double help_wake_us(struct doorbell *bell, int rounds)
{
    struct ringer ringer = {.bell = bell, .rounds = rounds, .turn = -1};
    pthread_t thread;
    double sum_us = 0;
    if (pthread_create(&thread, NULL, ring, &ringer) != 0)
        return -1;
    for (int i = 0; i < rounds; i++) {
        struct timespec woken;
        ringer.turn = 2 * i;
        if (!doorbell_wait(bell, INT64_C(5000000000)))
            sum_us = -1e30;
        clock_gettime(CLOCK_MONOTONIC, &woken);
        while (ringer.turn != 2 * i + 1)
            usleep(10);
        sum_us += 1e6 * (double)(woken.tv_sec - ringer.rung.tv_sec);
        sum_us += 1e-3 * (double)(woken.tv_nsec - ringer.rung.tv_nsec);
    }
    pthread_join(thread, NULL);
    return sum_us < 0 ? -1 : sum_us / rounds;
}
