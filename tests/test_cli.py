"""The command line as its users meet it: what each command prints where, its exit status, and that Python agrees."""

from __future__ import annotations

import csv
import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import foretaste
from foretaste import EventLog, Prepared, Recommender, answers, cli, demo, endings, options, shop, splits, words
from foretaste.data.sequences import TEST, VALIDATION
from foretaste.data.sessions import Filters
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, DataError
from foretaste.evaluation.evaluate import Evaluation
from foretaste.evaluation.protocols import LastItem, PerStep
from foretaste.models import MODELS
from foretaste.recommender import RunRecipe
from foretaste.training.settings import TrainConfig
from tests.shell import Shell

COMMANDS = ("demo", "prepare", "train", "evaluate", "recommend", "models", "recipes", "inspect", "doctor")
LOADED_LATE = {
    "prepare": "prepare", "compare": "compare", "tune": "compare", "reproduce": "reproduce", "inspect": "inspect",
    "serve": "serve", "replay": "replay", "train": "train", "lists": "lists", "merge": "merge",
}  # fmt: skip
COLUMNS = ("--session", "session", "--item", "item", "--time", "time")
SMALL = ("--set", "hidden_size=8", "--set", "embedding_size=8", "--set", "batch=64")
SETTINGS = {"hidden_size": 8, "embedding_size": 8, "batch": 64, "epochs": 2}


