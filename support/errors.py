"""The one exception that the demos show to the user as a single line."""


class InputError(ValueError):
    """Something the user gave (a file, an option, a picture) cannot be used.

    The message is one line that says what was wrong, where, and what to do about it. The demos
    print it after the program's name and exit with a status other than 0; any other exception is
    a bug of ours and keeps its traceback.
    """
