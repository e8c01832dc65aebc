"""Every model by the same commands: prepare, train, evaluate, recommend with reasons; and what a log must have."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste import EventLog, Recommender, cli, shop
from foretaste.data.sequences import TEST, TRAIN
from foretaste.data.splits import LastTwo
from foretaste.errors import ConfigError, NeedsError
from foretaste.models import MODELS, model_class
from foretaste.models.contract import SequenceModel
from tests.shell import Shell
from tests.variants import VARIANTS

COLUMNS = ("--user", "user", "--session", "session", "--item", "item", "--time", "time")
ONE_PASS = ("--set", "epochs=1")
REASONS: dict[str, list[str]] = {
    **{key: [] for key in ["pop", "bpr-mf", "gru4rec", "caser", "nextitnet", "wavenet", "dream"]},
    **{key: ["attention", "votes"] for key in ["s-pop", "markov", "sr", "ar", "item-knn"]},
    "rum-feature": ["features", "values"],
    "lsamn": ["attention", "long_short"],
    "dman": ["attention", "gate", "memory"],
    "fpmc": ["attention", "chain", "taste"],
    "fmc": ["attention", "chain"],
    "shan": ["attention", "long_attention", "long_short"],
    "sdm": ["attention", "gate", "self_attention"],
    "hpmn": ["slots"],
}
"""The parts of an explanation, by model; the others have the attention alone."""
LOOKED = """
title = "The shop's log with dwell"
[[files]]
file = "clicks.csv"
[read]
user = "user"
session = "session"
item = "item"
time = "time"
[sessions]
add = ["dwell"]
[split]
kind = "session-order"
fraction = 0.2
"""
BESIDE = ("--user", "3", "--times", "100", "160", "9000", "--sessions", "a", "a", "b")


def made_causal(name: str, variant: dict[str, object]) -> bool:
    """Whether a variant sees nothing of what is still to come; the others need a column that this log lacks."""
    return model_class(name)(3, model_class(name).Config.of(variant), 2).causal


@pytest.fixture
def ft(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop's log with users, sessions and times, prepared; and the same with the time until the next event."""
    folder = tmp_path_factory.mktemp("every")
    columns = dict(shop(n_users=60, n_items=40, seed=3).columns)
    with (folder / "clicks.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(columns)
        lines.writerows(zip(*columns.values(), strict=True))
    (folder / "looked.toml").write_text(LOOKED)
    for name, how in {"clicks": COLUMNS, "looked": ("--recipe", str(folder / "looked.toml"))}.items():
        with pytest.raises(SystemExit) as stop:
            cli.main(["prepare", str(folder / "clicks.csv"), "--out", str(folder / name), *how])
        assert not stop.value.code
    return folder


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, {}) for name in MODELS]
    + [  # the battery has them too, but not by the commands
        pytest.param(name, variant, id=f"{name}-{variant}", marks=pytest.mark.slow)
        for name in MODELS
        for variant in VARIANTS[name]
        if variant and model_class(name).Config.of(variant) != model_class(name).Config()
    ],
)
def test_from_a_log_to_a_recommendation_with_reasons(
    name: str, variant: dict[str, object], made: Path, tmp_path: Path, ft: Shell
) -> None:
    out, clicks = tmp_path / name, made / "clicks"
    passes = ONE_PASS if model_class(name).learns == "gradient" else ()
    chosen = [word for key, value in variant.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    command = ("train", clicks, "--out", out, "--model", name, *passes, *chosen, "--json")
    if not made_causal(name, variant):
        assert "dwell" in ft(*command).err
        told_too_much(("train", made / "looked", *command[2:]), out, made / "looked", ft)
        return
    trained = ft.well(*command)
    assert trained.json["model"] == name
    found = ft.well("evaluate", out, clicks, "--protocol", "product", "--json").json
    assert 0 <= found["metrics"]["recall@20"]["value"] <= 1
    assert found["cases"] > 50
    history = [str(raw) for raw in Recommender.load(out).trained.items.ids[:3]]
    told = ft.well("recommend", out, *history, *BESIDE, "-k", "4", "--explain", "--json").json
    assert len(told["items"]) == 4
    assert told["scores"] == sorted(told["scores"], reverse=True)
    parts = {*REASONS.get(name, ["attention"])}
    assert variant or told["because"].keys() == parts
    for pair in told["because"].get("attention", []):
        assert str(pair[0]) in history
        assert variant.get("attention") == "raw" or 0 <= pair[1] <= 1 + 1e-6
    text = ft.well("recommend", out, *history, *BESIDE, "-k", "4", "--explain").out
    assert "Traceback" not in text
    for part in told["because"].keys() - {"attention"}:
        assert re.search(rf"^  {part}( = |: | 1)", text, re.MULTILINE), text
    assert [line[:4] for line in text.splitlines()[:4]] == ["  1.", "  2.", "  3.", "  4."]


def told_too_much(command: tuple[object, ...], out: Path, looked: Path, ft: Shell) -> None:
    """With the column it trains, is measured and marked; it is not asked what is to come, and not measured as if."""
    ft.well(*command)
    found = ft.well("evaluate", out, looked, "--protocol", "last-item", "--json").json
    assert 0 <= found["metrics"]["recall@20"]["value"] <= 1
    assert any("no service can reach this figure" in note for note in found["notes"])
    refused = ft("evaluate", out, looked, "--protocol", "product")
    assert (refused.status, refused.out) == (2, "")
    assert "told something of the next event (causal = False)" in refused.err
    history = [str(raw) for raw in Recommender.load(out).trained.items.ids[:3]]
    refused = ft("recommend", out, *history, *BESIDE)
    assert (refused.status, refused.out) == (2, "")
    assert "told something of the next event (causal = False)" in refused.err


def test_the_papers_mode_by_the_commands(made: Path, tmp_path: Path, ft: Shell) -> None:
    test_from_a_log_to_a_recommendation_with_reasons("asars", {"mode": "paper"}, made, tmp_path, ft)


@pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).learns == "gradient"])
def test_another_loss_needs_nothing_else_said_and_l2_is_taken_or_refused(name: str) -> None:
    """The recipe's negatives belong to the recipe's loss. Not every model has weights of one item alone."""
    exact = Recommender(name, loss="softmax").training
    assert (exact.loss, exact.negatives, exact.loss_options) == ("softmax", 0, {})
    recipe = Recommender(name).training
    if recipe.negatives:
        assert Recommender(name, loss="top1").training.negatives == recipe.negatives
    with pytest.raises(ConfigError, match="draws no items: leave negatives at 0"):
        Recommender(name, loss="softmax", negatives=3)
    names = {name: name for name in ("user", "session", "item", "time")}
    log = EventLog.read(shop(n_users=30, n_items=30, seed=1).columns, **names).prepare()
    recommender = Recommender(name, l2=0.1, epochs=1)
    if model_class(name).owned is not SequenceModel.owned:
        recommender.fit(log)
        return
    with pytest.raises(ConfigError, match=r"l2 = 0.1: .* leave l2 at 0, and set penalties"):
        recommender.fit(log)


