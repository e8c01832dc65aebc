"""Splits: each on a log of three users by hand, and what must hold for every log."""

from __future__ import annotations

import datetime
import tomllib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.sequences import TEST, TRAIN, VALIDATION
from foretaste.data.splits import (
    Given,
    GlobalTime,
    LastItem,
    LastSession,
    LastTwo,
    Ratio,
    RecentPrefixes,
    SessionOrder,
    Split,
    WholeUsers,
    split_of,
)
from foretaste.data.timeline import Timeline
from foretaste.errors import ConfigError, DataError, NeedsError

DAY = 86_400_000


def line_of(users: list[list[list[int]]], **changes: Any) -> Timeline:
    """A timeline from users, each a list of sessions, each a list of times in seconds."""
    sessions = [session for user in users for session in user]
    times = np.array([time for session in sessions for time in session], np.int64) * 1000
    parts: dict[str, Any] = {
        "items": np.arange(1, len(times) + 1, dtype=np.int32),
        "users": np.cumsum([0] + [sum(map(len, user)) for user in users]),
        "sessions": np.cumsum([0] + [len(session) for session in sessions]),
        "named": np.ones(len(users), bool),
        "name": np.arange(len(users)),
        "begin": np.array([session[0] * 1000 for session in sessions], np.int64),
        "first": np.arange(len(sessions)),
        "has_sessions": True,
        "times": times,
    }
    return Timeline(**(parts | changes))


#         A: two sessions            B: one        C: three sessions
THREE = [[[0, 10], [100, 110, 120]], [[50, 60]], [[105], [130, 140], [200]]]


def told(split: Split, line: Timeline) -> str:
    """The parts as one letter an event, a space between users: t, v and T for train, validation and test."""
    part = split.parts(line)
    text = "".join("tvT"[number] for number in part)
    return " ".join(text[a:b] for a, b in zip(line.users, line.users[1:], strict=False))


LINE = line_of(THREE)


def test_global_time_puts_a_session_where_it_starts() -> None:
    assert told(GlobalTime(at="1970-01-01T00:01:45"), LINE) == "ttttt tt TTTT"
    assert told(GlobalTime(at="1970-01-01T00:01:46"), LINE) == "ttttt tt tTTT"
    assert told(GlobalTime(at="1970-01-01T00:01:40"), LINE) == "ttTTT tt TTTT"


def test_global_time_by_the_end_of_the_session() -> None:
    assert told(GlobalTime(at="1970-01-01T00:02:00", by="end"), LINE) == "ttTTT tt tTTT"
    assert told(GlobalTime(at="1970-01-01T00:02:01", by="end"), LINE) == "ttttt tt tTTT"
    assert told(GlobalTime(at="1970-01-01T00:00:00", by="end"), LINE) == "TTTTT TT TTTT"


def test_global_time_by_event_may_cut_a_session() -> None:
    assert told(GlobalTime(at="1970-01-01T00:01:50", by="event"), LINE) == "tttTT tt tTTT"


def test_days_count_back_from_the_last_event_and_the_border_is_training() -> None:
    # The last event is at 200 s; 60 s before it, at 140 s, lies the border: later than that is test.
    assert told(GlobalTime(days=60 / 86_400), LINE) == "ttttt tt tttT"
    assert told(GlobalTime(days=60 / 86_400, by="end"), LINE) == "ttttt tt tttT"
    assert told(GlobalTime(days=60.001 / 86_400, by="end"), LINE) == "ttttt tt tTTT"


def test_days_of_a_log_of_dates_are_whole_days() -> None:
    dates = line_of([[[day * 86_400] for day in range(10)]])
    assert told(GlobalTime(days=7), dates) == "tttTTTTTTT"


def test_a_share_of_events_sets_the_moment() -> None:
    # 11 events in time: 0 10 50 60 100 105 110 120 130 140 200; the last 3 begin at 130.
    assert told(GlobalTime(fraction=3 / 11, by="event"), LINE) == "ttttt tt tTTT"
    assert told(GlobalTime(fraction=5 / 11, by="event"), LINE) == "tttTT tt tTTT"
    assert told(GlobalTime(fraction=5 / 11), LINE) == "ttttt tt tTTT"


