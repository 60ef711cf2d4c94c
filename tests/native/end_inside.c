/* Sends this process a signal while it has the mutex of its node: a library for LD_PRELOAD that stands before
 * pthread_mutex_unlock, so that the runtime needs no door for it.
 *
 * dsm_test_signal is set by the test, with ctypes.  The mutex of the node is known by being robust.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

enum { ROBUST = 16 }; /* glibc: PTHREAD_MUTEX_ROBUST_NORMAL_NP */

_Atomic int dsm_test_signal;

static int (*give)(pthread_mutex_t *);

static void __attribute__((constructor)) find(void)
{
    *(void **)&give = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
}

int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    if (dsm_test_signal && mutex->__data.__kind & ROBUST) {
        int number = atomic_exchange(&dsm_test_signal, 0);
        if (number)
            kill(getpid(), number);
    }
    if (!give)
        find();
    return give(mutex);
}
