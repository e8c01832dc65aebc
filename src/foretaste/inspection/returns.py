"""What comes back: repeats inside a session, from earlier sessions, and how much of a session its top items make up.

ASARS (arXiv 1909.05414) draws the last two in its Figure 1, for items and for categories. Its caption leaves open what
is averaged. Here each session counts once: `back[k - 1]` is the share of its events on what the user had in the k
sessions before it, `top[r - 1]` the share of its events on its r-th most frequent item.

Whole users are counted at a time, so two million events, not the log, are what lies in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from foretaste.data.sequences import Sequences
from foretaste.data.timeline import spread, starts

Ints = NDArray[np.int64]

BLOCK = 2_000_000
"""Events that are counted at a time; a user with more is a block alone."""
DEEP = 10
"""How many sessions back, and how many of a session's items, ASARS draws."""


@dataclass(frozen=True)
class Block:
    """Some whole users of a log; sessions and users are numbered from 0 inside it."""

    events: slice
    sessions: Ints
    """[S + 1] offsets."""
    users: Ints
    """[U + 1]: the first session of each user."""

    @cached_property
    def session_of(self) -> NDArray[np.int32]:
        """[n]: the session of each event."""
        return spread(self.sessions)

    @cached_property
    def user_of_session(self) -> NDArray[np.int32]:
        """[S]: the user of each session."""
        return spread(self.users)

    @cached_property
    def has_past(self) -> NDArray[np.bool_]:
        """[S]: whether the user has had a session before."""
        past = np.ones(len(self.sessions) - 1, bool)
        past[self.users[:-1]] = False
        return past


def blocks(log: Sequences, size: int = BLOCK) -> Iterator[Block]:
    """The log, some users at a time."""
    users, sessions = np.asarray(log.users), np.asarray(log.sessions)
    start = 0
    while start < len(users) - 1:
        stop = max(start + 1, int(np.searchsorted(users, users[start] + size, side="right")) - 1)
        low, high = int(users[start]), int(users[stop])
        here = sessions[np.searchsorted(sessions, low) : np.searchsorted(sessions, high) + 1]
        yield Block(slice(low, high), here - low, np.searchsorted(here, users[start : stop + 1]))
        start = stop


@dataclass(frozen=True)
class Returned:
    """Shares of the events whose item (or category) is known; the first three make up the whole."""

    events: int
    inside: float
    """Its own session has had it."""
    earlier: float
    """Not its own session, but an earlier one of the user."""
    new: float
    """Neither."""
    back: tuple[float, ...]
    """Over sessions with one before them: events on what the user had in the 1, 2, ... sessions before."""
    ever: float
    """The same for all sessions before."""
    past: int
    """How many sessions have one before them."""
    top: tuple[float, ...]
    """Over sessions of two or more events: events on the first, second, ... most frequent."""
    several: int
    """How many sessions have two or more events."""
    pairs: int
    """Different pairs of a user and an item."""


class Returns:
    """Counts for `Returned`, a block at a time."""

    def __init__(self) -> None:
        self._events = self._inside = self._earlier = self._past = self._several = 0
        self._back = np.zeros(DEEP + 2)
        self._top = np.zeros(DEEP)

    def add(self, block: Block, labels: NDArray[np.integer]) -> None:
        """Count a block; `labels` [n] are items or categories, 0 where not known."""
        known = np.flatnonzero(labels)
        if not len(known):
            return
        base = int(labels.max()) + 1
        keys = block.session_of[known].astype(np.int64) * base + labels[known]
        keys.sort()
        runs = starts(keys)
        counts = np.diff(runs)  # [P]: how often each session has each of its items
        session, label = np.divmod(keys[runs[:-1]], base)  # [P]
        length = np.bincount(session, weights=counts, minlength=len(block.sessions) - 1)
        share = counts / length[session]
        self._events += len(known)
        self._inside += len(known) - len(counts)
        self._count_top(session, counts, length)
        if len(block.users) < len(block.sessions):
            since = _since(block.user_of_session[session].astype(np.int64) * base + label, session)
            asked = block.has_past & (length > 0)
            self._earlier += int((since > 0).sum())
            self._past += int(asked.sum())
            self._back += np.bincount(np.minimum(since, DEEP + 1), weights=share, minlength=DEEP + 2)

    def _count_top(self, session: Ints, counts: Ints, length: NDArray[np.number]) -> None:
        most = int(counts.max()) + 1
        keys = session * most + (most - counts)  # of a session, the most frequent first
        keys.sort()
        row, below = np.divmod(keys, most)
        runs = starts(row)
        rank = np.arange(len(row)) - np.repeat(runs[:-1], np.diff(runs))
        asked = (rank < DEEP) & (length[row] > 1)
        share = (most - below[asked]) / length[row[asked]]
        self._top += np.bincount(rank[asked], weights=share, minlength=DEEP)
        self._several += int((length > 1).sum())

    def found(self) -> Returned:
        """What was counted."""
        n, past = max(self._events, 1), max(self._past, 1)
        back = np.cumsum(self._back[1:]) / past
        return Returned(
            events=self._events,
            inside=self._inside / n,
            earlier=self._earlier / n,
            new=(self._events - self._inside - self._earlier) / n,
            back=tuple(back[:DEEP].tolist()) if self._past else (),
            ever=float(back[-1]) if self._past else 0.0,
            past=self._past,
            top=tuple((self._top / max(self._several, 1)).tolist()) if self._several else (),
            several=self._several,
            pairs=self._events - self._inside - self._earlier,
        )


def _since(owner: Ints, session: Ints) -> Ints:
    """[P]: how many sessions ago the owner (a user and an item) was last there; 0 for never. Sessions ascend."""
    order = np.argsort(owner, kind="stable")
    mine, when = owner[order], session[order]
    again = mine[1:] == mine[:-1]
    since = np.zeros(len(owner), np.int64)
    since[order[1:][again]] = (when[1:] - when[:-1])[again]
    return since
