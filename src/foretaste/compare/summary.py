"""What a comparison found: one line a row, means with intervals, and each row against the best, case by case."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.compare.grid import Grid, Place
from foretaste.errors import DataError
from foretaste.evaluation.report import Evaluation
from foretaste.evaluation.significance import Paired, holm, intervals, paired

COSTS = ("tuning", "training", "ranking", "targets_per_second", "peak_mb", "weights", "median", "p90", "p99")
"""Seconds, targets trained a second, megabytes, a number, milliseconds an answer."""
Averaged = tuple[NDArray[np.float64], NDArray[np.int64]]
"""A figure of each case, and which cases belong together."""


@dataclass(frozen=True)
class Figure:
    """A metric of a row."""

    mean: float
    """Over the seeds."""
    low: float
    high: float
    """The 95 % interval over users: each user's figure is the mean over the seeds."""
    seeds: tuple[float, ...]
    """One value a seed."""

    def text(self) -> str:
        """In percent: `25.31 (24.90 to 25.71) [25.02 to 25.60]`."""
        text = f"{100 * self.mean:.2f} ({100 * self.low:.2f} to {100 * self.high:.2f})"
        if len(self.seeds) == 1:
            return text
        return f"{text} [{100 * min(self.seeds):.2f} to {100 * max(self.seeds):.2f}]"


@dataclass(frozen=True)
class Line:
    """What is known of a row."""

    name: str
    model: str
    published: str
    cells: tuple[dict[str, Any], ...] = ()
    """Finished, by seed."""
    failures: Mapping[int, str] = field(default_factory=dict)
    """Seed -> why its cell is not there."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """Metric -> what was found; "NAME: METRIC" for the questions beside the main one."""
    against: Paired | None = None
    """The reference less this row, in the first metric shown."""
    p: float | None = None
    """Of the randomisation test, after Holm's correction."""

    def cost(self, name: str) -> float | None:
        """Mean over the seeds of seconds ("tuning", "training", "ranking"), or of another of COSTS."""
        return _mean([_cost(cell, name) for cell in self.cells])


@dataclass(frozen=True)
class Summary:
    """All rows, in the order of the grid."""

    grid: Grid
    lines: tuple[Line, ...]
    reference: str
    """The row that the others are compared with."""

    def line(self, name: str) -> Line:
        """The line of a row."""
        return next(line for line in self.lines if line.name == name)


def summarise(place: Place) -> Summary:
    """Read what is finished. Rows that were not asked the same cases are refused."""
    grid = place.grid()
    cells = {row.name: [place.read(row.name, seed) for seed in grid.seeds] for row in grid.rows}
    there = {name: [cell for cell in found if cell is not None] for name, found in cells.items()}
    ranks = {name: _ranks(place, found) for name, found in there.items() if found}
    _same_cases(ranks)
    averaged = {name: _averaged(found, grid.show) for name, found in ranks.items() if found}
    metric = grid.show[0]
    reference = grid.reference if grid.reference in averaged else _best(averaged, metric)
    pairs = _pairs(averaged, reference, metric)
    lines = [
        Line(
            row.name, row.model, row.published, tuple(there[row.name]), _failures(place, grid, row.name),
            _figures(there[row.name], grid, averaged.get(row.name, {})), *pairs.get(row.name, (None, None)),
        )
        for row in grid.rows
    ]  # fmt: skip
    return Summary(grid, tuple(lines), reference)


def markdown(summary: Summary) -> str:
    """The table as text, with what must be known to read it."""
    grid, also = summary.grid, summary.grid.also
    names = [*grid.show, *(f"{name}: {metric}" for name in also for metric in grid.show)]
    protocol = next((line.cells[0]["test"]["protocol"] for line in summary.lines if line.cells), grid.ask)
    lines = [f"# {grid.title}", "", *([grid.about.strip(), ""] if grid.about else [])]
    lines += [
        f"Asked: {protocol}. In percent, means over the seeds. In round brackets the 95 % interval over users, each "
        "user's figure being the mean over the seeds; in square ones the least and the greatest seed."
        + (f" Difference: {summary.reference} less the row in {grid.show[0]}, with the interval of the paired "
           "bootstrap over users, and p of the randomisation test after Holm." if summary.reference else ""),
        "",
        "| row | " + " | ".join(names) + " | paper | difference | seeds | passes | chosen | training | ms an answer |",
        "| --- " * (len(names) + 8) + "|",
    ]  # fmt: skip
    for line in summary.lines:
        if line.cells:
            lines.append(_row(line, names))
    lines += [f"- {line.name}: {why}" for line in summary.lines for why in sorted(set(line.failures.values()))]
    return "\n".join(lines) + "\n"


def _row(line: Line, names: Sequence[str]) -> str:
    figures = [line.figures[name].text() if name in line.figures else "" for name in names]
    pair, cell = line.against, line.cells[0]
    gap = "" if pair is None else (
        f"{100 * pair.difference:+.2f} ({100 * pair.low:+.2f} to {100 * pair.high:+.2f}), p {line.p:.3f}"
    )  # fmt: skip
    chosen = ", ".join(f"{name} = {_short(value)}" for name, value in cell["chosen"].items())
    passes = ", ".join(str(one["passes"]) for one in line.cells if one["passes"])
    seconds, answer = line.cost("training"), line.cost("median")
    cost = [f"{seconds:,.0f} s" if seconds is not None else "", f"{answer:.1f}" if answer is not None else ""]
    return f"| {' | '.join([line.name, *figures, line.published, gap, str(len(line.cells)), passes, chosen, *cost])} |"


