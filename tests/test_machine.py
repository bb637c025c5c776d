"""The memory that is left, read from made-up systems and from this one."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from support import machine as memory
from support.machine import available_bytes, format_bytes

ROOT = Path(__file__).resolve().parent.parent

MEMINFO = """\
MemTotal:        8000000 kB
MemFree:          100000 kB
MemAvailable:    4000000 kB
HugePages_Total:       0
"""
AVAILABLE = 4_000_000 * 1024
STATUS = "Name:\tpython\nVmPeak:\t  900000 kB\nVmSize:\t  500000 kB\nVmData:\t  200000 kB\n"
UNLIMITED = -1
MACHINE = 5 * 4096  # what `os.sysconf` is made to say


@pytest.fixture
def limits(monkeypatch):
    """The limits of the process, none at first, whatever those of the test's own process are."""
    soft = {"RLIMIT_AS": UNLIMITED, "RLIMIT_DATA": UNLIMITED}
    fake = SimpleNamespace(
        RLIM_INFINITY=UNLIMITED,
        RLIMIT_AS="RLIMIT_AS",
        RLIMIT_DATA="RLIMIT_DATA",
        getrlimit=lambda name: (soft[name], UNLIMITED),
    )
    monkeypatch.setattr(memory, "resource", fake)
    return soft


@pytest.fixture
def system(tmp_path, limits, monkeypatch):
    """Return a function that writes files below a root folder, and returns that folder.

    There are /proc/meminfo and /proc/self/status at first, and the machine has five pages.
    """
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 5}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__, raising=False)

    def write(files=(), **numbers):
        for name, text in dict(files, **numbers).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))
        return tmp_path

    write({"proc/meminfo": MEMINFO, "proc/self/status": STATUS})
    return write


def v2_group(path, limit, use, inactive_file=None):
    """Return the files of a group of version 2, at `path` ("" is the root group)."""
    folder = f"sys/fs/cgroup/{path}"
    files = {f"{folder}/memory.max": f"{limit}\n", f"{folder}/memory.current": f"{use}\n"}
    if inactive_file is not None:
        files[f"{folder}/memory.stat"] = (
            f"anon 123\nfile 999999999\ninactive_anon 77\nactive_file 88\n"
            f"inactive_file {inactive_file}\n"
        )
    return files


def v1_group(path, limit, use, inactive_file=None):
    """The same of version 1."""
    folder = f"sys/fs/cgroup/memory/{path}"
    files = {
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{folder}/memory.usage_in_bytes": f"{use}\n",
    }
    if inactive_file is not None:
        files[f"{folder}/memory.stat"] = (
            f"cache 55\ninactive_file 5\ntotal_cache 999999999\n"
            f"total_inactive_file {inactive_file}\n"
        )
    return files


def test_without_limits_it_is_what_the_system_has_available(system):
    assert available_bytes(system()) == AVAILABLE
    assert available_bytes(str(system())) == AVAILABLE


# --- control groups ---


def test_a_group_of_version_2(system):
    root = system({"proc/self/cgroup": "0::/user.slice/job\n"})
    assert available_bytes(root) == AVAILABLE
    system(v2_group("user.slice/job", 3_000_000_000, 1_200_000_000))
    assert available_bytes(root) == 1_800_000_000
    system(v2_group("user.slice/job", 3_000_000_000, 1_200_000_000, inactive_file=500_000_000))
    assert available_bytes(root) == 2_300_000_000


def test_the_groups_around_a_group_count_up_to_the_root(system):
    files = {"proc/self/cgroup": "0::/a/b/c\n", **v2_group("a/b/c", "max", 10)}
    assert available_bytes(system(files)) == AVAILABLE
    assert available_bytes(system(v2_group("a/b", 900, 100))) == 800
    assert available_bytes(system(v2_group("a", 700, 100))) == 600
    assert available_bytes(system(v2_group("", 500, 100, 1))) == 401
    assert available_bytes(system(v2_group("a/other", 50, 10))) == 401
    assert available_bytes(system(v2_group("a/b/c", 300, 100))) == 200


