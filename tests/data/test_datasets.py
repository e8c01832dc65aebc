"""Recipes: how they are found, read and refused, and each against its counts on the real files."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from tests.data.slow_papers import lists, query, written

from foretaste.compare.publish import fingerprint
from foretaste.data import datasets
from foretaste.data.datasets import DataRecipe, apply, comparison, recipe, recipes
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import TEST, TRAIN, VALIDATION
from foretaste.errors import ConfigError, DataError, ForetasteError

FILES = (
    "30music-sample", "amazon-baby-5core", "amazon-clothing-5core", "amazon-hpc-5core", "amazon-instant-video-rum",
    "amazon-musical-instruments-5core", "amazon-sports-5core", "diginetica", "diginetica-raw-sample",
    "diginetica-test-raw", "instacart-sample", "jdata-sample", "ml-100k", "ml-1m", "online-retail", "serenade-toy",
    "taobao-userbehavior-2h", "tmall-shan", "yoochoose-clicks-100k", "yoochoose-test-raw", "yoochoose1_64",
)  # fmt: skip
PAPERS = (
    "asars-movielens-1m", "asars-recsys15", "asars-tianchi", "dman-jd", "dman-movielens-1m", "dman-taobao",
    "dman-xlong", "lsamn-csj", "lsamn-hpc", "lsamn-so", "narm-diginetica", "narm-diginetica-unsorted",
    "narm-yoochoose-1_4", "narm-yoochoose-1_64", "rum-automotive", "rum-baby", "rum-instant-video", "rum-musical",
)  # fmt: skip

PROTOCOLS = (
    "asars-30music", "asars-30music-dwell", "asars-ml-100k", "asars-ml-100k-dwell", "asars-yoochoose-100k",
    "asars-yoochoose-100k-dwell", "lsamn-musical-instruments", "lsamn-online-retail", "ml-1m-segments",
)  # fmt: skip
"""A paper's protocol on a log that it does not have."""

# ------------------------------------------------------------------------------ the recipes themselves


def test_every_recipe_is_found_and_says_what_it_is() -> None:
    found = recipes()
    assert sorted(found) == sorted((*FILES, *PAPERS, *PROTOCOLS))
    assert all(title and "\n" not in title for title in found.values())
    for name in found:
        made = recipe(name)
        assert made.about.strip()
        assert made.published is not None or name in (*FILES, *PROTOCOLS)
        assert DataRecipe.of(made.as_dict()) == made


def test_an_installed_package_brings_its_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = datasets.recipes_folder()
    assert source.parts[-2:] == ("recipes", "data")
    package = tmp_path / "site-packages" / "foretaste"
    (package / "data").mkdir(parents=True)
    monkeypatch.setattr(datasets, "__file__", str(package / "data" / "datasets.py"))
    with pytest.raises(ConfigError, match=r"no recipes at .*install Foretaste again"):
        datasets.recipes_folder()
    (package / "recipes" / "data").mkdir(parents=True)
    assert datasets.recipes_folder() == package / "recipes" / "data"


def test_a_recipe_extends_another(tmp_path: Path) -> None:
    base = 'title = "base"\nabout = "a"\n[[files]]\nfile = "a.csv"\n[read]\nitem = "i"\nsession = "s"\norder = "o"\n'
    (tmp_path / "base.toml").write_text(
        base + '[split]\nkind = "session-order"\nfraction = 0.5\n[counts.all]\nitems = 3\n'
    )
    (tmp_path / "mine.toml").write_text(
        'extends = "base"\ntitle = "mine"\n[read]\nitem = "j"\n[split]\nkind = "last-item"\n'
    )
    mine = recipe(tmp_path / "mine.toml")
    assert (mine.name, mine.title, mine.about) == ("mine", "mine", "")
    assert (mine.read.item, mine.read.session) == ("j", "s")
    assert str(mine.split) == "LastItem()"
    assert mine.counts.flat() == {}
    assert recipe("narm-yoochoose-1_4").prefixes.fraction == 0.25  # type: ignore[union-attr]
    assert recipe("narm-yoochoose-1_4").filter == recipe("narm-yoochoose-1_64").filter


