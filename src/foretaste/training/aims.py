"""What is asked of the rows of a log: the next event, the next few, or every item of the next session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foretaste.data.sequences import Scope, Sequences
from foretaste.models.rows import ranges

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Aim:
    """What is asked of a row."""

    targets: Literal["event", "session", "last_session"] = "event"
    """The next event; all distinct items of the next session, asked at the end of the one before; or only of the last
    session of each row."""
    ahead: int = 1
    """With "event": this many next events, each a target."""
    first: bool = False
    """The first event (or session) of a row is a target too, asked of the initial state."""
    latest: int = 0
    """Only so many latest events of a row take part; 0 for all."""

    def rows(self, log: Sequences, scope: Scope) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """Start and stop of each row, and whether its opening is asked: not where `latest` cut it off."""
        offsets = np.asarray(log.offsets(scope), dtype=np.int64)
        start, stop = offsets[:-1], offsets[1:]
        if not self.latest:
            return start, stop, np.full(len(start), self.first)
        cut = np.maximum(log.known[stop] - self.latest, log.known[start])  # known events before the first that counts
        late = np.searchsorted(log.known, cut, side="right") - 1
        return np.minimum(np.maximum(start, late), stop), stop, (cut == log.known[start]) & self.first


@dataclass(frozen=True)
class Targets:
    """The targets of one pass over a log, those of the same row and item counted together or not."""

    row: Ints
    """[E]"""
    item: Ints
    """[E]: item numbers."""
    often: Ints
    """[E]: how many targets each entry stands for."""

    @classmethod
    def of(cls, log: Sequences, scope: Scope, aim: Aim | None = None) -> Targets:
        """What a pass over the rows of this scope asks for."""
        aim = aim or Aim()
        start, stop, opening = aim.rows(log, scope)
        places = ranges(start, stop)
        places = places[np.asarray(log.items)[places] > 0]  # [E] known events
        row = np.searchsorted(stop, places, side="right")  # [E]
        item, may = np.asarray(log.items)[places].astype(np.int64), log.may_be_target()[places]  # [E], [E]
        if aim.targets == "event":
            before = log.known[places] - log.known[start][row]  # [E] known events before it in its row
            often = np.clip(before + opening[row], 0, aim.ahead) * may
            return cls(row[often > 0], item[often > 0], often[often > 0])
        session = np.searchsorted(log.sessions, places, side="right")  # [E]
        first, last = np.full(len(start), -1), np.full(len(start), -1)
        first[row[::-1]], last[row] = session[::-1], session
        may = may & ((session > first[row]) | opening[row])
        if aim.targets == "last_session":
            may = may & (session == last[row])
        each = np.unique(np.stack([row, session, item])[:, may], axis=1)  # a session is a set
        return cls(each[0], each[2], np.ones(each.shape[1], dtype=np.int64))

    @property
    def count(self) -> int:
        """All of them (the "prefixes" of session papers)."""
        return int(self.often.sum())

    def items(self, n_items: int) -> Ints:
        """[I]: how many of them are each item."""
        counts: Ints = np.bincount(self.item, self.often, n_items + 1)[1:].astype(np.int64)
        return counts

    def users(self, log: Sequences, scope: Scope) -> Ints:
        """Numbers of the users of whom anything is asked; the own weights of others get no gradient."""
        begins = np.asarray(log.offsets(scope), dtype=np.int64)[np.unique(self.row)]
        return np.unique(np.asarray(log.user_numbers)[np.searchsorted(log.users, begins, side="right") - 1])
