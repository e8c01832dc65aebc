"""Each row of a comparison against the reference, case by case; what was found is kept, for where the ranks are not.

pairs.json holds every paired result with a mark of the cells that it came from. As long as these are the same it is
read instead of computed, so a folder without ranks (half a megabyte a cell) still says which rows differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
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


def against(
    place: Place,
    metric: str,
    reference: str,
    cells: Mapping[str, Cells],
    averaged: Mapping[str, Mapping[str, Averaged]],
) -> dict[str, tuple[Paired, float]]:
    """The reference less each other row in `metric`, and p after Holm's correction, for all rows that can be known."""
    if not cells.get(reference):
        return {}
    kept, found = _kept(place, metric, reference, cells), {}
    for name, mine in cells.items():
        if name == reference or not mine:
            continue
        if name in kept:
            found[name] = kept[name]
        elif name in averaged and reference in averaged:
            (values, clusters), (others, _) = averaged[reference][metric], averaged[name][metric]
            found[name] = paired(values, others, clusters)
    raised = holm([pair.p_randomisation for pair in found.values()])
    return {name: (pair, p) for (name, pair), p in zip(found.items(), raised, strict=True)}


def keep(place: Place, metric: str, reference: str, cells: Mapping[str, Cells], found: Mapping[str, Paired]) -> None:
    """Write pairs.json."""
    rows = {name: {"of": mark(cells[name], metric), **asdict(pair)} for name, pair in found.items()}
    of = mark(cells.get(reference, ()), metric)
    facts = {"metric": metric, "draws": DRAWS, "reference": reference, "of": of, "rows": rows}
    write_text(place.folder / "pairs.json", json.dumps(facts, indent=1) + "\n")


def mark(cells: Cells, metric: str) -> str:
    """The same for the same cells."""
    facts = [[cell["seed"], cell["test"].get("fingerprint"), cell["test"]["metrics"][metric]] for cell in cells]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _kept(place: Place, metric: str, reference: str, cells: Mapping[str, Cells]) -> dict[str, Paired]:
    """What pairs.json still holds of these cells."""
    path = place.folder / "pairs.json"
    if not path.exists():
        return {}
    try:
        facts = json.loads(path.read_text("utf-8"))
        about = (facts["metric"], facts["draws"], facts["reference"], facts["of"])
        if about != (metric, DRAWS, reference, mark(cells[reference], metric)):
            return {}
        marks = {name: one.pop("of") for name, one in facts["rows"].items()}
        return {
            name: Paired(**one)
            for name, one in facts["rows"].items()
            if cells.get(name) and marks[name] == mark(cells[name], metric)
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SavedFileError(
            f"{path}: cannot be read ({error}); delete it, and it is made again from the ranks"
        ) from None
