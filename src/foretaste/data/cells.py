"""How one column of a source is kept, judged and read: ids, plain values, flags.

A source is read once. What a column turns out to be is only known at its end (a million whole numbers, then a 'B07'),
so a cell keeps a column in two parts while reading: the whole number `_n`, and the text `_t` of what is not one. Then
it asks its questions, and decides for the whole column. Nothing is read twice and nothing is lost on the way.

The rule for ids. A source with types (Parquet, a table) keeps them: text stays text, integers stay integers; floats
that are whole numbers, as pandas makes of integers with gaps, become integers again. A CSV has no types: if every id of
a column is written as a plain whole number (7, not 07, 7.0 or +7), they are integers, otherwise all are text, exactly
as written. A table column of mixed objects is text: 1 and '1' are one id. An id is missing if it is NULL, NaN, blank
or one of the words by which other programs say so (NA, NaN, null, None, ...).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from foretaste.data.workspace import name, text
from foretaste.errors import DataError

UNTYPED = "CSV"
"""The type of a CSV's columns."""
WORDS = ("", "NA", "N/A", "<NA>", "NaN", "nan", "NaT", "NULL", "null", "None")
MISSING = "(" + ", ".join(text(word) for word in WORDS) + ")"

SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
LARGE = ("UBIGINT", "HUGEINT", "UHUGEINT")
FLOATS = ("FLOAT", "DOUBLE")


def is_number(kind: str) -> bool:
    """Whether a DuckDB type is numeric."""
    return kind in SIGNED + LARGE + FLOATS or kind.startswith("DECIMAL")


POINTED = r"-?(0|[1-9]\d{0,17})\.0"
"""A whole number as a float is written."""


class Cell:
    """One column of the source, under the alias that it has while reading."""

    def __init__(self, alias: str, column: str, kind: str) -> None:
        if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION")):
            raise DataError(f"column '{column}' is of type {kind[:40]}; expected text, numbers or times")
        self.alias, self.column, self.type = alias, column, kind
        self.source = name(column)

    def computed(self) -> list[str]:
        """SQL over the source: what `stored` needs more than once."""
        return []

    def stored(self) -> str:
        """SQL over the source and over what was computed: what is kept while reading."""
        return f"{self.source} AS {self.alias}"

    def questions(self) -> list[str]:
        """SQL aggregates over what was kept; the answers come back through `learn`."""
        return []

    def learn(self, answers: list[Any]) -> None:
        """Decide what the column is."""

    @property
    def value(self) -> str:
        """SQL over what was kept: the value."""
        return self.alias

    @property
    def original(self) -> str:
        """SQL over what was kept: the value as a text, as near to the source's as is known."""
        return f"{self.alias}::VARCHAR"


class _Split(Cell):
    """A column kept as whole number and text."""

    def stored(self) -> str:
        number = f"TRY_CAST({self.source} AS BIGINT)"
        if self.type == UNTYPED:
            left = f"CASE WHEN {number}::VARCHAR IS DISTINCT FROM {self.source} THEN {self.source} END"
        elif self.type in FLOATS or self.type.startswith("DECIMAL"):
            number = f"CASE WHEN {self.source} = trunc({self.source}) THEN {number} END"
            left = f"CASE WHEN isfinite({self.source}::DOUBLE) AND {number} IS NULL THEN {self.source}::VARCHAR END"
        elif self.type in SIGNED:
            number, left = f"{self.source}::BIGINT", "NULL::VARCHAR"
        elif self.type == "UBIGINT":
            number, left = self.source, "NULL::VARCHAR"
        elif self.type in LARGE:
            left = f"CASE WHEN {number} IS NULL THEN {self.source}::VARCHAR END"
        else:
            number, left = "NULL::BIGINT", f"{self.source}::VARCHAR"
        return f"{number} AS {self.alias}_n, {left} AS {self.alias}_t"

    @property
    def _word(self) -> str:
        return f"{self.alias}_t IS NOT NULL AND trim({self.alias}_t) NOT IN {MISSING}"

    @property
    def original(self) -> str:
        return f"coalesce({self.alias}_t, {self.alias}_n::VARCHAR)"


class Id(_Split):
    """Ids of users, sessions or items."""

    def __init__(self, alias: str, column: str, kind: str) -> None:
        super().__init__(alias, column, kind)
        self.kind = "BIGINT"
        self.pointed = False
        """Are whole numbers written 17.0, as pandas writes a column with holes? They are what they are in its table."""

    def questions(self) -> list[str]:
        pointed = f"regexp_full_match(trim({self.alias}_t), '{POINTED}')" if self.type == UNTYPED else "false"
        counted = (self._word, f"{self._word} AND {pointed}", f"{self.alias}_t IS NULL AND {self.alias}_n IS NOT NULL")
        return [f"count(*) FILTER ({one})" for one in counted]

    def learn(self, answers: list[Any]) -> None:
        words, pointed, plain = answers
        declared = self.type != UNTYPED and not is_number(self.type)
        whole = "UBIGINT" if self.type == "UBIGINT" else "BIGINT"
        self.pointed = 0 < words == pointed and not plain
        self.kind = "VARCHAR" if declared or (words and not self.pointed) else whole

    @property
    def value(self) -> str:
        if self.pointed:
            return f"TRY_CAST(split_part(trim({self.alias}_t), '.', 1) AS BIGINT)"
        if self.kind != "VARCHAR":
            return f"{self.alias}_n"
        number, left = f"{self.alias}_n", f"{self.alias}_t"
        return f"CASE WHEN {left} IS NULL THEN {number}::VARCHAR WHEN {self._word} THEN {left} END"


