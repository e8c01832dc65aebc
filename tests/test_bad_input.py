"""Bad input, by the command line and in Python: one clear error, or a counted and reported skip. Never a traceback,
never a half-written file in the place of a good one.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import foretaste
from foretaste import EventLog, ForetasteError, Recommender, splits
from foretaste.errors import ConfigError, DataError, NeedsError, SavedFileError
from tests.shell import Ran, Shell

HEAD = "session,item,time\n"
GOOD = HEAD + "".join(
    f"{session},{item if item % 3 else f'B{item}'},{1_600_000_000 + 100 * session + item}\n"
    for session in range(20)
    for item in range(5)
)
"""20 sessions of 5 events on the items B0, 1, 2, B3, 4."""
COLUMNS = ("--session", "session", "--item", "item", "--time", "time")
SMALL = ("--set", "hidden_size=8", "--set", "embedding_size=8", "--set", "epochs=1")
TABLE: dict[str, Any] = {
    "session": np.repeat(np.arange(20), 5),
    "item": np.tile(np.arange(5), 20),
    "time": 1_600_000_000 + np.arange(100),
}


@pytest.fixture
def ft(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the good log, prepared, and a NARM of it."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "good.csv").write_text(GOOD)
    log = EventLog.read(folder / "good.csv", session="session", item="item", time="time")
    prepared = log.prepare(splits.SessionOrder(count=4), splits.SessionOrder(count=2), folder=folder / "prepared")
    Recommender("narm", hidden_size=8, embedding_size=8, epochs=1).fit(prepared).save(folder / "narm")
    return folder


def refused(ran: Ran, *words: str) -> None:
    """The command ended with one clear error."""
    assert ran.status == 2, ran
    assert ran.out == ""
    said = [line for line in ran.err.splitlines() if not line.startswith("pass ")]
    assert said[0].startswith("foretaste: ")
    assert len(said) <= 2, ran.err
    for word in words:
        assert word in ran.err


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def read(table: Any, **options: Any) -> EventLog:
    return EventLog.read(table, **{"session": "session", "item": "item", "time": "time", **options})


# Files that are no log


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file"]),
        (b"", ["the file is empty"]),
        (b"\n\n\n", ["no line of text"]),
        (HEAD.encode(), ["no rows"]),
        (b"sess,itm,tme\n1,2,3\n", ["no column 'item'", "did you mean 'itm'", "sess, itm, tme"]),
        (b"1,2,1600000000\n1,3,1600000001\n", ["no column 'item'", "names"]),
        (GOOD.replace("item", "Item", 1).encode(), ["did you mean 'Item'"]),
        (b"session,item,time\n1,,1600000000\n2,,1600000001\n", ["none of its 2 rows", "no item: 2", "line 2"]),
        (
            b"session,item,time\n1,2,01/05/2024 10:00\n",
            ["time cannot be read: 1", "or ISO text such as 2024-05-01 10:00"],
        ),
        (b"session,item,time\n1,2,20240501120000\n", ["time in the future: 1", "by their size"]),
        ("session,item,time\n1,caf\xe9,5\n".encode("latin-1"), ["not in the encoding", "(--encoding)"]),
        (b'{"session": 1, "item": 2, "time": 3}\n', ["looks like JSON", "save it as CSV or Parquet"]),
        (GOOD.encode("utf-16"), ["neither CSV nor Parquet", "encoding='utf-16'"]),
        (b"PAR1" + b"x" * 100, ["cannot be read"]),
        (gzip.compress(GOOD.encode())[:-50], ["cut off or damaged"]),
        (bytes(np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8)), ["log"]),
    ],
)
def test_a_file_that_is_no_log(ft: Shell, content: bytes | None, words: list[str]) -> None:
    if content is not None:
        Path("log").write_bytes(content)
    refused(ft("prepare", "log", "--out", "out", *COLUMNS), *words)
    assert not Path("out").exists()
    with pytest.raises(DataError, match=r"log"):
        read("log")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--item"),
        (("--item", "item"), "session"),
        (("--item", "item", "--session", "session"), "time"),
        ((*COLUMNS, "--user", "customer"), "no column 'customer'"),
    ],
)
def test_columns_that_are_not_named(ft: Shell, options: tuple[str, ...], words: str) -> None:
    Path("log.csv").write_text(GOOD)
    refused(ft("prepare", "log.csv", "--out", "out", *options), words)
    refused(ft("inspect", "log.csv", *options), words)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "no columns"),
        (pd.DataFrame(), "at least one column"),
        (pd.DataFrame({"session": [], "item": [], "time": []}), "no rows"),
        ({**TABLE, "time": np.arange(3)}, "differ in length"),
        ({**TABLE, "item": np.zeros((100, 2))}, "one value a row"),
        ({"session": TABLE["session"], "time": TABLE["time"]}, "no column 'item'"),
        ([{"item": 1}], "cannot read a log from list"),
        (None, "cannot read a log from NoneType"),
    ],
)
def test_a_table_that_is_no_log(table: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(table)
    with pytest.raises(DataError, match="column of items"):
        read(TABLE, item=None)


# Too little


def test_one_event_one_session_one_user(ft: Shell) -> None:
    Path("one.csv").write_text(HEAD + "1,2,1600000000\n")
    Path("session.csv").write_text(HEAD + "".join(f"1,{row % 4},{1_600_000_000 + row}\n" for row in range(20)))
    for name, size in (("one.csv", "1 events"), ("session.csv", "20 events")):
        refused(ft("prepare", name, "--out", "out", *COLUMNS), "leaves nothing to", size, "by=event")
        with pytest.raises(DataError, match=r"fit\(log\.prepare\(\)\)"):
            Recommender("pop").fit(read(name))
    Path("still.csv").write_text(HEAD + "".join(f"{row},{row % 4},1600000000\n" for row in range(20)))
    refused(ft("prepare", "still.csv", "--out", "out", *COLUMNS), "every event has the same time: is that the right")
    one = read("one.csv").prepare()
    assert Recommender("pop").fit(one).recommend([2]).ids == [2]
    with pytest.raises(ForetasteError, match="no event that follows another"):
        Recommender("narm", epochs=1).fit(one)
    split = ft.well("inspect", "session.csv", *COLUMNS, "--json").json["protocols"]["per-step"]["split"]
    command = ("prepare", "session.csv", "--out", "cut", *COLUMNS, "--split", split)
    refused(ft(*command), "validation: GlobalTime", "by=event")
    ft.well(*command, "--validation", split)
    # One user's history can be cut in time, and is enough.
    ran = ft.well("prepare", "session.csv", "--out", "user", "--user", "session", "--item", "item", "--time", "time")
    assert "Sessions: none; a user's whole history counts as one. --gap 30m" in ran.out
    ft.well("train", "user", "--out", "narm", *SMALL)
    assert ft.well("evaluate", "narm", "user", "--json").json["cases"] == 2


def test_sessions_of_one_event_teach_nothing(ft: Shell) -> None:
    Path("log.csv").write_text(HEAD + "".join(f"{row},{row % 4},{1_600_000_000 + row}\n" for row in range(40)))
    ran = ft.well("prepare", "log.csv", "--out", "out", *COLUMNS)
    assert "Sessions: every one has one event" in ran.out
    refused(ft("train", "out", "--out", "narm", *SMALL), "nothing to ask", "every session of the log has one event")
    ft.well("prepare", "log.csv", "--out", "out", *COLUMNS, "--validation", "none", "--replace")
    refused(ft("train", "out", "--out", "narm", *SMALL), "no event that follows another")
    assert not Path("narm").exists()


def test_a_log_with_a_single_item(ft: Shell) -> None:
    lines = [f"{row // 3},7,{1_600_000_000 + row}\n" for row in range(60)]
    Path("log.csv").write_text(HEAD + "".join(lines))
    ft.well("prepare", "log.csv", "--out", "out", *COLUMNS)
    for model in ("narm", "pop"):
        ft.well("train", "out", "--out", model, "--model", model, *(SMALL if model == "narm" else ()))
        assert ft.well("evaluate", model, "out", "--json").json["metrics"]["recall@5"]["value"] == 1
        ran = ft.well("recommend", model, 7, "-k", 50)
        assert ran.out.startswith("  1. 7 ")
        assert "No more than 1 of the 1 known items" in ran.out


# Rows that cannot be used, and rows that look odd


def test_bad_rows_are_counted_by_reason_and_written_aside(ft: Shell) -> None:
    bad = {
        "no item": ["21,,1600009999", "22,NaN,1600009999", "22,  ,1600009999"],
        "no session": [",5,1600009999"],
        "no time": ["23,5,"],
        "time cannot be read": ["24,5,hello"],
        "time before 1970": ["25,5,-5"],
        "time in the future": ["26,5,99999999999"],
        "too few cells": ["27,5"],
        "too many cells": ["28,5,1600009999,7"],
    }
    rows = [row for rows in bad.values() for row in rows]
    Path("log.csv").write_text(GOOD + "\n".join(rows) + "\n")
    command = ("prepare", "log.csv", "--out", "out", *COLUMNS, "--replace")
    ran = ft.well(*command, "--rejected", "bad.csv", "--json")
    step = next(step for step in ran.json["steps"] if step["name"] == "reject")
    assert step["events"] == 100
    assert step["detail"] == ", ".join(
        f"{reason}: {len(bad[reason])}" for reason in sorted(bad, key=lambda reason: (-len(bad[reason]), reason))
    )
    aside = pd.read_csv("bad.csv")
    assert aside["line"].tolist() == list(range(102, 102 + len(rows)))
    assert aside["reason"].tolist() == [reason for reason, rows in bad.items() for _ in rows]
    assert step["detail"] in ft.well(*command).out
    before = contents(Path("out"))
    refused(ft(*command, "--strict"), "line 102: no item")
    Path("log.csv").write_text(GOOD + "21,3,yesterday\n")
    refused(
        ft(*command, "--strict"),
        "time cannot be read: {",
        "Times are numbers since 1970 (s, ms, us or ns, by their size)",
    )
    assert contents(Path("out")) == before


@pytest.mark.parametrize(
    ("column", "values", "left", "reason"),
    [
        ("item", np.where(np.arange(100) % 10 == 0, np.nan, TABLE["item"]), 90, "no item: 10"),
        ("item", pd.array([None, 1, 2, 3, 4] * 20, dtype="Int64"), 80, "no item: 20"),
        ("time", np.where(np.arange(100) < 3, np.inf, TABLE["time"]), 97, "3"),
        ("time", np.where(np.arange(100) < 3, -1, TABLE["time"]), 97, "time before 1970: 3"),
        ("time", np.where(np.arange(100) < 3, 4e9, TABLE["time"]), 97, "time in the future: 3"),
        ("session", np.where(np.arange(100) < 7, np.nan, TABLE["session"]), 93, "no session: 7"),
    ],
)
def test_missing_ids_and_impossible_times_of_a_table(column: str, values: Any, left: int, reason: str) -> None:
    log = read(pd.DataFrame({**TABLE, column: values}))
    assert len(log) == left
    assert reason in next(step.detail for step in log.steps if step.name == "reject")
    with pytest.raises(DataError, match="line 1"):
        read(pd.DataFrame({**TABLE, column: values}), strict=True)


def test_ids_of_mixed_types_are_text(ft: Shell) -> None:
    items = read(pd.DataFrame({**TABLE, "item": [1, "a", 2.0, "1", 2.5] * 20})).prepare().items
    assert set(items.ids) == {"1", "a", "2", "2.5"}
    Path("log.csv").write_text(GOOD)
    ft.well("prepare", "log.csv", "--out", "out", *COLUMNS)
    ft.well("train", "out", "--out", "pop", "--model", "pop")
    assert set(ft.well("recommend", "pop", 1, "B0", "--json").json["items"]) == {"B0", "1", "2", "B3", "4"}


def test_exact_copies_are_counted_and_may_be_dropped(ft: Shell) -> None:
    Path("log.csv").write_text(GOOD + GOOD.removeprefix(HEAD))
    ran = ft.well("prepare", "log.csv", "--out", "out", *COLUMNS)
    assert "100 exact copies of earlier rows, kept" in ran.out
    assert len(read("log.csv", duplicates="drop")) == 100


def test_ids_with_unicode_commas_quotes_and_newlines_come_through(ft: Shell) -> None:
    odd = ["naïve ☃, 日本", 'a "quoted" one', "two\nlines", "tab\there", "  spaces  ", "7", "007", "🎻" * 40]
    lines = ['"{}","{}",{}\n'.format(row // 4, odd[row * 3 % 8].replace('"', '""'), 10**9 + row) for row in range(80)]
    Path("log.csv").write_text(HEAD + "".join(lines), encoding="utf-8", newline="")
    ft.well("prepare", "log.csv", "--out", "out", *COLUMNS)
    ft.well("train", "out", "--out", "narm", *SMALL)
    facts = ft.well("recommend", "narm", *odd, "--explain", "--json").json
    assert sorted(facts["items"]) == sorted(odd)
    assert facts["skipped"] == []
    assert [raw for raw, _ in facts["because"]["attention"]] == odd
    assert len(ft.well("recommend", "narm", *odd).out.splitlines()) == 9  # 8 items and "no more than"
    assert set(Recommender.load("narm").recommend(odd).ids) == set(odd)


LONG = 10_000


def peak_of(*arguments: str) -> float:
    """Runs a command in a process of its own; gives its peak memory in MiB."""
    if sys.platform != "linux":
        pytest.skip("the peak memory of a process is measured on Linux")
    program = """
        import runpy, sys
        try:
            runpy.run_module("foretaste", run_name="__main__", alter_sys=True)
        finally:
            print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0], file=sys.stderr)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(re.findall(r"VmHWM:\s*(\d+) kB", done.stderr)[-1]) / 1024  # ru_maxrss would begin with our own peak


