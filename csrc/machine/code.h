/* code - where the code of MPI, and of the libraries that MPI calls, lies in this process: it distinguishes an access
 * to shared memory inside an MPI call from an access of the program.
 *
 * Libraries are known by the names of their files.  Those that MPI loads are there when it has been initialised.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { CODE_RANGES_MAX = 64 };

/* Invariant: `count` is written last, once, so that a signal handler sees whole ranges. */
struct code {
    _Atomic unsigned count;
    struct code_range {
        uintptr_t from, end;
        bool copies; /* the C library: memcpy is a leaf there, and its caller makes the access */
    } ranges[CODE_RANGES_MAX];
};

/* Look for them; without a dynamic linker nothing is found. */
void code_find(struct code *code);

/* Does the instruction at `pc` belong to MPI, or to a leaf of the C library that MPI called and that returns to
 * `caller`? Async-signal-safe. */
bool code_is_mpi(const struct code *code, uintptr_t pc, uintptr_t caller);
