"""Errors that are meant for people: what was wrong, where, and what to do."""

from __future__ import annotations

import errno

_REMEDIES = {
    errno.ENOENT: "no such file or folder",
    errno.EISDIR: "is a folder, where a file is wanted",
    errno.ENOTDIR: "lies in something that is no folder",
    errno.EEXIST: "is there already, and is no folder. Name another place",
    errno.EACCES: "this user may not read or write it. Change its permissions, or name another place",
    errno.EPERM: "this user may not read or write it. Change its permissions, or name another place",
    errno.EROFS: "lies on a file system that can only be read. Name another place",
    errno.ENOSPC: "the disk is full. Free some room and run again",
    errno.EDQUOT: "your share of the disk is full. Free some room and run again",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EADDRINUSE: "the port is taken by another programme. Choose another one",
}


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


def in_words(error: BaseException) -> str | None:
    """What to tell the user of an error: its own text, or that of the machine's refusals (files, disk, memory).

    None for a mistake of the software itself, whose traceback is wanted.
    """
    if isinstance(error, LineamentError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        if error.filename is None:  # libraries such as pyarrow name the file in their text
            return f"{_REMEDIES[error.errno]} ({error.strerror or error})."
        return f"{error.filename}: {_REMEDIES[error.errno]}."
    # torch's CPU allocator raises a bare RuntimeError
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
        return "there is not enough memory for this. Ask for fewer or smaller pictures, or close other programmes."
    return None
