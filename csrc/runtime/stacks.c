/* Python's faulthandler writes the stack of the thread that gets a signal, without the GIL, into a file; then it
 * raises the signal once more for the handler that was there before, which sees that the stack is complete. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/stacks.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "dsm.h"

enum { TRIES = 100, TEXT_BYTES = 4096, FRAMES_MAX = 4, STACK_BYTES = STACKS_BYTES / 2 };

static struct {
    int signal, file;
    void (*handler)(int);
    _Atomic bool written, failed;
    char skip[2][STACK_BYTES]; /* files that begin like this are not the program's */
} stacks = {.file = -1};

static void stack_written(int signal)
{
    (void)signal;
    atomic_store(&stacks.written, true);
}

int dsm_stack_signal(int *file)
{
    struct sigaction own = {.sa_handler = stack_written, .sa_flags = SA_RESTART}, before;
    *file = memfd_create("dsm stacks", MFD_CLOEXEC);
    for (int signal = SIGRTMAX - 1; signal > SIGRTMIN && *file >= 0; signal--)
        if (sigaction(signal, NULL, &before) == 0 && !(before.sa_flags & SA_SIGINFO) && before.sa_handler == SIG_DFL &&
            sigaction(signal, &own, NULL) == 0)
            return stacks.signal = signal;
    return 0;
}

void dsm_stack_ready(int file, const char *skip, const char *skip_too)
{
    struct sigaction now;
    if (sigaction(stacks.signal, NULL, &now) != 0)
        return;
    snprintf(stacks.skip[0], STACK_BYTES, "%s", skip);
    snprintf(stacks.skip[1], STACK_BYTES, "%s", skip_too);
    stacks.handler = now.sa_handler;
    stacks.file = file;
}

/* "  File "PATH", line N in NAME": the frames of the program, from the innermost one outwards. */
static void read_frames(char *text, char *stack, size_t room)
{
    size_t used = 0;
    int frames = 0;
    for (char *rest, *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char path[STACK_BYTES], name[STACK_BYTES];
        unsigned at;
        if (sscanf(line, " File \"%511[^\"]\", line %u in %511[^\n]", path, &at, name) != 3 ||
            strncmp(path, stacks.skip[0], strlen(stacks.skip[0])) == 0 ||
            strncmp(path, stacks.skip[1], strlen(stacks.skip[1])) == 0)
            continue;
        if (frames++ == FRAMES_MAX)
            break;
        int n =
            snprintf(stack + used, room - used, "%s %s:%u in %s", frames == 1 ? "at" : ", called at", path, at, name);
        used += n > 0 && (size_t)n < room - used ? (size_t)n : 0;
        stack[used] = 0;
    }
}

bool stacks_of(uint32_t thread, char *stack, size_t room)
{
    struct sigaction now;
    char text[TEXT_BYTES];
    stack[0] = 0;
    if (stacks.file < 0 || stacks.failed || sigaction(stacks.signal, NULL, &now) != 0 ||
        now.sa_handler != stacks.handler)
        return false;
    if (ftruncate(stacks.file, 0) != 0 || lseek(stacks.file, 0, SEEK_SET) != 0)
        return false;
    atomic_store(&stacks.written, false);
    if (syscall(SYS_tgkill, getpid(), (pid_t)thread, stacks.signal) != 0)
        return false;
    for (int k = 0; k < TRIES && !atomic_load(&stacks.written); k++)
        nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
    stacks.failed = !stacks.written; /* it blocks signals: its stack would be taken for another's */
    ssize_t count = pread(stacks.file, text, sizeof text - 1, 0);
    if (stacks.failed || count <= 0)
        return false;
    text[count] = 0;
    read_frames(text, stack, room);
    return stack[0] != 0;
}
