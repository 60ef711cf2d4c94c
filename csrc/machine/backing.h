/* backing - a sparse file in memory, without a name, and the views of it.
 *
 * Invariant: no view is inherited by a child of fork(), nor written to a core file.
 */
#pragma once

#include <stdint.h>

/* Of x86-64, and of AArch64 with pages of 4 KiB; elsewhere the kernel refuses huge pages, and nothing is lost. */
enum { BACKING_HUGE_BYTES = 2 << 20 };

/* A new file of so many bytes.  Its descriptor or -errno: EFBIG over the limit of files, and what memfd_create says. */
int backing_open(uint64_t bytes);

/* Map the file from its beginning: at `address`, or anywhere (NULL) at a multiple of a huge page, with a protection of
 * mmap.  0 or -errno: EEXIST where something is there already or the kernel gives no program such an address, ENOMEM
 * over the limit of addresses. */
int backing_map(int file, void *address, uint64_t bytes, int protection, void **view);
/* Map another file in place of what backing_map has mapped there. */
int backing_replace(int file, void *view, uint64_t bytes, int protection);

/* Give the memory of these bytes back to the system: they read as zeros afterwards.  0 or -errno. */
int backing_discard(int file, uint64_t offset, uint64_t bytes);
