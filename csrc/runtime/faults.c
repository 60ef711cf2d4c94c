/* Faults: how they are served, what becomes of those that are not, and what could take them away from us. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/runtime.h"

enum { TEXT_BYTES = 400 };

/* An address in the range that belongs to no array: the program's own mistake, and it deserves to know which. */
static int touched_outside(struct runtime *runtime, uint64_t offset)
{
    const struct region_grave *grave = region_grave_at(runtime->node->regions, offset);
    char text[TEXT_BYTES];
    if (grave)
        snprintf(text, sizeof text, "array %u '%s' was touched after dsm.free()", grave->id, grave->name);
    else
        snprintf(text, sizeof text,
                 "an address outside of every shared array was touched (offset %llu of the shared range)",
                 (unsigned long long)offset);
    runtime_warn(runtime, text);
    return 0;
}

/* A thread that the program left running (a daemon thread that computes without the interpreter's lock) has nobody to
 * tell a mistake to: it stops, as the interpreter stops those that need its lock. */
static int touched_after_end(struct runtime *runtime, uint64_t offset)
{
    while (runtime->at_exit && gettid() != getpid())
        pause();
    const struct region *region = region_at(runtime->node->regions, offset);
    char text[TEXT_BYTES];
    if (!region)
        return touched_outside(runtime, offset);
    snprintf(text, sizeof text, "array %u '%s' was touched after dsm.finalize()", region->id, region->name);
    runtime_warn(runtime, text);
    return 0;
}

struct fault_question {
    uint64_t offset;
    bool write, first, by_mpi;
    enum access_answer answer;
};

/* At such an access one MPI ends the job, one hangs, and sometimes it goes well; none says why.  So it is said before MPI
 * is called again.  Once: where it goes well it does so all the time. */
static void tell_unpinned(const struct runtime *runtime, const struct fault_question *question)
{
    static atomic_bool told;
    const struct region *region = region_at(runtime->node->regions, question->offset);
    char text[TEXT_BYTES];
    if (!region || atomic_exchange(&told, true))
        return;
    snprintf(text, sizeof text,
             "an MPI call %s array %u '%s' (byte %llu), whose page is not here; it may hang or end the job now. "
             "Put `with dsm.pinned(view, \"%s\"):` around the call",
             question->write ? "writes" : "reads", region->id, region->name,
             (unsigned long long)(question->offset - region->offset), question->write ? "w" : "r");
    runtime_warn(runtime, text);
}

/* Whoever has the mutex may wait for MPI, whose own lock the thread that faulted has. */
static bool is_locked_out(struct runtime *runtime)
{
    enum { TRIES = 100, TRY_NS = 1000 * 1000 };
    for (int k = 0; k < TRIES; k++) {
        if (pthread_mutex_trylock(&runtime->mutex) == 0) {
            pthread_mutex_unlock(&runtime->mutex);
            return false;
        }
        nanosleep(&(struct timespec){.tv_nsec = TRY_NS}, NULL);
    }
    return true;
}

static bool fault_done(struct runtime *runtime, void *context)
{
    struct fault_question *question = context;
    question->answer = access_fault(runtime->node, question->offset, question->write, question->first);
    question->first = false;
    if (question->answer == ACCESS_WAIT && question->by_mpi)
        tell_unpinned(runtime, question);
    return question->answer != ACCESS_WAIT;
}

/* Python cannot look at its signals before the access ends, and it may never end: Ctrl-C ends the job after a while. */
bool faults_await_pages(struct runtime *runtime, bool (*done)(struct runtime *runtime, void *context), void *context)
{
    enum { SLICE_NS = 100 * 1000 * 1000, PATIENCE_NS = 1000 * 1000 * 1000 };
    unsigned interrupts = fault_interrupts();
    int64_t interrupted_ns = 0;
    while (!progress_wait(runtime, done, context, clock_now_ns() + SLICE_NS)) {
        if (runtime_state() != RUNTIME_ACTIVE)
            return false;
        if (fault_interrupts() == interrupts)
            continue;
        int64_t now = clock_now_ns();
        interrupted_ns = interrupted_ns ? interrupted_ns : now;
        if (now - interrupted_ns > PATIENCE_NS)
            runtime_die(runtime, "KeyboardInterrupt (Ctrl-C) in a page fault that does not end", 130, false);
    }
    return true;
}

static void count_fault_wait(struct runtime *runtime, uint64_t offset, uint64_t waited_ns)
{
    struct region *region = region_at(runtime->node->regions, offset);
    runtime->stats.wait_fault_ns += waited_ns;
    if (region)
        region->stats.wait_fault_ns += waited_ns;
}

/* The thread that ends dsm polls for this one. */
static void leave_to_end(struct runtime *runtime)
{
    progress_unlock(runtime);
    nanosleep(&(struct timespec){.tv_nsec = 50 * 1000}, NULL);
    progress_lock(runtime);
}

static int serve_fault(void *context, uint64_t offset, bool write, bool by_mpi)
{
    struct runtime *runtime = context;
    struct fault_question question = {.offset = offset, .write = write, .first = true, .by_mpi = by_mpi};
    if (by_mpi && is_locked_out(runtime))
        tell_unpinned(runtime, &question);
    if (!progress_enter(runtime, RUNTIME_ENDING))
        return touched_after_end(runtime, offset);
    struct wait *wait = watchdog_begin(runtime, write ? WAIT_FOR_WRITE : WAIT_FOR_READ, offset);
    while (!faults_await_pages(runtime, fault_done, &question))
        leave_to_end(runtime);
    runtime->expected_count = 0;
    count_fault_wait(runtime, offset, watchdog_end(wait, true));
    progress_leave(runtime);
    return question.answer == ACCESS_DONE ? 1 : touched_outside(runtime, offset);
}

