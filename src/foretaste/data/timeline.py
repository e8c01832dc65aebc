"""The log put in order, once: what filters, splits and the numbering of items work on.

DuckDB gives sessions, items and the values of text columns numbers, joins and sorts; what leaves it are flat arrays.
From here on a step is arithmetic on offsets, so it takes well under a second for tens of millions of events.

The order, which nothing else decides again:

- Events: by time (where the log has times), then position, then the row in the source. Never by the item.
- Sessions of a user: by their first time, else their `session_order`, else their first row; each session stays in one
  piece, also where two of them interleave (two open tabs). A log with users and positions but neither times nor
  `session_order` takes positions as running over the whole user, unless they begin again in each session.
- Users, and sessions without a user: in the same way, by what they did first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from foretaste.data.workspace import name as quoted
from foretaste.data.workspace import reason
from foretaste.errors import DataError

if TYPE_CHECKING:
    from foretaste.data.events import EventLog

CHUNK = 4_000_000
"""Rows that leave DuckDB at a time."""

COLUMN = "column."
"""Before the names of the log's own columns, so that they cannot be taken for ours."""

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Timeline:
    """The events of a log in order, n events, S sessions, U user rows (a session without a user is a row)."""

    items: NDArray[np.int32]
    """[n]: 1..N by first occurrence in the log; not yet the numbers that models see."""
    users: Ints
    """[U + 1] offsets."""
    sessions: Ints
    """[S + 1] offsets; a user of a log without sessions is one session."""
    named: Mask
    """[U]: False for a session without a user."""
    name: Ints
    """[U]: which user this is, counted from 0 over the users of the whole log; means nothing where not `named`."""
    begin: NDArray[Any]
    """[S]: what orders sessions among all users: their first time, else their session_order, else their first row."""
    first: Ints
    """[S]: the first row of the session in the source; settles ties of `begin`."""
    has_sessions: bool
    times: Ints | None = None
    """[n]: milliseconds, or None."""
    given: NDArray[Any] | None = None
    """[n]: number of the log's own split value in `given_names`, 0 for none; None if the log has no split."""
    given_names: tuple[str, ...] = ()
    target: Mask | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def session_of(self) -> NDArray[np.int32]:
        """[n]: the session of each event, counted from 0."""
        return _spread(self.sessions)

    @cached_property
    def user_of(self) -> NDArray[np.int32]:
        """[n]: the user row of each event, counted from 0."""
        return _spread(self.users)

    @cached_property
    def user_of_session(self) -> NDArray[np.int32]:
        """[S]: the user row of each session."""
        return _spread(np.searchsorted(self.sessions, self.users).astype(np.int64))

    def order(self, by: str = "start") -> Ints:
        """[S]: sessions in the order in which they start or end, among all users; ties by first row."""
        key = self.begin if by == "start" or self.times is None else self.times[self.sessions[1:] - 1]
        return np.lexsort((self.first, key))

    def per_session(self, mask: Mask) -> Ints:
        """[S]: how many events of each session are True."""
        return np.add.reduceat(mask, self.sessions[:-1], dtype=np.int64)

    def per_user(self, mask: Mask) -> Ints:
        """[U]: how many events of each user row are True."""
        return np.add.reduceat(mask, self.users[:-1], dtype=np.int64)

    def select(self, keep: Mask) -> Timeline:
        """Only the events where `keep`; sessions and users left without any go."""
        if keep.all():
            return self
        before = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
        users, sessions = before[self.users], before[self.sessions]
        of_user, of_session = np.diff(users) > 0, np.diff(sessions) > 0
        return Timeline(
            items=self.items[keep],
            users=np.unique(users),
            sessions=np.unique(sessions),
            named=self.named[of_user],
            name=self.name[of_user],
            begin=self.begin[of_session],
            first=self.first[of_session],
            has_sessions=self.has_sessions,
            times=None if self.times is None else self.times[keep],
            given=None if self.given is None else self.given[keep],
            given_names=self.given_names,
            target=None if self.target is None else self.target[keep],
            columns={name: column[keep] for name, column in self.columns.items()},
        )


@dataclass(frozen=True)
class Tables:
    """The DuckDB tables that say what the numbers of a timeline stand for."""

    sessions: str
    """"user", "session", number 1..S, first, begin, user_first; in order."""
    items: str
    """value, number 1..N."""
    values: Mapping[str, str]
    """The same for each text column."""

    def drop(self, db: duckdb.DuckDBPyConnection) -> None:
        """They are not needed any more."""
        for table in (self.sessions, self.items, *self.values.values()):
            db.execute(f"DROP TABLE {table}")


