/* Why there are several entry points: code that takes SIGSEGV after us (faulthandler.enable()) remembers our
 * handler as the one before it, and puts it back when it is done with a signal.  With one entry point we would hand
 * the signal to the thief again, and it to us, for ever.  So each time the signal is (re)taken another function is
 * installed, each with the handler that was there before *it*, and a chain of handlers ends as it would between
 * strangers.
 *
 * Why a page fault leaves the alternate stack that its thread may have: those are made for a handler that prints a
 * traceback (faulthandler's has 16 KiB, in the heap, without a guard), and a fault may run all of MPI.
 *
 * What a handler touches is reached through one pointer and never freed: a handler may still run in another thread
 * while fault_remove is called.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fault.h"

#include "code.h"
#include "masks.h"
#include "signals.h"
#include "trap.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum { GENERATIONS = 8, THIEF_BYTES = 64 };

typedef void fault_entry(int signal, siginfo_t *info, void *context);

/* A signal that we hold: generation k runs entry k, before[k] is the action it replaced.  hopeless[k]: that action
 * mends nothing; the process dies of what is handed to it. */
struct taken_signal {
    int signal;
    unsigned generations;
    struct sigaction before[GENERATIONS];
    bool hopeless[GENERATIONS];
};

/* Invariant: `server` is not NULL exactly between fault_install and fault_remove. */
struct fault {
    fault_server *_Atomic server;
    void *context;
    uintptr_t range, more;
    uint64_t bytes, more_bytes;
    pid_t process; /* a child of fork() runs the handler, too */
    struct code code;
    void (*explain)(enum fault_death how, uintptr_t value);
    atomic_bool explained;
    struct taken_signal segv, bus;
    char thief[THIEF_BYTES];
};

static struct fault *_Atomic the_fault;

/* ---- SIGSEGV and SIGBUS ---------------------------------------------------------------------------------------- */

struct service {
    fault_server *server;
    void *context;
    uint64_t offset;
    bool write, by_mpi;
    int served;
};

static void call_server(void *argument)
{
    struct service *service = argument;
    service->served = service->server(service->context, service->offset, service->write, service->by_mpi);
}

/* Signals that come meanwhile must not be put over the handler's frames, which wait on the alternate stack; the kernel
 * puts it back into use when the handler returns. */
static void leave_alternate_stack(void *argument)
{
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    call_server(argument);
}

/* Pages of the range are mapped always, so only "no access" is ours; "not mapped" comes from a child of fork(), which
 * has no range.  Code cannot be run from the range: such a fault would come back for ever. */
static bool serve(struct fault *fault, const siginfo_t *info, const ucontext_t *context)
{
    fault_server *server = atomic_load_explicit(&fault->server, memory_order_acquire);
    uintptr_t address = (uintptr_t)info->si_addr;
    if (!server || info->si_code != SEGV_ACCERR || address - fault->range >= fault->bytes)
        return false;
    enum trap_kind kind = trap_kind(context, address);
    if (kind == TRAP_EXECUTE)
        return false;
    uintptr_t pc, caller;
    trap_place(context, &pc, &caller);
    struct service service = {
        .server = server,
        .context = fault->context,
        .offset = address - fault->range,
        .write = kind == TRAP_WRITE,
        .by_mpi = code_is_mpi(&fault->code, pc, caller),
    };
    if (trap_on_alternate_stack(context))
        trap_call_interrupted(context, leave_alternate_stack, &service);
    else
        call_server(&service);
    return service.served != 0;
}

static void explain_bus_error(const struct fault *fault, const siginfo_t *info)
{
    static const char text[] = "dsm: SIGBUS in the shared range: the machine has no memory left for its pages "
                               "(use more hosts or smaller arrays, or raise the memory limit)\n";
    uintptr_t address = (uintptr_t)info->si_addr;
    bool in_range = address - fault->range < fault->bytes;
    bool in_more = address - fault->more < fault->more_bytes;
    if (info->si_code == BUS_ADRERR && (in_range || in_more)) {
        ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
        (void)ignored;
    }
}

