"""Reading a log: every kind of source gives the same events, and every step is reported."""

from __future__ import annotations

import csv
import gc
import hashlib
import weakref
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.data.clicks import CLICKS, EVENTS, T, columns_of, compressed, events, items, read, steps, write

from foretaste.data.events import EventLog, Step, report_of
from foretaste.errors import DataError

# ---------------------------------------------------------------- every kind of source, one log


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
    span = "all within 9 s of 2014-05-13 16:53 (is that the right column and unit?)"
    assert log.steps == [Step("read", f"{path.name}; times are seconds by their size, {span}", 5, 2, 0, 4)]


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
            name: np.ma.MaskedArray([*values, values[0]], [False] * 5 + [True]) for name, values in columns.items()
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


def test_kinds_of_columns() -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    expected = [(1, 7, "a", T), (3, 2**60 + 1, "a", T)]
    times = pandas.to_datetime([T, T, T], unit="s", utc=True)
    users = [7, None, 2**60 + 1]
    frame = pandas.DataFrame(
        {"user": pandas.array(users, "Int64"), "item": pandas.Categorical([*"aba"]), "time": times}
    )
    assert events(read(frame)) == expected
    assert events(read(frame.assign(user=np.array(users, object)))) == expected
    assert (
        events(read(polars.from_dict({"user": users, "item": [*"aba"], "time": times.to_pydatetime().tolist()})))
        == expected
    )
    categories = polars.DataFrame({"user": users, "item": [*"aba"], "time": [T] * 3}).with_columns(
        polars.col("item").cast(polars.Categorical), polars.col("user").cast(polars.UInt64)
    )
    assert events(read(categories)) == expected


def test_a_table_is_let_go_when_it_has_been_read() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(columns_of(CLICKS))
    held = weakref.ref(frame)
    log = read(frame)
    del frame
    gc.collect()
    assert (held(), len(log)) == (None, 5)


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
    with pytest.raises(DataError, match=r"names= \(--names\) has 3 names, but the first line has 4 cells"):
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


# ---------------------------------------------------------------- items, order, steps


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
    detail = (
        "the table: 1 of 2 items described by title; 1 rows of it could not be used; "
        "1 of its items have rows that differ: the first counts"
    )
    assert told.steps[-1] == Step("items", detail, 3, 1, 0, 2)
    every = log.with_items(films, item="id")
    assert every.db.execute(f"SELECT name, year FROM {every.items_table}").fetchall() == [("VII", 1)]
    frame = pytest.importorskip("pandas").DataFrame(
        {"id": [7, 7, 8], "name": [None, "again", "VIII"], "year": [1, 2, 3]}
    )
    whole = log.with_items(frame, item="id")
    assert whole.db.execute(f"SELECT name, year FROM {whole.items_table} ORDER BY year").fetchall() == [
        (None, 1), ("VIII", 3),
    ]  # fmt: skip
    with pytest.raises(DataError, match="no column 'nam' \\(title=\\)"):
        log.with_items(films, item="id", title="nam")


@pytest.mark.parametrize("name", ["value", "key", "row"])
def test_a_column_of_the_items_may_have_any_name(name: str) -> None:
    table = {"user": [1, 1], "item": ["a", "b"], "time": [1, 2], name: [7, 8]}
    of_log = read(table, item_columns=[name]).prepare()
    of_table = read(table).with_items({"item": ["b", "a"], name: [8, 7]}, item="item").prepare()
    assert of_log.items.columns == of_table.items.columns == {name: [7, 8]}


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


