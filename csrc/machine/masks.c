/* Why a kept directory: to ask an open one how many entries it has costs a quarter of finding it by its path. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "masks.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void masks_open(struct masks *masks)
{
    *masks = (struct masks){.threads = opendir("/proc/self/task")};
}

void masks_close(struct masks *masks)
{
    if (masks->threads)
        closedir(masks->threads);
    masks->threads = NULL;
}

bool masks_unblock(void)
{
    sigset_t both, before;
    sigemptyset(&both);
    sigaddset(&both, SIGSEGV);
    sigaddset(&both, SIGBUS);
    return pthread_sigmask(SIG_UNBLOCK, &both, &before) == 0 &&
           (sigismember(&before, SIGSEGV) == 1 || sigismember(&before, SIGBUS) == 1);
}

static nlink_t count(const struct masks *masks)
{
    struct stat status;
    return masks->threads && fstat(dirfd(masks->threads), &status) == 0 ? status.st_nlink : 0;
}

bool masks_threads_changed(const struct masks *masks)
{
    return count(masks) != masks->seen;
}

/* The C library blocks all signals while it begins or ends a thread, also its own two, of which a program can block
 * none. */
static bool is_of_the_library(unsigned long long mask)
{
    enum { SIGCANCEL = 32, SIGSETXID = 33 };
    return mask & (1ull << (SIGCANCEL - 1) | 1ull << (SIGSETXID - 1));
}

/* The file is a kilobyte and more; what is looked for stands in its first half, the name in its first line. */
static bool blocks(const struct masks *masks, const char *thread, char name[MASKS_NAME_BYTES])
{
    char path[32], text[4096];
    snprintf(path, sizeof path, "%.16s/status", thread);
    int file = openat(dirfd(masks->threads), path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0)
        close(file);
    text[length < 0 ? 0 : length] = 0;
    const char *line = strstr(text, "\nSigBlk:");
    unsigned long long mask = line ? strtoull(line + strlen("\nSigBlk:"), NULL, 16) : 0;
    if (sscanf(text, "Name: %31[^\n]", name) != 1)
        name[0] = 0;
    return !is_of_the_library(mask) && mask & (1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1));
}

static bool was_found(const struct masks *masks, pid_t thread)
{
    for (unsigned i = 0; i < masks->found_count; i++)
        if (masks->found[i] == thread)
            return true;
    return false;
}

unsigned masks_look(struct masks *masks, char name[MASKS_NAME_BYTES])
{
    unsigned found = 0;
    if (!masks->threads)
        return 0;
    masks->seen = count(masks);
    rewinddir(masks->threads);
    for (struct dirent *entry; (entry = readdir(masks->threads)) && masks->found_count < MASKS_FOUND_MAX;) {
        char own_name[MASKS_NAME_BYTES];
        pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
        if (thread <= 0 || was_found(masks, thread) || !blocks(masks, entry->d_name, own_name))
            continue;
        masks->found[masks->found_count++] = thread;
        memcpy(name, own_name, sizeof own_name);
        found++;
    }
    return found;
}
