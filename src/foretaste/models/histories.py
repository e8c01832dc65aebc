"""From raw histories to a batch of events: what is known becomes numbers, what is not is skipped and reported."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from foretaste.data.rules import Edge, Happened, Rules, walk
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, NeedsError
from foretaste.models.contract import Events, SequenceModel

MILLISECONDS = 1e11
"""A time from here on lies beyond the year 5000, in seconds."""

History = Sequence[Hashable]
"""Raw item ids, the oldest first: the open session for a session model, everything for a user model."""


def listed(histories: Iterable[Any]) -> list[Any]:
    """Histories that can be read more than once: generators as lists, whatever else as it is."""
    return [list(history) if isinstance(history, Iterator) else history for history in histories]


def numbers_of(items: Vocabulary, raw: Sequence[Hashable]) -> list[int]:
    """The number of each item, 0 for one that is not known."""
    if isinstance(raw, str | bytes) or not isinstance(raw, Iterable):
        raise ConfigError(f"expected a list of item ids, found {raw!r}; write [{raw!r}]")
    found: list[int] = items.numbers(raw).tolist()
    return found


def check_askable(model: SequenceModel, name: str, times: object, sessions: object) -> None:
    """Say what the model needs beside a history and was not given; refuse one that no service could feed."""
    if not model.causal:
        raise NeedsError(
            f"model '{name}' with this config is told something of the next event (causal = False): it can be "
            "evaluated, to repeat a paper, and never asked; train its causal variant"
        )
    if "times" in model.needs and times is None:
        raise NeedsError(f"model '{name}' needs the times of the events; give times=[...] beside the history")
    if "sessions" in model.needs and model.scope == "user" and times is None and sessions is None:
        raise NeedsError(
            f"model '{name}' needs the session of each event; give sessions=[...] beside the history, or times=[...], "
            "by which it is cut as in the service"
        )


def events_of(
    items: Vocabulary,
    rules: Rules,
    histories: Sequence[History],
    times: Sequence[Sequence[int]] | None = None,
    sessions: Sequence[Sequence[Hashable]] | None = None,
    *,
    last: bool = False,
) -> tuple[Events, list[list[Any]]]:
    """Histories as a batch, and the ids of each that are not known.

    `times` are seconds, `sessions` any ids, one an event: where the id changes, a session begins. Where none are given,
    the rules that a service goes by cut the history (data/rules.py); repeats go, where they were taken out of the log.
    `last`: the model reads one session, so of each history only its last one counts.
    """
    for name, given in (("times", times), ("sessions", sessions)):
        if given is not None and len(given) > len(histories):
            raise ConfigError(f"{len(histories)} histories and {len(given)} rows of {name}; give one a history")
    counts = rules.sessions == "count" or rules.repeats == "collapse"
    plain = times is None and sessions is None and not counts  # each is one session, in which everything counts
    numbers, starts, clocks, skipped = [], [], [], []
    for row, history in enumerate(histories):
        known = numbers_of(items, history)
        skipped.append([raw for raw, n in zip(history, known, strict=True) if not n])
        clock, ids = _beside("times", times, row, known), _beside("sessions", sessions, row, known)
        if plain:
            numbers.append([n for n in known if n])
            continue
        moments = [round(1000 * t) for t in clock] or [0] * len(known)
        happened = map(Happened, history, moments, ids or [None] * len(known))
        steps = [step for step, _ in walk(rules, items, Edge(), happened)]
        begins = max((place for place, step in enumerate(steps) if step.opens), default=0) if last else 0
        kept = [step for step in steps[begins:] if step.number]
        numbers.append([step.number for step in kept])
        starts.append([step.start for step in kept])
        clocks.append([step.time for step in kept])
    return Events.of(numbers, None if plain else starts, None if times is None else clocks), skipped


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Numbers [B, T], 0 behind the end of a row."""
    return Events.of(rows).items


def _beside(name: str, given: Sequence[Sequence[Any]] | None, row: int, known: Sequence[int]) -> list[Any]:
    """What stands beside the events of a history; nothing where nothing was given."""
    if given is None:
        return []
    beside = given[row] if row < len(given) else ()
    if len(beside) != len(known):
        raise ConfigError(f"history {row} has {len(known)} events and {len(beside)} {name}")
    if name == "times" and (wrong := [value for value in beside if not _is_time(value)]):
        raise ConfigError(f"history {row}: {wrong[0]!r} among its times; expected seconds since 1970")
    if name == "times" and (wrong := [value for value in beside if abs(value) >= MILLISECONDS]):
        raise ConfigError(
            f"history {row}: {wrong[0]} among its times lies beyond the year 5000; expected seconds since 1970: "
            "milliseconds are divided by 1000"
        )
    if name == "times" and (falls := [pair for pair in itertools.pairwise(beside) if pair[1] < pair[0]]):
        raise ConfigError(f"history {row}: time {falls[0][0]} stands before {falls[0][1]}; give the oldest event first")
    return list(beside)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and bool(-(2**62) < value < 2**62)