def test_without_sessions_each_event_goes_by_its_own_time() -> None:
    users = line_of([[[0, 10, 100]], [[50, 60]]], has_sessions=False)
    assert told(GlobalTime(at="1970-01-01T00:01:00"), users) == "ttT tT"


def test_after_the_first_test_event_of_a_user_all_is_test() -> None:
    # Two tabs: the first session ends after the second, so by its end it is test and the second would not be.
    tabs = line_of([[[0, 100], [20, 30], [300]]])
    assert told(GlobalTime(at="1970-01-01T00:01:00", by="end"), tabs) == "TTTTT"
    assert told(GlobalTime(at="1970-01-01T00:01:00", by="event"), tabs) == "tTTTT"


@pytest.mark.parametrize(("at", "same"), [("2014-09-30", 1_412_035_200), ("2014-09-30T02:00:00+02:00", 1_412_035_200),
                                          (datetime.date(2014, 9, 30), 1_412_035_200),
                                          (datetime.datetime(2014, 9, 30, 12), 1_412_078_400)])  # fmt: skip
def test_a_moment_is_utc_unless_it_says(at: Any, same: int) -> None:
    assert GlobalTime(at=at).cut(np.array([0])) == same * 1000 - 1


def test_global_time_takes_one_moment_only() -> None:
    for wrong in ({}, {"days": 1, "at": "2014-09-30"}, {"days": 1, "fraction": 0.1}):
        with pytest.raises(ConfigError, match="give exactly one of days, at and fraction"):
            GlobalTime(**wrong)
    with pytest.raises(ConfigError, match="at = 'soon' is no date or time"):
        GlobalTime(at="soon")
    with pytest.raises(ConfigError, match="greater than 0"):
        GlobalTime(days=0)


def test_session_order_takes_the_newest_sessions() -> None:
    assert told(SessionOrder(count=1), LINE) == "ttttt tt tttT"
    assert told(SessionOrder(count=3), LINE) == "ttttt tt TTTT"
    assert told(SessionOrder(count=4), LINE) == "ttTTT tt TTTT"
    assert told(SessionOrder(fraction=0.5), LINE) == "ttttt tt TTTT"  # of 6 sessions
    assert told(SessionOrder(fraction=0.01), LINE) == "ttttt tt tttT"
    with pytest.raises(ConfigError, match="give exactly one of fraction and count"):
        SessionOrder()


def test_session_order_without_times_uses_the_given_order_then_the_row() -> None:
    numbered = line_of(THREE, times=None, begin=np.array([9, 8, 7, 1, 2, 9]), first=np.array([5, 4, 3, 2, 1, 0]))
    # In order: C1 (1), C2 (2), B (7), A2 (8), then C3 and A1, both 9, C3 with the lower row.
    assert told(SessionOrder(count=1), numbered) == "TTTTT tt tttt"
    assert told(SessionOrder(count=2), numbered) == "TTTTT tt tttT"


def test_whole_users_are_drawn_by_the_seed_alone() -> None:
    many = line_of([[[k, k + 1]] for k in range(100)])
    part = WholeUsers(fraction=0.25, seed=3).parts(many)
    assert (part[0::2] == part[1::2]).all()
    assert (part == TEST).sum() == 50
    assert (WholeUsers(fraction=0.25, seed=3).parts(many) == part).all()
    assert (WholeUsers(fraction=0.25, seed=4).parts(many) != part).any()
    assert (WholeUsers(fraction=0.001).parts(many) == TEST).sum() == 2


def test_last_item_last_two_last_session() -> None:
    assert told(LastItem(), LINE) == "ttttT tT tttT"
    assert told(LastTwo(), LINE) == "tttvT tt ttvT"
    assert told(LastSession(), LINE) == "ttTTT tt tttT"
    single = line_of([[[1]], [[1, 2]], [[1], [2]], [[1, 2, 3]]])
    assert told(LastItem(), single) == "t tT tT ttT"
    assert told(LastTwo(), single) == "t tt tt tvT"
    assert told(LastSession(), single) == "t tt tT ttt"


@pytest.mark.parametrize(("n", "plus", "plain"), [(1, 1, 0), (2, 2, 1), (3, 3, 2), (4, 3, 2), (10, 8, 7), (20, 15, 14),
                                                  (23, 17, 16)])  # fmt: skip
