"""The memory that is left, as the kernel and control groups of both versions say it."""

import pytest

from dsm import _room

MEMINFO = "MemTotal:       25165824 kB\nMemFree:         100 kB\nMemAvailable:    1000000 kB\n"
HOST = 1_000_000 << 10


@pytest.fixture
def system(tmp_path):
    """Write files of a system under a directory, which is returned."""

    def write(files):
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return write


def group(folder, most, used, files=0, version=2):
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    stat = f"anon 5\ninactive_file {files // 2}\nactive_file {files - files // 2}\n"
    texts = (f"{most}\n", f"{used}\n", stat)
    return dict(zip((f"sys/fs/cgroup/{folder}/{name}" for name in (*names, "memory.stat")), texts, strict=True))


def test_without_groups_it_is_what_the_kernel_says(system):
    assert _room.left_bytes(system({"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n"})) == HOST


def test_the_narrowest_group_counts_and_files_are_no_use_of_memory(system):
    root = system(
        {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/jobs/1\n"}
        | group("jobs", 900 << 20, 100 << 20)
        | group("jobs/1", "max", 50 << 20)
    )
    assert _room.left_bytes(root) == 800 << 20
    system(group("jobs/1", 600 << 20, 500 << 20, files=300 << 20))
    assert _room.left_bytes(root) == 400 << 20


def test_a_group_that_is_over_its_limit_leaves_nothing(system):
    files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/a\n"} | group("a", 100 << 20, 101 << 20)
    assert _room.left_bytes(system(files)) == 0


def test_version_1_and_a_container_with_the_path_of_its_host(system):
    lines = "12:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/system.slice\n"
    files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": lines}
    root = system(files | group("memory", 256 << 20, 56 << 20, version=1))
    assert _room.left_bytes(root) == 200 << 20


def test_a_system_that_says_nothing(tmp_path):
    assert _room.left_bytes(tmp_path) == 0


def test_this_machine_has_some():
    assert _room.left_bytes() > 1 << 20
