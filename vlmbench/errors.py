"""The one thing that all errors share which a user can mend."""


class UserError(Exception):
    """Something outside the code is wrong: a setting, a file, a download.

    Commands print its message and no traceback, so the message says what is wrong, where, and what to do.
    """
