"""Put a log in order, once: DuckDB numbers sessions, items and the values of text columns, joins and sorts.

The order, which nothing else decides again:

- Events: by time (where the log has times), then position, then the row in the source. Never by the item.
- Sessions of a user: by their first time, else their `session_order`, else their first row; each session stays in one
  piece, also where two of them interleave (two open tabs). Where none of these tells two sessions apart and the log has
  users and positions, the position of their first events does, unless positions begin again in each session.
- Users, and sessions without a user: in the same way, by what they did first.

What leaves DuckDB are flat arrays, a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from foretaste.data.timeline import Codes, Timeline, spread, starts
from foretaste.data.workspace import name as quoted
from foretaste.data.workspace import reason
from foretaste.errors import DataError

if TYPE_CHECKING:
    from foretaste.data.events import EventLog

CHUNK = 4_000_000
"""Rows that leave DuckDB at a time."""

COLUMN = "column."
"""Before the names of the log's own columns, so that they cannot be taken for ours."""


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
    users = starts(heads["user_first"])
    named = heads["named"][users[:-1]]
    offsets = starts(arrays["session"])
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


def number_events(log: EventLog) -> tuple[Codes, Tables]:
    """Number the whole log without sorting it."""
    with room_for(log):
        sessions, items = number_sessions(log), number_values(log, "item")
        arrays = _fetched(log, f"SELECT s.number - 1 AS session, i.number AS item {_coded(log, sessions, items)}")
        heads = fetch(log.db, sessions, ("user_first", "named"))
    users = starts(heads["user_first"])
    named = heads["named"][users[:-1]]
    codes = Codes(arrays["item"], arrays["session"], spread(users), named, "sessions" in log.has)
    return codes, Tables(sessions, items, {})


def in_order(log: EventLog) -> str:
    """SQL: the columns by which a user's events are ordered, as far as the log has them."""
    return ", ".join([*(["time"] if "times" in log.has else []), *(["position"] if "order" in log.has else []), "row"])


def number_sessions(log: EventLog) -> str:
    """A table with one row a session, numbered in order (see the module's first lines)."""
    counted = log.rules.get("sessions") == "count"  # pieces of a user's events: the next begins where one ends
    order = in_order(log)
    keys = {"first": f"arg_min(row, ({order}))" if counted else "min(row)"}
    if "times" in log.has:
        keys["start"] = "min(time)"
    if "session_order" in log.has:
        keys["place"] = "min(session_order)"
    ranks = [name for name in ("start", "place") if name in keys]
    if {"users", "sessions", "order"} <= log.has and (counted or not _positions_restart(log)):
        keys["spot"] = f"arg_min(position, ({order}))" if "times" in log.has else "min(position)"
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
            "free disk space for temporary files, or read the log with a larger memory_limit (--memory-limit)"
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


def counts_inside(log: EventLog) -> bool:
    """Whether nothing but the order of its sessions says which of a user's events of two sessions comes first."""
    restart = "order" in log.has and "users" in log.has and _positions_restart(log)
    return "sessions" in log.has and "times" not in log.has and ("session_order" in log.has or restart)


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
    if kind in ("BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT"):  # a float would take neighbours for one
        far = (
            f"SELECT coalesce(max({quoted(name)}) > {2**53} OR min({quoted(name)}) < -{2**53}, false) FROM {log.table}"
        )
        if log.db.execute(far).fetchone() == (True,):
            return None
    return f"coalesce(CAST(e.{quoted(name)} AS DOUBLE), CAST('NaN' AS DOUBLE))"
