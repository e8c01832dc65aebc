"""What a split is: an object of plain values that says which event belongs to which part, and what that leaks.

The kinds of splits stand in splits.py.
"""

from __future__ import annotations

import datetime
from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretaste.config import Config
from foretaste.data.sequences import TRAIN
from foretaste.data.timeline import Ints, Mask, Timeline
from foretaste.errors import NeedsError

Parts = NDArray[np.uint8]


class Split(Config):
    """Base of all splits."""

    kind: ClassVar[str]
    """Its name in a recipe."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What the log must have."""
    forward: ClassVar[bool] = True
    """Whether a user's later events go with the first one that is test."""

    @property
    @abstractmethod
    def leaks(self) -> str:
        """What training sees that it would not have seen on the day, in one sentence."""

    @abstractmethod
    def divide(self, line: Timeline) -> Parts:
        """[n]: TRAIN, VALIDATION or TEST."""

    def parts(self, line: Timeline) -> Parts:
        """[n]: TRAIN, VALIDATION or TEST, never backwards within a user."""
        part = self.divide(line)
        return _never_back(part, line.users) if self.forward else part

    def check(self, has: frozenset[str]) -> None:
        """Refuse a log that lacks what this split needs."""
        for name in sorted(self.needs - has):
            raise self.lacks(name)

    def lacks(self, name: str) -> NeedsError:
        """The error about a log without this."""
        return NeedsError(f"{self} needs {name}, and the log has none; {ADVICE[name]}")

    def as_dict(self) -> dict[str, Any]:
        """The split as a recipe writes it."""
        return {"kind": self.kind, **{k: v for k, v in super().as_dict().items() if v is not None}}

    def __str__(self) -> str:
        said = {name: value for name, value in self if value is not None}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in said.items())})"

    __repr__ = __str__


ADVICE = {
    "times": "name its column with time= (--time), or take SessionOrder, Ratio or LastItem (session-order, ratio, "
    "last-item)",
    "users": "name its column with user= (--user)",
    "sessions": "name its column with session= (--session), or make sessions: log.sessions(gap='30m') or per='day' "
    "(--gap 30m, --per-day)",
    "split": "name the column that holds it with split= (--split-column)",
}


class RecentPrefixes(Config):
    """Keep only the newest training prefixes, as NARM does with 1/64 and 1/4 of YOOCHOOSE.

    A session of n events has n - 1 prefixes (each with the next event as its target). Sessions are put in the order of
    their end; the newest prefixes are kept. The session on the border keeps its beginning: the authors' files list the
    prefixes of a session from the longest to the shortest, so the shortest are the last.
    """

    fraction: float = Field(gt=0, le=1)
    """Share of the training prefixes to keep."""
    by: Literal["end", "start"] = "end"
    """Newest by the end of the session, as the authors do, or by its start."""

    def keep(self, line: Timeline, part: Parts) -> Mask:
        """[n]: False for the training events that go."""
        train = part == TRAIN
        prefixes = np.maximum(line.per_session(train) - 1, 0)
        newest = line.order(self.by)[::-1]
        newest = newest[line.per_session(train)[newest] > 0]
        allowed = int(self.fraction * prefixes.sum() + 1e-9)
        until = np.cumsum(prefixes[newest])
        room = np.zeros(len(prefixes), np.int64)
        room[newest] = np.minimum(prefixes[newest], allowed - (until - prefixes[newest]))
        events = np.where(room > 0, room + 1, 0)
        events[newest[until <= allowed]] = len(line)
        seen = np.cumsum(train) - train
        place = seen - seen[line.sessions[:-1]][line.session_of]
        kept: Mask = ~train | (place < events[line.session_of])
        return kept


def _never_back(part: Parts, users: Ints) -> Parts:
    """Within each user, no part comes after a later one."""
    falls = np.flatnonzero(part[1:] < part[:-1]) + 1
    if not np.isin(falls, users, invert=True).any():
        return part
    lift = np.repeat(np.arange(len(users) - 1) * 3, np.diff(users))
    return (np.maximum.accumulate(part + lift) - lift).astype(np.uint8)


def share_of(fraction: float | None, of: int) -> int:
    """A share rounded down, but at least one."""
    assert fraction is not None
    return max(1, int(fraction * of + 1e-9))


def moment(text: str) -> int:
    """A moment in ISO text, in milliseconds since 1970; UTC where it names no zone."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"at = {text!r} is no date or time; write it as in 2014-09-30 or 2014-09-30T12:00:00"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1000)
