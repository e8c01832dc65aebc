"""`foretaste compare` and `tune` from end to end: cells in processes of their own, failures, kills, the table."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foretaste import EventLog, Recommender, shop
from foretaste.commands import compare as command
from foretaste.compare import publish
from foretaste.compare.cases import read
from foretaste.compare.cell import tune
from foretaste.compare.cost import spent
from foretaste.compare.grid import Grid, Place, Row
from foretaste.compare.run import _why, alone, run
from foretaste.compare.search import Settings, Stop, Trial, named
from foretaste.compare.summary import summarise
from foretaste.compare.trials import Bench, Crew, Say
from foretaste.config import read_toml
from foretaste.data.prepared import Prepared
from foretaste.data.splits import GlobalTime
from foretaste.errors import ConfigError, DataError, ForetasteError, SavedFileError
from foretaste.evaluation.report import Evaluation
from foretaste.models import model_class
from foretaste.pages.drawings import NoMatplotlib
from tests.shell import Shell

pytest.importorskip("optuna")

QUICK = ("--set", "epochs=2", "--set", "embedding_size=8", "--budget", "2", "--seeds", "2")


@pytest.fixture
def ft(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "clicks"
    columns = {name: column for name, column in shop(n_users=60, n_items=40, seed=3).columns.items() if name != "dwell"}
    log = EventLog.read(columns, user="user", session="session", item="item", time="time")
    log.prepare(GlobalTime(fraction=0.2), validation=GlobalTime(fraction=0.2), folder=folder)
    return folder


def test_without_optuna_nothing_begins(
    ft: Shell, clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    ran = ft("compare", clicks, "--out", tmp_path / "out", "--models", "pop,narm")
    assert (ran.status, "pip install 'foretaste[tune]'" in ran.err) == (2, True)
    assert not (tmp_path / "out" / "cells").exists()


def test_several_processes_compare_nothing(
    ft: Shell, clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for words in (("compare", clicks, "--models", "pop,narm"), ("tune", clicks, "--model", "narm")):
        ran = ft(*words, "--out", tmp_path / "out")
        assert (ran.status, "start it without torchrun" in ran.err, list(tmp_path.iterdir())) == (2, True, [])


@pytest.fixture(scope="module")
def compared(clicks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pop, a twin of it, bpr-mf, and a model whose needs the log does not meet."""
    out = tmp_path_factory.mktemp("compared") / "found"
    models = "pop,twin=pop,bpr-mf,paper=asars"
    command = [sys.executable, "-m", "foretaste", "compare", str(clicks), "--out", str(out), "--models", models]
    settings = ["--set", "paper.mode=paper", *QUICK]
    subprocess.run([*command, *settings], check=True, capture_output=True, text=True)
    return out


def test_every_row_is_there_and_says_how_it_was_made(compared: Path, clicks: Path) -> None:
    place = Place(compared)
    summary = summarise(place)
    assert [line.name for line in summary.lines] == ["pop", "twin", "bpr-mf", "paper"]
    assert [len(line.cells) for line in summary.lines] == [2, 2, 2, 0]
    assert "needs dwell" in summary.line("paper").failures[0]
    first, second = summary.line("bpr-mf").cells
    assert [len(first["tried"]), len(second["tried"])] == [2, 0]
    assert first["chosen"] == second["chosen"] == max(first["tried"], key=lambda trial: trial["score"])["change"]
    assert "embedding_size" not in first["chosen"]  # given by hand, so not searched
    assert first["config"]["embedding_size"] == 8
    assert first["test"]["metrics"] != second["test"]["metrics"]
    assert first["peak_mb"] > 50
    assert 0 < first["milliseconds"]["median"] <= first["milliseconds"]["p90"]
    figure = summary.line("bpr-mf").figures["recall@20"]
    assert figure.seeds == tuple(cell["test"]["metrics"]["recall@20"]["value"] for cell in (first, second))
    assert figure.mean == pytest.approx(sum(figure.seeds) / 2)
    assert not any((compared / "runs").iterdir())
    ready = Recommender.load(place.model("bpr-mf"))
    again = ready.evaluate(Prepared.open(clicks), cutoffs=(5, 10, 20)).means()
    assert again["recall@20"] == pytest.approx(first["test"]["metrics"]["recall@20"]["value"])


def test_a_model_is_no_better_than_itself(compared: Path) -> None:
    summary = summarise(Place(compared))
    assert summary.reference == max(("pop", "bpr-mf"), key=lambda name: summary.line(name).figures["recall@20"].mean)
    place = Place(compared)
    ranks = [Evaluation.load_ranks(place.ranks(name, 0)) for name in ("pop", "twin")]
    same = ranks[0].against(ranks[1])
    assert (same.difference, same.low, same.high, same.p_randomisation) == (0, 0, 0, 1)


