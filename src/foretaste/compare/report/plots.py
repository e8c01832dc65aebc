"""What a comparison looks like: accuracy with intervals, against cost, pass by pass, and by kind of case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foretaste.compare.report.kinds import Breakdown
from foretaste.compare.report.labels import Point, name_points
from foretaste.compare.summary import Line
from foretaste.pages.drawings import INK, PAPER, RULE, SOFT, Gallery, Look, canvas, name_ends, only, short
from foretaste.pages.html import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {"training": "seconds of training", "median": "milliseconds an answer (median)"}
LEAST = {"training": 0.01, "median": 0.01}
"""What is less stands here on a logarithmic scale."""
MANY = 8
"""Rows; of fewer, all stand where they are."""
CROWDED = 12
"""Kinds of cases; of more, labels and counts stand upright and marks are small."""


def intervals(
    gallery: Gallery, lines: Sequence[Line], names: dict[str, Look], metrics: Sequence[str]
) -> Iterator[Html]:
    """Each row's mean with its 95 % interval, the best on top; small marks are the seeds."""
    for metric in metrics:
        there = sorted((line for line in lines if metric in line.figures), key=lambda line: line.figures[metric].mean)
        if not there:
            continue
        figure, axes = canvas(0.75 + 0.26 * len(there))
        best = there[-1].figures[metric]
        floor = _floor(np.array([100 * line.figures[metric].mean for line in there]))
        axes.axvspan(100 * best.low, 100 * best.high, color=RULE, alpha=0.55, lw=0)
        for y, line in enumerate(there):
            found, look = line.figures[metric], names[line.name]
            below = 100 * found.mean < floor
            if not below:
                axes.plot([100 * found.low, 100 * found.high], [y, y], color=look.colour, lw=2.4, solid_capstyle="butt")
            if len(found.seeds) > 1 and not below:
                seeds = [100 * seed for seed in found.seeds]
                axes.plot(seeds, [y + 0.24] * len(seeds), "|", color=look.colour, ms=6, mew=1.2)
            at = floor if below else 100 * found.mean
            axes.plot(at, y, "<" if below else look.mark, color=look.colour, ms=7, mec=PAPER, mew=0.8)
            axes.annotate(
                f"{100 * found.mean:.2f}", (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=10
            )
        axes.set_yticks(range(len(there)), [short(line.name) for line in there])
        axes.set_ylim(-0.6, len(there) - 0.4)
        axes.set_xlabel(f"{metric}, %")
        only(axes, "x")
        said = " Triangles at the left edge lie beyond it." if floor > -np.inf else ""
        spread = "; the small strokes are single seeds" if any(len(line.cells) > 1 for line in there) else ""
        yield gallery.show(
            f"accuracy {metric}", figure, f"{metric}.",
            f"Mean and 95 % interval{spread}. The grey band is the interval of the best.{said}",
        )  # fmt: skip


def against_cost(
    gallery: Gallery, lines: Sequence[Line], names: dict[str, Look], metric: str, cost: str
) -> Iterator[Html]:
    """Accuracy by what it costs, with the line of what nothing cheaper surpasses."""
    points = [
        (max(value, LEAST[cost]), 100 * line.figures[metric].mean, line)
        for line in lines
        if metric in line.figures and (value := line.cost(cost)) is not None
    ]
    if len(points) < 2:
        return
    figure, axes = canvas(3.6 + 0.1 * max(len(points) - CROWDED, 0))
    axes.set_xscale("log")
    x, y = np.array([point[0] for point in points]), np.array([point[1] for point in points])
    floor, top = _floor(y), y.max()
    order = np.lexsort((-y, x))
    front = [place for rank, place in enumerate(order) if y[place] > max(y[order[:rank]], default=-np.inf)]
    axes.step([*x[front], 3 * x.max()], [*y[front], y[front][-1]], where="post", color=SOFT, lw=1, ls=(0, (3, 2)))
    labels = []
    for one, height, line in points:
        found, look = line.figures[metric], names[line.name]
        below = height < floor
        if not below:
            axes.plot([one, one], [100 * found.low, 100 * found.high], color=look.colour, lw=1.4)
        axes.plot(one, max(height, floor), "v" if below else look.mark, color=look.colour, ms=7, mec=PAPER, mew=0.8)
        at = max(height, floor)
        low, high = (at, at) if below else (100 * found.low, 100 * found.high)
        labels.append(Point(one, at, low, high, line.name, f" {height:.1f}" if below else ""))
    axes.set_xlim(x.min() / 2.5, 3 * x.max())
    axes.margins(y=0.12)
    if floor > -np.inf:
        highest = max(100 * line.figures[metric].high for *_, line in points)
        axes.set_ylim(floor - 0.08 * (top - floor), highest + 0.05 * (top - floor))
    axes.set_xlabel(LABELS[cost])
    axes.set_ylabel(f"{metric}, %")
    plain_decades(axes)
    name_points(figure, axes, labels, names)
    said = " Triangles on the lower edge lie below it, at the figure beside the name." if floor > -np.inf else ""
    yield gallery.show(
        f"cost {cost}", figure, f"Accuracy against {LABELS[cost]}.",
        f"Up and to the left is better; nothing cheaper lies above the dashed line. Bars: 95 % intervals.{said}",
    )  # fmt: skip


def _floor(y: NDArray[np.float64]) -> float:
    """Where the scale begins if the lower third of the rows would press the others together: below them."""
    best, floor = y.max(), y.max() - 1.2 * (y.max() - np.quantile(y, 1 / 3))
    pressed = len(y) >= MANY and y.min() < floor < best and best - floor < 0.5 * (best - y.min())
    return float(floor) if pressed else -np.inf


def amounts(
    gallery: Gallery,
    lines: Sequence[Line],
    names: dict[str, Look],
    cost: str,
    title: str,
    write: Callable[[float], str],
) -> Iterator[Html]:
    """One amount a row on a logarithmic scale, the greatest on top."""
    there = [(value, line) for line in lines if (value := line.cost(cost))]
    if len(there) < 2:
        return
    there.sort(key=lambda pair: pair[0])
    figure, axes = canvas(0.75 + 0.26 * len(there))
    axes.set_xscale("log")
    for y, (value, line) in enumerate(there):
        look = names[line.name]
        axes.plot(value, y, look.mark, color=look.colour, ms=7)
        axes.annotate(write(value), (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=10)
    axes.set_yticks(range(len(there)), [short(line.name) for _, line in there])
    axes.set_ylim(-0.6, len(there) - 0.4)
    axes.set_xlim(there[0][0] / 1.6, there[-1][0] * 1.6)
    axes.set_xlabel(title)
    plain_decades(axes)
    only(axes, "x")
    yield gallery.show(f"amount {cost}", figure, f"{title[0].upper()}{title[1:]}.")


def learning(gallery: Gallery, lines: Sequence[Line], names: dict[str, Look], metric: str, unit: str) -> Iterator[Html]:
    """The validation metric by "pass" or by "second", of the training that chose the number of passes."""
    figure, axes = canvas(3.4)
    ends: dict[str, float] = {}
    for line in lines:
        look = names[line.name]
        for number, cell in enumerate(line.cells):
            done = [one for one in cell["history"] if metric in one.get("validation", {})]
            if not done:
                continue
            y = [100 * one["validation"][metric] for one in done]
            spent = np.cumsum([one["seconds"] for one in done])
            x = [one["epoch"] for one in done] if unit == "pass" else spent.tolist()
            thin = {"lw": 0.8, "alpha": 0.55} if number else {}
            axes.plot(x, y, **look.line | thin)
            ends.setdefault(line.name, y[-1])
            if look.quiet:
                continue
            best = int(np.argmax(y))
            axes.plot(x[best], y[best], look.mark, color=look.colour, mec=PAPER, mew=0.6, ms=3.5 if number else 6)
    if not ends:
        return
    if unit == "second":
        axes.set_xscale("log")
        plain_decades(axes)
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("pass" if unit == "pass" else "seconds of training so far")
    axes.set_ylabel(f"{metric} on validation, %")
    name_ends(axes, ends, names)
    yield gallery.show(
        f"learning by {unit}", figure, f"Learning, by {unit}.",
        f"The mark is the best pass. Thin lines: further seeds. {_grey(names)}".rstrip(),
    )  # fmt: skip


def by_kind(
    gallery: Gallery, lines: Sequence[Line], names: dict[str, Look], parts: Breakdown, metric: str
) -> Iterator[Html]:
    """A metric by kind of case, with how many cases there are of each."""
    groups = parts.groups if parts.unit == "cases" else parts.groups[::-1]  # the easiest at the right, lines apart
    crowded = len(groups) > CROWDED
    figure, (axes, counts) = canvas(4.0, 2, 1, height_ratios=(3 if crowded else 4, 1), sharex=True)
    x = list(range(len(groups)))
    ends = {}
    for line in lines:
        y = [100 * group.means[metric].get(line.name, np.nan) for group in groups]
        if not np.isnan(y).all():
            axes.plot(x, y, **_marked(names[line.name], 3.5 if crowded else 5))
            ends[line.name] = next(value for value in reversed(y) if not np.isnan(value))
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{metric}, %")
    axes.tick_params(axis="x", labelbottom=False, length=0)
    name_ends(axes, ends, names)
    counts.bar(x, [group.size for group in groups], color=SOFT, alpha=0.45, width=0.7)
    number: dict[str, Any] = {"rotation": 90, "fontsize": 7} if crowded else {"fontsize": 9}
    for place, group in enumerate(groups):
        counts.annotate(_count(group.size), (place, group.size), ha="center", va="bottom", color=INK, **number)
    counts.set_yticks([])
    counts.margins(y=1.1 if crowded else 0.4)
    counts.grid(False)
    counts.spines["left"].set_visible(False)
    counts.set_ylabel(parts.unit)
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if len(x) > 5 else {}
    turned = {"rotation": 90, "fontsize": 8} if crowded else turned
    counts.set_xticks(x, [_short_label(group.label) for group in groups], **turned)
    yield gallery.show(f"{parts.name} {metric}", figure, f"{parts.title}: {metric}.", _grey(names) or None)


def by_list(gallery: Gallery, lines: Sequence[Line], names: dict[str, Look], kind: str) -> Iterator[Html]:
    """A metric by the length of the list; a list of all items last, where it is measured."""
    known = {name for line in lines for name in line.figures if ":" not in name}
    lengths = sorted(int(name.partition("@")[2]) for name in known if name.startswith(f"{kind}@"))
    measured = [f"{kind}@{k}" for k in lengths] + ([kind] if kind in known else [])
    if len(measured) < 2:
        return
    figure, axes = canvas(3.4)
    ends = {}
    for line in lines:
        if all(name in line.figures for name in measured):
            y = [100 * line.figures[name].mean for name in measured]
            axes.plot(y, **_marked(names[line.name], 5))
            ends[line.name] = y[-1]
    axes.set_xticks(range(len(measured)), [name.partition("@")[2] or "all" for name in measured])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("length of the list")
    axes.set_ylabel(f"{kind}, %")
    name_ends(axes, ends, names)
    yield gallery.show(f"{kind} by list", figure, f"{kind} by the length of the list.", _grey(names) or None)


def _marked(look: Look, size: float) -> dict[str, Any]:
    """A line with a mark at each of its points, unless it is a quiet one."""
    return look.line if look.quiet else look.line | {"marker": look.mark, "ms": size, "mec": PAPER, "mew": 0.6}


def _grey(names: dict[str, Look]) -> str:
    return "Grey: all other rows." if any(look.quiet for look in names.values()) else ""


def _short_label(label: str) -> str:
    label = re.sub(r"(\d+) to (\d+)", r"\1–\2", label.partition(":")[0]).replace(" and more", "+")
    return {"in the user's history": "had before", "new to the user": "new"}.get(label, label)


def _count(size: int) -> str:
    return f"{size:,}" if size < 1000 else f"{size / 1000:.3g}k" if size < 1_000_000 else f"{size / 1e6:.3g}M"


def plain_decades(axes: Axes, most: int = 6) -> None:
    """A logarithmic x axis with at most so many plain numbers: 0.01, 1, 100 instead of powers."""
    low, high = axes.get_xlim()
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    wide = np.log10(high / low)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)) if wide < 1 else ((1,), (1, 2, 5)) if wide < 2.2 else ((1,),):
        marks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(marks) > 2:
            break
    marks = marks or sorted({float(f"{mark:.3g}") for mark in np.geomspace(low, high, 4)[1:-1]})  # a narrow axis
    marks = marks[:: -(-len(marks) // most)]
    axes.set_xticks(marks, [f"{mark:,.10g}" for mark in marks])
    axes.minorticks_off()
