"""Reading a log: every kind of source gives the same events, and every kind of bad input is said or counted."""

from __future__ import annotations

import csv
import datetime
import gc
import gzip
import io
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretaste.data.events import EventLog, Step, report_of
from foretaste.errors import ConfigError, DataError

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


# ---------------------------------------------------------------- every kind of source, one log


def compressed(path: Path, kind: str) -> Path:
    target = path.with_name(f"{path.name}.{kind}")
    if kind == "gz":
        target.write_bytes(gzip.compress(path.read_bytes()))
    else:
        line = "columns={'line': 'VARCHAR'}, delim='\x01', quote='', escape='', auto_detect=false, header=false"
        sql = f"COPY (FROM read_csv('{path}', {line})) TO '{target}' (FORMAT csv, QUOTE '\x02', DELIM '\x01', COMPRESSION zstd, HEADER false)"
        duckdb.execute(sql)
        assert target.read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    return target


@pytest.mark.parametrize(
    "kind", ["csv", "csv.gz", "csv.zst", "no suffix", "crlf", "bom", "semicolon", "tab", "bar", "given"]
)
def test_csv(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "clicks.csv", CLICKS)
    more: dict[str, str] = {}
    if kind.startswith("csv."):
        path = compressed(path, kind[4:])
    elif kind == "no suffix":
        path = compressed(path, "gz").rename(tmp_path / "clicks")
    elif kind == "crlf":
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    elif kind == "bom":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    elif kind != "csv":
        cut = {"semicolon": ";", "tab": "\t", "bar": "|", "given": "^"}[kind]
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=cut).writerows([("user", "item", "time"), *CLICKS])
        more = {"delimiter": "^"} if kind == "given" else {}
    log = read(path, **more)
    assert events(log) == EVENTS
    assert log.has == {"users", "times"}
    assert log.steps == [Step("read", f"{path.name}; times are seconds by their size", 5, 2, 0, 4)]


