"""What the commands share: the error they show, bounded options, signals, and exit status."""

import argparse
import math
import signal
import sys
from contextlib import suppress


class InputError(ValueError):
    """Something from the user (a file, an option, a picture) cannot be used.

    The message is one line: what was wrong, where, and what to do. The commands print it after
    their name and exit with status 2. Any other exception is a bug and keeps its traceback.
    """


def bounded(kind, least=None, above=None, most=None):
    """Return a function that reads an option's text as a number within limits.

    Parameters
    ----------
    kind : {int, float}
    least, above, most : number, optional
        The smallest allowed value, a value it must be greater than, and the largest.
    """
    wanted = "a whole number" if kind is int else "a number"
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


def exit_status(program, run, arguments):
    """Call ``run(arguments)``; print one line if something stopped it.

    Returns
    -------
    int
        The result of `run` (0 for None), 2 for unusable input (`InputError`) or too little memory,
        130 after Ctrl-C, 143 after SIGTERM. SIGTERM is handled like Ctrl-C, so that no temporary
        files are left behind.
    """
    signals = []

    def interrupt(number, frame):
        signals.append(number)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        return run(arguments) or 0
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print(f"{program}: error: there is not enough memory", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 128 + (signals[0] if signals else signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, previous)


class Stopped(Exception):
    """Raised between two steps after a signal; `number` is the signal's."""

    def __init__(self, number):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class StopRequest:
    """In this context the first Ctrl-C or SIGTERM is only recorded; the second one stops at once.

    Examples
    --------
    ::

        with StopRequest() as stop:
            for step in range(1000):
                work()
                stop.check()  # raises Stopped if there was a signal
    """

    def __init__(self):
        self.number = None  # of the first signal
        self._previous = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it: keep that
                self._previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *exception):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self):
        """Raise `Stopped` if there was a signal."""
        if self.number is not None:
            raise Stopped(self.number)

    def _record(self, number, frame):
        if self.number is not None:
            previous = self._previous[number]  # what would happen without this context
            if callable(previous):
                return previous(number, frame)
            raise KeyboardInterrupt
        self.number = number
        with suppress(RuntimeError):  # the signal may have interrupted another print
            print("\nstopping after this step; repeat to stop at once", file=sys.stderr)
