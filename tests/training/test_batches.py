"""What a batch asks, against a slow version that walks every row event by event."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.sequences import Scope, Sequences
from foretaste.errors import ConfigError
from foretaste.models.contract import Events, SequenceModel, State
from foretaste.training.aims import Aim, Targets
from foretaste.training.batches import batches
from foretaste.training.loop import train
from foretaste.training.settings import TrainConfig

Asked = tuple[int, int, int, int]
"""User number, place of the asked event (-1: the initial state), target item, last place that is known by then."""


def random_log(seed: int, cold: bool = True) -> Sequences:
    """Users with sessions of one to five events; some items are cold, some events are no targets."""
    rng = np.random.default_rng(seed)
    lengths = [rng.integers(1, 6, size=rng.integers(1, 5)) for _ in range(12)]
    sessions = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    users = np.concatenate([[0], np.cumsum([row.sum() for row in lengths])]).astype(np.int64)
    size = int(users[-1])
    return Sequences(
        items=rng.integers(0 if cold else 1, 8, size).astype(np.int32),
        users=users,
        sessions=sessions,
        part=np.zeros(size, np.uint8),
        user_numbers=np.arange(1, 13, dtype=np.int32),
        target=rng.random(size) < 0.8 if seed % 2 else None,
    )


def slowly(log: Sequences, scope: Scope, aim: Aim) -> list[Asked]:
    """What is to be asked, event by event."""
    found: list[Asked] = []
    offsets = log.offsets(scope)
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        user = int(np.searchsorted(log.users, start, side="right"))
        known = [n for n in range(start, stop) if log.items[n] > 0]
        places = known[-aim.latest :] if aim.latest else known
        opening = aim.first and places == known
        session = [int(np.searchsorted(log.sessions, n, side="right")) for n in places]

        def may(place: int) -> bool:
            return log.target is None or bool(log.target[place])

        for j, place in enumerate(places):
            if not may(place):
                continue
            if aim.targets == "event":
                before = [j - distance for distance in range(1, aim.ahead + 1)]
            else:
                begin = session.index(session[j])
                if any(may(n) and log.items[n] == log.items[place] for n in places[begin:j]):
                    continue  # a session is a set
                before = [begin - 1] if aim.targets == "session" or session[j] == session[-1] else []
                last = int(log.sessions[session[j]]) - 1
            for p in before:
                if p >= 0 or (p == -1 and opening):
                    if aim.targets == "event":
                        last = places[min(p + aim.ahead, len(places) - 1)]
                    found.append((user, places[p] if p >= 0 else -1, int(log.items[place]), last))
    return found


def asked_in_batches(log: Sequences, scope: Scope, aim: Aim, budget: int, chunk: int) -> list[Asked]:
    """The same as the batches have it: events carry their own place in the log as a column."""
    with_places = Sequences(**{**vars(log), "columns": {"place": np.arange(len(log))}})
    found: list[Asked] = []
    for batch in batches(with_places, scope, budget=budget, chunk=chunk, seed=(1,), aim=aim):
        queries = [*batch.events.columns["place"][batch.at].tolist(), *[-1] * int(batch.blank.sum())]
        askers = [*batch.at.nonzero()[:, 0].tolist(), *batch.blank.nonzero()[:, 0].tolist()]
        assert sorted(set(batch.rows.tolist())) == list(range(len(queries)))  # nothing is asked for nothing
        assert batch.one_each == (batch.rows.tolist() == list(range(len(queries))))
        for query, owner, item, last in zip(
            batch.rows.tolist(), batch.owners.tolist(), batch.targets.tolist(), batch.places.tolist(), strict=True
        ):
            assert askers[query] == owner
            found.append((int(batch.users[owner]), queries[query], item + 1, last))
    return found


@settings(max_examples=150)
@given(
    seed=st.integers(0, 999),
    scope=st.sampled_from(["user", "session"]),
    targets=st.sampled_from(["event", "session", "last_session"]),
    ahead=st.integers(1, 3),
    first=st.booleans(),
    latest=st.sampled_from([0, 0, 1, 3]),
    budget=st.sampled_from([1, 7, 1000]),
    chunk=st.sampled_from([1, 2, 512]),
)
def test_batches_ask_what_a_walk_over_the_log_asks(
    seed: int,
    scope: Scope,
    targets: Literal["event", "session", "last_session"],
    ahead: int,
    first: bool,
    latest: int,
    budget: int,
    chunk: int,
) -> None:
    log, aim = random_log(seed), Aim(targets, ahead if targets == "event" else 1, first, latest)
    wanted = slowly(log, scope, aim)
    assert Counter(asked_in_batches(log, scope, aim, budget, chunk)) == Counter(wanted)
    targets_ = Targets.of(log, scope, aim)
    assert targets_.count == len(wanted)
    assert targets_.items(9).tolist() == [sum(item == i for _, _, item, _ in wanted) for i in range(1, 10)]
    assert targets_.users(log, scope).tolist() == sorted({user for user, *_ in wanted})


def test_by_hand() -> None:
    """One user, three sessions: 1 2 | 3 3 | 2 4."""
    log = Sequences(
        np.array([1, 2, 3, 3, 2, 4], np.int32), np.array([0, 6]), np.array([0, 2, 4, 6]), np.zeros(6, np.uint8),
        np.ones(1, np.int32),
    )  # fmt: skip

    def asked(aim: Aim) -> list[tuple[int, int]]:
        return sorted((p, item) for _, p, item, _ in asked_in_batches(log, "user", aim, 100, 512))

    assert asked(Aim()) == [(0, 2), (1, 3), (2, 3), (3, 2), (4, 4)]
    assert asked(Aim(first=True)) == [(-1, 1), (0, 2), (1, 3), (2, 3), (3, 2), (4, 4)]
    assert asked(Aim("session")) == [(1, 3), (3, 2), (3, 4)]
    assert asked(Aim("session", first=True)) == [(-1, 1), (-1, 2), (1, 3), (3, 2), (3, 4)]
    assert asked(Aim("last_session")) == [(3, 2), (3, 4)]
    assert asked(Aim(ahead=2)) == [(0, 2), (0, 3), (1, 3), (1, 3), (2, 2), (2, 3), (3, 2), (3, 4), (4, 4)]
    assert asked(Aim(latest=3)) == [(3, 2), (4, 4)]


class Table(SequenceModel):
    """Answers with a free vector a user: what a loop must be able to train from the initial state alone."""

    scope = "user"

    def __init__(self, n_items: int, n_users: int, size: int = 4) -> None:
        super().__init__(n_items, None, n_users)
        self.user = torch.nn.Embedding(n_users + 1, size)
        self.item = torch.nn.Embedding(n_items + 1, size)
        torch.nn.init.normal_(self.user.weight, std=0.1)
        torch.nn.init.normal_(self.item.weight, std=0.1)

    def initial_state(self, users: torch.Tensor) -> State:
        return {"user": users}

    def forward(self, events: Events, state: State, at: torch.Tensor | None = None) -> tuple[torch.Tensor, State]:
        vectors = self.user(state["user"])[:, None].expand(*events.shape, -1)
        return vectors if at is None else vectors[at], state

    def query(self, state: State, now: torch.Tensor | None = None) -> torch.Tensor:
        return self.user(state["user"])[:, None]

    def item_matrix(self) -> torch.Tensor:
        return self.item.weight[1:]

    def owned(self, users: torch.Tensor, items: torch.Tensor) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
        return [(self.user.weight, users), (self.item.weight, items)]


def users_with_own_items() -> Sequences:
    """Six users, each with one event of its own: only the initial state can tell the first."""
    items = np.arange(1, 7).astype(np.int32)
    ends = np.arange(7)
    return Sequences(items, ends, ends, np.zeros(6, np.uint8), np.arange(1, 7, dtype=np.int32))


@pytest.mark.parametrize(("loss", "negatives"), [("softmax", 0), ("bpr", 2)])
def test_the_loop_trains_the_first_event_from_the_initial_state(loss: str, negatives: int) -> None:
    log = users_with_own_items()
    torch.manual_seed(0)
    model = Table(6, 6)
    config = TrainConfig(first=True, loss=loss, negatives=negatives, epochs=60, batch=3, learning_rate=0.05)
    train(model, log, config)
    with torch.no_grad():
        best = model.score(model.query(model.initial_state(torch.arange(1, 7)))).argmax(-1)[:, 0] + 1
    assert best.tolist() == [1, 2, 3, 4, 5, 6]


def one_step(**penalty: object) -> tuple[torch.Tensor, Table, Table]:
    """Users' vectors before one SGD step at rate 0.5, and the model after it: without a penalty, and with it."""
    log = users_with_own_items()
    torch.manual_seed(0)
    plain, pulled = Table(6, 6), Table(6, 6)
    pulled.load_state_dict(plain.state_dict())
    before = plain.user.weight.detach().clone()
    common = {"first": True, "optimizer": "sgd", "learning_rate": 0.5, "epochs": 1, "batch": 100}
    train(plain, log, TrainConfig.of(common))
    train(pulled, log, TrainConfig.of({**common, **penalty}))
    return before, plain, pulled


