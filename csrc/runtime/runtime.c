#include "runtime/runtime.h"

struct runtime *runtime_current;
static _Atomic int the_state = RUNTIME_NEW;

enum runtime_state runtime_state(void)
{
    return (enum runtime_state)atomic_load(&the_state);
}

void runtime_enter_state(enum runtime_state state)
{
    atomic_store(&the_state, (int)state);
}
