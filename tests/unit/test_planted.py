"""Planted faults keep up with the sources: `make planted` compiles and runs each, which takes minutes."""

import pytest
from native import planted


@pytest.mark.parametrize("fault", planted.FAULTS, ids=lambda fault: fault.name)
def test_the_text_of_a_fault_is_found_once(fault):
    for file, rule, without in ((fault.file, fault.rule, fault.without), *fault.also):
        assert rule != without
        assert (planted.ROOT / "csrc" / "protocol" / file).read_text().count(rule) == 1
