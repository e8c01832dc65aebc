"""Every error that Foretaste raises on purpose.

A message names the thing (file, row, column, field), what was found, what was expected, and what to do about it.
The command line prints it in a line or two and exits with status 2; the traceback only shows with `--debug`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ForetasteError(Exception):
    """The base of all of them: catch this one to catch every expected failure."""


class DataError(ForetasteError):
    """A log, a table or a prepared folder that cannot be used as it is."""


class ConfigError(ForetasteError):
    """A setting that is unknown, out of range, or contradicts another."""


class NeedsError(ForetasteError):
    """A model needs something (users, times, sessions) that the log does not have."""


class SavedFileError(ForetasteError):
    """A saved recommender, checkpoint or folder that is truncated, edited or of another version."""


class TrainingError(ForetasteError):
    """Training or scoring that cannot go on, such as a loss or a score that is not a number."""


class StoreError(ForetasteError):
    """A store of user states that cannot be opened, read or written: nothing that failed was acknowledged."""


class DamagedRecordError(StoreError):
    """What a store holds of one user is not what was written; the others are well."""

    def __init__(self, message: str, user: str) -> None:
        super().__init__(message)
        self.user = user


class BusyError(ForetasteError):
    """The service has more to do than it may hold; the same request will do in a moment."""


def nearest(word: str, known: Iterable[str]) -> str:
    """End of a message about an unknown word: the nearest known one, and the whole choice.

    >>> nearest("narn", ["narm", "pop"])
    "did you mean 'narm'? Known: narm, pop"
    """
    known = list(known)
    plain = {one.lower(): one for one in reversed(known)}
    close = difflib.get_close_matches(word.lower(), plain, n=1, cutoff=0.5)
    hint = f"did you mean '{plain[close[0]]}'? " if close else ""
    return f"{hint}Known: {', '.join(known) or 'none'}"
