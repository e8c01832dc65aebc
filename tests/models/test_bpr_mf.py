"""BPR-MF by hand: its scores, who is not known, what the penalty and the loss touch, and what it learns."""

import numpy as np
import pytest
import torch
from tests.squares import squares
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.models.baselines.bpr_mf import BPRMF
from foretaste.models.contract import Events, seeded
from foretaste.training.loop import TrainConfig, train
from foretaste.training.losses import loss_of
from foretaste.training.negatives import Negatives


def small(n_items: int = 6, n_users: int = 3, **config: object) -> BPRMF:
    with seeded(7):
        model = BPRMF(n_items, BPRMF.Config(embedding_size=4, **config), n_users).double().eval()
        if model.bias is not None:
            torch.nn.init.normal_(model.bias)
    return model


def by_hand() -> BPRMF:
    """Two users, three items, two numbers each."""
    model = BPRMF(3, BPRMF.Config(embedding_size=2), 2).eval()
    with torch.no_grad():
        model.user.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, -4.0]]))
        model.item.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]]))
        model.bias.copy_(torch.tensor([0.5, 0.0, -1.0]))
    return model


def scores(model: BPRMF, users: list[int]) -> Tensor:
    """[B, I] before any event."""
    return model.score(model.query(model.initial_state(torch.tensor(users))))[:, 0].detach()


def slow_scores(model: BPRMF, user: int) -> list[float]:
    """From the formula, one number at a time; a user never seen is scored by everybody, and the mean taken."""
    everybody = range(1, model.n_users + 1)
    out = []
    for item in range(model.n_items):
        each = []
        for asking in [user] if user else everybody:
            p, q = model.user.weight[asking].tolist(), model.item[item].tolist()
            each.append(sum(a * b for a, b in zip(p, q, strict=True)))
        bias = 0.0 if model.bias is None else float(model.bias[item].detach())
        out.append(sum(each) / len(each) + bias)
    return out


def test_scores_by_hand() -> None:
    assert scores(by_hand(), [1, 2]).tolist() == [[1.5, 2.0, 3.0], [3.5, -4.0, 1.0]]


def test_a_user_never_seen_is_shown_the_mean_of_all_lists() -> None:
    model = by_hand()
    assert scores(model, [0])[0].tolist() == [2.5, -1.0, 2.0]
    torch.testing.assert_close(scores(model, [0])[0], scores(model, [1, 2]).mean(0))
    assert scores(BPRMF(3), [0])[0].tolist() == [0.0, 0.0, 0.0], "no user at all: the bias alone"


@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_slow_version_whatever_the_history(bias: bool) -> None:
    model, users = small(bias=bias), [2, 0, 1, 3]
    events = Events.of([[3, 1, 3], [], [5], [6, 6]])
    query, state = model(events, model.initial_state(torch.tensor(users)))
    found = model.score(query)  # [4, 3, 6]
    for row, user in enumerate(users):
        wanted = torch.tensor(slow_scores(model, user), dtype=torch.float64).expand(3, -1)
        torch.testing.assert_close(found[row], wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(scores(model, users), found[:, 0])
    assert state["user"].tolist() == users


def test_asked_positions_and_no_positions() -> None:
    model, state = small(), {"user": torch.tensor([2, 3])}
    at = torch.tensor([[True, False], [True, True]])
    query, _ = model(Events.of([[1, 2], [3, 4]]), state, at=at)
    torch.testing.assert_close(query, model.user.weight[torch.tensor([2, 3, 3])])
    query, _ = model(Events.of([[], []]), state)
    assert query.shape == (2, 0, 4)


def test_the_penalty_by_hand() -> None:
    model = by_hand()
    assert squares(model.owned(torch.tensor([1]), torch.tensor([3]))).item() == 1 + 4 + (4 + 1 + 1)
    twice = squares(model.owned(torch.tensor([2, 2, 0]), torch.tensor([1, 1])))
    assert twice.item() == 2 * 25 + 2 * (1 + 0.25), "no user, no penalty; what is touched twice is pulled twice"
    no_bias = small(bias=False)
    wanted = no_bias.user.weight[1].square().sum() + no_bias.item[3].square().sum()
    torch.testing.assert_close(squares(no_bias.owned(torch.tensor([1]), torch.tensor([4]))), wanted)


def test_the_gradient_is_the_papers() -> None:
    """-d ln sigma(x_ui - x_uj) = (sigma - 1) times q_i - q_j for the user, p_u for i, -p_u for j."""
    model = by_hand().train()
    query, _ = model(Events.of([[2]]), {"user": torch.tensor([1])}, at=torch.tensor([[True]]))
    negatives = Negatives(torch.tensor([[2]]), torch.tensor([[True]]), torch.zeros(1, 1), torch.zeros(1))
    loss_of("bpr", model, query, torch.tensor([2]), negatives).backward()
    slope = 1 / (1 + np.exp(-(3.0 - 2.0))) - 1  # x_u3 = 3, x_u2 = 2
    assert model.user.weight.grad[1].tolist() == pytest.approx([2 * slope, 0.0])
    assert model.item.grad.flatten().tolist() == pytest.approx([0, 0, -slope, -2 * slope, slope, 2 * slope])
    assert model.bias.grad.tolist() == pytest.approx([0, -slope, slope])
    assert not model.user.weight.grad[[0, 2]].any()


def test_rows_without_a_user_train_the_items_alone() -> None:
    model = small().train()
    query, _ = model(Events.of([[2]]), model.initial_state(torch.zeros(1, dtype=torch.int64)))
    model.score(query)[..., 3].sum().backward()
    assert model.item.grad[3].any()
    assert not model.user.weight.grad.any()


def tastes() -> Sequences:
    """20 users of two kinds: half of them take items 1-5, half items 6-10, eight events each, in any order."""
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.integers(1, 6, 8) + 5 * (user % 2) for user in range(20)]).astype(np.int32)
    ends = np.arange(0, 161, 8, dtype=np.int64)
    return Sequences(items, ends, ends, np.zeros(160, np.uint8), np.arange(1, 21, dtype=np.int32))


