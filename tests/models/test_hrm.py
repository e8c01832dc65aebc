"""HRM by hand, against a slow version written from the formula, and against what it must equal."""

import numpy as np
import pytest
import torch
from tests.squares import squares
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.models.baselines.fpmc import BASKET, FMC, FPMC
from foretaste.models.baselines.hrm import HRM
from foretaste.models.contract import Events, seeded
from foretaste.training.loop import TrainConfig, train

KINDS = [(inner, outer) for inner in ("max", "avg") for outer in ("max", "avg")]
YES, NO = True, False

pairs = pytest.mark.parametrize(("inner", "outer"), KINDS)


def small(n_items: int = 12, n_users: int = 3, **config: object) -> HRM:
    with seeded(7):
        model = HRM(n_items, HRM.Config(embedding_size=4, **config), n_users)
    for weight in model.parameters():
        weight.data *= 10
    return model.double().eval()


def run(model: HRM | FPMC, items: list[int], starts: list[bool] | None = None, user: int = 2) -> Tensor:
    """Scores [T, I] after each event."""
    events = Events.of([items], None if starts is None else [starts])
    query, _ = model(events, model.initial_state(torch.tensor([user])))
    return model.score(query)[0].detach()


def slow_scores(model: HRM, items: list[int], starts: list[bool], user: int) -> Tensor:
    """Scores [I] after the last of `items`, number by number."""
    c, v, basket = model.config, model.item.weight.tolist(), []
    for item, begins in zip(items, starts, strict=True):
        if begins or c.basket == "event":
            basket = []
        basket = [*(kept for kept in basket if kept != item), item][-BASKET:]
    out = torch.zeros(model.n_items, dtype=torch.float64)
    for place in range(c.embedding_size):
        parts = []
        if c.users:
            column = model.user.weight[:, place].tolist()
            parts.append(column[user] if user else sum(column[1:]) / model.n_users)
        if basket:
            of_items = [v[item][place] for item in basket]
            parts.append(max(of_items) if c.inner == "max" else sum(of_items) / len(of_items))
        h = 0.0 if not parts else max(parts) if c.outer == "max" else sum(parts) / len(parts)
        for item in range(1, model.n_items + 1):
            out[item - 1] += v[item][place] * h
    return out


def by_hand(**config: object) -> HRM:
    """One user (-3, 4), items (1, -1), (-2, 3), (-4, -6)."""
    model = HRM(3, HRM.Config(embedding_size=2, **config), 1).eval()
    with torch.no_grad():
        model.user.weight[1] = torch.tensor([-3.0, 4.0])
        model.item.weight[1:] = torch.tensor([[1.0, -1.0], [-2.0, 3.0], [-4.0, -6.0]])
    return model


@pytest.mark.parametrize(
    ("inner", "outer", "h"),
    [
        ("max", "max", (-2, 4)),  # t = (-2, 3): no zero of padding is the maximum
        ("max", "avg", (-2.5, 3.5)),
        ("avg", "max", (-3, 4)),  # t = (-3, -1.5)
        ("avg", "avg", (-3, 1.25)),
    ],
)
def test_the_four_aggregates_by_hand(inner: str, outer: str, h: tuple[float, float]) -> None:
    model = by_hand(inner=inner, outer=outer, basket="session")
    events = Events.of([[2, 3, 2]])
    query, _ = model(events, model.initial_state(torch.tensor([1])))
    assert query[0, 2].tolist() == list(h)
    a, b = h
    assert run(model, [2, 3, 2], user=1)[2].tolist() == [a - b, -2 * a + 3 * b, -4 * a - 6 * b]


@pairs
def test_before_any_event_it_is_the_user_alone(inner: str, outer: str) -> None:
    model = by_hand(inner=inner, outer=outer)
    assert model.query(model.initial_state(torch.tensor([1])))[0, 0].tolist() == [-3, 4]
    alone = small(users=False, inner=inner, outer=outer)
    assert not alone.query(alone.initial_state(torch.tensor([0]))).any()