GOOD = 'title = "t"\n[[files]]\nfile = "a.csv"\n[read]\nitem = "i"\nsession = "s"\ntime = "t"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + 'sesion = "s"\n', r"unknown key 'sesion'; did you mean 'session'\?"),
        (GOOD + '[split]\nkind = "global"\ndays = 1\n', "kind = 'global' is not known; did you mean 'global-time'"),
        (GOOD + '[split]\nkind = "global-time"\n', "give exactly one of days, at and fraction"),
        (GOOD + '[validation]\nkind = "last-item"\n', "there is a validation part and no split"),
        (GOOD + '[sessions]\ngap = "1h"\nper = "day"\n', "two ways to cut sessions"),
        (GOOD + '[sessions]\nevents = 20\nper = "day"\n', "per and events are two ways"),
        (GOOD + '[[files]]\nfile = "b.csv"\npart = "test"\n', "some of the files name their part and some do not"),
        (GOOD.replace("[read]", 'part = "train"\n[read]'), r"say \[read\] split = 'part'"),
        (GOOD + '[leave_out]\nbegin = 2016-05-26\nbefore = "2016-05-25"\n', "is not earlier than"),
        (GOOD + '[leave_out]\nbegin = "May"\nbefore = "June"\n', "May"),
        (GOOD.replace('time = "t"', 'order = "t"\ntime_plus_ms = "u"'), "time is not named"),
        (GOOD.replace('session = "s"', 'user = "s"\nsorted = false'), "name time and session"),
        (GOOD + "[split", "not valid TOML"),
        ('extends = "itself"\n', "in the end extends itself"),
        ('extends = "diginetcia"\n', "did you mean 'diginetica'"),
    ],
)
def test_a_recipe_that_is_wrong_gets_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "itself.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        recipe(path)
    assert "itself.toml" in str(error.value) or "diginetcia" in str(error.value)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no recipe 'yoochose1_64': did you mean 'yoochoose1_64'"):
        recipe("yoochose1_64")
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        recipe("none.toml")


# ----------------------------------------------------------------------------------- files to a source


def two_files(folder: Path) -> DataRecipe:
    written(folder / "a.csv", [(0, 0, "x"), (0, 1, "y"), (1, 0, "x"), (1, 1, "x")], head="s,p,i")
    written(folder / "b.csv", [(5, 1, "y"), (5, 0, "z"), (7, 0, "x"), (7, 1, "y")], head="s,p,i")
    (folder / "two.toml").write_text(
        'title = "two files"\ncontinued = ["s"]\n[[files]]\nfile = "a.csv"\npart = "train"\n'
        '[[files]]\nfile = ["c.csv", "b.csv"]\npart = "test"\n'
        '[read]\nsession = "s"\nsession_order = "s"\norder = "p"\nitem = "i"\nsplit = "part"\n[split]\nkind = "given"\n'
        "[counts]\ntraining = { events = 4, items = 2 }\ntest = { events = 5 }\n"
        '[published]\nsource = "nobody"\nall = { events = 8, items = 4, sessions = 5 }\n'
        'why = { "all.items" = "they counted the empty word." }\n'
    )
    return recipe(folder / "two.toml")


def test_two_files_become_one_log(tmp_path: Path) -> None:
    made = two_files(tmp_path)
    for sources in (
        [tmp_path],
        [tmp_path / "a.csv", tmp_path / "b.csv"],
        [str(tmp_path / "a.csv"), tmp_path / "b.csv"],
    ):
        prepared = apply(made, *sources)
        assert lists(prepared, TRAIN) == [["x", "y"], ["x", "x"]]
        assert lists(prepared, TEST) == [[None, "y"], ["x", "y"]]
        assert [file["name"] for file in prepared.manifest["sources"]["files"]] == ["a.csv", "b.csv"]
    log = datasets.log(made, tmp_path)
    assert [row[0] for row in log.db.execute(f'SELECT "session" FROM {log.table} ORDER BY row').fetchall()] == [
        0, 0, 1, 1, 2, 2, 4, 4,
    ]  # fmt: skip


def test_the_comparison_has_a_sentence_for_each_difference(tmp_path: Path) -> None:
    made = two_files(tmp_path)
    prepared = apply(made, tmp_path, folder=tmp_path / "out")
    text = comparison(prepared)
    assert text.splitlines() == [
        "two: two files",
        "                 here  recipe  published",
        "training events     4       4          -",
        "training items      2       2          -",
        "test events         4       5          -",
        "all events          8       -          8",
        "all sessions        4       -          5",
        "all items           3       -          4",
        "Published: nobody.",
        "test events: 4 here, 5 in the recipe: these are not the files that it was written for.",
        "all sessions: 4 here, 5 published: no reason is known, unless these files are only a part of that data set.",
        "all items: 3 here, 4 published: they counted the empty word.",
    ]
    assert comparison(Prepared.open(tmp_path / "out", verify=True)) == text
    log = datasets.log(made, tmp_path)
    with pytest.raises(ConfigError, match="without a recipe"):
        comparison(log.prepare(None))


