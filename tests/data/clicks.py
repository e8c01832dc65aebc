"""A small log in every form, and what the tests of reading ask of a log."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import duckdb

from foretaste.data.events import EventLog

T = 1_400_000_000
CLICKS = [(1, "a", T), (1, "b", T + 5), (2, "a", T + 7), (1, "c,d", T + 9), (2, 'é "x"', T + 9)]
EVENTS = [(1, 1, "a", T), (2, 1, "b", T + 5), (3, 2, "a", T + 7), (4, 1, "c,d", T + 9), (5, 2, 'é "x"', T + 9)]
"""(row, user, item, seconds) of CLICKS."""


def write(path: Path, rows: list[tuple[Any, ...]], header: tuple[str, ...] | None = ("user", "item", "time")) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(header)
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def read(source: Any, **more: Any) -> EventLog:
    return EventLog.read(source, **{"user": "user", "item": "item", "time": "time"} | more)


def events(log: EventLog, columns: str = 'row, "user", item, time // 1000') -> list[tuple[Any, ...]]:
    return log.db.execute(f"SELECT {columns} FROM {log.table} ORDER BY row").fetchall()


def items(log: EventLog) -> list[Any]:
    return [item for (item,) in events(log, "item")]


def steps(log: EventLog) -> list[tuple[str, int]]:
    return [(step.name, step.events) for step in log.steps]


def aside(log: EventLog) -> list[tuple[int, str]]:
    """(line, reason) of the rejected rows."""
    return log.db.execute(f"SELECT line, reason FROM {log.rejected_table}").fetchall() if log.rejected_table else []


def columns_of(rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return {name: [row[k] for row in rows] for k, name in enumerate(("user", "item", "time"))}


def compressed(path: Path, kind: str) -> Path:
    target = path.with_name(f"{path.name}.{kind}")
    if kind == "gz":
        target.write_bytes(gzip.compress(path.read_bytes()))
    else:
        line = "columns={'line': 'VARCHAR'}, delim='\x01', quote='', escape='', auto_detect=false, header=false"
        form = "FORMAT csv, QUOTE '\x02', DELIM '\x01', COMPRESSION zstd, HEADER false"
        sql = f"COPY (FROM read_csv('{path}', {line})) TO '{target}' ({form})"
        duckdb.execute(sql)
        assert target.read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    return target
