"""The error of a user's mistake."""


class InputError(ValueError):
    """Something outside the program is wrong: a file, a variable, a setting, the disk.

    The message names it, says what was expected and how to mend it. The command line prints the message without a
    traceback and ends with status 2; everything else is a defect of the program and shows its traceback.
    """


class MissingFileError(InputError):
    """A file or store is not there; where many are expected, such a one may be left out."""
