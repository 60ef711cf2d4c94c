/* What must be timed without Python between: single accesses, MPI round trips, and a page fault without dsm.
 *
 * Compiled when the benchmark starts and called through ctypes.  The fault is served by a handler of its own, not by
 * dsm: what dsm adds to the signal, the mprotect and the retry is what is to be seen.  MPI's functions come as pointers
 * and its handles as words, so that no mpi.h is needed: on the 64-bit machines that dsm runs on, an argument of type int
 * (MPICH's handles) is the lower half of a word.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };

static unsigned char *fault_begin, *fault_end;
static struct sigaction former;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void spin(uint64_t ns)
{
    for (uint64_t end = now_ns() + ns; now_ns() < end;) {
    }
}

/* Read one byte at each offset, after computing for `pause_ns`; how long each access took. */
void touch(const volatile unsigned char *base, const uint64_t *offsets, int count, uint64_t pause_ns, uint64_t *took_ns)
{
    for (int k = 0; k < count; k++) {
        spin(pause_ns);
        uint64_t start = now_ns();
        (void)base[offsets[k]];
        took_ns[k] = now_ns() - start;
    }
}

static void serve(int number, siginfo_t *info, void *context)
{
    (void)context;
    unsigned char *address = info->si_addr;
    if (address >= fault_begin && address < fault_end)
        mprotect(fault_begin + (address - fault_begin) / PAGE * PAGE, PAGE, PROT_READ);
    else
        sigaction(number, &former, NULL);   /* the retry meets the handler whose business it is */
}

/* The same accesses in `pages` resident pages of a memfd that are all protected. 0, or -1 when the system refuses. */
int fault(const uint64_t *offsets, int count, uint64_t pages, uint64_t *took_ns)
{
    struct sigaction ours = {.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    uint64_t bytes = pages * PAGE;
    int file = memfd_create("fault", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)bytes) != 0)
        return -1;
    unsigned char *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
    close(file);
    if (base == MAP_FAILED || mprotect(base, bytes, PROT_NONE) != 0)
        return -1;
    fault_begin = base;
    fault_end = base + bytes;
    ours.sa_sigaction = serve;
    sigaction(SIGSEGV, &ours, &former);
    touch(base, offsets, count, 0, took_ns);
    sigaction(SIGSEGV, &former, NULL);
    return munmap(base, bytes);
}

/* Round trips between two ranks: `request` bytes there, `reply` bytes back. Both ranks call it; the one that asks has
 * the times. */
void round_trips(int (*send)(const void *, int, uint64_t, int, int, uint64_t),
                 int (*receive)(void *, int, uint64_t, int, int, uint64_t, void *), uint64_t bytes, uint64_t comm,
                 int peer, int asks, int request, int reply, unsigned char *buffer, int count, uint64_t *took_ns)
{
    uint64_t status[32];
    for (int k = 0; k < count; k++) {
        uint64_t start = now_ns();
        if (asks)
            send(buffer, request, bytes, peer, 0, comm);
        receive(buffer, asks ? reply : request, bytes, peer, 0, comm, status);
        if (!asks)
            send(buffer, reply, bytes, peer, 0, comm);
        took_ns[k] = now_ns() - start;
    }
}

/* Take and release a lock `count` times: how long all of it took, or 0 when a call failed. */
uint64_t lock_again(int (*acquire)(uint32_t, const char *, uint64_t *, double), int (*release)(uint32_t), uint32_t lock,
                    int count)
{
    uint64_t start = now_ns();
    for (int k = 0; k < count; k++) {
        uint64_t ticket = 0;
        if (acquire(lock, NULL, &ticket, -1.0) != 0 || release(lock) != 0)
            return 0;
    }
    return now_ns() - start;
}
