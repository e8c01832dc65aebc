"""The papers' tables as data: recipes/tables holds one TOML file for each table and log that the papers report.

A file names the log (a data recipe), the questions, and the rows; `[settings]` and `[[tries]]` are shared by all rows
that learn by gradient, `[[sweep]]` is one row for each value of one setting. What the paper prints stands beside each
row (in the row, or by the rows' names in `[published]`), and `why` says, in a sentence or two, why ours may differ.

A table that is `like` another, on another log as a rule, says only what is different: a field takes the place of the
other's, a row or sweep that of the one of its name or the last place, and `without` leaves some out. What was published
is never taken over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, model_validator

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


Named = TypeVar("Named", Row, Sweep)


class Table(Config):
    """One table of a paper, on one log."""

    paper: str
    """Which table of which paper."""
    like: str = ""
    """Another table, PAPER/TABLE or a TOML file, of which all is taken that is not given here."""
    without: tuple[str, ...] = ()
    """Rows and sweeps of that table that are left out."""
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
    """Of every row that learns by gradient; the models of all of them must have these."""
    seeds: int = 1
    """Trainings of each row, where nobody asks for another number."""
    tries: tuple[dict[str, Any], ...] = ()
    """What every row that learns by gradient tries, unless it names its own."""
    published: dict[str, str] = Field(default_factory=dict)
    """Row -> what the paper prints for it, instead of what the row itself says."""
    row: tuple[Row, ...] = ()
    """Lines of the table."""
    sweep: tuple[Sweep, ...] = ()
    """Curves of the paper's figures."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.without and not self.like:
            raise ValueError("`without` leaves out rows of another table, and `like` names none")
        return self

    def rows(self) -> list[Row]:
        """Every line with what was published, those of the sweeps last."""
        rows = [*self.row, *(row for sweep in self.sweep for row in sweep.rows())]
        _check("published", self.published, [row.name for row in rows])
        return [row.with_(published=self.published.get(row.name, row.published)) for row in rows]

    def changed(self, values: Mapping[str, Any]) -> Table:
        """The table that is like this one but for `values`, which are as in a file."""
        given = Table.of({**self.model_dump(exclude={"without", "published", "row", "sweep"}), **values})
        _check("without", given.without, [*(row.name for row in self.row), *(sweep.name for sweep in self.sweep)])
        rows = [row.with_(published="") for row in self.row if row.name not in given.without]
        sweeps = [sweep for sweep in self.sweep if sweep.name not in given.without]
        return given.with_(row=_laid_over(rows, given.row), sweep=_laid_over(sweeps, given.sweep))

    def grid(self, seeds: tuple[int, ...] = (0,), data: str = "") -> Grid:
        """The comparison that makes this table."""
        return Grid(
            title=f"{self.paper}, on {self.data}",
            rows=tuple(self._filled(row) for row in self.rows()),
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
    return _read(name)


def _read(name: str, above: tuple[Path, ...] = ()) -> Table:
    """A table; those that are like it lie `above`."""
    path = Path(name)
    if path.suffix != ".toml":
        if name not in names():
            raise ConfigError(f"no table is called '{name}'; {nearest(name, names())}")
        path = recipes_folder("tables") / f"{name}.toml"
    if path in above:
        raise ConfigError(f"{path}: in the end it is like itself; one of these tables must stand alone")
    try:
        values = read_toml(path)
        like = values.get("like")
        made = _read(str(like), (*above, path)).changed(values) if like else Table.of(values)
        made.rows()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return made


def _check(field: str, found: Iterable[str], known: Sequence[str]) -> None:
    """Refuse a name that no row has."""
    for name in found:
        if name not in known:
            raise ConfigError(f"{field}: no row is called '{name}'; {nearest(name, known)}")


def _laid_over(under: Sequence[Named], over: Sequence[Named]) -> list[Named]:
    """Each of `over` in the place of the one of its name, the others last."""
    new: dict[str, Named] = {one.name: one for one in over}
    if len(new) < len(over):
        raise ConfigError(f"two rows have one name among {', '.join(one.name for one in over)}")
    laid = [new.pop(one.name, one) for one in under]
    laid.extend(new.values())
    return laid
