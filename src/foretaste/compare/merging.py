"""One comparison that was made in several folders, on several machines: their finished cells, taken into one.

    machine A    foretaste compare clicks --models narm,sasrec --out A
    machine B    foretaste compare clicks --models vs-knn,gru4rec --out B
    anywhere     foretaste merge A B --out whole

Everything is read and checked before anything is written. What is taken must be of the same log and the same questions,
and a row of the same settings and budget; seeds of one row may come from several folders where they have one choice.
Where two folders have a cell, the first that is named keeps it, and before all of them the one that is merged into; its
words (title, columns, reference) are those of the whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foretaste.compare.grid import Grid, Place, Row, differing, made_by
from foretaste.compare.run import Job
from foretaste.compare.summary import finished
from foretaste.data.files import take_over, write_text
from foretaste.errors import ConfigError, SavedFileError


@dataclass
class Plan:
    """The whole, as far as the folders were read."""

    words: Grid
    """Of the first folder: title, columns, reference, and what must be the same in all."""
    rows: dict[str, Row] = field(default_factory=dict)
    seeds: set[int] = field(default_factory=set)
    cells: dict[Job, Place] = field(default_factory=dict)
    """Where each finished cell is."""
    failures: dict[Job, Place] = field(default_factory=dict)
    """Where it says why a cell is not there."""
    chosen: dict[str, tuple[Path, Any]] = field(default_factory=dict)
    """A cell of each row, and what it chose."""
    twice: int = 0
    """Cells that more than one folder has."""

    def add(self, place: Place) -> None:
        """Read a folder; what could not stand in one table with what was read before is refused."""
        grid = place.grid()
        self._agrees(place, grid)
        there, _ = finished(place, grid)  # refuses damaged cells, and ranks of another run
        self.seeds |= set(grid.seeds)
        for row in grid.rows:
            for cell in there[row.name]:
                self._take(place, (row.name, cell["seed"]), row, cell["chosen"])
            made = {cell["seed"] for cell in there[row.name]}
            for job in ((row.name, seed) for seed in grid.seeds if seed not in made):
                if place.failure(*job).exists():
                    self.rows.setdefault(row.name, row)
                    self.failures.setdefault(job, place)

    def _agrees(self, place: Place, grid: Grid) -> None:
        if (name := differing(self.words, grid)) is not None:
            one, other = getattr(self.words, name), getattr(grid, name)
            raise ConfigError(
                f"{place.folder}: was begun with {name} = {other!r}, and what it is merged with with {one!r}; "
                "the two could not stand in one table"
            )
        self.words = self.words.with_(data=max(self.words.data, grid.data, key=len))

    def _take(self, place: Place, job: Job, row: Row, chosen: Any) -> None:
        name, path = row.name, place.cell(*job)
        first, choice = self.chosen.setdefault(name, (path, chosen))
        if first == path:  # nothing of this row was finished anywhere before
            self.rows[name] = row
        if made_by(self.rows[name]) != made_by(row):
            raise ConfigError(
                f"{path}: is of a row with other settings or another budget than {first}; delete one of the two, or "
                "give one of the rows another name"
            )
        if choice != chosen:
            raise ConfigError(
                f"{path}: was trained with {chosen}, and {first} with {choice}; all seeds of a row have one choice: "
                "delete one of the two"
            )
        self.twice += job in self.cells
        self.cells.setdefault(job, place)

    @property
    def grid(self) -> Grid:
        """Of the whole."""
        reference = self.words.reference if self.words.reference in self.rows else ""
        return self.words.with_(rows=tuple(self.rows.values()), seeds=tuple(sorted(self.seeds)), reference=reference)


def merge(into: Place, others: Sequence[Place]) -> tuple[int, int]:
    """Take the finished cells of `others` that `into` lacks, with ranks, cases and models: how many; and how many are
    in more than one folder. No cell that is there is replaced, but what an unfinished one left is."""
    begun = (into.folder / "grid.json").exists()
    sources = [into] * begun + [one for one in others if one.folder.resolve() != into.folder.resolve()]
    plan = Plan(sources[0].grid())
    if begun:
        plan.rows = {row.name: row for row in plan.words.rows}  # those too of which nothing is finished
    for place in sources:
        plan.add(place)
    if not plan.rows:
        raise ConfigError(f"{', '.join(str(one.folder) for one in sources)}: no cell is finished, so nothing is merged")
    write_text(into.folder / "grid.json", json.dumps(plan.grid.as_dict(), indent=1) + "\n")
    taken = [(job, place) for job, place in plan.cells.items() if place is not into]
    for (row, seed), place in taken:
        shutil.rmtree(into.run(row, seed), ignore_errors=True)
        into.failure(row, seed).unlink(missing_ok=True)
        for source, target in _files(place, into, row, seed):
            _replace(source, target)
    for job, place in plan.failures.items():
        if job not in plan.cells and place is not into:
            _replace(place.failure(*job), into.failure(*job))
    for place in sources:
        if not (into.folder / "pairs.json").exists():
            _replace(place.folder / "pairs.json", into.folder / "pairs.json")  # tests of published rows, without cases
    return len(taken), plan.twice


def _files(place: Place, into: Place, row: str, seed: int) -> Iterator[tuple[Path, Path]]:
    """From where to where; the cell last: it says that the others are whole."""
    yield place.ranks(row, seed), into.ranks(row, seed)
    yield place.cases(row, seed), into.cases(row, seed)
    if seed == min(place.grid().seeds):
        yield place.model(row), into.model(row)
    yield place.cell(row, seed), into.cell(row, seed)


def _replace(source: Path, target: Path) -> None:
    """A file or a folder, whole or not at all; where there is no source there is no target either."""
    if source.is_file():
        take_over(target, source)
        return
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    if not source.exists():
        return
    fresh = target.with_name(f".{target.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        shutil.copytree(source, fresh)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        why = getattr(error, "strerror", None) or "not every file could be copied"
        raise SavedFileError(f"{target}: could not be written ({why}); free some space, then merge again") from None
    fresh.rename(target)
