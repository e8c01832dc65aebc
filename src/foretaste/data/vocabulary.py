"""Vocabulary: the numbers 1..N inside, the raw ids outside, and what else is known of each (a title, a category).

Number n is `ids[n - 1]`; 0 is "not known". It is saved as one Parquet file, written and read by DuckDB, so ids of any
type come back as they were: integers, text with commas, quotes and newlines, dates, UUIDs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
from numpy.typing import NDArray

from foretaste.data.workspace import exactly, reason, text
from foretaste.data.workspace import name as quoted
from foretaste.errors import DataError, SavedFileError

OWN_NAMES = frozenset({"number", "id"})
"""Column names that the file needs for itself."""

BLOCK = 100_000
"""Rows handed to DuckDB at a time."""


class Vocabulary:
    """Raw ids by number, and numbers by raw id.

    >>> vocabulary = Vocabulary(["milk", "tea"], {"title": ["Fresh milk", "Green tea"]})
    >>> vocabulary.number("tea"), vocabulary.number("rum"), vocabulary.raw([2, 1])
    (2, 0, ['tea', 'milk'])
    """

    def __init__(
        self,
        ids: Sequence[Any],
        columns: Mapping[str, Sequence[Any]] | None = None,
        types: Mapping[str, str] | None = None,
    ) -> None:
        self.ids = list(ids)
        self.columns: dict[str, list[Any]] = {name: list(values) for name, values in (columns or {}).items()}
        self.types = dict(types or {})
        """DuckDB's type of "id" and of each column; what is not named here is guessed when saving."""
        for name, values in self.columns.items():
            if name.lower() in OWN_NAMES:
                raise DataError(f"column '{name}': the vocabulary file uses this name for itself; rename the column")
            if len(values) != len(self.ids):
                raise DataError(f"column '{name}' has {len(values)} values for {len(self.ids)} ids; give one for each")

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, raw: object) -> bool:
        return self.number(raw) > 0

    def __iter__(self) -> Iterator[Any]:
        return iter(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.ids == other.ids and self.columns == other.columns

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(repr(raw) for raw in self.ids[:3]) + (", ..." if len(self) > 3 else "")
        return f"Vocabulary({len(self)} ids: {shown})"

    @cached_property
    def _numbers(self) -> dict[Any, int]:
        return {raw: number for number, raw in enumerate(self.ids, start=1)}

    def number(self, raw: Any) -> int:
        """The number of a raw id, or 0 if it is not known."""
        try:
            return self._numbers.get(raw, 0)
        except TypeError:
            raise DataError(f"{raw!r} cannot be an id: give one value, such as a number or a text") from None

    def numbers(self, raw: Iterable[Any]) -> NDArray[np.int32]:
        """[n]: the number of each raw id, 0 where it is not known."""
        return np.array([self.number(one) for one in raw], dtype=np.int32)

    def raw(self, numbers: Iterable[int]) -> list[Any]:
        """The raw ids of these numbers; None for 0."""
        found = []
        for number in numbers:
            if not 0 <= number <= len(self.ids):
                raise DataError(f"number {number} is outside this vocabulary, which has 1..{len(self.ids)}")
            found.append(self.ids[number - 1] if number else None)
        return found

    @classmethod
    def from_query(cls, db: duckdb.DuckDBPyConnection, sql: str, order: NDArray[np.int64] | None = None) -> Self:
        """From a query whose first column is the id; `order` [N] picks and orders its rows."""
        types = {row[0]: row[1] for row in db.execute(f"DESCRIBE {sql}").fetchall()}
        names = list(types)
        awkward = [name for name in names if "TIME ZONE" in types[name]]
        if awkward:  # Python needs a package more for these; as text they are exact
            replaced = ", ".join(f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" for name in awkward)
            sql, types = f"SELECT * REPLACE ({replaced}) FROM ({sql})", types | dict.fromkeys(awkward, "VARCHAR")
        rows = db.execute(sql).fetchall()
        if order is not None:
            rows = [rows[place] for place in order.tolist()]
        columns = [list(values) for values in zip(*rows, strict=True)] or [[] for _ in names]
        types["id"] = types.pop(names[0])
        return cls(columns[0], dict(zip(names[1:], columns[1:], strict=True)), types)

    def write(self, path: Path) -> None:
        """One Parquet file: number, id, and the columns."""
        values = {"id": self.ids, **self.columns}
        try:
            with duckdb.connect() as db:
                db.execute("SET threads = 1")
                types = {name: self.types.get(name) or _guess(db, name, column) for name, column in values.items()}
                kept = {name: _stored(kind) for name, kind in types.items()}
                db.execute(f"CREATE TABLE v (number INTEGER, {', '.join(f'{quoted(n)} {k}' for n, k in kept.items())})")
                lists = ", ".join(f"CAST(unnest(CAST(? AS {types[name]}[])) AS {kept[name]})" for name in values)
                for start in range(0, len(self), BLOCK):
                    stop = min(start + BLOCK, len(self))
                    block = [column[start:stop] for column in values.values()]
                    db.execute(f"INSERT INTO v SELECT unnest(range({start + 1}, {stop + 1})), {lists}", block)
                note = json.dumps(types).replace("'", "''")
                db.execute(
                    f"COPY v TO {text(path)} (FORMAT parquet, COMPRESSION zstd, KV_METADATA {{types: '{note}'}})"
                )
        except duckdb.Error as error:
            raise SavedFileError(f"{path}: could not be written: {reason(error)}") from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Back from the file, or one clear error."""
        try:
            with duckdb.connect() as db:
                db.execute("SET threads = 1")
                file = exactly(path)
                note = db.execute(f"SELECT decode(value) FROM parquet_kv_metadata({file}) WHERE decode(key) = 'types'")
                noted = json.loads((note.fetchone() or ("{}",))[0])
                types = {name: str(duckdb.sqltype(kind)) for name, kind in noted.items()}  # no other SQL than a type's
                wanted = ", ".join(f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind in types.items())
                rows = db.execute(f"SELECT number, {wanted} FROM read_parquet({file}) ORDER BY number").fetchall()
        except (duckdb.Error, ValueError, TypeError, AttributeError) as error:
            raise SavedFileError(f"{path}: cannot be read: {reason(error)}; prepare or save it again") from None
        numbers, *columns = [list(values) for values in zip(*rows, strict=True)] or [[] for _ in range(len(types) + 1)]
        if numbers != list(range(1, len(rows) + 1)) or "id" not in types:
            raise SavedFileError(f"{path}: its numbers are not 1..{len(rows)}: it was edited; prepare or save it again")
        named = dict(zip(types, columns, strict=True))
        return cls(named.pop("id"), named, types)


def _guess(db: duckdb.DuckDBPyConnection, name: str, values: list[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DataError(f"column '{name}' mixes types ({found}); give one type, as text if need be")
    if kinds <= {str}:
        return "VARCHAR"
    if kinds == {int}:
        return "BIGINT" if all(value is None or -(2**63) <= value < 2**63 for value in values) else "HUGEINT"
    sample = next(value for value in values if value is not None)
    described = db.execute("SELECT typeof(?)", [sample]).fetchone()
    assert described is not None
    return str(described[0])


def _stored(kind: str) -> str:
    """The type in the file: Parquet would round a 128-bit integer, so it goes as text."""
    return "VARCHAR" if kind in ("HUGEINT", "UHUGEINT") else kind
