"""From raw histories to a batch of events: what is known becomes numbers, what is not is skipped and reported."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, NeedsError
from foretaste.models.contract import Events, SequenceModel

History = Sequence[Hashable]
"""Raw item ids, the oldest first: the open session for a session model, everything for a user model."""


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
    if "sessions" in model.needs and model.scope == "user" and sessions is None:
        raise NeedsError(f"model '{name}' needs the session of each event; give sessions=[...] beside the history")


def events_of(
    items: Vocabulary,
    histories: Sequence[History],
    times: Sequence[Sequence[int]] | None = None,
    sessions: Sequence[Sequence[Hashable]] | None = None,
) -> tuple[Events, list[list[Any]]]:
    """Histories as a batch, and the ids of each that are not known.

    `times` are seconds, `sessions` any ids, one an event: where the id changes, a session begins.
    """
    numbers, clocks, begins, skipped = [], [], [], []
    for row, history in enumerate(histories):
        known = numbers_of(items, history)
        numbers.append([n for n in known if n])
        skipped.append([raw for raw, n in zip(history, known, strict=True) if not n])
        clocks.append(_beside("times", times, row, known))
        ids = _beside("sessions", sessions, row, known)
        begins.append([place == 0 or ids[place - 1] != now for place, now in enumerate(ids)])
    starts, when = None if sessions is None else begins, None if times is None else clocks
    return Events.of(numbers, starts=starts, times=when), skipped


def _beside(name: str, given: Sequence[Sequence[Any]] | None, row: int, known: Sequence[int]) -> list[Any]:
    """What stands beside the known events of a history; nothing where nothing was given."""
    if given is None:
        return []
    beside = given[row] if row < len(given) else ()
    if len(beside) != len(known):
        raise ConfigError(f"history {row} has {len(known)} events and {len(beside)} {name}")
    if name == "times" and (wrong := [value for value in beside if not _is_time(value)]):
        raise ConfigError(f"history {row}: {wrong[0]!r} among its times; expected seconds since 1970")
    return [value for value, n in zip(beside, known, strict=True) if n]


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and bool(-(2**62) < value < 2**62)
