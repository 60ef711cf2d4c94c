#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/neighbour.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/death.h"
#include "runtime/runtime.h"

/* A process number means something only inside its namespace. */
struct process {
    uint64_t number, names;
};

static struct process own_process(void)
{
    struct stat names = {0};
    stat("/proc/self/ns/pid", &names);
    return (struct process){.number = (uint64_t)getpid(), .names = (uint64_t)names.st_ino};
}

void neighbour_choose(struct runtime *runtime)
{
    struct process own = own_process(), *all = calloc((size_t)runtime->size, sizeof *all);
    runtime->neighbour_file = -1;
    if (transport_agree_min(runtime->transport, all != NULL) != 1) {
        free(all);
        return;
    }
    transport_gather(runtime->transport, &own, (int)sizeof own, all);
    for (int k = 1; k < runtime->size && runtime->neighbour_file < 0; k++) {
        int peer = (runtime->rank + k) % runtime->size;
        if (!doorbell_same_host(runtime->doorbell, peer) || all[peer].names != own.names)
            continue;
        runtime->neighbour = peer;
        runtime->neighbour_file = (int)syscall(SYS_pidfd_open, (pid_t)all[peer].number, 0);
        break;
    }
    free(all);
}

void neighbour_watch(struct runtime *runtime, int wait_ms)
{
    struct pollfd gone = {.fd = runtime->neighbour_file, .events = POLLIN};
    if (poll(&gone, 1, wait_ms) <= 0 || atomic_load(&runtime->stopping))
        return;
    /* There is a millisecond before mpiexec kills this rank, too.  A farewell was sent before its sender died. */
    doorbell_wait(runtime->doorbell, 0);
    if (!doorbell_farewell_heard(runtime->doorbell) && !atomic_load(&runtime->stopping)) {
        char text[160];
        snprintf(text, sizeof text, "rank %d ended without dsm.finalize(): it was killed, crashed, or called os._exit",
                 runtime->neighbour);
        death_end_all(runtime, text, 1, false);
    }
    close(runtime->neighbour_file);
    runtime->neighbour_file = -1;
}
