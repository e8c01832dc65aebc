"""The papers' tables as data: recipes/tables holds one TOML file for each table and log that the papers report.

A file names the log (a data recipe), the questions, and the rows; `[settings]` and `[[tries]]` are shared by all rows
that learn by gradient, `[[sweep]]` is one row for each value of one setting. What the paper prints stands beside each
row, and `why` says, in a sentence or two, why ours may differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from foretaste.compare.grid import Grid, Row
from foretaste.config import Config, read_toml
from foretaste.data.datasets import recipes_folder
from foretaste.errors import ConfigError, nearest
from foretaste.models import model_class


class Sweep(Config):
    """Rows that differ in one setting."""

    name: str
    """Of the rows, with {} for the value: "alpha {}"."""
    model: str
    """A name of `foretaste models`."""
    setting: str
    """What differs."""
    values: tuple[Any, ...]
    """One row for each."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The same in all of them."""
    tries: tuple[dict[str, Any], ...] = ()
    """Instead of the table's."""

    def rows(self) -> list[Row]:
        """One for each value."""
        return [
            Row(
                name=self.name.format(value),
                model=self.model,
                settings={**self.settings, self.setting: value},
                tries=self.tries,
            )
            for value in self.values
        ]


class Table(Config):
    """One table of a paper, on one log."""

    paper: str
    """Which table of which paper."""
    data: str
    """The data recipe."""
    about: str = ""
    """What a reader must know, above the table."""
    why: str = ""
    """Why our numbers may differ from the paper's."""
    ask: str
    """What the test part is asked."""
    choose: str = ""
    """What the validation part is asked; left out, the same."""
    also: dict[str, str] = Field(default_factory=dict)
    """Other questions to the same models."""
    metric: str
    """Chooses on the validation part."""
    show: tuple[str, ...]
    """Metrics of the table."""
    cutoffs: tuple[int, ...]
    """List lengths."""
    reference: str = ""
    """The row that the others are compared with."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Of every row that learns by gradient, as far as its model has them."""
    seeds: int = 1
    """Trainings of each row, where nobody asks for another number."""
    tries: tuple[dict[str, Any], ...] = ()
    """What every row that learns by gradient tries, unless it names its own."""
    row: tuple[Row, ...] = ()
    """Lines of the table."""
    sweep: tuple[Sweep, ...] = ()
    """Curves of the paper's figures."""

    def grid(self, seeds: tuple[int, ...] = (0,), data: str = "") -> Grid:
        """The comparison that makes this table."""
        rows = [*self.row, *(row for sweep in self.sweep for row in sweep.rows())]
        return Grid(
            title=f"{self.paper}, on {self.data}",
            rows=tuple(self._filled(row) for row in rows),
            seeds=seeds,
            ask=self.ask,
            choose=self.choose,
            also=self.also,
            metric=self.metric,
            show=self.show,
            cutoffs=self.cutoffs,
            reference=self.reference,
            about=" ".join(part for part in (self.about, self.why) if part),
            data=data,
        )

    def _filled(self, row: Row) -> Row:
        """A row with what it shares with the others."""
        if model_class(row.model).learns == "counts":
            return row
        return row.with_(settings={**self.settings, **row.settings}, tries=row.tries or self.tries)


def names() -> list[str]:
    """Every table, as PAPER/TABLE."""
    folder = recipes_folder("tables")
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.toml"))


def table(name: str) -> Table:
    """A table by its name, or from a TOML file."""
    path = Path(name)
    if path.suffix != ".toml":
        if name not in names():
            raise ConfigError(f"no table is called '{name}'; {nearest(name, names())}")
        path = recipes_folder("tables") / f"{name}.toml"
    try:
        return Table.of(read_toml(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
