"""Rows that are not wanted: actions, drops, exact copies, immediate repeats."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest
from tests.data.clicks import aside, events, read, steps, write

from foretaste.data.events import Step
from foretaste.errors import DataError

SHOP = [  # user, item, time, what, quantity
    (1, "a", 1, "view", 0), (1, "a", 2, "view", 0), (1, "a", 3, "buy", 1), (1, "b", 4, "cart", 1),
    (1, "b", 5, "buy", -1), (2, "a", 6, "view", 0), (2, "a", 6, "view", 0), (2, "c", 7, "", 2),
]  # fmt: skip
SHOP_COLUMNS = ("user", "item", "time", "what", "quantity")
SPAN = "all within 5 s of 1970-01-01 00:00 (is that the right column and unit?)"


def test_actions(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.csv", SHOP, SHOP_COLUMNS)
    log = read(path, action="what", inputs=["view"], targets="buy", columns=["what"])
    assert events(log, "row, what, target") == [
        (1, "view", False), (2, "view", False), (3, "buy", True),
        (5, "buy", True), (6, "view", False), (7, "view", False),
    ]  # fmt: skip
    assert log.steps[:2] == [
        Step("read", "shop.csv; times are seconds by their size, " + SPAN, 8, 2, 0, 3),
        Step("actions", "kept view, buy", 6, 2, 0, 2),
    ]
    assert "targets" in log.has
    every = read(path, action="what", targets=["buy"])
    assert [target for (target,) in events(every, "target")] == [False, False, True, False, True, False, False, False]
    inputs = read(path, action="what", inputs=["view", "cart"])
    assert (len(inputs), "targets" in inputs.has) == (5, False)


def test_actions_may_be_numbers() -> None:
    table = {"user": [1, 1], "item": [1, 2], "time": [1, 2], "what": np.array([1.0, 2.0])}
    assert events(read(table, action="what", targets=[2]), "target") == [(False,), (True,)]


def test_drop(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.csv", SHOP, SHOP_COLUMNS)
    log = read(path, drop={"quantity": "< 0", "what": ["c*", "view"]})
    assert [row for (row,) in events(log, "row")] == [3, 8]
    assert log.steps[1:] == [
        Step("drop", "where quantity < 0", 7, 2, 0, 3),
        Step("drop", "where what c* or view", 2, 2, 0, 2),
    ]


def test_copies_are_counted_and_dropped_if_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.csv", [*SHOP, SHOP[0]], SHOP_COLUMNS)
    kept = read(path)
    assert kept.steps[-1] == Step("duplicates", "2 exact copies of earlier rows, kept", 9, 2, 0, 3)
    dropped = read(path, duplicates="drop")
    assert [row for (row,) in events(dropped, "row")] == [1, 2, 3, 4, 5, 6, 8]
    assert steps(dropped) == [("read", 9), ("duplicates", 7)]


def test_repeats(tmp_path: Path) -> None:
    rows = [
        (1, 1, "a", 1),
        (1, 1, "a", 2),
        (1, 1, "b", 3),
        (1, 2, "b", 5),
        (1, 2, "b", 4),
        (1, 2, "a", 6),
        (2, 3, "a", 6),
    ]
    path = write(tmp_path / "r.csv", rows, ("user", "session", "item", "time"))
    log = read(path, session="session", repeats="collapse")
    assert [row for (row,) in events(log, "row")] == [1, 3, 5, 6, 7]
    assert steps(log) == [("read", 7), ("repeats", 5)]
    assert "inside a session" in log.steps[-1].detail
    waiting = read(path, repeats="collapse")
    assert steps(waiting) == [("read", 7)]
    cut = waiting.sessions(gap=1.5)  # user 1: 1 2 3 4 5 6, in one session
    assert [row for (row,) in events(cut, "row")] == [1, 3, 6, 7]
    assert steps(cut) == [("read", 7), ("sessions", 7), ("repeats", 4)]
    whole = waiting.filter(item_support=1)
    assert [name for name, _ in steps(whole)][:2] == ["read", "repeats"]
    bought = read(
        write(tmp_path / "shop.csv", SHOP, SHOP_COLUMNS), action="what", targets="buy", repeats="collapse"
    ).filter()
    assert [row for (row,) in events(bought, "row")] == [1, 3, 4, 5, 6, 8]


def test_what_is_not_wanted_needs_no_item(tmp_path: Path) -> None:
    rows = [(1, "a", 1, "view", 0), (1, "", 2, "search", 0), (1, "", 3, "view", 0), (1, "b", "", "view", -1)]
    path = write(tmp_path / "shop.csv", rows, SHOP_COLUMNS)
    log = read(path, action="what", inputs=["view"], drop={"quantity": "< 0"})
    assert steps(log) == [("read", 4), ("drop", 3), ("actions", 2), ("reject", 1)]
    assert aside(log) == [(4, "no item")]
    assert len(read(path, action="what", inputs=["view"], drop={"quantity": "< 0", "item": None}, strict=True)) == 1


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("> 1", [1]),
        ("< 3", [3]),
        (">= 2", [1]),
        ("<= 1.5", [2, 3]),
        (2, [1, 3]),
        ("[1-2]", [1, 2, 3]),
        ("?", []),
        ([1, 3.0], [2]),
    ],
)
def test_conditions(condition: object, kept: list[int]) -> None:
    table = {"user": [1, 1, 1], "item": [1, 2, 3], "time": [1, 2, 3], "n": [1, 2, 3]}
    if not kept:
        with pytest.raises(DataError, match="none is left"):
            read(table, drop={"n": condition})
        return
    assert [item for (item,) in events(read(table, drop={"n": condition}), "item")] == kept


def test_not_a_number_is_missing_and_not_large(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_text("user,item,time,n\n1,1,1,5\n1,2,2,NaN\n1,3,3,1\n")
    assert events(read(path, drop={"n": "> 2"}), "item") == [(2,), (3,)]
    path = tmp_path / "n.parquet"
    duckdb.sql(f"COPY (SELECT 1 AS user, i AS item, i AS time, [5.0, 'NaN'::DOUBLE, 1.0][i] AS n "
               f"FROM range(1, 4) AS r (i)) TO '{path}'")  # fmt: skip
    assert events(read(path, drop={"n": "> 2"}), "item") == [(2,), (3,)]
    assert events(read(path, drop={"n": None}), "item") == [(1,), (3,)]


def test_flags_may_be_conditions_and_actions() -> None:
    table = {"user": [1, 1], "item": [1, 2], "time": [1, 2], "bought": np.array([True, False])}
    assert events(read(table, action="bought", targets=[True]), "item, target") == [(1, True), (2, False)]
    assert events(read(table, drop={"bought": True}), "item") == [(2,)]
