"""Writing files so that a reader never sees half of one."""

import json
import os
import secrets
from contextlib import contextmanager
from pathlib import Path

from support.command import InputError


def check_output(path):
    """Raise `InputError` unless a file can be written to `path`; nothing is made yet.

    To be called before the work whose result shall be written there.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the name of a file")
        path.exists()
        folder = path.absolute().parent
        while not folder.exists():  # it will be made
            folder = folder.parent
    except OSError as error:  # a name that is too long
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: {folder} is not a folder that can be written to")


@contextmanager
def atomic_path(path, what=""):
    """Yield a temporary path beside `path`; move it over `path` when the block ends well.

    Parameters
    ----------
    path : str or Path
        Where the finished file shall stand. Its folder is made if need be.
    what : str, default=""
        What the file is, for the message when writing fails: "the picture".

    Yields
    ------
    Path
        A path that does not exist yet, in the same folder and with the same extension (writers
        choose the format by it). It is removed when the block raises.

    Raises
    ------
    InputError
        If the folder cannot be made or written to, `path` is a folder, or writing fails.
    """
    path = Path(path)
    check_output(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    # The name does not hold that of `path`: with more added to it, it could become too long.
    temporary = path.with_name(f".{secrets.token_hex(6)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:  # a full disk
        name = f"{what} {path}".lstrip()
        raise InputError(f"cannot write {name}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, report):
    """Write the dict `report` to `path` as indented JSON, complete or not at all."""
    with atomic_path(path) as temporary:
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        # File names need not be valid text; what is not is written as escapes.
        temporary.write_text(text, "utf-8", errors="backslashreplace")
