"""One comparison that was made in several folders, on several machines: their finished cells, taken into one.

    machine A    foretaste compare clicks --models narm,sasrec --out A
    machine B    foretaste compare clicks --models vs-knn,gru4rec --out B
    anywhere     foretaste merge A B --out whole

What is taken must be of the same log and the same questions, and a row of the same settings and budget, as when a
comparison is begun again in its own folder. Seeds of one row may come from several folders where seed 0 chose alike.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from foretaste.compare.grid import Place
from foretaste.data.files import take_over
from foretaste.errors import ConfigError


@dataclass(frozen=True)
class Merged:
    """What was found in the other folders."""

    taken: int
    """Cells."""
    there: int
    """Cells that were there already, and stay as they are."""


def merge(into: Place, others: Sequence[Place]) -> Merged:
    """Take the finished cells of `others` that `into` lacks, with ranks, cases and models. Nothing is replaced."""
    taken = there = 0
    for other in others:
        grid = into.begin(other.grid())
        for row, seed in [(row.name, seed) for row in grid.rows for seed in grid.seeds]:
            if other.read(row, seed) is None:
                continue
            if into.read(row, seed) is not None:
                there += 1
                continue
            _check(into, other, row, seed)
            for source, target in _files(other, into, row, seed):
                if source.exists() and not target.exists():
                    _copy(source, target)
            taken += 1
    return Merged(taken, there)


def _files(other: Place, into: Place, row: str, seed: int) -> Iterator[tuple[Path, Path]]:
    """From where to where; the cell last: it says that the others are whole."""
    yield other.ranks(row, seed), into.ranks(row, seed)
    yield other.cases(row, seed), into.cases(row, seed)
    if seed == 0:
        yield other.model(row), into.model(row)
    yield other.cell(row, seed), into.cell(row, seed)


def _check(into: Place, other: Place, row: str, seed: int) -> None:
    """Refuse a seed that was trained with another choice than the seeds that are there."""
    new = other.read(row, seed)
    assert new is not None
    for one in into.grid().seeds:
        old = into.read(row, one)
        if old is not None and old["chosen"] != new["chosen"]:
            raise ConfigError(
                f"{other.cell(row, seed)}: was trained with {new['chosen']}, and seed {one} of this row in "
                f"{into.folder} with {old['chosen']}; all seeds of a row have one choice: take them from one folder"
            )


def _copy(source: Path, target: Path) -> None:
    """A file or a folder, whole or not at all."""
    if source.is_file():
        take_over(target, source)
        return
    fresh = target.with_name(f".{target.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    fresh.rename(target)
