"""Planted faults keep up with the sources: `make planted` compiles and runs each, which takes minutes."""

import os
import subprocess

import pytest
from native import planted

CSRC = planted.ROOT / "csrc"


@pytest.mark.parametrize("fault", planted.FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_once_and_compiles(fault):
    texts = {}
    for file, rule, without in ((fault.file, fault.rule, fault.without), *fault.also):
        text = texts.get(file) or (CSRC / "protocol" / file).read_text()
        assert rule != without
        assert text.count(rule) == 1
        texts[file] = text.replace(rule, without)
    for file, text in texts.items():
        command = [os.environ.get("CC", "cc"), "-std=c11", f"-I{CSRC}", "-w", "-fsyntax-only", "-x", "c", "-"]
        command.insert(1, "-Werror=implicit-function-declaration")
        done = subprocess.run(command, input=text, text=True, capture_output=True)
        assert done.returncode == 0, f"{file}: {done.stderr}"