@pairs
@pytest.mark.parametrize("basket", ["event", "session"])
@pytest.mark.parametrize(("users", "user"), [(True, 3), (True, 0), (False, 0)])
def test_every_prefix_equals_the_slow_version(inner: str, outer: str, basket: str, users: bool, user: int) -> None:
    model = small(inner=inner, outer=outer, basket=basket, users=users)
    items, starts = [3, 7, 3, 1, 12, 9, 2, 2, 3, 5, 3], [YES, NO, NO, NO, YES, NO, NO, NO, YES, NO, NO]
    fast = run(model, items, starts, user)
    for length in range(1, len(items) + 1):
        wanted = slow_scores(model, items[:length], starts[:length], user)
        torch.testing.assert_close(fast[length - 1], wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("inner", ["max", "avg"])
def test_a_long_session_is_its_last_64_distinct_items_however_it_is_cut(inner: str) -> None:
    rng = np.random.default_rng(0)
    model, items = small(100, basket="session", inner=inner), rng.integers(1, 101, 200).tolist()
    starts = [place in (0, 40) for place in range(200)]
    whole = run(model, items, starts)
    for length in (40, 41, 104, 200):
        wanted = slow_scores(model, items[:length], starts[:length], 2)
        torch.testing.assert_close(whole[length - 1], wanted, rtol=0, atol=1e-10)
    events, state = Events.of([items], [starts]), model.initial_state(torch.tensor([2]))
    for first, last in ((0, 1), (1, 77), (77, 200)):
        query, state = model(events.cut(first, last), state)
        torch.testing.assert_close(model.score(query)[0].detach(), whole[first:last], rtol=0, atol=1e-10)
        assert state["basket"].shape == (1, BASKET)


@pairs
def test_neither_order_nor_padding_nor_repeats_matter_to_a_basket(inner: str, outer: str) -> None:
    model = small(basket="session", inner=inner, outer=outer)
    found = run(model, [4, 1, 9, 1, 6])[-1]
    torch.testing.assert_close(run(model, [6, 9, 4, 1])[-1], found, rtol=0, atol=1e-12)
    events = Events.of([[4, 1, 9, 6], [2] * 30])
    query, _ = model(events, model.initial_state(torch.tensor([2, 1])))
    torch.testing.assert_close(model.score(query)[0, 3].detach(), found, rtol=0, atol=1e-12)


def test_averages_add_up_and_maxima_do_not() -> None:
    """avg/avg is half a matrix factorisation and half an FPMC chain with one table: the two parts of the score add."""
    model, users = small(inner="avg", outer="avg", basket="session"), small(inner="avg", basket="session", users=False)
    users.item.weight.data.copy_(model.item.weight)
    taste = model.item_matrix() @ model.user.weight[2]
    chain = run(users, [3, 7])[-1]
    torch.testing.assert_close(run(model, [3, 7])[-1], ((taste + chain) / 2).detach(), rtol=0, atol=1e-12)
    largest = small(inner="avg", outer="max", basket="session")
    assert not torch.allclose(run(largest, [3, 7])[-1], ((taste + chain) / 2).detach())


def test_what_each_variant_needs() -> None:
    assert HRM.needs_of(HRM.Config()) == {"users"}
    assert HRM.needs_of(HRM.Config(basket="session")) == {"users", "sessions"}
    assert HRM.needs_of(HRM.Config(users=False)) == set()
    assert set(small(users=False).initial_state(torch.tensor([5]))) == {"basket"}


def test_dropout_is_in_training_alone() -> None:
    model = small(dropout=0.5)
    still = run(model, [3, 7])
    assert torch.equal(still, run(model, [3, 7]))
    with seeded(0):
        assert not torch.equal(still, run(model.train(), [3, 7]))


@pairs
def test_a_weight_that_is_not_the_maximum_gets_no_gradient(inner: str, outer: str) -> None:
    model = by_hand(inner=inner, outer=outer, basket="session", dropout=0.0)
    query, _ = model(Events.of([[2, 3]]), model.initial_state(torch.tensor([1])))
    query[0, 1].sum().backward()
    t = {"max": [[1, 1], [0, 0]], "avg": [[0.5, 0.5], [0.5, 0.5]]}[inner]
    u = [1, 1]
    if outer == "avg":
        t, u = [[x / 2 for x in row] for row in t], [0.5, 0.5]
    else:  # u = (-3, 4) against t = (-2, 3), or (-3, -1.5): equal numbers share
        of_t = [1, 0] if inner == "max" else [0.5, 0]
        t, u = [[x * y for x, y in zip(row, of_t, strict=True)] for row in t], [1 - y for y in of_t]
    assert model.item.weight.grad[2:].tolist() == t
    assert model.user.weight.grad[1].tolist() == u


def test_the_penalty_by_hand() -> None:
    found = squares(by_hand().owned(torch.tensor([1, 0]), torch.tensor([3, 1, 1])))
    assert found.item() == (9 + 16) + (16 + 36) + 2 * 2


def test_the_reason_is_whose_numbers_the_basket_has() -> None:
    events = Events.of([[1, 2, 3]])
    for inner, wanted in (("max", {1: 0.5, 2: 0.5, 3: 0.0}), ("avg", {1: 1 / 3, 2: 1 / 3, 3: 1 / 3})):
        model = by_hand(inner=inner, basket="session")
        reasons = model.explain(events, model.initial_state(torch.tensor([1])))
        found = dict(zip(reasons["items"][0, 2].tolist(), reasons["attention"][0, 2].tolist(), strict=True))
        assert {item: found[item] for item in (1, 2, 3)} == pytest.approx(wanted)
        assert found[0] == 0


def test_identical_items_one_event_and_a_catalogue_of_two() -> None:
    model = small(2, basket="session")
    torch.testing.assert_close(run(model, [1, 1, 1])[-1], run(model, [1])[-1])
    log = Sequences(
        np.array([1, 2, 1], dtype=np.int32), np.array([0, 1, 3]), np.array([0, 1, 3]), np.zeros(3, np.uint8),
        np.array([1, 2], dtype=np.int32),
    )  # fmt: skip
    fresh = HRM(2, HRM.Config(embedding_size=4), 2)
    train(fresh, log, TrainConfig.of({**HRM.recipe, "epochs": 1}))
    assert all(bool(weight.isfinite().all()) for weight in fresh.parameters())


def test_it_learns_taste_and_chain_together() -> None:
    """Item 1 is followed by 2 or 3, item 4 by 5 or 6: the even or the odd one, by the user."""
    rng = np.random.default_rng(0)
    heads = rng.choice([1, 4], (40, 10))  # [users, pairs]
    tails = np.where(np.arange(40)[:, None] % 2 == 0, np.where(heads == 1, 2, 6), np.where(heads == 1, 3, 5))
    items = np.stack([heads, tails], -1).reshape(-1).astype(np.int32)
    users, sessions = np.arange(0, 801, 20, dtype=np.int64), np.arange(0, 801, 2, dtype=np.int64)
    log = Sequences(items, users, sessions, np.zeros(800, np.uint8), np.arange(1, 41, dtype=np.int32))
    with seeded(0):
        model = HRM(6, HRM.Config(embedding_size=16, dropout=0.0), 40)
    plan = {**HRM.recipe, "batch": 64, "epochs": 25, "negatives": 5, "sampler": "uniform", "learning_rate": 0.02}
    train(model, log, TrainConfig.of(plan))
    events = Events.of([[1], [4]] * 40)
    state = model.initial_state(torch.arange(1, 41).repeat_interleave(2))
    best = model.eval().score(model(events, state)[0])[:, 0].argmax(-1) + 1  # [80]
    wanted = [item for user in range(40) for item in ((2, 6) if user % 2 == 0 else (3, 5))]
    assert (best == torch.tensor(wanted)).float().mean() >= 0.95


def test_fmc_is_fpmc_without_users_under_its_own_name() -> None:
    with seeded(7):
        one = FMC(12, FMC.Config(embedding_size=4), 0).eval()
    with seeded(7):
        other = FPMC(12, FPMC.Config(embedding_size=4, users=False), 0).eval()
    assert torch.equal(run(one, [3, 7, 3]), run(other, [3, 7, 3]))
    assert FMC.needs_of(FMC.Config()) == set()
    assert FMC.needs_of(FMC.Config(basket="session")) == {"sessions"}
