"""What each case of a cell's test gave, small enough to publish: a row made later is compared with it case by case.

The ranks of a cell (half a megabyte) name the target of every case, which is the log's own, so they stay where they
were made. cases/ROW-seedN.npz holds no more than the metrics that the table shows, and which cases are one user's: some
tens of kilobytes. Where a cell has ranks they are read instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from foretaste.compare.grid import Place
from foretaste.data.files import write_arrays
from foretaste.errors import SavedFileError
from foretaste.evaluation.report import Evaluation

FORMAT = 1


@dataclass(frozen=True)
class Cases:
    """The n cases of a test, as one cell answered them."""

    path: Path
    """What they were read from."""
    fingerprint: str
    """Cells with the same one were asked the same."""
    clusters: NDArray[np.int64]
    """[n]: cases with the same number are of one user."""
    values: Mapping[str, NDArray[np.float64]]
    """Metric -> [n], ties counted against the model."""


def read(place: Place, cell: Mapping[str, Any], show: Sequence[str]) -> Cases | None:
    """Of a finished cell, from its ranks or from what `keep` wrote; None where neither tells all metrics of `show`."""
    ranks, kept = place.ranks(cell["row"], cell["seed"]), place.cases(cell["row"], cell["seed"])
    if ranks.exists():
        found = Evaluation.load_ranks(ranks)
        return Cases(ranks, found.facts.fingerprint, found.clusters, {name: found.per_case[name] for name in show})
    return _load(kept, show) if kept.exists() else None


def keep(path: Path, found: Evaluation, show: Sequence[str]) -> None:
    """Write those of a cell's test."""
    arrays = {"clusters": _steps(np.unique(found.clusters, return_inverse=True)[1])}
    for name in show:
        levels, codes = np.unique(found.per_case[name], return_inverse=True)
        arrays |= {f"{name}.levels": levels, f"{name}.codes": _least(codes)}
    facts = {"format": FORMAT, "fingerprint": found.facts.fingerprint}
    write_arrays(path, facts=np.array(json.dumps(facts)), **arrays)


def _load(path: Path, show: Sequence[str]) -> Cases | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            if facts["format"] != FORMAT:
                raise SavedFileError(f"{path}: of another version; delete it, and the rows are compared without it")
            if any(f"{name}.codes" not in file.files for name in show):
                return None
            values = {name: file[f"{name}.levels"][file[f"{name}.codes"]] for name in show}
            return Cases(path, facts["fingerprint"], np.cumsum(file["clusters"], dtype=np.int64), values)
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, BadZipFile) as error:
        raise SavedFileError(
            f"{path}: cannot be read as the cases of a cell ({error}); delete it, and the rows are compared without it"
        ) from None


def _steps(numbers: NDArray[np.int64]) -> NDArray[Any]:
    """[n]: the first number, then from each to the next; small, for the cases of a user stand together."""
    return _least(np.diff(numbers, prepend=0))


def _least(numbers: NDArray[np.int64]) -> NDArray[Any]:
    """The same in the smallest type that holds them."""
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    return numbers.astype(np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high)))
