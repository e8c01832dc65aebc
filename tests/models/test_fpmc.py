"""FPMC by hand, against a slow version written from the formula, and against what it must equal."""

import numpy as np
import pytest
import torch
from tests.squares import squares
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.models.baselines.bpr_mf import BPRMF
from foretaste.models.baselines.fpmc import BASKET, FPMC
from foretaste.models.contract import Events, seeded
from foretaste.training.loop import TrainConfig, train

VARIANTS = [{}, {"basket": "session"}, {"users": False}, {"users": False, "basket": "session"}]
YES, NO = True, False


def small(n_items: int = 12, n_users: int = 3, **config: object) -> FPMC:
    with seeded(7):
        model = FPMC(n_items, FPMC.Config(embedding_size=4, **config), n_users)
    for weight in model.parameters():
        weight.data *= 10
    return model.double().eval()


def run(model: FPMC, items: list[int], starts: list[bool] | None = None, user: int = 2) -> Tensor:
    """Scores [T, I] after each event."""
    events = Events.of([items], None if starts is None else [starts])
    query, _ = model(events, model.initial_state(torch.tensor([user])))
    return model.score(query)[0].detach()


def slow_scores(model: FPMC, items: list[int], starts: list[bool], user: int) -> Tensor:
    """Scores [I] after the last of `items`, term by term: each candidate, each item of the basket, each user."""
    w, basket = model.state_dict(), []
    for item, begins in zip(items, starts, strict=True):
        if begins or model.config.basket == "event":
            basket = []
        basket = [*(kept for kept in basket if kept != item), item][-BASKET:]
    out = torch.zeros(model.n_items, dtype=torch.float64)
    for candidate in range(model.n_items):
        if model.config.users:
            asking = [user] if user else range(1, model.n_users + 1)
            out[candidate] += sum(float(w["user.weight"][u] @ w["liked"][candidate]) for u in asking) / len(asking)
        for item in basket:
            out[candidate] += float(w["source.weight"][item] @ w["next"][candidate]) / len(basket)
    return out


def by_hand(**config: object) -> FPMC:
    """One user, three items, one number each: U = 2; I = 1, 0, -1; F = 1, 2, 6; T = 3, 1, 2."""
    model = FPMC(3, FPMC.Config(embedding_size=1, **config), 1).eval()
    with torch.no_grad():
        model.user.weight[1] = 2.0
        model.liked.copy_(torch.tensor([[1.0], [0.0], [-1.0]]))
        model.source.weight.copy_(torch.tensor([[0.0], [1.0], [2.0], [6.0]]))
        model.next.copy_(torch.tensor([[3.0], [1.0], [2.0]]))
    return model


def test_scores_by_hand() -> None:
    last = run(by_hand(), [1, 3], user=1)
    assert last.tolist() == [[2 + 3, 0 + 1, -2 + 2], [2 + 18, 0 + 6, -2 + 12]]
    basket = run(by_hand(basket="session"), [1, 3, 1, 2, 3], [YES, NO, NO, YES, NO], user=1)
    mean = [1, (1 + 6) / 2, (1 + 6) / 2, 2, (2 + 6) / 2]  # 1 comes twice and counts once; a new session begins
    for found, chain in zip(basket.tolist(), mean, strict=True):
        assert found == [2 + 3 * chain, chain, -2 + 2 * chain]


def test_before_any_event_only_the_taste_speaks() -> None:
    model = by_hand(basket="session")
    assert model.score(model.query(model.initial_state(torch.tensor([1]))))[0, 0].tolist() == [2, 0, -2]
    chain = small(users=False)
    assert not chain.score(chain.query(chain.initial_state(torch.tensor([0])))).any()


@pytest.mark.parametrize("config", VARIANTS, ids=str)
@pytest.mark.parametrize("user", [0, 3])
def test_every_prefix_equals_the_slow_version(config: dict[str, object], user: int) -> None:
    model, items = small(**config), [3, 7, 3, 1, 12, 9, 2, 2, 3, 5, 3]
    starts = [YES, NO, NO, NO, YES, NO, NO, NO, YES, NO, NO]
    fast = run(model, items, starts, user)
    for length in range(1, len(items) + 1):
        wanted = slow_scores(model, items[:length], starts[:length], user)
        torch.testing.assert_close(fast[length - 1], wanted, rtol=0, atol=1e-10)