@pytest.mark.parametrize("bias", [True, False])
def test_what_a_user_likes_ranks_above_what_he_does_not(bias: bool) -> None:
    with seeded(0):
        model = BPRMF(10, BPRMF.Config(embedding_size=8, bias=bias), 20)
    train(model, tastes(), TrainConfig.of({**BPRMF.recipe, "batch": 32, "epochs": 40}))
    found = scores(model.eval(), list(range(1, 21)))  # [20, 10]
    first, second = found[:, :5], found[:, 5:]
    assert bool((first[0::2].amin(1) > second[0::2].amax(1)).all())
    assert bool((second[1::2].amin(1) > first[1::2].amax(1)).all())


def test_a_user_never_seen_is_shown_what_is_popular() -> None:
    """Items 1, 2, 3 taken 60, 25 and 5 times by users in turn, and 4 by nobody."""
    items = np.random.default_rng(0).permutation(np.repeat([1, 2, 3], [60, 25, 5])).astype(np.int32)
    ends = np.arange(0, 91, 3, dtype=np.int64)
    log = Sequences(items, ends, ends, np.zeros(90, np.uint8), np.arange(1, 31, dtype=np.int32))
    for bias in (True, False):
        with seeded(0):
            model = BPRMF(4, BPRMF.Config(embedding_size=8, bias=bias), 30)
        train(model, log, TrainConfig.of({**BPRMF.recipe, "batch": 16, "epochs": 20, "exclude_touched": False}))
        assert scores(model.eval(), [0])[0].argsort(descending=True).tolist() == [0, 1, 2, 3]


def slow_means(model: BPRMF, items: list[int]) -> list[float]:
    """Scores of a session without a user, one number at a time."""
    q = model.item.tolist()
    out = []
    for item in range(model.n_items):
        bias = 0.0 if model.bias is None else float(model.bias[item].detach())
        each = [sum(a * b for a, b in zip(q[seen - 1], q[item], strict=True)) for seen in items]
        out.append(bias + (sum(each) / len(each) if each else 0.0))
    return out


def test_a_session_by_hand() -> None:
    """q = (1, 0), (0, 1), (2, 1) and b = 0.5, 0, -1: after item 3 p = (2, 1), after item 2 it is (1, 1)."""
    model = BPRMF(3, BPRMF.Config(embedding_size=2, users=False))
    with torch.no_grad():
        model.item.copy_(by_hand().item)
        model.bias.copy_(by_hand().bias)
    query, state = model(Events.of([[3, 2]]), model.initial_state(torch.tensor([0])))
    assert model.score(query)[0].tolist() == [[2.5, 1.0, 4.0], [1.5, 1.0, 2.0]]
    assert {name: part.tolist() for name, part in state.items()} == {"sum": [[2, 2]], "count": [2]}


@pytest.mark.parametrize("bias", [True, False])
def test_a_session_equals_the_slow_version_however_it_is_cut(bias: bool) -> None:
    model, rng = small(30, 0, users=False, bias=bias), np.random.default_rng(0)
    items = rng.integers(1, 31, 200).tolist()
    events, state = Events.of([items]), model.initial_state(torch.tensor([0]))
    parts = []
    for first, last in ((0, 1), (1, 1), (1, 80), (80, 200)):
        query, state = model(events.cut(first, last), state)
        parts.append(model.score(query)[0].detach())
    found = torch.cat(parts)  # [200, 30]
    for length in (1, 2, 7, 80, 81, 200):
        wanted = torch.tensor(slow_means(model, items[:length]), dtype=torch.float64)
        torch.testing.assert_close(found[length - 1], wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.score(model.query(state))[0, 0].detach(), found[-1], rtol=0, atol=1e-12)
    assert {name: tuple(part.shape) for name, part in state.items()} == {"sum": (1, 4), "count": (1,)}


def test_before_any_event_a_session_has_the_bias_alone() -> None:
    model = small(users=False)
    assert scores(model, [0, 2]).tolist() == [slow_means(model, [])] * 2, "whoever asks"
    assert not scores(small(users=False, bias=False), [0]).any()


def test_a_session_has_no_users() -> None:
    model = small(users=False)
    assert (BPRMF.scope, small().scope, model.scope) == ("user", "user", "session")
    assert (small().needs, model.needs) == ({"users"}, set())
    assert set(model.state_dict()) == {"item", "bias"}
    wanted = model.item[3].square().sum() + model.bias[3] ** 2
    torch.testing.assert_close(squares(model.owned(torch.tensor([1, 0]), torch.tensor([4]))), wanted)


def test_sessions_teach_which_items_go_together() -> None:
    """Sessions of items 1-5 or of 6-10, whose rows have no user: two of a kind ask for the rest of it."""
    log = tastes()
    nobody = Sequences(log.items, log.users, log.sessions, log.part, np.zeros(20, np.int32))
    with seeded(0):
        model = BPRMF(10, BPRMF.Config(embedding_size=8, users=False))
    train(model, nobody, TrainConfig.of({**BPRMF.recipe, "batch": 32, "epochs": 40}))
    events = Events.of([[1, 4], [8, 6]])
    query, _ = model.eval()(events, model.initial_state(torch.tensor([0, 0])))
    found = model.score(query)[:, -1].detach()  # [2, 10]
    assert float(found[0, :5].amin()) > float(found[0, 5:].amax())
    assert float(found[1, 5:].amin()) > float(found[1, :5].amax())
