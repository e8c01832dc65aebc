"""`foretaste replay`: a log sent to a running service, as if it happened now."""

from __future__ import annotations

import hashlib
import math
import re
import sys
import time
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any

from foretaste import options
from foretaste.data.events import EventLog
from foretaste.errors import ConfigError, ForetasteError
from foretaste.options import Basics, Json
from foretaste.serving.client import Client

AT_ONCE = 500
"""Events in one request."""
FETCHED = 10_000
"""Rows read at a time."""
REDRAWN = 0.2
"""Seconds between two looks of the line of progress."""


def replay(
    log: str,
    /,
    *,
    to: str,
    columns: Basics = options.NO_BASICS,
    speed: str = "max",
    key: str | None = None,
    json: Json = False,
) -> None:
    """Send a log to a running service, in the order of time. Sent again, what it remembers counts once.

    Example: `foretaste replay clicks.csv --to http://127.0.0.1:8000 --user user --item item --time time --speed 60x`

    Parameters
    ----------
    log
        The log: a file, a folder of Parquet files or a quoted pattern. A session without a user is a user of its own.
    to
        Address of the service.
    speed
        60x: an hour of the log in a minute; max: as fast as it is taken in.
    key
        A key with the role write.
    """
    from foretaste.cli import show

    fast, client = factor(speed), Client(to, key, timeout=60)
    read = columns.read(log)
    if fast is not None and "times" not in read.has:
        raise ConfigError(f"{log}: has no times, so no speed; leave out --speed")
    apart = namesakes(read)
    table = read.rejected_table
    unread = 0 if table is None else read.workspace.row(f"SELECT count(*) FROM {table}")[0]
    total, done = len(read), 0
    outcomes: dict[str, int] = {}
    line = Progress(total)
    try:
        for batch in batches(rows(read, apart), fast):
            try:
                answer = client.observe_many(batch)
            except ForetasteError as error:
                raise type(error)(f"after {done:,} of {total:,} events: {error}") from None
            for outcome in answer["outcomes"]:
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
            done += len(batch)
            line(done)
    except KeyboardInterrupt:
        line.end()
        raise KeyboardInterrupt(
            f"interrupted after {done:,} of {total:,} events; sent again, none counts twice that it remembers"
        ) from None
    line.end()
    parts = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
    text = f"{done:,} events sent to {client.url}: {parts}"
    if unread:
        text += f"\n{unread:,} rows of the log cannot be used and were not sent; `foretaste inspect` says why"
    if apart:
        text += f"\n{len(apart):,} sessions without a user are called as a user is; they were sent as session:NAME"
    besides = {"renamed_sessions": len(apart), "rows_not_sent": unread}
    told = {name: count for name, count in besides.items() if count}
    show({"events": done, "outcomes": outcomes, **told}, text, json)


def factor(speed: str) -> float | None:
    """How many times faster than the log; None: as fast as can be."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)x?", speed)
    if speed == "max":
        return None
    if not found or not 0 < float(found[1]) < math.inf:
        raise ConfigError(f"speed = {speed!r}: expected max, or how many times faster than the log, such as 60x")
    return float(found[1])


def namesakes(log: EventLog) -> set[Any]:
    """Sessions without a user that are called as a user is: 5 where there is a user 5."""
    if not {"users", "sessions"} <= log.has:
        return set()
    found = log.workspace.rows(
        f"""SELECT DISTINCT "session" FROM {log.table} WHERE "user" IS NULL AND "session"::VARCHAR IN
            (SELECT "user"::VARCHAR FROM {log.table} WHERE "user" IS NOT NULL)"""
    )
    return {session for (session,) in found}


def rows(log: EventLog, apart: Collection[Any] = ()) -> Iterator[dict[str, Any]]:
    """The events of a log in the order of time, as the service takes them; sessions `apart` get a name of their own.

    A session without a user is a user by itself.
    """
    found = log.db.cursor().execute(
        f'SELECT "user", "session", item, time, row FROM {log.table} ORDER BY time, position, row'
    )
    while some := found.fetchmany(FETCHED):
        for user, session, item, when, row in some:
            who = user
            if user is None:
                who = f"session:{session}" if session in apart else session
            name = "\x1f".join(map(str, (row, who, item, when)))
            event = {
                "user": _sent(who),
                "item": _sent(item),
                "id": hashlib.blake2b(name.encode(), digest_size=12).hexdigest(),
            }
            if when is not None:
                event["time"] = when / 1000
            if session is not None:
                event["session"] = _sent(session)
            yield event


def batches(events: Iterator[dict[str, Any]], fast: float | None) -> Iterator[list[dict[str, Any]]]:
    """The events to send at once: as many as may be, or those whose time has come, for which it is waited."""
    first = next(events, None)
    if first is None:
        return
    begun, start = time.monotonic(), first.get("time", 0.0)
    batch: list[dict[str, Any]] = []
    for event in chain([first], events):
        left = 0.0 if fast is None else (event["time"] - start) / fast - (time.monotonic() - begun)
        if batch and (left > 0 or len(batch) >= AT_ONCE):
            yield batch
            batch = []
            left = 0.0 if fast is None else (event["time"] - start) / fast - (time.monotonic() - begun)
        if left > 0:
            time.sleep(left)
        batch.append(event)
    yield batch


class Progress:
    """A line on a terminal: how much is done, how fast, how long it still takes."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.begun = time.monotonic()
        self.live = sys.stderr.isatty()
        self.drawn = 0.0

    def __call__(self, done: int) -> None:
        """So many events are taken in."""
        now = time.monotonic()
        if not self.live or now - self.drawn < REDRAWN:
            return
        from foretaste.training.progress import clock

        self.drawn = now
        rate = done / max(now - self.begun, 1e-9)
        left = clock((self.total - done) / max(rate, 1e-9))
        text = f"\r\033[Ksent {done:,} of {self.total:,} events  {rate:,.0f}/s  {left} left"
        print(text, end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave nothing on the terminal."""
        if self.live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _sent(raw: Any) -> str | int:
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else str(raw)
