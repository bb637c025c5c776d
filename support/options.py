"""What the commands share: options that are numbers within bounds, and how a command ends."""

import argparse
import math
import signal
import sys

from support.errors import InputError


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
