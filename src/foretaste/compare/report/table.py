"""The tables. A heading is a button: pressed, by mouse or by keyboard, it sorts; without scripts tables are plain.

What a heading means stands in its title, for a mouse, and below the table, for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foretaste.compare.report.kinds import Breakdown
from foretaste.compare.summary import Line, Summary
from foretaste.compare.written import p_value, plain
from foretaste.models import MODELS
from foretaste.pages.drawings import Look
from foretaste.pages.html import Html, join, tag
from foretaste.training.progress import clock

BREAK = tag("br")
MEASURES = {
    "recall": "Share of a case's targets that are among the first k",
    "hr": "Share of the cases of which a target is among the first k",
    "precision": "Share of the first k that are targets",
    "f1": "Harmonic mean of precision and recall, in each case",
    "mrr": "1 / rank of a case's best target, 0 beyond k",
    "mrr-mean": "Mean of 1 / rank over a case's targets, 0 beyond k",
    "ndcg": "Discounted gain of the first k, as a share of the best possible",
    "ndcg-fixed": "Discounted gain of the first k, as a share of k targets in a row",
}
"""Metric -> what it counts."""


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, a smaller line below it, and what it is sorted by; None is always last."""

    text: Any = ""
    below: Any = None
    key: float | str | None = None


@dataclass(frozen=True)
class Column:
    """A heading, what it means, and whether a first press brings the greatest to the top."""

    head: str
    about: str = ""
    number: bool = True
    falling: bool = True


def sortable(caption: Html, columns: Sequence[Column], rows: Sequence[tuple[Cell, Sequence[Cell]]], name: str) -> Html:
    """A table whose first column names the row. A row without cells spans: its name, and why there is nothing."""
    heads = [_head(column, rising=place == 0) for place, column in enumerate(columns)]
    body = []
    for title, cells in rows:
        first = tag("th", title.text, title.below, data_key=title.key, scope="row")
        if len(cells) == 1 < len(columns) - 1:
            body.append(
                tag("tr", first, tag("td", tag("span", cells[0].text), colspan=len(columns) - 1), class_="failed")
            )
            continue
        body.append(tag("tr", first, *map(_cell, columns[1:], cells)))
    table = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *heads)), tag("tbody", *body), class_="sortable"
    )
    return tag("div", table, class_="wide", role="region", aria_label=name, tabindex="0")


def results(summary: Summary, names: dict[str, Look]) -> Html:
    """Every row with its figures, differences and costs; failed ones with their reason."""
    grid, metrics = summary.grid, _metrics(summary)
    columns = _columns(summary, metrics)
    metric = grid.show[0]
    known = [line for line in summary.lines if metric in line.figures]
    known.sort(key=lambda line: -line.figures[metric].mean)
    best = known[0].name if known else ""
    rows = [(_named(line, names, line.name == best), _cells(line, summary, metrics)) for line in known]
    for line in summary.lines:
        if metric not in line.figures:
            why = "; ".join(dict.fromkeys(line.failures.values())) or "not finished yet"
            rows.append((_named(line, names, False), [Cell(f"No result: {why}")]))
    hint = tag("span", " Press a heading to sort by it.", class_="sorting")
    said = "Metrics in percent, below them 95 % intervals. What each column means stands below the table."
    caption = tag("span", said, hint, class_="hint")
    return join(sortable(caption, columns, rows, "Results of every model"), glossary(columns))


def glossary(columns: Sequence[Column]) -> Html:
    """What each column means, behind a heading that opens by mouse, finger or key."""
    heads: dict[str, list[str]] = {}
    for column in columns:
        if column.about:
            heads.setdefault(column.about, []).append(column.head)
    terms = (join(tag("dt", ", ".join(of)), tag("dd", about)) for about, of in heads.items())
    return tag("details", tag("summary", "What the columns mean"), tag("dl", *terms))


def _columns(summary: Summary, metrics: Sequence[str]) -> list[Column]:
    """Of the results, in the order in which `_cells` fills them."""
    return [
        Column("model", number=False, falling=False),
        *(Column(metric, _measured(metric)) for metric in metrics),
        Column("difference", f"How far {summary.reference} is above this row, in points of {summary.grid.show[0]}",
               falling=False),
        Column("p", f"Paired randomisation test over {summary.units}, after Holm's correction"
               + ("" if summary.reference == summary.grid.reference else " over all pairs of rows"), falling=False),
        Column("ahead", f"{summary.units.capitalize()} for which this row is better than {summary.reference}"),
        *([Column("paper", "What the paper prints")] if _published(summary) else []),
        Column("training", "Training with the chosen settings, once", falling=False),
        Column("tuning", "All that was tried, by the first seed", falling=False),
        Column("ms an answer", "Median of one request at a time, from raw ids to 20 items; below it the slowest in 100",
               falling=False),
        Column("memory MB", "Most that its process held", falling=False),
        Column("weights", "Numbers that the model keeps", falling=False),
        Column("seeds", "Trainings with the chosen settings"),
        Column("passes", "Over the log, in the training of each seed"),
        Column("chosen", "Settings that were best on the validation part", number=False, falling=False),
    ]  # fmt: skip