@pytest.mark.parametrize("kind", ["file", "folder", "pattern", "deep"])
def test_parquet(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "log"
    (folder / "sub").mkdir(parents=True)
    for k, (low, high) in enumerate([(0, 2), (2, 5)] if kind != "file" else [(0, 5)]):
        values = ", ".join(f"({u}, '{i}', {t})" for u, i, t in CLICKS[low:high])
        name = folder / ("sub" if kind == "deep" and k else "") / f"{k + 1}.parquet"
        duckdb.execute(f"""COPY (FROM (VALUES {values}) v("user", item, time)) TO '{name}'""")
    if kind == "deep":
        folder.joinpath("1.parquet").rename(folder / "a.parquet")  # 'a' comes before 'sub'
    source = {"file": folder / "1.parquet", "pattern": folder / "*.parquet"}.get(kind, folder)
    assert events(read(source)) == EVENTS


def test_a_pattern_of_csv_files_may_order_its_columns_differently(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", CLICKS[:2])
    write(tmp_path / "2.csv", [(t, u, i) for u, i, t in CLICKS[2:]], ("time", "user", "item"))
    assert events(read(tmp_path / "*.csv")) == EVENTS


@pytest.mark.parametrize(
    "kind", ["numpy", "objects", "lists", "pandas", "pandas objects", "polars", "lazy", "arrow", "masked"]
)
def test_tables(kind: str) -> None:
    columns = columns_of(CLICKS)
    table: Any = columns
    if kind == "numpy":
        table = {name: np.array(values) for name, values in columns.items()}
    elif kind == "objects":
        table = {name: np.array(values, object) for name, values in columns.items()}
    elif kind == "masked":
        table = {
            name: np.ma.MaskedArray(values + [values[0]], [False] * 5 + [True]) for name, values in columns.items()
        }
    elif kind.startswith("pandas"):
        table = pytest.importorskip("pandas").DataFrame(columns, index=[9, 8, 7, 7, 7])
        table = table.astype(object) if kind.endswith("objects") else table
    elif kind in ("polars", "lazy"):
        table = pytest.importorskip("polars").DataFrame(columns)
        table = table.lazy() if kind == "lazy" else table
    elif kind == "arrow":
        table = pytest.importorskip("pyarrow").table(columns)
    assert events(read(table)) == EVENTS


def test_polars_needs_no_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    polars = pytest.importorskip("polars")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert events(read(polars.DataFrame(columns_of(CLICKS)))) == EVENTS


def test_a_file_without_header_and_a_delimiter_of_two_characters(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text("1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n")
    names = ["user", "item", "rating", "time"]
    log = read(path, names=names, columns=["rating"])
    assert events(log, '"user", item, time, rating') == [
        (1, 1193, 978300760000, 5),
        (1, 661, 978302109000, 3),
        (2, 1193, 978298413000, 4),
    ]
    path.write_text("user::item::rating::time\n" + path.read_text())
    assert len(read(path, names=names)) == 3  # a first line that is the names is a header
    with pytest.raises(DataError, match="names= has 3 names, but the first line has 4 cells"):
        read(path, names=names[:3], delimiter="::")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=8)
        ),
        min_size=1,
        max_size=12,
    )
)
def test_any_text_is_an_id_and_a_csv_and_a_table_give_the_same(tmp_path: Path, rows: list[tuple[int, str]]) -> None:
    clicks = [(user, f"i{item}", T + k) for k, (user, item) in enumerate(rows)]  # 'i' keeps NA, blanks and 007 out
    with (tmp_path / "clicks.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("user", "item", "time"), *clicks])
    expected = [(k + 1, user, item, time) for k, (user, item, time) in enumerate(clicks)]
    assert events(read(tmp_path / "clicks.csv")) == expected
    assert events(read({name: np.array(values, object) for name, values in columns_of(clicks).items()})) == expected


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
    assert log.steps[0].detail == f"the table; times are {unit} by their size"


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
    assert log.steps[0].detail == "t.csv; times are ISO text, UTC where no offset is given"


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


def test_session_order_may_be_a_date(tmp_path: Path) -> None:
    path = write(tmp_path / "o.csv", [(1, "a", 9, "2016-05-09")], ("session", "item", "at", "day"))
    log = read(path, user=None, session="session", time=None, order="at", session_order="day")
    assert events(log, 'session, "user", position, session_order') == [(1, None, 9.0, 1462752000000.0)]
    assert log.has == {"sessions", "order", "session_order"}


# ---------------------------------------------------------------- rows that cannot be used


BAD = """user,item,time
1,a,1400000000
,b,1400000001
1,,1400000002
1,NaN,1400000003
1,c,
1,c,soon
1,c,-5
1,c,99999999999
1,d,2014-05-13T16:53:20Z
1,e
1,f,1400000007,9,9
2,g,1400000008
"""
REASONS = [
    (3, "no user"),
    (4, "no item"),
    (5, "no item"),
    (6, "no time"),
    (7, "time cannot be read"),
    (8, "time before 1970"),
    (9, "time in the future"),
    (11, "too few cells"),
    (12, "too many cells"),
]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "csv.zst"])
def test_rows_that_cannot_be_used_are_counted_and_written_aside(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(BAD)
    path = path if kind == "csv" else compressed(path, kind[4:])
    log = read(path, rejected=tmp_path / "out" / "rejected.csv")
    assert aside(log) == REASONS
    assert events(log) == [(1, 1, "a", T), (9, 1, "d", T), (12, 2, "g", T + 8)]
    assert [(s.name, s.events, s.users, s.items) for s in log.steps] == [("read", 12, 2, 5), ("reject", 3, 2, 3)]
    detail = "no item: 2, no time: 1, no user: 1, time before 1970: 1, time cannot be read: 1, "
    assert log.steps[1].detail == detail + "time in the future: 1, too few cells: 1, too many cells: 1"
    with (tmp_path / "out" / "rejected.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [(int(row["line"]), row["reason"]) for row in written] == REASONS
    assert written[0]["row"] == '{"item":"b","user":null,"time":"1400000001"}'
    assert written[4]["row"] == '{"item":"c","user":"1","time":"soon"}'
    assert written[8]["row"] == "1,f,1400000007,9,9"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["rejected.csv"]


def test_strict_refuses_with_the_first(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(BAD)
    with pytest.raises(DataError, match=r'bad.csv, line 3: no user: {"item":"b","user":null,.*strict=True'):
        read(tmp_path / "bad.csv", strict=True, rejected=tmp_path / "rejected.csv")
    assert not (tmp_path / "rejected.csv").exists()
    assert len(read(write(tmp_path / "good.csv", CLICKS), strict=True)) == 5


def test_a_row_without_a_user_is_an_anonymous_session(tmp_path: Path) -> None:
    rows = [(1, "s", "a", T), ("NA", "t", "b", T), ("", "t", "c", T), ("", "", "d", T), (1, "", "e", T)]
    path = write(tmp_path / "s.csv", rows, ("user", "session", "item", "time"))
    log = read(path, session="session")
    assert events(log, '"user", session, item') == [(1, "s", "a"), (None, "t", "b"), (None, "t", "c")]
    assert aside(log) == [(5, "no user and no session"), (6, "no session")]
    assert log.steps[-1] == Step("reject", "no session: 1, no user and no session: 1", 3, 1, 2, 3)
    alone = read(path, user=None, session="session")
    assert [reason for _, reason in aside(alone)] == ["no session", "no session"]
    assert aside(read(path)) == [(3, "no user"), (4, "no user"), (5, "no user")]


def test_rejected_rows_of_several_files_name_the_file(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", [*CLICKS, ("", "a", T)])
    write(tmp_path / "2.csv", [("", "a", T), *CLICKS, (1, 2, 3, 4)])
    log = read(tmp_path / "*.csv", rejected=tmp_path / "rejected.csv")
    assert (tmp_path / "rejected.csv").read_text().splitlines()[:3] == [
        "file,line,reason,row",
        '1.csv,7,no user,"{""item"":""a"",""user"":null,""time"":""1400000000""}"',
        '2.csv,2,no user,"{""item"":""a"",""user"":null,""time"":""1400000000""}"',
    ]
    assert aside(log)[2] == (8, "too many cells")
    assert [row for (row,) in events(log, "row")] == [1, 2, 3, 4, 5, 8, 9, 10, 11, 12]


def test_a_quote_that_is_never_closed_costs_its_own_line_only(tmp_path: Path) -> None:
    lines = [f"{user},{item},{T + user}" for user in range(1, 100_001) for item in ("a",)]
    lines[10] = '11,"a,1400000011'
    lines[50_000] = '50001,"a"b,1400050001'
    lines[60_000] = '60001,"two\nlines, and ""more""",1400060001'
    text = "user,item,time\n" + "\n".join(lines) + "\n"
    (tmp_path / "q.csv").write_text(text)
    (tmp_path / "q.csv.gz").write_bytes(gzip.compress(text.encode()))
    for path in (tmp_path / "q.csv", tmp_path / "q.csv.gz"):
        log = read(path)
        assert len(log) == 99_998
        assert aside(log) == [(12, "a quote that is not closed"), (50_002, "a quote that is not closed")]
        raw = log.db.execute(f"SELECT row FROM {log.rejected_table}").fetchall()
        assert raw == [('11,"a,1400000011',), ('50001,"a"b,1400050001',)]
        assert events(log, 'row, "user"')[60_000 - 2] == (60_001, 60_001)
        assert items(log)[60_000 - 2] == 'two\nlines, and "more"'
    with pytest.raises(DataError, match="its lines cannot be told apart"):
        read(compressed(tmp_path / "q.csv", "zst"))


@pytest.mark.parametrize("ends", [("\n", "\r\n"), ("\r\n", "\n"), ("\r", "\n"), ("\n", "\r")])
def test_lines_may_end_in_different_ways(tmp_path: Path, ends: tuple[str, str]) -> None:
    first, then = (f"{end}".join(f"{user},a,{T}" for user in range(5000)) + end for end in ends)
    path = tmp_path / "ends.csv"
    path.write_text(f"user,item,time{ends[0]}{first}{then}", newline="")
    log = read(path)
    assert events(log, '"user", time') == [(user, T * 1000) for user in [*range(5000)] * 2]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "log1.csv", CLICKS[:2])
    assert len(read(write(tmp_path / "log[1].csv", CLICKS))) == 5


def test_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("user,item,time\n1,café,5\n1,b,6\n".encode("latin-1"))
    assert aside(read(path)) == [(2, "not in the encoding of the file")]
    assert items(read(path, encoding="latin-1")) == ["café", "b"]


# ---------------------------------------------------------------- sources that cannot be read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "no line of text"),
        ("user,item,time\n", "has no rows"),
        ("user,item,time", "has no rows"),
        ("user,item,time\n,a,5\n,b,6\n", "none of its 2 rows can be used \\(no user: 2\\). log.csv, line 2: no user"),
        ("user,item,time\n1,a,10/1/2012\n", "none of its 1 rows can be used \\(time cannot be read: 1\\)"),
        (
            "user,item,when\n1,a,5\n",
            "log.csv has no column 'time' \\(time=\\): did you mean 'item'\\? Known: user, item, when",
        ),
        ("User,item,time\n1,a,5\n", "no column 'user' \\(user=\\): did you mean 'User'\\? Known: User, item, time"),
        ("user,items,time\n1,a,5\n", "no column 'item' \\(item=\\): did you mean 'items'"),
        ("1,a,5\n1,b,6\n", "if its first line is a row already, name the columns by names="),
        ("PK\x03\x04zip", "this is a zip archive or a spreadsheet"),
        ("user\x00,item,time\n1,a,5\n", "neither CSV nor Parquet"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "log.csv")


def test_bad_paths(tmp_path: Path) -> None:
    write(tmp_path / "clicks.csv", CLICKS)
    with pytest.raises(DataError, match=r"clikcs.csv: no such file; did you mean 'clicks.csv'\?"):
        read(tmp_path / "clikcs.csv")
    with pytest.raises(DataError, match="no .parquet file in this folder"):
        read(tmp_path)
    write(tmp_path / "whole.csv", [(1, f"i{k}", k) for k in range(99_999)])
    for kind in ("gz", "zst"):
        whole = compressed(tmp_path / "whole.csv", kind)
        assert len(read(whole)) == 99_999
        for keep in (-1, -9, len(whole.read_bytes()) // 2, 20):
            (tmp_path / f"cut.{kind}").write_bytes(whole.read_bytes()[:keep])
            with pytest.raises(DataError, match=f"cut.{kind}: the (gzip|zstd) file is cut off or damaged"):
                read(tmp_path / f"cut.{kind}")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1" + bytes(99))
    with pytest.raises(DataError, match="cut.parquet"):
        read(tmp_path / "cut.parquet")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "no columns"),
        ({"user": [], "item": [], "time": []}, "has no rows"),
        ({"user": [1, 2], "item": [1], "time": [1]}, "differ in length: .*'user': 2"),
        ({"user": [1], "item": np.ones((1, 2)), "time": [1]}, "'item' has the shape \\(1, 2\\)"),
        ({"user": [1], "item": [1j], "time": [1]}, "'item' holds complex128"),
        ({"user": [1], "time": [1]}, "the table has no column 'item'"),
        ([1, 2], "cannot read a log from list"),
    ],
)
def test_bad_tables(table: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user": None}, "name the column of users"),
        ({"time": None}, "name the column of times"),
        ({"user": 0}, "user=0: expected the name of a column"),
        ({"columns": ["dwel"]}, "no column 'dwel' \\(columns=\\)"),
        ({"columns": {"target": "item"}}, "'target' is the name of one of the log's own columns"),
        ({"inputs": ["click"]}, "name its column"),
        ({"action": "item"}, "say which of its values"),
        ({"action": "item", "targets": ["z"]}, "no row has the action 'z' in 'item'"),
        ({"action": "item", "targets": []}, "the list is empty"),
        ({"drop": {"item": "< many"}}, "expected a number after <"),
        ({"drop": {"item": "*"}}, "none is left after: drop where item \\*"),
        ({"repeats": "colapse"}, "did you mean 'collapse'"),
        ({"duplicates": "no"}, "duplicates='no'"),
        ({"names": ["a"]}, "names= and delimiter= are for CSV"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(columns_of(CLICKS), **arguments)


def test_bad_limits() -> None:
    for limits in ({"memory_limit": "much"}, {"threads": 0}):
        with pytest.raises(ConfigError, match="expected a size such as '4GB'"):
            read(columns_of(CLICKS), **limits)


def test_the_smallest_log() -> None:
    log = read({"user": [7], "item": ["only"], "time": [T]})
    assert (len(log), events(log), log.steps[0].items) == (1, [(1, 7, "only", T)], 1)


# ---------------------------------------------------------------- actions, drops, copies, repeats

SHOP = [  # user, item, time, what, quantity
    (1, "a", 1, "view", 0), (1, "a", 2, "view", 0), (1, "a", 3, "buy", 1), (1, "b", 4, "cart", 1),
    (1, "b", 5, "buy", -1), (2, "a", 6, "view", 0), (2, "a", 6, "view", 0), (2, "c", 7, "", 2),
]  # fmt: skip
SHOP_COLUMNS = ("user", "item", "time", "what", "quantity")


def test_actions(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.csv", SHOP, SHOP_COLUMNS)
    log = read(path, action="what", inputs=["view"], targets="buy", columns=["what"])
    assert events(log, "row, what, target") == [
        (1, "view", False), (2, "view", False), (3, "buy", True), (5, "buy", True), (6, "view", False), (7, "view", False),
    ]  # fmt: skip
    assert log.steps[:2] == [
        Step("read", "shop.csv; times are seconds by their size", 8, 2, 0, 3),
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


# ---------------------------------------------------------------- columns, items, order, steps


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
        (5, 1.5, "x", 7.0, None), (6, 2.0, "1", 8.0, None), (None, None, None, 9.0, 3),
    ]  # fmt: skip


def test_items_of_the_log_and_of_another_table(tmp_path: Path) -> None:
    rows = [(1, 7, 1, "", "x"), (1, 7, 2, "Seven", "y"), (1, 8, 3, "Eight", "y"), ("", 9, 3, "Nine", "z")]
    log = read(
        write(tmp_path / "c.csv", rows, ("user", "item", "time", "name", "kind")), item_columns={"title": "name"}
    )
    assert log.db.execute(f"FROM {log.items_table} ORDER BY item").fetchall() == [(7, "Seven"), (8, "Eight")]
    films = {
        "id": np.array(["7", "9", "7", None], object),
        "name": ["VII", "IX", "again", "none"],
        "year": [1, 2, 3, 4],
    }
    told = log.with_items(films, item="id", title="name")
    assert told.db.execute(f"FROM {told.items_table}").fetchall() == [(7, "VII")]
    assert told.db.execute(f"DESCRIBE {told.items_table}").fetchall()[1][0] == "title"
    detail = "the table: 1 of 2 items described by title; 1 rows of it could not be used"
    assert told.steps[-1] == Step("items", detail, 3, 1, 0, 2)
    every = log.with_items(films, item="id")
    assert every.db.execute(f"SELECT name, year FROM {every.items_table}").fetchall() == [("VII", 1)]
    with pytest.raises(DataError, match="no column 'nam' \\(title=\\)"):
        log.with_items(films, item="id", title="nam")


def test_the_log_keeps_its_own_order_whatever_the_ids(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 300_000
    users, ids = rng.integers(0, 50, n), rng.permutation(n)
    table = {"user": users, "item": ids, "time": np.full(n, T)}
    path = tmp_path / "big.csv"
    write(path, list(zip(*table.values(), strict=True)))
    for source in (table, path, compressed(path, "gz")):
        log = read(source, threads=4)
        found = log.db.execute(f"SELECT item, row FROM {log.table} ORDER BY row").fetchnumpy()
        assert (found["item"] == ids).all()
        assert (found["row"] == np.arange(1, n + 1)).all()


def test_steps_make_new_logs_and_old_tables_go() -> None:
    log = read(columns_of(CLICKS))
    small = log.derive("SELECT * FROM {table} WHERE item = 'a'", "small", "only a")
    assert steps(log) == [("read", 5)]
    assert small.steps[-1] == Step("small", "only a", 2, 2, 0, 1)
    assert small.has == log.has
    old, db = str(log.table), small.db
    del log
    gc.collect()
    assert old not in [name for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
    assert len(events(small)) == 2
    with pytest.raises(DataError, match=r"step 'none' \(nothing\) leaves nothing of 2 events"):
        small.derive("SELECT * FROM {table} WHERE false", "none", "nothing")
    folder = small.workspace.folder
    assert folder.exists()
    del small, db
    gc.collect()
    assert not folder.exists()


def test_the_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(BAD)
    log = read(tmp_path / "bad.csv")
    log.report()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step    events  users  sessions  items"
    assert lines[1] == (
        "read        12      2         -      5  bad.csv; times are ISO text, UTC where no offset is given and seconds by "
        "their size"
    )
    assert report_of(log.steps).splitlines() == lines
    assert repr(log) == "EventLog(3 events, 2 users, 0 sessions, 3 items)"


def test_the_fingerprint(tmp_path: Path) -> None:
    import hashlib

    path = write(tmp_path / "clicks.csv", CLICKS)
    found = read(path).fingerprint
    assert found["files"] == [
        {
            "name": "clicks.csv",
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "of": "the file",
        }
    ]
    assert found["columns"] == {"item": "item", "user": "user", "time": "time"}
    one, other = read(columns_of(CLICKS)).fingerprint, read(columns_of(CLICKS[::-1])).fingerprint
    assert one == read(columns_of(CLICKS)).fingerprint
    assert one["hash"] != other["hash"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.csv").write_text(BAD)
    log = read(tmp_path / "bad.csv")
    target = tmp_path / "rejected.csv"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match="could not be written: .*No space left"):
        log.write_rejected(target)
    assert target.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.csv", "rejected.csv"]
    with pytest.raises(DataError, match="nothing to write"):
        read(columns_of(CLICKS)).write_rejected(target)


# ---------------------------------------------------------------- the real logs


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "arguments", "sizes", "rejected"),
    [
        ("ml-100k", {"user": "user_id", "time": "timestamp"}, (100_000, 943, 0, 1682), {}),
        ("ml-1m", {"user": "user_id", "order": "position"}, (999_611, 6040, 0, 3416), {"no position": 598}),
        (
            "online-retail",
            {"user": "user_id", "session": "session_id", "time": "timestamp"},
            (541_909, 4372, 25_900, 4070),
            {},
        ),
        ("yoochoose-test-raw", {"session": "session_id", "time": "timestamp"}, (71_222, 0, 15_324, 6751), {}),
    ],
)
def test_real_logs(
    shared: Path, name: str, arguments: dict[str, str], sizes: tuple[int, ...], rejected: dict[str, int]
) -> None:
    log = EventLog.read(shared / f"{name}.parquet", item="item_id", **arguments)
    last = log.steps[-1]
    assert (last.events, last.users, last.sessions, last.items) == sizes
    reasons = {}
    if log.rejected_table:
        reasons = dict(log.db.execute(f"SELECT reason, count(*) FROM {log.rejected_table} GROUP BY 1").fetchall())
    assert reasons == rejected
