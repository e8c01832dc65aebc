"""What a comparison found: one line a row, means with intervals, and each row against the best, case by case."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.compare.cases import Cases, read
from foretaste.compare.grid import Grid, Place
from foretaste.compare.pairs import Averaged, Ends, against, kept_ends
from foretaste.errors import DataError
from foretaste.evaluation.significance import Paired, intervals

COSTS = (
    "tuning",
    "training",
    "ranking",
    "targets_per_second",
    "peak_mb",
    "gpu_peak_mb",
    "weights",
    "median",
    "p90",
    "p99",
)
"""Seconds, targets trained a second, megabytes, a number, milliseconds an answer."""
SAME = 1e-6
"""A metric of a cell and of its cases may differ by so much: the order of a sum."""


@dataclass(frozen=True)
class Figure:
    """A metric of a row."""

    mean: float
    """Over the seeds."""
    low: float
    high: float
    """The 95 % interval over users (or sessions): the figure of each is the mean over the seeds."""
    seeds: tuple[float, ...]
    """One value a seed."""
    optimistic: float | None = None
    """The mean, ties counted for the model."""

    @property
    def value(self) -> str:
        """The mean in percent: `25.31`; `25.31-25.40` where ties make a difference."""
        value, best = f"{100 * self.mean:.2f}", f"{100 * (self.optimistic or self.mean):.2f}"
        return value if value == best else f"{value}-{best}"

    def text(self) -> str:
        """In percent: `25.31 (24.90 to 25.71) [25.02 to 25.60]`."""
        text = f"{self.value} ({100 * self.low:.2f} to {100 * self.high:.2f})"
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
        """Mean over the seeds of seconds ("training", "ranking"), or of another of COSTS; of "tuning", what the first
        seed took: the others train what it chose."""
        return _mean([cost_of(cell, name) for cell in (self.cells[:1] if name == "tuning" else self.cells)])

    @property
    def machines(self) -> tuple[str, ...]:
        """On what its cells were made; costs compare between rows of one machine alone."""
        return tuple(sorted({machine for cell in self.cells if (machine := machine_of(cell))}))


@dataclass(frozen=True)
class Summary:
    """All rows, in the order of the grid."""

    grid: Grid
    lines: tuple[Line, ...]
    reference: str
    """The row that the others are compared with."""

    @property
    def units(self) -> str:
        """What intervals and tests draw: "users", or "sessions" of a log without users."""
        found = {cell.get("units", "users or sessions") for line in self.lines for cell in line.cells}
        return found.pop() if len(found) == 1 else "users or sessions"

    def line(self, name: str) -> Line:
        """The line of a row."""
        return next(line for line in self.lines if line.name == name)


def summarise(place: Place) -> Summary:
    """What `finished` finds, as lines with intervals and tests."""
    grid = place.grid()
    there, cases = finished(place, grid)
    averaged = {name: _averaged(each, grid.show) for name, each in cases.items() if each}
    ends = kept_ends(place, grid.show[0], there)
    for name, mine in averaged.items():
        ends[name] = {metric: _ends(*mine[metric]) for metric in grid.show}
    figures = {row.name: _figures(there[row.name], grid, ends.get(row.name, {})) for row in grid.rows}
    named = bool(there.get(grid.reference))
    reference = grid.reference if named else _best(figures, grid.show[0])
    pairs = against(place, grid.show[0], reference, there, averaged, named=named)
    lines = [
        Line(
            row.name, row.model, row.published, tuple(there[row.name]), _failures(place, grid, row.name),
            figures[row.name], *pairs.get(row.name, (None, None)),
        )
        for row in grid.rows
    ]  # fmt: skip
    return Summary(grid, tuple(lines), reference)


def finished(place: Place, grid: Grid) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[Cases]]]:
    """The finished cells of each row, and their cases where they are known.

    Rows that were not asked the same cases are refused, and so are cases of another run.
    """
    cells = {row.name: [place.read(row.name, seed) for seed in grid.seeds] for row in grid.rows}
    there = {name: [cell for cell in found if cell is not None] for name, found in cells.items()}
    cases = {name: _cases(place, found, grid.show) for name, found in there.items() if found}
    _same_cases(cases)
    for name, each in cases.items():
        _same_run(place, there[name], each, grid.show[0])
    return there, cases


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


def _cases(place: Place, cells: Sequence[dict[str, Any]], show: Sequence[str]) -> list[Cases]:
    """Of each cell; nothing where those of one are not known."""
    found = [read(place, cell, show) for cell in cells]
    known = [each for each in found if each is not None]
    return known if len(known) == len(found) else []


def _same_cases(cases: Mapping[str, Sequence[Cases]]) -> None:
    first: tuple[str, str] | None = None
    for name, found in cases.items():
        for one in found:
            first = first or (name, one.fingerprint)
            if one.fingerprint != first[1]:
                raise DataError(
                    f"the rows '{first[0]}' and '{name}' were not asked the same cases among the same items; "
                    "delete the cells of one of them and run the comparison again"
                )


def _same_run(place: Place, cells: Sequence[dict[str, Any]], cases: Sequence[Cases], metric: str) -> None:
    for cell, one in zip(cells, cases, strict=False):  # there are none where those of a cell are not known
        kept, mean = cell["test"]["metrics"][metric]["value"], float(one.values[metric].mean())
        if abs(mean - kept) > SAME:
            raise DataError(
                f"{one.path}: the cases here have {metric} {mean:.6f}, the cell beside them says {kept:.6f}, so they "
                f"are of another run; delete {place.cell(cell['row'], cell['seed'])} and run the comparison again"
            )


def _averaged(found: Sequence[Cases], show: Sequence[str]) -> dict[str, Averaged]:
    return {name: (np.mean([one.values[name] for one in found], axis=0), found[0].clusters) for name in show}


def _best(figures: Mapping[str, Mapping[str, Figure]], metric: str) -> str:
    return max(figures, key=lambda name: figures[name][metric].mean if figures[name] else -1.0, default="")


def _ends(values: NDArray[np.float64], clusters: NDArray[np.int64]) -> Ends:
    low, high = intervals(values[:, None], clusters)[0]
    return float(low), float(high)


def _figures(cells: Sequence[dict[str, Any]], grid: Grid, ends: Mapping[str, Ends]) -> dict[str, Figure]:
    """Every metric of every question. Where only the interval of each seed is known, the mean of their ends stands in
    for that of the mean, a little wide if anything."""
    out: dict[str, Figure] = {}
    for question in ("", *grid.also) if cells else ():
        asked = [cell["also"][question] if question else cell["test"] for cell in cells]
        for metric in asked[0]["metrics"]:
            seeds = tuple(one["metrics"][metric]["value"] for one in asked)
            low, high = (float(np.mean([one["metrics"][metric][end] for one in asked])) for end in ("low", "high"))
            if not question:
                low, high = ends.get(metric, (low, high))
            name = f"{question}: {metric}" if question else metric
            best = float(np.mean([one["metrics"][metric]["optimistic"] for one in asked]))
            out[name] = Figure(float(np.mean(seeds)), low, high, seeds, best)
    return out


def _failures(place: Place, grid: Grid, row: str) -> dict[int, str]:
    paths = {seed: place.failure(row, seed) for seed in grid.seeds}
    return {seed: json.loads(path.read_text())["why"] for seed, path in paths.items() if path.exists()}


def cost_of(cell: Mapping[str, Any], name: str) -> float | None:
    """One of COSTS, of one cell."""
    amounts = {
        **cell["seconds"],
        **(cell["milliseconds"] or {}),
        **{key: cell.get(key) for key in ("peak_mb", "gpu_peak_mb", "weights", "targets_per_second")},
    }
    return None if amounts.get(name) is None else float(amounts[name])


def machine_of(cell: Mapping[str, Any]) -> str:
    """`AMD EPYC, 1 of 2 cores, torch 2.13.0+cpu`; nothing where the cell does not say."""
    if "machine" not in cell:
        return ""
    one = cell["machine"]
    cores = f"{one['processor']}, {cell.get('threads', 1)} of {one['cores']} cores"
    return f"{one.get('gpu') or cores}, torch {one['torch']}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
