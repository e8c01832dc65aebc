"""`foretaste reproduce`: a table is made from a log to the ledger, which says what is missing."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from foretaste import shop
from foretaste.commands.reproduce import _state
from foretaste.compare.grid import Grid, Row
from foretaste.compare.run import alone
from foretaste.compare.summary import Line, Summary
from foretaste.compare.tables import names
from tests.shell import Shell


@pytest.fixture
def ft(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_a_table_from_a_log_to_the_ledger(tmp_path: Path, ft: Shell) -> None:
    columns = dict(shop(n_users=40, n_items=30, seed=1).columns)
    with (tmp_path / "clicks.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(columns)
        lines.writerows(zip(*columns.values(), strict=True))
    data = tmp_path / "small.toml"
    data.write_text(
        'title = "a small shop"\n[[files]]\nfile = "clicks.csv"\n'
        '[read]\nuser = "user"\nsession = "session"\nitem = "item"\ntime = "time"\n'
        '[split]\nkind = "global-time"\nfraction = 0.2\n[validation]\nkind = "global-time"\nfraction = 0.2\n'
    )
    own = tmp_path / "own.toml"
    own.write_text(
        f'paper = "Nobody, Table 1"\ndata = "{data}"\nask = "per-step"\nmetric = "recall@5"\nshow = ["recall@5"]\n'
        "cutoffs = [5]\ntries = [{ learning_rate = 0.01 }]\n[settings]\nepochs = 1\n"
        '[[row]]\nname = "pop"\nmodel = "pop"\npublished = "12.34"\n'
        '[[sweep]]\nname = "D {}"\nmodel = "fmc"\nsetting = "embedding_size"\nvalues = [4, 8]\n'
    )
    out = tmp_path / "out"
    refused = ft("reproduce", own, "--out", out)
    assert refused.status == 2
    assert "a small shop" in refused.err
    some = ft.well("reproduce", own, "--data", tmp_path, "--out", out, "--rows", "pop,D 8")
    assert "| 12.34 |" in some.out
    assert "| D 8 |" in some.out
    assert "| D 4 |" not in some.out
    assert "| D 4 |" in ft.well("reproduce", own, "--out", out).out
    gone = out / "own" / "cells" / "D 4-seed0.json"
    gone.unlink()
    again = ft.well("reproduce", own, "--data", tmp_path, "--out", out, "--rows", "pop")
    assert "| D 4 |" not in again.out
    assert f"{out / 'data' / 'small'}: was prepared before and is used" in again.err
    assert not gone.exists()
    before = (out / "own" / "grid.json").read_text()
    with alone(out / "own"):
        assert "another run is at work here" in ft("reproduce", own, "--out", out, "--seeds", "3").err
    assert (out / "own" / "grid.json").read_text() == before
    data.write_text(data.read_text().replace("fraction = 0.2", "fraction = 0.3", 1))
    assert "small.toml is now (split differs); delete it" in ft("reproduce", own, "--out", out, "--rows", "pop").err
    data.write_text(data.read_text().replace("fraction = 0.3", "fraction = 0.2").replace("a small shop", "a shop"))
    unknown = ft("reproduce", own, "--out", out, "--rows", "pup")
    assert unknown.status == 2
    assert "did you mean 'pop'" in unknown.err


def test_a_setting_that_a_model_does_not_have_is_refused_before_anything_is_made(tmp_path: Path, ft: Shell) -> None:
    own = tmp_path / "own.toml"
    own.write_text('like = "narm/diginetica"\n[settings]\nhidden_size = 50\n')
    assert "row 'bpr-mf': model 'bpr-mf' has no setting 'hidden_size'" in ft("reproduce", own, "--out", tmp_path).err
    assert [path.name for path in tmp_path.iterdir()] == ["own.toml"]


def test_the_list_and_the_ledger_say_what_is_missing(tmp_path: Path, ft: Shell) -> None:
    ledger = tmp_path / "ledger.md"
    told = ft.well("reproduce", "--list", "--out", tmp_path, "--ledger", ledger, "--json").json
    assert told.keys() == set(names())
    assert told["rum/instant-video"]["state"] == "needs data"
    assert len(told["rum/instant-video"]["rows"]) == 17
    assert set(told["rum/instant-video"]["rows"].values()) == {"needs data"}
    assert "not made yet; its log: amazon-instant-video-rum, " in ledger.read_text()
    assert "compared on the validation part alone" in ledger.read_text()
    assert told["dman/xlong"]["data"] == "dman-xlong"


def test_a_row_that_lacks_a_seed_is_not_done() -> None:
    line = Line("narm", "narm", "", ({"seed": 0},), {1: "its process was ended by SIGKILL"})
    grid = Grid(title="t", rows=(Row(name="narm", model="narm"),), seeds=(0, 1))
    failed, whole = Summary(grid, (line,), "narm"), Summary(grid, (replace(line, failures={}),), "narm")
    assert _state(failed, "narm", "ready", 1).startswith("1 of 2 seeds, the others failed (its")
    assert _state(whole, "narm", "ready", 1) == "done"
    assert _state(whole, "narm", "ready", 3) == "1 of 3 seeds"


def test_an_unknown_tracker_is_refused_before_anything_is_made(tmp_path: Path, ft: Shell) -> None:
    ran = ft("reproduce", "narm/diginetica", "--out", tmp_path / "out", "--track", "mlflo:runs")
    assert ran.status == 2
    assert "'mlflo' is no tracker; did you mean 'mlflow'" in ran.err
    assert not (tmp_path / "out").exists()
