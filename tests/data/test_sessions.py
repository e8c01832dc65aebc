"""Steps on a log: sessions by gap and day, dwell and gaps, filters; by hand, and against a slow twin."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data import sessions
from foretaste.data.events import EventLog
from foretaste.data.sessions import Filters
from foretaste.data.splits import LastSession
from foretaste.errors import ConfigError, DataError, NeedsError

HOUR, T = 3600, 1_700_000_000


def log_of(rows: list[tuple[Any, ...]], *names: str) -> EventLog:
    """A log from tuples; a name is an argument of `EventLog.read`."""
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    arrays = {name: np.array(values, dtype=object if isinstance(values[0], str | None) else None)
              for name, values in columns.items()}  # fmt: skip
    return EventLog.read(arrays, **{name: name for name in names})


def column(log: EventLog, what: str) -> list[Any]:
    """One column in the order of the source."""
    return [row[0] for row in log.db.execute(f"SELECT {what} FROM {log.table} ORDER BY row").fetchall()]


def last(log: EventLog) -> tuple[int, int, int, int]:
    """The counts of the last step."""
    step = log.steps[-1]
    return step.events, step.users, step.sessions, step.items


# Sessions


def test_a_gap_of_exactly_the_limit_stays_in_the_session() -> None:
    log = log_of([("u", "a", 0), ("u", "b", 1800), ("u", "c", 3601), ("v", "a", 3602)], "user", "item", "time")
    assert column(sessions.by_gap(log, "30m"), '"session"') == [1, 1, 3, 4]
    assert column(sessions.by_gap(log, 1799), '"session"') == [1, 2, 3, 4]
    assert column(sessions.by_gap(log, 1801), '"session"') == [1, 1, 1, 4]
    assert last(sessions.by_gap(log, "30m")) == (4, 2, 3, 3)


def test_gaps_follow_time_and_not_the_order_of_the_source() -> None:
    log = log_of([("u", "a", 9000), ("u", "b", 10), ("v", "c", 20), ("u", "d", 0)], "user", "item", "time")
    assert column(log.sessions(gap="1h"), '"session"') == [1, 4, 3, 4]


def test_a_session_without_a_user_is_cut_in_itself() -> None:
    log = log_of(
        [(None, "s", "a", 0), (None, "s", "b", 5000), (None, "t", "c", 1), ("u", "x", "d", 0), ("u", "y", "e", 9)],
        "user", "session", "item", "time",
    )  # fmt: skip
    cut = log.sessions(gap="30m")
    assert column(cut, '"session"') == [1, 2, 3, 4, 4]
    assert cut.has >= {"users", "sessions", "times"}


@pytest.mark.parametrize(("text", "length"), [("30m", 1_800_000), ("1.5h", 5_400_000), (45, 45_000),
                                               ("2d", 172_800_000), ("250ms", 250), (0.5, 500),
                                               ("10 min", 600_000)])  # fmt: skip
def test_lengths_of_time(text: str | float, length: int) -> None:
    assert sessions.milliseconds(text) == length


@pytest.mark.parametrize("wrong", ["", "soon", "-5m", 0, -1, "0s", "5 weeks", float("nan")])
def test_wrong_lengths_are_refused_by_name(wrong: str | float) -> None:
    with pytest.raises(ConfigError, match="expected seconds, or a length such as '30m'"):
        sessions.milliseconds(wrong)


def test_a_day_is_a_calendar_day() -> None:
    midnight = 20_000 * 86_400
    times = [midnight - 1, midnight, midnight + 23 * HOUR, midnight + 24 * HOUR]
    log = log_of([("u", str(k), time) for k, time in enumerate(times)] + [("v", "0", midnight)], "user", "item", "time")
    assert column(log.sessions(per="day"), '"session"') == [1, 2, 2, 4, 5]
    assert column(sessions.by_day(log, utc_offset=1), '"session"') == [1, 1, 3, 3, 5]
    assert column(sessions.by_day(log, utc_offset=-1), '"session"') == [1, 1, 3, 3, 5]
    with pytest.raises(ConfigError, match="utc_offset = 30"):
        sessions.by_day(log, utc_offset=30)


def test_so_many_events_are_a_session() -> None:
    """In the order of the positions, and without a clock; sessions without a user are cut in themselves."""
    rows = [("u", "a", 4), ("u", "b", 0), ("v", "c", 0), ("u", "d", 1), ("u", "e", 3), ("u", "f", 2)]
    cut = log_of(rows, "user", "item", "order").sessions(events=2)
    assert column(cut, '"session"') == [1, 2, 3, 2, 5, 5]
    assert last(cut) == (6, 2, 4, 6)
    found = cut.prepare().sequences
    assert np.diff(found.sessions).tolist() == [2, 2, 1, 1]
    assert [cut.prepare().items.ids[number - 1] for number in found.items] == ["b", "d", "f", "e", "a", "c"]
    for order, wanted in (
        (None, "abcdef"),
        ([2, 2, 2, 1, 1, 1], "defabc"),
    ):  # positions that begin anew in each session
        told = {"user": [1] * 6, "session": [7] * 3 + [8] * 3, "item": list("abcdef"), "at": [1, 2, 3] * 2}
        columns = {"user": "user", "session": "session", "item": "item", "order": "at"}
        if order:
            told["of"], columns["session_order"] = order, "of"
        pieces = EventLog.read(told, **columns).sessions(events=4).prepare()
        assert "".join(pieces.items.ids[number - 1] for number in pieces.sequences.items) == wanted
        assert pieces.sequences.sessions.tolist() == [0, 4, 6]
    own = log_of([(None, "s", "a", 0), (None, "t", "b", 5), (None, "s", "c", 9)], "user", "session", "item", "time")
    assert column(own.sessions(events=2), '"session"') == [1, 2, 1]
    assert column(own.sessions(events=1), '"session"') == [1, 2, 3]
    with pytest.raises(ConfigError, match="events = 0"):
        own.sessions(events=0)
    with pytest.raises(DataError, match="one of the three"):
        own.sessions(gap="1h", events=2)


def test_without_times_sessions_are_refused_by_name() -> None:
    log = EventLog.read(
        {"u": np.array([1, 1]), "i": np.array([1, 2]), "p": np.array([0, 1])}, user="u", item="i", order="p"
    )
    for step in (sessions.by_gap, sessions.by_day, sessions.with_dwell, sessions.with_gaps):
        with pytest.raises(NeedsError, match="the log has no times"):
            step(log)
    with pytest.raises(NeedsError, match="has no session ids"):
        sessions.given(log)


def test_given_sessions_stay_as_they_are() -> None:
    log = log_of([("s", "a", 0), ("s", "b", 99999)], "session", "item", "time")
    assert sessions.given(log) is log


# Dwell and gaps

LOOKS = [("s", "a", 100), ("t", "b", 100), ("s", "c", 130), ("s", "d", 131), ("t", "e", 400), ("r", "f", 0)]


def test_dwell_is_the_time_to_the_next_event_and_the_last_event_goes() -> None:
    log = sessions.with_dwell(log_of(LOOKS, "session", "item", "time"))
    assert column(log, "item") == ["a", "b", "c"]
    assert column(log, "dwell") == [30.0, 300.0, 1.0]
    assert log.columns == ("dwell",)
    assert "not causal" in log.steps[-1].detail
    with pytest.raises(ConfigError, match="already has a column 'dwell'"):
        sessions.with_dwell(log)


def test_a_gap_is_the_time_since_the_previous_event() -> None:
    log = sessions.with_gaps(log_of(LOOKS, "session", "item", "time"))
    assert column(log, "gap") == [0.0, 0.0, 30.0, 1.0, 300.0, 0.0]
    assert last(log) == (6, 0, 3, 6)


# Filters

#  s1: a a b   s2: b c   s3: c   s4: d a        a 3, b 2, c 2, d 1
CLICKS = [(s, i, k) for k, (s, i) in enumerate([("s1", "a"), ("s1", "a"), ("s1", "b"), ("s2", "b"), ("s2", "c"),
                                                ("s3", "c"), ("s4", "d"), ("s4", "a")])]  # fmt: skip


def items_left(log: EventLog) -> str:
    return "".join(column(log, "item"))


def test_one_pass_in_the_given_order() -> None:
    log = log_of(CLICKS, "session", "item", "time")
    assert items_left(log.filter(item_support=2)) == "aabbcca"
    assert items_left(log.filter(session_length=2)) == "aabbcda"
    assert items_left(log.filter(item_support=2, session_length=2)) == "aabbc"
    assert items_left(log.filter(item_support=2, session_length=2, order=("session_length", "item_support"))) == "aabba"


def test_a_condition_may_come_twice_and_each_pass_is_reported() -> None:
    log = log_of(CLICKS, "session", "item", "time")
    narm = log.filter(item_support=2, session_length=2, order=("session_length", "item_support", "session_length"))
    assert items_left(narm) == "aab"
    assert [(s.name, s.events, s.users, s.sessions, s.items) for s in narm.steps[-3:]] == [
        ("session_length", 7, 0, 3, 4), ("item_support", 5, 0, 3, 2), ("session_length", 3, 0, 1, 2),
    ]  # fmt: skip
    assert narm.steps[-1].detail == "sessions with at least 2 events, counted over the whole log"
    assert len(narm) == 3


def test_until_stable_leaves_only_what_meets_every_condition() -> None:
    log = log_of([("s1", "a", 0), ("s1", "b", 1), ("s2", "b", 2), ("s2", "c", 3), ("s3", "c", 4), ("s3", "d", 5),
                  ("s4", "d", 6), ("s4", "x", 7), ("s5", "y", 8), ("s5", "z", 9), ("s6", "z", 10), ("s6", "y", 11)],
                 "session", "item", "time")  # fmt: skip
    conditions = {"item_support": 2, "session_length": 2}
    assert items_left(log.filter(**conditions)) == "bccdyzzy"
    stable = log.filter(**conditions, until_stable=True)
    assert items_left(stable) == "yzzy"
    assert (stable.steps[-1].name, stable.steps[-1].detail.split(",")[0]) == (
        "until stable",
        "1 more rounds of the same",
    )


def test_item_support_by_distinct_users() -> None:
    log = log_of([("u", "a", 0), ("u", "a", 1), ("u", "b", 2), ("v", "b", 3), ("v", "c", 4)], "user", "item", "time")
    assert items_left(log.filter(item_support=2)) == "aabb"
    assert items_left(log.filter(item_support=2, distinct_users=True)) == "bb"
    anonymous = log_of([("s", "a", 0), ("s", "a", 1), ("t", "b", 2), ("r", "b", 3)], "session", "item", "time")
    assert items_left(anonymous.filter(item_support=2, distinct_users=True)) == "bb"


def test_users_by_events_and_by_sessions() -> None:
    rows = [("u", "1", "a", 0), ("u", "2", "b", 1), ("v", "1", "a", 2), ("v", "1", "b", 3), ("w", "1", "a", 4),
            (None, "9", "c", 5)]  # fmt: skip
    log = log_of(rows, "user", "session", "item", "time")
    assert items_left(log.filter(user_events=2)) == "ababc"
    assert items_left(log.filter(user_sessions=2)) == "abc"
    assert last(log.filter(user_sessions=2)) == (3, 1, 3, 3)
    assert items_left(log.filter(user_events=2, session_length=2)) == "ab"


def test_filters_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ConfigError, match="order names user_events, but user_events is 0"):
        Filters(item_support=5, order=("item_support", "user_events"))
    with pytest.raises(ConfigError, match="session_length = 2, but order does not name it"):
        Filters(item_support=5, session_length=2, order=("item_support",))
    with pytest.raises(ConfigError, match=r"unknown key 'item_suport'.*item_support"):
        Filters(item_suport=5)
    with pytest.raises(ConfigError, match="greater than or equal to 0"):
        Filters(item_support=-1)


def test_filters_say_what_the_log_lacks() -> None:
    log = log_of(CLICKS, "session", "item", "time")
    with pytest.raises(NeedsError, match="user_events needs users"):
        log.filter(user_events=2)
    users = log_of([("u", "a", 0)], "user", "item", "time")
    with pytest.raises(NeedsError, match="session_length needs sessions"):
        users.filter(session_length=2)
    with pytest.raises(NeedsError, match="user_sessions needs sessions"):
        users.filter(user_sessions=2)


def test_a_filter_that_leaves_nothing_says_which() -> None:
    with pytest.raises(DataError, match=r"item_support.*at least 4 events.*nothing is left of 8 events"):
        log_of(CLICKS, "session", "item", "time").filter(item_support=4)


Event = tuple[int, int, int]
EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 6)), min_size=1, max_size=40)
ORDERS = st.permutations(["item_support", "session_length", "user_events", "user_sessions"])


def slow_pass(events: list[Event], name: str, least: int) -> list[Event]:
    """One condition, as its sentence says it."""
    if name == "item_support":
        support = Counter(item for _, _, item in events)
        return [event for event in events if support[event[2]] >= least]
    if name == "session_length":
        length = Counter(event[:2] for event in events)
        return [event for event in events if length[event[:2]] >= least]
    of_user = events if name == "user_events" else list({event[:2] for event in events})
    amount = Counter(event[0] for event in of_user)
    return [event for event in events if amount[event[0]] >= least]


@settings(max_examples=40)
@given(EVENTS, ORDERS, st.integers(1, 3), st.booleans())
def test_filters_equal_their_slow_twin(events: list[Event], order: list[str], least: int, stable: bool) -> None:
    rows = [(*event, time) for time, event in enumerate(events)]
    left, before = events, -1
    while before != len(left) and (stable or before == -1):
        before = len(left)
        for name in order:
            left = slow_pass(left, name, least)
    log = log_of(rows, "user", "session", "item", "time")
    conditions = dict.fromkeys(order, least)
    if not left:
        with pytest.raises(DataError, match="nothing is left"):
            log.filter(**conditions, order=tuple(order), until_stable=stable)
        return
    result = log.filter(**conditions, order=tuple(order), until_stable=stable)
    assert result.db.execute(f'SELECT "user", "session", item FROM {result.table} ORDER BY row').fetchall() == left
    assert last(result) == (
        len(left), len({e[0] for e in left}), len({e[:2] for e in left}), len({e[2] for e in left})
    )  # fmt: skip


def test_pieces_of_a_history_stand_in_its_order_whatever_the_order_of_the_file() -> None:
    table = {"user": np.ones(4), "item": np.array(list("dabc")), "time": np.array([T + 1, T, T, T])}
    log = EventLog.read(table, user="user", item="item", time="time").sessions(events=2)
    prepared = log.prepare(LastSession())
    assert prepared.sequences.times is not None
    assert np.asarray(prepared.sequences.times).tolist() == sorted(np.asarray(prepared.sequences.times).tolist())
    assert np.asarray(prepared.sequences.part).tolist() == [0, 0, 2, 2]


def test_an_order_breaks_ties_of_time_between_sessions() -> None:
    columns = {"user": [1] * 4, "s": [2, 2, 1, 1], "item": list("cdab"), "pos": [3, 4, 1, 2], "time": [T] * 4}
    for named in ({"time": "time"}, {}):
        log = EventLog.read(
            {name: np.array(values) for name, values in columns.items()},
            user="user", item="item", session="s", order="pos", **named,
        )  # fmt: skip
        prepared = log.prepare(LastSession(), candidates="all")
        found = prepared.items.raw(np.asarray(prepared.sequences.items).tolist())
        assert found == ["a", "b", "c", "d"]


def test_one_tie_across_a_cut_does_not_turn_the_pieces_round() -> None:
    table = {"user": np.ones(6), "item": np.array(list("fedcba")), "pos": np.array([6, 5, 4, 2, 2, 1])}
    log = EventLog.read(table, user="user", item="item", order="pos").sessions(events=2)
    prepared = log.prepare(LastSession(), candidates="all")
    found = prepared.items.raw(np.asarray(prepared.sequences.items).tolist())
    assert found == ["a", "c", "b", "d", "e", "f"]  # c and b tie: the order of the file
