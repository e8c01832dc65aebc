"""The sections of the report that show: accuracy, cost, learning, kinds of cases, settings, attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from foretaste.compare.grid import Place
from foretaste.compare.report import maps, plots, settings
from foretaste.compare.report.histories import Witnesses
from foretaste.compare.report.kinds import Breakdown, besides, breakdowns
from foretaste.compare.report.log import the_log
from foretaste.compare.report.pair import beside_the_best_other
from foretaste.compare.report.table import breakdown, results
from foretaste.compare.report.verdict import decide
from foretaste.compare.summary import Line, Summary
from foretaste.data.prepared import Prepared
from foretaste.pages.drawings import Gallery, Look, quieted
from foretaste.pages.html import Html, join, listed, tag

AMOUNTS = {
    "targets_per_second": ("targets trained a second", lambda value: f"{value:,.0f}"),
    "peak_mb": ("memory at most, MB", lambda value: f"{value:,.0f}"),
}

CURVES = 8
"""Lines of a drawing that can be told apart."""


@dataclass(frozen=True)
class Section:
    """A heading, and what stands under it."""

    name: str
    title: str
    body: Html


class Sections:
    """All that is drawn of one comparison."""

    def __init__(self, summary: Summary, names: dict[str, Look], gallery: Gallery) -> None:
        self.summary, self.names, self.gallery = summary, names, gallery
        self.lines: list[Line] = [line for line in summary.lines if line.cells]
        self.metric = summary.grid.show[0]
        self.curves = quieted(names, _loud(summary, self.lines))

    def log(self, log: Prepared | None) -> Section | None:
        """What the models learnt from and were asked about."""
        return None if log is None else Section("log", "The log", the_log(self.gallery, log))

    def table(self) -> Section:
        """Every row, and the intervals drawn."""
        drawn = [
            *plots.intervals(self.gallery, self.lines, self.names, self.summary.grid.show),
            *beside_the_best_other(self.gallery, self.summary, self.names),
        ]
        return Section("results", "All models", join(results(self.summary, self.names), _side_by_side(drawn)))

    def cost(self) -> Section | None:
        """Accuracy against cost; training speed and memory. Of one machine, for costs of two do not compare."""
        alike, others = of_one_machine(self.lines)
        drawn = [
            *plots.against_cost(self.gallery, alike, self.names, self.metric, "training"),
            *plots.against_cost(self.gallery, alike, self.names, self.metric, "median"),
        ]
        for cost, (title, write) in AMOUNTS.items():
            drawn += plots.amounts(self.gallery, alike, self.names, cost, title, write)
        left = ", ".join(line.name for line in others)
        note = f"Left out, for they were made on another machine than most rows: {left}." if others else None
        return self._section("cost", "Accuracy against cost", note, drawn)

    def learning(self) -> Section | None:
        """Learning curves; models that count have none."""
        counting = [line.name for line in self.lines if not any(cell["history"] for cell in line.cells)]
        note = f"Without passes, as they count: {', '.join(counting)}." if counting else None
        alike, others = of_one_machine(self.lines)
        metric = self.summary.grid.metric
        drawn = [
            *plots.learning(self.gallery, self.lines, self.curves, metric, "pass"),
            *plots.learning(self.gallery, alike, self.curves, metric, "second"),
        ]
        if others:
            note = f"{note or ''} Seconds are shown of those rows that were made on the machine of most.".strip()
        return self._section("learning", "Learning", note, drawn)

    def kinds(self, place: Place) -> Section | None:
        """By history length, popularity and repeats, and by the length of the list."""
        parts = [self._by_kind(one) for one in breakdowns(place, self.lines)]
        lists = [one for kind in ("recall", "mrr") for one in self._each(plots.by_list, kind)]
        if lists:
            parts.append(join(tag("h3", "Length of the list"), _side_by_side(lists)))
        return Section("kinds", "For whom, and for what", join(*parts)) if parts else None

    def besides(self) -> Section | None:
        """Every question that was asked besides the main one."""
        parts = []
        for name, asked in self.summary.grid.also.items():
            lines = [line for line in self.lines if all(name in cell["also"] for cell in line.cells)]
            metrics = [f"{name}: {metric}" for metric in self.summary.grid.show]
            drawn = list(plots.intervals(self.gallery, lines, self.names, metrics))
            if drawn:
                head = join(tag("h3", name), tag("p", "Asked of the same trained models: ", tag("code", asked), "."))
                parts += [join(head, _side_by_side(drawn)), *map(self._by_kind, besides(lines, name))]
        return Section("besides", "Asked besides", join(*parts)) if parts else None

    def _by_kind(self, parts: Breakdown) -> Html:
        """One sort of cases: drawings, and what they show as numbers."""
        drawn = [each for metric in parts.metrics for each in self._each(plots.by_kind, parts, metric)]
        tables = [breakdown(self.lines, self.names, parts, metric) for metric in parts.metrics]
        numbers = tag("details", tag("summary", "The numbers"), *tables)
        return join(tag("h3", parts.title), _side_by_side(drawn), numbers)

    def tried(self) -> Section | None:
        """What was tried of each setting."""
        metric = self.summary.grid.metric
        drawn = list(settings.tried(self.gallery, self.lines, self.names, metric))
        searched = [line for line in self.lines if len(settings.trials_of(line)) > 1]
        if not searched:
            return None
        tables = [
            join(tag("h3", line.name), tag("div", settings.trials_table(line, metric), class_="wide", role="region",
                                           tabindex="0", aria_label=f"Trials of {line.name}"))
            for line in searched
        ]  # fmt: skip
        every = tag("details", tag("summary", "Every trial"), *tables)
        note = (
            "Each trial was trained on the training part and measured on the validation part. Where one setting "
            "decides, its points form a line."
        )
        return Section("tried", "What was tried", join(tag("p", note), _side_by_side(drawn), every))

    def sweeps(self) -> Section | None:
        """Rows that differ in one setting alone."""
        found = settings.sweeps(self.summary.grid, self.lines)
        note = "Rows of one model that differ in this setting alone before tuning."
        drawn = list(settings.sweep_drawings(self.gallery, found, self.names, self.summary.grid.show))
        return self._section("sweeps", "One setting at a time", note, drawn)

    def attention(self, place: Place, log: Prepared | None) -> Section:
        """What the saved models looked at."""
        title = "What the models looked at"
        if log is None:
            why = "Left out: the folder of the log was not given, so there are no histories to show."
            return Section("attention", title, tag("p", why))
        witnesses = Witnesses(place, [line.name for line in self.lines], log)
        drawn = list(maps.attention(self.gallery, witnesses, self.names))
        shares = list(maps.shares(self.gallery, witnesses, self.names))
        why = listed([join(row, " (", reason, ")") for row, reason in witnesses.silent.items()])
        silent = [tag("p", "Not asked: ", why, ".", class_="hint")] if witnesses.silent else []
        if not drawn and not shares:
            return Section(
                "attention", title, join(tag("p", "None of these models says what its answer rests on."), *silent)
            )
        note = tag("p", "Histories of the test part, drawn by a fixed seed, and the models of seed 0. Attention says "
                        "what a model read, not why the next event came.")  # fmt: skip
        body = [note, _side_by_side(drawn)]
        if shares:
            body += [tag("h3", "Short and long term over one user's sessions"), _side_by_side(shares)]
        return Section("attention", title, join(*body, *silent))

    def _each(self, draw: object, *arguments: object) -> list[Html]:
        found: Iterator[Html] = draw(self.gallery, self.lines, self.curves, *arguments)  # type: ignore[operator]
        return list(found)

    def _section(self, name: str, title: str, note: str | None, drawn: list[Html]) -> Section | None:
        if not drawn:
            return None
        return Section(name, title, join(None if note is None else tag("p", note), _side_by_side(drawn)))


def _loud(summary: Summary, lines: Sequence[Line]) -> set[str]:
    """Whose curves can be told apart: all of a few rows; of many the best, and the cheap ones that the answer names."""
    verdict = decide(summary)
    if verdict is None or len(lines) <= CURVES:
        return {line.name for line in lines}
    told = [*verdict.ranked[: CURVES - 2], *(one for one in (verdict.cheapest, verdict.quickest) if one is not None)]
    return {line.name for line in told}


def of_one_machine(lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """The rows made where most were made, and the others."""
    made = Counter(line.machines for line in lines)
    most = max(made, key=lambda machines: made[machines], default=())
    return [line for line in lines if line.machines == most], [line for line in lines if line.machines != most]


def _side_by_side(drawn: object) -> Html:
    return tag("div", *drawn, class_="drawings")  # type: ignore[misc]
