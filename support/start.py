"""The first thing that a program does. To be there at once, this imports almost nothing."""

import os
import signal
import sys

# Ctrl-C, the end of a session, and a closed terminal, which Windows does not have.
SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


def quiet_start():
    """Let a signal end a program with one line while its libraries load, which takes seconds."""

    def end(number, frame):
        try:
            os.write(2, f"{os.path.basename(sys.argv[0])}: interrupted\n".encode())
        except OSError:  # it is closed
            pass
        os._exit(128 + number)

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)