def test_a_container_that_shows_the_path_outside(system):
    files = {"proc/self/cgroup": "0::/docker/0123abcd\n", **v2_group("", 2000, 500)}
    assert available_bytes(system(files)) == 1500
    outside = {"sys/memory.max": 100, "sys/memory.current": 10}  # above the root group
    assert available_bytes(system({"proc/self/cgroup": "0::/../../x\n", **outside})) == 1500
    assert available_bytes(system({"proc/self/cgroup": "0::/a:b (deleted)\n"})) == 1500
    assert available_bytes(system(v2_group("a:b (deleted)", 900, 500))) == 400


@pytest.mark.parametrize("controllers", ["memory", "hugetlb,memory"])
def test_a_group_of_version_1(system, controllers):
    lines = f"9:name=systemd:/x\n4:{controllers}:/docker/job\n3:cpu,cpuacct:/x\n"
    root = system({"proc/self/cgroup": lines})
    assert available_bytes(root) == AVAILABLE
    system(v1_group("", 9223372036854771712, 5_000_000_000))  # how version 1 says: no limit
    assert available_bytes(root) == AVAILABLE
    system(v1_group("docker", 4000, 1000))
    assert available_bytes(root) == 3000
    system(v1_group("docker/job", 2000, 500, inactive_file=300))
    assert available_bytes(root) == 1800


def test_groups_that_do_not_limit_memory_are_not_read(system):
    root = system({"proc/self/cgroup": "3:cpu:/a\n", **v2_group("a", 10, 5), **v1_group("a", 9, 5)})
    assert available_bytes(root) == AVAILABLE
    system({"proc/self/cgroup": "4:memory:/b\n0::/a\n"})  # both versions at once
    assert available_bytes(root) == 5


def test_a_group_that_is_over_its_limit_has_nothing_left(system):
    files = {"proc/self/cgroup": "0::/a\n", **v2_group("a", 1000, 1200, 100)}
    assert available_bytes(system(files)) == 0


# --- limits of the process ---


@pytest.mark.parametrize(("name", "used"), [("RLIMIT_AS", 500_000), ("RLIMIT_DATA", 200_000)])
def test_the_processes_own_limits(system, limits, name, used):
    limits[name] = 1_000_000_000
    assert available_bytes(system()) == 1_000_000_000 - used * 1024
    limits[name] = 1000
    assert available_bytes(system()) == 0
    limits[name] = 10**15
    assert available_bytes(system()) == AVAILABLE


def test_the_least_of_all_counts(system, limits):
    limits.update(RLIMIT_AS=1_500_000_000, RLIMIT_DATA=1_400_000_000)
    root = system({"proc/self/cgroup": "0::/a\n", **v2_group("a", 1_300_000_000, 200_000_000)})
    assert available_bytes(root) == 1_500_000_000 - 500_000 * 1024
    limits["RLIMIT_AS"] = UNLIMITED
    assert available_bytes(root) == 1_100_000_000
    system(v2_group("a", "max", 200_000_000))
    assert available_bytes(root) == 1_400_000_000 - 200_000 * 1024


# --- what is missing or malformed ---


def test_without_proc_it_is_the_machines_memory(tmp_path, system, monkeypatch):
    assert available_bytes(tmp_path / "nothing") == MACHINE

    def unknown(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert available_bytes(tmp_path / "nothing") is None
    monkeypatch.delattr(os, "sysconf")
    assert available_bytes(tmp_path / "nothing") is None
    assert available_bytes(system()) == AVAILABLE


def test_a_system_without_limits_of_processes(system, monkeypatch):
    monkeypatch.setattr(memory, "resource", None)
    assert available_bytes(system()) == AVAILABLE


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "MemAvailable:\n", "MemAvailable: many kB\n", "MemAvailable: -5 kB\n", "\0\xff:1"],
)
def test_malformed_meminfo_is_ignored(system, text):
    assert available_bytes(system({"proc/meminfo": text})) == MACHINE