def test_sessions_of_ten_thousand_events_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    log = {
        "session": np.repeat(np.arange(3), LONG),
        "item": rng.integers(0, 500, 3 * LONG),
        "time": 10**9 + np.arange(3 * LONG),
    }
    EventLog.read(log, session="session", item="item", time="time").prepare(
        splits.SessionOrder(count=1), splits.SessionOrder(count=1), folder="out"
    )
    sizes = ("--set", "hidden_size=64", "--set", "window=50", "--set", "epochs=1")
    idle = peak_of("doctor")
    assert peak_of("train", "out", "--out", "narm", *sizes) < idle + 300
    assert peak_of("evaluate", "narm", "out") < idle + 300
    history = [str(item) for item in log["item"][:LONG]]
    # All positions at once would hold 10,000 x 50 keys of 64 floats, several times 128 MB.
    assert peak_of("recommend", "narm", *history, "--explain") < idle + 150
    recommender = Recommender.load("narm")
    found = recommender.recommend(log["item"][:LONG].tolist(), 3)
    for one in recommender.recommend_batch([log["item"][:LONG].tolist()] * 5, 3):
        assert one.ids == found.ids
        assert one.scores == pytest.approx(found.scores, abs=1e-5)


# What is asked for


@pytest.mark.parametrize("k", [0, -3, 1.5, "5", None, True])
def test_k_is_at_least_one(ft: Shell, made: Path, k: Any) -> None:
    recommender = Recommender.load(made / "narm")
    with pytest.raises(ConfigError, match=f"k = {k!r}"):
        recommender.recommend(["1"], k)
    with pytest.raises(ConfigError, match=f"k = {k!r}"):
        recommender.similar_items("1", k)
    if isinstance(k, int) and not isinstance(k, bool):
        refused(ft("recommend", made / "narm", 1, "-k", k), f"k = {k}")