def test_the_report(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", [*CLICKS, ("", "d", "2014-05-13")])
    log = read(path)
    detail = (
        "log.csv; times are ISO text, UTC where no offset is given and seconds by their size, "
        "all within 9 s of 2014-05-13 16:53 (is that the right column and unit?)"
    )
    assert log.report().splitlines() == [
        "step    events  users  sessions  items",
        f"read         6      2         -      5  {detail}",
        "reject       5      2         -      4  no user: 1",
    ]
    assert report_of(log.steps) == log.report()
    assert repr(log) == "EventLog(5 events, 2 users, 0 sessions, 4 items)"


def test_the_fingerprint(tmp_path: Path) -> None:
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


def test_a_folder_that_is_called_like_a_column_changes_nothing(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    table = pl.DataFrame({"user": ["x", "y"], "item": [7, 8], "time": [T, T + 1]})
    for folder in ("user=anna", "item=base", "day=1"):
        place = tmp_path / folder / "a.parquet"
        place.parent.mkdir()
        table.write_parquet(place)
        for source in (place, place.parent):
            assert sorted(events(read(source))) == sorted(events(read(table)))
    log = EventLog.read(tmp_path / "day=1", user="user", item="item", time="time", columns=["day"])
    assert "day" in log.columns


def test_a_column_of_lists_is_refused_by_file_and_name(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    place = tmp_path / "a.parquet"
    pl.DataFrame({"user": [1], "item": [[1, 2]], "time": [T]}).write_parquet(place)
    with pytest.raises(DataError, match=r"a\.parquet: column 'item' is of type BIGINT\[\]; expected text"):
        read(place)


def test_a_folder_of_parquet_leaves_out_what_is_hidden(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    for name, item in (("a.parquet", 1), ("_temporary/0/b.parquet", 2), (".check/c.parquet", 3), ("sub/D.PARQUET", 4)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"user": ["x"], "item": [item], "time": [T]}).write_parquet(tmp_path / name)
    assert sorted(items(read(tmp_path))) == [1, 4]


def test_whole_numbers_are_not_rounded_by_a_file_of_floats(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    for large in (5, 2**60):
        pl.DataFrame({"user": [1, 1], "item": [large, large + 1], "time": [T, T]}).write_parquet(tmp_path / "a.parquet")
        pl.DataFrame({"user": [1], "item": [7.0], "time": [T]}).write_parquet(tmp_path / "b.parquet")
        if large == 5:
            assert sorted(items(read(tmp_path))) == [5, 6, 7]
        else:
            with pytest.raises(DataError, match="column 'item' has whole numbers in one file and floats in another"):
                read(tmp_path)


def test_ids_as_bytes_and_as_mixed_numbers_stay_apart() -> None:
    def ids(values: list[Any]) -> list[Any]:
        table = {
            "user": np.ones(len(values)),
            "item": np.array([*values, None], object)[:-1],
            "time": np.arange(len(values)),
        }
        return items(read(table))

    assert ids([b"\xff\x01", b"\xfe\x01", b"a'"]) == ["\\xFF\\x01", "\\xFE\\x01", "a'"]
    assert ids([2**60 + 1, 2**60, 1.0]) == [str(2**60 + 1), str(2**60), "1"]
    assert ids([3, 2.0]) == [3, 2]


def test_blank_lines_before_the_header_are_no_rows(tmp_path: Path) -> None:
    for start, end in (("\n", "\n"), ("\r\n\r\n", "\r\n"), ("\ufeff\n", "\n")):
        file = tmp_path / "log.csv"
        file.write_text(start + end.join(["user,item,time", f"1,5,{T}", f"1,6,{T + 1}", "1,x,", ""]), newline="")
        log = EventLog.read(file, user="user", item="item", time="time", rejected=tmp_path / "bad.csv")
        assert items(log) == ["5", "6"]  # text for the x alone
        assert len(log) == 2
        assert log.workspace.row(f"SELECT count(*) FROM {log.rejected_table}") == (1,)


def test_of_columns_that_differ_in_case_the_one_that_is_named_is_read(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text(f"user,Item,time,item\n1,A,{T},b\n")
    assert items(read(file)) == ["b"]
    assert items(EventLog.read(file, user="user", item="Item", time="time")) == ["A"]


@pytest.mark.parametrize(
    ("condition", "left"),
    [(True, [3, 4]), (None, [1, 2, 3]), (0, [2, 3, 4]), ("< 1", [2, 3, 4]), ("B*", [1, 2, 3, 4])],
)
def test_what_is_dropped_from_a_csv_is_what_is_dropped_from_a_table(
    tmp_path: Path, condition: object, left: list[int]
) -> None:
    words = {True: ["True", "true", "False", ""], None: ["1", "2", "3", "NA"]}.get(condition, ["0.0", "1", "2", ""])
    file = tmp_path / "log.csv"
    file.write_text("user,item,time,x\n" + "".join(f"1,{n + 1},{T + n},{word}\n" for n, word in enumerate(words)))
    log = EventLog.read(file, user="user", item="item", time="time", drop={"x": condition})
    assert items(log) == left
    for wrong in ("!= 0", "== 1", "= 0"):
        with pytest.raises(DataError, match="expected a value, a pattern, or <, <=, > or >="):
            EventLog.read(file, user="user", item="item", time="time", drop={"x": wrong})
