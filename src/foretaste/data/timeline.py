"""The log in order, as flat arrays: what filters, splits and the numbering of items work on.

From here on a step is arithmetic on offsets, so it takes seconds for tens of millions of events. How the order and the
numbers come about is in `arrange.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Timeline:
    """The events of a log in order, n events, S sessions, U user rows (a session without a user is a row)."""

    items: NDArray[np.int32]
    """[n]: 1..N by first occurrence in the log; not yet the numbers that models see."""
    users: Ints
    """[U + 1] offsets."""
    sessions: Ints
    """[S + 1] offsets; a user of a log without sessions is one session."""
    named: Mask
    """[U]: False for a session without a user."""
    name: Ints
    """[U]: which user this is, counted from 0 over the users of the whole log; means nothing where not `named`."""
    begin: NDArray[Any]
    """[S]: what orders sessions among all users: their first time, else their session_order, else their first row."""
    first: Ints
    """[S]: the first row of the session in the source; settles ties of `begin`."""
    has_sessions: bool
    times: Ints | None = None
    """[n]: milliseconds, or None."""
    given: NDArray[Any] | None = None
    """[n]: number of the log's own split value in `given_names`, 0 for none; None if the log has no split."""
    given_names: tuple[str, ...] = ()
    target: Mask | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def session_of(self) -> NDArray[np.int32]:
        """[n]: the session of each event, counted from 0."""
        return spread(self.sessions)

    @cached_property
    def user_of(self) -> NDArray[np.int32]:
        """[n]: the user row of each event, counted from 0."""
        return spread(self.users)

    @cached_property
    def user_of_session(self) -> NDArray[np.int32]:
        """[S]: the user row of each session."""
        return spread(np.searchsorted(self.sessions, self.users).astype(np.int64))

    def order(self, by: str = "start") -> Ints:
        """[S]: sessions in the order in which they start or end, among all users; ties by first row."""
        key = self.begin if by == "start" or self.times is None else self.times[self.sessions[1:] - 1]
        return np.lexsort((self.first, key))

    def per_session(self, mask: Mask) -> Ints:
        """[S]: how many events of each session are True."""
        return np.add.reduceat(mask, self.sessions[:-1], dtype=np.int64)

    def per_user(self, mask: Mask) -> Ints:
        """[U]: how many events of each user row are True."""
        return np.add.reduceat(mask, self.users[:-1], dtype=np.int64)

    def select(self, keep: Mask) -> Timeline:
        """Only the events where `keep`; sessions and users left without any go."""
        if keep.all():
            return self
        before = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
        users, sessions = before[self.users], before[self.sessions]
        of_user, of_session = np.diff(users) > 0, np.diff(sessions) > 0
        return Timeline(
            items=self.items[keep],
            users=distinct(users),
            sessions=distinct(sessions),
            named=self.named[of_user],
            name=self.name[of_user],
            begin=self.begin[of_session],
            first=self.first[of_session],
            has_sessions=self.has_sessions,
            times=None if self.times is None else self.times[keep],
            given=None if self.given is None else self.given[keep],
            given_names=self.given_names,
            target=None if self.target is None else self.target[keep],
            columns={name: column[keep] for name, column in self.columns.items()},
        )


@dataclass(frozen=True)
class Codes:
    """The same numbers without the order: enough to count with."""

    items: NDArray[np.int32]
    """[n]: 1..N."""
    session_of: NDArray[np.int32]
    """[n]: 0..S-1."""
    user_of_session: NDArray[np.int32]
    """[S]: 0..U-1."""
    named: Mask
    """[U]."""
    has_sessions: bool


def count(codes: Codes | Timeline, keep: Mask | None = None) -> tuple[int, int, int, int]:
    """Events, users, sessions and items, of all events or of those where `keep`."""
    items, session_of = (codes.items, codes.session_of) if keep is None else (codes.items[keep], codes.session_of[keep])
    sessions = np.bincount(session_of, minlength=len(codes.user_of_session)) > 0
    users = np.bincount(codes.user_of_session[sessions], minlength=len(codes.named)) > 0
    n_sessions = int(sessions.sum()) if codes.has_sessions else 0
    return (
        len(items),
        int((users & codes.named).sum()),
        n_sessions,
        int((np.bincount(items, minlength=1)[1:] > 0).sum()),
    )


def starts(labels: NDArray[Any]) -> Ints:
    """Offsets of the runs of equal labels."""
    changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    return np.concatenate([[0], changes, [len(labels)]]).astype(np.int64)


def distinct(ascending: Ints) -> Ints:
    """The distinct values; np.unique does not know that they are in order, and takes twenty times as long."""
    found: Ints = ascending[np.append(True, ascending[1:] != ascending[:-1])]
    return found


def spread(offsets: Ints) -> NDArray[np.int32]:
    """The number of the run in which each place lies."""
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