def test_k_beyond_the_catalogue_gives_all_there_is(ft: Shell, made: Path) -> None:
    recommender = Recommender.load(made / "narm")
    assert sorted(recommender.recommend(["1"], 10**9).ids) == sorted(recommender.trained.items.ids)
    assert len(recommender.similar_items("1", 10**9)) == 4
    found = ft.well("evaluate", made / "narm", made / "prepared", "--cutoffs", 1000, "--json").json
    assert found["metrics"]["recall@1000"]["value"] == 1
    assert found["notes"] == [
        "a list of 1000 holds all 5 items, so every known target is on it",
        "4 users (or sessions without a user) are few: the true interval is wider than the one shown",
    ]


def test_what_a_recommender_may_be_asked(made: Path) -> None:
    recommender, log = Recommender.load(made / "narm"), read(TABLE)
    prepared = foretaste.Prepared.open(made / "prepared")
    for wrong, words in [
        (lambda: recommender.recommend("abc"), r"write \['abc'\]"),
        (lambda: recommender.recommend(3), r"write \[3\]"),  # type: ignore[arg-type]
        (lambda: recommender.recommend(["1"], exclude="abc"), r"write \['abc'\]"),
        (lambda: recommender.recommend([["1"]]), "cannot be an id"),  # type: ignore[list-item]
        (lambda: recommender.recommend_batch(["1", "2"]), r"write \['1'\]"),
        (lambda: recommender.recommend(["1"], candidates=["z"]), "candidate 'z'"),
        (lambda: recommender.evaluate(log), "reads a prepared log"),  # type: ignore[arg-type]
        (lambda: recommender.evaluate(prepared, part=7), "part = 7"),
        (lambda: recommender.evaluate(prepared, protocol="per-stepp"), "did you mean 'per-step'"),
        (lambda: recommender.evaluate(prepared, cutoffs=20), "cutoffs = 20"),
        (lambda: recommender.evaluate(prepared, cutoffs=(0, 5)), "cutoffs"),
        (lambda: recommender.evaluate(prepared, protocol="last-session"), "nothing to ask under the protocol last-ses"),
        (lambda: recommender.evaluate(log.prepare(splits.SessionOrder(count=2))), "numbers its items differently"),
        (lambda: Recommender("pop").recommend(["1"]), "not fitted yet"),
        (lambda: Recommender("pop").fit("clicks.csv"), r"EventLog\.read"),  # type: ignore[arg-type]
        (lambda: Recommender("narn"), "did you mean 'narm'"),
        (lambda: Recommender("narm", hiden_size=3), "did you mean 'hidden_size'"),
        (
            lambda: Recommender("dman", memory="none", slots=5),
            "'dman': slots = 5 says nothing here, it is read only with memory = dynamic or fifo; set that too",
        ),
        (lambda: Recommender("asars", dev=False), "dev = False .* read only with drift = true"),  # nor is drift
        (
            lambda: Recommender("rum-item", merge="multiply", alpha=0.5),
            "read only with merge = add, or merge = concat and predict = inner",
        ),
        (lambda: Recommender("narm", metric="recal@7").fit(prepared), "'recal@7' is not measured.*recall@7"),
        (lambda: Recommender("narm").fit(prepared, device="quantum"), "device = 'quantum'"),
        (lambda: Recommender.load(made / "narm", "cuda:99"), "device = 'cuda:99'.*this machine has cpu"),
        (lambda: log.prepare("last-item"), "split = 'last-item': expected a split"),
        (lambda: log.prepare(splits.LastItem), "expected a split"),
        (lambda: log.filter(item_suport=3), "did you mean 'item_support'"),
        (lambda: log.prepare(splits.LastSession()), "LastSession.* needs users"),
    ]:
        with pytest.raises(ForetasteError, match=words):
            wrong()
    assert recommender.recommend(["unheard of", float("nan"), None, "1"]).skipped[0] == "unheard of"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "prepared", "--out", "x", "--set", "hiden_size=3"), "did you mean 'hidden_size'"),
        (("train", "prepared", "--out", "x", "--set", "hidden_size=many"), "hidden_size"),
        (("train", "prepared", "--out", "x", "--set", "hidden_size=0"), "greater than or equal to 1"),
        (("train", "prepared", "--out", "x", "--set", "hidden_size"), "key=value"),
        (("train", "prepared", "--out", "x", "--set", "learning_rate=nan"), "learning_rate"),
        (("train", "prepared", "--out", "x", "--set", "learning_rate=1e30"), "lower learning rate"),
        (("train", "prepared", "--out", "x", "--set", "metric=recal@5"), "did you mean 'recall@5'"),
        (("train", "prepared", "--out", "x", "--set", "loss=softmx"), "softmax"),
        (("train", "prepared", "--out", "x", "--model", "narn"), "did you mean 'narm'"),
        (
            ("train", "prepared", "--out", "x", "--model", "pop", "--set", "learning_rate=0.1"),
            "'pop' counts, and takes no",
        ),
        (("train", "prepared", "--out", "x", "--device", "cuda:99"), "device = 'cuda:99'"),
        (("train", "prepared", "--out", "x", "--recipe", "nothing.toml"), "nothing.toml: no such file"),
        (("train", "good.csv", "--out", "x"), "foretaste prepare good.csv --out FOLDER"),
        (("compare", "good.csv", "--out", "x"), "foretaste prepare good.csv --out FOLDER"),
        (("tune", "good.csv", "--model", "pop", "--out", "x.toml"), "foretaste prepare good.csv --out FOLDER"),
        (("compare", "prepared", "--out", "x", "--models", "narn"), "did you mean 'narm'"),
        (("tune", "prepared", "--model", "narm", "--out", "good.csv"), "good.csv: is there already"),
        (("tune", "prepared", "--model", "narm", "--out", "x.toml", "--set", "epocs=3"), "did you mean 'epochs'"),
        (("tune", "prepared", "--model", "bpr-mf", "--out", "x.toml"), "needs users"),
        (("train", "nowhere", "--out", "x"), "nowhere"),
        (
            ("evaluate", "narm", "prepared", "--protocol", "product:maskseen=true"),
            "did you mean 'mask_seen'? Known: mask_seen, latest, cold, first\n",
        ),
        (("train", "preparde", "--out", "x"), "did you mean 'prepared'?"),
        (("evaluate", "prepared", "prepared"), "expected the folder of a saved recommender"),
        (("evaluate", "narm", "narm"), "manifest.json"),
        (("evaluate", "narm", "prepared", "--protocol", "per-stepp"), "did you mean 'per-step'"),
        (("evaluate", "narm", "prepared", "--protocol", "last-item:unit=shop"), "expected one of"),
        (("evaluate", "narm", "prepared", "--protocol", "last-item:unity=user"), "did you mean 'unit'"),
        (("evaluate", "narm", "prepared", "--protocol", "last-session"), "nothing to ask"),
        (("evaluate", "narm", "prepared", "--part", "tests"), "did you mean 'test'"),
        (("evaluate", "narm", "prepared", "--cutoffs", "0"), "cutoffs = (0,)"),
        (("evaluate", "narm", "prepared", "--out", "good.csv/x.npz"), "good.csv/x.npz"),
        (("recommend", "prepared", "1"), "expected the folder of a saved recommender"),
        (("inspect", "nowhere"), "no such file"),
        (("prepare", "good.csv", "--out", "x", *COLUMNS, "--split", "global-tim:days=1"), "did you mean 'global-time'"),
        (("prepare", "good.csv", "--out", "x", *COLUMNS, "--split", "global-time"), "exactly one of days, at and fr"),
        (("prepare", "good.csv", "--out", "x", *COLUMNS, "--split", "global-time:days=-1"), "greater than 0"),
        (("prepare", "good.csv", "--out", "x", *COLUMNS, "--split", "global-time:day=1"), "did you mean 'days'"),
        (("prepare", "good.csv", "--out", "x", *COLUMNS, "--split", "last-session"), "needs users"),
        (("prepare", "good.csv", "--out", "x", *COLUMNS, "--split", "given"), "needs split"),
        (("prepare", "good.csv", "--out", "x", *COLUMNS, "--gap", "soon"), "--gap soon: expected a length of time"),
        (
            ("prepare", "good.csv", "--out", "x", *COLUMNS, "--gap", "30"),
            "--gap 30: 30 of what? Say 30s, 30m, 30h or 30d",
        ),
        (
            ("prepare", "good.csv", "--out", "x", "--user", "item", "--item", "item", "--time", "time"),
            "named as the item and as the user",
        ),
        (("prepare", "good.csv", "--out", "x", *COLUMNS, "--gap", "30m", "--per-day"), "one of the three"),
        (("prepare", "good.csv", "--out", "x", *COLUMNS, "--item-support", "1000"), "nothing is left"),
        (("prepare", "good.csv", "--out", "x", *COLUMNS, "--user-events", "3"), "needs users"),
        (("prepare", "good.csv", "--out", "x", "--recipe", "ml-100"), "did you mean 'ml-100k'"),
        (("prepare", "good.csv", "good.csv", "--out", "x", *COLUMNS), "one log, not 2"),
        (("prepare", "good.csv", "--out", "good.csv", *COLUMNS), "not saved from here"),
        (("prepare", "good.csv", "--out", "narm", *COLUMNS), "not saved from here"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)
