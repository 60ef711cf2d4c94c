#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "signals.h"

#include "trap.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>

static struct sigaction interrupt_before, usr1_before;
static bool interrupt_watched, usr1_watched;
static atomic_uint interrupts;
static void (*print_waits)(void);

static void on_interrupt(int signal, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    atomic_fetch_add(&interrupts, 1);
    trap_hand_on(&interrupt_before, signal, info, context);
    errno = saved_errno;
}

/* A program that ignores Ctrl-C, or is started in the background, must go on ignoring it. */
int signals_watch_interrupt(void)
{
    struct sigaction now;
    if (sigaction(SIGINT, NULL, &now) != 0)
        return -errno;
    if (!(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_IGN)
        return 0;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_interrupt)
        return 0;
    interrupt_before = now;
    struct sigaction ours = now; /* system calls are interrupted, or restarted, as before */
    ours.sa_flags = SA_SIGINFO | (now.sa_flags & (SA_RESTART | SA_ONSTACK | SA_NODEFER));
    ours.sa_sigaction = on_interrupt;
    if (sigaction(SIGINT, &ours, NULL) != 0)
        return -errno;
    interrupt_watched = true;
    return 0;
}

unsigned signals_interrupts(void)
{
    return atomic_load(&interrupts);
}

static void on_usr1(int signal, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    struct sigaction *before = &usr1_before;
    print_waits();
    /* MPICH has a handler of its own here; the default would end the process that was only asked a question. */
    if ((before->sa_flags & SA_SIGINFO) || before->sa_handler != SIG_DFL)
        trap_hand_on(before, signal, info, context);
    errno = saved_errno;
}

int signals_watch_usr1(void (*print)(void))
{
    struct sigaction now, ours = {.sa_flags = SA_SIGINFO | SA_RESTART};
    if (sigaction(SIGUSR1, NULL, &now) != 0)
        return -errno;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_usr1)
        return 0;
    print_waits = print;
    usr1_before = now;
    ours.sa_sigaction = on_usr1;
    sigemptyset(&ours.sa_mask);
    if (sigaction(SIGUSR1, &ours, NULL) != 0)
        return -errno;
    usr1_watched = true;
    return 0;
}

static void unwatch(int signal, bool *watched, const struct sigaction *before, void (*ours)(int, siginfo_t *, void *))
{
    struct sigaction now;
    if (*watched && sigaction(signal, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == ours) {
        sigaction(signal, before, NULL);
        *watched = false;
    }
}

void signals_unwatch(void)
{
    unwatch(SIGINT, &interrupt_watched, &interrupt_before, on_interrupt);
    unwatch(SIGUSR1, &usr1_watched, &usr1_before, on_usr1);
    atomic_store(&interrupts, 0);
}