def test_files_that_do_not_fit_get_one_clear_error(tmp_path: Path) -> None:
    made = two_files(tmp_path)
    with pytest.raises(DataError, match=r"1 given, and the recipe needs 2: a\.csv, c\.csv"):
        apply(made, tmp_path / "a.csv")
    with pytest.raises(ConfigError, match=r"give the folder of a\.csv"):
        apply(made)
    with pytest.raises(ConfigError, match="give their paths, not tables"):
        apply(made, {"s": np.zeros(2)})
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        apply(made, tmp_path / "a.csv", tmp_path / "none.csv")
    (tmp_path / "b.csv").rename(tmp_path / "d.csv")
    with pytest.raises(DataError, match=r"holds no c\.csv or b\.csv; give the path of the file itself"):
        apply(made, tmp_path)
    written(tmp_path / "b.csv", [(5, 1)], head="s,p")
    with pytest.raises(DataError, match=r"b\.csv has the columns s, p; a\.csv has s, p, i: make them the same"):
        apply(made, tmp_path)
    written(tmp_path / "b.csv", [(5, 1, "x"), (5, 1, "x", "more")], head="s,p,i")
    with pytest.raises(DataError, match=r"b\.csv, line 3: cannot be cut into 3 cells at ','"):
        apply(made, tmp_path)
    written(tmp_path / "b.csv", [("5a", 1, "x")], head="s,p,i")
    with pytest.raises(DataError, match=r"b\.csv: 's' holds '5a'; a continued column needs whole numbers"):
        apply(made, tmp_path)
    query(f"COPY (SELECT 1 AS s, 1 AS p, 'x' AS i) TO '{tmp_path / 'b.csv'}' (FORMAT parquet)")
    with pytest.raises(DataError, match=r"a\.csv, b\.csv: CSV and Parquet are mixed"):
        apply(made, tmp_path)
    with pytest.raises(ForetasteError, match=r"no such file"):
        apply(recipe("ml-100k"), tmp_path / "ml.csv")


def test_a_table_in_memory_and_options_of_reading(tmp_path: Path) -> None:
    rows = {"user_id": np.repeat([1, 2, 3], 20), "item_id": np.arange(60) % 7, "timestamp": np.arange(60) + 900_000_000}
    rows["rating"] = np.ones(60, int)
    prepared = apply(recipe("ml-100k"), rows, memory_limit="1GB", threads=1)
    assert prepared.manifest["counts"]["all"]["events"] == 60
    rows["item_id"] = np.where(np.arange(60) == 4, np.nan, rows["item_id"])
    with pytest.raises(DataError, match="no item"):
        apply(recipe("ml-100k"), rows, strict=True)


def test_the_word_missing_stands_for_a_missing_value(tmp_path: Path) -> None:
    written(tmp_path / "log.csv", [(1, "a", 10), ("", "a", 11), (1, "b", 12), (7, "b", 13), (1, "a", 14)], head="u,i,t")
    base = GOOD.replace('session = "s"', 'user = "u"').replace("a.csv", "log.csv")
    for drop, events in (('"missing"', 4), ('["7", "missing"]', 3)):
        (tmp_path / "mine.toml").write_text(f"{base}[read.drop]\nu = {drop}\n")
        log = datasets.log(recipe(tmp_path / "mine.toml"), tmp_path, strict=True)
        assert [(step.name, step.events) for step in log.steps] == [("read", 5), ("drop", events)]
        assert "u " in log.steps[1].detail
        assert log.steps[1].detail.endswith("missing")
    (tmp_path / "mine.toml").write_text(base)
    with pytest.raises(DataError, match="no user"):
        datasets.log(recipe(tmp_path / "mine.toml"), tmp_path, strict=True)


# ---------------------------------------------------------------------------------- the real log files


@functools.cache
def prepared_of(name: str, shared: Path) -> Prepared:
    return apply(recipe(name), shared)


def test_every_real_log_has_a_recipe(shared: Path) -> None:
    logs = {path.name for path in shared.glob("*.parquet") if ".items." not in path.name}
    assert logs == {file.file[0] for name in FILES for file in recipe(name).files}
    tables = {path.name for path in shared.glob("*.items.parquet")}
    assert tables == {items.file[0] for name in FILES for items in [recipe(name).items] if items}


