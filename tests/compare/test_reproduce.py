"""The papers' tables: every file is sound, and one is made from a log to the ledger."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from foretaste import Recommender, shop
from foretaste.compare.tables import names, table
from foretaste.data import datasets
from foretaste.errors import ConfigError
from foretaste.words import protocol
from tests.shell import Shell


@pytest.fixture
def ft(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.mark.parametrize("name", names())
def test_every_table_is_sound(name: str) -> None:
    wanted = table(name)
    grid = wanted.grid()
    datasets.recipe(wanted.data)
    for word in (grid.ask, grid.choose or grid.ask, *grid.also.values()):
        protocol(word)
    for row in grid.rows:
        for change in row.tries or ({},):
            Recommender(row.model, **{**row.settings, **change})
        assert "," not in row.name  # --rows one,two


def test_what_the_papers_print_stands_beside_its_row() -> None:
    assert table("narm/yoochoose1_64").grid().row("hybrid-100").published == "68.32 / 28.76"
    assert table("dman/movielens-1m").grid().row("dman").published == "25.18 / 53.24 / 22.03"
    assert table("dman/movielens-1m").grid().row("sdm").published == "23.42 / 51.26 / 20.44"
    starred = table("dman/movielens-1m-last-segment").grid()
    assert "latest=20" in starred.ask
    assert starred.row("gru4rec").published == "17.69 / 43.13 / 16.90"
    assert table("rum/instant-video").grid().row("dream").published == "1.312 / 1.652 / 1.342 / 6.097 / 1.401"
    curve = [row.settings["alpha"] for row in table("rum/instant-video-curves").grid().rows if "alpha" in row.settings]
    assert curve == [n / 10 for n in range(11)] * 2
    with pytest.raises(ConfigError, match="did you mean 'rum/instant-video'"):
        table("rum/instantvideo")


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
    assert "| D 4 |" not in ft.well("reproduce", own, "--out", out, "--rows", "pop").out
    assert not gone.exists()
    unknown = ft("reproduce", own, "--out", out, "--rows", "pup")
    assert unknown.status == 2
    assert "did you mean 'pop'" in unknown.err


def test_the_list_and_the_ledger_say_what_is_missing(tmp_path: Path, ft: Shell) -> None:
    ledger = tmp_path / "ledger.md"
    told = ft.well("reproduce", "--list", "--out", tmp_path, "--ledger", ledger, "--json").json
    assert told.keys() == set(names())
    assert told["rum/instant-video"]["state"] == "needs data"
    assert len(told["rum/instant-video"]["rows"]) == 14
    assert set(told["rum/instant-video"]["rows"].values()) == {"needs data"}
    assert "not made yet; its log: amazon-instant-video-rum, " in ledger.read_text()


def test_an_unknown_tracker_is_refused_before_anything_is_made(tmp_path: Path, ft: Shell) -> None:
    ran = ft("reproduce", "narm/diginetica", "--out", tmp_path / "out", "--track", "mlflo:runs")
    assert ran.status == 2
    assert "'mlflo' is no tracker; did you mean 'mlflow'" in ran.err
    assert not (tmp_path / "out").exists()
