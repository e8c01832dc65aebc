"""What the service is asked, and what it answers: plain values, the same in Python, in the engine and over HTTP.

An ask is one user's: events that happened, taken in first and in the order given, and then, if `k` says so, the items
to recommend after them. An ask with a `history` of its own instead of a user leaves no trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from foretaste.models.choosing import Recommendations

Id = int | str
"""A raw id. Users are told apart by their text: 7 and "7" are the same user. An item is what the log had, 7 or "7";
over HTTP either means the one that it had."""

Outcome = Literal["applied", "late", "duplicate"]
"""What became of an event: taken in as the newest; put in its place among the events kept, and the state made again; or
left out, since an event with this id was taken in before."""


@dataclass(frozen=True, slots=True)
class Event:
    """A user touched an item."""

    item: Id
    time: float | None = None
    """Seconds since 1970; None: now."""
    session: Id | None = None
    """The caller's own name for the session; None: sessions begin as they did in the training log."""
    id: str | None = None
    """A name that no other event of this user has: an event sent twice is taken in once."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What one caller wants of one user."""

    user: Id | None = None
    events: Sequence[Event] = ()
    """Of `user`."""
    history: Sequence[Event] | None = None
    """Answer after these events alone, with no state read or kept; `user` then only says whose taste it is."""
    k: int = 0
    """How many items to recommend; 0: none."""
    candidates: Sequence[Id] | None = None
    """The only items to choose from."""
    exclude: Sequence[Id] = ()
    """Items that never appear."""
    leave_out_seen: bool = False
    """Leave out the items of the history (of the events kept, for a user with state)."""
    now: float | None = None
    """Seconds since 1970: the moment of the question, for models that read the clock."""


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to an ask."""

    outcomes: tuple[Outcome, ...] = ()
    """One an event."""
    unknown: tuple[Id, ...] = ()
    """Items of the ask's events or history that the recommender does not know: kept, and skipped by the model."""
    recommendations: Recommendations | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """What the service holds of one user."""

    user: Id
    events: tuple[Event, ...]
    """The newest, the oldest first."""
    seen: int
    """Events taken in since the user was first seen."""
    beyond: int
    """Late events older than every event kept: taken in as the newest."""
    remembered: int
    """Event ids of the exactly-once window."""
    bytes: int
    """Of the record in the store."""
    state: dict[str, Any]
    """Name -> shape and type of each part of the model's state."""
