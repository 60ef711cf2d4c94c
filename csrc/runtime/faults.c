#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/faults.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "machine/clock.h"
#include "machine/fault.h"
#include "machine/signals.h"
#include "runtime/death.h"
#include "runtime/error.h"
#include "runtime/print.h"
#include "runtime/profile.h"

/* An address in the range that belongs to no array: a mistake of the program. */
static int touched_outside(struct runtime *runtime, uint64_t offset)
{
    const struct region_grave *grave = region_grave_at(runtime->node->regions, offset);
    if (grave)
        print_warning(runtime, "array %u '%s' was touched after dsm.free()", grave->id, grave->name);
    else
        print_warning(runtime, "an address outside of every shared array was touched (offset %llu of the shared range)",
                      (unsigned long long)offset);
    return 0;
}

/* A thread that the program left running (a daemon thread that computes without the interpreter's lock) stops, as the
 * interpreter stops those that need its lock: no one reads its message any more. */
static int touched_after_end(struct runtime *runtime, uint64_t offset)
{
    while (runtime->at_exit && gettid() != getpid())
        pause();
    const struct region *region = region_at(runtime->node->regions, offset);
    if (!region)
        return touched_outside(runtime, offset);
    print_warning(runtime, "array %u '%s' was touched after dsm.finalize()", region->id, region->name);
    return 0;
}

/* At such an access one MPI ends the job, one hangs, and sometimes it goes well; none gives the reason.  So the
 * warning comes before MPI is called again.  Once: where it goes well it does so all the time. */
static void warn_unpinned(const struct runtime *runtime, const struct question *question)
{
    static atomic_bool warned;
    const struct region *region = region_at(runtime->node->regions, question->page.offset);
    if (!region || atomic_exchange(&warned, true))
        return;
    print_warning(runtime,
                  "an MPI call %s array %u '%s' (byte %llu), whose page is not here; it may hang or end the job now. "
                  "Put `with dsm.pinned(view, \"%s\"):` around the call",
                  question->page.write ? "writes" : "reads", region->id, region->name,
                  (unsigned long long)(question->page.offset - region->offset), question->page.write ? "w" : "r");
}

/* The owner of the mutex may wait for MPI, whose own lock the faulting thread has. */
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

static bool page_answered(struct runtime *runtime, struct question *question)
{
    question->page.answer =
        access_fault(runtime->node, question->page.offset, question->page.write, question->page.first);
    question->page.first = false;
    if (question->page.answer == ACCESS_WAIT)
        question->awaited = access_awaited(runtime->node, question->page.offset);
    if (question->page.answer == ACCESS_WAIT && question->page.by_mpi)
        warn_unpinned(runtime, question);
    if (question->page.answer == ACCESS_DONE && question->page.pins)
        access_pin(runtime->node, question->page.offset, question->page.write);
    return question->page.answer != ACCESS_WAIT;
}

struct question faults_question(uint64_t offset, bool write)
{
    return (struct question){.answered = page_answered, .page = {.offset = offset, .write = write, .first = true}};
}

/* Python cannot look at its signals before the access ends, and it may never end: Ctrl-C ends the job after a while. */
bool faults_await(struct runtime *runtime, struct question *question)
{
    enum { SIGNALS_EVERY_NS = 100 * 1000 * 1000, PATIENCE_NS = 1000 * 1000 * 1000 };
    unsigned interrupts = signals_interrupts();
    int64_t interrupted_ns = 0;
    while (!progress_wait(runtime, question, clock_now_ns() + SIGNALS_EVERY_NS)) {
        if (runtime_state() != RUNTIME_ACTIVE)
            return false;
        if (signals_interrupts() == interrupts)
            continue;
        int64_t now = clock_now_ns();
        interrupted_ns = interrupted_ns ? interrupted_ns : now;
        if (now - interrupted_ns > PATIENCE_NS)
            death_end_all(runtime, "KeyboardInterrupt (Ctrl-C) in a page fault that does not end", 130, false);
    }
    return true;
}

static bool caught_up(struct runtime *runtime, struct question *question)
{
    question->awaited = fetch_awaits(runtime->node->fetches->first);
    return access_caught_up(runtime->node);
}

void faults_catch_up(struct runtime *runtime)
{
    if (access_behind(runtime->node))
        faults_await(runtime, &(struct question){.answered = caught_up});
}

void faults_count_wait(struct runtime *runtime, uint64_t offset, uint64_t waited_ns)
{
    struct region *region = region_at(runtime->node->regions, offset);
    runtime->stats->wait_fault_ns += waited_ns;
    if (region)
        region->stats[runtime->node->me].wait_fault_ns += waited_ns;
    if (runtime->profile)
        profile_fault(runtime, region ? region->id : 0, waited_ns);
}

/* The thread that ends dsm polls for this one. */
static void leave_to_end(struct runtime *runtime)
{
    progress_unlock(runtime);
    nanosleep(&(struct timespec){.tv_nsec = 50 * 1000}, NULL);
    progress_lock(runtime);
}

/* ---- alone ---------------------------------------------------------------------------------------------------- */

/* A node that is alone sends nothing, so the node's mutex is enough.  MPI may fault here under a lock of its own, for
 * which the holder of the process' mutex may wait.  The huge page is made without either, by all ranks at once. */
