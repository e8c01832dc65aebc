"""Figures by kind of case: how many events were known, how popular the target is, whether the user had it before.

A session model is shown the open session and a user model all of the user's events, so "how many events were known" has
two answers. From the ranks, every row is broken down by each of them: the same cases fall into the same groups for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from foretaste.compare.grid import Place
from foretaste.compare.summary import Line
from foretaste.evaluation.report import Evaluation
from foretaste.models import MODELS, model_class

TITLES = {
    "session": "Events of the open session before the question",
    "user": "Events of the user before the question",
    "history": "Events known before the question",
    "popularity": "Popularity of the target",
    "repeats": "Whether the user had the target before",
}


@dataclass(frozen=True)
class Group:
    """One kind of case."""

    label: str
    size: int
    means: Mapping[str, Mapping[str, float]]
    """Metric -> row -> mean over the seeds."""


@dataclass(frozen=True)
class Breakdown:
    """All kinds of one sort."""

    name: str
    title: str
    unit: str
    """What is counted."""
    groups: tuple[Group, ...]

    @property
    def metrics(self) -> list[str]:
        """In the order in which they are measured."""
        return list(dict.fromkeys(metric for group in self.groups for metric in group.means))


Found = Mapping[str, Sequence[Mapping[str, list[dict[str, Any]]]]]
"""Row -> seed -> what `Evaluation.breakdown` gives."""


def breakdowns(place: Place, lines: Sequence[Line]) -> list[Breakdown]:
    """Every sort with at least two kinds."""
    told = {line.name: [cell["test"]["breakdown"] for cell in line.cells] for line in lines}
    out = [
        *_by_length(place, lines, told),
        _of(told, "popularity", "popularity", "targets"),
        _of(told, "repeats", "repeats", "targets"),
    ]
    return [one for one in out if len(one.groups) > 1]


def besides(lines: Sequence[Line], question: str) -> list[Breakdown]:
    """The same for a question that was asked besides; of it the cells keep figures, and no ranks."""
    told = {line.name: [cell["also"].get(question, {}).get("breakdown", {}) for cell in line.cells] for line in lines}
    out = [
        *_apart(lines, told),
        _of(told, "popularity", "popularity", "targets"),
        _of(told, "repeats", "repeats", "targets"),
    ]
    return [
        replace(one, name=f"{question} {one.name}", title=f"{question}: {one.title[0].lower()}{one.title[1:]}")
        for one in out
        if len(one.groups) > 1
    ]


def _by_length(place: Place, lines: Sequence[Line], told: Found) -> list[Breakdown]:
    """By what each sort of model was shown; without ranks, each sort of model for itself."""
    ranks = {line.name: _ranks(place, line) for line in lines}
    if not all(ranks.values()):
        return _apart(lines, told)
    shown: dict[str, np.ndarray[Any, Any]] = {}
    for line in lines:
        history = ranks[line.name][0].history
        if not any(np.array_equal(history, other) for other in shown.values()):
            shown[_scope(line, shown)] = history
    out = []
    for name, history in shown.items():
        found = {
            row: [replace(one, history=history).breakdown() for one in each] for row, each in ranks.items()
        }  # fmt: skip
        out.append(_of(found, "history", name if len(shown) > 1 else "history", "cases"))
    return out


def _apart(lines: Sequence[Line], told: Found) -> list[Breakdown]:
    """Rows whose groups have the same sizes together."""
    alike: dict[str, dict[str, Any]] = {}
    for line in lines:
        sizes = repr([(one["label"], one["size"]) for one in told[line.name][0].get("history", [])])
        alike.setdefault(sizes, {})[line.name] = told[line.name]
    names: dict[str, Any] = {}
    for found in alike.values():
        first = next(line for line in lines if line.name in found)
        names[_scope(first, names)] = found
    return [_of(found, "history", name if len(names) > 1 else "history", "cases") for name, found in names.items()]


def _scope(line: Line, taken: Mapping[str, Any]) -> str:
    """What a row of its model is, by the cell or by the model; the row itself where that is said already."""
    scope: str = line.cells[0].get("scope") or (model_class(line.model).scope if line.model in MODELS else line.name)
    return scope if scope not in taken else f"as {line.name} was shown them"


def _of(found: Found, kind: str, name: str, unit: str) -> Breakdown:
    sizes: dict[str, int] = {}
    means: dict[str, dict[str, dict[str, float]]] = {}
    for row, seeds in found.items():
        for one in seeds:
            for group in one.get(kind, ()):
                sizes.setdefault(group["label"], group["size"])
                for metric in group.keys() - {"label", "size"}:
                    of = means.setdefault(group["label"], {}).setdefault(metric, {})
                    of[row] = of.get(row, 0.0) + group[metric] / len(seeds)
    order = sorted({metric for each in means.values() for metric in each}, reverse=True)  # recall, then mrr
    groups = [Group(label, size, {metric: means[label][metric] for metric in order}) for label, size in sizes.items()]
    return Breakdown(name, TITLES.get(name, f"{TITLES['history']}, {name}"), unit, tuple(groups))


def _ranks(place: Place, line: Line) -> list[Evaluation]:
    paths = [place.ranks(line.name, cell["seed"]) for cell in line.cells]
    return [Evaluation.load_ranks(path) for path in paths] if all(path.exists() for path in paths) else []
