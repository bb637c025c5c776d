"""Stopping a long run without losing it: Ctrl-C and SIGTERM wait for the end of a step."""

import signal
import sys
from contextlib import suppress


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
