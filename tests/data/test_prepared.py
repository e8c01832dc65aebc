"""From a log to flat arrays and back from a folder: order, numbers, cold items, and folders that someone has broken."""

from __future__ import annotations

import datetime
import json
import logging
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.events import EventLog
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import TEST, TRAIN, VALIDATION
from foretaste.data.sessions import Filters
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
)
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, DataError, NeedsError, SavedFileError


def log_of(rows: list[tuple[Any, ...]], *names: str, **more: Any) -> EventLog:
    """A log from tuples; a name is an argument of `EventLog.read`, or that of a further column."""
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    arrays = {name: np.array(values, dtype=object if isinstance(values[0], str | None) else None)
              for name, values in columns.items()}  # fmt: skip
    own = ("user", "session", "item", "time", "order", "session_order", "split", "action")
    return EventLog.read(
        arrays, **{name: name for name in names if name in own}, columns=[n for n in names if n not in own], **more
    )


def told(prepared: Prepared) -> str:
    """Raw items in order; a space between sessions, a bar between users, ? for a cold item."""
    s, text = prepared.sequences, ""
    for place, raw in enumerate(prepared.items.raw(np.asarray(s.items).tolist())):
        text += "|" if place in s.users[1:] else " " if place in s.sessions[1:] else ""
        text += str(raw) if raw is not None else "?"
    return text


def parts(prepared: Prepared) -> str:
    """One letter an event."""
    return "".join("tvT"[part] for part in prepared.sequences.part)


# Order


def test_users_sessions_and_events_are_ordered_by_time() -> None:
    rows = [("u", "1", "c", 300), ("v", "1", "x", 10), ("u", "2", "a", 5), ("v", "1", "y", 400), ("u", "1", "b", 200),
            ("v", "0", "z", 20), ("u", "2", "d", 6)]  # fmt: skip
    prepared = log_of(rows, "user", "session", "item", "time").prepare(None)
    assert told(prepared) == "ad bc|xy z"
    assert prepared.sequences.times is not None
    assert prepared.sequences.times.tolist() == [5, 6, 200, 300, 10, 400, 20]
    assert prepared.users is not None
    assert prepared.users.ids == ["u", "v"]


def test_ties_are_broken_by_position_then_by_the_row_and_never_by_the_item() -> None:
    rows = [("u", "c", 7, 2), ("u", "b", 7, 1), ("u", "z", 7, 1), ("u", "a", 7, 1)]
    assert told(log_of(rows, "user", "item", "time").prepare(None)) == "cbza"
    assert told(log_of(rows, "user", "item", "time", "order").prepare(None)) == "bzac"


def test_rows_shuffled_inside_a_tie_move_nothing_beyond_it_and_a_position_settles_it() -> None:
    """Days for times, as Amazon has them: what the order of the file decides, and what it does not."""
    random = np.random.default_rng(0)
    users, days = np.repeat(np.arange(12), 30), random.integers(0, 8, 360)
    place = np.arange(360)
    columns = {"user": users, "item": random.integers(0, 50, 360), "time": days * 86_400, "order": place}
    shuffled = place.copy()
    for tie in np.unique(users * 8 + days):
        rows = np.flatnonzero(users * 8 + days == tie)
        shuffled[rows] = random.permutation(rows)
    for order in (None, "order"):
        found = []
        for rows in (place, shuffled):
            read = {name: column[rows] for name, column in columns.items()}
            log = EventLog.read(read, user="user", item="item", time="time", order=order).prepare(None)
            s, raw = log.sequences, np.array(log.items.raw(log.sequences.items.tolist()))
            found.append((np.repeat(s.user_numbers, np.diff(s.users)), np.asarray(s.times), raw))
        (user, time, item), (same_user, same_time, other) = found
        np.testing.assert_array_equal(user, same_user)
        np.testing.assert_array_equal(time, same_time)
        moved = item != other
        assert moved.any() == (order is None)
        for one in np.unique(np.stack([user, time]), axis=1).T:
            tied = (user == one[0]) & (time == one[1])
            assert sorted(item[tied]) == sorted(other[tied])
            assert tied.sum() > 1 or not moved[tied].any()


def test_sessions_without_users_are_ordered_by_time_then_given_order_then_row() -> None:
    rows = [("s", "a", 50, 3), ("t", "b", 20, 2), ("s", "c", 60, 3), ("r", "d", 20, 1), ("t", "e", 90, 2)]
    assert told(log_of(rows, "session", "item", "time").prepare(None)) == "be|d|ac"
    assert told(log_of(rows, "session", "item", "time", "session_order").prepare(None)) == "d|be|ac"
    # With an order inside the session only, and with the order of sessions too.
    places = [("s", "a", 1, 3), ("t", "b", 1, 2), ("s", "c", 0, 3), ("r", "d", 5, 1), ("t", "e", 2, 2)]
    assert told(log_of(places, "session", "item", "order").prepare(None)) == "ca|be|d"
    assert told(log_of(places, "session", "item", "order", "session_order").prepare(None)) == "d|be|ca"


