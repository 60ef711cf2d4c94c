/* preload - keeps SIGSEGV and SIGBUS out of signal masks, and lets the kernel write into new arrays, in every process
 * that is started with this library in LD_PRELOAD (`python -m dsm run` does it).
 *
 * A page that is not here is fetched by the handler of SIGSEGV.  The kernel ends a process, without a word, when the
 * signal is blocked in the thread that faults, and libraries block all signals in threads that they start (numexpr,
 * blosc2, ZeroMQ), so that the program's own threads get what is sent to it.  They mean what is sent; nobody gains by
 * blocking what a thread does to itself.  So the calls that set a mask go to the C library without these two.
 *
 * A node that is the whole job opens large arrays by blocks, at the first write (protocol/coherence/alone.h).  A write
 * of the kernel opens nothing: it stops there.  So the core opens the memory before a call that fills it.
 *
 * Not seen: system calls that are made without the C library or inside it (fread), or by another process
 * (process_vm_writev), and the masks of sigsuspend, ppoll and their like, which hold while a thread sleeps in the
 * kernel.
 *
 * Harmless where dsm is not: nothing happens but in these calls, and nothing is needed but the C library.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

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

/* ---- memory that nobody has written yet -------------------------------------------------------------------------- */

/* The core's (runtime/faults.c): makes the bytes writable, if they are shared memory. */
typedef void open_call(const void *address, size_t bytes);
static open_call *_Atomic core_open;

EXPORTED void dsm_preload_open_by(open_call *call)
{
    atomic_store(&core_open, call);
}

/* Before the call: one that fails halfway returns how far it came, and a datagram would be lost. */
static void open_parts(const struct iovec *parts, size_t count)
{
    open_call *open = atomic_load_explicit(&core_open, memory_order_relaxed);
    int error = errno;
    for (size_t k = 0; open && k < count; k++)
        open(parts[k].iov_base, parts[k].iov_len);
    errno = error;
}

/* A system call that fills these parts of memory. */
#define FILLS(name, parameters, arguments, ...) \
    EXPORTED ssize_t name parameters            \
    {                                           \
        static ssize_t(*next) parameters;       \
        if (!next)                              \
            find(&next, #name);                 \
        open_parts(__VA_ARGS__);                \
        return next arguments;                  \
    }
#define BYTES &(struct iovec){bytes, count}, 1

FILLS(read, (int file, void *bytes, size_t count), (file, bytes, count), BYTES)
FILLS(pread, (int file, void *bytes, size_t count, off_t at), (file, bytes, count, at), BYTES)
FILLS(recv, (int socket, void *bytes, size_t count, int flags), (socket, bytes, count, flags), BYTES)
FILLS(recvfrom, (int socket, void *bytes, size_t count, int flags, struct sockaddr *from, socklen_t *length),
      (socket, bytes, count, flags, from, length), BYTES)
FILLS(readv, (int file, const struct iovec *parts, int count), (file, parts, count), parts, (size_t)count)
FILLS(preadv, (int file, const struct iovec *parts, int count, off_t at), (file, parts, count, at), parts,
      (size_t)count)
FILLS(recvmsg, (int socket, struct msghdr *to, int flags), (socket, to, flags), to->msg_iov, to->msg_iovlen)
FILLS(process_vm_readv,
      (pid_t process, const struct iovec *parts, unsigned long count, const struct iovec *from,
       unsigned long from_count, unsigned long flags),
      (process, parts, count, from, from_count, flags), parts, count)
#ifdef __GLIBC__
FILLS(pread64, (int file, void *bytes, size_t count, off64_t at), (file, bytes, count, at), BYTES)
FILLS(preadv64, (int file, const struct iovec *parts, int count, off64_t at), (file, parts, count, at), parts,
      (size_t)count)
FILLS(preadv2, (int file, const struct iovec *parts, int count, off_t at, int flags), (file, parts, count, at, flags),
      parts, (size_t)count)
FILLS(preadv64v2, (int file, const struct iovec *parts, int count, off64_t at, int flags),
      (file, parts, count, at, flags), parts, (size_t)count)
#endif
