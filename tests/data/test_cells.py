"""What a column is: ids, times, positions and plain values, decided from all of its rows."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.clicks import T, aside, events, items, read, write

# ---------------------------------------------------------------- ids


def test_ids_of_a_csv_are_integers_only_if_every_one_is_a_plain_whole_number(tmp_path: Path) -> None:
    def ids(*values: str) -> list[Any]:
        return items(read(write(tmp_path / "ids.csv", [(1, value, T) for value in values])))

    assert ids("7", "-3", "0") == [7, -3, 0]
    assert ids("7", "9" * 18) == [7, 10**18 - 1]
    assert ids("7", "07") == ["7", "07"]
    assert ids("7", "7.0", "1e3", "+7", " 7") == ["7", "7.0", "1e3", "+7", " 7"]
    assert ids("7", str(2**64)) == ["7", str(2**64)]
    assert ids(*[str(n) for n in range(30_000)], "B07")[-2:] == ["29999", "B07"]  # far beyond any sample
    assert ids("7", "NA", "8") == [7, 8]


def test_ids_of_a_csv_that_pandas_wrote_from_a_column_with_holes_are_its_numbers(tmp_path: Path) -> None:
    def ids(*values: str) -> list[Any]:
        return items(read(write(tmp_path / "ids.csv", [(1, value, T) for value in values])))

    assert ids("10016.0", "", "17.0", "10016.0") == [10016, 17, 10016]
    assert ids("-3.0", "nan", "0.0") == [-3, 0]
    assert ids("7", "7.0") == ["7", "7.0"]  # whoever writes both means two
    assert ids("7.0", "7.5") == ["7.0", "7.5"]
    assert ids("1.0", "1.0.1") == ["1.0", "1.0.1"]
    assert ids("07.0", "1.0") == ["07.0", "1.0"]
    assert ids("7.00", "1.0") == ["7.00", "1.0"]


def test_ids_of_a_table_keep_their_type() -> None:
    def ids(values: Any) -> list[Any]:
        return items(read({"user": np.ones(len(values)), "item": values, "time": np.arange(len(values))}))

    assert ids(np.array(["1", "02"])) == ["1", "02"]
    assert ids(np.array([3.0, np.nan, 4.0])) == [3, 4]
    assert ids(np.array([3.0, 4.5])) == ["3", "4.5"]
    assert ids(np.array([2**63 + 1], np.uint64)) == [2**63 + 1]
    assert ids(np.array([1, "1", 2.0, "x"], object)) == ["1", "1", "2", "x"]
    assert ids(np.array([1, None, 2**60 + 1], object)) == [1, 2**60 + 1]
    assert ids(np.array([b"a", "a"], object)) == ["a", "a"]
    assert ids(np.array([True, "a"], object)) == ["True", "a"]
    assert ids(np.array([5], ">i4")) == [5]


def test_ids_with_line_breaks_quotes_and_nothing_visible(tmp_path: Path) -> None:
    rows = [(1, "two\nlines", T), (1, "tab\there", T), (1, '"', T), (1, " ", T), (1, "日本", T), (1, "", T)]
    log = read(write(tmp_path / "odd.csv", rows))
    assert items(log) == ["two\nlines", "tab\there", '"', "日本"]
    assert aside(log) == [(5, "no item"), (7, "no item")]


# ---------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("unit", "factor"), [("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)]
)
def test_the_unit_of_a_number_is_found_by_size(unit: str, factor: int) -> None:
    log = read({"user": [1, 1], "item": [1, 2], "time": np.array([T, T + 1]) * factor})
    assert events(log, "time") == [(T * 1000,), (T * 1000 + 1000,)]
    assert log.steps[0].detail == (
        f"the table; times are {unit} by their size, "
        "all within 1 s of 2014-05-13 16:53 (is that the right column and unit?)"
    )


def test_the_unit_is_that_of_most_rows(tmp_path: Path) -> None:
    log = read({"user": [1] * 4, "item": [1] * 4, "time": [T * 1000, T * 1000 + 1, T * 1000 + 2, 5]})
    assert events(log, "time") == [(T * 1000,), (T * 1000 + 1,), (T * 1000 + 2,), (5,)]
    assert "milliseconds by their size (1 rows have another size)" in log.steps[0].detail


def test_fractions_of_a_second_are_kept(tmp_path: Path) -> None:
    log = read(write(tmp_path / "f.csv", [(1, 1, "1396868469.277"), (1, 2, "1.396868469278e9")]))
    assert events(log, "time") == [(1396868469277,), (1396868469278,)]


def test_dates_as_numbers_and_as_text(tmp_path: Path) -> None:
    day = 1396828800000  # 2014-04-07
    numbers = read(write(tmp_path / "d.csv", [(1, 1, "20140407"), (1, 2, "20140408")]))
    assert events(numbers, "time") == [(day,), (day + 86_400_000,)]
    assert "YYYYMMDD" in numbers.steps[0].detail
    written = {
        "2014-04-07": 0,
        "2014-04-07 10:51:09": 39069000,
        "2014-04-07T10:51:09.277Z": 39069277,
        "2014-04-07T10:51:09.277+02:00": 39069277 - 7_200_000,
        "2014-04-07 10:51:09.277 UTC": 39069277,
        "2014/04/07 10:51": 39060000,
    }
    log = read(write(tmp_path / "t.csv", [(1, 1, time) for time in written]))
    assert events(log, "time") == [(day + after,) for after in written.values()]
    assert log.steps[0].detail == (
        "t.csv; times are ISO text, UTC where no offset is given, "
        "all within 39,069 s of 2014-04-07 00:00 (is that the right column and unit?)"
    )


def test_a_number_that_is_no_day_leaves_the_other_days_alone(tmp_path: Path) -> None:
    log = read(write(tmp_path / "d.csv", [(1, "a", "20140407"), (1, "b", "20140431"), (1, "c", "20140408")]))
    assert events(log, "item, time") == [("a", 1396828800000), ("c", 1396915200000)]
    assert "YYYYMMDD, by their look (1 rows are no such day)" in log.steps[0].detail
    assert aside(log) == [(3, "time cannot be read")]


def test_the_report_says_from_when_to_when_a_log_is(tmp_path: Path) -> None:
    days = [(1, 1, "2024-01-01 09:00"), (1, 2, "2024-03-30 08:00"), (1, 3, "nonsense")]
    assert read(write(tmp_path / "t.csv", days)).steps[0].detail.endswith(", from 2024-01-01 to 2024-03-30")
    digits = read({"user": [1] * 10, "item": [1] * 10, "time": range(10)}).steps[0].detail
    assert digits.endswith("all within 9 s of 1970-01-01 00:00 (is that the right column and unit?)")
    assert read({"user": [1], "item": [1], "when": [3]}, time=None, order="when").steps[0].detail == "the table"


def test_datetimes_of_tables() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    plain, aware = datetime.datetime(2014, 4, 7, 10), datetime.datetime(2014, 4, 7, 12, tzinfo=zone)
    for unit in ("D", "h", "s", "ms", "us", "ns"):
        log = read({"user": [1], "item": [1], "time": np.array([plain], f"datetime64[{unit}]")})
        assert events(log, "time") == [(1396828800000 if unit == "D" else 1396864800000,)]
    log = read({"user": [1, 1], "item": [1, 1], "time": np.array([plain, aware], object)}, duplicates="drop")
    assert events(log, "time") == [(1396864800000,)]
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"user": [1], "item": [1], "time": pandas.to_datetime(["2014-04-07"]).tz_localize("Asia/Tokyo")}
    )
    assert events(read(frame), "time") == [(1396828800000 - 9 * 3_600_000,)]


def test_an_order_needs_no_clock(tmp_path: Path) -> None:
    path = write(tmp_path / "o.csv", [(1, "a", 2), (1, "b", ""), (1, "c", "x"), (1, "d", 1.5)], ("user", "item", "at"))
    log = read(path, time=None, order="at")
    assert events(log, "item, time, position") == [("a", None, 2.0), ("d", None, 1.5)]
    assert log.has == {"users", "order"}
    assert aside(log) == [(3, "no position"), (4, "position is no number")]


def test_positions_may_be_ids_of_nineteen_digits(tmp_path: Path) -> None:
    first = 1_700_000_000_000_000_001
    rows = [(1, "c", first + 2), (1, "b", first + 1), (1, "a", first)]
    path = write(tmp_path / "o.csv", [*rows, (1, "z", "x")], ("user", "item", "at"))
    table = {name: [row[k] for row in rows] for k, name in enumerate(("user", "item", "at"))}
    for source in (path, table):
        prepared = read(source, time=None, order="at").prepare()
        assert prepared.items.raw(prepared.sequences.items.tolist()) == ["a", "b", "c"]


def test_session_order_may_be_a_date(tmp_path: Path) -> None:
    path = write(tmp_path / "o.csv", [(1, "a", 9, "2016-05-09")], ("session", "item", "at", "day"))
    log = read(path, user=None, session="session", time=None, order="at", session_order="day")
    assert events(log, 'session, "user", position, session_order') == [(1, None, 9.0, 1462752000000.0)]
    assert log.has == {"sessions", "order", "session_order"}


# ---------------------------------------------------------------- further columns


def test_columns_get_the_type_that_all_rows_have(tmp_path: Path) -> None:
    rows = [
        (1, "a", 1, 5, "1.5", "x", "007", ""),
        (1, "b", 2, 6, "2", "1", "8", "NA"),
        (1, "c", 3, "", "NA", "", "9", "3"),
    ]
    header = ("user", "item", "time", "whole", "float", "text", "code", "gap")
    path = write(tmp_path / "c.csv", rows, header)
    log = read(path, columns={"w": "whole", "float": "float", "text": "text", "code": "code", "gap": "gap"})
    assert log.columns == ("w", "float", "text", "code", "gap")
    assert events(log, "w, float, text, code, gap") == [
        (5, 1.5, "x", "007", None), (6, 2.0, "1", "8", None), (None, None, None, "9", 3),
    ]  # fmt: skip