def test_sessions_of_a_user_by_position_unless_positions_begin_again() -> None:
    running = [("u", "s", "c", 2), ("u", "s", "d", 3), ("u", "t", "a", 0), ("u", "t", "b", 1)]
    assert told(log_of(running, "user", "session", "item", "order").prepare(None)) == "ab cd"
    again = [("u", "s", "c", 1), ("u", "s", "d", 2), ("u", "t", "b", 1), ("u", "t", "a", 0)]
    assert told(log_of(again, "user", "session", "item", "order").prepare(None)) == "cd ab"
    carts = [(*row, place) for row, place in zip(again, [2, 2, 1, 1], strict=True)]
    assert told(log_of(carts, "user", "session", "item", "order", "session_order").prepare(None)) == "ab cd"


def test_session_ids_may_repeat_between_users_and_users_may_be_missing() -> None:
    rows = [("u", "1", "a", 0), ("v", "1", "b", 1), (None, "1", "c", 2), (None, "2", "d", 3), ("u", "1", "e", 4)]
    log = log_of(rows, "user", "session", "item", "time")
    assert [step.sessions for step in log.filter(item_support=1).steps] == [4, 4]
    prepared = log.prepare(None)
    assert told(prepared) == "ae|b|c|d"
    assert prepared.sequences.user_numbers.tolist() == [1, 2, 0, 0]
    assert prepared.manifest["counts"]["all"] == {"events": 5, "users": 2, "sessions": 4, "items": 5, "prefixes": 1}


def test_times_are_whole_seconds_rounded_down() -> None:
    stamps = np.array(["2014-04-01T00:00:00.999", "2014-04-01T00:00:01.001"], dtype="datetime64[ms]")
    log = EventLog.read({"s": np.array([1, 1]), "i": np.array([1, 2]), "t": stamps}, session="s", item="i", time="t")
    times = log.prepare(None).sequences.times
    assert times is not None
    assert times.tolist() == [1_396_310_400, 1_396_310_401]


# Numbers

#           u: b a b | a     v: c a | d     w: a c e | f
SHOP = [("u", "b", 1), ("u", "a", 2), ("u", "b", 3), ("u", "a", 20), ("v", "c", 4), ("v", "a", 5), ("v", "d", 21),
        ("w", "a", 6), ("w", "c", 7), ("w", "e", 8), ("w", "f", 22)]  # fmt: skip


def shop() -> EventLog:
    return log_of(SHOP, "user", "item", "time")


def test_items_are_numbered_by_training_count_then_first_occurrence() -> None:
    prepared = shop().prepare(LastItem())
    assert prepared.items.ids == ["a", "b", "c", "e"]  # 3, 2, 2, 1 in training; b occurs before c
    assert prepared.sequences.items.tolist() == [2, 1, 2, 1, 3, 1, 0, 1, 3, 4, 0]
    assert prepared.sequences.items.dtype == np.int32
    assert parts(prepared) == "tttTttTtttT"


def test_validation_counts_as_training_for_the_numbers_but_test_does_not() -> None:
    both = shop().prepare(LastTwo())
    assert parts(both) == "ttvTtvTttvT"
    assert both.items.ids == ["a", "b", "c", "e"]
    same = shop().prepare(LastItem(), validation=LastItem())
    assert parts(same) == parts(both)
    with pytest.raises(ConfigError, match="already makes a validation part"):
        shop().prepare(LastTwo(), validation=LastItem())


def test_all_candidates_add_the_rest_by_first_occurrence() -> None:
    prepared = shop().prepare(LastItem(), candidates="all")
    assert prepared.items.ids == ["a", "b", "c", "e", "d", "f"]
    assert prepared.sequences.items.tolist() == [2, 1, 2, 1, 3, 1, 5, 1, 3, 4, 6]
    assert prepared.manifest["test_targets"] == {"asked": 3, "cold": 2, "repeats": {"user": 1}}


def test_cold_drop_removes_the_event_and_says_so() -> None:
    prepared = shop().prepare(LastItem(), cold="drop")
    assert told(prepared) == "baba|ca|ace"
    assert prepared.manifest["steps"][-1]["name"] == "cold"
    assert prepared.manifest["steps"][-1]["events"] == 9
    assert prepared.manifest["test_targets"]["cold"] == 0


