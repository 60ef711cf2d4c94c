/* masks - which threads of this process block SIGSEGV or SIGBUS: when one of them faults, the kernel ends the process
 * without a word.
 *
 * The mask of another thread can be read (/proc/self/task) and not changed; the launcher can prevent it
 * (csrc/preload).  Only one thread at a time may call functions that take a `struct masks`.
 */
#pragma once

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { MASKS_FOUND_MAX = 64, MASKS_NAME_BYTES = 32 };

/* Invariant: found[] are the first found_count threads that were found, each once. */
struct masks {
    DIR *threads; /* NULL: /proc cannot be read */
    nlink_t seen; /* stands for the number of threads at the last look */
    pid_t found[MASKS_FOUND_MAX];
    unsigned found_count;
};

void masks_open(struct masks *masks);
void masks_close(struct masks *masks);

/* The calling thread blocks neither from now on; true when it did. */
bool masks_unblock(void);

/* There are more or fewer threads than at the last look.  Half a microsecond. */
bool masks_threads_changed(const struct masks *masks);

/* Look at all threads.  The number of those that block one of both and were not found before; their numbers are the
 * last ones of found[], `name` is that of the last. */
unsigned masks_look(struct masks *masks, char name[MASKS_NAME_BYTES]);
