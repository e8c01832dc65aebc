"""The search of a model's space, with a function in place of trainings: the budget, the first point, kills, stops."""

from __future__ import annotations

import builtins
import math
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from foretaste.compare.grid import Row
from foretaste.compare.search import Settings, Stop, Trial, _Study, best_of, exactly, named, search
from foretaste.compare.trials import space_of
from foretaste.errors import ConfigError, ForetasteError, TrainingError
from foretaste.models import MODELS, model_class
from foretaste.recommender import Recommender
from foretaste.spaces import Between, OneOf, Space

pytest.importorskip("optuna")

SPACE: Space = {"rate": Between(1e-3, 1e-1), "size": OneOf(8, 16, 32)}
NOW = {"rate": 0.02, "size": 16}


def bowl(change: Settings, stop: Stop) -> Trial:
    """Best at rate 0.01 and size 32."""
    score = -abs(math.log10(change["rate"]) + 2) - abs(change["size"] - 32) / 32
    return Trial(dict(change), score, best_epoch=1, passes=1)


def test_the_first_point_is_the_settings_as_they_are_and_the_budget_is_kept(tmp_path: Path) -> None:
    found = search(SPACE, NOW, 12, bowl, tmp_path / "journal", seed=1)
    assert len(found) == 12
    assert found[0].change == NOW
    assert all(1e-3 <= trial.change["rate"] <= 1e-1 for trial in found)
    assert len({named(trial.change) for trial in found}) == 12
    assert best_of(found).score > found[0].score
    assert best_of(found).change["size"] == 32


@pytest.mark.parametrize("seed", [20260101, 2**40, -1])
def test_any_seed_will_do(tmp_path: Path, seed: int) -> None:
    assert len(search(SPACE, NOW, 3, bowl, tmp_path / "journal", seed=seed)) == 3


def test_a_killed_search_tries_what_one_that_was_not_killed_tries(tmp_path: Path) -> None:
    whole = search(SPACE, NOW, 9, bowl, tmp_path / "whole", seed=4)
    calls = 0

    def dying(change: Settings, stop: Stop) -> Trial:
        nonlocal calls
        calls += 1
        if calls in (3, 6):
            raise KeyboardInterrupt
        return bowl(change, stop)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search(SPACE, NOW, 9, dying, tmp_path / "killed", seed=4)
    found = search(SPACE, NOW, 9, dying, tmp_path / "killed", seed=4)
    assert found == whole
    assert calls == 11  # nine, and the two that were cut off again
    assert search(SPACE, NOW, 9, dying, tmp_path / "killed", seed=4) == found
    assert calls == 11


def test_a_space_of_three_points_gives_three(tmp_path: Path) -> None:
    found = search({"size": OneOf(8, 16, 32)}, {"size": 16}, 10, bowl_of_size, tmp_path / "journal", seed=0)
    assert sorted(trial.change["size"] for trial in found) == [8, 16, 32]


def bowl_of_size(change: Settings, stop: Stop) -> Trial:
    return Trial(dict(change), float(change["size"]))


def test_settings_outside_the_space_widen_it(tmp_path: Path) -> None:
    found = search(SPACE, {"rate": 0.5, "size": 7}, 3, bowl, tmp_path / "journal", seed=0)
    assert found[0].change == {"rate": 0.5, "size": 7}
    with pytest.raises(ConfigError, match="logarithmic scale"):
        search(SPACE, {"rate": 0.0, "size": 7}, 3, bowl, tmp_path / "other", seed=0)


def test_a_trial_that_falls_behind_is_stopped_and_never_the_best(tmp_path: Path) -> None:
    def slow(change: Settings, stop: Stop) -> Trial:
        for epoch in range(1, 6):
            if stop(epoch, bowl(change, stop).score * (6 - epoch)):
                return Trial(dict(change), 99.0, passes=epoch, pruned=True)
        return bowl(change, stop)

    found = search(SPACE, NOW, 12, slow, tmp_path / "journal", seed=2)
    assert len(found) == 12
    stopped = [trial for trial in found if trial.pruned]
    assert stopped
    assert not any(trial.pruned for trial in found[:3])
    assert best_of(found).score < 99


def test_a_trial_that_diverges_is_a_bad_trial(tmp_path: Path) -> None:
    def touchy(change: Settings, stop: Stop) -> Trial:
        if change["size"] == 16:
            raise TrainingError("the loss became nan")
        return bowl(change, stop)

    found = search(SPACE, NOW, 6, touchy, tmp_path / "journal", seed=0)
    assert len(found) == 6
    assert math.isnan(found[0].score)
    assert found[0].error == "the loss became nan"
    assert found[0].as_dict()["score"] is None
    assert not math.isnan(best_of(found).score)
    with pytest.raises(TrainingError, match="nothing that was tried could be trained: the loss became nan"):
        best_of(exactly(({"rate": 0.1, "size": 16},), touchy))


def test_exactly_what_is_named_in_order() -> None:
    tries: tuple[dict[str, Any], ...] = ({"rate": 0.1, "size": 8}, {"rate": 0.01, "size": 32})
    found = exactly(tries, bowl)
    assert [trial.change for trial in found] == list(tries)
    assert best_of(found) is found[1]