def test_a_long_session_is_its_last_64_distinct_items_however_it_is_cut() -> None:
    rng = np.random.default_rng(0)
    model, items = small(100, basket="session"), rng.integers(1, 101, 300).tolist()
    starts = [place in (0, 40) for place in range(300)]
    whole = run(model, items, starts)
    for length in (40, 41, 104, 105, 150, 230, 300):
        wanted = slow_scores(model, items[:length], starts[:length], 2)
        torch.testing.assert_close(whole[length - 1], wanted, rtol=0, atol=1e-10)
    events, state = Events.of([items], [starts]), model.initial_state(torch.tensor([2]))
    for first, last in ((0, 1), (1, 77), (77, 78), (78, 200), (200, 300)):
        query, state = model(events.cut(first, last), state)
        torch.testing.assert_close(model.score(query)[0].detach(), whole[first:last], rtol=0, atol=1e-10)
        assert state["basket"].shape == (1, BASKET)
    kept = list(dict.fromkeys(reversed(items[40:])))[:BASKET]
    assert state["basket"][0].tolist() == kept[::-1]


def test_permuting_a_basket_changes_nothing() -> None:
    model = small(basket="session")
    found = run(model, [4, 1, 9, 1, 6])[-1]
    torch.testing.assert_close(run(model, [6, 9, 4, 1])[-1], found, rtol=0, atol=1e-12)
    assert not torch.allclose(run(small(), [4, 1, 9, 6])[-1], run(small(), [6, 9, 4, 1])[-1])


def test_baskets_of_one_event_are_the_last_item() -> None:
    sets, last = small(basket="session"), small()
    last.load_state_dict(sets.state_dict())
    items = [3, 7, 7, 1, 12]
    torch.testing.assert_close(run(sets, items, [YES] * 5), run(last, items, [YES] * 5))
    torch.testing.assert_close(run(last, items), run(last, items, [YES] * 5))


@pytest.mark.parametrize("basket", ["event", "session"])
def test_without_its_chain_it_is_matrix_factorisation(basket: str) -> None:
    model = small(basket=basket)
    factors = BPRMF(12, BPRMF.Config(embedding_size=4, bias=False), 3).double()
    with torch.no_grad():
        model.source.weight.zero_()
        factors.user.weight.copy_(model.user.weight)
        factors.item.copy_(model.liked)
    events, users = Events.of([[3, 7, 1], [2], []]), torch.tensor([2, 0, 3])
    found = model.score(model(events, model.initial_state(users))[0])
    wanted = factors.score(factors(events, factors.initial_state(users))[0])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("basket", ["event", "session"])
def test_without_its_users_it_is_the_chain_alone(basket: str) -> None:
    whole, chain = small(basket=basket), small(basket=basket, users=False)
    with torch.no_grad():
        whole.user.weight.zero_()
        chain.source.weight.copy_(whole.source.weight)
        chain.next.copy_(whole.next)
    torch.testing.assert_close(run(whole, [3, 7, 3, 1]), run(chain, [3, 7, 3, 1]), rtol=0, atol=1e-12)
    assert set(chain.initial_state(torch.tensor([5]))) == {"basket"}, "whoever asks"


