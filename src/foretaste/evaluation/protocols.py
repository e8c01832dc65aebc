"""Protocols: which questions are asked of a log, and what a model may know when it answers.

A case is one question: the history up to `cut`, and the targets after it. Cases are flat arrays of places in one
`Sequences`; no history is ever copied. What the same question shows to a model depends on the model's scope: a session
model sees the session in which event `cut` lies, a user model the user's whole history. Product shows a session model
what a service would: a session is open until another begins, so its first event is asked from the session before.

    PerStep       every event of a session but the first, from its true prefix          NARM; session-based papers
    LastItem      the last event of each session or user                                DMAN, ASARS; leave-one-out
    LastSession   all events of a user's last session, from all that came before        LSAMN
    Frozen        all later events of a user at once, from the earlier ones             RUM
    Living        each later event of a user in turn, the memory living on              RUM's second protocol
    Product       one point in time for everyone, every later event asked in turn       what a service answers

All of them rank every item. What a protocol leaks depends on the split as well: the cases carry the share of the
events of earlier parts that are later than the first question, where the log has times.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from foretaste.data.sequences import TEST, Offsets, Sequences
from foretaste.errors import ConfigError, nearest

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Cold = Literal["miss", "drop"]


@dataclass(frozen=True)
class Cases:
    """Questions to one `Sequences`: the known events of the row before `cut[i]`, then the targets.

    The targets of case i are the distinct items of the events `start[i]` .. `stop[i]` that belong to `part` (None: to
    any) and may be targets.
    """

    cut: Ints
    start: Ints
    stop: Ints
    part: int | None = None
    mask_seen: bool = False
    """Items of the user's history before `cut` are no candidates."""
    latest: int = 0
    """A model is shown so many latest known events before `cut`; 0 for all."""
    cold: Cold = "miss"
    """Targets that are no candidates: always missed, or left out."""
    still_open: bool = False
    """A model of sessions is shown that of the user's last event before `cut`, also where another begins there."""
    protocol: str = "own cases"
    leaks: str = ""
    later: float | None = None
    """Share of the events of earlier parts that are later than the first question; None where the log cannot tell."""

    def __post_init__(self) -> None:
        fits = len(self.cut) == len(self.start) == len(self.stop)
        if not fits or (self.cut > self.start).any() or (self.start >= self.stop).any():
            raise ConfigError(
                "cases need three arrays of one length with cut <= start < stop in each case: a history that reaches "
                "beyond the first target gives the answer away"
            )

    def __len__(self) -> int:
        return len(self.cut)

    @classmethod
    def at(cls, events: NDArray[np.integer]) -> Cases:
        """One case for each of these events (flat places in the log): the event is the target, all before it known."""
        cut = np.asarray(events, dtype=np.int64)
        return cls(cut, cut, cut + 1)


CHOICES: dict[str, tuple[object, ...]] = {"cold": ("miss", "drop"), "unit": ("session", "user")}  # the rest are flags


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """A way of asking. `cases(log, part)` gives the questions; it may find none."""

    mask_seen: bool = False
    """Leave the items of the user's history out of the candidates."""
    latest: int = 0
    """Show the model so many latest events of the history alone; 0 for all. What was seen stays seen."""
    cold: Cold = "miss"
    """What becomes of a target that is no candidate, its item being in no event of training or validation (of a log
    prepared with candidates="all" every item is one): "miss" counts it, "drop" leaves it out."""
    first: bool = False
    """Ask also what has nothing before it: the first event of a session, or of a user where users are asked about."""

    still_open: ClassVar[bool] = False  # see `Cases.still_open`
    name: ClassVar[str]
    leaks: ClassVar[str]
    """What the asking itself gives away, in one sentence."""
    asks: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "latest":
                if type(value) is not int or value < 0:
                    raise ConfigError(f"protocol '{self.name}': latest = {value!r}; expected so many events, 0 for all")
            elif value not in (allowed := CHOICES.get(field.name, (True, False))):
                raise ConfigError(f"protocol '{self.name}': {field.name} = {value!r}; expected one of {allowed}")

    @property
    def describe(self) -> str:
        """What is asked, in one line."""
        seen, cold = "no " if self.mask_seen else "", "a miss" if self.cold == "miss" else "left out"
        shown = f", of which the latest {self.latest} are shown" if self.latest else ""
        return f"{self.asks.format(self)}{shown}; seen items are {seen}candidates; a cold target is {cold}"

    def cases(self, log: Sequences, part: int = TEST) -> Cases:
        """The questions to the events of one part of a log."""
        mine = np.asarray(log.part) == part
        may = np.concatenate([[0], np.cumsum(mine & log.may_be_target())])
        cut, start, stop = (np.asarray(place, dtype=np.int64) for place in self.ask(log, mine))
        some = may[stop] > may[start]  # at least one event may be a target
        cut, start, stop = cut[some], start[some], stop[some]
        later = _later(log, start, part)
        return Cases(
            cut,
            start,
            stop,
            part,
            self.mask_seen,
            self.latest,
            self.cold,
            self.still_open,
            self.name,
            self.leaks,
            later,
        )

    @abstractmethod
    def ask(self, log: Sequences, mine: Bools) -> tuple[Ints, Ints, Ints]:
        """Cut, start and stop of each case, given the events [n] that may be asked about."""


@dataclass(frozen=True, kw_only=True)
class PerStep(Protocol):
    """Every event of a session but the first is asked, from its true prefix."""

    name = "per-step"
    leaks = "Nothing: each event is asked from what came before it; what training has seen is up to the split."
    asks = "every event of a session but the first, from what came before it"

    def ask(self, log: Sequences, mine: Bools) -> tuple[Ints, Ints, Ints]:
        """See `Protocol.ask`."""
        asked = mine & log.may_be_target()
        if not self.first:
            asked[log.sessions[:-1][np.diff(log.sessions) > 0]] = False
        events = np.flatnonzero(asked)
        return events, events, events + 1