def test_ratio_counts_floor_of_the_share_and_one_more(n: int, plus: int, plain: int) -> None:
    line = line_of([[[0]], [list(range(n))]])
    assert told(Ratio(train=0.7), line) == "t " + "t" * plus + "T" * (n - plus)
    assert told(Ratio(train=0.7, plus_one=False), line) == "T " + "t" * plain + "T" * (n - plain)


def test_ratio_is_not_fooled_by_floating_point() -> None:
    line = line_of([[list(range(100))]])
    assert (Ratio(train=0.29, plus_one=False).parts(line) == TRAIN).sum() == 29  # 0.29 * 100 = 28.999...


def test_given_takes_the_log_at_its_word() -> None:
    line = line_of(THREE, given=np.array([1, 1, 2, 1, 1, 3, 3, 1, 2, 2, 2]), given_names=("a", "b", "c"))
    assert told(Given(train="a", test="b", validation=("c",)), line) == "ttTtt vv tTTT"
    assert told(Given(train=("a", "c"), test="b"), line) == "ttTtt tt tTTT"
    with pytest.raises(DataError, match="value 'c', which is neither train"):
        Given(train="a", test="b").parts(line)
    with pytest.raises(DataError, match="empty in 1 rows"):
        Given(train="a", test="b").parts(line_of([[[1], [2]]], given=np.array([0, 1]), given_names=("a",)))
    with pytest.raises(ConfigError, match="a stands in two parts"):
        Given(train="a", test="a")
    with pytest.raises(NeedsError, match=r"Given.* needs split"):
        Given().parts(LINE)


# Prefixes


def test_the_newest_prefixes_and_the_beginning_of_the_session_on_the_border() -> None:
    # Prefixes: A1 1, A2 2, B 1, C1 0, C2 1, C3 0. By end: A1 10, B 60, C1 105, A2 120, C2 140, C3 200.
    part = np.full(len(LINE), TRAIN, np.uint8)

    def kept(fraction: float, **settings: Any) -> str:
        keep = RecentPrefixes(fraction=fraction, **settings).keep(LINE, part)
        return "".join("-x"[int(one)] for one in keep)

    assert kept(1.0) == "xxxxxxxxxxx"
    assert kept(4 / 5) == "--xxxxxxxxx"
    assert kept(3 / 5) == "--xxx--xxxx"
    assert kept(2 / 5) == "--xx----xxx"  # one of the two prefixes of A2: its first two events
    assert kept(1 / 5) == "--------xxx"
    assert kept(1 / 10) == "----------x"  # no prefix at all: what is left has none
    assert kept(2 / 5, by="start") == "--xx---xxxx"  # C1 starts after A2 and ends before it


def test_the_test_part_is_left_alone_by_the_prefix_cut() -> None:
    part = np.array([0, 0, 0, 2, 2, 0, 0, 2, 2, 2, 2], np.uint8)
    keep = RecentPrefixes(fraction=1 / 2).keep(LINE, part)  # A1 and B have one prefix each, A2 none; B ends later
    assert "".join("-x"[int(one)] for one in keep) == "--xxxxxxxxx"


# What holds for all

