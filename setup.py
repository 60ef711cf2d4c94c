"""Compile the C core; all else about the package is in pyproject.toml."""

import copy
import importlib.util
import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# By its path: the package itself cannot be imported before it is built.
_spec = importlib.util.spec_from_file_location(
    "_core_build", Path(__file__).resolve().parent / "dsm" / "_core_build.py"
)
core_build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(core_build)


class BuildCore(build_ext):
    """Compile each core from the same sources, and leave no core of an earlier build beside them."""

    def run(self):
        try:
            core_build.check(os.environ)
        except core_build.BuildError as error:
            raise SystemExit(f"error: {error}") from None
        mpicc = core_build.find_mpicc(os.environ)
        if mpicc:
            print(f"compiling dsm._core with the MPI of {' '.join(mpicc)}", file=sys.stderr)
            core_build.use_as_compiler(mpicc, os.environ)
            self.force = True  # what lies in build/ may have been compiled for another MPI, and looks up to date
        self.parallel = self.parallel or True
        super().run()
        made = {Path(self.get_ext_fullpath(extension.name)).resolve() for extension in self.extensions}
        for folder in {file.parent for file in made}:
            for file in set(folder.glob("_core*.so")) - made:
                file.unlink()  # it would be taken in their place, or go into the wheel

    def build_extension(self, ext):
        alone = copy.copy(self)
        alone.build_temp = os.path.join(self.build_temp, ext.name)  # the same sources, other macros
        library = core_build.LIBRARIES.get(ext.name)
        if library:
            ext.extra_link_args += ["-Wl,--no-as-needed", alone.link_stand_in(library)]
        super(BuildCore, alone).build_extension(ext)

    def link_stand_in(self, library):
        """Make an empty library of this name: the core then asks for the real one, which need not be here."""
        source = Path(self.build_temp, "nothing.c")
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text("")
        objects = self.compiler.compile([str(source)], output_dir=self.build_temp)
        made = str(source.with_name(library))
        self.compiler.link_shared_object(objects, made, extra_postargs=[f"-Wl,-soname,{library}"])
        return made


setup(
    cffi_modules=[f"dsm/_core_build.py:{name}" for name in core_build.builders(os.environ)],
    ext_modules=[Extension("dsm._unmask", **core_build.preload_options())],
    cmdclass={"build_ext": BuildCore},
)