/* Once: a crash that is handed on comes back. */
static void explain_death(struct fault *fault, const siginfo_t *info)
{
    uintptr_t address = (uintptr_t)info->si_addr;
    bool sent = info->si_code <= 0, in_range = !sent && address - fault->range < fault->bytes;
    bool forked = getpid() != fault->process;
    bool served = in_range && !forked;
    if (!fault->explain || !atomic_load(&fault->server) || served || atomic_exchange(&fault->explained, true))
        return;
    if (sent)
        fault->explain(FAULT_SENT, (uintptr_t)info->si_pid);
    else if (in_range)
        fault->explain(FAULT_FORKED, address - fault->range);
    else
        fault->explain(FAULT_CRASH, address);
}

static bool is_default(int signal)
{
    struct sigaction now;
    return sigaction(signal, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL;
}

/* A runtime of another language (WebAssembly, a garbage collector) lives on faults: it jumps out of its handler, or
 * lets the thread go on at another place.  One that knows no way gives the signal back, and returns to be killed. */
static void not_served(struct fault *fault, unsigned generation, siginfo_t *info, void *context)
{
    uintptr_t pc, pc_after, caller;
    trap_place(context, &pc, &caller);
    if (fault->segv.hopeless[generation] || (uintptr_t)info->si_addr - fault->range < fault->bytes)
        explain_death(fault, info);
    trap_hand_on(&fault->segv.before[generation], SIGSEGV, info, context);
    trap_place(context, &pc_after, &caller);
    if (pc == pc_after && is_default(SIGSEGV))
        explain_death(fault, info);
}

static void handle(unsigned generation, int signal, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    struct fault *fault = atomic_load_explicit(&the_fault, memory_order_acquire);
    if (signal == SIGSEGV) {
        if (!serve(fault, info, context))
            not_served(fault, generation, info, context);
    } else {
        if (atomic_load(&fault->server))
            explain_bus_error(fault, info);
        trap_hand_on(&fault->bus.before[generation], signal, info, context);
    }
    errno = saved_errno;
}

/* clang-format off */
#define ENTRY(k)                                                      \
    static void entry_##k(int signal, siginfo_t *info, void *context) \
    {                                                                 \
        handle(k, signal, info, context);                             \
    }
ENTRY(0) ENTRY(1) ENTRY(2) ENTRY(3) ENTRY(4) ENTRY(5) ENTRY(6) ENTRY(7)

static fault_entry *const entries[GENERATIONS] = {
    entry_0, entry_1, entry_2, entry_3, entry_4, entry_5, entry_6, entry_7,
};
/* clang-format on */

static bool is_entry(const struct sigaction *action)
{
    if (!(action->sa_flags & SA_SIGINFO))
        return false;
    for (unsigned k = 0; k < GENERATIONS; k++)
        if (action->sa_sigaction == entries[k])
            return true;
    return false;
}

static bool holds(const struct taken_signal *held)
{
    struct sigaction now;
    return sigaction(held->signal, NULL, &now) == 0 && is_entry(&now);
}

/* Which file of code holds this function; false: none. */
static bool code_holds(fault_entry *function, Dl_info *file)
{
    void *address;
    memcpy(&address, &function, sizeof address);
    return dladdr(address, file) != 0 && file->dli_fname;
}

/* Handlers of Python and of MPI do not end a fault: faulthandler's and Open MPI's print and die, that of signal.signal
 * returns, to fault again. */
static bool is_hopeless(const struct fault *fault, const struct sigaction *action)
{
    Dl_info own, python;
    if (!(action->sa_flags & SA_SIGINFO) && (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN))
        return true;
    void *of_python = dlsym(RTLD_DEFAULT, "Py_Initialize");
    if (of_python && dladdr(of_python, &python) && code_holds(action->sa_sigaction, &own) &&
        own.dli_fbase == python.dli_fbase)
        return true;
    return code_is_mpi(&fault->code, (uintptr_t)action->sa_sigaction, 0);
}

static void remember_thief(struct fault *fault, const struct sigaction *action)
{
    Dl_info file;
    const char *name = "unknown code";
    if (!(action->sa_flags & SA_SIGINFO) && (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN))
        name = action->sa_handler == SIG_DFL ? "SIG_DFL" : "SIG_IGN";
    else if (code_holds(action->sa_sigaction, &file))
        name = strrchr(file.dli_fname, '/') ? strrchr(file.dli_fname, '/') + 1 : file.dli_fname;
    strncpy(fault->thief, name, THIEF_BYTES - 1);
}

/* After GENERATIONS thefts the last entry is used again: only a thief that never gives up could then loop with us. */
static int take(struct taken_signal *held)
{
    struct sigaction now, ours = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    if (sigaction(held->signal, NULL, &now) != 0)
        return -errno;
    if (is_entry(&now))
        return 0;
    unsigned k = held->generations < GENERATIONS ? held->generations : GENERATIONS - 1;
    held->before[k] = now;
    held->hopeless[k] = is_hopeless(the_fault, &now);
    ours.sa_sigaction = entries[k];
    sigemptyset(&ours.sa_mask);
    if (sigaction(held->signal, &ours, NULL) != 0)
        return -errno;
    held->generations = k + 1;
    return 0;
}

/* A thief that has taken the signal since will call our entries for ever, so they stay as they are. */
static void give_back(struct taken_signal *held)
{
    struct sigaction now;
    if (held->generations == 0 || sigaction(held->signal, NULL, &now) != 0 || !is_entry(&now))
        return;
    unsigned k = 0;
    while (now.sa_sigaction != entries[k])
        k++;
    if (sigaction(held->signal, &held->before[k], NULL) == 0)
        held->generations = k;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static struct fault *fault_state(void)
{
    struct fault *fault = atomic_load(&the_fault);
    if (fault)
        return fault;
    fault = mmap(NULL, sizeof *fault, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fault == MAP_FAILED)
        return NULL;
    fault->segv.signal = SIGSEGV;
    fault->bus.signal = SIGBUS;
    atomic_store_explicit(&the_fault, fault, memory_order_release);
    return fault;
}

int fault_install(void *range, uint64_t bytes, fault_server *server, void *context)
{
    struct fault *fault = fault_state();
    if (!fault)
        return -ENOMEM;
    if (!range || !bytes || !server)
        return -EINVAL;
    if (atomic_load(&fault->server))
        return -EBUSY;
    fault->range = (uintptr_t)range;
    fault->bytes = bytes;
    fault->more_bytes = 0;
    fault->context = context;
    fault->process = getpid();
    code_find(&fault->code);
    atomic_store_explicit(&fault->server, server, memory_order_release);
    masks_unblock();
    int error = take(&fault->bus);
    if (error == 0)
        error = take(&fault->segv);
    if (error)
        fault_remove();
    return error;
}

bool fault_stolen(void)
{
    struct fault *fault = atomic_load(&the_fault);
    return fault && atomic_load(&fault->server) && !holds(&fault->segv);
}

void fault_retake(void)
{
    struct fault *fault = atomic_load(&the_fault);
    struct sigaction now;
    if (!fault || !atomic_load(&fault->server))
        return;
    if (sigaction(SIGSEGV, NULL, &now) == 0 && !is_entry(&now))
        remember_thief(fault, &now);
    take(&fault->segv);
    take(&fault->bus);
}

const char *fault_thief(void)
{
    struct fault *fault = atomic_load(&the_fault);
    return fault ? fault->thief : "";
}

void fault_explain_memory(const void *at, uint64_t bytes)
{
    struct fault *fault = atomic_load(&the_fault);
    if (!fault)
        return;
    fault->more = (uintptr_t)at;
    fault->more_bytes = bytes;
}

void fault_explain_death(void (*explain)(enum fault_death how, uintptr_t value))
{
    struct fault *fault = atomic_load(&the_fault);
    if (fault)
        fault->explain = explain;
}

void fault_remove(void)
{
    struct fault *fault = atomic_load(&the_fault);
    signals_unwatch();
    if (!fault)
        return;
    atomic_store(&fault->server, NULL);
    give_back(&fault->segv);
    give_back(&fault->bus);
}
