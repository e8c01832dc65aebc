"""What a log is like: every number that `foretaste inspect` says of it, in one pass over blocks of users.

    facts = log_facts(log.prepare(None))
    facts.events, facts.lengths["events of a session"].median, facts.items_back.inside

Of a prepared folder all parts are counted. Items that its training does not know have no number there; their events
count as events, and in no share of items.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from foretaste.data.prepared import Prepared
from foretaste.inspection.category import Category
from foretaste.inspection.crowd import Crowd, Drift, Popularity
from foretaste.inspection.returns import Block, Returned, Returns, blocks
from foretaste.inspection.spread import SECONDS, SIZES, Gamma, Spread, Tally

MARKS = (20, 50, 200)
"""Lengths of history that models are made for."""
CUTS = {"30m": 1800, "1h": 3600, "1d": 86_400}
"""Pauses after which a new session may begin."""


@dataclass(frozen=True)
class Unknown:
    """How many test targets training cannot know."""

    share: float
    how: str
    """What is test."""


@dataclass(frozen=True)
class Leader:
    """One of the most popular items."""

    item: str
    title: str
    """Empty where the log has none."""
    events: int


@dataclass(frozen=True)
class LogFacts:
    """What a log is like. Shares are from 0 to 1, times in seconds."""

    has: tuple[str, ...]
    """users, sessions, times, order, ..., and the names of its columns."""
    offers: tuple[str, ...]
    """What a model may need and the log has: users, times, sessions, dwell."""
    clock: str
    """The order that all its events share: "time", "order of sessions", or "" if there is none."""
    row: str
    """"session", or "history" where the log has no sessions."""
    events: int
    users: int
    sessions: int
    items: int
    anonymous: int
    """Sessions without a user."""
    cold: int
    """Events whose item the training part of a prepared folder does not know."""
    targets: float
    """Share of the events that may be asked for."""
    density: float
    """Different pairs of a user (without users: a session) and an item, of all that could be."""
    since: str | None
    until: str | None
    lengths: dict[str, Spread]
    times: dict[str, Spread]
    later: dict[str, float]
    """Share of the events with more than 20, 50, 200 events before them in their session or history; and in the user's
    whole past."""
    dwell: Gamma | None
    """Of the times from event to event inside a session."""
    immediate: float
    """Share of the steps inside sessions that stay on the same item."""
    same_time: float | None
    """Share of the steps inside sessions that take less than a second."""
    items_back: Returned
    categories_back: Returned | None
    categories: int
    leaders: tuple[Leader, ...]
    """The ten most popular items, the first first."""
    popularity: Popularity
    drift: Drift | None
    unknown: Unknown | None
    others_future: float | None
    """If the last event of each user with several is asked: share of the others later than the first question."""
    cuts: dict[str, int]
    """How many sessions a log without sessions would have, by the pause that begins a new one."""
    parts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Counts of the parts of a prepared folder, with its prefixes (NARM, Table 1)."""
    split_by: str = ""
    """How a prepared folder was split, and what that leaks."""

    @property
    def questions(self) -> float:
        """Share of the events that have another before them in their session or history."""
        rows = self.lengths[f"events of a {self.row}"]
        return 1 - rows.of / self.events

    @property
    def lonely(self) -> float:
        """Share of the sessions or histories with one event."""
        rows = self.lengths[f"events of a {self.row}"]
        return rows.bars[0].count / rows.of

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "questions": self.questions, f"{self.row}s_of_one_event": self.lonely}


def log_facts(prepared: Prepared) -> LogFacts:
    """Count everything."""
    return Count(prepared).facts()


