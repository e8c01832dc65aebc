"""Session-parallel training: against a walk over the rows event by event, and against whole sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.test_batches import Asked, random_log, slowly
from tests.training.test_loop import log_of, random_rows
from torch import Tensor

from foretaste.data.sequences import Scope, Sequences
from foretaste.errors import ConfigError
from foretaste.models.baselines.gru4rec import GRU4Rec
from foretaste.models.baselines.sasrec import SASRec
from foretaste.models.contract import Events, SequenceModel, State, seeded
from foretaste.models.dman import DMAN
from foretaste.models.narm import NARM
from foretaste.recommender import Recommender
from foretaste.training.aims import Aim
from foretaste.training.batches import Batch, batches, parallel_batches
from foretaste.training.loop import train
from foretaste.training.settings import TrainConfig


def small(n_items: int = 20, **config: Any) -> GRU4Rec:
    still = {"embedding_dropout": 0.0, "hidden_dropout": 0.0}
    with seeded(0):
        return GRU4Rec(n_items, GRU4Rec.Config.of({"embedding_size": 6, "hidden_size": 5, **still, **config}))


def asked_by(found: Iterator[Batch], rows: int, stride: int) -> list[Asked]:
    """What the batches ask, and of whom; events carry their own place in the log as a column."""
    asked: list[Asked] = []
    users: list[int] = []
    for batch in found:
        assert len(batch.users) <= rows
        assert batch.events.shape[1] <= stride
        for row, before in enumerate(batch.before.tolist()):
            if before >= 0:
                assert users[before] == int(batch.users[row]), "a row runs on from another user's state"
        users = batch.users.tolist()
        queries = [*batch.events.columns["place"][batch.at].tolist(), *[-1] * int(batch.blank.sum())]
        for query, owner, item, last in zip(
            batch.rows.tolist(), batch.owners.tolist(), batch.targets.tolist(), batch.places.tolist(), strict=True
        ):
            asked.append((users[owner], queries[query], item + 1, last))
    return asked


@settings(max_examples=100)
@given(
    seed=st.integers(0, 999),
    scope=st.sampled_from(["user", "session"]),
    first=st.booleans(),
    latest=st.sampled_from([0, 0, 1, 3]),
    rows=st.sampled_from([1, 2, 5, 1000]),
    stride=st.sampled_from([1, 2, 5, 512]),
)
def test_every_target_is_asked_once(seed: int, scope: Scope, first: bool, latest: int, rows: int, stride: int) -> None:
    log, aim = random_log(seed), Aim(first=first, latest=latest)
    log = Sequences(**{**vars(log), "columns": {"place": np.arange(len(log))}})
    found = parallel_batches(log, scope, rows=rows, stride=stride, seed=(1,), aim=aim)
    assert Counter(asked_by(found, rows, stride)) == Counter(slowly(log, scope, aim))


def carried(model: SequenceModel, found: Iterator[Batch]) -> dict[int, Tensor]:
    """The answer after each event of the log (by its place), with states carried as batches say."""
    state: State = {}
    answers: dict[int, Tensor] = {}
    with torch.no_grad():
        for batch in found:
            new, old = model.initial_state(batch.users), state
            state = {
                name: torch.stack([old[name][b] if b >= 0 else part[n] for n, b in enumerate(batch.before.tolist())])
                for name, part in new.items()
            }
            query, state = model(batch.events, state, at=batch.at)
            places = batch.events.columns["place"][batch.at].tolist()
            answers |= dict(zip(places, model.score(query), strict=True))
    return answers


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize(("kind", "scope"), [(GRU4Rec, "session"), (NARM, "session"), (DMAN, "user")])
def test_every_model_stands_where_it_stands_in_whole_rows(kind: type[SequenceModel], scope: Scope, stride: int) -> None:
    log = random_log(3, cold=True)
    log = Sequences(**{**vars(log), "columns": {"place": np.arange(len(log))}})
    with seeded(0):
        model = kind(8, None, 12).double().eval()
    whole = carried(model, batches(log, scope, budget=30, chunk=512, seed=(0,)))
    beside = carried(model, parallel_batches(log, scope, rows=4, stride=stride, seed=(0,)))
    assert whole.keys() == beside.keys()
    for place, answer in whole.items():
        torch.testing.assert_close(beside[place], answer, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("settings", [{"loss": "softmax"}, {"loss": "bpr_max", "sampler": "batch"}], ids=str)
def test_one_step_with_the_same_targets_is_the_same_step(settings: dict[str, Any]) -> None:
    """All sessions in one batch: as whole rows, or side by side with a stride that holds them."""
    log, weights = log_of(random_rows(12)), []
    for change in ({"batch": 10_000}, {"parallel": 12, "stride": 100}):
        model = small().double()
        train(model, log, TrainConfig.of({**settings, **change, "epochs": 1, "optimizer": "sgd", "learning_rate": 1}))
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-12, msg=name)


def test_sessions_of_two_events_side_by_side_are_whole_sessions() -> None:
    """One target each: the two ways differ in nothing."""
    log, weights = log_of([[n, n % 9 + 1] for n in range(1, 10)]), []
    for change in ({"batch": 100}, {"parallel": 9}):
        model = small().double()
        train(model, log, TrainConfig.of({"epochs": 1, "optimizer": "sgd", "learning_rate": 1, **change}))
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-12, msg=name)


def walk(model: GRU4Rec, rows: list[list[int]], width: int, seed: int, rate: float) -> int:
    """One pass of TOP1 with the other rows' targets, by plain gradient steps, written row by row; gives the steps."""
    asked = [row for row in rows if len(row) > 1]
    waiting = [asked[n] for n in np.random.default_rng((seed, 0)).permutation(len(asked))]
    nothing = torch.zeros(1, 1, 5, dtype=torch.float64)
    slots = [(row, 0, nothing) for row in waiting[:width]]
    waiting, steps = waiting[width:], 0
    while slots:
        scores, after = [], []
        for row, place, h in slots:
            query, state = model(Events.of([[row[place]]]), {"h": h})
            scores.append(model.score(query)[0, 0])
            after.append(state["h"].detach())
        targets = [row[place + 1] for row, place, _ in slots]
        costs = []
        for score, own in zip(scores, targets, strict=True):
            others = [item for item in targets if item != own]
            each = [
                torch.sigmoid(score[item - 1] - score[own - 1]) + torch.sigmoid(score[item - 1] ** 2) for item in others
            ]
            costs.append(sum(each, score.sum() * 0) / max(len(each), 1))
        model.zero_grad()
        torch.stack(costs).mean().backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= rate * weight.grad
        moved, slots = [(row, place + 1, h) for (row, place, _), h in zip(slots, after, strict=True)], []
        for slot in moved:
            if slot[1] + 1 < len(slot[0]):
                slots.append(slot)
            elif waiting:
                slots.append((waiting.pop(0), 0, nothing))
        steps += 1
    return steps