def test_options_that_cannot_be(ft: Shell, made: Path, arguments: tuple[str, ...], words: str) -> None:
    shutil.copytree(made, "all")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("all")
        before = contents(Path())
        refused(ft(*arguments), words)
        Path("x.run/log.jsonl").unlink(missing_ok=True)  # what is known of a run that came to nothing
        assert contents(Path()) == before


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ('[sessions]\ngap = "1h"\nper = "day"\n', "gap and per are two ways"),
        ('[filter]\nitem_support = 3\norder = ["session_length"]\n', "session_length is 0"),
        ('[split]\nkind = "global-time"\ndays = 1\nfraction = 0.1\n', "exactly one of"),
        ('[split]\nkind = "last-two"\n[validation]\nkind = "last-item"\n', "already makes a validation part"),
        ('[splitt]\nkind = "last-item"\n', "did you mean 'split'"),
        ("[read\n", "not valid TOML"),
        ('extends = "mine"\n', "extends itself"),
    ],
)
def test_a_data_recipe_that_contradicts_itself(ft: Shell, recipe: str, words: str) -> None:
    Path("log.csv").write_text(GOOD)
    columns = '[[files]]\nfile = "log.csv"\n[read]\nitem = "item"\nsession = "session"\ntime = "time"\n'
    Path("mine.toml").write_text('title = "x"\n' + (recipe if recipe.startswith("extends") else columns + recipe))
    refused(ft("prepare", "log.csv", "--recipe", "mine.toml", "--out", "out"), words)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ('model = "narm"\nsetings = {}\n', "did you mean 'settings'"),
        ('model = "narm"\nsettings = 3\n', "settings"),
        ("refit = true\n", "'model' is required"),
        ('model = "narm"\n[settings]\nhiden_size = 3\n', "did you mean 'hidden_size'"),
        ('model = "pop"\n[settings]\nhidden_size = 3\n', "no setting 'hidden_size'"),
        ("model = narm\n", "not valid TOML"),
    ],
)
def test_a_training_recipe_that_contradicts_itself(ft: Shell, made: Path, recipe: str, words: str) -> None:
    Path("run.toml").write_text(recipe)
    refused(ft("train", made / "prepared", "--recipe", "run.toml", "--out", "out"), words)
    assert not Path("out").exists()


