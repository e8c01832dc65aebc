"""An inspected log as JSON and as lines for a terminal. The page is in page.py."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foretaste.answers import on_one_line
from foretaste.inspection.advice import Advice, findings, models, percent, rows
from foretaste.inspection.asking import Asking, askings
from foretaste.inspection.log import LogFacts, log_facts
from foretaste.inspection.returns import Returned
from foretaste.inspection.spread import Spread, duration

if TYPE_CHECKING:
    from foretaste.data.prepared import Prepared

WIDTH = 100
NOTHING = "Nothing stands out."
Rows = list[tuple[str, str]]
"""Name and value."""


@dataclass(frozen=True)
class Inspected:
    """A log, what is known of it, and what follows."""

    title: str
    made: dict[str, Any]
    """How the log was made: the manifest of a folder, the steps of a raw log."""
    report: str
    """The same in words."""
    facts: LogFacts
    findings: list[str]
    rows: dict[str, str]
    """What the log is to models whose row is a session, and a user."""
    models: list[Advice]
    askings: list[Asking]

    @classmethod
    def of(cls, title: str, prepared: Prepared, made: dict[str, Any], report: str) -> Inspected:
        """Count, and draw the conclusions."""
        facts = log_facts(prepared)
        return cls(title, made, report, facts, findings(facts), rows(facts), models(facts), askings(facts))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the numbers stand beside what the folder's manifest says."""
        return {
            **self.made,
            **self.facts.as_dict(),
            "findings": self.findings,
            "rows": self.rows,
            "models": {one.model: one.as_dict() for one in self.models},
            "protocols": {one.protocol: one.as_dict() for one in self.askings},
        }

    def text(self) -> str:
        """All of it."""
        parts = [self.report]
        for title, lines in sections(self.facts):
            width = max(len(name) for name, _ in lines) + 2
            parts.append("\n".join([title, *(f"  {name:{width}}{value}" for name, value in lines)]))
        parts.append(
            "\n".join(["What follows", *(_filled(f"- {one}", "  ", "    ") for one in self.findings or [NOTHING])])
        )
        parts.append("\n".join(["Which protocol fits", *(line for one in self.askings for line in _asked(one))]))
        parts.append("\n".join(["What each model could use", *self._models()]))
        return "\n\n".join(parts)

    def _models(self) -> Iterator[str]:
        for row, said in self.rows.items():
            yield _filled(f"whose row is a {row}: {said}", "  ", "    ")
            for one in self.models:
                if one.row == row:
                    yield _filled(f"{one.model:13} {state(one)}{one.says and f'. {one.says}'}", "    ", " " * 18)


def sections(facts: LogFacts) -> list[tuple[str, Rows]]:
    """The numbers in words, under titles; what the log lacks is not spoken of."""
    found = [
        ("Sizes", list(_sizes(facts))),
        ("Lengths", [(name, _counts(spread)) for name, spread in facts.lengths.items()]),
        ("Time", list(_times(facts))),
        ("Repeats", list(_repeats(facts))),
        ("Popularity and drift", list(_popularity(facts))),
    ]
    return [(title, lines) for title, lines in found if lines]


def _sizes(facts: LogFacts) -> Iterator[tuple[str, str]]:
    yield "events", f"{facts.events:,}"
    for name in ("users", "sessions", "items"):
        if count := getattr(facts, name):
            yield name, f"{count:,}"
    if facts.users and facts.anonymous:
        yield "sessions without a user", f"{facts.anonymous:,}"
    if facts.categories:
        yield "categories", f"{facts.categories:,}"
    if facts.cold:
        yield "events of unknown items", f"{facts.cold:,}"
    if facts.targets < 1:
        yield "may be asked for", percent(facts.targets)
    yield "density", percent(facts.density)
    if facts.since is not None:
        yield "from, until", f"{facts.since}, {facts.until}"


