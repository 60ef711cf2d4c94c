#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "trap.h"

#include <stdbool.h>
#include <string.h>

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