def test_l2_pulls_what_a_step_touches_and_nothing_else() -> None:
    """One SGD step by hand: a touched weight w moves by 2 rate l2 / N an occurrence beside the loss's own pull."""
    before, plain, pulled = one_step(l2=0.3)
    moved = pulled.user.weight.detach() - plain.user.weight.detach()
    np.testing.assert_allclose(moved[1:], -0.5 * 0.3 * 2 / 6 * before[1:], rtol=1e-4, atol=1e-7)
    assert torch.equal(pulled.user.weight[0], before[0])


def test_penalties_pull_the_weights_they_name_at_every_step() -> None:
    """One SGD step by hand: a weight w moves by 2 rate penalty w beside the loss's own pull, touched or not."""
    before, plain, pulled = one_step(penalties={"user": 0.2, "user.w": 0.1})
    moved = pulled.user.weight.detach() - plain.user.weight.detach()  # [1 + U, d], the row of nobody among them
    np.testing.assert_allclose(moved, -0.5 * 2 * 0.3 * before, rtol=1e-4, atol=1e-7)
    others = {name: weight for name, weight in pulled.state_dict().items() if not name.startswith("user")}
    assert others, "others are there, and stay as they would be"
    for name, weight in others.items():
        assert torch.equal(weight, plain.state_dict()[name]), name


def test_penalties_name_weights_and_are_no_rewards() -> None:
    with pytest.raises(ConfigError, match=r"penalties: Table has no weights 'users'.*user\.weight"):
        train(Table(6, 6), users_with_own_items(), TrainConfig(first=True, penalties={"users": 0.1}))
    with pytest.raises(ConfigError, match=r"penalties.user"):
        TrainConfig.of({"penalties": {"user": -0.1}})


def test_sessions_and_several_events_ahead_cannot_both_be_wanted() -> None:
    with pytest.raises(Exception, match="ahead = 2"):
        TrainConfig.of({"targets": "session", "ahead": 2})
