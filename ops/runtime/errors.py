"""Errors that are meant for people: what was wrong, where, and what to do."""


class LineamentError(Exception):
    """A problem the user can mend. Printed as one plain message, without a traceback; the exit code is 1."""


class PictureError(LineamentError):
    """A picture that cannot be used.

    Attributes:
        reason: short snake_case word that goes into the label table, e.g. ``truncated``.
    """

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason
