"""From a source to the canonical table of a log: one reading, after which every row is used, left out, or rejected.

A row is rejected when it cannot be used: no item, no user, no session, a time that is missing, unreadable, before 1970
or more than a day ahead, or a line that is no row at all. Rejected rows are counted by reason and kept aside with their
line and what was read of them. Rows that the caller does not want (`drop`, actions that are neither inputs nor targets)
are left out first, as steps of the report: what is wrong with them is no matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import duckdb

from foretaste.data import rejected
from foretaste.data.asked import CANONICAL, Asked
from foretaste.data.cells import Cell, Dropped, Id, Text, Value
from foretaste.data.raw import Raw
from foretaste.data.sources import Source
from foretaste.data.times import DAY, Clock, Position, span
from foretaste.data.workspace import Table, Workspace, name, text
from foretaste.errors import DataError, nearest

UNREAD = "time cannot be read"
TIMES = ". Times are numbers since 1970 (s, ms, us or ns, by their size), dates, or ISO text such as 2024-05-01 10:00"
HINTS = {
    **dict.fromkeys((UNREAD, "time in the future", "time before 1970"), TIMES),
    rejected.UNREADABLE["INVALID ENCODING"]: ". Name the encoding that it has: encoding='latin-1' (--encoding)",
}
"""What to say of the first row that cannot be used, by its reason."""
FEW = 1000
"""How many different actions are listed when one is not found."""
C = TypeVar("C", bound=Cell)
Reasons = dict[str, int]
"""Rejected rows by reason."""


class Counts(NamedTuple):
    """How large a log is."""

    events: int
    users: int
    sessions: int
    items: int


@dataclass(frozen=True)
class Reading:
    """What came of it: tables in the workspace, and what each step left."""

    table: Table
    items_table: Table | None
    rejected_table: Table | None
    steps: list[tuple[str, str, Counts]]
    fingerprint: dict[str, object]
    """Of the events, where the source has no files: their number, and a hash in which their order counts."""


class Reader:
    """One reading of one source."""

    def __init__(self, workspace: Workspace, source: Source, asked: Asked) -> None:
        self.workspace, self.source, self.asked = workspace, source, asked
        self.view = workspace.new_name("view")
        self.cells: list[Cell] = []
        self.item = self._cell(Id, "item", asked.item)
        self.user = self._maybe(Id, "user", asked.user)
        self.session = self._maybe(Id, "session", asked.session)
        self.time = self._maybe(Clock, "time", asked.time)
        self.order = self._maybe(Position, "position", asked.order)
        self.session_order = self._maybe(Position, "session_order", asked.session_order)
        self.split = self._maybe(Text, "part", asked.split)
        self.action = self._maybe(Text, "action", asked.action)
        self.drops = [self._cell(Dropped, f"drop_{k}", *pair) for k, pair in enumerate((asked.drop or {}).items())]
        self.more = [self._cell(Value, f"more_{k}", column) for k, column in enumerate((asked.columns or {}).values())]
        about = (asked.item_columns or {}).values()
        self.about = [self._cell(Value, f"about_{k}", column) for k, column in enumerate(about)]

    def _cell(self, kind: Callable[..., C], alias: str, column: str, *more: object) -> C:
        try:
            cell = kind("raw_" + alias, column, self.source.types[column], *more)
        except DataError as error:
            raise DataError(f"{self.source.label}: {error}") from None
        self.cells.append(cell)
        return cell

    def _maybe(self, kind: Callable[..., C], alias: str, column: str | None) -> C | None:
        return None if column is None else self._cell(kind, alias, column)

    def read(self, strict: bool = False, path: str | Path | None = None) -> Reading:
        """Read once, decide, reject, leave out; `path` is where rejected rows are written."""
        if path is not None:
            rejected.check(path)
        raw = Raw(self.workspace, self.source, self.cells)
        lines = raw.lines
        stages = list(self._wishes(raw))
        self._see(raw, [condition for _, _, condition in stages])
        aside, reasons = self._reject(lines, strict, path)
        stages = [("read", self._said(), "true"), *stages, ("reject", self._rejected(reasons), "fault IS NULL")]
        kept = " AND ".join(condition for _, _, condition in stages)
        table = self.workspace.new_table("log")
        items: Table | None = None
        more = [f"more_{k} AS {name(ours)}" for k, ours in enumerate(self.asked.columns or {})]
        columns = ", ".join([*map(name, CANONICAL), *more])
        self.workspace.run(f"CREATE TABLE {table} AS SELECT {columns} FROM {self.view} WHERE {kept}", self.source.label)
        if self.about:
            items = self.workspace.new_table("items")
            first = [f"arg_min(about_{k}, row) AS {name(ours)}" for k, ours in enumerate(self.asked.item_columns or {})]
            self.workspace.run(
                f"CREATE TABLE {items} AS SELECT item, {', '.join(first)} FROM {self.view} WHERE {kept} GROUP BY item",
                self.source.label,
            )
        (step, detail, counts), *rest = self._counted(stages, table, lines)
        steps = [(step, f"{detail}{self._span(table)}", counts), *rest]
        self.workspace.db.execute(f"DROP VIEW {self.view}")
        raw.drop()
        return Reading(table, items, aside, steps, self._fingerprint(table))

    def _see(self, raw: Raw, wishes: Sequence[str]) -> None:
        """A view of what was read: the log's own columns, the fault of a row, and what the other steps need."""
        target = "true"
        if self.action is not None and self.asked.targets is not None:
            target = f"coalesce({_is_one_of(self.action, self.asked.targets)}, false)"
        shown = {
            "user": _value(self.user, "VARCHAR"),
            "session": _value(self.session, "VARCHAR"),
            "item": self.item.value,
            "time": _value(self.time, "BIGINT"),
            "position": _value(self.order, "DOUBLE"),
            "session_order": _value(self.session_order, "DOUBLE"),
            "part": _value(self.split, "VARCHAR"),
            "target": target,
            "fault": f"CASE {' '.join(self._faults(wishes))} END",
        }
        shown |= {f"more_{k}": cell.value for k, cell in enumerate(self.more)}
        shown |= {f"about_{k}": cell.value for k, cell in enumerate(self.about)}
        columns = ", ".join(f"{sql} AS {name(key)}" for key, sql in shown.items())
        self.workspace.db.execute(f"CREATE VIEW {self.view} AS SELECT *, {columns} FROM {raw.rows}")

    def _faults(self, wishes: Sequence[str]) -> Iterable[str]:
        """SQL: WHEN this THEN that is why the row cannot be used."""
        if wishes:
            yield f"WHEN NOT ({' AND '.join(wishes)}) THEN NULL"
        yield f"WHEN {self.item.value} IS NULL THEN 'no item'"
        if self.session is not None:
            both = "no session" if self.user is None else "no user and no session"
            if self.user is not None:
                yield f"WHEN {self.session.value} IS NULL AND {self.user.value} IS NOT NULL THEN 'no session'"
            yield f"WHEN {self.session.value} IS NULL THEN {text(both)}"
        elif self.user is not None:
            yield f"WHEN {self.user.value} IS NULL THEN 'no user'"
        if self.time is not None:
            moment, latest = self.time.value, int(time.time() * 1000) + DAY  # clocks differ
            yield f"WHEN {self.time.missing()} THEN 'no time' WHEN {moment} IS NULL THEN '{UNREAD}'"
            yield f"WHEN {moment} < 0 THEN 'time before 1970' WHEN {moment} > {latest} THEN 'time in the future'"
        for cell, what in ((self.order, "position"), (self.session_order, "session order")):
            if cell is not None:
                yield f"WHEN {cell.missing()} THEN 'no {what}' WHEN {cell.value} IS NULL THEN '{what} is no number'"

    def _reject(self, lines: rejected.Lines, strict: bool, path: str | Path | None) -> tuple[Table | None, Reasons]:
        """Set the rejected rows aside; their table, and how many there are of each reason."""
        label = self.source.label
        found = self.workspace.rows(f"SELECT DISTINCT fault FROM {self.view}")
        if found == [(None,)] and not lines.unread and path is None:
            return None, {}
        aside = rejected.collect(self.workspace, lines, self.view, self.cells)
        reasons = dict(self.workspace.rows(f"SELECT reason, count(*) FROM {aside} GROUP BY reason"))
        if not reasons and path is not None:
            rejected.write(self.workspace, aside, path)
            return None, {}
        file, line, why, row = self.workspace.row(f"SELECT * FROM {aside} LIMIT 1")
        first = f"{file}, line {line}: {why}: {row[:200]}"
        first += HINTS.get(why, "")
        if strict:
            raise DataError(
                f"{first}. strict=True (--strict) accepts no such row: correct it, or read without it to set it aside"
            )
        if path is not None:
            rejected.write(self.workspace, aside, path)
        if sum(reasons.values()) == lines.rows:
            raise DataError(f"{label}: none of its {lines.rows:,} rows can be used ({rejected.said(reasons)}). {first}")
        return aside, reasons

    @staticmethod
    def _rejected(reasons: Reasons) -> str:
        """The reasons, and what can be done about the commonest."""
        most = max(reasons, key=lambda why: reasons[why], default="")
        return rejected.said(reasons) + (HINTS.get(most, "") if most else "")

    def _wishes(self, raw: Raw) -> Iterable[tuple[str, str, str]]:
        """(step, detail, condition): what a row must fulfil to be wanted at all."""
        for cell in self.drops:
            yield "drop", f"where {cell.detail}", f"NOT {cell.alias}"
        if self.action is None:
            return
        inputs, targets = self.asked.inputs, self.asked.targets
        known = [v for (v,) in self.workspace.rows(f"SELECT DISTINCT {self.action.alias} FROM {raw.table} LIMIT {FEW}")]
        for argument, values in (("inputs", inputs), ("targets", targets)):
            for value in values or ():
                if value not in known and len(known) < FEW:
                    among = nearest(value, sorted(v for v in known if v is not None))
                    raise DataError(f"{argument}=: no row has the action '{value}' in '{self.action.column}': {among}")
        if inputs is not None:
            kept = dict.fromkeys([*inputs, *(targets or ())])
            yield "actions", f"kept {', '.join(kept)}", f"coalesce({_is_one_of(self.action, kept)}, false)"

    def _counted(
        self, stages: list[tuple[str, str, str]], table: str, lines: rejected.Lines
    ) -> list[tuple[str, str, Counts]]:
        """The steps that removed something, and what each left. Lines that are no rows go in the last one."""
        passed = [" AND ".join(condition for _, _, condition in stages[: k + 1]) for k in range(len(stages))]
        sums = ", ".join(f"count(*) FILTER ({condition})" for condition in passed)
        left = self.workspace.row(f"SELECT {sums} FROM {self.view}")
        if not left[-1]:
            done = "; ".join(f"{step} {detail}" for step, detail, _ in stages[1:] if detail)
            raise DataError(f"{self.source.label}: of its {lines.rows:,} rows none is left after: {done}")
        counts = count(self.workspace, table)
        steps: list[tuple[str, str, Counts]] = []
        for k in reversed(range(len(stages))):
            step, detail, _ = stages[k]
            if k + 1 < len(stages) and left[k] != left[k + 1]:
                counts = count(self.workspace, f"(FROM {self.view} WHERE {passed[k]})")
            last = k + 1 == len(stages)
            if k == 0 or left[k] != left[k - 1] or (last and lines.unread):
                steps.insert(0, (step, detail, counts._replace(events=left[k] + (0 if last else lines.unread))))
        return steps

    def _fingerprint(self, table: Table) -> dict[str, object]:
        if self.source.fingerprint["kind"] == "files":
            return {}
        events, digest = self.workspace.row(
            f"SELECT count(*), bit_xor(hash({', '.join(map(name, CANONICAL))})) FROM {table}"
        )
        return {"events": events, "hash": f"{digest:016x}", "of": f"the events, by DuckDB {duckdb.__version__}"}

    def _span(self, table: str) -> str:
        return (
            "" if self.time is None else f", {span(*self.workspace.row(f'SELECT min(time), max(time) FROM {table}'))}"
        )

    def _said(self) -> str:
        return "; ".join(part for part in (self.source.label, self.time.detail if self.time else "") if part)


def count(workspace: Workspace, table: str) -> Counts:
    """The size of a log's table."""
    sessions = f'SELECT DISTINCT "user", "session" FROM {table} WHERE "session" IS NOT NULL'  # ids are a user's own
    return Counts(
        *workspace.row(
            f'SELECT count(*), count(DISTINCT "user"), (SELECT count(*) FROM ({sessions})), count(DISTINCT item) '
            f"FROM {table}"
        )
    )


def _value(cell: Cell | None, kind: str) -> str:
    return f"NULL::{kind}" if cell is None else cell.value


def _is_one_of(cell: Cell, values: Iterable[str]) -> str:
    return f"{cell.value} IN ({', '.join(map(text, values))})"
