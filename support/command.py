"""What the commands share: the error they show, how options are read, signals, and exit status."""

import argparse
import io
import math
import os
import re
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from difflib import get_close_matches
from pathlib import Path

from support.start import SIGNALS

CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # all but tab, line feed and carriage return


class InputError(ValueError):
    """Something from the user (a file, an option, a picture) cannot be used.

    The message is one line: what was wrong, where, and what to do. The commands print it after
    their name and exit with status 2. Any other exception is a bug and keeps its traceback.
    """


def one_line(reason):
    """Return the text of an exception, or any other, as one line of at most 200 characters."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def escaped(text, characters=CONTROL + r"\r\n"):
    """Return a text in which control characters and line ends, as of file names, are escapes."""
    return re.sub(f"[{characters}]", lambda match: ascii(match[0])[1:-1], text)


def print_error(program, message):
    """Print the one line about an error after which the program goes on."""
    print(escaped(f"{program}: error: {message}"), file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """An argparse parser with one-line errors, which suggest what a mistyped option may mean."""

    def parse_known_args(self, args=None, namespace=None):
        """Return the options and the texts that belong to none."""
        args = list(sys.argv[1:] if args is None else args)
        for text in args:
            if re.fullmatch("--[^=]+=--", text):  # Python before 3.13 drops the value
                self.error(f"argument {text[:-3]}: expected a value, got '--'")
        return super().parse_known_args(args, namespace)

    def takes_value(self, text):
        """Say whether `text` is an option whose value is the next argument."""
        option = self._option_string_actions.get(text)
        return option is not None and option.nargs != 0

    def error(self, message):
        """Raise `InputError`; argparse prints the whole usage and exits."""
        raise InputError(message)

    def parse_args(self, args=None, namespace=None):
        """Return the options; an error if any is wrong."""
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options = [text.partition("=")[0] for text in unknown if text.startswith("--")]
            known = did_you_mean(options[0], self._option_string_actions) if options else ""
            self.error(f"unrecognized arguments: {' '.join(options or unknown)}{known}")
        return namespace


def did_you_mean(text, names):
    """Return "; did you mean NAME?" for the name that `text` is close to, else ""."""
    similar = get_close_matches(text.lower(), names, 1)
    return f"; did you mean {similar[0]}?" if similar else ""


def as_path(text):
    """Return the path that an option's text names; ~ is the user's own folder."""
    if re.match(r"\w+://", text):
        reason = f"{text} is an address; download it first and give the name of the file"
    elif text in ("-", "/dev/stdin", "/dev/stdout"):
        reason = f"{text} is not a file that can be used here; give the name of a file"
    elif not text:
        reason = "the name is empty; give the name of a file"
    else:
        try:
            return Path(text).expanduser()
        except RuntimeError:
            reason = f"there is no user folder {text}; give the name of a file"
    raise argparse.ArgumentTypeError(reason)


def one_of(*names):
    """Return a function that reads one of `names`."""

    def read(text):
        if text not in names:
            known = did_you_mean(text, names)
            raise argparse.ArgumentTypeError(f"expected {' or '.join(names)}, got {text!r}{known}")
        return text

    return read


def name_or_path(*names):
    """Return a function that reads one of `names`, or the path of a file, as text."""

    def read(text):
        if text in names:
            return text
        file = as_path(text)
        known = "" if os.path.exists(file) else did_you_mean(text, names)
        if known:
            raise argparse.ArgumentTypeError(f"there is no file {text}{known}")
        return str(file)

    return read


def bounded(kind, least=None, above=None, most=None):
    """Return a function that reads an option's text as a number, an int or float as `kind` says.

    `least` and `most` are the smallest and the largest allowed value; it must be greater than
    `above`.
    """
    wanted = "a whole number" if kind is int else "a finite number"
    if least is not None:
        wanted += f" of at least {least}"
    if above is not None:
        wanted += f" greater than {above}"
    if most is not None:
        wanted += f" and at most {most}"

    def read(text):
        try:
            value = kind(text)
            in_limits = (
                math.isfinite(value)
                and (least is None or value >= least)
                and (above is None or value > above)
                and (most is None or value <= most)
            )
        except (ValueError, OverflowError):  # not a number, or too large for any float
            in_limits = False
        if not in_limits:
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
        return value

    return read


# Threads: BLAS and Python take any number, at the price of as many stacks.
thread_count = bounded(int, least=1, most=1024)


def exit_status(program, run, arguments):
    """Call ``run(arguments)``; print one line if something stopped it.

    While it runs, printing never fails (`_Stream`), and a signal is handled like Ctrl-C, so that no
    temporary files are left behind. A second signal does not disturb that; a third ends at once.

    Return the result of `run` (0 for None), 2 for unusable input (`InputError`), too little memory
    or a full standard output, 129, 130 or 143 after SIGHUP, Ctrl-C or SIGTERM.
    """
    received = []

    def interrupt(number, frame):
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt
        if len(received) > 2:
            os._exit(128 + number)

    with ExitStack() as stack:
        if not isinstance(sys.stdout, _Stream):  # not two commands at once, in threads
            stack.enter_context(redirect_stdout(_Stream(sys.stdout)))
            stack.enter_context(redirect_stderr(_Stream(sys.stderr)))
        try:
            with signals_to(interrupt):
                status, message = run(arguments) or 0, ""
        except InputError as error:
            status, message = 2, f"error: {error}"
        except MemoryError:
            status, message = 2, "error: there is not enough memory"
        except KeyboardInterrupt:
            status, message = 128 + (received[0] if received else signal.SIGINT), "interrupted"
        finally:
            sys.stdout.flush()
        full = getattr(sys.stdout, "error", None)
        if status == 0 and full and not isinstance(full, BrokenPipeError):  # head has read enough
            status, message = 2, f"error: cannot write to standard output: {full}"
        if message:
            print(escaped(f"{program}: {message}"), file=sys.stderr)
    return status


@contextmanager
def signals_to(handler):
    """Let `handler` receive the signals that stop a program; yield {number: earlier handler}.

    A signal that is ignored, as by nohup, stays so. Only the main thread can do it; nothing happens
    in others, such as those of a web server.
    """
    main = threading.current_thread() is threading.main_thread()
    previous = {number: signal.getsignal(number) for number in SIGNALS if main}
    previous = {n: old for n, old in previous.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in previous:
            signal.signal(number, handler)
        yield previous
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


class _Stream:
    """Standard output or error, in which nothing that is printed stops the work.

    Characters that the encoding lacks and control characters, which act on the terminal, become
    escapes. If nobody reads any more, the disk is full, or there is no stream (None, as under
    pythonw), the text is dropped; `error` is the reason.
    """

    def __init__(self, stream):
        self.stream = io.TextIOBase() if stream is None else stream
        self.dropping = stream is None
        self.error = None

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        """Write what can be written."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        shown = escaped(text, CONTROL).encode(encoding, "backslashreplace")
        self._try(self.stream.write, shown.decode(encoding))
        return len(text)

    def flush(self):
        """Pass on what was written so far."""
        self._try(self.stream.flush)

    def _try(self, function, *arguments):
        if self.dropping:
            return
        try:
            function(*arguments)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self.error, self.dropping = error, True
            if self.stream in (sys.__stdout__, sys.__stderr__):  # flushed again at the very end
                with open(os.devnull, "wb") as nowhere, suppress(OSError, ValueError):
                    os.dup2(nowhere.fileno(), self.stream.fileno())