def _measured(metric: str) -> str:
    """What a metric counts, and how it is told: `recall@20`, `mrr`, `NAME: recall@20`."""
    what = MEASURES.get(metric.rpartition(": ")[2].partition("@")[0])
    told = "In percent, mean over the seeds; below it the 95 % interval"
    return told if what is None else f"{what}. {told}"


def breakdown(lines: Sequence[Line], names: dict[str, Look], parts: Breakdown, metric: str) -> Html:
    """A metric of each row by kind of case: what the curves show, as numbers; the darker, the better."""
    most = max((value for group in parts.groups for value in group.means[metric].values()), default=0.0) or 1.0
    heads = (Column(group.label, f"{group.size:,} {parts.unit}") for group in parts.groups)
    rows = []
    for line in lines:
        values = [group.means[metric].get(line.name) for group in parts.groups]
        if any(value is not None for value in values):
            rows.append((_named(line, names, False), [_shaded(value, most) for value in values]))
    sizes = "; ".join(f"{group.label}: {group.size:,}" for group in parts.groups)
    caption = tag("span", f"{metric}, %, by {parts.unit}. {sizes}.", class_="hint")
    return sortable(caption, [Column("model", number=False, falling=False), *heads], rows, f"{parts.title}: {metric}")


def _metrics(summary: Summary) -> list[str]:
    grid = summary.grid
    return [*grid.show, *(f"{name}: {metric}" for name in grid.also for metric in grid.show)]


def _cells(line: Line, summary: Summary, metrics: Sequence[str]) -> list[Cell]:
    cells = []
    for metric in metrics:
        figure = line.figures.get(metric)
        if figure is None:
            cells.append(Cell())
            continue
        several = len(figure.seeds) > 1
        below = [f"{100 * figure.low:.2f} to {100 * figure.high:.2f}"]
        if several:
            below.append(f"seeds {100 * min(figure.seeds):.2f} to {100 * max(figure.seeds):.2f}")
        cells.append(Cell(figure.value, join(*below, by=BREAK), figure.mean))
    pair = line.against
    if pair is None:
        same = line.name == summary.reference
        cells += [Cell("reference" if same else "not tested", None, 0.0 if same else None), Cell(), Cell()]
    else:
        span = f"{100 * pair.low:+.2f} to {100 * pair.high:+.2f}"
        cells += [
            Cell(f"{100 * pair.difference:+.2f}", span, pair.difference),
            Cell(p_value(line.p), None, line.p),
            Cell(f"{pair.losses:,}", f"of {pair.clusters:,}", pair.losses),
        ]
    if _published(summary):
        cells.append(Cell(line.published))
    return cells + _costs(line)


def _published(summary: Summary) -> bool:
    return any(line.published for line in summary.lines)


def _costs(line: Line) -> list[Cell]:
    tuning, training, median, slow = (line.cost(name) for name in ("tuning", "training", "median", "p99"))
    first = line.cells[0]
    memory, weights = line.cost("peak_mb"), line.cost("weights")
    passes = [cell["passes"] for cell in line.cells if cell["passes"]]
    chosen = ", ".join(f"{name} = {plain(value)}" for name, value in first["chosen"].items())
    return [
        Cell(seconds(training), None, training),
        Cell(seconds(tuning), f"{len(first['tried'])} tried" if first["tried"] else None, tuning),
        Cell("cannot serve", None, None) if median is None else
        Cell(f"{median:.2f}", None if slow is None else f"p99 {slow:.1f}", median),
        Cell("" if memory is None else f"{memory:,.0f}", None, memory),
        Cell("" if weights is None else f"{weights:,.0f}", None, weights),
        Cell(len(line.cells), f"{len(line.failures)} failed" if line.failures else None, len(line.cells)),
        Cell(", ".join(map(str, passes)) or "none", None, float(passes[0]) if passes else 0.0),
        Cell(chosen or "as it is", None, chosen),
    ]  # fmt: skip


def named(name: str, names: dict[str, Look]) -> Html:
    """A row's name with its colour and mark."""
    look = names[name]
    return join(tag("span", look.sign, style=f"color:{look.variable}", aria_hidden="true"), "\u00a0", name)


def seconds(value: float | None) -> str:
    """0.4 s, 94 s, 12:30."""
    if value is None:
        return ""
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s" if value < 120 else clock(value)


def _named(line: Line, names: dict[str, Look], best: bool) -> Cell:
    below = line.model if line.model != line.name and line.model in MODELS else None
    mark = tag("span", "best", class_="best") if best else None
    return Cell(join(named(line.name, names), mark), None if below is None else tag("small", below), line.name)


def _shaded(value: float | None, most: float) -> Cell:
    if value is None:
        return Cell()
    text = tag("span", f"{100 * value:.2f}", class_="shade", style=f"--share:{100 * value / most:.0f}%")
    return Cell(text, None, value)


def _head(column: Column, rising: bool) -> Html:
    order = "falling" if column.falling and not rising else "rising"
    button = tag("button", column.head, type="button", title=column.about or None, data_first=order)
    kind = None if column.number else "words"
    return tag("th", button, scope="col", aria_sort="none", class_=kind)


def _cell(column: Column, cell: Cell) -> Html:
    below = None if cell.below is None else tag("small", cell.below)
    key = "" if cell.key is None else cell.key
    return tag("td", cell.text, below, data_key=key, class_="number" if column.number else "words")
