"""SHAN by hand, against a slow version written event by event from the equations, and against what it must equal."""

import math
from typing import Any

import pytest
import torch
from tests.squares import squares
from torch import Tensor

from foretaste.errors import ConfigError
from foretaste.models.baselines.shan import SHAN
from foretaste.models.contract import Events, seeded
from foretaste.training.loop import TrainConfig

YES, NO = True, False
ITEMS = [3, 7, 3, 1, 12, 9, 2, 2, 3, 5, 3]
STARTS = [YES, NO, NO, NO, YES, NO, NO, NO, YES, NO, NO]
VARIANTS: list[dict[str, Any]] = [{}, {"activation": "sigmoid"}, {"parts": "long"}, {"parts": "short"}]


def small(n_items: int = 12, n_users: int = 3, **config: Any) -> SHAN:
    with seeded(7):
        model = SHAN(n_items, SHAN.Config(embedding_size=4, **config), n_users)
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight)
    for table in (model.item, model.user):
        table.weight.data *= 10
    return model.double().eval()


def run(model: SHAN, items: list[int], starts: list[bool] | None = None, user: int = 2) -> Tensor:
    """u_hybrid [T, D] after each event."""
    events = Events.of([items], None if starts is None else [starts])
    return model(events, model.initial_state(torch.tensor([user])))[0][0].detach()


def slow_hybrid(model: SHAN, items: list[int], starts: list[bool], user: int) -> Tensor:
    """u_hybrid [D] after the last of `items`: two softmaxes written out, over lists."""
    w, phi = model.state_dict(), getattr(torch, model.config.activation)
    u = w["user.weight"][user] if user else w["user.weight"][1:].mean(0)
    last = max(place for place, begins in enumerate(starts) if begins)
    closed, now = ([w["item.weight"][item] for item in part] for part in (items[:last], items[last:]))

    def attend(vectors: list[Tensor], layer: str) -> Tensor:
        scores = [float(u @ phi(w[f"{layer}.weight"] @ x + w[f"{layer}.bias"])) for x in vectors]
        total = sum(math.exp(score) for score in scores)
        return sum(math.exp(score) / total * x for score, x in zip(scores, vectors, strict=True)) + torch.zeros_like(u)

    if model.config.parts == "short":
        return attend(now, "W2")
    u_long = [attend(closed, "W1")] if closed else []
    if model.config.parts == "long":
        return u_long[0] if u_long else torch.zeros_like(u)
    return attend([*u_long, *now], "W2")


@pytest.mark.parametrize("config", VARIANTS, ids=str)
@pytest.mark.parametrize("user", [0, 3])
def test_every_prefix_equals_the_slow_version(config: dict[str, Any], user: int) -> None:
    model = small(**config)
    fast = run(model, ITEMS, STARTS, user)
    for length in range(1, len(ITEMS) + 1):
        wanted = slow_hybrid(model, ITEMS[:length], STARTS[:length], user)
        torch.testing.assert_close(fast[length - 1], wanted, rtol=0, atol=1e-10)


def test_two_sessions_by_hand() -> None:
    """D = 1, u = 1, x = 1, 2, 4; W1 = 1 and W2 = ln 2, so that exp(score) = e^x and 2^x; no bias."""
    model = SHAN(3, SHAN.Config(embedding_size=1), 1).double().eval()
    with torch.no_grad():
        model.user.weight[1] = 1.0
        model.item.weight.copy_(torch.tensor([[0.0], [1.0], [2.0], [4.0]]))
        model.W1.weight.fill_(1.0)
        model.W2.weight.fill_(math.log(2))
    found = run(model, [1, 2, 3], [YES, NO, YES], user=1)[:, 0]
    long = (math.e * 1 + math.e**2 * 2) / (math.e + math.e**2)
    wanted = [1.0, (2 * 1 + 4 * 2) / (2 + 4), (2**long * long + 16 * 4) / (2**long + 16)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-12)


def test_one_event_is_its_item_alone_and_padding_has_no_weight() -> None:
    """A short history is no padded one: neither an empty long term nor a place without an item takes part."""
    model = small()
    torch.testing.assert_close(run(model, [5])[0], model.item.weight[5].detach())
    events = Events.of([[5], [5, 3, 8, 1]])
    query, state = model(events, model.initial_state(torch.tensor([2, 2])))
    torch.testing.assert_close(query[0, 0], model.item.weight[5])
    torch.testing.assert_close(model.query(state)[0, 0], model.item.weight[5])