class Stopped(KeyboardInterrupt):
    """Raised by a signal inside `StopRequest.listening`."""


class StopRequest:
    """Inside `listening`, Ctrl-C and SIGTERM raise `Stopped`, also in the middle of long work.

    Inside `held` the first signal waits until the end of that block, and as long as `finishing` has
    a text, which is printed then, it is only recorded. The second one stops at once.
    """

    def __init__(self):
        self.number = None  # of the first signal
        self.finishing = None  # what a signal waits for, if anything
        self._previous = {}

    @contextmanager
    def listening(self):
        """Let a signal raise `Stopped` in this block."""
        self.finishing = None
        with signals_to(self._receive) as self._previous:
            yield

    @contextmanager
    def held(self):
        """Let a signal wait until the end of this block, so that the block is done completely."""
        outer, self.finishing = self.finishing, self.finishing or "stopping after this step"
        try:
            yield
        finally:
            self.finishing = outer
        if self.number is not None and not outer:
            raise Stopped

    def _receive(self, number, frame):
        if self.number is not None:
            previous = self._previous[number]  # what would happen without this context
            if callable(previous):
                return previous(number, frame)
            raise KeyboardInterrupt
        self.number = number
        if not self.finishing:
            raise Stopped
        with suppress(RuntimeError):  # the signal may have interrupted another print
            print(f"\n{self.finishing}; repeat to stop at once", file=sys.stderr)
