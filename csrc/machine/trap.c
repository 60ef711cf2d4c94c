#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "trap.h"

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__) || defined(__aarch64__)
#define TRAP_LEAVES_STACK true
#else
#define TRAP_LEAVES_STACK false
#endif

#if defined(__x86_64__) && !defined(TRAP_KIND_UNKNOWN)

static enum trap_kind kind_of(const ucontext_t *context)
{
    enum { PF_WRITE = 2, PF_INSTRUCTION = 16 }; /* Intel SDM 3A, "Page-Fault Exception", error code */
    unsigned long long code = (unsigned long long)context->uc_mcontext.gregs[REG_ERR];
    if (code & PF_INSTRUCTION)
        return TRAP_EXECUTE;
    return code & PF_WRITE ? TRAP_WRITE : TRAP_READ;
}

#elif defined(__aarch64__) && !defined(TRAP_KIND_UNKNOWN)

/* The kernel puts records of {magic, size} into the reserved area; one of them holds the syndrome register
 * (arch/arm64/include/uapi/asm/sigcontext.h; fields as in the Arm ARM, "ESR_EL1"). */
static enum trap_kind kind_of(const ucontext_t *context)
{
    enum { SYNDROME_MAGIC = 0x45535201, EC_SHIFT = 26, EC_MASK = 0x3f, EC_INSTRUCTION_ABORT = 0x20 };
    enum { WRITE_NOT_READ = 1 << 6, CACHE_MAINTENANCE = 1 << 8 };
    const unsigned char *at = (const unsigned char *)context->uc_mcontext.__reserved;
    const unsigned char *end = at + sizeof context->uc_mcontext.__reserved;
    while (end - at >= 16) {
        uint32_t magic, size;
        memcpy(&magic, at, sizeof magic);
        memcpy(&size, at + 4, sizeof size);
        if (magic == SYNDROME_MAGIC) {
            uint64_t syndrome;
            memcpy(&syndrome, at + 8, sizeof syndrome);
            if (((syndrome >> EC_SHIFT) & EC_MASK) == EC_INSTRUCTION_ABORT)
                return TRAP_EXECUTE;
            return (syndrome & WRITE_NOT_READ) && !(syndrome & CACHE_MAINTENANCE) ? TRAP_WRITE : TRAP_READ;
        }
        if (size < 8 || (size_t)(end - at) < size)
            break;
        at += size;
    }
    return TRAP_UNKNOWN;
}

#else

static enum trap_kind kind_of(const ucontext_t *context)
{
    (void)context;
    return TRAP_UNKNOWN;
}

#endif

/* A read that was served does not fault again at once, so a second fault at the same place must be a write.  (Where
 * a peer took the page away in between, one page is opened for writing without need.)  initial-exec: the handler
 * must not make the dynamic linker allocate. */
static enum trap_kind guess(uintptr_t address)
{
    static _Thread_local volatile uintptr_t last_read __attribute__((tls_model("initial-exec")));
    bool again = last_read == address;
    last_read = again ? 0 : address;
    return again ? TRAP_WRITE : TRAP_READ;
}

enum trap_kind trap_kind(const ucontext_t *context, uintptr_t address)
{
    enum trap_kind kind = kind_of(context);
    return kind == TRAP_UNKNOWN ? guess(address) : kind;
}

void trap_place(const ucontext_t *context, uintptr_t *pc, uintptr_t *caller)
{
#if defined(__x86_64__)
    *pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
    memcpy(caller, (const void *)(uintptr_t)context->uc_mcontext.gregs[REG_RSP], sizeof *caller);
#elif defined(__aarch64__)
    *pc = (uintptr_t)context->uc_mcontext.pc;
    *caller = (uintptr_t)context->uc_mcontext.regs[30];
#else
    (void)context;
    *pc = *caller = 0;
#endif
}

/* The kernel's own test: an interrupted handler may have been on that stack, too. */
bool trap_on_alternate_stack(const ucontext_t *context)
{
    const stack_t *stack = &context->uc_stack;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0), base = (uintptr_t)stack->ss_sp;
    return TRAP_LEAVES_STACK && !(stack->ss_flags & SS_DISABLE) && here - base < stack->ss_size;
}

/* Below the stack pointer a leaf function may keep 128 bytes (System V ABI for x86-64, 3.2.2).  A call may change all
 * registers that this function gives up to its caller anyway. */
__attribute__((noinline)) void trap_call_interrupted(const ucontext_t *context, void (*call)(void *), void *argument)
{
#if defined(__x86_64__)
    uintptr_t top = ((uintptr_t)context->uc_mcontext.gregs[REG_RSP] - 128) & ~(uintptr_t)15;
    __asm__ volatile("movq %%rsp, %%rbx\n\t"
                     "movq %[top], %%rsp\n\t"
                     "call *%[call]\n\t"
                     "movq %%rbx, %%rsp"
                     : "+D"(argument)
                     : [top] "r"(top), [call] "r"(call)
                     : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "cc", "memory");
#elif defined(__aarch64__)
    uintptr_t top = (uintptr_t)context->uc_mcontext.sp & ~(uintptr_t)15;
    register void *first __asm__("x0") = argument;
    __asm__ volatile("mov x19, sp\n\t"
                     "mov sp, %[top]\n\t"
                     "blr %[call]\n\t"
                     "mov sp, x19"
                     : "+r"(first)
                     : [top] "r"(top), [call] "r"(call)
                     : "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
                       "x16", "x17", "x19", "x30", "cc", "memory");
#else
    (void)context;
    call(argument);
#endif
}

/* The kernel restores the mask when our handler returns. */
void trap_hand_on(struct sigaction *before, int signal, siginfo_t *info, void *context)
{
    struct sigaction action = *before;
    bool sent = info->si_code <= 0; /* by kill() or raise(), so no instruction will fault again */
    if (!(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_IGN && sent)
        return;
    if (!(action.sa_flags & SA_SIGINFO) && (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)) {
        struct sigaction standard = {.sa_handler = SIG_DFL};
        sigaction(signal, &standard, NULL);
        if (sent) {
            sigset_t only;
            sigemptyset(&only);
            sigaddset(&only, signal);
            pthread_sigmask(SIG_UNBLOCK, &only, NULL);
            raise(signal);
        }
        return;
    }
    if (action.sa_flags & (int)SA_RESETHAND) {
        before->sa_flags = 0;
        before->sa_handler = SIG_DFL;
    }
    if (!(action.sa_flags & SA_NODEFER))
        sigaddset(&action.sa_mask, signal);
    pthread_sigmask(SIG_BLOCK, &action.sa_mask, NULL);
    if (action.sa_flags & SA_SIGINFO)
        action.sa_sigaction(signal, info, context);
    else
        action.sa_handler(signal);
}