@pytest.mark.parametrize(
    "text", ["", "::\n", "0\n", "0:", "0::\n", "0::/a\0b\n", "4:memory\n", "\0:\0:\0\n", "\0"]
)
def test_malformed_lists_of_groups_are_ignored(system, text):
    assert available_bytes(system({"proc/self/cgroup": text})) == AVAILABLE


@pytest.mark.parametrize("text", ["", "-1", "0x10", "1 2", "1.5", "9" * 5000, "²"])
def test_malformed_groups_are_ignored(system, text):
    root = system({"proc/self/cgroup": "0::/a\n", **v2_group("a", text, 10)})
    assert available_bytes(root) == AVAILABLE
    system(v2_group("a", 1000, text))
    assert available_bytes(root) == AVAILABLE
    system(v2_group("a", 1000, 10, inactive_file=text))
    assert available_bytes(root) in (990, 991)  # "1 2" is read as 1 with an unknown unit
    (root / "sys/fs/cgroup/a/memory.current").unlink()
    assert available_bytes(root) == AVAILABLE


def test_limits_without_a_status_are_ignored(system, limits):
    limits["RLIMIT_AS"] = 1000
    assert available_bytes(system({"proc/self/status": "VmSize: lots\nVmData:\n"})) == AVAILABLE


def test_files_that_are_no_text_or_no_files_are_ignored(system):
    root = system({"proc/self/cgroup": "0::/a\n", **v2_group("a", 1000, 10, 5)})
    (root / "sys/fs/cgroup/a/memory.stat").write_bytes(b"\xff\xfe\0 1\ninactive_file 5\n")
    assert available_bytes(root) == 995
    (root / "sys/fs/cgroup/a/memory.max").write_bytes(b"\xff\xfe")
    assert available_bytes(root) == AVAILABLE
    (root / "sys/fs/cgroup/a/memory.max").unlink()
    (root / "sys/fs/cgroup/a/memory.max").mkdir()
    assert available_bytes(root) == AVAILABLE


# --- this system ---


def test_this_system_has_some_but_not_more_than_its_memory():
    left = available_bytes()
    if left is None:
        pytest.skip("this system does not say how much memory it has")
    assert isinstance(left, int)
    machine = memory._machine_bytes()
    assert 1_000_000 < left
    assert machine is None or left <= machine


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds processes to this limit")
@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_process_can_use_what_is_left_to_it_and_no_more(name):
    program = f"""
import resource
from support.machine import available_bytes
MB = 1_000_000
used = {{}}
for line in open("/proc/self/status"):
    key, value = line.split(":", 1)
    used[key] = value
used = int(used[{memory.PROCESS_LIMITS[name]!r}].split()[0]) * 1024
resource.setrlimit(resource.{name}, (used + 300 * MB, -1))
left = available_bytes()
assert 280 * MB < left <= 300 * MB, left
bytearray(left - 20 * MB)
try:
    bytearray(left + 20 * MB)
except MemoryError:
    print("no more")
block = bytearray(100 * MB)
assert 90 * MB < left - available_bytes() < 110 * MB
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (finished.returncode, finished.stdout) == (0, "no more\n"), finished.stderr


# --- in words ---


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 kB"),
        (1500, "2 kB"),
        (999_400, "999 kB"),
        (999_500, "1 MB"),
        (1_600_000, "2 MB"),
        (512_000_000, "512 MB"),
        (999_499_999, "999 MB"),
        (999_500_000, "1.0 GB"),
        (1_300_000_000, "1.3 GB"),
        (24_842_493_952, "24.8 GB"),
        (1_234_567_890_123, "1234.6 GB"),
    ],
)
def test_bytes_in_words(number, text):
    assert format_bytes(number) == text
    assert format_bytes(float(number)) == text