def arrange(log: EventLog) -> tuple[Timeline, Tables]:
    """Number and order the whole log: one sort."""
    with room_for(log):
        sessions, items = number_sessions(log), number_values(log, "item")
        wanted = {"session": "s.number - 1", "item": "i.number"}
        keys = ["s.number"]
        if "times" in log.has:
            wanted["time"] = "e.time"
            keys.append("e.time")
        if "order" in log.has:
            keys.append("e.position")
        if "targets" in log.has:
            wanted["target"] = "coalesce(e.target, false)"
        joins, values = "", {}
        types = {row[0]: row[1] for row in log.db.execute(f"DESCRIBE {log.table}").fetchall()}
        for place, name in enumerate([*(["part"] if "split" in log.has else []), *log.columns]):
            number = None if name == "part" else _as_number(log, name, types[name])
            if number is None:
                values[name] = number_values(log, name)
                joins += f" LEFT JOIN {values[name]} c{place} ON e.{quoted(name)} = c{place}.value"
                number = f"coalesce(c{place}.number, 0)"
            wanted[COLUMN + name] = number
        chosen = ", ".join(f"{what} AS {quoted(name)}" for name, what in wanted.items())
        arrays = _fetched(
            log, f"SELECT {chosen} {_coded(log, sessions, items)}{joins} ORDER BY {', '.join(keys)}, e.row"
        )
        heads = fetch(log.db, sessions, ("first", "begin", "user_first", "named"))
    columns = {name.removeprefix(COLUMN): array for name, array in arrays.items() if name.startswith(COLUMN)}
    users = _starts(heads["user_first"])
    named = heads["named"][users[:-1]]
    offsets = _starts(arrays["session"])
    given = columns.pop("part", None)
    names = (
        log.db.execute(f"SELECT value FROM {values['part']} ORDER BY number").fetchall() if given is not None else []
    )
    timeline = Timeline(
        items=arrays["item"],
        users=offsets[users],
        sessions=offsets,
        named=named,
        name=np.cumsum(named) - 1,
        begin=heads["begin"],
        first=heads["first"],
        has_sessions="sessions" in log.has,
        times=arrays.get("time"),
        given=given,
        given_names=tuple(name for (name,) in names),
        target=arrays.get("target"),
        columns=columns,
    )
    return timeline, Tables(sessions, items, values)


@dataclass(frozen=True)
class Codes:
    """The same numbers without the order: enough to count with."""

    items: NDArray[np.int32]
    """[n]: 1..N."""
    session_of: NDArray[np.int32]
    """[n]: 0..S-1."""
    user_of_session: NDArray[np.int32]
    """[S]: 0..U-1."""
    named: Mask
    """[U]."""
    has_sessions: bool


def count(codes: Codes | Timeline, keep: Mask | None = None) -> tuple[int, int, int, int]:
    """Events, users, sessions and items, of all events or of those where `keep`."""
    items, session_of = (codes.items, codes.session_of) if keep is None else (codes.items[keep], codes.session_of[keep])
    sessions = np.bincount(session_of, minlength=len(codes.user_of_session)) > 0
    users = np.bincount(codes.user_of_session[sessions], minlength=len(codes.named)) > 0
    n_sessions = int(sessions.sum()) if codes.has_sessions else 0
    return (
        len(items),
        int((users & codes.named).sum()),
        n_sessions,
        int((np.bincount(items, minlength=1)[1:] > 0).sum()),
    )


def number_events(log: EventLog) -> tuple[Codes, Tables]:
    """Number the whole log without sorting it."""
    with room_for(log):
        sessions, items = number_sessions(log), number_values(log, "item")
        arrays = _fetched(log, f"SELECT s.number - 1 AS session, i.number AS item {_coded(log, sessions, items)}")
        heads = fetch(log.db, sessions, ("user_first", "named"))
    users = _starts(heads["user_first"])
    named = heads["named"][users[:-1]]
    codes = Codes(arrays["item"], arrays["session"], _spread(users), named, "sessions" in log.has)
    return codes, Tables(sessions, items, {})


