"""Compile the protocol, the simulator and the helpers of the unit tests into a module of their own, for tests only."""

import fcntl
import hashlib
import importlib.util
import pathlib
import re
import sys

import cffi

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTOCOL = ROOT / "csrc" / "protocol"
HERE = pathlib.Path(__file__).resolve().parent
NAME = "_dsm_protocol"

# Handed to cffi as they are, but for the preprocessor's lines; a header comes after those that it needs.
HEADERS = (
    *("base/types.h", "base/port.h", "base/pool.h", "base/vector.h", "base/message.h", "base/reader.h", "page/diff.h"),
    "page/common.h",
    *("page/interval.h", "page/streams.h", "page/appetite.h", "page/page.h", "page/region.h"),
)
OWN_HEADERS = ("sim.h", "native_unit.h")
DIFF_VERSIONS = ("portable", "sse2", "ssse3")  # beside what this processor runs
INCLUDED = ("diff.c", "live.c")  # by sim_diff.c and sim_live.c
BEGIN, END = "/* cffi: begin */", "/* cffi: end */"


def _declarations():
    parts = ["struct node;"]
    for header in HEADERS:
        text = re.sub(r"/\*.*?\*/", "", (PROTOCOL / header).read_text(), flags=re.S)
        text = re.sub(r"^static inline .*?^}$", "", text, flags=re.S | re.M)
        text = re.sub(r"\bstamp(?= )(?! *[;,)])", "uint64_t", text)  # a name of a type and of fields: too much for cffi
        parts += [line for line in text.splitlines() if not line.startswith("#")]
    for header in OWN_HEADERS:
        parts.append((HERE / header).read_text().split(BEGIN, 1)[1].split(END, 1)[0])
    return "\n".join(parts).replace("typedef uint64_t stamp;", "")


def sources():
    """List the C files of the module."""
    simulator = (path for path in sorted(HERE.glob("sim*.c")) if path.name != "sim_main.c")
    own = ("native_unit.c", *(f"diff_{version}.c" for version in DIFF_VERSIONS))
    protocol = (path for path in sorted(PROTOCOL.glob("*/*.c")) if path.name not in INCLUDED)
    return [*protocol, *simulator, *(HERE / name for name in own)]


def directory():
    """Where the module of this state of the sources goes, inside the ignored build directory."""
    digest = hashlib.sha256()
    for path in [
        *sources(),
        *sorted(PROTOCOL.glob("*/*.h")),
        *(PROTOCOL / "page" / name for name in INCLUDED),
        *sorted(HERE.glob("*.h")),
        pathlib.Path(__file__),
    ]:
        digest.update(path.read_bytes())
    return ROOT / "build" / "tests" / f"protocol-{digest.hexdigest()[:16]}-{sys.implementation.cache_tag}"


def load():
    """Compile what is not compiled yet and return cffi's (ffi, lib)."""
    if NAME not in sys.modules:
        folder = directory()
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of pytest come here at the same time
            built = next(folder.glob(f"{NAME}.*.so"), None)
            if built is None:
                builder = cffi.FFI()
                builder.cdef(_declarations())
                builder.set_source(
                    NAME,
                    '#include "protocol/node/face.h"\n#include "protocol/page/common.h"\n'
                    + "".join(f'#include "{header}"\n' for header in OWN_HEADERS),
                    sources=[str(path) for path in sources()],
                    include_dirs=[str(ROOT / "csrc"), str(HERE)],
                    extra_compile_args=["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter"],
                )
                built = builder.compile(tmpdir=str(folder))
        spec = importlib.util.spec_from_file_location(NAME, built)
        module = importlib.util.module_from_spec(spec)
        sys.modules[NAME] = module
        spec.loader.exec_module(module)
    module = sys.modules[NAME]
    return module.ffi, module.lib
