"""Writes files so that no reader ever sees an incomplete one."""

import json
import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path

from support.command import InputError


def check_output(path):
    """Raise `InputError` unless a file can be written to `path`. It creates nothing.

    Call it before the long work whose result will be written to `path`.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the name of a file")
        folder = path.absolute().parent
        while not folder.exists():  # it will be created
            folder = folder.parent
    except OSError as error:  # the name is too long
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: {folder} is not a folder that can be written to")


def check_extension(what, known, path):
    """Raise `InputError` unless the extension of `path` is one of `known`; `what`: "picture"."""
    suffix = Path(path).suffix
    if suffix.lower() not in known:
        given = f"the extension {suffix!r}" if suffix else "no extension"
        use = f"use one of {', '.join(known)}"
        raise InputError(f"cannot write the {what} {path} with {given}; {use}")


@contextmanager
def atomic_path(path, what=""):
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds.

    The folder is created if needed. The temporary path has the same extension, because writers
    choose the format by it. If the block raises, the file is removed; an OSError becomes an
    `InputError`, in which `what` is the kind of file ("the picture").
    """
    path = Path(path)
    check_output(path)
    name = f"{what} {path}".lstrip()
    # Not the name of `path` with something added, which could be too long.
    temporary = path.with_name(f".{secrets.token_hex(6)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:  # for example a full disk
        raise InputError(f"cannot write {name}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()  # if it is still there


def write_json(path, report):
    """Write `report`, a dict, to `path` as indented JSON, completely or not at all."""
    with atomic_path(path) as temporary:
        text = json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n"
        # A file name may hold bytes that are not valid text; they are written as escapes.
        temporary.write_text(text, "utf-8", errors="backslashreplace")