@pytest.mark.parametrize("name", MODELS)
def test_a_log_that_lacks_what_a_model_needs_is_refused_before_training(name: str) -> None:
    """Sessions of items and nothing else: each model either takes it, or says by name what is missing."""
    source = {"s": [1, 1, 2, 2, 3, 3], "i": list("abacbc"), "n": list(range(6))}
    log = EventLog.read(source, session="s", item="i", order="n").prepare()
    recommender = Recommender(name, **({} if name == "pop" else {"epochs": 1}))
    missing = sorted(model_class(name).needs_of(recommender.config) - {"sessions"})
    if not missing:
        recommender.fit(log)
        return
    with pytest.raises(NeedsError, match=f"model '{name}' needs .*{missing[0]}"):
        recommender.fit(log)


@pytest.mark.parametrize(("name", "settings"), [("lsamn", {}), ("asars", {"temporal": True})])
def test_a_log_without_sessions_is_refused_before_training(name: str, settings: dict[str, Any]) -> None:
    source = {"u": [1, 1, 1, 2, 2, 2], "i": list("abacbc"), "t": list(range(6))}
    log = EventLog.read(source, user="u", item="i", time="t").prepare()
    with pytest.raises(NeedsError, match=f"model '{name}' needs sessions"):
        Recommender(name, epochs=1, **settings).fit(log)


