"""A training that goes before another, the newest rows, frozen weights, and a teacher who knows the future."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.test_loop import log_of, random_rows
from tests.training.test_parallel import small
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError
from foretaste.models.baselines.gru4rec import GRU4Rec
from foretaste.models.contract import Events, SequenceModel, seeded
from foretaste.training import loop
from foretaste.training.batches import Batch, batches, newest
from foretaste.training.loop import TrainConfig, TrainResult, train
from foretaste.training.privileged import Teacher, turned_round


def same(one: SequenceModel, other: SequenceModel) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_the_newest_rows_are_the_last_by_time_else_by_place() -> None:
    log = log_of([[1, 2], [3, 4, 5], [6], [7, 8]])
    assert newest(log, "session", 0.5).items.tolist() == [6, 7, 8]
    assert newest(log, "session", 0.01).items.tolist() == [7, 8]
    assert newest(log, "session", 1.0).items.tolist() == log.items.tolist()
    timed = Sequences(**{**vars(log), "times": np.array([10, 90, 20, 30, 40, 5, 60, 70])})
    assert newest(timed, "session", 0.5).items.tolist() == [1, 2, 7, 8]
    assert newest(timed, "session", 0.5).sessions.tolist() == [0, 2, 4]


def test_a_training_goes_on_from_the_one_before_it() -> None:
    """`before` and `recent` are two trainings by hand, the second on the newest rows: the same weights to the bit."""
    log, config = log_of(random_rows(80)), TrainConfig(epochs=1, batch=64, learning_rate=0.01)
    together, apart = small(), small()
    result = train(together, log, config.with_(recent=0.3, before={"epochs": 2, "learning_rate": 0.05}))
    train(apart, log, config.with_(epochs=2, learning_rate=0.05))
    assert not same(together, apart)
    train(apart, newest(log, "session", 0.3), config)
    assert same(together, apart)
    assert result.before is not None
    assert (result.before.epochs, result.epochs) == (2, 1)


def test_each_training_keeps_its_best_pass_and_another_can_be_like_both() -> None:
    """Of the first training the second pass is best, of the next the first; a run without validation repeats that."""
    log, values = log_of(random_rows(60)), iter([0.1, 0.5, 0.2, 0.3, 0.2])
    config = TrainConfig(epochs=2, patience=5, recent=0.5, before={"epochs": 3})
    chosen, again = small(), small()
    result = train(chosen, log, config, validate=lambda model: {"recall@20": next(values)})
    assert result.before is not None
    assert (result.before.best_epoch, result.best_epoch) == (2, 1)
    train(again, log, config, like=TrainResult(0, 1, before=TrainResult(0, 2)))
    assert same(chosen, again)


def test_progress_says_which_training_it_is_of() -> None:
    seen: list[Any] = []
    config = TrainConfig(epochs=1, before={"epochs": 2}, privileged=0.2)
    train(
        small(),
        log_of(random_rows(30)),
        config,
        report=lambda facts: seen.append((facts.get("stage"), facts["epochs"])),
    )
    assert list(dict.fromkeys(seen)) == [("before", 2), ("teacher", 2), ("teacher", 1), (None, 1)]


def test_frozen_weights_stay() -> None:
    model = small(items="separate")
    old = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, log_of(random_rows(30)), TrainConfig(epochs=1, frozen=("W", "cells.0.weight"), weight_decay=0.1))
    for name, value in model.state_dict().items():
        assert torch.equal(value, old[name]) == name.startswith(("W", "cells.0.weight")), name
    assert all(weight.requires_grad for weight in model.parameters())
    with pytest.raises(ConfigError, match=r"frozen: GRU4Rec has no weights 'items'.*item\.weight"):
        train(model, log_of(random_rows(30)), TrainConfig(frozen=("items",)))


def cosine_to_targets(model: GRU4Rec, batch: Batch) -> float:
    with torch.no_grad():
        query, _ = model(batch.events, model.initial_state(batch.users), at=batch.at)
        return float(model.score(query, (batch.targets + 1)[:, None]).mean()) / model.config.scale


def test_regression_turns_the_answer_to_items_that_stay_where_they_are() -> None:
    """Tan et al.'s last model: vectors from a softmax, then only the cosine to the target's counts."""
    log = log_of([[n % 7 + 1 for n in range(start, start + 6)] for start in range(40)])
    (batch,) = batches(log, "session", budget=10_000, chunk=512, seed=(0,))
    first = TrainConfig(epochs=10, learning_rate=0.02, batch=64)
    plain, aimed = small(7, score="cosine", scale=4.0), small(7, score="cosine", scale=4.0)
    train(plain, log, first)
    config = first.with_(loss="regression", frozen=("item",), before={"loss": "softmax", "frozen": []}, epochs=20)
    train(aimed, log, config.with_(before={**config.before, "epochs": 10}))
    assert torch.equal(aimed.item.weight, plain.item.weight)
    assert cosine_to_targets(aimed.eval(), batch) > max(0.97, cosine_to_targets(plain.eval(), batch))
    result = train(aimed, log, TrainConfig(loss="regression", frozen=("item",), epochs=1, batch=10_000))
    assert result.history[0]["loss"] == pytest.approx(-4 * cosine_to_targets(aimed, batch), abs=0.2)


def test_the_teachers_log_is_each_session_backwards() -> None:
    log = log_of([[1, 2, 3], [4], [5, 6]])
    assert turned_round(log, small()).items.tolist() == [3, 2, 1, 4, 6, 5]
    with pytest.raises(ConfigError, match="GRU4Rec reads all sessions of a user as one row: set it to 0"):
        turned_round(log, small(scope="user"))
    asked = replace(log, target=np.array([True, False, False, True, False, True]))
    assert turned_round(asked, small()).target.tolist() == [False, False, True, True, True, False]  # type: ignore[union-attr]


def test_a_teacher_learns_from_what_the_student_learns_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """From all rows where the student has a training before, and from whole rows where the student has the latest."""
    made: list[Teacher] = []
    monkeypatch.setattr(loop, "Teacher", lambda *given: made.append(Teacher(*given)) or made[-1])
    log = log_of([[(start + step) % 7 + 1 for step in range(6)] for start in range(60)])
    first = {"epochs": 15, "learning_rate": 0.05}
    config = TrainConfig.of({
        "epochs": 1, "learning_rate": 1e-6, "recent": 0.1, "latest": 2, "privileged": 0.5, "batch": 64, "before": first,
    })  # fmt: skip
    train(small(), log, config)
    (teacher,) = made
    assert len(teacher.log) == 36  # the newest tenth of the rows
    for item in range(1, 8):
        assert after(teacher.model, [item % 7 + 1, item]).argmax() + 1 == (item - 2) % 7 + 1


def after(model: SequenceModel, items: list[int]) -> Tensor:
    """Log-probabilities [I] after the last of some items."""
    query, _ = model(Events.of([items]), model.initial_state(torch.zeros(1, dtype=torch.int64)))
    return model.score(query)[0, -1].log_softmax(-1)


@pytest.mark.parametrize("parallel", [False, True])
def test_privileged_information_by_hand(parallel: bool) -> None:
    """Target x_{r+1}: (1 - lambda) of its own cost, lambda of what a teacher says who read x_n .. x_{r+2}."""
    rows = [[1, 2, 3, 4, 5], [6, 2], [3, 3, 7]]
    log, student, kind = log_of(rows), small(8).double(), GRU4Rec.Config(embedding_size=4, hidden_size=7)
    with seeded(5):
        guide = GRU4Rec(8, kind).double().eval()
    teacher, costs = Teacher(guide, log, 0.3), []
    for row in rows:
        for place in range(1, len(row)):
            mine, future = after(student, row[:place]), row[:place:-1]
            plain = -mine[row[place] - 1]
            told = -(after(guide, future).exp() * mine).sum() if future else plain
            costs.append(0.7 * plain + 0.3 * told)
    wanted = torch.stack(costs).mean()
    gradient = torch.autograd.grad(wanted, list(student.parameters()))
    (batch,) = batches(log, "session", budget=10_000, chunk=512, seed=(0,))
    query, _ = student(batch.events, student.initial_state(batch.users), at=batch.at)
    found = teacher.loss(student, query, batch, batch.rows if parallel else None)
    torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=1e-10)
    for mine, theirs in zip(torch.autograd.grad(found, list(student.parameters())), gradient, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_a_teacher_is_trained_first_and_not_again(tmp_path: Path) -> None:
    log, config = log_of(random_rows(40)), TrainConfig(epochs=2, privileged=0.5)
    taught, plain, again = small(), small(), small()
    train(taught, log, config, folder=tmp_path)
    train(plain, log, config.with_(privileged=0.0))
    assert not same(taught, plain)
    stages: list[Any] = []
    train(again, log, config, folder=tmp_path, report=lambda facts: stages.append(facts.get("stage")))
    assert same(taught, again)
    assert stages == []


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 0.95])
@pytest.mark.parametrize("change", [{}, {"parallel": 6, "stride": 2}], ids=str)
def test_a_run_of_several_trainings_goes_on_wherever_it_stopped(
    tmp_path: Path, share: float, change: dict[str, Any]
) -> None:
    """Interrupted in the training before, the teacher's or the last one, at places where rows are in the middle."""
    log = log_of(random_rows(60))
    config = TrainConfig.of({
        "epochs": 2, "batch": 40, "checkpoint_seconds": 1e-9, "before": {"epochs": 1}, "recent": 0.6, "privileged": 0.3,
        **change,
    })  # fmt: skip
    settings = {"hidden_dropout": 0.3, "embedding_dropout": 0.2}
    whole, killed = small(**settings), small(**settings)
    steps: list[Any] = []
    train(whole, log, config, report=steps.append)
    left = [round(share * len(steps))]

    def report(facts: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(killed, log, config, folder=tmp_path, report=report)
    fresh = small(**settings)
    train(fresh, log, config, folder=tmp_path)
    assert same(fresh, whole)


def test_what_cannot_be_meant_is_said_in_a_sentence() -> None:
    for wrong, says in [
        ({"before": {"epochz": 2}}, "before: .*unknown key 'epochz'"),
        ({"before": {"epochs": 0}}, "before: .*'epochs' = 0"),
        ({"privileged": 0.2, "loss": "bpr", "negatives": 1}, "privileged = 0.2 compares probabilities"),
        ({"privileged": 0.2, "ahead": 3}, "privileged = 0.2 wants the next event"),
        ({"privileged": 0.2, "targets": "session"}, "privileged = 0.2 wants the next event"),
        ({"loss": "regression", "negatives": 3}, "loss 'regression' draws no items"),
        ({"recent": 0.0}, "'recent' = 0.0"),
        ({"loss_options": {"precison": "float32"}}, "loss_options: .*no option 'precison'; did you mean 'precision'"),
        ({"loss": "hinge", "negatives": 1, "loss_options": {"margin": "x"}}, "margin = 'x'; give a number, such as 1"),
        ({"loss": "hinge", "negatives": 1, "loss_options": {"margin": True}}, "margin = True; give a number"),
        ({"loss": "hinge", "negatives": 1, "loss_options": {"adaptive": 1}}, "adaptive = 1; give true or false"),
    ]:
        with pytest.raises(ConfigError, match=says):
            TrainConfig.of(wrong)
    assert TrainConfig(before={"epochs": 4}, recent=0.1, frozen=("item",), privileged=0.1).earlier() == TrainConfig(
        epochs=4
    )