/* ---- death ---------------------------------------------------------------------------------------------------- */

static void tell_forked(const struct runtime *runtime, uint64_t offset)
{
    const struct region *region = region_at(runtime->node->regions, offset);
    char text[TEXT_BYTES];
    snprintf(text, sizeof text,
             "array %u '%s' (byte %llu) was touched in process %d, a forked child, which has no shared memory: use "
             "multiprocessing.get_context(\"spawn\"), and pass private copies",
             region ? region->id : 0, region ? region->name : "that was freed",
             (unsigned long long)(region ? offset - region->offset : offset), getpid());
    runtime_warn(runtime, text);
}

static void tell_sent(const struct runtime *runtime, int sender)
{
    char text[TEXT_BYTES];
    if (sender == getpid())
        runtime_warn(runtime,
                     "this process dies of a SIGSEGV that it has sent to itself (by raise, or from a handler)");
    else {
        snprintf(text, sizeof text, "this process dies of a SIGSEGV that process %d has sent", sender);
        runtime_warn(runtime, text);
    }
}

/* The program's own mistake; what dies of it, or prints a traceback, does not know its rank. */
static void tell_death(enum fault_death how, uintptr_t value)
{
    const struct runtime *runtime = runtime_current;
    char text[TEXT_BYTES];
    if (runtime->dying)
        runtime_stand_aside(runtime);
    switch (how) {
    case FAULT_FORKED: tell_forked(runtime, value); break;
    case FAULT_SENT: tell_sent(runtime, (int)value); break;
    case FAULT_CRASH:
        snprintf(text, sizeof text, "segmentation fault at address %#llx, outside of shared memory",
                 (unsigned long long)value);
        runtime_warn(runtime, text);
        break;
    }
}

/* ---- what takes faults away ------------------------------------------------------------------------------------ */

/* A library that takes it again and again is told of a few times. */
static void take_signal_back(struct runtime *runtime, bool stack)
{
    enum { TOLD_MAX = 4 };
    char text[TEXT_BYTES];
    if (!fault_stolen())
        return;
    fault_retake(stack);
    /* At its end the interpreter gives back what faulthandler had taken. */
    if (runtime->at_exit || runtime->thefts++ >= TOLD_MAX)
        return;
    snprintf(
        text, sizeof text,
        "SIGSEGV was taken after dsm.init() (by %s), as signal.signal(), faulthandler.enable() and its disable() do; "
        "dsm has taken it back and passes real segmentation faults on. Do so before dsm.init()",
        fault_thief());
    runtime_warn(runtime, text);
}

static void take_mask_back(struct runtime *runtime)
{
    static atomic_bool told;
    if (masks_unblock() && !atomic_exchange(&told, true))
        runtime_warn(runtime,
                     "a thread of the program has blocked SIGSEGV, and would have ended this process without a "
                     "word when it touched a page that is not here; dsm has unblocked it. Leave SIGSEGV and SIGBUS "
                     "out of pthread_sigmask(), or start with `python -m dsm run`");
}

/* At all threads, or only when there are more or fewer than at the last time.  Only said: nobody can change the mask of
 * another thread. */
static void look_at_threads(struct runtime *runtime, bool all)
{
    struct masks *masks = &runtime->masks;
    char text[TEXT_BYTES], name[MASKS_NAME_BYTES], others[32] = "";
    if (!all && !masks_threads_changed(masks))
        return;
    unsigned found = masks_look(masks, name);
    if (found == 0)
        return;
    if (found > 1)
        snprintf(others, sizeof others, ", and so do %u more", found - 1);
    snprintf(
        text, sizeof text,
        "thread %d ('%s') blocks SIGSEGV%s: this process dies without a word when such a thread touches a page that "
        "is not here. Start with `python -m dsm run`, or set LD_PRELOAD as `python -m dsm info` says",
        (int)masks->told[masks->told_count - 1], name, others);
    runtime_warn(runtime, text);
}

void faults_look(struct runtime *runtime, bool stale)
{
    struct timespec tick;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &tick);
    int64_t now = (int64_t)tick.tv_sec * 1000000000 + tick.tv_nsec;
    bool moved = now != runtime->looked_ns;
    runtime->looked_ns = now;
    if (stale || moved)
        take_signal_back(runtime, true);
    if (moved) {
        take_mask_back(runtime);
        look_at_threads(runtime, false);
    }
}

void faults_look_from_outside(struct runtime *runtime)
{
    enum { LOOKS_OF_COUNT = 25 };
    static unsigned looks;
    if (pthread_mutex_trylock(&runtime->mutex) != 0)
        return;
    take_signal_back(runtime, false);
    look_at_threads(runtime, ++looks % LOOKS_OF_COUNT == 0);
    pthread_mutex_unlock(&runtime->mutex);
}

/* ---- start ---------------------------------------------------------------------------------------------------- */

int faults_begin(struct runtime *runtime)
{
    masks_open(&runtime->masks);
    int error = fault_install(runtime->memory.application, runtime->memory.bytes, serve_fault, runtime);
    if (error)
        return runtime_error(DSM_E_ENVIRONMENT, "cannot handle SIGSEGV: %s", strerror(-error));
    fault_explain_view(runtime->memory.system);
    fault_tell_death(tell_death);
    fault_watch_interrupt();
    look_at_threads(runtime, true);
    return DSM_OK;
}
