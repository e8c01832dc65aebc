"""DREAM by hand, against a slow version written basket by basket from the equations, and against what it must equal."""

import math
from typing import Any

import pytest
import torch
from tests.squares import squares
from torch import Tensor

from foretaste.errors import ConfigError
from foretaste.models.baselines.dream import DREAM
from foretaste.models.baselines.fpmc import BASKET
from foretaste.models.contract import Events, seeded
from foretaste.training.loop import TrainConfig

YES, NO = True, False
ITEMS = [3, 7, 3, 1, 12, 9, 2, 2, 3, 5, 3]
STARTS = [YES, NO, NO, NO, YES, NO, NO, NO, YES, NO, NO]
CELLS = ["sigmoid", "tanh", "gru", "lstm"]
VARIANTS = [
    {"basket": basket, "pool": pool, "cell": cell}
    for basket, pool in (("event", "max"), ("session", "max"), ("session", "mean"))
    for cell in CELLS
]


def small(n_items: int = 12, **config: Any) -> DREAM:
    with seeded(7):
        model = DREAM(n_items, DREAM.Config(embedding_size=4, **config))
    for weight in model.parameters():
        weight.data *= 3
    return model.double().eval()


def run(model: DREAM, items: list[int], starts: list[bool] | None = None) -> Tensor:
    """h [T, D] after each event."""
    events = Events.of([items], None if starts is None else [starts])
    return model(events, model.initial_state(torch.tensor([0])))[0][0].detach()


def slow_state(model: DREAM, items: list[int], starts: list[bool]) -> Tensor:
    """h [D] after the last of `items`: baskets as sets, one cell step each."""
    w, c, baskets = model.state_dict(), model.config, []
    for item, begins in zip(items, starts, strict=True):
        if begins or c.basket == "event":
            baskets.append([])
        baskets[-1] = [*(kept for kept in baskets[-1] if kept != item), item][-BASKET:]
    h = cell = torch.zeros(c.embedding_size, dtype=torch.float64)
    for basket in baskets:
        vectors = torch.stack([w["item.weight"][item] for item in basket])
        b = vectors.amax(0) if c.pool == "max" else vectors.sum(0) / len(basket)
        x, r = w["cell.weight_ih_l0"] @ b, w["cell.weight_hh_l0"] @ h
        if c.cell in ("sigmoid", "tanh"):
            h = getattr(torch, c.cell)(x + r)
            continue
        x, r = x + w["cell.bias_ih_l0"], r + w["cell.bias_hh_l0"]
        if c.cell == "gru":
            (x_r, x_z, x_n), (r_r, r_z, r_n) = x.chunk(3), r.chunk(3)
            z = (x_z + r_z).sigmoid()
            h = (1 - z) * (x_n + (x_r + r_r).sigmoid() * r_n).tanh() + z * h
        else:
            i, f, g, o = (x + r).chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            h = o.sigmoid() * cell.tanh()
    return h


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_every_prefix_equals_the_slow_version(config: dict[str, Any]) -> None:
    model = small(**config)
    fast = run(model, ITEMS, STARTS)
    for length in range(1, len(ITEMS) + 1):
        wanted = slow_state(model, ITEMS[:length], STARTS[:length])
        torch.testing.assert_close(fast[length - 1], wanted, rtol=0, atol=1e-10)


def by_hand(**config: Any) -> DREAM:
    """One number an item, 1, -2, 3; X = 1, R = 2."""
    model = DREAM(3, DREAM.Config(embedding_size=1, **config)).double().eval()
    with torch.no_grad():
        model.item.weight.copy_(torch.tensor([[0.0], [1.0], [-2.0], [3.0]]))
        model.cell.weight_ih_l0.fill_(1.0)
        model.cell.weight_hh_l0.fill_(2.0)
    return model