def numbers(summary: Summary) -> str:
    """Every number as CSV: row, model, seed, question, metric, value, low, high, optimistic."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "model", "seed", "question", "metric", "value", "low", "high", "optimistic"])
    for line in summary.lines:
        for cell in line.cells:
            for question, found in {"": cell["test"], **cell["also"]}.items():
                for metric, value in found["metrics"].items():
                    writer.writerow([
                        line.name, line.model, cell["seed"], question, metric,
                        *(value[name] for name in ("value", "low", "high", "optimistic")),
                    ])  # fmt: skip
            for name in COSTS:
                if (value := _cost(cell, name)) is not None:
                    writer.writerow([line.name, line.model, cell["seed"], "cost", name, value, "", "", ""])
    return out.getvalue()


def breakdowns(summary: Summary) -> str:
    """Figures by kind of case, of every question, as CSV: row, model, seed, question, kind, label, size, metric, value.

    `history` counts the events that a row's model was shown.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "model", "seed", "question", "kind", "label", "size", "metric", "value"])
    for line in summary.lines:
        for cell in line.cells:
            for question, found in {"": cell["test"], **cell["also"]}.items():
                for kind, groups in found.get("breakdown", {}).items():
                    for group in groups:
                        what = [line.name, line.model, cell["seed"], question, kind, group["label"], group["size"]]
                        writer.writerows([*what, name, group[name]] for name in group if name not in ("label", "size"))
    return out.getvalue()


def facts_of(summary: Summary) -> dict[str, Any]:
    """The comparison for machines."""
    lines = {
        line.name: {
            "model": line.model,
            "metrics": {name: vars(figure) for name, figure in line.figures.items()},
            "against": None if line.against is None else {**vars(line.against), "p_holm": line.p},
            "cost": {name: line.cost(name) for name in COSTS},
            "seeds": [cell["seed"] for cell in line.cells],
            "chosen": line.cells[0]["chosen"] if line.cells else None,
            "failures": dict(line.failures),
        }
        for line in summary.lines
    }
    return {"grid": summary.grid.as_dict(), "reference": summary.reference, "rows": lines}


def _ranks(place: Place, cells: Sequence[dict[str, Any]]) -> list[Evaluation]:
    """Of each cell; nothing where a file of ranks is missing."""
    paths = [place.ranks(cell["row"], cell["seed"]) for cell in cells]
    return [Evaluation.load_ranks(path) for path in paths] if all(path.exists() for path in paths) else []


def _same_cases(ranks: Mapping[str, Sequence[Evaluation]]) -> None:
    first: tuple[str, str] | None = None
    for name, found in ranks.items():
        for one in found:
            first = first or (name, one.facts.fingerprint)
            if one.facts.fingerprint != first[1]:
                raise DataError(
                    f"the rows '{first[0]}' and '{name}' were not asked the same cases among the same items; "
                    "delete the cells of one of them and run the comparison again"
                )


def _averaged(found: Sequence[Evaluation], show: Sequence[str]) -> dict[str, Averaged]:
    return {name: (np.mean([one.per_case[name] for one in found], axis=0), found[0].clusters) for name in show}


def _best(averaged: Mapping[str, Mapping[str, Averaged]], metric: str) -> str:
    return max(averaged, key=lambda name: averaged[name][metric][0].mean()) if averaged else ""


def _pairs(
    averaged: Mapping[str, Mapping[str, Averaged]], reference: str, metric: str
) -> dict[str, tuple[Paired, float]]:
    """The reference against each other row, and the corrected p value."""
    if reference not in averaged:
        return {}
    values, clusters = averaged[reference][metric]
    found = {name: paired(values, one[metric][0], clusters) for name, one in averaged.items() if name != reference}
    raised = holm([pair.p_randomisation for pair in found.values()])
    return {name: (pair, p) for (name, pair), p in zip(found.items(), raised, strict=True)}


def _figures(cells: Sequence[dict[str, Any]], grid: Grid, averaged: Mapping[str, Averaged]) -> dict[str, Figure]:
    """Every metric of every question. The interval of the mean needs the ranks; where only each seed's is known, the
    mean of their ends stands in, a little wide if anything."""
    out: dict[str, Figure] = {}
    for question in ("", *grid.also) if cells else ():
        asked = [cell["also"][question] if question else cell["test"] for cell in cells]
        for metric in asked[0]["metrics"]:
            seeds = tuple(one["metrics"][metric]["value"] for one in asked)
            low, high = (float(np.mean([one["metrics"][metric][end] for one in asked])) for end in ("low", "high"))
            if not question and metric in averaged:
                values, clusters = averaged[metric]
                low, high = intervals(values[:, None], clusters)[0]
            name = f"{question}: {metric}" if question else metric
            out[name] = Figure(float(np.mean(seeds)), float(low), float(high), seeds)
    return out


def _failures(place: Place, grid: Grid, row: str) -> dict[int, str]:
    paths = {seed: place.failure(row, seed) for seed in grid.seeds}
    return {seed: json.loads(path.read_text())["why"] for seed, path in paths.items() if path.exists()}


def _cost(cell: Mapping[str, Any], name: str) -> float | None:
    amounts = {
        **cell["seconds"],
        **(cell["milliseconds"] or {}),
        **{key: cell.get(key) for key in ("peak_mb", "weights", "targets_per_second")},
    }
    return None if amounts.get(name) is None else float(amounts[name])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