@pytest.mark.parametrize("width", [2, 4, 100])
def test_a_pass_equals_the_slow_version(width: int) -> None:
    """Weights after one pass of GRU4Rec's own training, TOP1 in session-parallel batches, in float64."""
    rows = random_rows(25, n_items=9)
    slow, fast = small(9).double(), small(9).double()
    steps = walk(slow, rows, width, 5, 0.3)
    config = {"loss": "top1", "sampler": "batch", "exclude_touched": False, "optimizer": "sgd", "learning_rate": 0.3}
    seen: list[dict[str, Any]] = []
    train(fast, log_of(rows), TrainConfig.of({**config, "parallel": width, "epochs": 1, "seed": 5}), report=seen.append)
    for name, value in slow.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], value, rtol=0, atol=1e-11, msg=name)
    running = [facts for facts in seen if "done" in facts]
    assert len(running) == steps
    assert [facts["done"] for facts in running] == sorted(facts["done"] for facts in running)
    assert running[-1]["done"] == running[-1]["targets"] == sum(len(row) - 1 for row in rows)


def test_fewer_sessions_than_rows_all_run() -> None:
    found = list(parallel_batches(log_of([[1, 2, 3], [4, 5], [6]]), "session", rows=32, seed=(0,)))
    assert [len(batch.users) for batch in found] == [2, 1]
    assert [sorted((batch.targets + 1).tolist()) for batch in found] == [[2, 5], [3]]


def test_the_seed_and_the_pass_decide_the_order() -> None:
    log = log_of(random_rows(40))

    def order(seed: tuple[int, ...]) -> list[int]:
        return torch.cat([batch.targets for batch in parallel_batches(log, "session", rows=7, seed=seed)]).tolist()

    assert order((1, 0)) == order((1, 0))
    assert order((1, 0)) != order((1, 1))
    assert order((1, 0)) != order((2, 0))


def test_what_cannot_be_meant_is_said_in_a_sentence() -> None:
    for wrong, says in [
        ({"parallel": 8, "targets": "session"}, "parallel = 8 asks for the next event"),
        ({"parallel": 8, "ahead": 2}, "parallel = 8 asks for the next event"),
        ({"stride": 4}, "stride = 4 counts events of parallel rows"),
    ]:
        with pytest.raises(ConfigError, match=says):
            TrainConfig.of(wrong)
    sasrec = SASRec(20, SASRec.Config(embedding_size=6, window=9))
    for wrong, says in [({"parallel": 8}, "parallel = 8 cuts rows"), ({"chunk": 8}, "chunk = 8 cuts rows")]:
        with pytest.raises(ConfigError, match=f"{says} in pieces, and in training SASRec reads no further"):
            Recommender("sasrec", window=9, **wrong)
        with pytest.raises(ConfigError, match=f"{says} in pieces, and in training SASRec reads no further"):
            train(sasrec, log_of(random_rows(3)), TrainConfig.of({"epochs": 1, **wrong}))
    assert train(sasrec, log_of(random_rows(3)), TrainConfig(epochs=1, chunk=9)).epochs == 1