def test_the_item_table_of_diginetica_rides_along_and_moves_nothing(shared: Path, root: Path) -> None:
    prepared = prepared_of("diginetica", shared)
    grid = json.loads((root / "benchmarks" / "results" / "narm" / "diginetica" / "grid.json").read_text("utf-8"))
    assert fingerprint(prepared).partition("-")[0] == grid["data"] == "986013d3bed9d313"
    assert len(prepared.items) == 43_097
    for column in ("category", "raw_item_id"):
        assert sum(value is not None for value in prepared.items.columns[column]) == 21_089
    assert len(set(prepared.items.columns["category"])) == 836 + 1


@pytest.mark.parametrize("name", [*FILES, *PROTOCOLS])
def test_the_counts_of_the_real_files(shared: Path, name: str) -> None:
    made = recipe(name)
    prepared = prepared_of(name, shared)
    found = type(made.counts).of(prepared.manifest["recipe"]["found"]).flat()
    expected = made.counts.flat()
    assert len(expected) >= 3
    assert {key: found[key] for key in expected} == expected
    text = comparison(prepared)
    print(text)
    for key, count in (made.published.flat() if made.published else {}).items():
        assert f"{count:,}" in text
        if found[key] != count:
            assert made.published is not None
            assert made.published.why[key] in text, "a difference that is known has its sentence"
    if made.items is not None:
        assert sum(title is not None for title in next(iter(prepared.items.columns.values()))) > 0


@pytest.mark.parametrize("name", ["yoochoose1_64", "diginetica"])
def test_the_standard_files_stand_in_their_own_order(shared: Path, name: str) -> None:
    prepared = prepared_of(name, shared)
    raw = np.array([0, *prepared.items.ids])
    for parts, file in (((TRAIN, VALIDATION), "train"), ((TEST,), "test")):
        source = f"'{shared}/{name}.{file}.parquet'"
        rows = np.array(query(f"SELECT sequence_id, item_id FROM {source} ORDER BY sequence_id, position"))
        log = prepared.part(*parts)
        assert np.array_equal(raw[log.items], np.where(np.isin(rows[:, 1], raw), rows[:, 1], 0))
        assert np.array_equal(log.sessions[1:-1], np.flatnonzero(np.diff(rows[:, 0])) + 1)
    train = prepared.part(TRAIN, VALIDATION)
    newest = train.sessions[-1 - train.n_sessions // 10]
    assert (train.part[:newest] == TRAIN).all()
    assert (train.part[newest:] == VALIDATION).all(), "the validation part is the most recent tenth of the sessions"
    if name == "yoochoose1_64":
        assert prepared.manifest["items"] == 17_376
        test = prepared.part(TEST)
        later = np.ones(len(test), bool)
        later[test.sessions[:-1]] = False
        assert later.sum() == 55_898
        assert (test.items[later] == 0).sum() == prepared.manifest["test_targets"]["cold"] == 412


@pytest.mark.parametrize(
    ("raw", "standard"), [("yoochoose-test-raw", "yoochoose1_64"), ("diginetica-test-raw", "diginetica")]
)
def test_the_raw_test_part_is_the_standard_one(shared: Path, raw: str, standard: str) -> None:
    """Linked rows of the raw file, in the order that the recipe gives them, are the sessions of the standard file."""
    source = f"'{shared}/{raw}.parquet'"
    sql = f"SELECT session_id, list(DISTINCT sequence_id), list(sequence_id IS NULL) FROM {source} GROUP BY 1"
    linked = {row[0]: row[1][0] for row in query(sql) if not any(row[2])}
    numbers = dict(query(f"SELECT DISTINCT item_id, mapped_item_id FROM {source} WHERE mapped_item_id IS NOT NULL"))
    sql = f"SELECT sequence_id, list(item_id ORDER BY position) FROM '{shared}/{standard}.test.parquet' GROUP BY 1"
    expected = dict(query(sql))
    log = datasets.log(recipe(raw), shared)
    rows = log.db.execute(f'SELECT "session", item FROM {log.table} ORDER BY "session", time, position, row').fetchall()
    found: dict[int, list[int]] = {}
    for session, item in rows:
        found.setdefault(session, []).append(item)
    same = [[numbers[i] for i in found[session]] == expected[sequence] for session, sequence in linked.items()]
    assert len(same) > 14_000
    assert all(same)


def test_rum_s_real_split_is_its_ratio(shared: Path) -> None:
    made = recipe("amazon-instant-video-rum")
    given = prepared_of(made.name, shared)
    ratio = apply(made.with_(split={"kind": "ratio", "train": 0.7}), shared)
    assert np.array_equal(given.sequences.part == TEST, ratio.sequences.part == TEST)
    assert given.manifest["test_targets"]["cold"] == 1861
