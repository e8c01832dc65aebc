"""Steps on a log before it is split: where sessions begin, what is too rare to keep, and how long a look lasted.

Each step returns a new log, and says in the log's report what it did and what it removed. The methods `log.sessions`
and `log.filter` lead here.

A session made here is named by the row, in the source, of its first event (by gap) or its lowest row (else), so its
name is unique in the log and stays the same whatever is filtered later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from pydantic import Field, model_validator

from foretaste.config import Config
from foretaste.data.arrange import Tables, counts_inside, in_order, number_events, number_sessions, room_for
from foretaste.data.summary import OVER_ALL
from foretaste.data.timeline import Codes, Mask, Timeline, count, distinct
from foretaste.errors import ConfigError, DataError, NeedsError

if TYPE_CHECKING:
    from foretaste.data.events import EventLog

FUTURE_COLUMNS = frozenset({"dwell"})
"""Columns of which an event's value is only known at the next event; a model that reads them is not causal."""

UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
"""Milliseconds."""

OWNER = """"user", CASE WHEN "user" IS NULL THEN "session" END"""
"""Whose events are cut into sessions: a user's, or those of one session without a user."""

Condition = Literal["item_support", "session_length", "user_events", "user_sessions"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)


def given(log: EventLog) -> EventLog:
    """The log's own session ids, as they are."""
    if "sessions" not in log.has:
        raise NeedsError(
            "the log has no session ids; name their column with session= (--session) when reading, or make sessions: "
            "log.sessions(gap='30m') or per='day' (--gap 30m, --per-day)"
        )
    return log


def by_gap(log: EventLog, gap: str | float = "30m") -> EventLog:
    """A new session wherever more time than `gap` has passed since the user's previous event.

    `gap` is seconds or a text such as "30m", "1h", "2d". A gap of exactly that length does not begin a session.
    """
    limit = milliseconds(gap)
    _needs_times(log, "sessions by gap")
    order = in_order(log)
    sql = f"""
        WITH marked AS (
            SELECT row, "user", "session", time, position,
                row_number() OVER (PARTITION BY {OWNER} ORDER BY {order}) AS place,
                coalesce(time - lag(time) OVER (PARTITION BY {OWNER} ORDER BY {order}) > {limit}, true) AS begins
            FROM {{table}}),
        named AS (  -- a running max of place and row as one: last_value(... IGNORE NULLS) is quadratic
            SELECT row, max(CASE WHEN begins THEN (place::HUGEINT << 40) + row END)
                OVER (PARTITION BY {OWNER} ORDER BY {order} ROWS UNBOUNDED PRECEDING) & ((1::HUGEINT << 40) - 1) AS head
            FROM marked)
        SELECT e.* REPLACE (n.head::BIGINT AS "session") FROM {{table}} e JOIN named n USING (row)"""
    result = _derived(log, sql, "sessions", f"a new session after a gap of more than {limit / 1000:g} s", {"sessions"})
    result.rules |= {"sessions": "gap", "gap": limit / 1000}
    return result


def by_day(log: EventLog, utc_offset: float = 0.0) -> EventLog:
    """A user's events of one calendar day are one session; `utc_offset` is where that day begins, in hours east."""
    _needs_times(log, "sessions by day")
    if not -24 < utc_offset < 24:
        raise ConfigError(f"sessions by day: utc_offset = {utc_offset!r}; give hours between -24 and 24")
    shift = round(utc_offset * UNITS["h"])

    def day(time: str) -> str:
        return f"CAST(floor(({time} + {shift}) / {UNITS['d']}.0) AS BIGINT)"

    sql = f"""
        WITH days AS (
            SELECT "user", CASE WHEN "user" IS NULL THEN "session" END AS own, {day("time")} AS day, min(row) AS session
            FROM {{table}} GROUP BY ALL)
        SELECT e.* REPLACE (d.session AS "session") FROM {{table}} e JOIN days d
            ON e."user" IS NOT DISTINCT FROM d."user"
            AND CASE WHEN e."user" IS NULL THEN e."session" END IS NOT DISTINCT FROM d.own
            AND {day("e.time")} = d.day"""
    zone = "UTC" if not utc_offset else f"UTC{utc_offset:+g} h"
    result = _derived(log, sql, "sessions", f"one a user and calendar day, {zone}", {"sessions"})
    result.rules |= {"sessions": "day", "utc_offset": utc_offset}
    return result


