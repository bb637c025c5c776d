"""What this machine offers: memory that is free, memory used, versions of libraries."""

import re
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

# Linux only: the control groups of this process, and the folder in which all groups are.
PROCESS_CGROUPS = Path("/proc/self/cgroup")
CGROUP_FOLDER = Path("/sys/fs/cgroup")

# For both versions of control groups: the folder of the root group, the files with a group's limit
# and use, and the line of its memory.stat with the part of the use that is cache, which the system
# frees first. All three include the groups inside the group.
CGROUP_V1 = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
CGROUP_V2 = "", "memory.max", "memory.current", "inactive_file"


def available_bytes():
    """Return how many more bytes of memory this process can use, at least 0.

    It is the minimum of three: what the system has available without swapping; on Linux, what is
    left to the control groups of the process (its container); on Linux, what is left of its own
    limits (``ulimit -v``, ``ulimit -d``). None if nothing is known, as without a /proc on Linux.
    """
    left = _left_to_cgroups()
    with suppress(OSError, psutil.Error):  # there is no /proc
        left += [psutil.virtual_memory().available, *_left_to_process()]
    return max(0, min(left)) if left else None


def _left_to_cgroups():
    """Return what is left to each control group of the process that has a limit.

    The groups around a group count too, up to the root group. A container may show the path of its
    group on the host, which does not exist inside; its group is then the root group.
    """
    left = []
    # each line: number:controllers:path, without controllers in version 2
    for controllers, path in re.findall(r"^\d+:(.*?):/?(.*)$", _text(PROCESS_CGROUPS), re.M):
        if controllers and "memory" not in controllers.split(","):
            continue
        root, limit_file, use_file, cache_line = CGROUP_V1 if controllers else CGROUP_V2
        for group in (Path(path), *Path(path).parents):
            folder = CGROUP_FOLDER / root / group
            limit, use = _text(folder / limit_file).strip(), _text(folder / use_file).strip()
            cache = re.search(rf"^{cache_line} (\d+)$", _text(folder / "memory.stat"), re.M)
            if limit.isdecimal() and use.isdecimal():  # not "max": no limit
                left.append(int(limit) - int(use) + (int(cache[1]) if cache else 0))
    return left


def _left_to_process():
    """Return what is left of each limit on the memory of this process."""
    if not hasattr(psutil, "RLIMIT_AS"):  # not Linux
        return []
    process = psutil.Process()
    memory = process.memory_info()
    left = []
    for limit, used in (psutil.RLIMIT_AS, memory.vms), (psutil.RLIMIT_DATA, memory.data):
        soft, _ = process.rlimit(limit)
        if soft != psutil.RLIM_INFINITY:
            left.append(soft - used)
    return left


def _text(path):
    """Return the content of a small file, "" if it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace")
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return ""


def peak_memory_bytes():
    """Return the largest resident size that this process has had so far, in bytes."""
    # On Linux, getrusage would count what the parent process had when it started this one, too.
    line = re.search(r"^VmHWM:\s*(\d+) kB$", _text(Path("/proc/self/status")), re.M)
    if line:
        return int(line[1]) * 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # Windows has no such module

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def format_bytes(number):
    """Return a number of bytes for people to read, '512 MB' or '1.3 GB' (1 GB is 10^9 bytes)."""
    if number >= 999.5e6:  # less is not rounded to 1000 MB
        return f"{number / 1e9:.1f} GB"
    if number >= 999.5e3:
        return f"{number / 1e6:.0f} MB"
    return f"{number / 1e3:.0f} kB"


def format_seconds(seconds):
    """Return a time for people to read, '12.3 s', '4 min 10 s' or '2 h 5 min'."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def library_versions(*names):
    """Return {name: version} for Python and the installed packages `names`."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions
