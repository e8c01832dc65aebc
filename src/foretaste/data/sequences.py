"""The log as flat arrays: what every model, trainer and evaluator reads.

One array holds every event of every user, in order; offsets say where each user and each session begins. Nothing is
padded and there is no Python list a user: an event costs 4 bytes for its item, 8 for its time and 1 for its part. The
arrays live in a folder and are memory-mapped from it, so a log larger than memory can be read.

    items     [n]      item numbers 1..I; 0 is a cold item, one that the vocabulary does not hold
    users     [U + 1]  offsets: the events of user row u are users[u] .. users[u + 1]
    sessions  [S + 1]  offsets, each session inside one user
    part      [n]      TRAIN, VALIDATION or TEST

A log without users has one user row a session. Times are whole seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = 0, 1, 2
PARTS = ("train", "validation", "test")

Scope = Literal["session", "user"]
Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Events of many users as flat arrays (see the module's first lines)."""

    items: NDArray[np.int32]
    users: Offsets
    sessions: Offsets
    part: NDArray[np.uint8]
    user_numbers: NDArray[np.int32]
    """[U]: the user's number in the vocabulary 1..U, or 0 for an anonymous session."""
    times: NDArray[np.int64] | None = None
    """[n]: seconds, or None where the log has an order but no clock."""
    target: NDArray[np.bool_] | None = None
    """[n]: True where the event may be a target (a purchase, say); None means every event may."""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """[n] each: what else an event has, such as dwell, action or category."""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def n_users(self) -> int:
        """User rows; anonymous sessions count one each."""
        return len(self.users) - 1

    @property
    def n_sessions(self) -> int:
        """Sessions."""
        return len(self.sessions) - 1

    def offsets(self, scope: Scope) -> Offsets:
        """Where the rows of a model of this scope begin: users or sessions."""
        return self.users if scope == "user" else self.sessions

    @cached_property
    def known(self) -> Offsets:
        """[n + 1]: how many events before index i have an item that is known."""
        return np.concatenate([[0], np.cumsum(np.asarray(self.items) > 0)]).astype(np.int64)

    def may_be_target(self) -> NDArray[np.bool_]:
        """[n]: True where the event may be asked for."""
        return np.ones(len(self), bool) if self.target is None else np.asarray(self.target)

    def select(self, keep: NDArray[np.bool_]) -> Sequences:
        """Only the events where `keep`; users and sessions left without any are dropped."""
        before = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)
        users, sessions = before[self.users], before[self.sessions]
        return Sequences(
            items=np.asarray(self.items)[keep],
            users=_distinct(users),
            sessions=_distinct(sessions),
            part=np.asarray(self.part)[keep],
            user_numbers=np.asarray(self.user_numbers)[np.diff(users) > 0],
            times=None if self.times is None else np.asarray(self.times)[keep],
            target=None if self.target is None else np.asarray(self.target)[keep],
            columns={name: np.asarray(column)[keep] for name, column in self.columns.items()},
        )

    def of_part(self, *parts: int) -> Sequences:
        """Only the events of these parts: `log.of_part(TRAIN)`."""
        return self.select(np.isin(self.part, parts))


def _distinct(offsets: Offsets) -> Offsets:
    """Ascending offsets without the empty rows between them."""
    kept: Offsets = offsets[np.append(True, offsets[1:] != offsets[:-1])]
    return kept


def digest(*columns: NDArray[Any] | None) -> str:
    """The same for the same numbers in the same columns; a column that is not there says nothing."""
    found = hashlib.sha256()
    for column in columns:
        if column is not None:
            found.update(np.ascontiguousarray(column).data)
    return found.hexdigest()[:16]