def test_without_optuna_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ForetasteError, match=r"pip install 'foretaste\[tune\]'"):
        search(SPACE, NOW, 2, bowl, tmp_path / "journal", seed=0)


def test_every_model_that_learns_has_a_space_of_its_own_settings() -> None:
    for name in MODELS:
        kind = model_class(name)
        if kind.learns == "gradient":
            assert "learning_rate" in kind.space, name
        for setting, space in kind.space.items():
            low_high = space.values if isinstance(space, OneOf) else (space.low, space.high)
            for value in low_high:
                made_by = kind.Config if setting in kind.Config().idle else partial(Recommender, name)
                made_by(**{setting: value})
                assert space.holds(value)
    assert model_class("fmc").space is model_class("fpmc").space  # a variant under a name of its own
    assert model_class("markov").space == model_class("pop").space == {}


def test_a_row_with_another_optimiser_leaves_out_what_that_does_not_have() -> None:
    row = Row(name="x", model="gsasrec", trials=3)
    assert "beta2" in space_of(row)
    other = Row(name="x", model="gsasrec", trials=3, settings={"optimizer": "adagrad"})
    assert space_of(other).keys() == space_of(row).keys() - {"beta2"}


IDLE: dict[str, tuple[str, dict[str, Any], str]] = {
    "no memory, no slots": ("dman", {"memory": "none"}, "slots"),
    "bare equations drop nothing": ("dman", {"bare": True}, "dropout"),
    "a product has no alpha": ("rum-item", {"merge": "multiply"}, "alpha"),
    "nor has what a layer reads": ("rum-feature", {"merge": "concat", "predict": "mlp"}, "alpha"),
    "one-hot items have no embedding": ("gru4rec", {"items": "one-hot"}, "embedding_dropout"),
    "an event is its own mean": ("dream", {"basket": "event"}, "pool"),
}


@pytest.mark.parametrize("case", IDLE)
def test_a_search_leaves_out_what_would_say_nothing(case: str) -> None:
    model, settings, idle = IDLE[case]
    space = model_class(model).space
    assert space_of(Row(name="x", model=model, trials=3, settings=settings)).keys() == space.keys() - {idle}


def test_spaces_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least two values"):
        OneOf(3)
    with pytest.raises(ConfigError, match="0 < low < high"):
        Between(0, 1)
    with pytest.raises(ConfigError, match="low < high"):
        Between(2, 1, log=False)
    assert str(OneOf(1, 2)) == "one of 1, 2"
    assert str(Between(0.001, 0.1)) == "0.001 to 0.1 (log)"


def test_rounds_do_not_depend_on_who_is_quicker_nor_on_kills(tmp_path: Path) -> None:
    """Three at once, of which some dawdle; killed in the middle of a round, others of it being done already."""
    started: list[int] = []
    lock = threading.Lock()

    def uneven(change: Settings, stop: Stop) -> Trial:
        with lock:
            started.append(threading.get_ident())
        time.sleep(0.05 * (len(started) % 3))
        for epoch in range(1, 4):
            if stop(epoch, bowl(change, stop).score * (4 - epoch)):
                return Trial(dict(change), bowl(change, stop).score, passes=epoch, pruned=True)
        return bowl(change, stop)

    whole = search(SPACE, NOW, 11, uneven, tmp_path / "whole", seed=4, at_once=3)
    assert len(whole) == len({named(trial.change) for trial in whole}) == 11
    assert whole[0].change == NOW
    assert len(set(started)) > 1
    calls = 0

    def dying(change: Settings, stop: Stop) -> Trial:
        nonlocal calls
        with lock:
            calls += 1
            mine = calls
        time.sleep(0.02)
        if mine in (2, 9):
            time.sleep(0.1)
            raise KeyboardInterrupt
        return uneven(change, stop)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search(SPACE, NOW, 11, dying, tmp_path / "killed", seed=4, at_once=3)
        time.sleep(0.3)  # a killed process has no threads left
    assert search(SPACE, NOW, 11, dying, tmp_path / "killed", seed=4, at_once=3) == whole
    assert calls == 13  # eleven, and the two that were cut off: what was done in their rounds was kept


@pytest.mark.parametrize("told", range(12))
def test_a_search_killed_while_a_round_is_told_goes_on_with_the_same_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    whole = search(SPACE, NOW, 11, bowl, tmp_path / "whole", seed=4, at_once=4)
    left, tell = told, _Study.tell

    def dying(self: _Study, one: Any, found: Trial) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        tell(self, one, found)

    monkeypatch.setattr(_Study, "tell", dying)
    if told < 11:
        with pytest.raises(KeyboardInterrupt):
            search(SPACE, NOW, 11, bowl, tmp_path / "killed", seed=4, at_once=4)
    monkeypatch.setattr(_Study, "tell", tell)
    assert search(SPACE, NOW, 11, bowl, tmp_path / "killed", seed=4, at_once=4) == whole


def test_exactly_side_by_side_is_what_one_by_one_gives() -> None:
    tries: tuple[dict[str, Any], ...] = tuple({"rate": 0.1 / n, "size": 8} for n in range(1, 6))
    meeting = threading.Barrier(5, timeout=10)  # passed only if all five are under way

    def together(change: Settings, stop: Stop) -> Trial:
        meeting.wait()
        return bowl(change, stop)

    assert exactly(tries, together, at_once=5) == exactly(tries, bowl)
