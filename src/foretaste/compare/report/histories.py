"""Sampled moments of the test part, and what each saved model says its answer at that moment rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretaste.compare.grid import Place
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import TEST
from foretaste.errors import ForetasteError
from foretaste.models.saved import Trained

MOMENTS, USERS = 4, 2
"""Histories whose attention is shown; users whose sessions are followed."""
SHOWN, SENT = 12, 200
"""Events of a history that are drawn, and that a model is told at most: the newest."""
SESSIONS = 3, 15
"""Of a user that is followed: at least, at most."""
LIST = 20
"""Recommendations among which the item that came is looked for."""
SEED, POOL = 0, 2000
"""Of the draws; events that are drawn, of which the fittest are shown."""


@dataclass(frozen=True)
class Moment:
    """A place in the log: what lies before it is known, and what came is the target."""

    user: int
    """Row of the user."""
    begin: int
    """Where the open session begins."""
    cut: int
    """The event that came; all before it are known."""


@dataclass(frozen=True)
class Seen:
    """What one model makes of a moment."""

    row: str
    weights: list[float]
    """Of each event shown, the newest last; empty for a model that does not attend."""
    older: float
    """Weight on what is not shown."""
    first: list[Any]
    """The items that it recommends first."""
    place: int | None
    """Where the item that came stands; None beyond the list."""


class Witnesses:
    """The saved models of a comparison; those that cannot be asked say why in `silent`."""

    def __init__(self, place: Place, rows: Sequence[str], log: Prepared) -> None:
        self.log, self.silent = log, dict[str, str]()
        self.models: dict[str, Trained] = {}
        for row in rows:
            try:
                trained = Trained.load(place.model(row))
                if len(trained.items) != len(log.items):
                    raise ForetasteError(f"knows {len(trained.items):,} items, and the log has {len(log.items):,}")
                self.models[row] = trained
            except ForetasteError as error:
                self.silent[row] = str(error)
        titles = log.items.columns.get("title") or log.items.ids
        self.titles = [str(raw if title is None else title) for raw, title in zip(log.items.ids, titles, strict=True)]

    def title(self, raw: Any) -> str:
        """What an item is called."""
        number = self.log.items.number(raw)
        return self.titles[number - 1] if number else str(raw)

    def shown(self, moment: Moment) -> list[Any]:
        """The events that are drawn, as raw ids, the newest last."""
        events = np.arange(moment.begin, moment.cut)
        return self._ids(events[np.asarray(self.log.sequences.items)[events] > 0])[-SHOWN:]

    def came(self, moment: Moment) -> Any:
        """The item that came."""
        return self._ids(np.array([moment.cut]))[0]

    def ask(self, row: str, moment: Moment) -> Seen | None:
        """What a model's answer rests on; None where it cannot be asked."""
        found = self._explained(row, moment)
        if found is None:
            return None
        parts, given = found
        listed = self.models[row].recommend(k=min(LIST, len(self.log.items)), **given)
        came, shown = self.came(moment), self.shown(moment)
        weights, older = on_events(parts.get("attention", []), given["history"], shown)
        place = listed.ids.index(came) + 1 if came in listed.ids else None
        return Seen(row, weights, older, listed.ids[:3], place)

    def share(self, row: str, moment: Moment) -> float | None:
        """The share of the short term in the answer, for a model with such a gate."""
        found = self._explained(row, moment)
        return None if found is None else short_share(found[0])

    def _explained(self, row: str, moment: Moment) -> tuple[dict[str, Any], dict[str, Any]] | None:
        trained = self.models.get(row)
        if trained is None:
            return None
        try:
            given = self._given(trained, moment)
            return trained.explain(**given), given
        except (ForetasteError, NotImplementedError) as error:
            self.silent[row] = str(error)
            del self.models[row]
            return None

    def _given(self, trained: Trained, moment: Moment) -> dict[str, Any]:
        """A request as a service would send it."""
        log = self.log.sequences
        begin = int(log.users[moment.user]) if trained.model.scope == "user" else moment.begin
        events = np.arange(begin, moment.cut)
        events = events[np.asarray(log.items[begin : moment.cut]) > 0][-SENT:]
        given: dict[str, Any] = {"history": self._ids(events)}
        if "users" in trained.model.needs and self.log.users is not None:
            number = int(log.user_numbers[moment.user])
            given["user"] = self.log.users.raw([number])[0] if number else None
        if "times" in trained.model.needs and log.times is not None:
            given["times"] = log.times[events].tolist()
        if trained.model.needs & {"times", "sessions"}:  # with times alone they would be cut anew
            given["sessions"] = np.searchsorted(log.sessions, events, side="right").tolist()
        return given

    def _ids(self, events: Any) -> list[Any]:
        return self.log.items.raw(np.asarray(self.log.sequences.items)[events].tolist())