@dataclass(frozen=True, kw_only=True)
class LastItem(Protocol):
    """The last event of each session, or of each user, from all that came before."""

    unit: Literal["session", "user"] = "session"
    """Whose last event."""

    name = "last-item"
    leaks = (
        "The last events of sessions or users lie at different times: unless the split is one point in time, the model "
        "has learnt from others' events that are later than the question."
    )
    asks = "the last event of each {0.unit}, from what came before it"

    def ask(self, log: Sequences, mine: Bools) -> tuple[Ints, Ints, Ints]:
        """See `Protocol.ask`."""
        offsets = log.offsets(self.unit)
        _, last, row = _ends(offsets, np.flatnonzero(mine & log.may_be_target()))
        last = last if self.first else last[last > offsets[row]]
        return last, last, last + 1


@dataclass(frozen=True, kw_only=True)
class LastSession(Protocol):
    """Every item of a user's last session is a target of one case; all sessions before it are the history."""

    name = "last-session"
    leaks = (
        "The last sessions of users lie at different times: unless the split is one point in time, the model has "
        "learnt from others' events that are later than the question."
    )
    asks = "all items of each user's last session at once, from the sessions before it"

    def ask(self, log: Sequences, mine: Bools) -> tuple[Ints, Ints, Ints]:
        """See `Protocol.ask`."""
        start, last, session = _ends(log.sessions, np.flatnonzero(mine))
        user = _row(log.users, log.sessions[session])
        newest = np.append(user[1:] != user[:-1], True) if len(user) else np.zeros(0, bool)
        start, last, user = start[newest], last[newest], user[newest]
        keep = np.full(len(user), True) if self.first else start > log.users[user]
        return start[keep], start[keep], last[keep] + 1


@dataclass(frozen=True, kw_only=True)
class Frozen(Protocol):
    """All later items of a user are targets of one case; the memory stands still at the cut."""

    name = "frozen"
    leaks = (
        "Each user is cut at another time: the model has learnt from others' events that are later than the question. "
        "The later a target, the staler the history it is asked from."
    )
    asks = "all later items of each user at once, from the events before the cut"

    def ask(self, log: Sequences, mine: Bools) -> tuple[Ints, Ints, Ints]:
        """See `Protocol.ask`."""
        start, last, user = _ends(log.users, np.flatnonzero(mine))
        keep = np.full(len(user), True) if self.first else start > log.users[user]
        return start[keep], start[keep], last[keep] + 1


@dataclass(frozen=True, kw_only=True)
class _Stepwise(Protocol):
    """Each event is asked in turn, and then taken in."""

    first: bool = True

    def ask(self, log: Sequences, mine: Bools) -> tuple[Ints, Ints, Ints]:
        """See `Protocol.ask`."""
        return PerStep(first=self.first).ask(log, mine)


@dataclass(frozen=True, kw_only=True)
class Living(_Stepwise):
    """Each later event of a user is asked in turn, first events of sessions too, and then enters the memory."""

    name = "living"
    leaks = (
        "Each user is cut at another time: the model has learnt from others' events that are later than the question. "
        "Its own user's events it sees only after they were asked."
    )
    asks = "each later event of each user in turn, from all events before it"


@dataclass(frozen=True, kw_only=True)
class Product(_Stepwise):
    """One point in time for everyone: from then on every event is asked in turn, and then taken in.

    Nobody knows of a session before its first event, so that event is asked while the session before is still open.
    """

    still_open = True

    name = "product"
    leaks = (
        "Nothing, if the split is one point in time: the weights know what was known then, the state what came before "
        "each event."
    )
    asks = "every event after the point in time in turn, as a service would have been, from all events before it"


PROTOCOLS: dict[str, type[Protocol]] = {
    kind.name: kind for kind in (PerStep, LastItem, LastSession, Frozen, Living, Product)
}
"""By name, for recipes and the command line."""


def protocol(name: str, **options: object) -> Protocol:
    """The protocol of this name, with options: `protocol("last-item", unit="user", mask_seen=True)`."""
    if name not in PROTOCOLS:
        raise ConfigError(f"no protocol is called '{name}'; {nearest(name, PROTOCOLS)}")
    known = [field.name for field in fields(PROTOCOLS[name])]
    for option in options:
        if option not in known:
            raise ConfigError(f"protocol '{name}' has no option '{option}'; {nearest(option, known)}")
    return PROTOCOLS[name](**options)  # type: ignore[arg-type]


def _row(offsets: Offsets, events: Ints) -> Ints:
    """The row in which each event lies."""
    row: Ints = np.searchsorted(offsets, events, side="right") - 1
    return row


def _ends(offsets: Offsets, events: Ints) -> tuple[Ints, Ints, Ints]:
    """For each row that holds some of these (ascending) events: the first of them, the last, and the row."""
    row = _row(offsets, events)
    change = np.flatnonzero(np.diff(row)) + 1
    edges = np.concatenate([[0], change, [len(events)]]) if len(events) else np.zeros(1, np.int64)
    return events[edges[:-1]], events[edges[1:] - 1], row[edges[:-1]]


def _later(log: Sequences, start: Ints, part: int) -> float | None:
    """Share of the events of earlier parts whose time is later than the first question."""
    learnt = np.asarray(log.part) < part
    if log.times is None or not len(start) or not learnt.any():
        return None
    times = np.asarray(log.times)
    return float((times[learnt] > times[start].min()).mean())