class Value(_Split):
    """Another column of the log: integers, floats or text if it comes from a CSV, otherwise what it was."""

    kind = ""

    def stored(self) -> str:
        return super().stored() if self.type == UNTYPED else f"{self.source} AS {self.alias}"

    def questions(self) -> list[str]:
        if self.type != UNTYPED:
            return []
        code = f"regexp_matches(trim({self.alias}_t), '^[+-]?0[0-9]')"  # 0012 is a code: as a number it were another
        as_float = f"TRY_CAST({self.alias}_t AS DOUBLE) IS NOT NULL AND NOT {code}"
        return [f"count(*) FILTER ({self._word})", f"count(*) FILTER ({self._word} AND {as_float})"]

    def learn(self, answers: list[Any]) -> None:
        if answers:
            words, floats = answers
            self.kind = "BIGINT" if not words else "DOUBLE" if words == floats else "VARCHAR"

    @property
    def value(self) -> str:
        if self.type != UNTYPED:
            return self.alias
        if self.kind == "DOUBLE":
            number, left = f"{self.alias}_n", f"{self.alias}_t"
            return f"CASE WHEN {left} IS NULL THEN {number}::DOUBLE WHEN {self._word} THEN {left}::DOUBLE END"
        return f"{self.alias}_n" if self.kind == "BIGINT" else self.original

    @property
    def original(self) -> str:
        return super().original if self.type == UNTYPED else f"{self.alias}::VARCHAR"


class Text(Cell):
    """A column read as text: an action, a given part."""

    def stored(self) -> str:
        return f"{as_text(self.source, self.type)} AS {self.alias}"


class Dropped(Cell):
    """True where a row is to be left out, by the caller's condition on one column.

    A condition is a comparison with a number ('< 0'), a pattern ('C*'), a value, None for a missing one, or a list of
    these: any will do.
    """

    def __init__(self, alias: str, column: str, kind: str, condition: object) -> None:
        super().__init__(alias, column, kind)
        several = condition if isinstance(condition, list | tuple | set | frozenset) else [condition]
        self.detail = f"{column} {' or '.join('missing' if one is None else as_word(one) for one in several)}"
        self.sql = f"coalesce({' OR '.join(self._test(one) for one in several)}, false)"

    def stored(self) -> str:
        return f"{self.sql} AS {self.alias}, {as_text(self.source, self.type)} AS {self.alias}_t"

    @property
    def original(self) -> str:
        return f"{self.alias}_t"

    def _test(self, wanted: object) -> str:
        if wanted is None:
            unwritten = f" OR trim({self.source}) IN {MISSING}" if self.type == UNTYPED else ""
            return f"({self.source} IS NULL{unwritten}{f' OR isnan({self.source})' if self.type in FLOATS else ''})"
        condition = as_word(wanted)
        if condition.startswith(("!=", "==", "<>", "= ")):
            raise DataError(
                f"drop=: '{condition}' on column '{self.column}': expected a value, a pattern, or <, <=, > or >= and a "
                "number; for what is to stay, name what is to go"
            )
        for sign in ("<=", ">=", "<", ">"):
            if condition.startswith(sign):
                try:
                    bound = float(condition[len(sign) :])
                except ValueError:
                    raise DataError(
                        f"drop=: '{condition}' on column '{self.column}': expected a number after {sign}"
                    ) from None
                # DuckDB holds NaN to be greater than any number
                return f"nullif(TRY_CAST({self.source} AS DOUBLE), 'NaN'::DOUBLE) {sign} {bound!r}"
        shown = as_text(self.source, self.type)
        if "*" in condition or "?" in condition:
            return f"{shown} GLOB {text(condition)}"
        if isinstance(wanted, bool | np.bool_):
            return f"lower({shown}) = {text(condition)}"
        loose = self.type == UNTYPED or self.type.startswith("DECIMAL")
        if loose and isinstance(wanted, int | float | np.number) and abs(float(wanted)) <= 2**53:
            return f"coalesce(TRY_CAST({self.source} AS DOUBLE) = {float(wanted)!r}, false)"
        return f"{shown} = {text(condition)}"


def as_word(value: object) -> str:
    """A value that the caller gave, as DuckDB would write it."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value)  # type: ignore[call-overload]


def as_text(column: str, kind: str) -> str:
    """SQL: a column as text, whole floats without their '.0'."""
    if kind not in FLOATS:
        return f"{column}::VARCHAR"
    whole = f"CASE WHEN {column} = trunc({column}) THEN TRY_CAST({column} AS BIGINT)::VARCHAR END"
    return f"coalesce({whole}, {column}::VARCHAR)"