def moments(log: Prepared, count: int = MOMENTS) -> list[Moment]:
    """Moments of different users, drawn from a seed: a test event with 3 to 12 events before it in its session.

    Where no session is so long, or so short, the nearest there are; of histories, those with several items first.
    """
    sequences = log.sequences
    part, items = np.asarray(sequences.part), np.asarray(sequences.items)
    events = np.random.default_rng(SEED).permutation(np.flatnonzero((part == TEST) & (items > 0)))[:POOL]
    session = np.searchsorted(sequences.sessions, events, side="right") - 1
    begins = np.asarray(sequences.sessions)[session]
    before = events - begins
    kinds = [len(np.unique(items[begin:event])) for begin, event in zip(begins, events, strict=True)]
    far = np.maximum(3 - np.array(kinds, dtype=np.int64), 0) + np.maximum(before - SHOWN, 0)
    order = np.argsort(far, kind="stable")
    out: dict[int, Moment] = {}
    for place in order[before[order] > 0]:
        user = int(np.searchsorted(sequences.users, events[place], side="right")) - 1
        if len(out) == count:
            break
        out.setdefault(user, Moment(user, int(begins[place]), int(events[place])))
    return list(out.values())


def followed(log: Prepared, count: int = USERS) -> Iterator[list[Moment]]:
    """Of a few users with several sessions, the end of each: what would be answered there."""
    sequences = log.sequences
    if "sessions" not in log.manifest["has"] or log.users is None:
        return
    first = np.searchsorted(sequences.sessions, sequences.users)
    several = np.flatnonzero((np.diff(first) >= SESSIONS[0]) & (np.asarray(sequences.user_numbers) > 0))
    drawn = np.random.default_rng(SEED).permutation(several)[: 50 * count]
    many = sorted(drawn.tolist(), key=lambda user: -min(int(first[user + 1] - first[user]), SESSIONS[1]))
    for user in many[:count]:
        ends = range(int(first[user]), int(first[user + 1]))[-SESSIONS[1] :]
        yield [Moment(user, int(sequences.sessions[end]), int(sequences.sessions[end + 1])) for end in ends]


def on_events(pairs: Sequence[tuple[Any, float]], history: Sequence[Any], shown: Sequence[Any]
              ) -> tuple[list[float], float]:  # fmt: skip
    """The weight of each event shown, and the rest. Weights of items, not events, go to their newest occurrence."""
    if not pairs:
        return [], 0.0
    places = list(range(len(history) - len(pairs), len(history)))
    if len(pairs) > len(history) or [history[place] for place in places] != [raw for raw, _ in pairs]:
        newest = {raw: place for place, raw in enumerate(history)}
        places = [newest.get(raw, -1) for raw, _ in pairs]
    weights, older, offset = [0.0] * len(shown), 0.0, len(history) - len(shown)
    for place, (_, weight) in zip(places, pairs, strict=True):
        if place >= offset:
            weights[place - offset] += weight
        else:
            older += weight
    return weights, older


def short_share(parts: dict[str, Any]) -> float | None:
    """LSAMN's alpha_short; the gate of the open session in DMAN and SDM, the mean where it is a vector."""
    if "long_short" in parts:
        return float(parts["long_short"][1])
    if "gate" in parts:
        return float(np.mean(parts["gate"]))
    return None