def number_sessions(log: EventLog) -> str:
    """A table with one row a session, numbered in order (see the module's first lines)."""
    keys = {"first": "min(row)"}
    if "times" in log.has:
        keys["start"] = "min(time)"
    if "session_order" in log.has:
        keys["place"] = "min(session_order)"
    ranks = [name for name in ("start", "place") if name in keys]
    if not ranks and {"users", "sessions", "order"} <= log.has and not _positions_restart(log):
        keys["spot"] = "min(position)"
    of_session = ", ".join([*ranks, *(["spot"] if "spot" in keys else []), "first"])
    of_user = ", ".join(f"user_{name}" for name in [*ranks, "first"])
    found = f"""SELECT "user", "session", {", ".join(f"{what} AS {name}" for name, what in keys.items())}
        FROM {log.table} GROUP BY "user", "session"
    """
    if "users" in log.has:
        window = """(PARTITION BY "user", CASE WHEN "user" IS NULL THEN "session" END)"""
        seen = ", ".join(f"min({name}) OVER {window} AS user_{name}" for name in [*ranks, "first"])
        found, order = f"SELECT *, {seen} FROM ({found})", f"{of_user}, {of_session}"
    else:
        found, order = f"SELECT *, first AS user_first FROM ({found})", of_session
    table = log.workspace.new_name("sessions")
    log.db.execute(f"""CREATE TEMP TABLE {table} AS
        SELECT "user", "session", "user" IS NOT NULL AS named, first, {[*ranks, "first"][0]} AS begin, user_first,
            CAST(row_number() OVER (ORDER BY {order}) AS INTEGER) AS number
        FROM ({found}) ORDER BY number""")
    return table


def number_values(log: EventLog, column: str) -> str:
    """A table with one row a value of this column, numbered from 1 by first occurrence."""
    name, table = quoted(column), log.workspace.new_name("values")
    log.db.execute(f"""CREATE TEMP TABLE {table} AS
        SELECT value, CAST(row_number() OVER (ORDER BY first) AS INTEGER) AS number
        FROM (SELECT {name} AS value, min(row) AS first FROM {log.table} WHERE {name} IS NOT NULL GROUP BY {name})
        ORDER BY number""")
    return table


def fetch(db: duckdb.DuckDBPyConnection, table: str, names: tuple[str, ...] = ("*",)) -> dict[str, NDArray[Any]]:
    """The columns of a table as arrays, in its order, a chunk at a time."""
    (n,) = db.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
    arrays: dict[str, NDArray[Any]] = {}
    for start in range(0, max(n, 1), CHUNK):
        part = f"SELECT {', '.join(names)} FROM {table} WHERE rowid >= {start} AND rowid < {start + CHUNK}"
        for name, values in db.execute(part).fetchnumpy().items():
            array = arrays.setdefault(name, np.empty(n, values.dtype))
            array[start : start + CHUNK] = values
    return arrays


@contextmanager
def room_for(log: EventLog) -> Iterator[None]:
    """Say in a sentence that memory or disk ran out."""
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        raise DataError(
            f"ordering {len(log)} events ran out of room: {reason(error)}; "
            "free disk space for temporary files, or read the log with a larger memory_limit"
        ) from None


def _coded(log: EventLog, sessions: str, items: str) -> str:
    return (
        f'FROM {log.table} e JOIN {sessions} s ON e."user" IS NOT DISTINCT FROM s."user" '
        f'AND e."session" IS NOT DISTINCT FROM s."session" JOIN {items} i ON e.item = i.value'
    )


def _fetched(log: EventLog, sql: str) -> dict[str, NDArray[Any]]:
    table = log.workspace.new_name("ordered")
    log.db.execute(f"CREATE TEMP TABLE {table} AS {sql}")
    arrays = fetch(log.db, table)
    log.db.execute(f"DROP TABLE {table}")
    return arrays


def _positions_restart(log: EventLog) -> bool:
    """Whether some user has the same position in two sessions: then positions count inside the session."""
    return bool(
        log.db.execute(f"""SELECT 1 FROM {log.table} WHERE "user" IS NOT NULL
            GROUP BY "user", position HAVING min("session") <> max("session") LIMIT 1""").fetchone()
    )


def _as_number(log: EventLog, name: str, kind: str) -> str | None:
    """The column as a number, with NaN where it is missing; None for a column that is no number."""
    if kind in ("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"):
        full = log.db.execute(f"SELECT count(*) = count({quoted(name)}) FROM {log.table}").fetchone() == (True,)
        if full:
            return f"CAST(e.{quoted(name)} AS BIGINT)"
    elif kind not in ("FLOAT", "DOUBLE", "UBIGINT", "HUGEINT", "UHUGEINT") and not kind.startswith("DECIMAL"):
        return None
    return f"coalesce(CAST(e.{quoted(name)} AS DOUBLE), CAST('NaN' AS DOUBLE))"


def _starts(labels: NDArray[Any]) -> Ints:
    """Offsets of the runs of equal labels."""
    changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    return np.concatenate([[0], changes, [len(labels)]]).astype(np.int64)


def _spread(offsets: Ints) -> NDArray[np.int32]:
    """The number of the run in which each place lies."""
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