def by_count(log: EventLog, events: int) -> EventLog:
    """A user's events in their order, a new session after every so many; the last may be shorter. Needs no times."""
    if events < 1:
        raise ConfigError(f"sessions by count: events = {events!r}; give 1 or more")
    order, events_of, kept, added = in_order(log), "{table}", "", {"sessions"}
    if counts_inside(log):  # with the old sessions their order would go: from now on the position says it
        order, heads = f"number, {order}", number_sessions(log)
        events_of = f"""(SELECT e.*, s.number FROM {{table}} e JOIN {heads} s
            ON e."user" IS NOT DISTINCT FROM s."user" AND e."session" IS NOT DISTINCT FROM s."session")"""
        kept, added = ", n.place::DOUBLE AS position", {"sessions", "order"}
    sql = f"""
        WITH numbered AS (
            SELECT row, "user" AS one, CASE WHEN "user" IS NULL THEN "session" END AS own,
                row_number() OVER (PARTITION BY {OWNER} ORDER BY {order}) AS place
            FROM {events_of}),
        named AS (SELECT *, min(row) OVER (PARTITION BY one, own, (place - 1) // {events}) AS session FROM numbered)
        SELECT e.* REPLACE (n.session AS "session"{kept}) FROM {{table}} e JOIN named n USING (row)"""
    result = _derived(log, sql, "sessions", f"a new session after every {events} events of a user", added)
    result.rules |= {"sessions": "count", "events": events}
    return result


def with_dwell(log: EventLog) -> EventLog:
    """Adds the column `dwell`: seconds until the next event of the session. The last event of each session goes.

    Not causal: on the day it is not known before the next event has come. For replications that need it.
    """
    sql = f"""
        WITH seen AS (SELECT row, ({_beside(log, "lead")} - time) / 1000.0 AS dwell FROM {{table}})
        SELECT e.*, seen.dwell FROM {{table}} e JOIN seen USING (row) WHERE seen.dwell IS NOT NULL"""
    detail = "seconds until the session's next event, which is not causal; the last event of each session is dropped"
    return _derived(log, sql, "dwell", detail, column="dwell")


def with_gaps(log: EventLog) -> EventLog:
    """Adds the column `gap`: seconds since the previous event of the session, 0 for its first. Causal."""
    sql = f"""
        WITH seen AS (SELECT row, coalesce((time - {_beside(log, "lag")}) / 1000.0, 0.0) AS gap FROM {{table}})
        SELECT e.*, seen.gap FROM {{table}} e JOIN seen USING (row)"""
    return _derived(log, sql, "gap", "seconds since the session's previous event, 0 for its first", column="gap")


class Filters(Config):
    """What is too rare to keep. 0 means that the condition is not asked."""

    item_support: int = Field(default=0, ge=0)
    """Fewest events of an item (or users, see `distinct_users`)."""
    session_length: int = Field(default=0, ge=0)
    """Fewest events of a session."""
    user_events: int = Field(default=0, ge=0)
    """Fewest events of a user. A session without a user is nobody's, and stays."""
    user_sessions: int = Field(default=0, ge=0)
    """Fewest sessions of a user. A session without a user is nobody's, and stays."""
    order: tuple[Condition, ...] = ()
    """In which order; a condition may come twice, as NARM's ("session_length", "item_support", "session_length").
    Without it: items, sessions, events of users, sessions of users."""
    until_stable: bool = False
    """Go on until everything that is left meets every condition, instead of one pass."""
    distinct_users: bool = False
    """An item's support is the number of users that have it (a session without a user counts as one), not of events."""

    @model_validator(mode="after")
    def _asked(self) -> Filters:
        for name in self.order:
            if not getattr(self, name):
                raise ValueError(f"order names {name}, but {name} is 0; give its least number")
        for name in CONDITIONS:
            if self.order and getattr(self, name) and name not in self.order:
                raise ValueError(f"{name} = {getattr(self, name)}, but order does not name it")
        return self

    def passes(self) -> tuple[Condition, ...]:
        """The conditions in their order."""
        return self.order or tuple(name for name in CONDITIONS if getattr(self, name))

    def check(self, has: frozenset[str]) -> None:
        """Refuse a log that lacks what a condition speaks of."""
        for name in self.passes():
            kind, word = name.split("_")[0] + "s", "session" if name == "session_length" else "user"
            if name == "user_sessions" and "sessions" not in has:
                kind, word = "sessions", "session"
            if kind != "items" and kind not in has:
                raise NeedsError(f"filter {name} needs {kind}, and the log has none; name their column with {word}=")

    def apply(self, codes: Codes | Timeline, counted: Mask | None = None) -> Iterator[tuple[str, str, Mask]]:
        """Each pass in turn: its name, what it asked, and [n] which events are left after it.

        Supports are counted over the events that are `counted`, and only those may go.
        """
        counted = np.ones(len(codes.items), bool) if counted is None else counted
        keep = np.ones(len(codes.items), bool)
        for name in self.passes():
            keep = keep & self._left(name, codes, keep & counted, counted)
            yield name, self._said(name), keep
        rounds, before = 0, -1
        while self.until_stable and before != (before := int(keep.sum())):
            for name in self.passes():
                keep = keep & self._left(name, codes, keep & counted, counted)
            rounds += before != int(keep.sum())
        if self.until_stable:
            yield "until stable", f"{rounds} more rounds of the same", keep

    def _left(self, name: Condition, codes: Codes | Timeline, seen: Mask, counted: Mask) -> Mask:
        """Which events the condition leaves, when it counts those that are `seen`."""
        least = getattr(self, name)
        if name == "item_support":
            items = codes.items[seen]
            if self.distinct_users:
                user = codes.user_of_session[codes.session_of[seen]].astype(np.int64)
                items = (distinct(np.sort(user << 32 | items)) & 0xFFFFFFFF).astype(np.int32)
            enough = np.bincount(items, minlength=int(codes.items.max(initial=0)) + 1) >= least
            left: Mask = ~counted | enough[codes.items]
            return left
        lengths = np.bincount(codes.session_of[seen], minlength=len(codes.user_of_session))
        if name == "session_length":
            enough = lengths >= least
        else:
            amount = lengths if name == "user_events" else (lengths > 0)
            of_user = np.bincount(codes.user_of_session, amount, minlength=len(codes.named))
            enough = ((of_user >= least) | ~codes.named)[codes.user_of_session]
        left = ~counted | enough[codes.session_of]
        return left

    def _said(self, name: Condition) -> str:
        whose, what = name.split("_")
        unit = "sessions" if what == "sessions" else "users" if whose == "item" and self.distinct_users else "events"
        return f"{whose}s with at least {getattr(self, name)} {unit}"