# Files that were damaged, and folders of another version


def edited(**changes: Any) -> Callable[[Path], None]:
    def edit(file: Path) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return edit


def flipped(at: int) -> Callable[[Path], None]:
    """One bit of one byte changed, counted from the end."""

    def flip(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[-at] ^= 1
        file.write_bytes(data)

    return flip


def shortened(by: int) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(file.read_bytes()[:-by])


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("weights.safetensors", shortened(100), "truncated or edited"),
        ("weights.safetensors", flipped(5), "was edited or damaged"),
        ("weights.safetensors", Path.unlink, "No such file"),
        ("items.parquet", shortened(50), "truncated or edited"),
        ("items.parquet", flipped(200), "was edited or damaged"),
        ("items.parquet", Path.unlink, "No such file"),
        ("recommender.json", shortened(50), "is damaged"),
        ("recommender.json", lambda file: file.write_text("[" * 100_000), "is damaged"),
        ("recommender.json", edited(passes=3), "was edited (its checksum differs)"),
        ("recommender.json", edited(format=2, foretaste="9.0"), "install a newer version"),
    ],
)
def test_a_damaged_recommender(ft: Shell, made: Path, name: str, change: Callable[[Path], object], words: str) -> None:
    shutil.copytree(made / "narm", "narm")
    damaged(ft, Path("narm", name), change, words)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("weights.safetensors", shortened(100), "missing or truncated"),
        ("weights.safetensors", lambda file: file.write_bytes(b""), "missing or truncated"),
        ("weights.safetensors", Path.unlink, "missing or truncated"),
        ("items.parquet", shortened(50), "cannot be read"),
        ("items.parquet", Path.unlink, "no such file"),
        ("recommender.json", lambda file: file.write_text("[]"), "is damaged"),
        ("recommender.json", edited(model="bert4rec"), "no model is called 'bert4rec'"),
        ("recommender.json", edited(model=["narm"]), "expected str"),
        ("recommender.json", edited(config=[1]), "expected dict"),
        ("recommender.json", edited(config={"hidden": 7}), "unknown key 'hidden'"),
        ("recommender.json", edited(config={"hidden_size": 7}), "does not fit the config"),
        ("recommender.json", edited(config={"hidden_size": 2**40}), "does not fit the config"),
        ("recommender.json", edited(trained_with=None), "trained_with = None, expected dict"),
        ("recommender.json", edited(data={"rules": [1]}), "rules"),
        ("recommender.json", edited(n_items=6), "holds 5 items"),
        ("recommender.json", edited(n_users=6), "users.parquet"),
    ],
)
def test_a_damaged_recommender_of_an_earlier_version(
    ft: Shell, made: Path, name: str, change: Callable[[Path], object], words: str
) -> None:
    shutil.copytree(made / "narm", "narm")
    facts = Path("narm/recommender.json")
    whole = json.loads(facts.read_text())
    facts.write_text(json.dumps({name: value for name, value in whole.items() if name not in ("files", "checksum")}))
    Recommender.load("narm")
    damaged(ft, Path("narm", name), change, words)


