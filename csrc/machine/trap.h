/* trap - what a handler learns of its signal, and how it hands the signal on.
 *
 * x86-64 and AArch64 distinguish reads from writes; elsewhere the first fault at an address counts as a read, and the
 * next one of the same thread there as a write, and a handler stays on the stack where the kernel put it.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

enum trap_kind { TRAP_READ, TRAP_WRITE, TRAP_EXECUTE, TRAP_UNKNOWN };

/* Never TRAP_UNKNOWN.  Async-signal-safe. */
enum trap_kind trap_kind(const ucontext_t *context, uintptr_t address);

/* The instruction, and the place where the function that holds it returns to, if it is a leaf. */
void trap_place(const ucontext_t *context, uintptr_t *pc, uintptr_t *caller);

/* The handler that asks runs on an alternate stack, and can leave it. */
bool trap_on_alternate_stack(const ucontext_t *context);
/* Call it on the stack of the code that the signal interrupted. */
void trap_call_interrupted(const ucontext_t *context, void (*call)(void *), void *argument);

/* Act on the signal as the kernel would have with the action that was there before. */
void trap_hand_on(struct sigaction *before, int signal, siginfo_t *info, void *context);