def _times(facts: LogFacts) -> Iterator[tuple[str, str]]:
    for name, spread in facts.times.items():
        values = {"median": spread.median, "mean": spread.mean, "p90": spread.p90, "p99": spread.p99, "max": spread.max}
        yield name, ", ".join(f"{key} {duration(value)}" for key, value in values.items())
    if facts.same_time is not None:
        yield "steps that take less than a second", percent(facts.same_time)
    if (law := facts.dwell) is not None:
        fitted = f"the {percent(law.fitted)} above 0 and up to {duration(law.longest)}"
        off = f"off by at most {percent(law.distance)}"
        yield "gamma law", f"shape {law.shape:.3g}, scale {duration(law.scale)}; {off} ({fitted})"
        yield "Scott's bins", f"{law.bins} of {duration(law.width)}"


def _repeats(facts: LogFacts) -> Iterator[tuple[str, str]]:
    yield "stay on the item", f"{percent(facts.immediate)} of the steps inside a {facts.row}"
    yield from _returned(facts.items_back, facts.row, "item")
    if facts.categories_back is not None:
        yield from _returned(facts.categories_back, facts.row, "category")


def _returned(found: Returned, row: str, what: str) -> Iterator[tuple[str, str]]:
    yield f"{what} of this {row}", f"{percent(found.inside)} of the events"
    if found.back:
        yield f"{what} of an earlier session", f"{percent(found.earlier)} of the events"
    whom = "user" if found.back or row == "history" else row
    yield f"{what} new to the {whom}", f"{percent(found.new)} of the events"
    if found.top:
        of = ", ".join(f"{count}: {percent(sum(found.top[:count]))}" for count in (1, 3, 10))
        yield f"top {what} of a {row}", f"share of its events: {of}"
    if found.back:
        of = ", ".join(f"{count}: {percent(found.back[count - 1])}" for count in (1, 5, 10))
        yield f"{what} of the last sessions", f"share of a session's events: {of}, all: {percent(found.ever)}"


def _popularity(facts: LogFacts) -> Iterator[tuple[str, str]]:
    found, drift = facts.popularity, facts.drift
    best = [f"{on_one_line(one.title or one.item)} ({one.events:,})" for one in facts.leaders[:3]]
    yield "most events", ", ".join(best)
    yield "Gini", f"{found.gini:.2f}"
    yield "events on the top items", f"{percent(found.top_1)} on the top 1 %, {percent(found.top_10)} on the top 10 %"
    yield "items seen once", f"{found.once:,} of {facts.items:,}"
    if drift is not None:
        mean = sum(drift.kept) / len(drift.kept)
        far = f"{percent(drift.apart[-1])} from first to last"
        yield f"top {drift.top} kept", f"{percent(mean)} from tenth to tenth by {drift.by}, {far}"
        yield "top 20 of a tenth", f"{percent(sum(drift.hit) / len(drift.hit))} of the next tenth's events"
    if facts.unknown is not None:
        yield "unknown to training", f"{percent(facts.unknown.share)} of the test: {facts.unknown.how}"
    if facts.others_future is not None:
        whose = "user" if "users" in facts.offers else "session"
        yield "others' future", f"{percent(facts.others_future)} of training, if each {whose}'s last event is asked"


def _counts(spread: Spread) -> str:
    values = {"mean": spread.mean, "median": spread.median, "p90": spread.p90, "p99": spread.p99, "max": spread.max}
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: float) -> str:
    """4, 4.24, 1,000: at most two places."""
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def _asked(one: Asking) -> Iterator[str]:
    then = f", and --protocol {one.protocol} from then on" if one.verdict == "take this" and one.split else ""
    yield f"  {one.protocol:23}{one.verdict}" + (f", after --split {one.split}{then}" if one.split else "")
    for said in (one.why, one.leaks and f"Leaks: {one.leaks}"):
        if said:
            yield _filled(said, " " * 6, " " * 6)


def state(one: Advice) -> str:
    """Whether the log has what a model needs."""
    words = ["several sessions of a user" if name == "sessions" else name for name in one.lacks]
    lacks = f"needs {' and '.join(words)}" if words else "yes"
    return f"{lacks}; --set {one.instead} does without" if one.instead else lacks


def _filled(words: str, first: str, rest: str) -> str:
    return textwrap.fill(words, WIDTH, initial_indent=first, subsequent_indent=rest)