class Count:
    """One pass over the log."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, self.log = prepared, prepared.sequences
        self.has_sessions = "sessions" in prepared.manifest["has"]
        self.row = "session" if self.has_sessions else "history"
        known = np.asarray(self.log.user_numbers) > 0
        users = prepared.manifest["counts"]["all"]["users"]
        self.named = np.ones_like(known) if users == len(known) else known  # else: those that training has met
        self.crowd = Crowd(self.log, len(prepared.items))
        self.items, self.categories = Returns(), Returns()
        self.category = Category.of(prepared)
        self.lengths = {name: Tally() for name in ("row", "user", "sessions")}
        self.gaps, self.pauses = Tally(), Tally()
        self.steps = self.same_item = self.same_time = self.later = 0
        self.last = Tally()  # of users, the last item
        self.met = 0
        offsets = np.asarray(self.log.users)
        ends = offsets[1:][np.diff(offsets) > 1]  # of those with an event before their last, of whom it can be asked
        self.asked = len(ends)
        times = self.log.times
        self.first_question = int(np.asarray(times[ends - 1]).min()) if times is not None and len(ends) else None
        for block in blocks(self.log):
            self.add(block)

    def add(self, block: Block) -> None:
        """Count some users."""
        items = np.asarray(self.log.items[block.events])
        times = None if self.log.times is None else np.asarray(self.log.times[block.events])
        self.items.add(block, items)
        if self.category is not None:
            self.categories.add(block, self.category.labels(block.events, items))
        self.crowd.add(items, np.arange(block.events.start, block.events.stop) if times is None else times)
        start = int(np.searchsorted(self.log.users, block.events.start))
        named = self.named[start : start + len(block.users) - 1]
        of_user = np.diff(block.sessions[block.users])
        self.lengths["row"].add(np.diff(block.sessions))
        self.lengths["user"].add(of_user[named])
        self.lengths["sessions"].add(np.diff(block.users)[named])
        self.last.add(items[block.sessions[block.users[1:]] - 1][of_user > 1])
        inside = np.ones(len(items) - 1, bool)
        inside[block.sessions[1:-1] - 1] = False
        self.steps += int(inside.sum())
        self.same_item += int((inside & (items[1:] == items[:-1]) & (items[1:] > 0)).sum())
        if times is None or self.first_question is None:
            return
        gap = np.diff(times)
        self.gaps.add(np.maximum(gap[inside], 0))
        self.same_time += int((inside & (gap <= 0)).sum())
        pause = times[block.sessions[1:-1]] - times[block.sessions[1:-1] - 1]
        self.pauses.add(np.maximum(pause[block.has_past[1:]], 0))
        self.later += int((times > self.first_question).sum())
        self.later -= int((times[block.sessions[block.users[1:]] - 1] > self.first_question)[of_user > 1].sum())

    def facts(self) -> LogFacts:
        """What was counted."""
        log, manifest = self.log, self.prepared.manifest
        found, rows = self.items.found(), log.n_users
        counts = manifest["counts"]
        items = int((self.crowd.of_items() > 0).sum())
        drift = self.crowd.drift()
        since, until = (None, None) if log.times is None else (_date(np.min(log.times)), _date(np.max(log.times)))
        n = len(log)
        return LogFacts(
            has=(*manifest["has"], *sorted(log.columns)),
            offers=tuple(sorted(self.prepared.offers)),
            clock=self.crowd.by,
            row=self.row,
            events=n,
            users=counts["all"]["users"],
            sessions=log.n_sessions if self.has_sessions else 0,
            items=items,
            anonymous=rows - counts["all"]["users"],
            cold=int(self.crowd.counts[:, 0].sum()),
            targets=1.0 if log.target is None else float(np.mean(log.target)),
            density=found.pairs / max(rows * items, 1),
            since=since,
            until=until,
            lengths=self._lengths(),
            times=self._times(),
            later=self._later(),
            dwell=self.gaps.gamma() if self.has_sessions else None,
            immediate=self.same_item / max(self.steps, 1),
            same_time=None if log.times is None else self.same_time / max(self.steps, 1),
            items_back=found,
            categories_back=None if self.category is None else self.categories.found(),
            categories=0 if self.category is None else self.category.count(),
            leaders=self._leaders(),
            popularity=self.crowd.popularity(),
            drift=drift,
            unknown=self._unknown(drift),
            others_future=None if self.first_question is None else self.later / (n - self.asked),
            cuts=self._cuts(),
            parts={name: dict(of) for name, of in counts.items() if of["events"]} if manifest["split"] else {},
            split_by="{text}, which leaks {leaks}".format(**manifest["split"]) if manifest["split"] else "",
        )

    def _leaders(self) -> tuple[Leader, ...]:
        counts, items = self.crowd.of_items(), self.prepared.items
        titles = items.columns.get("title")
        best = [int(place) for place in np.argsort(-counts, kind="stable")[:10] if counts[place]]
        return tuple(Leader(str(items.ids[k]), str(titles[k] or "") if titles else "", int(counts[k])) for k in best)

    def _lengths(self) -> dict[str, Spread]:
        names = {f"events of a {self.row}": "row"}
        if self.has_sessions:
            names |= {"events of a user": "user", "sessions of a user": "sessions"}
        spreads = {name: self.lengths[tally].spread(SIZES) for name, tally in names.items()}
        return {name: found for name, found in spreads.items() if found is not None}

    def _times(self) -> dict[str, Spread]:
        spreads = {"to the next event": self.gaps.spread(SECONDS)}
        if self.has_sessions:
            spreads["to the next session"] = self.pauses.spread(SECONDS)
        return {name: found for name, found in spreads.items() if found is not None}

    def _later(self) -> dict[str, float]:
        found = {}
        for name, tally in ((self.row, "row"), ("user", "user")):
            sizes, counts = self.lengths[tally].counts()
            if len(sizes) and (tally == "row" or self.has_sessions):
                total = (sizes * counts).sum()
                for mark in MARKS:
                    found[f"{name}, {mark}"] = float((np.maximum(sizes - mark - 1, 0) * counts).sum() / total)
        return found

    def _cuts(self) -> dict[str, int]:
        if self.has_sessions or self.log.times is None:
            return {}
        gaps, counts = self.gaps.counts()
        return {name: self.log.n_users + int(counts[gaps > pause].sum()) for name, pause in CUTS.items()}

    def _unknown(self, drift: Drift | None) -> Unknown | None:
        test = self.prepared.manifest["test_targets"]
        if test["asked"]:
            return Unknown(test["cold"] / test["asked"], "the test part of this folder")
        if drift is not None:
            sizes = self.crowd.counts.sum(1)
            newest = sizes[sizes > 0][-1] / sizes.sum()
            return Unknown(drift.new[-1], f"the newest {100 * newest:.0f} % of the events, by {drift.by}")
        items, counts = self.last.counts()
        if not len(items):
            return None
        alone = self.crowd.counts.sum(0)[items] == counts  # nowhere else
        return Unknown(float(counts[alone].sum() / counts.sum()), "the last event of each user")


def _date(seconds: np.integer) -> str:
    return str(np.datetime64(int(seconds), "s"))
