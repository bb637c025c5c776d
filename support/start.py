"""The first thing that a program does. To be there at once, this imports almost nothing."""

import os
import signal
import sys


def quiet_start():
    """Let Ctrl-C end a program with one line while its libraries load, which takes seconds."""

    def end(number, frame):
        try:
            os.write(2, f"{os.path.basename(sys.argv[0])}: interrupted\n".encode())
        except OSError:  # it is closed
            pass
        os._exit(128 + number)

    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)
