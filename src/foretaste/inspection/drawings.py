"""The drawings of an inspected log. How they look is shared with the report of a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from foretaste.inspection.log import LogFacts
from foretaste.inspection.returns import DEEP
from foretaste.inspection.spread import Bar, Gamma, duration
from foretaste.pages.drawings import COLOURS, INK, PAPER, SOFT, canvas, only

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = tuple["Figure", str, str]
"""A drawing, its title, and what to know to read it."""
Series = dict[str, tuple[float, ...]]


def lengths(facts: LogFacts) -> Iterator[Drawn]:
    """How long sessions and histories are."""
    for name, spread in facts.lengths.items():
        many, one = name.split(" of a ")
        yield _bars(spread.bars), f"{name.capitalize()}.", f"Share of the {spread.of:,} {one}s by number of {many}."


def times(facts: LogFacts) -> Iterator[Drawn]:
    """How much time passes, and the gamma law beside it."""
    for name, spread in facts.times.items():
        yield _bars(spread.bars), f"Time {name}.", f"Share of {spread.of:,} steps."
    yield from dwell(facts)


def dwell(facts: LogFacts) -> Iterator[Drawn]:
    """ASARS, Figure 1: the time from event to event inside a session, in Scott's bins, and the gamma law beside it."""
    if facts.dwell is not None:
        law = facts.dwell
        about = (
            f"Bins of {duration(law.width)} by Scott's rule, and the gamma law with shape {law.shape:.2f} and scale "
            f"{duration(law.scale)}. The law is off by at most {100 * law.distance:.1f} points."
        )
        yield _gamma(law), "Time to the next event, and its law.", about


def returns(facts: LogFacts) -> Iterator[Drawn]:
    """ASARS, Figure 1: what makes up a session, and what comes back from those before."""
    found = {"items": facts.items_back} | ({"categories": facts.categories_back} if facts.categories_back else {})
    items, row = facts.items_back, facts.row
    if items.top:
        about = (
            f"Share of its events on its most frequent, its second, ...: mean over the {items.several:,} {row}s of two "
            "events or more."
        )
        series = {name: one.top for name, one in found.items() if one.top}
        yield _series(series, f"rank inside the {row}", bars=True), f"What makes up a {row}.", about
    if items.back:
        about = (
            "Share of a session's events on what the user had in so many sessions before: mean over the "
            f"{items.past:,} sessions with one before them."
        )
        yield _series({name: one.back for name, one in found.items()}, "sessions before"), "What comes back.", about


def crowd(facts: LogFacts) -> Iterator[Drawn]:
    """How popularity is shared, and how fast it moves."""
    yield _shares(facts), "Popularity.", f"The most popular items first; Gini {facts.popularity.gini:.2f}."
    if facts.drift is not None:
        drift = facts.drift
        about = f"How many of a tenth's {drift.top} most popular items are so in another, by how far apart they are."
        yield _series({"still popular": drift.apart}, "tenths apart"), "How fast popularity moves.", about
        series = {"on the 20 most popular of the tenth before": (math.nan, *drift.hit), "on new items": drift.new}
        yield _series(series, f"tenth of the log, by {drift.by}"), "From tenth to tenth.", "Share of a tenth's events."


def _bars(bars: tuple[Bar, ...]) -> Figure:
    """One bar a class, with its share."""
    total = sum(bar.count for bar in bars) or 1
    bars = bars[next(place for place, bar in enumerate(bars) if bar.count) :]
    figure, axes = canvas(0.5 + 0.24 * len(bars))
    shares = [100 * bar.count / total for bar in bars]
    places = list(range(len(bars)))
    axes.barh(places, shares, color=COLOURS[0], height=0.72)
    for place, share in zip(places, shares, strict=True):
        text = f"{share:.0f} %" if share >= 9.5 or not share else f"{share:.1f} %" if share >= 0.05 else "< 0.1 %"
        axes.annotate(text, (share, place), (4, 0), textcoords="offset points", va="center", fontsize=10, color=INK)
    axes.set_yticks(places, [bar.label for bar in bars])
    axes.set_xlim(0, 1.18 * max(shares))
    axes.invert_yaxis()
    only(axes, "x")
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    return figure


def _gamma(law: Gamma) -> Figure:
    """The bins, up to twice the one below which nine in ten of the times lie, and the law."""
    figure, axes = canvas(3.0)
    below = np.cumsum(law.density)
    shown = min(max(2 * int(np.searchsorted(below, 0.9 * below[-1]) + 1), 4), law.bins)
    edges = np.arange(shown + 1) * law.width
    axes.stairs(law.density[:shown], edges, fill=True, color=COLOURS[0], alpha=0.45, lw=0)
    x = np.linspace(edges[-1] / 400, edges[-1], 400)
    y = law.at(x)
    axes.plot(x, y, color=COLOURS[1])
    axes.set_ylim(0, 1.15 * max(law.density[:shown]))
    axes.set_xlim(0, edges[-1])
    axes.set_xlabel("seconds")
    axes.set_ylabel("share a second")
    only(axes, "y")
    return figure


def _series(series: Series, label: str, bars: bool = False) -> Figure:
    """One line, or one group of bars, a name, in percent from 1 on."""
    figure, axes = canvas(2.9)
    for number, (name, values) in enumerate(series.items()):
        x, y, colour = np.arange(1, len(values) + 1), 100 * np.array(values), COLOURS[number]
        if bars:
            wide = 0.8 / len(series)
            axes.bar(x + (number - (len(series) - 1) / 2) * wide, y, width=0.92 * wide, color=colour, label=name)
        else:
            axes.plot(x, y, color=colour, marker="os"[number], mec=PAPER, mew=0.6, label=name)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=10, loc="best")
    axes.set_ylim(bottom=0)
    axes.set_xlim(0.4, DEEP + 0.6)
    axes.set_xticks(range(1, DEEP + 1))
    axes.set_xlabel(label)
    axes.set_ylabel("%")
    only(axes, "y")
    return figure


def _shares(facts: LogFacts) -> Figure:
    """Share of the events by share of the items."""
    figure, axes = canvas(2.9)
    x, y = (100 * np.array(column) for column in zip(*facts.popularity.curve, strict=True))
    axes.plot(x, y, color=COLOURS[0])
    axes.plot([0, 100], [0, 100], color=SOFT, lw=1, ls=(0, (3, 2)))
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 102)
    axes.set_xlabel("items, %")
    axes.set_ylabel("events, %")
    return figure