def test_cold_drop_removes_what_is_left_of_a_test_session_that_is_too_short() -> None:
    rows = [("s", "a", 1), ("s", "b", 2), ("t", "a", 50), ("t", "x", 51), ("r", "a", 52), ("r", "y", 53),
            ("r", "b", 54), ("q", "z", 55), ("p", "a", 56)]  # fmt: skip
    log = log_of(rows, "session", "item", "time")
    assert told(log.prepare(SessionOrder(count=4))) == "ab|a?|a?b|?|a"
    assert told(log.prepare(SessionOrder(count=4), cold="drop")) == "ab|ab|a"  # p was short before: it lost nothing


def test_users_who_are_only_in_test_are_nobody() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("v", "a", 3), ("w", "b", 90), ("w", "a", 91), ("v", "b", 92)]
    prepared = log_of(rows, "user", "item", "time").prepare(GlobalTime(at="1970-01-01T00:01:00"))
    assert prepared.users is not None
    assert prepared.users.ids == ["u", "v"]
    assert prepared.sequences.user_numbers.tolist() == [1, 2, 0]
    assert parts(prepared) == "tttTTT"


def test_columns_numbers_stay_and_texts_are_numbered_like_items() -> None:
    rows = [("u", "a", 1, "shoe", 2.5, 7, True), ("u", "b", 2, "hat", None, 8, False),
            ("u", "c", 3, "hat", 1.0, 9, True), ("u", "d", 4, "coat", 0.5, 10, True)]  # fmt: skip
    prepared = log_of(rows, "user", "item", "time", "kind", "price", "size", "seen").prepare(LastItem())
    columns = prepared.sequences.columns
    assert prepared.values("kind").ids == ["hat", "shoe"]
    assert columns["kind"].tolist() == [2, 1, 1, 0]  # coat occurs only in test
    assert columns["size"].tolist() == [7, 8, 9, 10]
    assert columns["seen"].tolist() == [1, 0, 1, 1]
    np.testing.assert_array_equal(columns["price"], [2.5, np.nan, 1.0, 0.5])
    with pytest.raises(DataError, match="'size' has no list of values"):
        prepared.values("size")


def test_targets_and_dwell_go_through() -> None:
    rows = [("u", "a", 1, "view"), ("u", "b", 5, "buy"), ("u", "c", 6, "view")]
    log = log_of(rows, "user", "item", "time", "action", targets=["buy"])
    prepared = log.prepare(LastItem())
    assert prepared.sequences.target is not None
    assert prepared.sequences.target.tolist() == [False, True, False]
    assert prepared.manifest["test_targets"]["asked"] == 0

    from foretaste.data.sessions import with_dwell

    looked = with_dwell(shop().sessions(gap="10s")).prepare(LastItem())
    assert looked.sequences.columns["dwell"].tolist() == [1.0, 1.0, 1.0, 1.0, 1.0]
    assert looked.manifest["not_causal"] == ["dwell"]
    assert "not causal: dwell" in looked.report()


def test_what_is_known_of_an_item_rides_along() -> None:
    log = shop().with_items({"i": np.array(["c", "a"], dtype=object), "t": np.array(["See", "Ah"], dtype=object)},
                            item="i", title="t")  # fmt: skip
    prepared = log.prepare(LastItem())
    assert prepared.items.columns["title"] == ["Ah", None, "See", None]


# Filters on the training part, and the prefix cut


def test_filters_of_prepare_count_training_alone_and_leave_the_test_part() -> None:
    prepared = shop().prepare(LastItem(), filters=Filters(item_support=2))
    assert told(prepared) == "baba|ca?|ac?"
    assert prepared.manifest["steps"][-1]["detail"] == "items with at least 2 events, counted over the training part"
    whole = shop().filter(item_support=2).prepare(LastItem())
    assert told(whole) == "baba|ca|ac"
    with pytest.raises(DataError, match="nothing is left to train on"):
        shop().prepare(LastItem(), filters=Filters(item_support=9))
    with pytest.raises(NeedsError, match="session_length needs sessions"):
        shop().prepare(LastItem(), filters=Filters(session_length=2))


def test_the_prefix_cut_comes_after_cold_clicks_are_dropped() -> None:
    rows = [("1", "a", 0), ("1", "b", 1), ("2", "c", 10), ("2", "d", 11), ("2", "c", 12), ("3", "a", 100),
            ("3", "c", 101), ("3", "x", 102)]  # fmt: skip
    prepared = log_of(rows, "session", "item", "time").prepare(
        SessionOrder(count=1), recent=RecentPrefixes(fraction=1 / 3), cold="drop"
    )
    # x goes, for no training session knows it; a stays, for the first one did before the cut.
    assert told(prepared) == "cd|?c"
    assert prepared.manifest["counts"]["train"]["prefixes"] == 1
    assert prepared.manifest["test_targets"] == {"asked": 1, "cold": 0, "repeats": {"user": 0}}


# What it refuses, and what it takes


