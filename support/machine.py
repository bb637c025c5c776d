"""What this machine offers: memory that is free, memory used, versions of libraries."""

import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has no such module
    resource = None

# The limits of a process, and the lines of /proc/self/status that count against them.
PROCESS_LIMITS = {"RLIMIT_AS": "VmSize", "RLIMIT_DATA": "VmData"}

# For both versions of control groups: the folder of the root group, the files with a group's limit
# and use, and the line of its memory.stat that says how much of the use is cache which the system
# gives back first. All of them count the groups inside as well.
CGROUPS = {
    "v2": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "v1": (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


def available_bytes(root="/"):
    """Return how many more bytes this process can use.

    It is the least of three: what the system has available without swapping, what is left to the
    control groups (the container) of the process, and what is left to the process by its own limits
    (``ulimit -v``, ``ulimit -d``). Files that are missing or not understood are passed over.

    Parameters
    ----------
    root : str or Path, default="/"
        The folder that has proc and sys in it.

    Returns
    -------
    int or None
        At least 0. Without a /proc to read, the size of the machine's memory; None where that is
        not known either.
    """
    root = Path(root)
    available = _numbers(root / "proc/meminfo").get("MemAvailable", _machine_bytes())
    left = [available, *_left_to_cgroups(root), *_left_to_process(root)]
    left = [number for number in left if number is not None]
    return max(0, min(left)) if left else None


def format_bytes(number):
    """Return a number of bytes for people to read, '512 MB' or '1.3 GB' (1 GB is 10^9 bytes)."""
    if number >= 999.5e6:  # what is less does not become 1000 MB when it is rounded
        return f"{number / 1e9:.1f} GB"
    if number >= 999.5e3:
        return f"{number / 1e6:.0f} MB"
    return f"{number / 1e3:.0f} kB"


def _left_to_cgroups(root):
    """Return what is left in each of the process's groups that has a limit, up to the root group.

    Inside a container the path of the process's group may be that of the machine outside, where
    nothing is found; the container's own group is then the root, to which the way up leads.
    """
    left = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            mount, limit_file, use_file, cache_line = CGROUPS["v2"]
        elif "memory" in controllers.split(","):
            mount, limit_file, use_file, cache_line = CGROUPS["v1"]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            folder = root.joinpath(mount, *parts[:depth])
            limit, use = _number(_text(folder / limit_file)), _number(_text(folder / use_file))
            if limit is not None and use is not None:
                left.append(limit - use + _numbers(folder / "memory.stat").get(cache_line, 0))
    return left


def _left_to_process(root):
    """Return what is left of each limit that was set for this process."""
    left = []
    used = _numbers(root / "proc/self/status")
    for name, line in PROCESS_LIMITS.items():
        if hasattr(resource, name) and line in used:
            soft, _ = resource.getrlimit(getattr(resource, name))
            if soft != resource.RLIM_INFINITY:
                left.append(soft - used[line])
    return left


def _machine_bytes():
    """Return the size of the machine's memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf; others not these names
        return None


def _text(path):
    """Return what is in a small file, nothing if it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace")
    except (OSError, ValueError):  # ValueError: no path can be like this
        return ""


def _number(text):
    """Return `text` as a number of at least 0, None if it is anything else ("max": no limit)."""
    text = text.strip()
    return int(text) if text.isdecimal() and len(text) < 30 else None


def _numbers(path):
    """Return {name: bytes} from lines such as "name 5" and "name: 5 kB"."""
    numbers = {}
    for line in _text(path).splitlines():
        name, value, unit = [*line.split(), "", "", ""][:3]
        number = _number(value)
        if number is not None:
            numbers[name.rstrip(":")] = number * (1024 if unit == "kB" else 1)
    return numbers


def library_versions(*names):
    """Return {name: version} for Python and the installed packages `names`."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def peak_memory_bytes():
    """Return the largest resident size this process has had so far, in bytes (None on Windows)."""
    try:
        # Linux's getrusage would count what the parent had when it started this process, too.
        status = Path("/proc/self/status").read_text("utf-8")
        return int(re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)[1]) * 1024
    except (OSError, TypeError):  # no Linux
        pass
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
