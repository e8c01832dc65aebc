"""Times and positions: whatever a log writes, as milliseconds since 1970 UTC or as a plain number.

A number may count seconds, milliseconds, microseconds or nanoseconds; which of them is decided by size, once for the
whole column, and said in the report: below 10^11 seconds (the year 5138), below 10^14 milliseconds, below 10^17
microseconds. The unit that most rows agree with is taken, so that one stray value decides nothing. Where most numbers
are dates written as YYYYMMDD, they are read as days. Text is read as ISO 8601, with or without an offset; a text or a
datetime that names no offset is taken as UTC. What cannot be read keeps its text, for the list of rejected rows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from foretaste.data.cells import MISSING, UNTYPED, Cell, is_number

UNITS = {"seconds": 1000.0, "milliseconds": 1.0, "microseconds": 1e-3, "nanoseconds": 1e-6}
"""Milliseconds in one unit."""
BOUNDS = (0.0, 1e11, 1e14, 1e17, 1e300)
"""A number of size BOUNDS[k] .. BOUNDS[k + 1] counts the k-th unit."""
DAY = 86_400_000
"""Milliseconds."""


class Moment(Cell):
    """Times or positions, kept as a number `_x`, milliseconds `_ms` from a text, or the unread text `_t`."""

    def computed(self) -> list[str]:
        column, x, ms = self.source, f"{self.alias}_x", f"{self.alias}_ms"
        if self._is_moment:
            return [f"NULL::DOUBLE AS {x}", f"epoch_ms(TRY_CAST({column} AS TIMESTAMPTZ)) AS {ms}"]
        if is_number(self.type):
            return [f"{column}::DOUBLE AS {x}", f"NULL::BIGINT AS {ms}"]
        written = f"{column}::VARCHAR"
        number = f"TRY_CAST({written} AS DOUBLE)"
        parsed = f"epoch_ms(TRY_CAST({written} AS TIMESTAMPTZ))"
        date = (
            f"(substr({written}, 5, 1) IN ('-', '/') AND length({written}) >= 8)"  # trying both for every row is slow
        )
        return [
            f"CASE WHEN NOT {date} THEN {number} END AS {x}",
            f"CASE WHEN {date} THEN {parsed} WHEN {number} IS NULL THEN {parsed} END AS {ms}",
        ]

    def stored(self) -> str:
        x, ms = f"{self.alias}_x", f"{self.alias}_ms"
        finite = f"CASE WHEN isfinite({x}) THEN {x} END"
        unread = f"CASE WHEN {ms} IS NULL AND ({x} IS NULL OR NOT isfinite({x})) THEN {self.source}::VARCHAR END"
        return f"{finite} AS {x}, {ms}, {unread} AS {self.alias}_t"

    @property
    def _is_moment(self) -> bool:
        return self.type.startswith(("TIMESTAMP", "DATE"))

    def missing(self) -> str:
        """SQL: there is nothing to read."""
        a = self.alias
        return f"({a}_x IS NULL AND {a}_ms IS NULL AND ({a}_t IS NULL OR trim({a}_t) IN {MISSING}))"

    @property
    def original(self) -> str:
        a = self.alias
        return (
            f"coalesce({a}_t, strftime(make_timestamp_ms({a}_ms), '%Y-%m-%d %H:%M:%S.%g'), "
            f"CASE WHEN {a}_x = trunc({a}_x) THEN TRY_CAST({a}_x AS BIGINT)::VARCHAR END, {a}_x::VARCHAR)"
        )


class Position(Moment):
    """A place in an order: a number, or a date whose milliseconds serve as one."""

    whole = False
    """Whole numbers so large that a float cannot tell neighbours apart: ids of events, nanoseconds."""

    def computed(self) -> list[str]:
        number = self.type == UNTYPED or is_number(self.type)
        whole = f"TRY_CAST({self.source} AS BIGINT)" if number else "NULL::BIGINT"
        return [*super().computed(), f"{whole} AS {self.alias}_n"]

    def stored(self) -> str:
        return f"{super().stored()}, {self.alias}_n"

    def questions(self) -> list[str]:
        x, n, ms = (f"{self.alias}_{part}" for part in ("x", "n", "ms"))
        other = f"{x} <> trunc({x}) OR ({x} IS NOT NULL AND {n} IS NULL)"
        return [f"count(*) FILTER (abs({x}) > {2**53})", f"count(*) FILTER ({other})", f"count({ms})"]

    def learn(self, answers: list[Any]) -> None:
        large, others, dates = answers
        self.whole = large > 0 and not others and not dates

    @property
    def value(self) -> str:
        return f"{self.alias}_n" if self.whole else f"coalesce({self.alias}_x, {self.alias}_ms::DOUBLE)"


class Clock(Moment):
    """The time of an event, in milliseconds."""

    factor: float | None = 1000.0
    detail: str = ""

    def questions(self) -> list[str]:
        x = f"{self.alias}_x"
        sizes = [f"count(*) FILTER (abs({x}) >= {low} AND abs({x}) < {high})" for low, high in pairwise(BOUNDS)]
        return [f"count({x})", f"count({self._date})", f"count({self.alias}_ms)", *sizes]

    def learn(self, answers: list[Any]) -> None:
        numbers, dates, moments, *sizes = answers
        said = []
        if moments:
            kind = "datetimes" if self._is_moment else "ISO text"
            said.append(f"{kind}, UTC where no offset is given")
        if dates > numbers - dates:
            self.factor = None
            odd = f" ({numbers - dates:,} rows are no such day)" if numbers > dates else ""
            said.append(f"days written YYYYMMDD, by their look{odd}")
        elif numbers:
            unit = max(UNITS, key=lambda unit: sizes[list(UNITS).index(unit)])
            self.factor = UNITS[unit]
            others = numbers - max(sizes)
            odd = f" ({others:,} rows have another size)" if others else ""
            said.append(f"{unit} by their size{odd}")
        self.detail = "times are " + " and ".join(said) if said else ""

    @property
    def _date(self) -> str:
        """SQL: the day that a number such as 20140407 is, or NULL."""
        x = f"{self.alias}_x"
        day = f"{x} = trunc({x}) AND {x} BETWEEN 19700101 AND 21001231"
        return f"try_strptime(CASE WHEN {day} THEN {x}::BIGINT::VARCHAR END, '%Y%m%d')"

    @property
    def value(self) -> str:
        if self.factor is None:
            number = f"epoch_ms({self._date})"
        else:
            number = f"TRY_CAST(round({self.alias}_x * {self.factor!r}) AS BIGINT)"
        return f"coalesce({self.alias}_ms, {number})"


def span(first: int, last: int) -> str:
    """From when to when the times of a log are; a wrong column or unit shows itself in this."""
    begin, end = (datetime.fromtimestamp(time / 1000, UTC) for time in (first, last))
    if last - first >= DAY:
        return f"from {begin:%Y-%m-%d} to {end:%Y-%m-%d}"
    return f"all within {(last - first) / 1000:,.0f} s of {begin:%Y-%m-%d %H:%M} (is that the right column and unit?)"
