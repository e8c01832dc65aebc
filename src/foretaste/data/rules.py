"""Where a session begins and what the model is given: the rules by which the training log was cut, event by event.

A log is cut into sessions as a whole; a service meets its events one at a time, and a history is sent along alone: both
must be cut alike. The rules are written into a prepared log and into a saved recommender. Where an event and the one
before it both name their session, it begins one if the names differ, whatever the rules say; where one of them names
none, the rules decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field

from foretaste.config import Config
from foretaste.data.vocabulary import Vocabulary

DAY = 86_400_000
"""Milliseconds."""


class Rules(Config):
    """How the training log was cut."""

    sessions: Literal["gap", "day", "count", "given", "none"] = "gap"
    """A new session after an idle gap, at midnight, after so many events, where the log named one, or never. Events of
    a log that named its sessions and come without a name now are cut by the gap."""
    gap: float = Field(1800.0, gt=0, allow_inf_nan=False)
    """Seconds; more than this between two events begins a session."""
    utc_offset: float = Field(0.0, gt=-24, lt=24)
    """Where the calendar's day begins, in hours east of Greenwich."""
    events: int = Field(20, ge=1)
    """Of one session, where they are counted: from the first event of a user that the service is told."""
    repeats: Literal["keep", "collapse"] = "keep"
    """Collapse: the model is not given an event of the same item as the one before it in the session."""

    @classmethod
    def of_recommender(cls, facts: Mapping[str, Any]) -> Rules:
        """What a saved recommender says of its training log; the defaults for one that says nothing."""
        data = facts.get("data")
        return cls.of((data.get("rules") or {}) if isinstance(data, Mapping) else {})


class Happened(NamedTuple):
    """One event as it is kept."""

    item: Any
    time: int
    """Milliseconds since 1970."""
    session: Any = None


class Edge(NamedTuple):
    """What must be known of the events so far to cut the next one."""

    last: Happened | None = None
    begun: bool = False
    """Has the model been given an event of the open session?"""
    seen: int = 0
    """Events so far."""


class Step(NamedTuple):
    """What one event is to the model."""

    number: int
    """The item, 0 where the model is given nothing: an unknown item, a repeat."""
    start: bool
    """The first event of its session that the model is given."""
    opens: bool
    """The first event of its session, known or not: here a session model starts afresh."""
    time: int
    """Seconds."""


def opens(rules: Rules, before: Happened | None, event: Happened, count: int) -> bool:
    """Does this event, before which there were so many, begin a session?"""
    if before is None:
        return True
    if event.session is not None and before.session is not None:
        return str(event.session) != str(before.session)  # as ids are compared everywhere: 5 is "5"
    if rules.sessions == "none":
        return False
    if rules.sessions == "count":
        return count % rules.events == 0
    if rules.sessions == "day":
        shift = round(rules.utc_offset * 3_600_000)
        return (event.time + shift) // DAY != (before.time + shift) // DAY
    return event.time - before.time > rules.gap * 1000


def walk(rules: Rules, items: Vocabulary, edge: Edge, events: Iterable[Happened]) -> Iterator[tuple[Step, Edge]]:
    """Each event as the model is given it, and what is known after it."""
    last, begun = edge.last, edge.begun
    for count, event in enumerate(events, edge.seen):
        new = opens(rules, last, event, count)
        again = rules.repeats == "collapse" and not new and last is not None and last.item == event.item
        number = 0 if again else items.number(event.item)
        begun = begun and not new
        step = Step(number, bool(number) and not begun, new, event.time // 1000)
        last, begun = event, begun or bool(number)
        yield step, Edge(last, begun, count + 1)
