#include "runtime/end.h"

#include <unistd.h>

#include "machine/signals.h"
#include "runtime/collective.h"
#include "runtime/death.h"
#include "runtime/progress.h"

static void close_all(struct runtime *runtime)
{
    progress_end(runtime);
    atomic_store(&runtime->stopping, true);
    doorbell_ring(runtime->doorbell, runtime->rank);
    pthread_join(runtime->service, NULL);
    pthread_join(runtime->watchdog, NULL);
    transport_close(runtime->transport);
    runtime->transport = NULL;
    doorbell_close(runtime->doorbell);
    runtime->doorbell = NULL;
    /* The range stays reserved and the names of the arrays stay known, so that a late access can be explained. */
    memory_protect(&runtime->memory, 0, runtime->memory.bytes, MEMORY_NONE);
    if (runtime->nodes.spaces == 1)
        memory_discard(&runtime->memory, 0, runtime->memory.bytes);
}

int dsm_finalize(bool at_exit, double slice_s)
{
    struct ballot ballot = {.kind = MEETING_FINALIZE, .refusal = at_exit ? "the interpreter is not through" : NULL};
    int error =
        collective_meet(at_exit ? "the end of the program (dsm.finalize())" : "dsm.finalize()", &ballot, slice_s, NULL);
    if (error == DSM_E_VIEWS) {
        runtime_current->at_exit = runtime_current->at_exit || at_exit;
        return DSM_OK;
    }
    if (!error)
        close_all(runtime_current);
    return error;
}

void end_with_mpi(void)
{
    struct runtime *runtime = runtime_current;
    if (!runtime || runtime->process != getpid() || runtime->dying)
        return;
    unsigned interrupts = signals_interrupts();
    while (runtime_state() == RUNTIME_ACTIVE) {
        int error = dsm_finalize(false, 0.1);
        if (error && error != DSM_AGAIN)
            death_end_all(runtime, dsm_last_error(), 1, false);
        if (signals_interrupts() != interrupts)
            death_end_all(runtime, "interrupted (Ctrl-C) at its end, before other ranks came to theirs", 130, false);
    }
}

void dsm_end(void)
{
    if (runtime_current)
        runtime_current->at_exit = true;
    end_with_mpi();
}