def test_the_smallest_and_the_longest_logs() -> None:
    one = log_of([("u", "a", 1)], "user", "item", "time").prepare(None)
    assert (told(one), parts(one)) == ("a", "t")
    assert one.manifest["counts"]["all"]["prefixes"] == 0
    same = log_of([("u", "a", 1), ("v", "a", 1), ("u", "a", 1)], "user", "item", "time").prepare(LastItem())
    assert (told(same), parts(same)) == ("aa|a", "tTt")
    long = EventLog.read({"s": np.zeros(10_000, int), "i": np.arange(10_000) % 7, "t": np.arange(10_000)[::-1].copy()},
                         session="s", item="i", time="t").prepare(None)  # fmt: skip
    assert long.sequences.sessions.tolist() == [0, 10_000]
    assert long.items.raw(long.sequences.items[:8].tolist()) == [k % 7 for k in range(9_999, 9_991, -1)]


def test_a_log_that_was_refused_can_be_prepared_again() -> None:
    log = shop()
    tables = "SELECT count(*) FROM duckdb_tables()"
    before = log.db.execute(tables).fetchone()
    with pytest.raises(DataError, match="leaves nothing"):
        log.prepare(LastItem(), validation=GlobalTime(days=99))
    with pytest.raises(DataError, match="nothing is left"):
        log.filter(item_support=99)
    assert log.db.execute(tables).fetchone() == before
    assert told(log.prepare(LastItem())) == "baba|ca?|ace?"


def test_options_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="candidates = 'some'; expected one of train, all"):
        shop().prepare(LastItem(), candidates="some")
    with pytest.raises(ConfigError, match="cold = 'hot'; expected one of miss, drop"):
        shop().prepare(LastItem(), cold="hot")
    with pytest.raises(DataError, match=r"GlobalTime\(.*leaves nothing to train on of 11 events"):
        shop().prepare(GlobalTime(days=365))
    with pytest.raises(DataError, match=r"LastItem\(\) leaves nothing to ask for of 1 events"):
        log_of([("u", "a", 1)], "user", "item", "time").prepare(LastItem())
    with pytest.raises(NeedsError, match=r"LastSession.*needs sessions"):
        shop().prepare(LastSession())