def filtered(log: EventLog, filters: Filters | None = None, **conditions: Any) -> EventLog:
    """The log without what is too rare, counted over the whole log, so also over what becomes the test part later.

    That is what the papers do. Filters that count over the training part alone are given to `log.prepare(filters=...)`.
    """
    from foretaste.data.events import Step

    filters = filters or Filters(**conditions)
    filters.check(log.has)
    codes, tables = number_events(log)
    try:
        steps, keep = list[Step](), np.ones(len(codes.items), bool)
        for name, detail, keep in filters.apply(codes):
            steps.append(Step(name, f"{detail}, {OVER_ALL}", *count(codes, keep)))
            if not keep.any():
                raise DataError(f"filter {name}: {detail}: nothing is left of {len(log)} events; ask for less")
        result = _without(log, codes, tables, keep)
    finally:
        tables.drop(log.db)
    result.steps = [*log.steps, *steps]
    return result


def milliseconds(length: str | float) -> int:
    """A length of time: seconds, or a text such as "30m"."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)?\s*", str(length))
    value = round(float(found[1]) * UNITS[found[2] or "s"]) if found else 0
    if value <= 0:
        raise ConfigError(f"gap = {length!r}: expected seconds, or a length such as '30m', '1h' or '2d', longer than 0")
    return value


def _without(log: EventLog, codes: Codes, tables: Tables, keep: Mask) -> EventLog:
    """The log of the kept events. Each filter removes whole items, sessions or users, so what is gone can be named."""
    items = np.bincount(codes.items[keep], minlength=int(codes.items.max()) + 1) == 0
    sessions = np.bincount(codes.session_of[keep], minlength=len(codes.user_of_session)) == 0
    gone = {tables.items: np.flatnonzero(items[1:]) + 1, tables.sessions: np.flatnonzero(sessions) + 1}
    with room_for(log):
        for table, numbers in gone.items():
            log.db.register("gone", {"number": numbers})
            log.db.execute(f"DELETE FROM {table} WHERE number NOT IN (SELECT number FROM gone)")
            log.db.unregister("gone")
        sql = f"""SELECT e.* FROM {{table}} e ANTI JOIN {tables.items} i ON e.item = i.value
            ANTI JOIN {tables.sessions} s
            ON e."user" IS NOT DISTINCT FROM s."user" AND e."session" IS NOT DISTINCT FROM s."session\""""
        return log.derive(sql, "filter", "too rare")


def _beside(log: EventLog, which: str) -> str:
    """The time of the event before or after this one in its session."""
    _needs_times(log, "the time between events")
    order = in_order(log)
    return f'{which}(time) OVER (PARTITION BY "user", "session" ORDER BY {order})'


def _derived(
    log: EventLog, sql: str, name: str, detail: str, added: AbstractSet[str] = frozenset(), column: str | None = None
) -> EventLog:
    if column in log.columns:
        raise ConfigError(f"the log already has a column '{column}'; leave it out when reading, or do not add it")
    with room_for(log):
        result = log.derive(sql, name, detail, has=log.has | added)
    if column:
        result.columns = (*log.columns, column)
    return result


def _needs_times(log: EventLog, what: str) -> None:
    if "times" not in log.has:
        raise NeedsError(
            f"{what}: the log has no times, and gaps are unknown without; name their column with time= (--time)"
        )
