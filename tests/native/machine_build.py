"""Compile the machine layer that needs no MPI into a module of its own, for tests only."""

import hashlib
import importlib.util
import pathlib
import re
import sys

import cffi

ROOT = pathlib.Path(__file__).resolve().parents[2]
MACHINE = ROOT / "csrc" / "machine"
HELP = pathlib.Path(__file__).with_name("machine_help.c")
NAME = "_dsm_machine"

# Handed to cffi: what the headers declare, without preprocessor lines; cffi does not know function types.
HEADERS = ("backing.h", "memory.h", "arena.h", "share.h", "fault.h", "signals.h", "doorbell.h")
USED = ("clock.c", "code.c", "futex.c", "masks.c", "mutex.c", "trap.c")  # by these
HELP_FACE = """
struct help {
    struct memory *memory;
    uint64_t unit_bytes;
    volatile uint64_t reads, writes;
};
int help_install(struct help *help);
int help_fault_on_stack_of(struct help *help, size_t stack_bytes, size_t *during, size_t *after);
uint64_t help_hammer(struct help *help, int threads, int rounds);
int help_errno_kept(struct help *help);
bool help_runs_from_range(struct help *help);
int help_neighbour_served(struct help *help, int faults);
int help_sent_signal_reaches_former(struct help *help);
void help_polite_thief(void);
int help_overflow(int depth);
void help_crash(void);
void help_bus_error(struct memory *memory);
int help_fork_is_clean(struct memory *memory);
int help_interrupts_former(void);
int help_usr1(bool handled);
double help_wake_us(struct doorbell *bell, int rounds);
int help_mutex_counts(struct arena *arena, int processes, int rounds);
int help_mutex_left(struct arena *arena, int rank, bool thread);
int help_futex_wakes(struct arena *arena, int rounds);
"""


def _declarations(header):
    text = re.sub(r"/\*.*?\*/", "", (MACHINE / header).read_text(), flags=re.S)
    text = text.replace("(enum fault_death how, uintptr_t value)", "(enum fault_death, uintptr_t)")
    text = text.replace("fault_server *server", "int (*server)(void *, uint64_t, bool, bool)")
    lines = [line for line in text.splitlines() if not line.startswith(("#ifndef", "#endif", "#include", "typedef"))]
    return "\n".join(line for line in lines if not re.match(r"#define \w+_H$", line))


def load(directory, *, access_unknown=False):
    """Compile into `directory` and return cffi's (ffi, lib).

    `access_unknown` builds the fault handler as for a processor that does not tell reads from writes.
    """
    names = [*USED, *(name.replace(".h", ".c") for name in HEADERS)]
    sources = sorted(MACHINE / name for name in names) + [HELP]
    name = f"{NAME}{'_unknown' if access_unknown else ''}"
    if name not in sys.modules:
        builder = cffi.FFI()
        builder.cdef("\n".join(_declarations(header) for header in HEADERS) + HELP_FACE)
        builder.set_source(
            name,
            "".join(f'#include "{header}"\n' for header in HEADERS) + HELP_FACE,
            sources=[str(source) for source in sources],
            include_dirs=[str(MACHINE)],
            extra_compile_args=["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter"],
            define_macros=[("TRAP_KIND_UNKNOWN", "1")] if access_unknown else [],
            libraries=["pthread"],
        )
        built = builder.compile(tmpdir=str(directory))
        spec = importlib.util.spec_from_file_location(name, built)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    module = sys.modules[name]
    return module.ffi, module.lib


def directory():
    """Where the modules of this state of the sources go, inside the ignored build directory."""
    digest = hashlib.sha256()
    for path in [*sorted(MACHINE.glob("*.[ch]")), HELP, pathlib.Path(__file__)]:
        digest.update(path.read_bytes())
    return ROOT / "build" / "tests" / f"machine-{digest.hexdigest()[:16]}-{sys.implementation.cache_tag}"


def load_built(*, access_unknown=False):
    """Load what an earlier process has compiled (a subprocess of a test)."""
    name = f"{NAME}{'_unknown' if access_unknown else ''}"
    (path,) = directory().glob(f"{name}.*.so")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ffi, module.lib
