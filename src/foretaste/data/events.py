"""EventLog: who touched what and when, in DuckDB, with the report of every step that was taken on it.

    log = EventLog.read("clicks.csv.gz", session="session_id", item="item_id", time="timestamp")
    log = log.filter(item_support=5, session_length=2)
    print(log.report())

A log is one table, one row an event:

    row            the event's place in the source, from 1: the log's own order, which breaks every tie
    "user"         raw id, or NULL: an anonymous session
    "session"      raw session id, or NULL: the log has no sessions yet
    item           raw id
    time           milliseconds since 1970 UTC, or NULL: the log has an order and no clock
    position       the place that the log gives (order=), or NULL
    session_order  the place of the session among sessions (session_order=), or NULL
    part           the log's own split, or NULL
    target         whether the event may be asked for
    ...            further columns (columns=), under their names

The order of events is user, time, position, row. It is never the item's id that breaks a tie. Logs are not changed: a
step gives a new one, and the table of the old one goes when nobody holds it any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb

from foretaste.data import cleaning, reading, rejected
from foretaste.data.asked import Asked, renamed, texts
from foretaste.data.sources import is_small, open_source
from foretaste.data.workspace import Table, Workspace
from foretaste.errors import DataError, nearest

if TYPE_CHECKING:
    from foretaste.data.prepared import Prepared


@dataclass(frozen=True)
class Step:
    """One line of the report: what was done, and how large the log was after it."""

    name: str
    detail: str
    events: int
    users: int
    sessions: int
    items: int


class EventLog:
    """A log in DuckDB (see the module's first lines for its table)."""

    def __init__(
        self,
        workspace: Workspace,
        table: Table,
        *,
        has: frozenset[str],
        steps: Sequence[Step],
        columns: tuple[str, ...] = (),
        items_table: Table | None = None,
        rejected_table: Table | None = None,
        fingerprint: Mapping[str, Any] | None = None,
        rules: Mapping[str, Any] | None = None,
        collapse: bool = False,
    ) -> None:
        self.workspace = workspace
        self.table = table
        self.has = has
        """What the log has: users, sessions, times, order, session_order, split, targets."""
        self.steps = list(steps)
        self.columns = columns
        """The names of the further columns."""
        self.items_table = items_table
        """A table (item, title, ...) of what is known of the items, or None."""
        self.rejected_table = rejected_table
        """A table (file, line, reason, row) of the rows that could not be used, or None."""
        self.fingerprint = dict(fingerprint or {})
        """Where the log came from: names, sizes and SHA-256 of the files, and the columns that were named."""
        self.rules = dict(rules or {"sessions": "given" if "sessions" in has else "none", "repeats": "keep"})
        """How sessions began and what became of repeats, for a service that goes on where the log ends."""
        self._collapse = collapse

    @property
    def db(self) -> duckdb.DuckDBPyConnection:
        """The connection in which the tables lie."""
        return self.workspace.db

    @classmethod
    def read(
        cls,
        source: Any,
        *,
        item: str,
        user: str | None = None,
        session: str | None = None,
        time: str | None = None,
        order: str | None = None,
        session_order: str | None = None,
        split: str | None = None,
        action: str | None = None,
        inputs: Sequence[Any] | None = None,
        targets: Sequence[Any] | None = None,
        drop: Mapping[str, Any] | None = None,
        columns: Sequence[str] | Mapping[str, str] = (),
        item_columns: Sequence[str] | Mapping[str, str] = (),
        repeats: Literal["keep", "collapse"] = "keep",
        duplicates: Literal["keep", "drop"] = "keep",
        strict: bool = False,
        rejected: str | Path | None = None,
        names: Sequence[str] | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8",
        memory_limit: str = "4GB",
        threads: int | None = None,
    ) -> EventLog:
        """Read a log, and check every row of it.

        source: a CSV (plain, gzip or zstd; any delimiter), a Parquet file, folder or pattern, a pandas, Polars or Arrow
            table, or a dictionary of NumPy arrays.

        item, user, session, time, order, session_order, split, action: names of columns. A user or a session must be
            named, and a time or an order (or both: the order then breaks ties of the time).
        inputs, targets: values of the action. Rows with another are dropped. Only `targets` may be asked for; a target
            stays in the history of what follows it. Without `inputs` every row is one; without `targets` all are.
        drop: {column: condition} of rows to leave out: '< 0' (any comparison with a number), a pattern such as 'C*', a
            value, None for a missing one, or a list of these.
        columns, item_columns: what else to keep of an event and of its item; {our name: the source's} renames.
        repeats: 'collapse' keeps the first of immediate repeats of an item with the same right to be a target. It works
            inside sessions: at once if `session` is named, otherwise right after they are cut (`sessions`), or, if they
            are not, inside the user's history before it is filtered or prepared.
        duplicates: exact copies, in all that was read, of an earlier row are counted; 'drop' leaves them out.
        strict: refuse a source with a row that cannot be used. Otherwise such rows are counted, set aside in
            `rejected_table`, and written to `rejected`, a CSV of line, reason and row.
        names, delimiter, encoding: of a CSV, where it has no header, its delimiter is not found, or it is not UTF-8.
        memory_limit, threads: of DuckDB; what does not fit into memory goes to a temporary folder.
        """
        _one_of("repeats", repeats, ("keep", "collapse"))
        _one_of("duplicates", duplicates, ("keep", "drop"))
        asked = Asked(
            item, user, session, time, order, session_order, split, action,
            texts("inputs", inputs), texts("targets", targets), drop, renamed(columns), renamed(item_columns),
        )  # fmt: skip
        workspace = Workspace(memory_limit, threads, is_small(source))
        opened = open_source(workspace, source, [column for _, column in asked.named()], names, delimiter, encoding)
        for argument, column in asked.named():
            opened.check(argument, column)
        found = reading.Reader(workspace, opened, asked).read(strict, rejected)
        log = cls(
            workspace,
            found.table,
            has=asked.has(),
            steps=[Step(step, detail, *counts) for step, detail, counts in found.steps],
            columns=tuple(asked.columns or {}),
            items_table=found.items_table,
            rejected_table=found.rejected_table,
            fingerprint={**opened.fingerprint, **found.fingerprint, "columns": asked.recorded()},
            collapse=repeats == "collapse",
        )
        log = cleaning.of_duplicates(log, drop=duplicates == "drop")
        return log.collapsed() if session is not None else log

    def __len__(self) -> int:
        return self.steps[-1].events

    def __repr__(self) -> str:
        last = self.steps[-1]
        sizes = f"{last.events:,} events, {last.users:,} users, {last.sessions:,} sessions, {last.items:,} items"
        return f"EventLog({sizes})"

    def report(self) -> str:
        """The steps as a table to print: what each did, and what it left."""
        return report_of(self.steps)

    def derive(self, sql: str, name: str, detail: str, *, has: frozenset[str] | None = None) -> EventLog:
        """A new log from SQL in which `{table}` is this one's table; `has` if it has something else than this one."""
        table = self.workspace.new_table("log")
        self.workspace.run(f"CREATE TABLE {table} AS {sql.replace('{table}', self.table)}", name)
        counts = reading.count(self.workspace, table)
        if not counts.events:
            raise DataError(f"step '{name}' ({detail}) leaves nothing of {len(self):,} events; ask for less")
        return self._with(table, Step(name, detail, *counts), has)

    def with_items(
        self,
        source: Any,
        *,
        item: str,
        names: Sequence[str] | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8",
        **columns: str,
    ) -> EventLog:
        """Attach what is known of the items: `log.with_items("movies.csv", item="movieId", title="name")`.

        `columns` are {our name: the source's}; without any, all of the source's columns are taken. Sources as for
        `read`. Items that the log does not have are left out; of several rows of one item the first counts.
        What was known before (`item_columns=`, an earlier table) is replaced.
        """
        from foretaste.data import items

        wanted = [item, *columns.values()]
        opened = open_source(self.workspace, source, wanted, names, delimiter, encoding, every=not columns)
        table, detail = items.attached(self, opened, item, columns)
        log = self._with(self.table, replace(self.steps[-1], name="items", detail=detail))
        log.items_table = table
        return log

    def write_rejected(self, path: str | Path) -> None:
        """Write the rows that could not be used as a CSV of line, reason and row."""
        if self.rejected_table is None:
            raise DataError(f"{path}: nothing to write, every row of the log could be used")
        rejected.write(self.workspace, self.rejected_table, path)

    def sessions(
        self,
        gap: str | float | None = None,
        per: Literal["day"] | None = None,
        utc_offset: float = 0.0,
        events: int | None = None,
    ) -> EventLog:
        """Cut histories into sessions: at idle gaps (`gap='30m'`, or seconds), by calendar day (`per='day'`), or after
        every so many `events`.

        `utc_offset`: where the calendar's day begins, in hours east of Greenwich.
        """
        from foretaste.data import sessions

        if sum(way is not None for way in (gap, per, events)) != 1:
            raise DataError(
                "sessions: give gap= (such as '30m', or seconds; --gap), per='day' (--per-day) or events=, "
                "one of the three"
            )
        if events is not None:
            return sessions.by_count(self, events).collapsed()
        if per is not None:
            _one_of("per", per, ("day",))
            return sessions.by_day(self, utc_offset).collapsed()
        assert gap is not None
        return sessions.by_gap(self, gap).collapsed()

    def filter(self, **conditions: Any) -> EventLog:
        """Leave out rare items, short sessions, short histories: see `foretaste.data.sessions.filtered`."""
        from foretaste.data import sessions

        return sessions.filtered(self.collapsed(), **conditions)

    def prepare(self, split: Any = None, validation: Any = None, **options: Any) -> Prepared:
        """Split, number the items and lay the log out flat: see `foretaste.data.prepared.prepare`."""
        from foretaste.data import prepared

        return prepared.prepare(self.collapsed(), split, validation, **options)

    def collapsed(self) -> EventLog:
        """Without immediate repeats, if that was asked for and not yet done."""
        if not self._collapse:
            return self
        log = cleaning.without_repeats(self)
        log._collapse, log.rules["repeats"] = False, "collapse"
        return log

    def _with(self, table: Table, step: Step, has: frozenset[str] | None = None) -> EventLog:
        return EventLog(
            self.workspace,
            table,
            has=self.has if has is None else has,
            steps=[*self.steps, step],
            columns=self.columns,
            items_table=self.items_table,
            rejected_table=self.rejected_table,
            fingerprint=self.fingerprint,
            rules=self.rules,
            collapse=self._collapse,
        )


def report_of(steps: Sequence[Step]) -> str:
    """Steps as a table to print. A dash stands where a log has no users or no sessions."""
    heads = ("step", "events", "users", "sessions", "items", "")
    rows = []
    for s in steps:
        counts = (f"{n:,}" if n else "-" for n in (s.events, s.users, s.sessions, s.items))
        rows.append((s.name, *counts, s.detail))
    widths = [max(len(row[k]) for row in (heads, *rows)) for k in range(5)]
    lines = []
    for row in (heads, *rows):
        cells = [row[0].ljust(widths[0]), *(row[k].rjust(widths[k]) for k in range(1, 5)), row[5]]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _one_of(argument: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise DataError(f"{argument}={value!r}: {nearest(str(value), known)}")
