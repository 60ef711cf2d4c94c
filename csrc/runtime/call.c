#include "runtime/call.h"

#include "runtime/error.h"

static struct runtime *running(const char *call)
{
    if (runtime_state() == RUNTIME_ACTIVE)
        return runtime_current;
    error_set(DSM_E_STATE, runtime_state() == RUNTIME_NEW ? "%s before dsm.init()" : "%s after dsm.finalize()", call);
    return NULL;
}

struct runtime *call_enter(const char *call)
{
    struct runtime *runtime = running(call);
    return runtime && !progress_enter(runtime, RUNTIME_ACTIVE) ? running(call) : runtime;
}

struct runtime *call_enter_own(const char *call)
{
    struct runtime *runtime = running(call);
    return runtime && !progress_enter_own(runtime, RUNTIME_ACTIVE) ? running(call) : runtime;
}

struct runtime *call_lock(const char *call)
{
    struct runtime *runtime = running(call);
    if (runtime)
        progress_lock(runtime);
    if (runtime && !running(call)) {
        progress_unlock(runtime);
        return NULL;
    }
    return runtime;
}

struct runtime *call_lock_to_make(const char *call)
{
    struct runtime *runtime = call_lock(call);
    if (!runtime || !runtime->meeting)
        return runtime;
    error_set(DSM_E_STATE, "%s while another thread of this rank is in %s, or left it by an exception", call,
              ballot_kind_name(runtime->meeting));
    progress_unlock(runtime);
    return NULL;
}

int call_not_yet(const char *call)
{
    if (runtime_state() == RUNTIME_ACTIVE)
        return DSM_AGAIN;
    return error_set(DSM_E_STATE, "dsm ended while a thread of this rank waited in %s", call);
}

bool dsm_active(void)
{
    return runtime_state() == RUNTIME_ACTIVE;
}

uint64_t dsm_job(void)
{
    return runtime_current ? runtime_current->job : 0;
}
