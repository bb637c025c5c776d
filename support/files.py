"""Writing files so that a reader never sees half of one."""

import json
import os
import secrets
import sys
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from support.errors import InputError

try:
    import resource
except ImportError:  # Windows has no such module
    resource = None


def check_output(path):
    """Raise `InputError` unless a file can be written to `path`; nothing is made yet.

    To be called before the work whose result shall be written there.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    folder = path.absolute().parent
    while not folder.exists():  # it will be made
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: {folder} is not a folder that can be written to")


@contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`; move it over `path` when the block ends well.

    Parameters
    ----------
    path : str or Path
        Where the finished file shall stand. Its folder is made if need be.

    Yields
    ------
    Path
        A path that does not exist yet, in the same folder and with the same extension (writers
        choose the format by it). It is removed when the block raises.

    Raises
    ------
    InputError
        If the folder cannot be made or written to, or `path` is a folder.
    """
    path = Path(path)
    check_output(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, report):
    """Write the dict `report` to `path` as indented JSON, complete or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")


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
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