def test_the_table_and_the_numbers(compared: Path) -> None:
    text = (compared / "table.md").read_text()
    assert "| bpr-mf | " in text
    assert "- paper: model 'asars' needs dwell" in text
    with (compared / "numbers.csv").open() as file:
        rows = list(csv.DictReader(file))
    recall = [row for row in rows if row["row"] == "pop" and row["metric"] == "recall@20" and row["seed"] == "1"]
    assert float(recall[0]["value"]) == summarise(Place(compared)).line("pop").figures["recall@20"].seeds[1]
    assert {row["metric"] for row in rows if row["question"] == "cost"} >= {"training", "peak_mb", "median"}


def test_a_cell_costs_what_its_passes_took(compared: Path) -> None:
    """And not what the last of its processes took, which may have been the shortest of three."""
    first, second = summarise(Place(compared)).line("bpr-mf").cells
    assert first["seconds"]["tuning"] == pytest.approx(sum(one["seconds"] for one in first["tried"]), abs=0.01)
    own = sum(one["seconds"] + one["validation_seconds"] for one in second["history"])
    assert second["seconds"]["tuning"] == pytest.approx(own, abs=0.01)  # it chose the number of passes alone
    assert 0 < first["seconds"]["training"] < first["seconds"]["tuning"]
    assert summarise(Place(compared)).line("bpr-mf").cost("tuning") == first["seconds"]["tuning"]
    assert first["machine"].keys() >= {"processor", "cores", "torch", "foretaste"}
    assert f"({first['made']})." in (compared / "table.md").read_text()


def test_a_refit_is_no_part_of_its_trial(tmp_path: Path) -> None:
    lines = '{"epoch": 1, "seconds": 2.0, "validation_seconds": 0.5}\n{"epoch": 2, "seconds": 3.0}\n'
    for name in ("", "before", "refit", "refit/before"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "log.jsonl").write_text(lines)
    assert spent(tmp_path) == 11.0
    assert spent(tmp_path / "refit") == 11.0


def test_differences_outlive_the_ranks(compared: Path, tmp_path: Path) -> None:
    whole = summarise(Place(compared))
    shutil.copytree(compared, tmp_path / "kept", ignore=shutil.ignore_patterns("ranks", "cases"))
    kept = summarise(Place(tmp_path / "kept"))
    assert [line.against for line in kept.lines] == [line.against for line in whole.lines]
    assert [line.p for line in kept.lines] == [line.p for line in whole.lines]
    assert [line.figures for line in kept.lines] == [line.figures for line in whole.lines]  # intervals too
    assert kept.reference == whole.reference
    path = Place(tmp_path / "kept").cell("twin", 0)
    cell = json.loads(path.read_text())
    cell["test"]["metrics"]["recall@20"]["value"] += 0.01
    path.write_text(json.dumps(cell))
    assert summarise(Place(tmp_path / "kept")).line("twin").against is None  # no longer the cell that was compared


def test_cases_tell_what_the_ranks_told(compared: Path, tmp_path: Path) -> None:
    """A published folder has no ranks; a row that joins it years later is still compared with every old one."""
    whole, place = summarise(Place(compared)), Place(tmp_path / "kept")
    shutil.copytree(compared, place.folder, ignore=shutil.ignore_patterns("ranks", "pairs.json"))
    kept = summarise(place)
    assert [line.against for line in kept.lines] == [line.against for line in whole.lines]
    assert [line.figures for line in kept.lines] == [line.figures for line in whole.lines]
    of_ranks = read(Place(compared), whole.line("bpr-mf").cells[0], ("recall@20", "mrr@20"))
    of_cases = read(place, whole.line("bpr-mf").cells[0], ("recall@20", "mrr@20"))
    assert of_ranks is not None
    assert of_cases is not None
    assert all((of_cases.values[name] == of_ranks.values[name]).all() for name in ("recall@20", "mrr@20"))
    assert 0 < of_cases.values["mrr@20"].sum() < of_cases.values["recall@20"].sum()
    assert (
        (of_cases.clusters[1:] == of_cases.clusters[:-1]) == (of_ranks.clusters[1:] == of_ranks.clusters[:-1])
    ).all()
    assert read(place, whole.line("bpr-mf").cells[0], ("ndcg@20",)) is None  # was not shown, so it was not kept
    path = place.cases("bpr-mf", 0)
    assert path.stat().st_size < Place(compared).ranks("bpr-mf", 0).stat().st_size / 2
    path.write_bytes(place.cases("pop", 0).read_bytes())
    with pytest.raises(DataError, match=r"another run; delete .*bpr-mf-seed0\.json"):
        summarise(place)
    path.write_bytes(b"PK no zip")
    with pytest.raises(SavedFileError, match=r"bpr-mf-seed0\.npz: cannot be read as the cases of a cell"):
        summarise(place)
    path.unlink()
    assert summarise(place).line("bpr-mf").against is None


