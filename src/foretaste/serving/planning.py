"""What an ask means for what is stored: which events are new, which come late, what the model is to take in.

The newest events of a user stay in the record; the state before the oldest of them is the user's base. A late event is
put in its place among them, and the state is made again from the base: it equals a replay in the order of time.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from foretaste.config import Config
from foretaste.data.rules import Edge, Happened, Rules, Step, walk
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, NeedsError
from foretaste.serving.asks import Ask, Event, Id, Outcome
from foretaste.serving.ids import Names, sent
from foretaste.serving.record import Base, Record, digest, line_of
from foretaste.serving.states import Precision
from foretaste.serving.stepping import Row, Stepper
from foretaste.serving.store import ABSENT, Stored


class EngineConfig(Config):
    """What is kept of each user."""

    history: int = Field(200, ge=1, le=100_000)
    """Newest events kept as raw ids and times: how far back a late event finds its place, and what a new model sees."""
    window_ids: int = Field(1000, ge=0, le=100_000)
    """Event ids remembered a user, so that an event sent again is not taken in again."""
    window_days: float = Field(7.0, gt=0, allow_inf_nan=False)
    """For how long they are remembered."""
    ahead: float = Field(3600.0, ge=0, le=1e10)
    """Seconds that an event's time may lie ahead of this machine's clock; beyond, it is refused."""
    precision: Precision = "float32"
    """Of states in the store; float16 takes half the room, and drifts."""
    rules: Rules | None = None
    """Where sessions begin; None: as in the training log."""
    retrieval: Literal["exact", "approximate"] = "exact"
    """Score every item for every list, or find some hundred candidates in an index first: for millions of items."""
    recall: float = Field(0.99, gt=0, le=1)
    """Share of the exact best items that such an index is to find, measured when it is made."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.retrieval == "exact" and self.recall != type(self).model_fields["recall"].default:
            raise ValueError(f"recall = {self.recall} is of an index: set retrieval = 'approximate', or leave it out")
        return self

    @property
    def slack(self) -> int:
        """Events kept beyond `history` before the oldest go, so many at once."""
        return max(1, min(32, self.history // 4))


@dataclass(slots=True)
class Plan:
    """What is to be done for one ask."""

    row: Row
    """The state and what it takes in."""
    key: str = ""
    """The user in the store; "" for an ask without state."""
    version: bytes = ABSENT
    record: Record | None = None
    """What is to be written, but for the state; None: nothing."""
    base: Row | None = None
    """A new base: a state and what it takes in; None leaves the base as it is."""
    edge: Edge = field(default_factory=Edge)
    """What the event after the new base is cut by."""
    outcomes: tuple[Outcome, ...] = ()
    unknown: tuple[Id, ...] = ()
    seen: Sequence[int] = ()
    """Numbers of the items of the history, where they are to be left out."""
    again: bool = False
    """The state is made again from the events kept."""


class Planner:
    """Plans for one model over one store."""

    def __init__(self, stepper: Stepper, rules: Rules, config: EngineConfig, read_base: Callable[[str], bytes]) -> None:
        self.stepper, self.rules, self.config = stepper, rules, config
        self.items, self.users = as_kept(stepper.trained.items), Names(stepper.trained.users)
        self.names = Names(stepper.trained.items)
        self._read_base = read_base

    def of_history(self, ask: Ask) -> Plan:
        """An ask without state: its history from the beginning."""
        history, now = ask.history or (), time.time()
        if "times" in self.stepper.trained.model.needs and any(event.time is None for event in history):
            raise NeedsError(f"model '{self.stepper.trained.name}' needs the time of every event of the history")
        if len({event.time is None for event in history}) > 1:
            raise ConfigError("history: some of its events have a time, some have none; give one to each or to none")
        events = [self._happened(event, now, 0) for event in history]
        events.sort(key=lambda event: event.time)
        steps = [step for step, _ in walk(self.rules, self.items, Edge(), events)]
        seen = self._numbers(events) if ask.leave_out_seen else ()
        return Plan(self.stepper.row(None, self.number(ask.user), steps), unknown=self._unknown(history), seen=seen)

    def of_user(self, ask: Ask, key: str, stored: Stored | None) -> Plan:
        """An ask of a user with a record, or of one who is new."""
        now, number, own = time.time(), self.number(ask.user), self.stepper.fingerprint
        record = Record(own, b"") if stored is None else self._known(Record.unpack(stored.record, key))
        version = ABSENT if stored is None else stored.version
        events, outcomes, digests = self._new(ask.events, record, now)
        times = [record.newest] * bool(len(record)) + [event.time for event in events]
        late = any(after < before for before, after in pairwise(times))
        again = late or record.model != own
        if again:
            plan, record = self._again(record, events, outcomes, number, key)
        else:
            steps: list[Step] = []
            if events:
                steps, edge = self._walked(record.edge, events)
                record.append(events)
                record.begun = edge.begun
            plan = Plan(self.stepper.row(record.state or None, number, steps), outcomes=tuple(outcomes))
        plan.key, plan.version, plan.unknown = key, version, self._unknown(ask.events)
        if again or events:
            if len(record) > self.config.history + self.config.slack:
                self._drop(plan, record, number, key)
            record.remember(digests, int(now), self.config.window_ids, 86_400 * self.config.window_days)
            plan.record = record
        if ask.leave_out_seen:
            plan.seen = self._numbers(record.events())
        return plan

    def replayed(self, key: str, record: Record, user: Id) -> Row:
        """The row that leads to the record's state from its base, all events kept on the way."""
        record = self._known(record)
        base = self._base(key, record)
        steps, _ = self._walked(Edge() if base is None else base.edge, record.events())
        return self.stepper.row((base.state or None) if base else None, self.number(user), steps)

    def number(self, user: Id | None) -> int:
        """The user's number in training, 0 for one it did not know."""
        if user is None or not self.stepper.trained.model.n_users:
            return 0
        return self.users.vocabulary.number(self.users.meant(user))

    def _new(
        self, events: Sequence[Event], record: Record, now: float
    ) -> tuple[list[Happened], list[Outcome], list[bytes]]:
        """The events that were not taken in before, what is to be said of each, and the digests of their ids."""
        new: list[Happened] = []
        outcomes: list[Outcome] = []
        digests: list[bytes] = []
        newest = record.newest if len(record) else 0
        for event in events:
            if event.id is not None and not isinstance(event.id, str):
                raise ConfigError(f"id = {event.id!r}; the id of an event is a text")
            short = None if event.id is None else digest(event.id)
            if short is not None and (short in digests or record.knows(short)):
                outcomes.append("duplicate")
                continue
            happened = self._happened(event, now, newest)
            newest = max(newest, happened.time)
            new.append(happened)
            outcomes.append("applied")
            if short is not None:
                digests.append(short)
        return new, outcomes, digests

    def _happened(self, event: Event, now: float, newest: int) -> Happened:
        """An event, checked; one without a time has just happened, and is never older than the newest."""
        item, session = self._kept(event.item), event.session
        if session is not None and type(session) not in (str, int):
            raise ConfigError(f"session = {session!r}; ids are texts or whole numbers")
        if event.time is None:
            return Happened(item, max(round(now * 1000), newest), session)
        if not (isinstance(event.time, int | float) and 0 <= event.time < 1e300):
            raise ConfigError(f"time = {event.time!r}; expected seconds since 1970")
        if event.time > now + self.config.ahead:
            raise ConfigError(
                f"time = {event.time!r} lies {event.time - now:,.0f} s ahead of this machine's clock, at most "
                f"{self.config.ahead:,.0f} are taken; is it in milliseconds?"
            )
        return Happened(item, round(event.time * 1000), session)

    def _unknown(self, events: Sequence[Event]) -> tuple[Id, ...]:
        return tuple(one.item for one in events if type(one.item) in (str, int) and not self.items.number(one.item))

    def _kept(self, item: Any) -> Id:
        """The id by which an item is kept: its own, or, where the log's ids are of another type, its text."""
        if type(item) in (str, int):
            return item  # type: ignore[no-any-return]
        number = 0 if isinstance(item, bool) else self.stepper.trained.items.number(item)
        if not number:
            raise ConfigError(f"item = {item!r}; ids are texts or whole numbers")
        return self.items.ids[number - 1]  # type: ignore[no-any-return]

    def _numbers(self, events: Iterable[Happened]) -> list[int]:
        """The items among them that the recommender knows, by number."""
        return [number for event in events if (number := self.items.number(event.item))]

    def _known(self, record: Record) -> Record:
        """A record, of another model with the ids that this one knows: whose log had 7 where the other's had "7"."""
        if record.model == self.stepper.fingerprint:
            return record
        lines = [line_of(event._replace(item=self._renamed(event.item))) + b"\n" for event in record.events()]
        return replace(record, lines=b"".join(lines))

    def _renamed(self, item: Id) -> Id:
        meant = sent(self.names.meant(item))
        return meant if self.items.number(meant) else item

    def _walked(self, edge: Edge, events: Sequence[Happened]) -> tuple[list[Step], Edge]:
        walked = list(walk(self.rules, self.items, edge, events))
        return [step for step, _ in walked], walked[-1][1] if walked else edge

    def _base(self, key: str, record: Record) -> Base | None:
        """The user's base; None while every event is kept. Another model's is as good as none, but for its edge."""
        value = self._read_base(key) if record.seen > len(record) else b""
        if not value:
            return None
        base = Base.unpack(value)
        edge = base.edge._replace(seen=record.seen - len(record))
        if base.model == self.stepper.fingerprint:
            return replace(base, edge=edge)
        assert edge.last is not None
        last = edge.last._replace(item=self._renamed(edge.last.item))
        return replace(base, state=b"", edge=edge._replace(last=last, begun=False))

    def _again(
        self, record: Record, events: Sequence[Happened], outcomes: list[Outcome], number: int, key: str
    ) -> tuple[Plan, Record]:
        """The state from the base and the events kept, each new one in its place."""
        base = self._base(key, record)
        kept, beyond = record.events(), record.beyond
        places = [place for place, outcome in enumerate(outcomes) if outcome == "applied"]
        for event, place in zip(events, places, strict=True):
            newest = kept[-1].time if kept else event.time
            if event.time < newest and base is not None and event.time < kept[0].time:
                beyond += 1
                kept.append(event._replace(time=newest))
            elif event.time < newest:
                outcomes[place] = "late"
                kept.insert(bisect_right(kept, event.time, key=lambda other: other.time), event)
            else:
                kept.append(event)
        steps, edge = self._walked(Edge() if base is None else base.edge, kept)
        plan = Plan(self.stepper.row((base.state or None) if base else None, number, steps), outcomes=tuple(outcomes))
        plan.again = True
        if base is not None and base.model != self.stepper.fingerprint:
            plan.base, plan.edge = Row(None, number, []), base.edge
        after = Record(self.stepper.fingerprint, b"", edge.begun, record.seen - len(record), beyond)
        after.digests, after.arrivals = record.digests, record.arrivals
        after.append(kept)
        return plan, after

    def _drop(self, plan: Plan, record: Record, number: int, key: str) -> None:
        """Let go of the record's oldest events: they go into the base."""
        state, edge = (plan.base.state, plan.edge) if plan.base is not None else (None, Edge())
        if plan.base is None and (base := self._base(key, record)) is not None:
            state, edge = base.state, base.edge
        steps, plan.edge = self._walked(edge, record.drop_oldest(len(record) - self.config.history))
        plan.base = self.stepper.row(state, number, steps)


def as_kept(items: Vocabulary) -> Vocabulary:
    """The items by the ids under which they are kept: dates, UUIDs and the like as texts."""
    return items if {type(raw) for raw in items.ids} <= {str, int} else Vocabulary(list(map(sent, items.ids)))