static int serve_alone(struct runtime *runtime, uint64_t offset, bool write, bool counted)
{
    struct wait *wait = waits_begin(runtime->waits, write ? WAIT_FOR_WRITE : WAIT_FOR_READ, offset);
    shared_lock(runtime);
    struct range block = alone_block(runtime->node, offset);
    shared_unlock(runtime);
    memory_back(&runtime->memory, block.offset, block.bytes);
    shared_lock(runtime);
    enum access_answer answer = ACCESS_OUTSIDE;
    bool ended = runtime_state() > RUNTIME_ENDING;
    if (!ended)
        answer = access_fault(runtime->node, offset, write, counted);
    faults_count_wait(runtime, offset, waits_end(wait, true));
    shared_unlock(runtime);
    if (ended)
        return touched_after_end(runtime, offset);
    return answer == ACCESS_DONE ? 1 : touched_outside(runtime, offset);
}

void faults_open_alone(struct runtime *runtime, uint64_t offset, uint64_t end, bool write)
{
    for (uint64_t at = offset; at < end; at = (at / BACKING_HUGE_BYTES + 1) * BACKING_HUGE_BYTES) {
        shared_lock(runtime);
        bool open = alone_is_open(runtime->node, at);
        shared_unlock(runtime);
        if (!open && serve_alone(runtime, at, write, false) != 1)
            return;
    }
}

/* The kernel is about to write there (preload/preload.c). */
static void open_for_kernel(const void *address, size_t bytes)
{
    struct runtime *runtime = runtime_current;
    if (runtime_state() != RUNTIME_ACTIVE)
        return;
    uint64_t offset = (uintptr_t)address - (uintptr_t)runtime->memory.application, end = offset + bytes;
    if (offset >= runtime->memory.bytes || bytes > runtime->memory.bytes - offset || runtime->process != getpid() ||
        !alone_is(runtime->node))
        return;
    faults_open_alone(runtime, offset, end, true);
}

static void help_kernel(void)
{
    void (*open_by)(void (*)(const void *, size_t));
    *(void **)&open_by = dlsym(RTLD_DEFAULT, "dsm_preload_open_by");
    if (open_by)
        open_by(open_for_kernel);
}

/* ---- faults --------------------------------------------------------------------------------------------------- */

static int serve_fault(void *context, uint64_t offset, bool write, bool by_mpi)
{
    struct runtime *runtime = context;
    if (alone_is(runtime->node))
        return serve_alone(runtime, offset, write, true);
    struct question question = faults_question(offset, write);
    question.page.by_mpi = by_mpi;
    if (by_mpi && is_locked_out(runtime))
        warn_unpinned(runtime, &question);
    if (!progress_enter(runtime, RUNTIME_ENDING))
        return touched_after_end(runtime, offset);
    struct wait *wait = waits_begin(runtime->waits, write ? WAIT_FOR_WRITE : WAIT_FOR_READ, offset);
    while (!faults_await(runtime, &question))
        leave_to_end(runtime);
    runtime->expected_count = 0;
    faults_count_wait(runtime, offset, waits_end(wait, true));
    progress_leave(runtime);
    return question.page.answer == ACCESS_DONE ? 1 : touched_outside(runtime, offset);
}

/* ---- death ---------------------------------------------------------------------------------------------------- */

static void warn_forked(const struct runtime *runtime, uint64_t offset)
{
    if (arena_look(&runtime->arena) != 0)
        return;
    const struct region *region = region_at(runtime->node->regions, offset);
    print_warning(
        runtime,
        "array %u '%s' (byte %llu) was touched in process %d, a forked child, which has no shared memory: use "
        "multiprocessing.get_context(\"spawn\"), and pass private copies",
        region ? region->id : 0, region ? region->name : "that was freed",
        (unsigned long long)(region ? offset - region->offset : offset), getpid());
}

static void warn_sent(const struct runtime *runtime, int sender)
{
    if (sender == getpid())
        print_warning(runtime,
                      "this process dies of a SIGSEGV that it has sent to itself (by raise, or from a handler)");
    else
        print_warning(runtime, "this process dies of a SIGSEGV that process %d has sent", sender);
}

/* A mistake of the program.  The traceback that may follow does not name the rank. */
static void warn_of_death(enum fault_death how, uintptr_t value)
{
    const struct runtime *runtime = runtime_current;
    if (runtime->dying)
        death_stand_aside(runtime);
    switch (how) {
    case FAULT_FORKED: warn_forked(runtime, value); break;
    case FAULT_SENT: warn_sent(runtime, (int)value); break;
    case FAULT_CRASH:
        print_warning(runtime, "segmentation fault at address %#llx, outside of shared memory",
                      (unsigned long long)value);
        break;
    }
}

/* ---- start ---------------------------------------------------------------------------------------------------- */

int faults_begin(struct runtime *runtime)
{
    int error = fault_install(runtime->memory.application, runtime->memory.bytes, serve_fault, runtime);
    if (error)
        return error_set(DSM_E_ENVIRONMENT, "cannot handle SIGSEGV: %s", strerror(-error));
    /* The arena lies behind the system view. */
    fault_explain_memory(runtime->memory.system, runtime->memory.bytes + runtime->arena.bytes);
    fault_explain_death(warn_of_death);
    signals_watch_interrupt();
    help_kernel();
    return DSM_OK;
}