def damaged(ft: Shell, file: Path, change: Callable[[Path], object], words: str) -> None:
    change(file)
    refused(ft("recommend", "narm", 1), words)
    refused(ft("inspect", "narm"), words) if file.name != "recommender.json" or file.exists() else None
    with pytest.raises(SavedFileError, match="narm"):
        Recommender.load("narm")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("manifest.json", shortened(50), "cannot be read"),
        ("manifest.json", edited(version=7), "reads up to 1"),
        ("manifest.json", edited(candidates="all"), "was edited"),
        ("manifest.json", Path.unlink, "no such file"),
        ("items.npy", shortened(4), "truncated or edited"),
        ("items.parquet", shortened(50), "truncated or edited"),
        ("sessions.npy", Path.unlink, "incomplete"),
    ],
)
def test_a_damaged_prepared_folder(
    ft: Shell, made: Path, name: str, change: Callable[[Path], object], words: str
) -> None:
    shutil.copytree(made / "prepared", "prepared")
    change(Path("prepared", name))
    refused(ft("train", "prepared", "--out", "x", *SMALL), words)
    refused(ft("evaluate", made / "narm", "prepared"), words)
    assert not Path("x").exists()


def test_a_damaged_checkpoint(ft: Shell, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("train", made / "prepared", "--out", "narm", *SMALL, "--replace")
    with monkeypatch.context() as patch:
        patch.setattr("foretaste.training.checkpoint.forget", lambda folder: None)
        ft.well(*command)
    before = contents(Path("narm"))
    shortened(100)(Path("narm.run/checkpoint.safetensors"))
    refused(ft(*command), "remove it to begin afresh")
    assert contents(Path("narm")) == before


# A full disk


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """What a full disk does: writing more than so many bytes fails, whoever writes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_file_of_the_users_is_replaced(ft: Shell, made: Path) -> None:
    """A folder of somebody else's with a manifest.json, files beside ours, the log itself under another option."""
    prepare = ("prepare", "good.csv", *COLUMNS)
    shutil.copytree(made / "prepared", "prepared")
    Path("web").mkdir()
    for name, text in {"web/manifest.json": "{}", "web/index.html": "mine", "prepared/notes.txt": "mine"}.items():
        Path(name).write_text(text)
    Path("good.csv").write_text(GOOD)
    before = contents(Path())
    for replace in ((), ("--replace",)):
        refused(ft(*prepare, "--out", "web", *replace), "web: holds something that was not saved from here")
        refused(ft(*prepare, "--out", "prepared", *replace), "prepared: holds 'notes.txt' beside what was saved")
    for name in ("web", "prepared"):
        with pytest.raises(SavedFileError, match="holds"):
            foretaste.Prepared.open(made / "prepared").save(name)
    for name in ("good.csv", "prepared/notes.txt"):
        refused(ft(*prepare, "--out", "new", "--rejected", name), f"{name}: holds something else than rejected rows")
    refused(ft(*prepare, "--out", "new", "--rejected", "new/bad.csv"), "--rejected new/bad.csv: lies in --out")
    refused(ft("inspect", "good.csv", *COLUMNS, "--html", "good.csv"), "good.csv: what stands there would be replaced")
    refused(ft("evaluate", made / "narm", made / "prepared", "--out", "good.csv"), "a name that ends in .npz")
    refused(ft("reproduce", "--list", "--out", "tables", "--ledger", "good.csv"), "a name that ends in .md")
    assert contents(Path()) == before
    Path("prepared/notes.txt").unlink()
    refused(ft(*prepare, "--out", "prepared"), "prepared: a prepared log is there already")
    ft.well(*prepare, "--out", "prepared", "--replace")


def test_a_model_that_is_registered_wrong_is_said(ft: Shell, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, why in {
        "foretaste.models.nofile:Fade": "No module named",
        "foretaste.models.narm:Fade": "'Fade'",
    }.items():
        monkeypatch.setitem(foretaste.models.MODELS, "fade", place)
        refused(
            ft("train", made / "prepared", "--out", "x", "--model", "fade"), f"'fade' is registered as '{place}'", why
        )


def test_the_folder_one_is_in(ft: Shell, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made / "prepared")
    assert ft.well("inspect", ".", "--json").json["events"] == 100
    with pytest.raises(SavedFileError, match=r"recommender.json"):
        Recommender.load("")


@pytest.mark.parametrize("size", [0, 200, 300])
@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare", "good.csv", "--out", "prepared", *COLUMNS, "--replace"),
        ("prepare", "bad.csv", "--out", "new", *COLUMNS, "--rejected", "rejected.csv"),
        ("train", "prepared", "--out", "narm", *SMALL, "--replace"),
        ("train", "prepared", "--out", "pop", "--model", "pop", "--replace"),
        ("evaluate", "narm", "prepared", "--out", "ranks.npz"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_full_disk_leaves_what_was_there(ft: Shell, made: Path, size: int, arguments: tuple[str, ...]) -> None:
    shutil.copytree(made, "all")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("all")
        Path("bad.csv").write_text(GOOD + "30,,1600009999\n" * 20)
        ft.well("train", "prepared", "--out", "pop", "--model", "pop")
        ft.well("evaluate", "pop", "prepared", "--out", "ranks.npz")
        Path("rejected.csv").write_text("line,reason,row\n7,of an earlier run,\n")
        before = contents(Path())
        with no_file_larger_than(size):
            ran = ft(*arguments)
        refused(ran, "written")
        assert "File too large" in ran.err
        after = contents(Path())
        rejected_may_be_new = {"rejected.csv"} if size else set()
        assert {name for name in before | after if before.get(name) != after.get(name)} <= rejected_may_be_new
        ft.well("recommend", "narm", 1)
        ft.well(*arguments)  # once there is room, it works


def test_a_model_that_needs_what_the_log_lacks(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foretaste.models.narm import NARM

    monkeypatch.setattr(NARM, "needs", frozenset({"users", "dwell"}))
    with pytest.raises(NeedsError, match=r"needs dwell and users, which this log does not have; .*add = .* --user"):
        Recommender("narm").fit(foretaste.Prepared.open(made / "prepared"))