@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in MODELS), ("asars", {"temporal": True})])
def test_the_test_part_teaches_nothing(name: str, settings: dict[str, Any]) -> None:
    """Other items and times in it: the same bins, counts, means, weights and number of passes, to the last bit."""
    prepared = shop(n_users=60, n_items=40, seed=3).log().prepare(LastTwo())
    log = prepared.sequences
    hidden, times = log.part == TEST, log.times
    assert hidden.sum() > 50
    assert times is not None
    items = np.where(hidden, (log.items + 6) % 40 + 1, log.items).astype(np.int32)
    passes = {} if model_class(name).learns == "counts" else {"epochs": 2}
    weights = [Recommender(name, **settings, **passes).fit(prepared).trained.model.state_dict()]
    prepared.sequences = replace(log, items=items, times=np.where(hidden, 3 * times - 2 * times.min(), times))
    weights.append(Recommender(name, **settings, **passes).fit(prepared).trained.model.state_dict())
    assert weights[0].keys() == weights[1].keys()
    for key, weight in weights[0].items():
        assert torch.equal(weight, weights[1][key]), key


def unkind_log() -> EventLog:
    """A session of 700 events at one moment, a user with one event, two short sessions with enormous and odd dwells."""
    rng = np.random.default_rng(0)
    size = 700
    user = ["long"] * size + ["once"] + ["other"] * 6
    session = ["s0"] * size + ["s1"] + ["s2"] * 3 + ["s3"] * 3
    start = 1_600_000_000
    time = [start] * size + [start + 500] + [start + 1000] * 2 + [start + 1001] + [start + 10**8] * 3
    dwell = [0] * size + [-5, 10**12, -(10**9), 3, 0, 10**9, 7]
    item = [f"i{n}" for n in rng.integers(0, 30, size)] + ["i3", "i1", "i2", "i3", "i4", "i4", "i4"]
    source = {"user": user, "session": session, "time": time, "item": item, "dwell": dwell}
    return EventLog.read(source, user="user", session="session", time="time", item="item", columns=("dwell",))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in MODELS),
        ("asars", {"mode": "paper"}),
        ("asars", {"temporal": True}),
        ("asars", {"query": "last"}),
        ("dman", {"nran": True}),
        ("dman", {"memory": "fifo"}),
    ],
)
def test_an_unkind_log_trains_and_answers(name: str, settings: dict[str, Any]) -> None:
    """Equal times, a session beyond every window, a user with one event, more slots than events, odd dwells."""
    prepared = unkind_log().prepare()
    passes = {} if name == "pop" else {"epochs": 1, **({"targets": "event"} if name == "lsamn" else {})}
    recommender = Recommender(name, **settings, **passes).fit(prepared)
    found = recommender.evaluate(prepared, protocol="living", part=TRAIN)
    assert np.isfinite(list(found.means().values())).all()
    if recommender.trained.model.causal:
        beside: dict[str, Any] = {"user": "nobody", "times": [7, 7], "sessions": ["a", "b"]}
        unknown = recommender.recommend(["never", "heard of"], 5, **beside)
        assert unknown.skipped == ["never", "heard of"]
        assert len(unknown) == 5
        assert np.isfinite(unknown.scores).all()
        assert recommender.explain(["never", "heard of"], **beside) == {}


def test_times_and_sessions_must_be_as_many_as_the_events(made: Path, ft: Shell) -> None:
    ft.well("train", made / "clicks", "--out", made / "counted", "--model", "pop")
    ran = ft("recommend", made / "counted", "1", "2", "--times", "5")
    assert (ran.status, ran.out) == (2, "")
    assert "--times: 1 given, and the history has 2 items" in ran.err
    command = ("recommend", made / "counted", "1", "2", "--json", "--times")
    assert ft.well(*command, "5", "6.5").json == ft.well(*command, "5", "6").json
    with pytest.raises(ConfigError, match="2 events and 3 sessions"):
        Recommender.load(made / "counted").recommend(["1", "2"], sessions=["a", "b", "c"])
