"""Bad input: rows that cannot be used are counted and set aside, sources that cannot be read are said."""

from __future__ import annotations

import csv
import gzip
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.clicks import CLICKS, T, aside, columns_of, compressed, events, items, read, write

from foretaste.data.events import EventLog, Step
from foretaste.errors import ConfigError, DataError

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


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("kind", ["csv", "csv.gz"])
def test_lines_are_told_as_an_editor_counts_them(tmp_path: Path, kind: str, end: str) -> None:
    lines = ["", "", "user,item,time", "1,a,5", "", "", "1,,6", "1,b,7", "1,c", "", ",d,8", "1,e,9"]
    path = tmp_path / "bad.csv"
    path.write_text(end.join(lines), newline="")
    found = [(7, "no item"), (9, "too few cells"), (11, "no user")]
    assert aside(read(path if kind == "csv" else compressed(path, "gz"))) == found


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


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.csv").write_text(BAD)
    log = read(tmp_path / "bad.csv")
    target = tmp_path / "rejected.csv"
    target.write_text("line,reason,row\n7,old,\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match=r"could not be written: .*No space left"):
        log.write_rejected(target)
    assert target.read_text() == "line,reason,row\n7,old,\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.csv", "rejected.csv"]
    with pytest.raises(DataError, match="nothing to write"):
        read(columns_of(CLICKS)).write_rejected(target)


def test_a_list_of_no_rejected_rows_is_written_too(tmp_path: Path) -> None:
    (tmp_path / "rejected.csv").write_text("line,reason,row\n7,of an earlier run,\n")
    log = read(write(tmp_path / "good.csv", CLICKS), rejected=tmp_path / "rejected.csv")
    assert log.rejected_table is None
    assert (tmp_path / "rejected.csv").read_text() == "line,reason,row\n"


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


@pytest.mark.parametrize("every", [2, 7, 1000])
def test_rows_keep_their_place_among_lines_that_are_none(tmp_path: Path, every: int) -> None:
    lines = ["broken" if k % every == 0 or k in (5, 6) else f"{k},a,{T}" for k in range(1, 3001)]
    (tmp_path / "holes.csv").write_text("\n".join(["user,item,time", *lines]) + "\n")
    log = read(tmp_path / "holes.csv")
    good = [k for k, line in enumerate(lines, 1) if line != "broken"]
    assert events(log, 'row, "user"') == [(k, k) for k in good]
    assert [line for line, _ in aside(log)] == [k + 1 for k in range(1, 3001) if k not in good]


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


def test_blank_lines_and_empty_cells_at_the_end_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "blank.csv"
    path.write_text("user,item,time,\n\n1,a,5,\n\n1,b,6,\n")
    assert [(item, time) for item, time in events(read(path), "item, time")] == [("a", 5000), ("b", 6000)]


def test_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("user,item,time\n1,café,5\n1,b,6\n".encode("latin-1"))
    assert aside(read(path)) == [(2, "not in the encoding of the file")]
    assert "encoding='latin-1' (--encoding)" in next(step for step in read(path).steps if step.name == "reject").detail
    assert items(read(path, encoding="latin-1")) == ["café", "b"]
    assert items(read(path, encoding="ISO-8859-1")) == ["café", "b"]
    path.write_text("user,item,time\n1,café,5\n", encoding="utf-8-sig")
    assert items(read(path, encoding="utf-8-sig")) == items(read(path, encoding="utf8")) == ["café"]
    for unknown in ("cp1252", "no such one"):
        with pytest.raises(DataError, match=f"encoding='{unknown}' .*expected utf-8, utf-16 or latin-1"):
            read(path, encoding=unknown)


# ---------------------------------------------------------------- sources that cannot be read


def test_one_of_several_files_without_a_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item,time\n1,a,5\n")
    (tmp_path / "b.csv").write_text("user,item,when\n1,a,5\n")
    said = r"b.csv has no column 'time' \(time=\), which another file of .* has; its columns: user, item, when"
    with pytest.raises(DataError, match=said):
        EventLog.read(tmp_path / "*.csv", user="user", item="item", time="time")


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
        ("user,item,time,item\n1,a,5,b\n", "log.csv: the column 'item' is there twice; rename one of them"),
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
    with pytest.raises(DataError, match=r"no \.parquet file in this folder"):
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
    with pytest.raises(DataError, match=r"cut\.parquet"):
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
        ({"columns": {"x": "item", "X": "time"}}, "columns=: 'X' is the name of another, but for its case"),
        ({"item_columns": ["item"]}, "item_columns=: 'item' is the name of one of the log's own columns"),
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


def test_a_log_stays_within_its_room_and_spills_where_tmpdir_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # what Python found before is forgotten
    log = read(columns_of(CLICKS), memory_limit="300MB", threads=1)
    names = ("memory_limit", "threads", "temp_directory")
    limit, threads, spill = (log.workspace.row(f"SELECT current_setting('{name}')")[0] for name in names)
    assert (limit, threads, spill) == ("286.1 MiB", 1, str(log.workspace.folder))
    assert log.workspace.folder.parent == tmp_path


def test_the_smallest_log() -> None:
    log = read({"user": [7], "item": ["only"], "time": [T]})
    assert (len(log), events(log), log.steps[0].items) == (1, [(1, 7, "only", T)], 1)
