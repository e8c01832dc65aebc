"""Every number of a comparison as CSV: single figures, rows, kinds of cases, passes and trials."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from foretaste.compare.summary import COSTS, Summary, cost_of


def numbers(summary: Summary) -> str:
    """Each cell: row, model, seed, question, metric, value, low, high, optimistic."""

    def lines() -> Iterator[Sequence[Any]]:
        for name, model, cell in _cells(summary):
            for question, found in _questions(cell):
                for metric, value in found["metrics"].items():
                    ends = (value[end] for end in ("value", "low", "high", "optimistic"))
                    yield [name, model, cell["seed"], question, metric, *ends]
            for cost in COSTS:
                if (amount := cost_of(cell, cost)) is not None:
                    yield [name, model, cell["seed"], "cost", cost, amount, "", "", ""]

    heads = ["row", "model", "seed", "question", "metric", "value", "low", "high", "optimistic"]
    return _sheet(heads, lines())


def rows(summary: Summary) -> str:
    """Means over the seeds with the interval over users; in the first metric the difference from the reference too."""
    metric = summary.grid.show[0]

    def lines() -> Iterator[Sequence[Any]]:
        for line in summary.lines:
            pair = line.against
            for name, figure in line.figures.items():
                gap: list[Any] = [""] * 4
                if name == metric and pair is not None:
                    gap = [pair.difference, pair.low, pair.high, line.p]
                yield [line.name, line.model, name, figure.mean, figure.low, figure.high, len(figure.seeds), *gap]

    heads = ["row", "model", "metric", "mean", "low", "high", "seeds", "difference", "difference_low",
             "difference_high", "p_holm"]  # fmt: skip
    return _sheet(heads, lines())


def breakdowns(summary: Summary) -> str:
    """Figures by kind of case, of every question. `history` counts the events that a row's model was shown."""

    def lines() -> Iterator[Sequence[Any]]:
        for name, model, cell in _cells(summary):
            for question, found in _questions(cell):
                for kind, groups in found.get("breakdown", {}).items():
                    for group in groups:
                        what = [name, model, cell["seed"], question, kind, group["label"], group["size"]]
                        yield from ([*what, key, group[key]] for key in group if key not in ("label", "size"))

    return _sheet(["row", "model", "seed", "question", "kind", "label", "size", "metric", "value"], lines())


def passes(summary: Summary) -> str:
    """The passes of the training that chose their number: loss, validation metric, seconds."""
    metric = summary.grid.metric

    def lines() -> Iterator[Sequence[Any]]:
        for name, model, cell in _cells(summary):
            for one in cell["history"]:
                found = one.get("validation", {}).get(metric, "")
                yield [name, model, cell["seed"], one["epoch"], one["loss"], found, one["seconds"]]

    return _sheet(["row", "model", "seed", "pass", "loss", f"validation {metric}", "seconds"], lines())


def trials(summary: Summary) -> str:
    """All that was tried of each row, by what it reached on the validation part."""

    def lines() -> Iterator[Sequence[Any]]:
        for name, model, cell in _cells(summary):
            for one in cell["tried"]:
                facts = (one[key] for key in ("score", "best_epoch", "passes", "seconds", "pruned", "error"))
                chosen = one["change"] == cell["chosen"]
                yield [name, model, cell["seed"], json.dumps(one["change"], sort_keys=True), *facts, chosen]

    heads = ["row", "model", "seed", "settings", f"validation {summary.grid.metric}", "best_pass", "passes", "seconds",
             "given_up", "error", "chosen"]  # fmt: skip
    return _sheet(heads, lines())


def _cells(summary: Summary) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for line in summary.lines:
        for cell in line.cells:
            yield line.name, line.model, cell


def _questions(cell: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "", cell["test"]
    yield from cell["also"].items()


def _sheet(heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(lines)
    return out.getvalue()


SHEETS: Mapping[str, Callable[[Summary], str]] = {
    "numbers.csv": numbers,
    "rows.csv": rows,
    "breakdowns.csv": breakdowns,
    "passes.csv": passes,
    "trials.csv": trials,
}
"""File name -> what writes it."""
