"""What the commands share: the error they show, bounded options, signals, and exit status."""

import argparse
import math
import signal
import sys
from contextlib import suppress


class InputError(ValueError):
    """Something the user gave (a file, an option, a picture) cannot be used.

    The message is one line that says what was wrong, where, and what to do about it. The demos
    print it after the program's name and exit with a status other than 0; any other exception is
    a bug of ours and keeps its traceback.
    """



def bounded(kind, least=None, above=None, most=None):
    """Return a function that reads an option's text as a number within bounds.

    Parameters
    ----------
    kind : {int, float}
    least, above, most : number, optional
        The smallest that is allowed, what it must be greater than, and the largest.
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
            finite = math.isfinite(value)
        except (ValueError, OverflowError):  # no number; one beyond all floating-point numbers
            value, finite = 0, False
        in_bounds = (
            finite
            and (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
        )
        if not in_bounds:
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
        return value

    return read


def exit_status(program, run, arguments):
    """Call ``run(arguments)``; say in one line what stopped it, if anything did.

    Returns
    -------
    int
        What `run` returns (0 for None), 2 for unusable input (`InputError`), 130 after Ctrl-C, or
        143 after SIGTERM, which is taken like Ctrl-C, so that no temporary files are left behind.
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
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 128 + (signals[0] if signals else signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, previous)


class Stopped(Exception):
    """Raised between two steps after a signal asked for the end; `number` is the signal's."""

    def __init__(self, number):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class StopRequest:
    """While this context lasts, the first Ctrl-C or SIGTERM is only noted; the second one counts.

    Examples
    --------
    ::

        with StopRequest() as stop:
            for step in range(1000):
                work()
                stop.check()  # raises Stopped if there was a signal
    """

    def __init__(self):
        self.number = None  # of the signal that came
        self._previous = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup: stays ignored
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self):
        """Raise `Stopped` if a signal has come."""
        if self.number is not None:
            raise Stopped(self.number)

    def _note(self, number, frame):
        if self.number is not None:
            previous = self._previous[number]  # as if this context were not there
            if callable(previous):
                return previous(number, frame)
            raise KeyboardInterrupt
        self.number = number
        with suppress(RuntimeError):  # the signal may have come while something else was printed
            print("\nstopping after this step; once more to stop at once", file=sys.stderr)
