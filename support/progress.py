"""The progress bar of all programs."""

import io
import sys

from tqdm import tqdm


class Bar(tqdm):
    """A progress bar on stderr; where that is not a terminal, a line at every tenth of the work."""

    def __init__(self, **options):
        self.shown = 0  # tenths in the last line
        super().__init__(file=sys.stderr or io.StringIO(), **options)  # pythonw has no stderr

    def __bool__(self):
        return True  # pooch asks `if bar`, and tqdm's answer is its total

    def display(self, msg=None, pos=None):
        """Redraw the bar, or write a line if one is due."""
        if self.fp.isatty():
            return super().display(msg, pos)
        tenth = int(10 * self.n / self.total) if self.total else 0
        if tenth > self.shown:
            self.shown = tenth
            self.fp.write(f"{self}\n")
        return True

    def clear(self, *arguments, **options):
        """Erase the bar before other output."""
        if self.fp.isatty():
            super().clear(*arguments, **options)

    def close(self):
        """Show the last state."""
        if not self.disable and not self.fp.isatty():
            self.display()
            self.fp = io.StringIO()  # tqdm would write an empty line
        super().close()