def parted(compared: Path, tmp_path: Path, **parts: list[str]) -> list[Path]:
    """Copies of a comparison, each without what is named."""
    for name, without in parts.items():
        shutil.copytree(compared, tmp_path / name, ignore=shutil.ignore_patterns("*.md", "*.csv", "*.html", *without))
    return [tmp_path / name for name in parts]


def held(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_made_in_several_folders_is_one_comparison(
    compared: Path, clicks: Path, tmp_path: Path, ft: Shell
) -> None:
    a, b, c = parted(
        compared, tmp_path, a=["twin-*", "bpr-mf-seed1*", "twin"], b=["pop-*", "bpr-mf-seed0*", "pop", "bpr-mf"], c=[]
    )
    out = tmp_path / "whole"
    said = ft.well("merge", a, b, "--out", out, "--data", clicks).out
    assert said.startswith(f"6 cells taken: {out}\n")
    whole, made = summarise(Place(compared)), summarise(Place(out))
    assert {line.name: line for line in made.lines} == {line.name: line for line in whole.lines}
    assert "- paper: model 'asars' needs dwell" in (out / "table.md").read_text()  # what failed says so as before
    assert sorted(path.name for path in (out / "models").iterdir()) == ["bpr-mf", "pop", "twin"]
    weights = [Place(folder).model("bpr-mf") / "weights.safetensors" for folder in (compared, out)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    before = held(out / "cells")
    assert ft.well("merge", c, out, "--out", out).out.startswith("0 cells taken, 6 in more than one folder: ")
    assert before == held(out / "cells")
    assert json.loads(ft.well("merge", c, "--out", out, "--json").out)["rows"].keys() == {
        "pop",
        "twin",
        "bpr-mf",
        "paper",
    }


def test_a_cell_that_is_taken_brings_all_that_is_its_own(compared: Path, tmp_path: Path, ft: Shell) -> None:
    """What another training left beside a cell that is gone, or said of its failure, is no part of the new one."""
    (a,) = parted(compared, tmp_path, a=["bpr-mf-seed*.json"])
    place = Place(a)
    shutil.copyfile(place.ranks("pop", 0), place.ranks("bpr-mf", 0))
    (place.model("bpr-mf") / "weights.safetensors").write_bytes(b"of another")
    place.failure("bpr-mf", 1).write_text('{"row": "bpr-mf", "seed": 1, "refused": false, "why": "for want of memory"}')
    place.run("bpr-mf", 0).mkdir(parents=True)
    assert ft.well("merge", compared, "--out", a).out.startswith("2 cells taken, 4 in more than one folder: ")
    assert summarise(place).lines == summarise(Place(compared)).lines
    names = ("ranks", "cases", "models", "cells")
    assert {name: held(a / name) for name in names} == {name: held(compared / name) for name in names}
    assert not list((a / "runs").iterdir())
    published = parted(compared, tmp_path, published=["ranks", "cases"])[0]
    ft.well("merge", published, "--out", tmp_path / "again")
    assert [line.against for line in summarise(Place(tmp_path / "again")).lines] == [
        line.against for line in summarise(Place(compared)).lines
    ]  # tests outlive the cases


def test_the_words_are_those_of_the_first_folder(compared: Path, tmp_path: Path, ft: Shell) -> None:
    a, b = parted(compared, tmp_path, a=["pop-*"], b=["twin-*", "bpr-mf-*"])
    grid = Place(b).grid()
    other = [row.with_(settings={"embedding_size": 9}) if row.name == "bpr-mf" else row for row in grid.rows]
    changed = grid.with_(
        title="Old words", show=("recall@20", "ndcg@20"), rows=tuple(other), data=grid.data.partition("-")[0]
    )
    (b / "grid.json").write_text(json.dumps(changed.as_dict()))  # a row that it never made is no obstacle
    for folders in ((a, b), (b, a)):
        out = tmp_path / f"from-{folders[0].name}"
        assert ft.well("merge", *folders, "--out", out).out.startswith("6 cells taken: ")
        made = Place(out).grid()
        assert (made.title == "Old words") == (folders[0] == b)
        assert made.row("bpr-mf").settings == grid.row("bpr-mf").settings
        assert made.data == grid.data


def test_what_could_not_stand_in_one_table_is_not_merged(
    compared: Path, clicks: Path, tmp_path: Path, ft: Shell
) -> None:
    other, alone = parted(compared, tmp_path, other=[], alone=["bpr-mf-seed1*"])
    place, grid, before = Place(other), Place(other).grid(), held(alone)
    cell = json.loads(place.cell("bpr-mf", 1).read_text())
    rows = [row.with_(settings={"embedding_size": 9}) if row.name == "bpr-mf" else row for row in grid.rows]
    for changed, said, says in (
        (
            {},
            {**cell, "chosen": {"learning_rate": 7.0}},
            r"was trained with \{'learning_rate': 7.0\}, and .*bpr-mf-seed0",
        ),
        ({"data": "another"}, cell, "other: was begun with data = 'another', and what it is merged with"),
        ({"metric": "mrr@20"}, cell, "was begun with metric = 'mrr@20', and what it is merged with with 'recall@20'"),
        ({"rows": tuple(rows)}, cell, "is of a row with other settings or another budget than .*bpr-mf-seed0.json"),
        ({}, {}, "bpr-mf-seed1.json: not a finished cell"),
    ):
        (other / "grid.json").write_text(json.dumps(grid.with_(**changed).as_dict()))
        place.cell("bpr-mf", 1).write_text(json.dumps(said))
        ran = ft("merge", other, "--out", alone)
        assert ran.status == 2
        assert re.search(says, ran.err), ran.err
        assert held(alone) == before
    new = tmp_path / "new"
    empty = parted(compared, tmp_path, empty=["cells"])[0]
    for words, says in (
        ((), "name at least one folder"),
        ((tmp_path / "none",), "no comparison was begun here"),
        ((empty,), "no cell is finished, so nothing is merged"),
        ((alone, "--data", tmp_path / "none"), "none"),
    ):
        ran = ft("merge", *words, "--out", new)
        assert (ran.status, says in ran.err, new.exists()) == (2, True, False)
    for folder in (clicks, Place(compared).model("pop")):
        ran = ft("merge", alone, "--out", folder)
        assert (ran.status, "holds a prepared log or a recommender" in ran.err) == (2, True)
    columns = shop(n_users=20, n_items=40, seed=4).columns
    log = EventLog.read(columns, user="user", session="session", item="item", time="time")
    log.prepare(GlobalTime(fraction=0.2), folder=tmp_path / "log")
    ran = ft("merge", alone, "--out", new, "--data", tmp_path / "log")
    assert (ran.status, "is not the log that" in ran.err, (new / "cells").exists()) == (2, True, False)


def test_every_number_is_in_a_sheet(compared: Path) -> None:
    summary = summarise(Place(compared))
    read = {name: list(csv.DictReader((compared / f"{name}.csv").open())) for name in ("rows", "passes", "trials")}
    twin = next(row for row in read["rows"] if row["row"] == "twin" and row["metric"] == "recall@20")
    line = summary.line("twin")
    assert line.against is not None
    assert float(twin["difference"]) == line.against.difference
    assert float(twin["p_holm"]) == line.p
    cells = summary.line("bpr-mf").cells
    assert [row["seed"] for row in read["passes"]] == ["0"] * len(cells[0]["history"]) + ["1"] * len(
        cells[1]["history"]
    )
    mine = [row for row in read["trials"] if row["row"] == "bpr-mf"]
    assert [float(row["validation recall@20"]) for row in mine] == [one["score"] for one in cells[0]["tried"]]
    assert [row["chosen"] for row in mine].count("True") == 1


def test_a_metric_that_is_not_measured_is_refused_before_anything_is_trained(
    tmp_path: Path, clicks: Path, ft: Shell
) -> None:
    ran = ft("compare", clicks, "--out", tmp_path / "out", "--models", "pop", "--metric", "recal@20")
    assert ran.status == 2
    assert "metric 'recal@20' is not measured; did you mean 'recall@20'" in ran.err
    one = ("--out", tmp_path / "fifty", "--models", "pop", "--seeds", "1")
    found = ft.well("compare", clicks, *one, "--metric", "recall@30", "--json").json
    assert found["grid"]["cutoffs"] == [5, 10, 20, 30]
    tuned = ft.well("tune", clicks, "--model", "pop", "--metric", "recall@30", "--out", tmp_path / "pop.toml", "--json")
    assert tuned.json["saved"] == str(tmp_path / "pop.toml")


def test_finished_cells_are_kept_and_a_new_row_is_added(compared: Path, clicks: Path, ft: Shell) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (compared / "cells").glob("*-seed?.json")}
    found = ft.well("compare", clicks, "--out", compared, "--models", "fpmc", *QUICK, "--json")
    assert set(found.json["rows"]) == {"pop", "twin", "bpr-mf", "paper", "fpmc"}
    assert "6 of 10 cells are there already" in found.err
    after = {path.name: path.stat().st_mtime_ns for path in (compared / "cells").glob("*-seed?.json")}
    assert {name: after[name] for name in before} == before
    wrong = ft("compare", clicks, "--out", compared, "--models", "pop", "--metric", "mrr@20", "--seeds", "1")
    assert wrong.status == 2
    assert "begun with" in wrong.err


def test_other_cases_are_refused(compared: Path, clicks: Path, tmp_path: Path) -> None:
    place = Place(compared)
    kept = place.ranks("twin", 0).read_bytes()
    other = Recommender.load(place.model("pop")).evaluate(
        Prepared.open(clicks), protocol="last-item", cutoffs=(5, 10, 20)
    )
    try:
        other.save_ranks(place.ranks("twin", 0))
        with pytest.raises(DataError, match="'pop' and 'twin' were not asked the same cases"):
            summarise(place)
    finally:
        place.ranks("twin", 0).write_bytes(kept)


def test_ranks_of_another_run_are_refused(compared: Path) -> None:
    place = Place(compared)
    kept = place.ranks("bpr-mf", 0).read_bytes()
    try:
        place.ranks("bpr-mf", 0).write_bytes(place.ranks("pop", 0).read_bytes())
        with pytest.raises(DataError, match=r"another run; delete .*bpr-mf-seed0\.json"):
            summarise(place)
    finally:
        place.ranks("bpr-mf", 0).write_bytes(kept)


def test_killed_in_the_middle_it_goes_on_and_ends_the_same(clicks: Path, tmp_path: Path) -> None:
    def begin(out: Path) -> subprocess.Popen[str]:
        words = ["compare", str(clicks), "--out", str(out), "--models", "bpr-mf", "--set", "epochs=6"]
        command = [sys.executable, "-m", "foretaste", *words, "--set", "checkpoint_seconds=0.01", "--seeds", "1"]
        return subprocess.Popen([*command, "--budget", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert begin(whole).wait() == 0
    child = begin(killed)
    deadline = time.monotonic() + 60
    while not list(killed.glob("runs/*/*/log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    for _ in range(100):  # the process of the cell sees that its parent is gone, and goes too
        try:
            again = begin(killed)
            errors = again.communicate()[1]
            assert again.returncode == 0, errors
            break
        except AssertionError:
            time.sleep(0.2)
    one, two = (json.loads(Place(out).cell("bpr-mf", 0).read_text()) for out in (whole, killed))
    assert two["chosen"] == one["chosen"]
    assert two["test"]["metrics"] == one["test"]["metrics"]


def test_a_cell_that_dies_says_so_and_takes_nothing_with_it(
    clicks: Path, tmp_path: Path, ft: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foretaste.compare import run

    real = subprocess.Popen

    def deadly(command: list[str], **options: Any) -> Any:
        if "bpr-mf" in command:
            command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
        return real(command, **options)

    monkeypatch.setattr(run.subprocess, "Popen", deadly)

    def no_page(*what: Any) -> None:
        raise NoMatplotlib("none here")

    monkeypatch.setattr(publish, "write_report", no_page)
    found = ft.well(
        "compare", clicks, "--out", tmp_path / "out", "--models", "bpr-mf,pop", "--budget", "1", "--seeds", "1"
    )
    assert f"look at {tmp_path / 'out' / 'table.md'}; every number" in found.out
    cell = Place(tmp_path / "out").read("pop", 0)
    assert cell is not None
    assert cell["tried"] == []  # it has nothing to choose
    assert "- bpr-mf: its process was ended by SIGKILL, perhaps for want of memory" in found.out
    assert "| pop | " in found.out


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Place]:
    """A comparison of two rows in which other Python stands for a cell; it is told the row as sys.argv[1]."""
    real = subprocess.Popen

    def begin(code: str) -> Place:
        def stand_in(command: list[str], **options: Any) -> Any:
            return real([sys.executable, "-c", code, command[5]], **options)

        monkeypatch.setattr(subprocess, "Popen", stand_in)
        place = Place(tmp_path / "out")
        place.begin(Grid(title="", rows=(Row(name="alpha 0.2", model="pop"), Row(name="alpha 0.3", model="pop"))))
        return place

    return begin


def why(place: Place, row: str) -> str:
    return str(json.loads(place.failure(row, 0).read_text())["why"])


def test_rows_with_a_dot_have_logs_of_their_own(begun: Callable[..., Place], tmp_path: Path) -> None:
    place = begun("import sys; sys.exit(f'Traceback of {sys.argv[1]}')")
    run(place, tmp_path, workers=2)
    for row in ("alpha 0.2", "alpha 0.3"):
        log = place.folder / "runs" / f"{row}-seed0.log"
        assert why(place, row) == f"Traceback of {row} (the whole story: {log})"
        assert log.read_text() == f"Traceback of {row}\n"


def test_a_log_stays_where_it_says_more_than_the_cell(begun: Callable[..., Place], tmp_path: Path) -> None:
    """Such as the traceback of a trial, which writes there too."""
    code = "import sys; print('{\"failed\": \"trial 1\"}'); 'alpha 0.3' in sys.argv and sys.exit('Traceback')"
    place = begun(code)
    run(place, tmp_path)
    assert why(place, "alpha 0.2") == "trial 1"
    log = place.folder / "runs" / "alpha 0.3-seed0.log"
    assert why(place, "alpha 0.3") == f"trial 1 (its process said more: {log})"
    assert log.read_text() == "Traceback\n"
    assert [path.name for path in log.parent.iterdir()] == [log.name]
    assert _why({}, 1, tmp_path / "gone.log") == "its process ended with exit status 1"


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt; a process that a shell put in the background begins with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupted_cell_has_not_failed(begun: Callable[..., Place], tmp_path: Path) -> None:
    place = begun('import time; print(\'{"step": "sleeping"}\', flush=True); time.sleep(60)')
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        while not list(place.folder.glob("runs/*.log")):
            time.sleep(0.02)
        time.sleep(0.1)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run(place, tmp_path, workers=2)
    assert not list(place.folder.glob("cells/*"))
    assert not list(place.folder.glob("runs/*"))
    begun("import os; os.kill(os.getpid(), 2); import time; time.sleep(60)")  # as a terminal tells all, who comes first
    run(place, tmp_path)
    assert not list(place.folder.glob("cells/*"))


def test_a_second_run_changes_nothing_in_the_first(clicks: Path, tmp_path: Path, ft: Shell) -> None:
    place = Place(tmp_path / "out")
    with alone(place.folder):
        assert "another run is at work here" in ft("compare", clicks, "--out", place.folder, "--models", "pop").err
        assert not (place.folder / "grid.json").exists()


def test_what_a_killed_run_left_at_work_keeps_the_next_one_out(tmp_path: Path) -> None:
    with alone(tmp_path) as lock:
        left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    try:
        with pytest.raises(ConfigError, match="another run is at work here"), alone(tmp_path):
            pass
    finally:
        left.communicate(b"\n")
    with alone(tmp_path):
        pass


def test_a_comparison_without_any_result_is_no_success(clicks: Path, tmp_path: Path, ft: Shell) -> None:
    ran = ft("compare", clicks, "--out", tmp_path / "out", "--models", "asars", "--set", "mode=paper",
             "--budget", "1", "--seeds", "1")  # fmt: skip
    assert ran.status == 2
    assert "no model has a result" in ran.err
    assert (tmp_path / "out" / "table.md").exists()


def test_words_that_mean_nothing_are_refused(clicks: Path, tmp_path: Path, ft: Shell) -> None:
    out = ("--out", tmp_path / "out")
    for words, message in (
        (("compare", clicks, *out, "--models", "narn"), "did you mean 'narm'"),
        (("compare", clicks, *out, "--models", "pop,narm", "--set", "epocs=3"), "did you mean 'epochs'"),
        (("compare", clicks, *out, "--models", "pop", "--set", "pop.epochs=3"), "is a setting of training"),
        (("compare", clicks, *out, "--models", "pop", "--set", "narm.epochs=3"), "no model here is called 'narm'"),
        (("compare", clicks, *out, "--protocol", "per-stp"), "did you mean 'per-step'"),
        (("compare", *out), "or --simulated"),
        (("compare", clicks, *out, "--seeds", "0"), "seeds = 0"),
        (("compare", clicks, *out, "--budget", "0"), "trials"),
        (("compare", clicks, *out, "--workers", "0", "--models", "pop"), "workers = 0"),
        (("compare", clicks, *out, "--models", "pop,narm", "--set", "seed=7"), "say it with --seeds"),
        (("compare", clicks, *out, "--models", "narm", "--set", "narm.metric=mrr@20"), "say it with --metric"),
        (("compare", clicks, *out, "--models", "narm", "--set", "narm.hiden_size=5"), "did you mean 'hidden_size'"),
        (("compare", clicks, *out, "--models", "narm", "--set", "hidden_size=0"), "'hidden_size' = 0"),
        (("compare", clicks, *out, "--models", "sasrec", "--set", "chunk=100"), "chunk to its window of 200"),
        (("compare", clicks, *out, "--cutoffs", "0"), "'cutoffs.0' = 0"),
        (("compare", clicks, "--out", clicks, "--models", "pop"), "holds a prepared log or a recommender"),
        (("tune", clicks, "--model", "narm", "--out", tmp_path / "a.toml", "--set", "seed=1"), "say it with --seed"),
        (("tune", clicks, "--model", "narn", "--out", tmp_path / "a.toml"), "did you mean 'narm'"),
        (("tune", clicks, "--model", "pop", "--out", tmp_path / "a.toml", "--workers", "0"), "workers = 0"),
    ):
        ran = ft(*words)
        assert ran.status == 2, words
        assert message in ran.err, words
    assert not (tmp_path / "out" / "cells").exists()


def test_tune_writes_a_recipe_that_train_reads(clicks: Path, tmp_path: Path, ft: Shell) -> None:
    recipe = tmp_path / "best.toml"
    search = ("tune", clicks, "--model", "bpr-mf", "--out", recipe, "--trials", "3", "--set", "epochs=2")
    search += ("--workers", "2", "--metric", "ndcg@10", "--protocol", "last-item", "--seed", "3")
    told = ft.well(*search, "--json").json
    assert len(told["tried"]) == 3
    best = max(told["tried"], key=lambda trial: trial["score"])
    assert told["best"] == best
    written = read_toml(recipe)
    assert written["settings"] == {"metric": "ndcg@10", "seed": 3, "epochs": 2, **best["change"]}
    assert written["refit"] is True
    assert "3 settings on the validation part, asked last-item: ndcg@10" in written["about"]
    facts = ft.well("train", clicks, "--out", tmp_path / "run", "--recipe", recipe, "--json").json
    assert facts["trained_with"]["learning_rate"] == best["change"]["learning_rate"]
    assert (facts["trained_with"]["metric"], facts["trained_with"]["seed"]) == ("ndcg@10", 3)


def test_a_recipe_holds_any_setting() -> None:
    settings = {"loss_options": {"t": 0.5}, "before": {"epochs": 6, "frozen": ["item"]}, "rate": 1e-05, "on": True}
    made = tomllib.loads(command._recipe("narm", 'says "so"', {**settings, "loss": "softmax"}))
    assert made["settings"] == {**settings, "loss": "softmax"}
    assert (made["model"], made["about"]) == ("narm", 'says "so"')


def test_one_trial_of_a_model_that_counts_is_made(clicks: Path, tmp_path: Path, ft: Shell) -> None:
    words = ("tune", clicks, "--model", "pop", "--trials", "1", "--out", tmp_path / "pop.toml")
    (trial,) = ft.well(*words, "--json").json["tried"]
    assert (
        f"Best of 1 settings on the validation part, asked per-step: recall@20 {100 * trial['score']:.2f} %"
        in (read_toml(tmp_path / "pop.toml")["about"])
    )
    assert read_toml(tmp_path / "pop.toml")["settings"] == {}


def test_tune_needs_a_validation_part_and_a_trial(tmp_path: Path, ft: Shell) -> None:
    columns = {name: column for name, column in shop(n_users=60, n_items=40, seed=3).columns.items() if name != "dwell"}
    EventLog.read(columns, user="user", session="session", item="item", time="time").prepare(folder=tmp_path / "all")
    for more, said in (((), "no validation part, which chooses"), (("--trials", 0), "trials = 0; give at least 1")):
        ran = ft("tune", tmp_path / "all", "--model", "pop", "--out", tmp_path / "pop.toml", *more)
        assert (ran.status, said in ran.err) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all"]


def test_tune_goes_on_with_more_trials_and_leaves_nothing_behind(
    clicks: Path, tmp_path: Path, ft: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []

    def quick(self: Bench, change: Settings, stop: Stop, say: Say, what: str) -> Trial:
        calls.append(change["learning_rate"])
        if len(calls) == 8:
            raise KeyboardInterrupt
        return Trial(dict(change), 1 - abs(change["learning_rate"] - 0.003), 1, 1)

    monkeypatch.setattr(Bench, "trial", quick)
    words = ("tune", clicks, "--model", "bpr-mf")
    whole = ft.well(*words, "--out", tmp_path / "whole.toml", "--trials", "5", "--json").json["tried"]
    assert len(calls) == len(whole) == 5
    cut = (*words, "--out", tmp_path / "cut.toml")
    assert ft(*cut, "--trials", "3").status == 130
    run = tmp_path / "cut.toml.run"
    assert [trial["change"]["learning_rate"] for trial in whole[:3]] == calls[5:]
    for others in (("--set", "epochs=3"), ("--metric", "mrr@20")):
        assert "delete the folder and begin anew" in ft(*cut, *others).err
    with alone(run):
        assert "another run is at work here" in ft(*cut, "--trials", "5").err
    assert ft.well(*cut, "--trials", "5", "--json").json["tried"] == whole
    assert len(calls) == 5 + 3 + 3, "the one that was cut off is made again, the two before it are kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.toml", "whole.toml"]
    assert "is there already" in ft(*cut).err


def test_without_models_it_compares_what_the_log_can_have(
    clicks: Path, tmp_path: Path, ft: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(place: Place, folder: Path, **how: Any) -> None:
        raise ForetasteError("not made here")

    monkeypatch.setattr(command, "run", nothing)
    columns = shop(n_users=60, n_items=40, seed=3).columns
    anonymous = EventLog.read(
        {name: columns[name] for name in ("session", "item", "time")}, session="session", item="item", time="time"
    )
    nobody = anonymous.prepare(
        GlobalTime(fraction=0.2), validation=GlobalTime(fraction=0.2), folder=tmp_path / "nobody"
    )
    said = " ".join(str(command.compare.__doc__).split())
    for folder, models in ((clicks, command.WITH_USERS), (tmp_path / "nobody", command.WITHOUT_USERS)):
        assert ft("compare", folder, "--out", tmp_path / f"{folder.name}-out").err.endswith("not made here\n")
        rows = Place(tmp_path / f"{folder.name}-out").grid().rows
        assert [row.model for row in rows] == list(models)
        assert rows[1].settings == ({"scope": "user"} if folder == clicks else {})
        assert f"{', '.join(models[:-1])} and {models[-1]} where" in said
        for model in models:
            assert model_class(model).needs <= Prepared.open(folder).offers, model
    assert "users" not in nobody.offers


def test_trials_at_once_are_what_one_process_finds(clicks: Path, tmp_path: Path) -> None:
    """And what goes wrong in a process is told here."""
    log, tries = Prepared.open(clicks), ({"l2": 0.0}, {"l2": 0.1}, {"l2": 0.01, "learning_rate": -1.0})
    row = Row(name="bpr-mf", model="bpr-mf", settings={"epochs": 2, "embedding_size": 4}, tries=tries[:2])
    grid = Place(tmp_path / "tries").begin(Grid(title="", rows=(row,)))
    told: list[str] = []

    def make(crew: Crew | None) -> list[Trial]:
        return tune(log, grid, row, 0, Place(tmp_path / "tries"), "cpu", lambda said: told.append(said["step"]), crew)[
            0
        ]

    one_by_one = make(None)
    shutil.rmtree(tmp_path / "tries" / "runs")
    with Crew(Place(tmp_path / "tries"), clicks, row.name, 0, 1, "cpu", 2, lambda said: told.append("x")) as crew:
        together = make(crew)
        assert len(crew.all) == 2
        with pytest.raises(ForetasteError, match="learning_rate"):
            crew.trial(tries[2], lambda epoch, best: False, 3)
        crew.all[0].kill()
        crew.all[1].kill()
        with pytest.raises(ForetasteError, match=r"trial 4: its process was ended by SIGKILL, perhaps .* memory"):
            crew.trial(tries[0], lambda epoch, best: False, 4)
        crew.free.clear()
        crew.command = [sys.executable, "-c", "raise SystemExit(3)"]
        with pytest.raises(ForetasteError, match=r"trial 5: its process ended with exit status 3$"):
            crew.trial(tries[0], lambda epoch, best: False, 5)
    assert [replace(trial, seconds=0.0) for trial in together] == [replace(trial, seconds=0.0) for trial in one_by_one]
    assert "trial 1" in told


def test_more_workers_than_models_make_trials_at_once(
    clicks: Path, tmp_path: Path, ft: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foretaste.compare import run

    real, seen = subprocess.Popen, []

    def watched(command: list[str], **options: Any) -> Any:
        if "foretaste.compare.cell" in command:
            seen.append(int(command[-1]))
            command = ["echo", '{"failed": "not made here"}']
        return real(command, **options)

    monkeypatch.setattr(run.subprocess, "Popen", watched)
    words = ("compare", clicks, "--models", "pop,bpr-mf", "--seeds", "1")
    for workers, budget, at_once in (("1", "3", 1), ("3", "3", 1), ("5", "3", 2), ("5", "1", 1)):
        seen.clear()
        ft(*words, "--out", tmp_path / f"{workers}-{budget}", "--workers", workers, "--budget", budget)
        assert seen == [at_once, at_once]


@pytest.mark.slow
def test_a_cell_makes_trials_at_once(clicks: Path, tmp_path: Path, ft: Shell) -> None:
    words = ("--models", "bpr-mf", "--set", "epochs=1", "--budget", "2", "--seeds", "1", "--workers", "2")
    found = ft.well("compare", clicks, "--out", tmp_path / "out", *words, "--json").json
    cell = Place(tmp_path / "out").read("bpr-mf", 0)
    assert cell is not None
    assert len({named(trial["change"]) for trial in cell["tried"]}) == 2
    assert found["rows"]["bpr-mf"]["chosen"] == max(cell["tried"], key=lambda trial: trial["score"])["change"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system tells the peak of the whole family alone")
def test_the_memory_of_a_process_is_its_own_whatever_the_one_that_started_it_held() -> None:
    program = """
        import subprocess, sys
        held = bytearray(b"1") * 1_000_000_000
        del held
        child = "from foretaste.compare.cost import peak_mb; print(peak_mb())"
        subprocess.run([sys.executable, "-c", child], check=True)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert 50 < int(run.stdout) < 600
