"""The chosen model beside the best of another kind, metric by metric (NARM, Figure 5)."""

from __future__ import annotations

from collections.abc import Iterator

from foretaste.compare.summary import Line, Summary
from foretaste.pages.drawings import INK, SOFT, Gallery, Look, canvas, only, short
from foretaste.pages.html import Html

GROUPS = 8
"""Pairs of bars that one drawing has room for."""


def pair_of(summary: Summary) -> tuple[Line, Line] | None:
    """The row that the others are compared with, and the best row of another model."""
    metric = summary.grid.show[0]
    there = [line for line in summary.lines if metric in line.figures]
    first = next((line for line in there if line.name == summary.reference), None)
    others = [line for line in there if first is not None and line.model != first.model]
    if first is None or not others:
        return None
    return first, max(others, key=lambda line: line.figures[metric].mean)


def beside_the_best_other(gallery: Gallery, summary: Summary, names: dict[str, Look]) -> Iterator[Html]:
    """Two bars a metric, with intervals, and how much more the first reaches."""
    pair = pair_of(summary)
    if pair is None:
        return
    first, second = pair
    metrics = [name for name in _measured(summary) if name in first.figures and name in second.figures][:GROUPS]
    figure, axes = canvas(3.3)
    wide, tops = 0.38, []
    for line, aside in ((first, -wide / 2), (second, wide / 2)):
        found, look = [line.figures[name] for name in metrics], names[line.name]
        x = [place + aside for place in range(len(metrics))]
        label = f" {short(line.name)}"  # a name that begins with _ would be left out of the legend
        axes.bar(x, [100 * one.mean for one in found], wide * 0.94, color=look.colour, alpha=0.75, label=label)
        for place, one in zip(x, found, strict=True):
            axes.plot([place, place], [100 * one.low, 100 * one.high], color=INK, lw=1.2)
        tops.append([100 * one.high for one in found])
    for place, (name, top) in enumerate(zip(metrics, map(max, *tops), strict=True)):
        base = second.figures[name].mean
        if base > 0:
            more = 100 * (first.figures[name].mean / base - 1)
            gain = f"{more:+.1f} %" if abs(more) < 100 else f"{more:+.0f} %"
            axes.annotate(gain, (place, top), (0, 3), textcoords="offset points", ha="center", fontsize=9)
    turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(metrics) > 4 else {}
    axes.set_xticks(range(len(metrics)), metrics, **turned)
    axes.set_ylabel("%")
    axes.margins(y=0.12)
    only(axes, "y")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=10, labelcolor=INK)
    axes.tick_params(axis="x", color=SOFT)
    yield gallery.show(
        "beside the best other", figure, f"{first.name} beside {second.name}, the best row of another model.",
        f"Above each pair: how much more {first.name} reaches, in percent of {second.name}. Strokes: 95 % "
        "intervals.",
    )  # fmt: skip


def _measured(summary: Summary) -> list[str]:
    """The metrics shown, at every length of the list that was measured."""
    kinds = dict.fromkeys(name.partition("@")[0] for name in summary.grid.show)
    known = {name for line in summary.lines for name in line.figures if ":" not in name}
    lengths = {
        kind: sorted(int(name.partition("@")[2]) for name in known if name.startswith(f"{kind}@")) for kind in kinds
    }
    return [f"{kind}@{k}" for kind in kinds for k in lengths[kind]]
