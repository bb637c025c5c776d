"""Types of command-line options, for `argparse`; each failure says what was expected."""

import argparse
import math


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
        except ValueError:
            value = math.nan
        in_bounds = (
            math.isfinite(value)
            and (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
        )
        if not in_bounds:
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
        return value

    return read