def test_a_split_that_leaks_says_so_when_it_is_chosen(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        shop().prepare(LastItem(), validation=GlobalTime(days=0.00001))
    assert [(record.levelname, record.getMessage().split(":")[0]) for record in caplog.records] == [
        ("WARNING", "split by LastItem() leaks other users' future"),
        ("INFO", "validation by GlobalTime(days=1e-05, by='start') leaks nothing but the ends of sessions"),
    ]


# Folders


def equal(one: Prepared, other: Prepared) -> bool:
    """Everything that is read is what was written."""
    a, b = one.sequences, other.sequences
    for name in ("items", "users", "sessions", "part", "user_numbers", "times", "target"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None)
        if x is not None:
            assert x.dtype == y.dtype, name
            np.testing.assert_array_equal(x, y)
    assert a.columns.keys() == b.columns.keys()
    for name, values in a.columns.items():
        np.testing.assert_array_equal(values, b.columns[name])
    assert one.items == other.items
    assert one.users == other.users
    assert one.manifest == other.manifest
    return True


def test_a_saved_folder_comes_back_memory_mapped(tmp_path: Path) -> None:
    rows = [("u", "1", "a", 1, "x/y", 0.5), ("u", "2", "b", 2, "é", 0.1), ("v", "1", "a", 3, "x/y", 0.2),
            ("v", "1", "b", 4, "", 9.0)]  # fmt: skip
    log = log_of(rows, "user", "session", "item", "time", "a/b", "price")
    prepared = log.prepare(LastItem(), validation=WholeUsers(fraction=0.5))
    assert prepared.save(tmp_path / "deep" / "shop") == tmp_path / "deep" / "shop"
    back = Prepared.open(tmp_path / "deep" / "shop", verify=True)
    assert isinstance(back.sequences.items, np.memmap)
    assert equal(prepared, back)
    assert back.values("a/b") == prepared.values("a/b")
    assert back.report() == prepared.report()
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["shop"]
    again = log.prepare(LastItem(), validation=WholeUsers(fraction=0.5), folder=tmp_path / "deep" / "shop")
    assert equal(prepared, again)
    back.save(tmp_path / "deep" / "shop")  # over the folder that it is read from
    assert equal(prepared, Prepared.open(tmp_path / "deep" / "shop"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shop().sessions(gap="10s").prepare(LastItem()).save(tmp_path / "shop")


@pytest.mark.parametrize(
    "name", ["items.npy", "part.npy", "times.npy", "sessions.npy", "items.parquet", "users.parquet"]
)
def test_a_file_that_is_truncated_missing_or_edited(folder: Path, name: str) -> None:
    file = folder / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    with pytest.raises(SavedFileError, match=f"{name}: has {len(whole) - 3} bytes, expected {len(whole)}"):
        Prepared.open(folder)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SavedFileError, match=f"{name}: was edited or damaged"):
        Prepared.open(folder)
    file.unlink()
    with pytest.raises(SavedFileError, match=f"{name}: No such file or directory; the folder is incomplete"):
        Prepared.open(folder)


def test_a_large_file_is_compared_on_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foretaste.data.folders.SMALL", 0)
    file = folder / "items.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    Prepared.open(folder)
    with pytest.raises(SavedFileError, match="was edited or damaged"):
        Prepared.open(folder, verify=True)


def rewritten(folder: Path, **changes: Any) -> None:
    """A manifest as someone would write it who knows how its checksums are made."""
    from foretaste.data import folders

    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("checksum", "files"):
        manifest.pop(name)
    (folder / "manifest.json").unlink()
    folders.write_manifest(folder, manifest | changes)


def test_a_manifest_that_is_edited_or_foreign(folder: Path) -> None:
    file = folder / "manifest.json"
    text = file.read_text()
    for wrong, message in [
        (text.replace('"events": 11', '"events": 12', 1), "was edited"),
        (text[:-20], "cannot be read"),
        ("[1, 2]", "its format is 'list'; expected 'foretaste prepared log'"),
        ('{"format": "a cake"}', "its format is 'a cake'"),
    ]:
        file.write_text(wrong)
        with pytest.raises(SavedFileError, match=message):
            Prepared.open(folder)
    file.write_text(text)
    for version in (2, 0, "1", None):
        rewritten(folder, version=version)
        with pytest.raises(SavedFileError, match=f"has version {version!r}, and this Foretaste reads up to 1"):
            Prepared.open(folder)
    with pytest.raises(
        SavedFileError, match=r"manifest.json: no such file; expected the folder of a foretaste prepared log"
    ):
        Prepared.open(folder.parent)


def test_arrays_that_do_not_fit_each_other(folder: Path) -> None:
    good = {name: np.load(folder / f"{name}.npy") for name in ("users", "sessions", "items", "user_numbers")}

    def refused(name: str, array: Any, message: str) -> None:
        np.save(folder / f"{name}.npy", array)
        rewritten(folder)
        with pytest.raises(SavedFileError, match=message):
            Prepared.open(folder)
        np.save(folder / f"{name}.npy", good[name])

    assert good["users"].tolist() == [0, 4, 7, 11]
    refused("users", np.array([0, 4, 4, 11]), "offsets do not cover the 11 events in order")
    refused("users", np.array([0, 4, 7, 10]), "offsets do not cover the 11 events in order")
    refused("users", np.array([0, 4, 8, 11]), "a user begins inside a session")
    refused("users", np.array([0, 4, 11]), "has 3 users, expected 2")
    refused("users", np.array([0, 4, 7, 11], np.int32), r"holds \[4\] int32, expected \[any\] int64")
    refused("items", good["items"][:-1], r"holds \[10\] int32, expected \[11\] int32")
    refused("items", np.array([{"a": 1}] * 11, dtype=object), "items.npy: cannot be read")


def test_a_vocabulary_file_that_does_not_fit(folder: Path) -> None:
    Vocabulary(["a"]).write(folder / "items.parquet")
    rewritten(folder)
    with pytest.raises(SavedFileError, match=r"items.parquet: has 1 ids"):
        _ = Prepared.open(folder).items
    (folder / "items.parquet").write_bytes(b"PAR1 nothing PAR1")
    rewritten(folder)
    with pytest.raises(SavedFileError, match=r"items.parquet: cannot be read"):
        _ = Prepared.open(folder).items


def test_an_error_while_saving_leaves_the_old_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    prepared = shop().prepare(LastItem(), candidates="all")
    for broken in ("write_array", "write_manifest", "_put"):
        with monkeypatch.context() as patch:
            patch.setattr(f"foretaste.data.folders.{broken}", full)
            with pytest.raises(SavedFileError, match="No space left on device; what was there before is untouched"):
                prepared.save(folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        assert [file.name for file in folder.parent.iterdir()] == ["shop"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda self, to: full() if ".writing" in self.name else shutil.move(self, to))
        with pytest.raises(SavedFileError, match="No space left"):
            prepared.save(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


FULL_DISK = """
import resource, sys, numpy as np
from foretaste.data.prepared import Prepared
from foretaste.errors import SavedFileError
prepared = Prepared.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    prepared.save(sys.argv[1])
except SavedFileError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("limit", [100, 300])
def test_a_real_limit_on_file_size(folder: Path, limit: int) -> None:
    """At 100 bytes no array can be written; at 300 the arrays can and the Parquet files cannot."""
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, folder, str(limit)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("refused:"), ran.stderr
    assert ran.stdout.count("\n") == 1
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [file.name for file in folder.parent.iterdir()] == ["shop"]


def test_other_peoples_files_are_not_replaced(tmp_path: Path) -> None:
    prepared = shop().prepare(LastItem())
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("dear")
    (tmp_path / "note").write_text("x")
    for place in ("letters", "note"):
        with pytest.raises(SavedFileError, match="not saved from here; give a new or an empty folder"):
            prepared.save(tmp_path / place)
    assert (tmp_path / "letters" / "mother.txt").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    prepared.save(tmp_path / "empty")


def test_a_save_that_was_killed_between_the_renames_is_explained(folder: Path) -> None:
    folder.rename(folder.with_name(".shop.before"))
    with pytest.raises(SavedFileError, match=r"saving was interrupted, the earlier one is .*\.shop\.before: rename it"):
        Prepared.open(folder)


# Vocabularies

IDS: list[list[Any]] = [
    [1, -5, 2**62], [2**100, 3], ["a,b", 'say "x"', "line\nbreak", "ключ", "", " a ", "it's", "a\0b", "🛒"],
    [uuid.UUID(int=5), uuid.UUID(int=6)], [datetime.date(2020, 1, 2)], [Decimal("1.50")], [0.1, 1e300],
    [datetime.datetime(2020, 1, 2, 3, 4, 5, 678)], [b"\0\xff"], [True, False], [],
]  # fmt: skip


@pytest.mark.parametrize("ids", IDS, ids=lambda ids: type(ids[0]).__name__ if ids else "none")
def test_ids_of_any_type_come_back_as_they_were(tmp_path: Path, ids: list[Any]) -> None:
    titles = [None, *(f"title {k}" for k in range(1, len(ids)))][: len(ids)]
    vocabulary = Vocabulary(ids, {"title": titles, 'it\'s "odd"': ids[::-1]})
    vocabulary.write(tmp_path / "it's.parquet")
    back = Vocabulary.read(tmp_path / "it's.parquet")
    assert back == vocabulary
    assert [type(raw) for raw in back.ids] == [type(raw) for raw in ids]
    assert back.numbers(ids).tolist() == list(range(1, len(ids) + 1))


@given(st.lists(st.text(st.characters(codec="utf-8")), unique=True, max_size=20))
@settings(max_examples=30)
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    path = tmp_path_factory.mktemp("v") / "ids.parquet"
    Vocabulary(ids).write(path)
    assert Vocabulary.read(path).ids == ids


def test_odd_ids_go_from_the_log_to_the_folder_and_back(tmp_path: Path) -> None:
    odd = ["a,b", "line\nbreak", 'q"q', "ключ", "it's"]
    rows = [("ü, 1", item, time) for time, item in enumerate(odd)] + [("z\n2", "a,b", 9), ("z\n2", "it's", 10)]
    prepared = log_of(rows, "user", "item", "time").prepare(None, folder=tmp_path / "odd")
    assert prepared.items.ids == ["a,b", "it's", "line\nbreak", 'q"q', "ключ"]
    assert prepared.users is not None
    assert prepared.users.ids == ["ü, 1", "z\n2"]


def test_numbers_and_raw_ids() -> None:
    vocabulary = Vocabulary([10, 20])
    assert len(vocabulary) == 2
    assert list(vocabulary) == [10, 20]
    assert vocabulary.numbers([20, 5, np.int64(10), "10", None]).tolist() == [2, 0, 1, 0, 0]
    assert 20 in vocabulary
    assert 5 not in vocabulary
    assert vocabulary.raw([2, 0, 1]) == [20, None, 10]
    with pytest.raises(DataError, match=r"number 3 is outside this vocabulary, which has 1..2"):
        vocabulary.raw([3])
    with pytest.raises(DataError, match="cannot be an id"):
        vocabulary.number([1])
    with pytest.raises(DataError, match="has 1 values for 2 ids"):
        Vocabulary([1, 2], {"title": ["x"]})
    with pytest.raises(DataError, match="column 'Id': the vocabulary file uses this name"):
        Vocabulary([1], {"Id": ["x"]})


def test_mixed_ids_are_refused_when_saving(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'id' mixes types \(int, str\)"):
        Vocabulary([1, "1"]).write(tmp_path / "x.parquet")


# The report


def test_the_report_tells_the_whole_story() -> None:
    rows = [("1", "a", 0), ("1", "b", 1), ("1", "a", 2), ("2", "b", 10), ("2", "x", 11), ("3", "a", 100),
            ("3", "c", 101), ("3", "a", 102), ("4", "b", 200), ("4", "a", 201)]  # fmt: skip
    log = log_of(rows, "session", "item", "time").filter(item_support=1, session_length=2)
    text = log.prepare(SessionOrder(count=2), validation=SessionOrder(count=1)).report()
    lines = [line.split() for line in text.splitlines()]
    assert ["item_support", "10", "-", "4", "4", "0"] in [line[:6] for line in lines]
    assert ["train", "3", "-", "1", "2", "2"] in lines
    assert ["validation", "2", "-", "1", "2", "1"] in lines
    assert ["test", "5", "-", "2", "3", "3"] in lines
    assert ["all", "10", "-", "4", "4", "6"] in lines
    assert "Split: SessionOrder(count=2)." in text
    assert "It leaks nothing but the ends of sessions, if their order is that in which they begin" in text
    assert "Counted over the test part too, which so decides about the rest: item_support, session_length." in text
    assert "Cold targets: 1 of 3 (33.3 %) of the test" in text
    assert "Targets that repeat an item of the user's history: 1 of 3 (33.3 %)." in text
    assert "Candidates: 3 items, those of train and validation." in text


def test_a_given_split_that_goes_back_in_time_is_counted() -> None:
    rows = [("u", "a", 0, "train"), ("u", "b", 1, "test"), ("u", "a", 2, "train"), ("v", "b", 3, "train")]
    prepared = log_of(rows, "user", "item", "time", "split").prepare(Given())
    assert parts(prepared) == "tTtt"
    assert prepared.manifest["training_after_test"] == 1
    assert "1 training events come after a test event of the same user." in prepared.report()
    assert prepared.manifest["split"]["recipe"]["kind"] == "given"
    assert prepared.manifest["sources"]


# The whole way, against a slow twin

ROW = st.tuples(
    st.sampled_from(["u", "v", "w", None]), st.integers(0, 2), st.integers(0, 5), st.integers(0, 9), st.integers(0, 3)
)
SPLITS: list[Split] = [
    GlobalTime(fraction=0.3), GlobalTime(fraction=0.5, by="end"), SessionOrder(count=1), LastItem(), LastTwo(),
    LastSession(), Ratio(train=0.6), WholeUsers(fraction=0.5),
]  # fmt: skip


def slow_order(rows: list[tuple[Any, ...]]) -> list[list[list[int]]]:
    """Users, their sessions, and in these the places of their rows, as `arrange.py` says it."""
    sessions: dict[Any, list[int]] = {}
    for place, (user, session, *_) in enumerate(rows):
        sessions.setdefault((user, session), []).append(place)
    users: dict[Any, list[list[int]]] = {}
    for (user, session), places in sessions.items():
        places.sort(key=lambda p: (rows[p][3], rows[p][4], p))
        users.setdefault(("user", user) if user else ("session", session), []).append(places)

    spots: dict[Any, set[int]] = {}
    for user, session, *_, spot in rows:
        spots.setdefault((user, spot), set()).add(session)
    restart = any(user and len(sessions) > 1 for (user, _), sessions in spots.items())

    def first(places: list[int]) -> tuple[int, int, int]:
        """When it began; at which position, where these run over all of a user; in which row it stands first."""
        return min(rows[p][3] for p in places), 0 if restart else rows[places[0]][4], min(places)

    for own in users.values():
        own.sort(key=first)
    return sorted(users.values(), key=lambda own: (min(first(s)[0] for s in own), min(first(s)[2] for s in own)))


@settings(max_examples=30)
@given(st.lists(ROW, min_size=1, max_size=25), st.sampled_from(SPLITS), st.booleans())
def test_the_way_of_the_data_equals_its_slow_twin(rows: list[tuple[Any, ...]], split: Split, everything: bool) -> None:
    rows = [("u", 0, 0, 0, 0), *rows]
    log = log_of(rows, "user", "session", "item", "time", "order")
    try:
        prepared = log.prepare(split, candidates="all" if everything else "train")
    except DataError:
        with pytest.raises(DataError, match="leaves nothing to"):
            log.prepare(split)
        return
    order = slow_order(rows)
    flat = [place for user in order for session in user for place in session]
    s = prepared.sequences
    assert s.users.tolist() == np.cumsum([0] + [sum(map(len, user)) for user in order]).tolist()
    assert s.sessions.tolist() == np.cumsum([0] + [len(session) for user in order for session in user]).tolist()
    assert s.times is not None
    assert s.times.tolist() == [rows[place][3] for place in flat]

    known = [rows[place][2] for place, part in zip(flat, s.part, strict=True) if part != TEST]
    counts, first = Counter(known), {row[2]: place for place, row in reversed([*enumerate(rows)])}
    ids = sorted(counts, key=lambda item: (-counts[item], first[item]))
    if everything:
        ids += sorted(first.keys() - counts.keys(), key=first.__getitem__)
    assert prepared.items.ids == ids
    assert s.items.tolist() == [ids.index(rows[p][2]) + 1 if rows[p][2] in ids else 0 for p in flat]

    parts_of = prepared.manifest["counts"]
    for number, name in ((TRAIN, "train"), (VALIDATION, "validation"), (TEST, "test")):
        places = [place for place, part in zip(flat, s.part, strict=True) if part == number]
        users = {rows[p][0] for p in places} - {None}
        sessions = {rows[p][:2] for p in places}
        items = {rows[p][2] for p in places}
        said = parts_of[name]
        assert (said["events"], said["users"], said["sessions"], said["items"]) == (
            len(places), len(users), len(sessions), len(items)
        )  # fmt: skip
    for what in ("events", "prefixes"):
        assert sum(parts_of[name][what] for name in ("train", "validation", "test")) == parts_of["all"][what]
    assert parts_of["all"]["prefixes"] == len(rows) - sum(map(len, order))

    users_seen = {rows[p][0] for p, part in zip(flat, s.part, strict=True) if part != TEST} - {None}
    owners = [rows[user[0][0]][0] for user in order]
    assert prepared.users is not None
    assert prepared.users.ids == [owner for owner in owners if owner in users_seen]
    assert prepared.users.raw(s.user_numbers.tolist()) == [owner if owner in users_seen else None for owner in owners]

    asked = [(place, k) for k, place in enumerate(flat) if s.part[k] == TEST and k not in s.users]
    target = prepared.manifest["test_targets"]
    assert target["asked"] == len(asked)
    assert target["cold"] == sum(rows[place][2] not in counts for place, _ in asked)
    for kind, offsets in (("user", s.users), ("session", s.sessions)):
        if kind in target["repeats"]:
            begin = [max(offset for offset in offsets.tolist() if offset <= k) for _, k in asked]
            again = [rows[p][2] in [rows[q][2] for q in flat[b:k]] for (p, k), b in zip(asked, begin, strict=True)]
            assert target["repeats"][kind] == sum(again)


# Real logs


def test_rum_split_of_amazon_instant_video(shared: Path) -> None:
    log = EventLog.read(
        shared / "amazon-instant-video-rum.parquet", user="user_id", item="item_id", order="position", split="split"
    )
    mine, theirs = log.prepare(Ratio(train=0.7)), log.prepare(Given())
    assert (mine.sequences.part == theirs.sequences.part).all()
    assert mine.manifest["counts"]["train"]["events"] == 16_863
    assert mine.manifest["counts"]["test"]["events"] == 6_030
    assert mine.manifest["counts"]["all"]["users"] == 1_352
    assert mine.manifest["counts"]["all"]["items"] == 7_785
    assert mine.manifest["test_targets"]["cold"] == 1_861


def test_session_rec_split_of_yoochoose(shared: Path) -> None:
    log = EventLog.read(
        shared / "yoochoose-clicks-100k.parquet", session="session_id", item="item_id", time="timestamp", split="split"
    )
    counts = log.prepare(GlobalTime(days=1, by="end"), cold="drop").manifest["counts"]
    assert counts["all"]["sessions"] == 21_210
    assert (counts["train"]["sessions"], counts["test"]["sessions"]) == (17_794, 3_416)


@pytest.mark.parametrize(
    ("name", "train", "test", "items", "unseen"),
    [("yoochoose1_64", 369_859, 55_898, 17_376, 369), ("diginetica", 719_470, 60_858, 43_097, 0)],
)
def test_standard_files(
    shared: Path, tmp_path: Path, name: str, train: int, test: int, items: int, unseen: int
) -> None:
    """NARM's Table 1: prefixes of train and test. Of DIGINETICA's targets 20.5 % repeat an item of the session."""
    files = " UNION ALL ".join(
        f"SELECT *, '{of}' AS split FROM '{shared / name}.{of}.parquet'" for of in ("train", "test")
    )
    duckdb.sql(
        f"COPY (SELECT * REPLACE (split || sequence_id AS sequence_id) FROM ({files})) TO '{tmp_path}/log.parquet'"
    )
    log = EventLog.read(
        tmp_path / "log.parquet", session="sequence_id", item="item_id", order="position", split="split"
    )
    prepared = log.prepare(Given(), validation=SessionOrder(fraction=0.1))
    counts, target = prepared.manifest["counts"], prepared.manifest["test_targets"]
    assert counts["train"]["prefixes"] + counts["validation"]["prefixes"] == train
    assert counts["test"]["prefixes"] == target["asked"] == test
    assert len(prepared.items) == items
    assert counts["all"]["items"] - items == unseen
    if name == "diginetica":
        assert round(100 * target["repeats"]["user"] / test, 1) == 20.5