def test_order_inside_a_session_and_order_of_closed_sessions_change_nothing() -> None:
    model = small()
    found = run(model, [4, 1, 9, 6, 2, 8], [YES, NO, YES, NO, YES, NO])[-1]
    other = run(model, [6, 9, 4, 1, 8, 2], [YES, NO, YES, NO, YES, NO])[-1]
    torch.testing.assert_close(other, found, rtol=0, atol=1e-12)
    moved = run(model, [4, 1, 9, 2, 6, 8], [YES, NO, YES, NO, YES, NO])[-1]
    assert not torch.allclose(moved, found)


def test_the_long_term_is_one_item_more_of_the_open_session() -> None:
    """A long term of one item alone is that item, so then the start of the session is of no consequence."""
    model = small()
    torch.testing.assert_close(run(model, [4, 1, 9], [YES, YES, NO]), run(model, [4, 1, 9]), rtol=0, atol=1e-12)


def test_without_closed_sessions_the_short_term_is_all_and_the_long_term_is_nothing() -> None:
    both, short, long = small(), small(parts="short"), small(parts="long")
    short.load_state_dict({name: value for name, value in both.state_dict().items() if "W1" not in name})
    torch.testing.assert_close(run(both, [4, 1, 9]), run(short, [4, 1, 9]), rtol=0, atol=1e-12)
    assert not run(long, [4, 1, 9]).any()
    found = run(long, [4, 1, 9, 8], [YES, NO, YES, NO])
    assert not found[:2].any()
    torch.testing.assert_close(found[3], found[2], rtol=0, atol=0)


def test_scores_of_any_size_and_equal_items_are_safe() -> None:
    model = small()
    model.user.weight.data *= 1e4
    found = run(model, [5] * 300, [place % 7 == 0 for place in range(300)])
    torch.testing.assert_close(found, model.item.weight[5].detach().expand(300, -1), rtol=0, atol=1e-9)
    assert run(model, ITEMS, STARTS).isfinite().all()


def test_an_unknown_user_asks_with_the_mean_of_all() -> None:
    model = small()
    with torch.no_grad():
        model.user.weight[1] = model.user.weight[1:].mean(0)
        model.user.weight[2:] = model.user.weight[1]
    torch.testing.assert_close(run(model, ITEMS, STARTS, 0), run(model, ITEMS, STARTS, 3), rtol=0, atol=1e-12)


def test_before_any_event_all_items_tie() -> None:
    model = small()
    assert not model.score(model.query(model.initial_state(torch.tensor([1])))).any()


def test_the_reasons_are_the_shares_of_the_answer() -> None:
    """With V at least the length the shares sum to 1 and rebuild u_hybrid; alpha sums to 1 once a session is closed."""
    model = small(explained=20)
    events, state = Events.of([ITEMS, ITEMS[:2]], [STARTS, STARTS[:2]]), model.initial_state(torch.tensor([2, 0]))
    reasons, query = model.explain(events, state), model(events, state)[0]
    share = reasons["attention"][0, :, -11:]  # [T, 11] newest last
    torch.testing.assert_close(share.sum(-1), torch.ones(11, dtype=torch.float64))
    for t in range(11):
        seen = model.item.weight[torch.tensor(ITEMS[: t + 1])]
        torch.testing.assert_close(share[t, 10 - t :] @ seen, query[0, t], rtol=0, atol=1e-10)
    alpha = reasons["long_attention"][0].sum(-1)
    torch.testing.assert_close(alpha, torch.tensor([0.0] * 4 + [1.0] * 7, dtype=torch.float64))
    assert not reasons["long_short"][0, :4, 0].any()
    assert bool((reasons["long_short"][0, 4:, 0] > 0).all())
    _, later = model(events.cut(0, 6), state)
    for name, part in model.explain(events.cut(6), later).items():
        torch.testing.assert_close(part[0], reasons[name][0, 6:], rtol=0, atol=1e-10)
    few = small(explained=3)
    few.load_state_dict(model.state_dict())
    newest = few.explain(events, few.initial_state(torch.tensor([2, 0])))["attention"]
    torch.testing.assert_close(newest[0], reasons["attention"][0, :, -3:])


def test_the_penalty_by_hand() -> None:
    model = small()
    wanted = model.user.weight[2].square().sum() + 2 * model.item.weight[5].square().sum()
    torch.testing.assert_close(squares(model.owned(torch.tensor([2, 0]), torch.tensor([5, 5]))), wanted)


def test_defaults_are_the_papers_and_unknown_keys_are_refused() -> None:
    config = SHAN.Config()
    assert (config.embedding_size, config.activation, config.parts) == (100, "relu", "both")
    recipe = TrainConfig.of(SHAN.recipe)
    assert (recipe.loss, recipe.negatives, recipe.sampler, recipe.targets) == ("bpr", 1, "uniform", "event")
    assert SHAN.needs_of(config) == {"users", "sessions"}
    with pytest.raises(ConfigError, match="did you mean 'activation'"):
        SHAN.Config(activaton="relu")