def test_what_each_variant_needs() -> None:
    needs = {str(config): FPMC.needs_of(FPMC.Config(**config)) for config in VARIANTS}
    assert list(needs.values()) == [{"users"}, {"users", "sessions"}, set(), {"sessions"}]
    assert small(users=False).needs == set()


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_no_positions_and_rows_of_unlike_length(config: dict[str, object]) -> None:
    model, users = small(**config), torch.tensor([1, 2, 0])
    start = model.initial_state(users)
    query, state = model(Events.of([[], [], []]), start)
    assert query.shape == (3, 0, 4 if model.config.users is False else 8)
    assert all(torch.equal(state[name], part) for name, part in start.items())
    _, state = model(Events.of([[1, 2, 1], [], [5]]), state)
    events = Events.of([[], [4, 6], [7]], [[], [YES, NO], [NO]])
    query, state = model(events, state)
    newest = {"event": [[1], [6], [7]], "session": [[2, 1], [4, 6], [5, 7]]}[model.config.basket]
    assert [[n for n in row if n] for row in state["basket"].tolist()] == newest
    torch.testing.assert_close(model.query(state)[1, 0], query[1, 1])


def test_the_penalty_by_hand() -> None:
    found = squares(by_hand().owned(torch.tensor([1, 0]), torch.tensor([3, 1, 1])))
    assert found.item() == 4 + (1 + 36 + 4) + 2 * (1 + 1 + 9)
    chain = small(users=False)
    wanted = 2 * (chain.source.weight[5].square().sum() + chain.next[4].square().sum())
    torch.testing.assert_close(squares(chain.owned(torch.tensor([0]), torch.tensor([5, 5]))), wanted)


def test_gradients_reach_every_item_of_a_basket_begun_in_an_earlier_call() -> None:
    model = small(basket="session")
    _, state = model(Events.of([[3, 8]]), model.initial_state(torch.tensor([1])))
    state = {name: part.detach() for name, part in state.items()}
    query, _ = model(Events.of([[5]], [[NO]]), state)
    model.score(query).square().sum().backward()
    moved = model.source.weight.grad.abs().sum(1).nonzero()[:, 0]
    assert moved.tolist() == [3, 5, 8]


def test_the_reason_is_the_basket_and_the_two_halves_of_the_score() -> None:
    model = by_hand(basket="session")
    events = Events.of([[1, 3, 1], [2]], [[YES, NO, NO], [YES]])
    state = model.initial_state(torch.tensor([1, 1]))
    reasons = model.explain(events, state, torch.tensor([3, 1]))
    pairs = {(int(n), float(w)) for n, w in zip(reasons["items"][0, 2], reasons["attention"][0, 2], strict=True) if n}
    assert pairs == {(1, 0.5), (3, 0.5)}
    assert reasons["taste"][0, 2].tolist() == [-2, 2]
    assert reasons["chain"][0, 2].tolist() == [7, 10.5]
    scores = model.score(model(events, state)[0], torch.tensor([3, 1]))
    torch.testing.assert_close(reasons["taste"] + reasons["chain"], scores)
    only = small(users=False).explain(events, small(users=False).initial_state(torch.tensor([0, 0])), torch.tensor([1]))
    assert set(only) == {"attention", "items", "chain"}


def test_it_learns_taste_and_chain_together() -> None:
    """Item 1 is followed by 2 or 3, item 4 by 5 or 6: the even or the odd one, by the user."""
    rng = np.random.default_rng(0)
    heads = rng.choice([1, 4], (40, 10))  # [users, pairs]
    tails = np.where(np.arange(40)[:, None] % 2 == 0, np.where(heads == 1, 2, 6), np.where(heads == 1, 3, 5))
    items = np.stack([heads, tails], -1).reshape(-1).astype(np.int32)
    users, sessions = np.arange(0, 801, 20, dtype=np.int64), np.arange(0, 801, 2, dtype=np.int64)
    log = Sequences(items, users, sessions, np.zeros(800, np.uint8), np.arange(1, 41, dtype=np.int32))
    with seeded(0):
        model = FPMC(6, FPMC.Config(embedding_size=8), 40)
    train(model, log, TrainConfig.of({**FPMC.recipe, "batch": 64, "epochs": 25}))
    events = Events.of([[1], [4]] * 40)
    state = model.initial_state(torch.arange(1, 41).repeat_interleave(2))
    best = model.eval().score(model(events, state)[0])[:, 0].argmax(-1) + 1  # [80]
    wanted = [item for user in range(40) for item in ((2, 6) if user % 2 == 0 else (3, 5))]
    assert best.tolist() == wanted