ALL: list[Split] = [
    GlobalTime(days=0.0005), GlobalTime(fraction=0.3), GlobalTime(fraction=0.4, by="end"),
    GlobalTime(fraction=0.4, by="event"), SessionOrder(fraction=0.3), SessionOrder(count=2), WholeUsers(fraction=0.4),
    LastItem(), LastTwo(), LastSession(), Ratio(train=0.6), Ratio(train=0.5, plus_one=False),
]  # fmt: skip


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Users with sessions that may interleave, ordered by their first event."""
    users = []
    for _ in range(draw(st.integers(1, 5))):
        sessions = [sorted(draw(st.lists(st.integers(0, 99), min_size=1, max_size=4)))
                    for _ in range(draw(st.integers(1, 4)))]  # fmt: skip
        users.append(sorted(sessions, key=lambda session: session[0]))
    return line_of(users)


@given(timelines(), st.sampled_from(ALL))
def test_every_event_has_one_part_and_none_goes_back(line: Timeline, split: Split) -> None:
    part = split.parts(line)
    assert part.dtype == np.uint8
    assert len(part) == len(line)
    assert set(part) <= {TRAIN, VALIDATION, TEST}
    for start, stop in zip(line.users, line.users[1:], strict=False):
        assert (np.diff(part[start:stop].astype(int)) >= 0).all()
    if isinstance(split, SessionOrder | WholeUsers | LastSession) or getattr(split, "by", "") in ("start", "end"):
        for start, stop in zip(line.sessions, line.sessions[1:], strict=False):
            assert len(set(part[start:stop])) == 1


@given(timelines(), st.sampled_from(["end", "event"]))
def test_no_training_event_is_later_than_the_cut(line: Timeline, by: Any) -> None:
    split = GlobalTime(fraction=0.4, by=by)
    assert line.times is not None
    assert (line.times[split.parts(line) == TRAIN] <= split.cut(line.times)).all()


@given(timelines(), st.integers(1, 10), st.sampled_from(["start", "end"]))
def test_prefixes_are_counted_to_the_last_one(line: Timeline, tenths: int, by: Any) -> None:
    part = LastItem().parts(line)
    fraction = tenths / 10
    keep = RecentPrefixes(fraction=fraction, by=by).keep(line, part)
    assert keep[part == TEST].all()

    def prefixes(mask: Any) -> int:
        return sum(max(int(mask[a:b].sum()) - 1, 0) for a, b in zip(line.sessions, line.sessions[1:], strict=False))

    assert prefixes(keep & (part == TRAIN)) == int(fraction * prefixes(part == TRAIN) + 1e-9)


@settings(max_examples=30)
@given(timelines(), st.integers(0, 2**32 - 1))
def test_select_keeps_the_order_and_the_offsets(line: Timeline, bits: int) -> None:
    keep = np.array([bits >> k % 32 & 1 for k in range(len(line))], bool)
    if not keep.any():
        return
    left = line.select(keep)
    assert (left.items == line.items[keep]).all()
    assert (np.diff(left.users) == [n for n in line.per_user(keep) if n]).all()
    assert (np.diff(left.sessions) == [n for n in line.per_session(keep) if n]).all()
    assert (left.user_of_session == np.unique(line.user_of_session[line.session_of[keep]], return_inverse=True)[1][
        np.unique(line.session_of[keep], return_index=True)[1]]).all()  # fmt: skip


# Words and recipes


def test_every_split_says_what_it_leaks_and_goes_through_a_recipe() -> None:
    for split in [*ALL, GlobalTime(at="2014-09-30"), Given(train="a", test=("b", "c"))]:
        assert split.leaks
        assert "\n" not in split.leaks
        assert split_of(split.as_dict()) == split
        assert str(split).startswith(type(split).__name__ + "(")
    recipe = tomllib.loads('[split]\nkind = "global-time"\nat = 2014-09-30\nby = "end"')
    assert split_of(recipe["split"]) == GlobalTime(at="2014-09-30", by="end")
    assert split_of({"kind": "last_item"}) == LastItem()


def test_leave_one_out_admits_to_other_users_future() -> None:
    for split in (LastItem(), LastTwo(), LastSession(), Ratio(), WholeUsers()):
        assert split.leaks.startswith("other users' future")
    assert GlobalTime(days=1, by="event").leaks.startswith("nothing: ")
    assert GlobalTime(days=1, by="end").leaks.startswith("next to nothing: ")


def test_a_wrong_recipe_is_refused_with_the_nearest_word() -> None:
    with pytest.raises(ConfigError, match=r"kind = 'last-itm' is not known; did you mean 'last-item'"):
        split_of({"kind": "last-itm"})
    with pytest.raises(ConfigError, match=r"unknown key 'day'.*did you mean 'days'"):
        split_of({"kind": "global-time", "day": 7})


def test_a_split_refuses_a_log_without_what_it_needs() -> None:
    with pytest.raises(NeedsError, match=r"GlobalTime\(days=1.0, by='start'\) needs times.*SessionOrder"):
        GlobalTime(days=1).check(frozenset({"users", "order"}))
    with pytest.raises(NeedsError, match=r"LastSession\(\) needs sessions.*log.sessions"):
        LastSession().check(frozenset({"users"}))
    with pytest.raises(NeedsError, match="needs times"):
        GlobalTime(days=1).parts(line_of(THREE, times=None))