@pytest.fixture
def ft(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, the log prepared, and NARM and POP trained on it."""
    folder = tmp_path_factory.mktemp("cli")
    columns = dict(shop(n_users=60, n_items=40, seed=3).columns)
    with (folder / "clicks.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow([*columns, "title"])
        lines.writerows([*row, f"thing no. {row[2]}"] for row in zip(*columns.values(), strict=True))
    for arguments in (
        ("prepare", folder / "clicks.csv", "--out", folder / "clicks", *COLUMNS, "--user", "user", "--title", "title"),
        ("train", folder / "clicks", "--out", folder / "narm", *SMALL, "--set", "epochs=2"),
        ("train", folder / "clicks", "--out", folder / "pop", "--model", "pop"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(word) for word in arguments])
        assert not stop.value.code
    return folder


# Help


def test_without_arguments_it_lists_the_commands(ft: Shell) -> None:
    shown = ft.well().out
    assert shown == ft.well("--help").out
    assert all(f" {command} " in shown for command in COMMANDS)
    assert ft.well("--version").out.strip() == foretaste.__version__


def test_the_list_says_of_every_command_what_its_page_says(ft: Shell) -> None:
    """Here, where all are loaded, and in a new process, where none is and the list has words of its own."""
    fresh = subprocess.run([sys.executable, "-m", "foretaste", "--help"], capture_output=True, text=True, check=True)
    for text in (ft.well("--help").out, fresh.stdout):
        _says_what_the_pages_say(" ".join(text.replace("│", " ").split()))


def _says_what_the_pages_say(shown: str) -> None:
    for command, module in LOADED_LATE.items():
        function = getattr(importlib.import_module(f"foretaste.commands.{module}"), command)
        said = function.__doc__.splitlines()[0].replace("`", "")
        assert f" {command} {said} " in shown


@pytest.mark.parametrize("command", sorted({*COMMANDS, *LOADED_LATE}))
def test_every_help_has_an_example_that_can_be_read(ft: Shell, command: str) -> None:
    shown = " ".join(ft.well(command, "--help").out.split())
    example = shown.split("Example: ")[1]
    assert example.startswith(f"foretaste {command}")
    named = [word for word in example.split(" ╭")[0].split() if word.startswith("--")]
    options = shown.split("╭─ Parameters")[1]
    assert all(word in options for word in named)


@pytest.mark.parametrize("command", ["prepare", "train"])
def test_help_is_quick_and_loads_nothing_heavy(command: str) -> None:
    code = """
import json, sys, time
start = time.process_time()  # of the processor: what others do is not our slowness
from foretaste import cli
try:
    cli.main([sys.argv[1], "--help"])
except SystemExit as stop:
    assert not stop.code
print(json.dumps([time.process_time() - start, sorted({name.split(".")[0] for name in sys.modules})]))
"""
    program = [sys.executable, "-c", code, command]
    runs = [subprocess.run(program, capture_output=True, text=True, check=True) for _ in range(3)]
    found = [json.loads(run.stdout.splitlines()[-1]) for run in runs]
    assert not {"torch", "duckdb", "numpy", "pydantic"} & set(found[0][1])
    assert min(seconds for seconds, _ in found) < 0.4


# Prepare


@pytest.mark.parametrize("over_all", [False, True], ids=["filters see the training part", "filters see all"])
def test_prepare_does_what_python_does(ft: Shell, made: Path, tmp_path: Path, over_all: bool) -> None:
    log = EventLog.read(made / "clicks.csv", session="session", item="item", time="time", user="user")
    log, least = log.sessions(gap="10m"), {"item_support": 3, "session_length": 2}
    parts = splits.GlobalTime(days=20), splits.WholeUsers(fraction=0.2, seed=4)
    ours = log.filter(**least).prepare(*parts) if over_all else log.prepare(*parts, filters=Filters(**least))
    ran = ft.well(
        *("prepare", made / "clicks.csv", "--out", tmp_path / "out", *COLUMNS, "--user", "user", "--gap", "10m"),
        *("--item-support", 3, "--session-length", 2, "--split", "global-time:days=20"),
        *("--validation", "whole-users:fraction=0.2,seed=4", *(["--filter-all"] if over_all else [])),
    )
    assert ("Counted over the test part too" in ran.out) == over_all
    theirs = Prepared.open(tmp_path / "out")
    assert ran.out.strip() == theirs.report()
    for name in ("items", "users", "sessions", "part", "times"):
        assert np.array_equal(getattr(theirs.sequences, name), getattr(ours.sequences, name)), name
    assert theirs.items.ids == ours.items.ids
    assert theirs.manifest["split"] == ours.manifest["split"]


def test_prepare_reads_a_csv_that_must_be_explained_within_the_room_it_gets(ft: Shell, tmp_path: Path) -> None:
    rows = [(session, item, 10**9 + row) for row, (session, item) in enumerate([(1, "thé"), (1, "thé"), (1, "café")])]
    lines = ["~".join(map(str, row)) for row in [("session", "item", "time"), *rows, rows[2]]]
    (tmp_path / "log.csv").write_bytes("\n".join(lines).encode("latin-1"))
    command = ("prepare", tmp_path / "log.csv", "--out", tmp_path / "out", *COLUMNS, "--split", "none", "--replace")
    how = ("--encoding", "latin-1", "--delimiter", "~", "--validation", "none")
    assert ft.well(*command, *how, "--json").json["counts"]["all"]["events"] == 4
    steps = ("--repeats", "collapse", "--duplicates", "drop", "--memory-limit", "200MB", "--threads", "1")
    facts = ft.well(*command, *how, *steps, "--json").json
    assert [(step["name"], step["events"]) for step in facts["steps"]][:3] == [
        ("read", 4), ("duplicates", 3), ("repeats", 2),
    ]  # fmt: skip
    assert Prepared.open(tmp_path / "out").items.ids == ["thé", "café"]
    assert "'item'" in ft(*command, "--encoding", "latin-1").err  # nothing guesses at ~
    (tmp_path / "log.csv").write_text("\n".join(lines).replace("~", "\t"))
    assert ft.well(*command, "--validation", "none", "--delimiter", "tab", "--json").json["items"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--memory-limit", "much"), "expected a size such as '4GB'"),
        (("--threads", "0"), "a number of at least 1"),
        (("--encoding", "klingon"), "klingon"),
        (("--repeats", "drop"), "collapse"),
    ],
)
def test_options_of_reading_that_cannot_be(ft: Shell, made: Path, options: tuple[str, ...], said: str) -> None:
    ran = ft("prepare", made / "clicks.csv", "--out", made / "never", *COLUMNS, *options)
    assert (ran.status, ran.err.count("\n"), (made / "never").exists()) == (2, 1, False)
    assert said in ran.err


def test_options_have_the_defaults_of_python() -> None:
    ours = {**vars(options.Columns()), **vars(options.Steps()), **vars(options.Room())}
    theirs = inspect.signature(EventLog.read).parameters
    shared = set(ours) & set(theirs)
    assert {"encoding", "delimiter", "repeats", "duplicates", "memory_limit", "threads"} <= shared
    assert {name: ours[name] for name in shared - {"item"}} == {n: theirs[n].default for n in shared - {"item"}}


def test_errors_name_the_option_that_helps(ft: Shell, made: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("session,item,time\n1,a,1600000000\n1,,1600000001\n")
    command = ("prepare", made / "clicks.csv", "--out", tmp_path / "out", *COLUMNS)
    ours = ("--item", "item", "--order", "time", "--user", "user")
    for given, said in (
        ((*command, "--split", "last-session"), "(--user)"),
        ((*command, "--user", "user", "--split", "given"), "(--split-column)"),
        (("prepare", tmp_path / "bad.csv", "--out", tmp_path / "out", *COLUMNS, "--strict"), "(--strict)"),
        (("prepare", made / "clicks.csv", "--out", tmp_path / "out", *ours, "--split", "global-time:days=1"), "--time"),
        (("prepare", made / "clicks.csv", "--out", tmp_path / "out", *ours, "--gap", "30m"), "--time"),
        (("prepare", made / "clicks.csv", "--out", tmp_path / "out", *ours, "--split", "last-session"), "--gap 30m"),
        ((*command, "--names", "a,b"), "(--names)"),
    ):
        ran = ft(*given)
        assert (ran.status, said in ran.err) == (2, True), ran.err


def test_the_newest_tenth_is_the_test_unless_another_is_named(made: Path) -> None:
    manifest = Prepared.open(made / "clicks").manifest
    assert manifest["split"]["recipe"] == {"kind": "global-time", "fraction": 0.1, "by": "start"}
    assert manifest["validation"]["recipe"] == manifest["split"]["recipe"]
    counts = manifest["counts"]
    assert counts["test"]["events"] == pytest.approx(counts["all"]["events"] / 10, rel=0.1)


def test_a_split_or_none(ft: Shell, made: Path, tmp_path: Path) -> None:
    command = ("prepare", made / "clicks.csv", "--out", tmp_path / "out", *COLUMNS, "--json", "--replace")
    counts = ft.well(*command, "--split", "none", "--validation", "none").json["counts"]
    assert counts["train"] == counts["all"]
    assert ft.well(*command, "--split", "none").json["counts"]["validation"]["events"] > 0


def test_a_log_without_a_header_and_with_its_own_split(ft: Shell, tmp_path: Path) -> None:
    lines = [f"{part},{row},{session},{row % 3}" for row, (part, session) in enumerate([("a", 1)] * 4 + [("b", 2)] * 3)]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    ran = ft.well(
        *("prepare", tmp_path / "log.csv", "--out", tmp_path / "out", "--names", "part,place,session,item", "--json"),
        *("--session", "session", "--item", "item", "--order", "place", "--split-column", "part"),
        *("--split", "given:train=a,test=b"),
    )
    assert [ran.json["counts"][part]["events"] for part in ("train", "validation", "test")] == [4, 0, 3]


def test_titles_of_a_table_beside_the_log(ft: Shell, made: Path, tmp_path: Path) -> None:
    items = Prepared.open(made / "clicks").items.ids
    rows = [("item", "name", "price"), *((item, f"lamp {item}", 7) for item in items)]
    (tmp_path / "items.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    command = ("prepare", made / "clicks.csv", *COLUMNS, "--items", tmp_path / "items.csv", "--out")
    ran = ft.well(*command, tmp_path / "one", "--title", "name")
    assert "items.csv: 40 of 40 items described by title" in ran.out
    found = Prepared.open(tmp_path / "one").items
    assert found.columns == {"title": [f"lamp {item}" for item in found.ids]}
    ft.well(*command, tmp_path / "all")
    assert list(Prepared.open(tmp_path / "all").items.columns) == ["name", "price"]
    assert "no column 'titel'" in ft(*command, tmp_path / "never", "--title", "titel").err
    assert "--items" not in ft.well("replay", "--help").out


def test_a_recipe_of_ones_own(ft: Shell, made: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'title = "Mine"\n[[files]]\nfile = "clicks.csv"\n[read]\nitem = "item"\nsession = "session"\ntime = "time"\n'
        '[split]\nkind = "global-time"\nfraction = 0.2\n[counts]\nall = { events = 7 }\n'
    )
    command = ("prepare", made / "clicks.csv", "--recipe", tmp_path / "mine.toml", "--out", tmp_path / "out")
    shown = ft.well(*command).out
    events = Prepared.open(tmp_path / "out").manifest["counts"]["all"]["events"]
    lines = [line.split() for line in shown.splitlines() if line.startswith("all events")]
    assert lines[0] == ["all", "events", f"{events:,}", "7", "-"]
    ran = ft(*command, "--gap", "30m", "--replace")
    assert (ran.status, "stand in the recipe" in ran.err) == (2, True)


def test_words_of_splits() -> None:
    assert words.parts_of("last-two", None, frozenset()) == (splits.LastTwo(), None)
    assert words.parts_of(None, "none", frozenset()) == (splits.SessionOrder(fraction=0.1), None)
    assert words.parts_of(None, None, frozenset({"times"})) == (splits.GlobalTime(fraction=0.1),) * 2
    assert words.parts_of("ratio:train=0.8, plus_one=false", "last-item", frozenset()) == (
        splits.Ratio(train=0.8, plus_one=False),
        splits.LastItem(),
    )
    assert words.parts_of("global-time:at=2014-09-30", "none", frozenset())[0] == splits.GlobalTime(at="2014-09-30")
    with pytest.raises(ConfigError, match="did you mean 'last-item'"):
        words.parts_of("last-iten", None, frozenset())
    with pytest.raises(ConfigError, match=r"given, none$"):
        words.parts_of("none:days=1, x=2", None, frozenset())


def test_words_of_settings_protocols_parts_and_ids() -> None:
    assert words.settings(["a=1", "b = 2e-3", "c=true", "d=softmax", 'e="7"', "f=[1, 2]", "g=x=y"]) == {
        "a": 1, "b": 0.002, "c": True, "d": "softmax", "e": "7", "f": [1, 2], "g": "x=y",
    }  # fmt: skip
    assert words.protocol("per-step") == PerStep()
    assert words.protocol("last-item:unit=user,mask_seen=true") == LastItem(unit="user", mask_seen=True)
    assert (words.part("validation"), words.part("test")) == (VALIDATION, TEST)
    assert words.ids(["7", "x", "08"], Vocabulary([7, 8])) == [7, "x", "08"]
    assert words.ids(["7", "x"], Vocabulary(["7", "x"])) == ["7", "x"]
    for wrong in ("hidden_size", "=3"):
        with pytest.raises(ConfigError, match="key=value"):
            words.settings([wrong])


# Train


def test_train_does_what_python_does_and_tells_its_progress(ft: Shell, made: Path, tmp_path: Path) -> None:
    command = ("train", made / "clicks", "--out", tmp_path / "narm", *SMALL, "--set", "epochs=2", "--set", "seed=5")
    ran = ft.well(*command)
    assert ran.out == f"saved: {tmp_path / 'narm'}\n"
    assert [line.split()[:2] for line in ran.err.splitlines()] == [["pass", "1/2"], ["pass", "2/2"]]
    ours = Recommender("narm", **SETTINGS, seed=5).fit(Prepared.open(made / "clicks"))
    theirs = Recommender.load(tmp_path / "narm")
    history = ours.trained.items.ids[:3]
    assert theirs.recommend(history, 5) == ours.recommend(history, 5)
    facts = ft.well(*command, "--replace", "--json").json
    assert facts["saved"] == str(tmp_path / "narm")
    assert [one["epoch"] for one in facts["history"]] == [1, 2]
    assert facts["config"]["hidden_size"] == 8
    assert facts["trained_with"]["seed"] == 5


def test_a_run_that_is_stopped_goes_on_and_one_that_ended_begins_afresh(
    ft: Shell, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train", made / "clicks", "--out", tmp_path / "narm", *SMALL, "--set", "epochs=1")
    checkpoint = tmp_path / "narm.run" / "checkpoint.safetensors"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recommender, "save", interrupted)
        ran = ft(*command)
    assert (ran.status, checkpoint.exists(), (tmp_path / "narm").exists()) == (130, True, False)
    assert ran.err.endswith("interrupted; run the same command again and it goes on\n")
    assert "other settings" in ft(*command, "--set", "seed=1").err
    assert "pass 1/1" not in ft.well(*command).err  # nothing was left to do but to save
    assert not checkpoint.exists()
    assert (tmp_path / "narm.run" / "log.jsonl").read_text().count("\n") == 1
    assert "pass 1/1" in ft.well(*command, "--set", "seed=1", "--replace").err


def test_every_training_recipe_is_of_a_model_and_its_settings(made: Path) -> None:
    log = Prepared.open(made / "clicks")
    names = sorted(path.stem for path in (Path(__file__).parents[1] / "recipes/training").glob("*.toml"))
    assert {"gru4rec-paper", "gru4rec-bpr_max", "gru4rec-improved", "narm-paper"} <= {*names}
    for name in names:
        plan = RunRecipe.read(name)
        assert plan.about, name
        stages = {"before": {**plan.settings["before"], "epochs": 1}} if "before" in plan.settings else {}
        recommender = plan.recommender(epochs=1, **stages).fit(log)
        assert np.isfinite(recommender.result.history[0]["loss"]), name


def test_training_recipes(ft: Shell, made: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'model = "narm"\nrefit = true\n[settings]\nepochs = 1\nhidden_size = 6\nembedding_size = 4\n'
    )
    command = ("train", made / "clicks", "--out", tmp_path / "out", "--json", "--replace", "--recipe")
    facts = ft.well(*command, tmp_path / "run.toml", "--set", "hidden_size=5").json
    assert (facts["config"]["hidden_size"], facts["config"]["embedding_size"]) == (5, 4)
    assert facts["trained_with"]["refit"] is True
    facts = ft.well(*command, "narm-paper", *SMALL, "--set", "epochs=1").json
    assert (facts["trained_with"]["learning_rate"], facts["config"]["window"]) == (0.001, 19)
    assert "did you mean 'narm-paper'" in ft(*command, "narm-papers").err


def test_a_place_that_is_taken_is_refused_before_training(ft: Shell, made: Path) -> None:
    ran = ft("train", made / "clicks", "--out", made / "clicks.csv")
    assert (ran.status, "pass 1" in ran.err) == (2, False)
    assert "not saved from here" in ran.err
    for replace in ((), ("--replace",)):
        assert "not saved from here" in ft("train", made / "clicks", "--out", made / "clicks", *SMALL, *replace).err


def test_what_was_made_before_is_replaced_only_if_that_is_asked_for(ft: Shell, made: Path, tmp_path: Path) -> None:
    prepare = ("prepare", made / "clicks.csv", "--out", tmp_path / "out", *COLUMNS)
    train = ("train", made / "clicks", "--out", tmp_path / "pop", "--model", "pop")
    for command, what, file in (
        (prepare, "a prepared log", "out/manifest.json"),
        (train, "a recommender", "pop/recommender.json"),
    ):
        ft.well(*command)
        before = (tmp_path / file).stat()
        ran = ft(*command)
        assert (ran.status, ran.err.count("\n")) == (2, 1)
        assert f"{what} is there already; name another folder, or say --replace" in ran.err
        assert (tmp_path / file).stat() == before
        ft.well(*command, "--replace")
        assert (tmp_path / file).stat().st_ino != before.st_ino


# Evaluate, recommend


def test_evaluate_gives_the_numbers_of_python(ft: Shell, made: Path, tmp_path: Path) -> None:
    log = Prepared.open(made / "clicks")
    ours = Recommender.load(made / "narm").evaluate(log, cutoffs=(3, 20))
    command = ("evaluate", made / "narm", made / "clicks", "--cutoffs", 3, 20)
    ran = ft.well(*command, "--out", tmp_path / "ranks" / "narm.npz", "--json")
    assert {name: of["value"] for name, of in ran.json["metrics"].items()} == ours.means()
    assert ran.json["metrics"]["mrr@3"]["low"] == ours.intervals["mrr@3"][0]
    assert Evaluation.load_ranks(tmp_path / "ranks" / "narm.npz").means() == ours.means()
    assert ft.well(*command).out.strip() == ours.table()
    assert ft.well(*command[:-2], "3,20").out.strip() == ours.table()
    assert "'x' is not a whole number" in ft(*command[:-2], "3,x").err


def test_evaluate_looks_at_the_lists_if_asked(ft: Shell, made: Path) -> None:
    ours = Recommender.load(made / "pop").evaluate(Prepared.open(made / "clicks"), cutoffs=(3,), lists=True)
    command = ("evaluate", made / "pop", made / "clicks", "--cutoffs", 3, "--threads", 1)
    found = ft.well(*command, "--lists", "--json").json
    assert found["coverage"] == ours.facts.coverage == pytest.approx(3 / 40, abs=1 / 40)
    assert {name: of["value"] for name, of in found["metrics"].items()} == ours.means()
    assert {"popularity@3", "arp@3", "repeats@3"} <= set(found["metrics"])
    plain = ft.well(*command, "--json").json
    assert (plain["coverage"], "arp@3" in plain["metrics"]) == (None, False)
    assert "coverage@3" in ft.well(*command, "--lists").out
    assert "threads = 0; give at least 1" in ft(*command[:-1], 0).err


def test_evaluate_by_other_protocols_and_parts(ft: Shell, made: Path) -> None:
    log = Prepared.open(made / "clicks")
    words = "last-item:unit=user,mask_seen=true"
    ran = ft.well("evaluate", made / "pop", made / "clicks", "--protocol", words, "--part", "validation", "--json")
    ours = Recommender.load(made / "pop").evaluate(
        log, protocol=LastItem(unit="user", mask_seen=True), part=VALIDATION, cutoffs=(5, 10, 20)
    )
    assert {name: of["value"] for name, of in ran.json["metrics"].items()} == ours.means()
    assert (ran.json["part"], ran.json["mask_seen"]) == ("validation part", True)


def test_recommend_by_raw_ids_with_titles_and_reasons(ft: Shell, made: Path) -> None:
    ours = Recommender.load(made / "narm")
    history = [int(raw) for raw in ours.trained.items.ids[:4]]
    found, weights = ours.recommend(history, 5), ours.explain(history)["attention"]
    command = ("recommend", made / "narm", *history, "no such thing", "-k", 5, "--explain")
    facts = ft.well(*command, "--json").json
    assert (facts["items"], facts["scores"], facts["skipped"]) == (found.ids, found.scores, ["no such thing"])
    assert facts["titles"] == [f"thing no. {raw}" for raw in found.ids]
    assert facts["because"] == {"attention": [list(pair) for pair in weights]}
    assert ft.well(*command, "--json", "--device", "cpu").json == facts
    assert "device = 'abacus' cannot be used here" in ft(*command, "--device", "abacus").err
    lines = ft.well(*command).out.splitlines()
    assert lines[0] == f"  1. thing no. {found.ids[0]}  ({found.scores[0]:.3f})"
    assert lines[5] == "Not known, left out of the history: no such thing."
    most = sorted(weights, key=lambda pair: -pair[1])[:3]
    assert lines[-3:] == [f"{weight:6.0%}  thing no. {raw}" for raw, weight in most]


def test_recommend_leaves_out_the_history_if_asked(ft: Shell, made: Path) -> None:
    ours = Recommender.load(made / "narm")
    history = ours.trained.items.ids[:4]
    facts = ft.well("recommend", made / "narm", *history, "-k", 36, "--leave-out-seen", "--json").json
    assert facts["items"] == ours.recommend(history, 36, leave_out_seen=True).ids
    assert set(facts["items"]).isdisjoint(history)
    assert not set(ft.well("recommend", made / "narm", *history, "-k", 40, "--json").json["items"]).isdisjoint(history)


def test_recommend_after_nothing_known_says_so(ft: Shell, made: Path) -> None:
    lines = ft.well("recommend", made / "narm", "tea", "-k", 3).out.splitlines()
    assert lines[3:] == ["Nothing of the history is known: this is the answer to an empty one."]
    assert ft.well("recommend", made / "narm", "-k", 3).out.splitlines() == lines[:3]
    told = ft.well("recommend", made / "narm", "-k", 3, "--user", "ann").out.splitlines()
    assert told[3:] == ["No history was given, and this model knows no users: this is the answer to somebody new."]


def test_recommend_says_when_there_is_no_more_and_when_nothing_explains(ft: Shell, made: Path) -> None:
    items = Recommender.load(made / "pop").trained.items
    ran = ft.well("recommend", made / "pop", items.ids[0], "-k", 1000, "--explain")
    assert f"No more than {len(items)} of the {len(items)} known items" in ran.out
    assert ran.out.rstrip().endswith("Nothing in this history explains the list.")
    assert len(ft.well("recommend", made / "pop", "--json").json["items"]) == 10


def test_recommend_says_that_a_user_is_new(ft: Shell, tmp_path: Path) -> None:
    columns = {name: shop(n_users=30, n_items=20).columns[name] for name in ("user", "item", "time")}
    log = EventLog.read(columns, user="user", item="item", time="time")
    Recommender("bpr-mf", epochs=1).fit(log.prepare()).save(tmp_path / "mf")
    known = ft.well("recommend", tmp_path / "mf", "--user", columns["user"][0]).out
    new = ft.well("recommend", tmp_path / "mf", "--user", "nobody").out
    assert "User nobody was not in training: this is the answer to somebody new." in new
    assert "was not in training" not in known


def test_one_item_is_one_line() -> None:
    assert answers.on_one_line("naïve ☃ 日本") == "naïve ☃ 日本"
    assert answers.on_one_line("two\nlines") == r"'two\nlines'"
    assert answers.on_one_line(7) == "7"


# The rest, and what all have in common


def test_models_and_doctor(ft: Shell) -> None:
    found = ft.well("models", "--json").json
    assert list(found) == list(MODELS)
    assert found["narm"]["settings"]["window"]["default"] == 19
    assert "CIKM 2017" in ft.well("models").out
    facts = ft.well("doctor", "--json").json
    assert (facts["foretaste"], facts["numpy"]) == (foretaste.__version__, np.__version__)


def test_one_model_with_all_its_settings(ft: Shell) -> None:
    found = ft.well("models", "narm", "--json").json
    assert (found["model"], found["settings"]["window"]["default"]) == ("narm", 19)
    assert found["training"]["learning_rate"] == {"default": 0.001, "usual": 0.001, "about": "Rate at the start."}
    assert list(found["training"]) == list(TrainConfig.model_fields)
    dman = ft.well("models", "dman", "--json").json["training"]["batch"]
    assert (dman["default"], dman["usual"]) == (2560, 512)
    text = ft.well("models", "dman").out
    assert "\n  batch = 2560  (whole number >= 1; usually 512)\n      Events a step, about, and" in text
    assert "\n  optimizer = adam  (adam, adagrad, sgd)\n      The optimiser.\n" in text
    assert "takes no settings of training" in ft.well("models", "pop").out
    assert "did you mean 'narm'" in ft("models", "narn").err


def test_recipes(ft: Shell, made: Path, tmp_path: Path) -> None:
    found = ft.well("recipes", "--json").json
    assert found["data"]["diginetica"]["files"] == [["diginetica.train.parquet"], ["diginetica.test.parquet"]]
    assert found["training"]["narm-paper"]["model"] == "narm"
    text = ft.well("recipes").out
    assert all(f"\n{name} " in text for name in (*found["data"], *found["training"]))
    both = ft.well("recipes", "narm-diginetica", "--json").json
    assert (both["data"]["files"][0]["file"], both["training"]["settings"]["epochs"]) == (["train-item-views.csv"], 6)
    lines = ft.well("recipes", "ml-100k").out.splitlines()
    assert lines[0] == "ml-100k: MovieLens 100K, complete, with times and titles"
    assert "terms: GroupLens: research only, no redistribution, no commercial use" in lines
    assert "files: ml-100k.parquet or ml-100k.csv; of the items ml-100k.items.parquet or ml-100k.items.csv" in lines
    assert "from: MovieLens 100K (grouplens.org/datasets/movielens/100k), with the names of the columns below." in lines
    assert [line.split() for line in lines if line.startswith("read events")] == [["read", "events", *["100,000"] * 2]]
    assert "  learning_rate = 0.006" in ft.well("recipes", "narm-diginetica").out.splitlines()
    (tmp_path / "mine.toml").write_text('model = "pop"\nabout = "Mine."\n')
    assert ft.well("recipes", tmp_path / "mine.toml").out.splitlines() == ["mine: a training of pop", "Mine."]
    assert "did you mean 'ml-100k'" in ft("recipes", "ml-100").err


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare", "clicks.csv", "--out", "again", *COLUMNS, "--replace"),
        ("train", "clicks", "--out", "again-pop", "--model", "pop", "--replace"),
        ("evaluate", "pop", "clicks"),
        ("recommend", "narm", "1", "--explain"),
        ("models",),
        ("models", "narm"),
        ("models", "pop"),
        ("recipes",),
        ("recipes", "narm-diginetica"),
        ("inspect", "clicks.csv", *COLUMNS),
        ("inspect", "clicks"),
        ("inspect", "narm"),
        ("doctor",),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_json_is_one_object_on_standard_output(
    ft: Shell, made: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    ran = ft.well(*arguments, "--json")
    assert isinstance(ran.json, dict)
    assert ran.out.count("\n") == 1
    text = ft.well(*arguments).out
    assert not text.startswith("{")


@pytest.mark.parametrize(
    ("arguments", "said", "command"),
    [
        (("nonsense",), 'Unknown command "nonsense"', ""),
        (("train", "x"), "--out", "train "),
        (("train", "x", "--out", "y", "--fast"), "--fast", "train "),
        (("recommend", "x", "-k", "many"), "many", "recommend "),
        (("models", "narm", "much"), "much", "models "),
        (("recommend",), "RUN", "recommend "),
        (("store", "sweep", "x"), "--older-than", "store sweep "),
    ],
)
def test_a_slip_of_the_keyboard_is_one_line(ft: Shell, arguments: tuple[str, ...], said: str, command: str) -> None:
    ran = ft(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert said in ran.err
    assert ran.err.endswith(f" (see foretaste {command}--help)\n")


def test_debug_shows_where_an_error_came_from() -> None:
    with pytest.raises(DataError, match="no such file"):
        cli.main(["prepare", "nothing.csv", "--out", "x", *COLUMNS, "--debug"])


def test_how_it_ends() -> None:
    assert endings.said(None) == endings.said(BrokenPipeError()) == ("", 0)
    again = "interrupted; run the same command again and it goes on"
    for command in ("train", "compare", "tune", "reproduce"):
        assert endings.said(KeyboardInterrupt(), command) == (again, 130)
    for command in ("prepare", "evaluate", "demo", ""):
        assert endings.said(KeyboardInterrupt(), command) == ("interrupted", 130)
    assert endings.said(KeyboardInterrupt("after 3 events"), "replay") == ("after 3 events", 130)
    assert endings.said(ConfigError("a\nb")) == ("a\nb", 2)
    assert endings.said(ConfigError("a\nb\nc\nd")) == ("a\nb (and 2 more)", 2)
    assert endings.said(MemoryError("no room"))[1] == 2
    assert "smaller sizes" in endings.said(RuntimeError("DefaultCPUAllocator: can't allocate memory"))[0]
    assert endings.said(PermissionError(13, "Permission denied", "x.csv")) == ("x.csv: Permission denied", 2)
    text, status = endings.said(IndexError("list index out of range"))
    assert (status, text.count("\n")) == (1, 1)
    assert "unexpected IndexError: list index out of range" in text


def started(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "foretaste", *arguments], stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        process = started("models", stdout=full)
    _, err = process.communicate()
    more = "; free some space, or choose another folder"
    assert (process.returncode, err) == (2, f"foretaste: output: No space left on device{more}\n")


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise there")
def test_a_training_goes_on_when_nobody_reads_along(ft: Shell, made: Path, tmp_path: Path) -> None:
    process = started("train", str(made / "clicks"), "--out", str(tmp_path / "narm"), *SMALL, "--set", "epochs=3")
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait() == 0
    assert Recommender.load(tmp_path / "narm").trained.facts["history"][-1]["epoch"] == 3


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise there")
def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    process = started("models", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert (process.stderr.read(), process.wait()) == ("", 0)
    process.stderr.close()


# The demo


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo with a shop and a model that train in a moment."""
    log = shop(n_users=300, n_items=60, seed=1).log()
    monkeypatch.setattr(demo, "_shop", lambda: log)
    sizes = {"embedding_size": 8, "hidden_size": 8, "epochs": 1}
    monkeypatch.setattr(demo, "NARM_SETTINGS", {**demo.NARM_SETTINGS, **sizes})


@pytest.mark.usefixtures("small_demo")
def test_the_demo_shows_its_results_on_standard_output(ft: Shell) -> None:
    ran = ft.well("demo", "--simulated")
    lines = ran.out.splitlines()
    heads = [line for line in lines if "recall@20" in line and "mrr@20" in line and "95 % interval" in line]
    assert len(heads) == 1
    assert [line.split()[0] for line in lines[lines.index(heads[0]) + 1 :][:2]] == ["POP", "NARM"]
    assert [f"{place:3}." for place in range(1, 11)] == [line[:4] for line in lines if line[3:4] == "."]
    assert len(lines[lines.index(next(line for line in lines if "weighed most" in line)) + 1 :]) == 3
    assert "pass 1/1" in ran.err
    assert not any("pass" in line for line in lines)
    facts = ft.well("demo", "--simulated", "--json").json
    recall = facts["models"]["narm"]["metrics"]["recall@20"]
    assert f"{100 * recall['value']:.2f} %" in lines[lines.index(heads[0]) + 2]
    assert len(facts["recommendations"]["items"]) == 10
    assert not set(facts["recommendations"]["items"]) & set(facts["history"])


@pytest.mark.usefixtures("small_demo")
def test_the_demo_without_its_data_takes_the_shop_and_says_so(ft: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise DataError("MovieLens 100K is not to be had: no network")

    monkeypatch.setattr("foretaste.data.movielens.movielens_100k", nowhere)
    ran = ft.well("demo")
    assert "not to be had: no network.\nA simulated shop takes its place." in ran.err
    assert ran.out.startswith("A simulated shop: ")
