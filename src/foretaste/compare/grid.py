"""A comparison as data: which rows, what they are asked, how each is tuned. Every number of a table follows from it.

A cell is (row, seed) and one file, written when it is finished; finished cells are kept, and a killed run goes on where
it was. Every row is treated alike: what it may try is trained and compared on the validation part, number of passes
included; then the best is trained afresh on train + validation for that many passes, and the test part is asked once.
What seed 0 chose, the other seeds take. The test part decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from foretaste.config import Config
from foretaste.data.files import write_text
from foretaste.errors import ConfigError, SavedFileError, nearest
from foretaste.evaluation.metrics import of_cases

FIXED = ("ask", "choose", "metric", "cutoffs", "also", "data")
"""What cannot change once cells are there: they would not be comparable."""


LONGEST = 200
"""Bytes of a row's name: with what is put behind it, a file system takes 255."""


class Row(Config):
    """One line of a table: a model, its settings, and what may be tried."""

    name: str = Field(pattern=r"^[^/\\]+$", max_length=80)
    """As the table calls it."""
    model: str
    """A name of `foretaste models`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the model's Config and of TrainConfig, the same in all that is tried."""
    tries: tuple[dict[str, Any], ...] = ()
    """Exactly these changes are tried. Empty: the settings as they are, and `trials` of the model's own space."""
    trials: int = Field(1, ge=1)
    """So many points of the model's `space` are tried, the first being the settings as they are."""
    published: str = ""
    """What a paper prints for it."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if len(self.name.encode()) > LONGEST or self.name in (".", ".."):
            raise ValueError(f"name = {self.name!r} is a file name too: at most {LONGEST} bytes, and not . or ..")
        if self.tries and self.trials > 1:
            raise ValueError("give `tries` (exactly these) or `trials` (so many of the model's space), not both")
        return self


class Grid(Config):
    """One log, what is asked of it, and the rows."""

    title: str
    """Above the table."""
    rows: tuple[Row, ...]
    """Lines of the table."""
    seeds: tuple[int, ...] = (0,)
    """Each row is trained once for each."""
    ask: str = "per-step"
    """What the test part is asked, as in `foretaste evaluate --protocol`."""
    choose: str = ""
    """What the validation part is asked; left out, the same."""
    also: dict[str, str] = Field(default_factory=dict)
    """Other questions to the same trained models; each gives further columns."""
    metric: str = "recall@20"
    """Chooses on the validation part."""
    show: tuple[str, ...] = ("recall@20", "mrr@20")
    """Metrics of the table; rows are compared case by case in the first."""
    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = Field((5, 10, 20), min_length=1)
    """List lengths that are measured."""
    reference: str = ""
    """The row that all others are compared with; left out, the best in the first metric shown."""
    about: str = ""
    """What a reader must know, above the table."""
    data: str = ""
    """The log: `publish.fingerprint` of the prepared folder."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        names = [row.name for row in self.rows]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two rows are called '{twice}'")
        if self.reference and self.reference not in names:
            raise ValueError(f"the reference '{self.reference}' is no row; {nearest(self.reference, names)}")
        measured = of_cases(np.ones(1, np.int64), np.arange(2), self.cutoffs)
        for name in (self.metric, *self.show):
            if name not in measured:
                raise ValueError(f"metric '{name}' is not measured; {nearest(name, measured)}")
        if not self.rows or not self.seeds:
            raise ValueError("a comparison needs at least one row and one seed")
        return self

    def row(self, name: str) -> Row:
        """The row of this name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise ConfigError(f"no row is called '{name}'; {nearest(name, [row.name for row in self.rows])}")


def lengths(metric: str, cutoffs: tuple[int, ...] = (5, 10, 20)) -> tuple[int, ...]:
    """The list lengths, and that of the metric: with "recall@50" 50 too."""
    k = metric.partition("@")[2]
    return tuple(sorted({*cutoffs, int(k)})) if k.isdecimal() and int(k) > 0 else cutoffs


class Place:
    """The folder of a comparison, and what lies where."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def cell(self, row: str, seed: int) -> Path:
        """A finished cell."""
        return self.folder / "cells" / f"{row}-seed{seed}.json"

    def ranks(self, row: str, seed: int) -> Path:
        """Every rank of a cell's test."""
        return self.folder / "ranks" / f"{row}-seed{seed}.npz"

    def cases(self, row: str, seed: int) -> Path:
        """What each case of a cell's test gave, without the ranks."""
        return self.folder / "cases" / f"{row}-seed{seed}.npz"

    def failure(self, row: str, seed: int) -> Path:
        """Why a cell is not there."""
        return self.folder / "cells" / f"{row}-seed{seed}.failed.json"

    def run(self, row: str, seed: int) -> Path:
        """Checkpoints and finished trials of a cell under way; forgotten when it is finished."""
        return self.folder / "runs" / f"{row}-seed{seed}"

    def model(self, row: str) -> Path:
        """The recommender of seed 0, ready to answer."""
        return self.folder / "models" / row

    def read(self, row: str, seed: int) -> dict[str, Any] | None:
        """A cell, if it is there."""
        path = self.cell(row, seed)
        if not path.exists():
            return None
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if not {"row", "seed", "chosen", "test"} <= dict(found).keys():
                raise ValueError("it lacks what every cell has")
        except (OSError, ValueError, TypeError) as error:
            raise SavedFileError(
                f"{path}: not a finished cell ({error}); delete it and run the comparison again"
            ) from None
        return found

    def begin(self, grid: Grid) -> Grid:
        """Write the grid, or go on with the one that is there: rows and seeds are added, the questions stay.

        A row of which nothing is there yet may be another than before.
        """
        path = self.folder / "grid.json"
        if path.exists():
            old = self.grid()
            there = {row.name for row in old.rows for seed in old.seeds if self._begun(row.name, seed)}
            grid = _joined(old, grid, path, there)
        write_text(path, json.dumps(grid.as_dict(), indent=1) + "\n")
        return grid

    def _begun(self, row: str, seed: int) -> bool:
        return self.cell(row, seed).exists() or self.run(row, seed).exists()

    def grid(self) -> Grid:
        """The comparison that was begun here."""
        path = self.folder / "grid.json"
        try:
            return Grid.of(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise SavedFileError(f"{path}: no comparison was begun here; run `foretaste compare` first") from None
        except (OSError, ValueError) as error:
            raise SavedFileError(f"{path}: cannot be read as a comparison ({error})") from None


def _joined(old: Grid, new: Grid, path: Path, there: Collection[str]) -> Grid:
    """The rows and seeds of both. What would make another measurement of the rows that are `there` is refused."""
    if (field := differing(old, new)) is not None:
        before, after = getattr(old, field), getattr(new, field)
        raise ConfigError(
            f"{path.parent}: this comparison was begun with {field} = {before!r}, not {after!r}; "
            "its cells could not stand beside new ones: choose another folder"
        )
    kept = {row.name: row for row in old.rows}
    for row in new.rows:
        if row.name in kept and row.name in there and made_by(kept[row.name]) != made_by(row):
            raise ConfigError(
                f"{path.parent}: the row '{row.name}' was begun with other settings or another budget; "
                f"choose another folder, another name for the row, or delete cells/{row.name}-seed* and "
                f"runs/{row.name}-seed*"
            )
        kept[row.name] = row
    changes: Mapping[str, Any] = {"rows": [row.model_dump() for row in kept.values()]}
    data = max(old.data, new.data, key=len)
    seeds = tuple(sorted({*old.seeds, *new.seeds}))
    return new.with_(**changes, data=data, reference=new.reference or old.reference, seeds=seeds)


def differing(one: Grid, other: Grid) -> str | None:
    """The first of what must be the same in one table and is not, if any."""
    fields = (name for name in FIXED if getattr(one, name) != getattr(other, name))
    return next((name for name in fields if name != "data" or not same_log(one.data, other.data)), None)


def same_log(one: str, other: str) -> bool:
    """Whether two fingerprints are of one log; of earlier versions they are of the items alone, and say no more."""
    short, long = sorted((one, other), key=len)
    return short in (long, long.partition("-")[0])


def made_by(row: Row) -> dict[str, Any]:
    """What decides the numbers of a row."""
    return row.model_dump(exclude={"published"})
