/* masks - which threads of this process block SIGSEGV or SIGBUS: the kernel ends a process, without a word, when one
 * of them faults.
 *
 * The mask of another thread can be read (/proc/self/task) and not changed; whoever starts a rank can prevent it
 * (csrc/preload).  One thread at a time calls what takes a `struct masks`.
 */
#ifndef MACHINE_MASKS_H
#define MACHINE_MASKS_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { MASKS_TOLD_MAX = 64, MASKS_NAME_BYTES = 32 };

/* Invariant: told[] are the first told_count threads that were found, each once. */
struct masks {
    DIR *threads; /* NULL: /proc cannot be read */
    nlink_t seen; /* says how many threads there were at the last look */
    pid_t told[MASKS_TOLD_MAX];
    unsigned told_count;
};

void masks_open(struct masks *masks);
void masks_close(struct masks *masks);

/* The calling thread blocks neither from now on; true when it did. */
bool masks_unblock(void);

/* There are more or fewer threads than at the last look.  Half a microsecond. */
bool masks_threads_changed(const struct masks *masks);

/* Look at all threads.  The number of those that block one of both and were not found before; their numbers are the
 * last ones of told[], `name` is that of the last. */
unsigned masks_look(struct masks *masks, char name[MASKS_NAME_BYTES]);

#endif
