"""Each row of a comparison against the reference, case by case; what was found is kept, for where the ranks are not.

pairs.json holds every paired result, and the interval of every mean over the seeds, with a mark of the cells that it
came from. As long as these are the same it is read instead of computed, so a folder without ranks (half a megabyte a
cell) still says which rows differ, and how sure each figure is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.compare.grid import Place
from foretaste.data.files import write_text
from foretaste.errors import SavedFileError
from foretaste.evaluation.significance import DRAWS, Paired, holm, paired

Averaged = tuple[NDArray[np.float64], NDArray[np.int64]]
"""A figure of each case, and which cases belong together."""
Cells = Sequence[Mapping[str, Any]]
Ends = tuple[float, float]


def against(
    place: Place,
    metric: str,
    reference: str,
    cells: Mapping[str, Cells],
    averaged: Mapping[str, Mapping[str, Averaged]],
    *,
    named: bool,
) -> dict[str, tuple[Paired, float]]:
    """The reference less each other row in `metric`, and p after Holm's correction, for all rows that can be known.

    Over these rows, where the reference was `named` beforehand; over all pairs of rows where it is the best of them.
    """
    if not cells.get(reference):
        return {}
    draws = _draws(cells, reference, named)
    kept, found = _kept(place, metric, reference, cells, draws), {}
    for name, mine in cells.items():
        if name == reference or not mine:
            continue
        if name in kept:
            found[name] = kept[name]
        elif name in averaged and reference in averaged:
            (values, clusters), (others, _) = averaged[reference][metric], averaged[name][metric]
            found[name] = paired(values, others, clusters, draws=draws)
    pairs = _pairs(len(found), named)
    raised = holm([pair.p_randomisation for pair in found.values()], pairs)
    return {name: (pair, p) for (name, pair), p in zip(found.items(), raised, strict=True)}


def keep(
    place: Place,
    metric: str,
    reference: str,
    cells: Mapping[str, Cells],
    found: Mapping[str, Paired],
    ends: Mapping[str, Mapping[str, Ends]],
    *,
    named: bool,
) -> None:
    """Write pairs.json; `ends` are the intervals of each row, by metric."""
    rows = {name: {"of": mark(cells[name], metric), **asdict(pair)} for name, pair in found.items()}
    sure = {name: {"of": mark(cells[name], metric), **mine} for name, mine in ends.items() if mine}
    of = mark(cells.get(reference, ()), metric)
    draws = _draws(cells, reference, named)
    facts = {"metric": metric, "draws": draws, "reference": reference, "of": of, "rows": rows, "intervals": sure}
    write_text(place.folder / "pairs.json", json.dumps(facts, indent=1) + "\n")


def mark(cells: Cells, metric: str) -> str:
    """The same for the same cells."""
    facts = [[cell["seed"], cell["test"].get("fingerprint"), cell["test"]["metrics"][metric]] for cell in cells]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def kept_ends(place: Place, metric: str, cells: Mapping[str, Cells]) -> dict[str, dict[str, Ends]]:
    """The intervals, by row and metric, that pairs.json still holds of these cells."""
    with _reading(place) as facts:
        known = _same(facts.get("intervals", {}), metric, cells) if facts.get("metric") == metric else {}
        return {
            row: {name: (float(low), float(high)) for name, (low, high) in one.items()} for row, one in known.items()
        }


def draws_for(others: int, named: bool) -> int:
    """Of the randomisation test of so many rows against one: the least p must stay well below 0.05 when corrected."""
    pairs = _pairs(others, named)
    return DRAWS if pairs <= DRAWS // 25 else 100 * pairs


def _draws(cells: Mapping[str, Cells], reference: str, named: bool) -> int:
    return draws_for(sum(bool(mine) for name, mine in cells.items() if name != reference), named)


def _pairs(others: int, named: bool) -> int:
    return others if named else others * (others + 1) // 2


def _kept(place: Place, metric: str, reference: str, cells: Mapping[str, Cells], draws: int) -> dict[str, Paired]:
    """The paired results that pairs.json still holds of these cells."""
    with _reading(place) as facts:
        about = [facts.get(name) for name in ("metric", "draws", "reference", "of")]
        if about != [metric, draws, reference, mark(cells[reference], metric)]:
            return {}
        return {name: Paired(**one) for name, one in _same(facts["rows"], metric, cells).items()}


def _same(rows: Mapping[str, dict[str, Any]], metric: str, cells: Mapping[str, Cells]) -> dict[str, dict[str, Any]]:
    """What is said of rows whose cells are those that it came from."""
    marks = {name: one.pop("of") for name, one in rows.items()}
    return {name: one for name, one in rows.items() if cells.get(name) and marks[name] == mark(cells[name], metric)}


@contextmanager
def _reading(place: Place) -> Iterator[dict[str, Any]]:
    """What pairs.json says, nothing where there is none; one error about whatever cannot be read of it."""
    path = place.folder / "pairs.json"
    try:
        yield json.loads(path.read_text("utf-8")) if path.exists() else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SavedFileError(
            f"{path}: cannot be read ({error}); delete it, and it is made again from the ranks"
        ) from None
