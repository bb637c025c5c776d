"""The memory that is left, of made-up control groups and of this system."""

import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from support import machine
from support.machine import available_bytes, format_bytes, peak_memory_bytes

ROOT = Path(__file__).resolve().parent.parent
AVAILABLE = 4_000_000  # far below the limits of the tests' own process
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux has these limits")


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Return a function that writes made-up files of control groups.

    They are in a temporary folder: "cgroup" instead of /proc/self/cgroup, and "groups" instead of
    /sys/fs/cgroup. The system has `AVAILABLE` bytes.
    """
    memory = namedtuple("svmem", "available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(AVAILABLE))
    monkeypatch.setattr(machine, "PROCESS_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "CGROUP_FOLDER", tmp_path / "groups")

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text), "utf-8")
        return tmp_path

    return write


def v2_group(path, limit, use, inactive_file=None):
    """Return the files of a group of version 2, at `path` ("" is the root group)."""
    folder = f"groups/{path}"
    files = {f"{folder}/memory.max": f"{limit}\n", f"{folder}/memory.current": f"{use}\n"}
    if inactive_file is not None:
        files[f"{folder}/memory.stat"] = (
            f"anon 123\nfile 999999999\ninactive_anon 77\nactive_file 88\n"
            f"inactive_file {inactive_file}\n"
        )
    return files


def v1_group(path, limit, use, inactive_file=None):
    """The same of version 1."""
    folder = f"groups/memory/{path}"
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
    assert available_bytes() == AVAILABLE


# --- control groups ---


def test_a_group_of_version_2(system):
    system({"cgroup": "0::/user.slice/job\n"})
    assert available_bytes() == AVAILABLE
    system(v2_group("user.slice/job", 3_000_000, 1_200_000))
    assert available_bytes() == 1_800_000
    system(v2_group("user.slice/job", 3_000_000, 1_200_000, inactive_file=500_000))
    assert available_bytes() == 2_300_000


def test_the_groups_around_a_group_count_up_to_the_root(system):
    system({"cgroup": "0::/a/b/c\n", **v2_group("a/b/c", "max", 10)})
    assert available_bytes() == AVAILABLE
    system(v2_group("a/b", 900, 100))
    assert available_bytes() == 800
    system(v2_group("a", 700, 100))
    assert available_bytes() == 600
    system(v2_group("", 500, 100, 1))
    assert available_bytes() == 401
    system(v2_group("a/other", 50, 10))
    assert available_bytes() == 401
    system(v2_group("a/b/c", 300, 100))
    assert available_bytes() == 200


def test_a_container_that_shows_the_path_on_the_host(system):
    system({"cgroup": "0::/docker/0123abcd\n", **v2_group("", 2000, 500)})
    assert available_bytes() == 1500
    system({"cgroup": "0::/../../x\n"})
    assert available_bytes() == 1500
    system({"cgroup": "0::/a:b (deleted)\n"})
    assert available_bytes() == 1500
    system(v2_group("a:b (deleted)", 900, 500))
    assert available_bytes() == 400


@pytest.mark.parametrize("controllers", ["memory", "hugetlb,memory"])
def test_a_group_of_version_1(system, controllers):
    lines = f"9:name=systemd:/x\n4:{controllers}:/docker/job\n3:cpu,cpuacct:/x\n"
    system({"cgroup": lines})
    assert available_bytes() == AVAILABLE
    system(v1_group("", 9223372036854771712, 5_000_000_000))  # how version 1 says: no limit
    assert available_bytes() == AVAILABLE
    system(v1_group("docker", 4000, 1000))
    assert available_bytes() == 3000
    system(v1_group("docker/job", 2000, 500, inactive_file=300))
    assert available_bytes() == 1800


def test_groups_that_do_not_limit_memory_are_not_read(system):
    system({"cgroup": "3:cpu:/a\n", **v2_group("a", 10, 5), **v1_group("a", 9, 5)})
    assert available_bytes() == AVAILABLE
    system({"cgroup": "4:memory:/b\n0::/a\n"})  # both versions at once
    assert available_bytes() == 5


def test_a_group_that_is_over_its_limit_has_nothing_left(system):
    system({"cgroup": "0::/a\n", **v2_group("a", 1000, 1200, 100)})
    assert available_bytes() == 0


def test_the_least_of_all_counts(system, monkeypatch):
    system({"cgroup": "0::/a\n", **v2_group("a", 3_000_000, 100_000)})
    monkeypatch.setattr(machine, "_left_to_process", lambda: [2_950_000, 2_960_000])
    assert available_bytes() == 2_900_000
    system(v2_group("a", 3_000_000, 10_000))
    assert available_bytes() == 2_950_000
    system(v2_group("a", "max", 10_000))
    monkeypatch.setattr(machine, "_left_to_process", lambda: [5_000_000])
    assert available_bytes() == AVAILABLE


# --- what is missing or malformed ---


@linux_only
def test_without_proc_nothing_is_known(system, monkeypatch):
    monkeypatch.undo()  # psutil's own functions again
    monkeypatch.setattr(psutil, "PROCFS_PATH", "/no/such/folder")
    monkeypatch.setattr(machine, "PROCESS_CGROUPS", Path("/no/such/folder/self/cgroup"))
    assert available_bytes() is None


def test_a_system_without_limits_of_processes(system, monkeypatch):
    monkeypatch.delattr(psutil, "RLIMIT_AS", raising=False)
    assert available_bytes() == AVAILABLE


@pytest.mark.parametrize(
    "text", ["", "::\n", "0\n", "0:", "0::\n", "0::/a\0b\n", "4:memory\n", "\0:\0:\0\n", "\0"]
)
def test_malformed_lists_of_groups_are_ignored(system, text):
    system({"cgroup": text})
    assert available_bytes() == AVAILABLE


@pytest.mark.parametrize("text", ["", "-1", "0x10", "1 2", "1.5", "9" * 30, "²"])
def test_malformed_groups_are_ignored(system, text):
    system({"cgroup": "0::/a\n", **v2_group("a", text, 10)})
    assert available_bytes() == AVAILABLE
    system(v2_group("a", 1000, text))
    assert available_bytes() == (0 if text.startswith("9") else AVAILABLE)
    folder = system(v2_group("a", 1000, 10, inactive_file=text))
    assert available_bytes() == (AVAILABLE if text.startswith("9") else 990)
    (folder / "groups/a/memory.current").unlink()
    assert available_bytes() == AVAILABLE


def test_files_that_are_not_text_or_not_files_are_ignored(system):
    folder = system({"cgroup": "0::/a\n", **v2_group("a", 1000, 10, 5)}) / "groups/a"
    (folder / "memory.stat").write_bytes(b"\xff\xfe\0 1\ninactive_file 5\n")
    assert available_bytes() == 995
    (folder / "memory.max").write_bytes(b"\xff\xfe")
    assert available_bytes() == AVAILABLE
    (folder / "memory.max").unlink()
    (folder / "memory.max").mkdir()
    assert available_bytes() == AVAILABLE


# --- this system ---


def test_this_system_has_some_but_not_more_than_its_memory():
    left = available_bytes()
    assert isinstance(left, int)
    assert 1_000_000 < left <= psutil.virtual_memory().total


@linux_only
@pytest.mark.parametrize(("name", "line"), [("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")])
def test_a_process_can_use_what_is_left_to_it_and_no_more(name, line):
    program = f"""
import mmap, resource
from support.machine import available_bytes
MB = 1_000_000
shared = mmap.mmap(-1, 100 * MB)  # counts for VmSize, but not for VmData
used = {{}}
for line in open("/proc/self/status"):
    key, value = line.split(":", 1)
    used[key] = value
used = int(used[{line!r}].split()[0]) * 1024
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


@linux_only
def test_the_peak_is_this_processs_own():
    """It counts memory that is free again, but not that of the process which started this one."""
    program = """
from support.machine import peak_memory_bytes
before = peak_memory_bytes()
block = b"x" * 150_000_000
del block
print(before, peak_memory_bytes() - before)
"""
    ballast = b"x" * 250_000_000
    output = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    assert peak_memory_bytes() > len(ballast)
    before, more = map(int, output.split())
    assert 4_000_000 < before < 100_000_000
    assert 100_000_000 < more < 200_000_000


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