def sigma(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def test_two_baskets_by_hand() -> None:
    """{2, 1} has a maximum of 1 and a mean of -1/2, {3, 2} of 3 and 1/2."""
    items, starts = [2, 1, 3, 2], [YES, NO, YES, NO]
    for pool, first, second in (("max", (-2, 1), (3, 3)), ("mean", (-2, -0.5), (3, 0.5))):
        found = run(by_hand(basket="session", pool=pool), items, starts)[:, 0].tolist()
        h = sigma(first[1])
        assert found == pytest.approx(
            [sigma(first[0]), h, sigma(second[0] + 2 * h), sigma(second[1] + 2 * h)], abs=1e-12
        )
    events = run(by_hand(), items, starts)[:, 0].tolist()
    h = 0.0
    for number, hidden in zip((-2, 1, 3, -2), events, strict=True):
        h = sigma(number + 2 * h)
        assert hidden == pytest.approx(h, abs=1e-12)


def test_neither_padding_nor_other_sessions_enter_a_basket() -> None:
    """The largest of negative numbers is negative, whatever is padded; a mean divides by its own basket's size."""
    events = Events.of([[2], [2, 1, 3, 3, 1]], [[YES], [YES, NO, YES, NO, YES]])
    for pool in ("max", "mean"):
        model = by_hand(basket="session", pool=pool)
        query, state = model(events, model.initial_state(torch.tensor([0, 0])))
        assert query[0, 0].item() == pytest.approx(sigma(-2), abs=1e-12)
        assert model.query(state)[0, 0].item() == pytest.approx(sigma(-2), abs=1e-12)
        assert query[1, 3].item() == pytest.approx(query[1, 2].item(), abs=1e-12), "3 twice is 3 once"


@pytest.mark.parametrize("cell", CELLS)
def test_baskets_of_one_event_are_events(cell: str) -> None:
    sets, events = small(basket="session", cell=cell), small(cell=cell)
    events.load_state_dict(sets.state_dict())
    torch.testing.assert_close(run(sets, ITEMS, [YES] * 11), run(events, ITEMS, STARTS), rtol=0, atol=1e-12)


def test_permuting_a_basket_changes_nothing() -> None:
    for pool in ("max", "mean"):
        model, starts = small(basket="session", pool=pool), [YES, NO, NO, NO, YES]
        torch.testing.assert_close(run(model, [4, 1, 9, 1, 6], starts)[-1], run(model, [9, 1, 4, 4, 6], starts)[-1])
        assert not torch.allclose(run(model, [6, 1, 9, 1, 4], starts)[-1], run(model, [4, 1, 9, 1, 6], starts)[-1])


def test_a_long_session_is_its_last_64_distinct_items_however_it_is_cut() -> None:
    items = torch.randint(1, 101, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    starts = [place in (0, 40) for place in range(300)]
    model = small(100, basket="session", pool="mean", cell="gru")
    whole = run(model, items, starts)
    for length in (40, 41, 104, 150, 300):
        wanted = slow_state(model, items[:length], starts[:length])
        torch.testing.assert_close(whole[length - 1], wanted, rtol=0, atol=1e-10)
    events, state = Events.of([items], [starts]), model.initial_state(torch.tensor([0]))
    for first, last in ((0, 1), (1, 77), (77, 78), (78, 300)):
        query, state = model(events.cut(first, last), state)
        torch.testing.assert_close(query[0], whole[first:last], rtol=0, atol=1e-10)


def test_before_any_event_all_items_tie() -> None:
    for config in ({}, {"basket": "session", "cell": "lstm"}):
        model = small(**config)
        assert not model.score(model.query(model.initial_state(torch.tensor([0])))).any()


def test_gradients_reach_every_item_of_a_basket_begun_in_an_earlier_call() -> None:
    model = small(basket="session", pool="mean")
    _, state = model(Events.of([[3, 8]]), model.initial_state(torch.tensor([0])))
    query, _ = model(Events.of([[5]], [[NO]]), {name: part.detach() for name, part in state.items()})
    query.square().sum().backward()
    assert model.item.weight.grad.abs().sum(1).nonzero()[:, 0].tolist() == [3, 5, 8]


def test_the_reason_is_who_gave_the_maximum() -> None:
    model = by_hand(basket="session")
    events, state = Events.of([[2, 1, 1, 3]], [[YES, NO, NO, YES]]), model.initial_state(torch.tensor([0]))
    reasons = model.explain(events, state)

    def told(t: int) -> dict[int, float]:
        pairs = zip(reasons["items"][0, t].tolist(), reasons["attention"][0, t].tolist(), strict=True)
        return {item: weight for item, weight in pairs if item}

    assert [told(t) for t in range(4)] == [{2: 1.0}, {2: 0.0, 1: 1.0}, {2: 0.0, 1: 1.0}, {3: 1.0}]
    shared = small(basket="session").explain(Events.of([[4, 1, 9]]), small().initial_state(torch.tensor([0])) | {
        "ids": torch.zeros(1, BASKET, dtype=torch.int64)})  # fmt: skip
    assert float(shared["attention"][0, 2].sum()) == 1.0
    mean = by_hand(basket="session", pool="mean").explain(events, state)
    assert sorted(mean["attention"][0, 2].tolist())[-3:] == [0.0, 0.5, 0.5]
    assert small().explain(events, small().initial_state(torch.tensor([0]))) == {}


def test_the_penalty_by_hand() -> None:
    assert squares(by_hand().owned(torch.tensor([1, 0]), torch.tensor([3, 1, 1]))).item() == 9 + 1 + 1


def test_defaults_needs_and_what_is_refused() -> None:
    config, recipe = DREAM.Config(), TrainConfig.of(DREAM.recipe)
    assert (config.basket, config.pool, config.cell) == ("event", "max", "sigmoid")
    assert (recipe.loss, recipe.negatives, recipe.sampler) == ("bpr", 1, "uniform")
    assert DREAM.needs_of(config) == set()
    assert DREAM.needs_of(DREAM.Config(basket="session")) == {"sessions"}
    with pytest.raises(ConfigError, match="did you mean 'pool'"):
        DREAM.Config(pol="max")
