/* preload - keeps SIGSEGV and SIGBUS out of signal masks, in every process that is started with this library in
 * LD_PRELOAD (`python -m dsm run` does it).
 *
 * A page that is not here is fetched by the handler of SIGSEGV.  The kernel ends a process, without a word, when the
 * signal is blocked in the thread that faults, and libraries block all signals in threads that they start (numexpr,
 * blosc2, ZeroMQ), so that the program's own threads get what is sent to it.  They mean what is sent; nobody gains by
 * blocking what a thread does to itself.  So the calls that set a mask go to the C library without these two.
 *
 * Not seen: system calls that are made without the C library, and the masks of sigsuspend, ppoll and their like, which
 * hold while a thread sleeps in the kernel.
 *
 * Harmless where dsm is not: nothing happens but in these calls, and nothing is needed but the C library.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>

#define EXPORTED __attribute__((visibility("default")))

typedef int mask_call(int how, const sigset_t *set, sigset_t *before);
typedef int attribute_call(pthread_attr_t *attribute, const sigset_t *set);
typedef int action_call(int signal, const struct sigaction *action, struct sigaction *before);

static mask_call *next_pthread_sigmask, *next_sigprocmask;
static attribute_call *next_pthread_attr_setsigmask_np;
static action_call *next_sigaction;

/* POSIX lets dlsym return what is a function; ISO C does not convert it. */
static void find(void *pointer, const char *name)
{
    *(void **)pointer = dlsym(RTLD_NEXT, name);
}

static void find_all(void)
{
    find(&next_pthread_sigmask, "pthread_sigmask");
    find(&next_sigprocmask, "sigprocmask");
    find(&next_pthread_attr_setsigmask_np, "pthread_attr_setsigmask_np");
    find(&next_sigaction, "sigaction");
}

static const sigset_t *without_faults(const sigset_t *set, sigset_t *copy)
{
    if (!set)
        return NULL;
    *copy = *set;
    sigdelset(copy, SIGSEGV);
    sigdelset(copy, SIGBUS);
    return copy;
}

/* A mask outlives exec, and threads inherit the one of their maker: whoever started this process may have blocked
 * them. */
__attribute__((constructor)) static void begin(void)
{
    sigset_t faults;
    find_all();
    sigemptyset(&faults);
    sigaddset(&faults, SIGSEGV);
    sigaddset(&faults, SIGBUS);
    next_pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
}

EXPORTED int pthread_sigmask(int how, const sigset_t *set, sigset_t *before)
{
    sigset_t copy;
    if (!next_pthread_sigmask)
        find_all(); /* a library that is initialised before this one */
    return next_pthread_sigmask(how, how == SIG_UNBLOCK ? set : without_faults(set, &copy), before);
}

EXPORTED int sigprocmask(int how, const sigset_t *set, sigset_t *before)
{
    sigset_t copy;
    if (!next_sigprocmask)
        find_all();
    return next_sigprocmask(how, how == SIG_UNBLOCK ? set : without_faults(set, &copy), before);
}

EXPORTED int pthread_attr_setsigmask_np(pthread_attr_t *attribute, const sigset_t *set)
{
    sigset_t copy;
    if (!next_pthread_attr_setsigmask_np)
        find_all();
    return next_pthread_attr_setsigmask_np(attribute, without_faults(set, &copy));
}

/* What is blocked while a handler runs. */
EXPORTED int sigaction(int signal, const struct sigaction *action, struct sigaction *before)
{
    struct sigaction copy;
    if (!next_sigaction)
        find_all();
    if (action) {
        copy = *action;
        without_faults(&action->sa_mask, &copy.sa_mask);
        action = &copy;
    }
    return next_sigaction(signal, action, before);
}
