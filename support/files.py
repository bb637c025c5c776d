"""Opens what the user names for reading, and writes files that no reader ever sees incomplete.

`input_file` and `output_file` are the only places that open such files. Links are followed. Pipes,
devices and folders are refused. What the system reports becomes one `InputError`.
"""

import csv
import errno
import io
import json
import os
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path

from support.command import InputError

# A file may unpack to so many bytes, and so many for each of its own: numbers from a computation
# and pictures of digits never do.
MOST_BYTES, MOST_RATIO = 64_000_000, 20


def most_unpacked(size):
    """Return how many bytes a compressed file of `size` bytes may unpack to."""
    return MOST_BYTES + MOST_RATIO * size


class FormatError(InputError):
    """A file is not what it should be: "has no layers"; see `input_file`."""


@contextmanager
def input_file(path, what, advice=""):
    """Open a file for reading and yield it. A `FormatError` in the block becomes an `InputError`.

    `what` is the kind of file, for messages: "picture". `advice` says what to do if the file is
    missing or of the wrong format.
    """
    try:
        if not stat.S_ISREG(_mode(path)):
            raise InputError(f"cannot read the {what} {path}: it is {_kind(path)}, not a file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            yield file
    except FormatError as error:
        wrong = f"the {what} {path} ({size:,} bytes) {error}"
        raise InputError(f"{wrong}{advice and '; '}{advice}") from error
    except FileNotFoundError:
        raise InputError(f"there is no {what} {path}{advice and '; '}{advice}") from None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot read the {what} {path}: {reason}") from error


def files_in(folder):
    """Return the paths of the files in a folder, by name; `InputError` if it cannot be read."""
    try:
        return sorted(path for path in Path(folder).iterdir() if path.is_file())
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}") from error


def check_output(path):
    """Raise `InputError` unless a file can be written to `path`. It creates nothing.

    Call it before the long work whose result will be written to `path`. Return the path of the
    file that will be replaced or created, with links followed.
    """
    mode, target = None, Path(path).absolute()
    try:
        with suppress(FileNotFoundError):
            _mode(path)
        target = Path(os.path.realpath(path))  # "x" for "new/../x": what will be replaced
        with suppress(FileNotFoundError):
            mode = _mode(target)
    except NotADirectoryError:
        pass  # reported below; `realpath` would take "file/../x" for "x"
    except OSError as error:  # for example, the name is too long
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    if mode is not None and not stat.S_ISREG(mode):
        raise InputError(f"{path} is {_kind(target)}; give the name of a file")
    folder = target.parent
    while not os.path.exists(folder):  # it will be created
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}: {folder} is not a folder that can be written to")
    if mode is not None and not os.access(target, os.W_OK):
        raise InputError(f"cannot write {path}: the file there is read-only")
    return target


def check_outputs(outputs, inputs=()):
    """Raise `InputError` unless all of `outputs` can be written and nothing named is lost by it.

    None of them may be one of `inputs`, or be named twice, by whatever spelling or link.
    """
    read, written = set(map(_identity, inputs)), set()
    for path in outputs:
        identity = _identity(check_output(path))
        if identity in written:
            raise InputError(f"{path} is named for two outputs; give each its own name")
        if identity in read:
            raise InputError(f"{path} would overwrite a file that is read; give another name")
        written.add(identity)


def check_extension(what, known, path):
    """Raise `InputError` unless the extension of `path` is one of `known`; `what`: "picture"."""
    suffix = Path(path).suffix
    if suffix.lower() not in known:
        given = f"the extension {suffix!r}" if suffix else "no extension"
        use = f"use one of {', '.join(known)}"
        raise InputError(f"cannot write the {what} {path} with {given}; {use}")


@contextmanager
def output_file(path, what=""):
    """Yield a new binary file, which replaces `path` if the block succeeds.

    The folder is created if needed. If the block raises, the file is removed and the old one stays
    as it was; an OSError becomes an `InputError`, in which `what` is the kind of file ("the
    picture"). Encoders that write to the file descriptor themselves do not report a full disk:
    let them write into memory, and call `write_bytes`.
    """
    target = check_output(path)
    # Not the name of `path` with something added, which could be too long.
    temporary = target.with_name(f".{secrets.token_hex(6)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # some file systems notice only now that they are full
        with suppress(FileNotFoundError):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        name = f"{what} {path}".lstrip()
        raise InputError(f"cannot write {name}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()  # if it is still there


def write_bytes(path, content, what=""):
    """Write bytes to `path`, completely or not at all; see `output_file`."""
    with output_file(path, what) as file:
        file.write(content)


def write_json(path, report):
    """Write the dict `report` to `path` as indented JSON, completely or not at all."""
    text = json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n"
    # A file name may hold bytes that are not valid text; they are written as escapes.
    write_bytes(path, text.encode("utf-8", "backslashreplace"), "the report")


def write_csv(path, rows):
    """Write `rows`, lists of values, as comma-separated values, completely or not at all."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_bytes(path, text.getvalue().encode("utf-8", "backslashreplace"), "the report")


def _mode(path):
    """Return what the system says of a file: a folder, a device, its permissions."""
    try:
        return os.stat(Path(path)).st_mode  # `Path` drops a "/" at the end
    except ValueError:  # a zero byte, or characters that are no text
        raise OSError(errno.EINVAL, "no file can have this name") from None


def _kind(path):
    """Return what is at `path`, which is not a regular file."""
    mode = _mode(path)
    return "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"


def _identity(path):
    """Return what all names of one file have in common, different spellings and links."""
    try:
        target = os.path.realpath(path)  # "x" for "new/../x", also if there is no folder "new"
        status = os.stat(target)
        return status.st_dev, status.st_ino
    except OSError:  # it does not exist
        return target
    except ValueError:  # a name that no file can have
        return str(path)
