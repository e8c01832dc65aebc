"""SDM against a slow version written event by event from the equations, and against what it must equal."""

import math
from typing import Any

import pytest
import torch
from tests.squares import squares
from torch import Tensor

from foretaste.errors import ConfigError
from foretaste.models.baselines.sdm import SDM
from foretaste.models.contract import Events, seeded
from foretaste.training.loop import TrainConfig

YES, NO = True, False
ITEMS = [3, 7, 3, 1, 12, 9, 2, 2, 3, 5, 3]
STARTS = [YES, NO, NO, NO, NO, NO, YES, NO, YES, NO, NO]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"heads": 1, "layers": 1},
    {"heads": 3, "residual": False},
    {"layers": 3, "window": 4},
    {"window": 1},
]


def small(n_items: int = 12, n_users: int = 3, **config: Any) -> SDM:
    with seeded(7):
        model = SDM(n_items, SDM.Config(**{"embedding_size": 6, "heads": 2, **config}), n_users)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.6)
    for table in (model.item, model.user):
        table.weight.data[0] = 0
    return model.double().eval()


def run(model: SDM, items: list[int], starts: list[bool] | None = None, user: int = 2) -> Tensor:
    """o [T, D] after each event."""
    events = Events.of([items], None if starts is None else [starts])
    return model(events, model.initial_state(torch.tensor([user])))[0][0].detach()


def softmax_mean(scores: list[float], vectors: list[Tensor], size: int) -> Tensor:
    total = sum(math.exp(score) for score in scores)
    zero = torch.zeros(size, dtype=torch.float64)
    return sum((math.exp(s) / total * v for s, v in zip(scores, vectors, strict=True)), zero)


def slow_answer(model: SDM, items: list[int], starts: list[bool], user: int) -> Tensor:
    """o [D] after the last of `items`: sessions cut into parts of W, one LSTM cell, head and weight after the other."""
    w, c = model.state_dict(), model.config
    D, d = c.embedding_size, c.embedding_size // c.heads
    e = w["user.weight"][user] if user else w["user.weight"][1:].mean(0)
    parts: list[list[int]] = []
    for item, begins in zip(items, starts, strict=True):
        if begins or len(parts[-1]) == c.window:
            parts.append([])
        parts[-1].append(item)

    states = [(torch.zeros(D, dtype=torch.float64),) * 2 for _ in range(c.layers)]
    outputs: list[Tensor] = []
    for item in parts[-1]:
        below = w["item.weight"][item]
        for layer, (h, cell) in enumerate(states):
            name = f"lstms.{layer}."
            gates = w[name + "weight_ih_l0"] @ below + w[name + "bias_ih_l0"]
            i, f, g, o = (gates + w[name + "weight_hh_l0"] @ h + w[name + "bias_hh_l0"]).chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            h = o.sigmoid() * cell.tanh()
            states[layer] = h, cell
            below = h + below if layer else h
        outputs.append(below)

    W_Q, W_K, W_V = w["qkv.weight"].chunk(3)
    attended = []
    for t, h in enumerate(outputs):
        heads = []
        for head in range(c.heads):
            rows = slice(head * d, (head + 1) * d)
            q = W_Q[rows] @ h
            scores = [float(q @ (W_K[rows] @ key)) / math.sqrt(d) for key in outputs[: t + 1]]
            heads.append(softmax_mean(scores, [W_V[rows] @ value for value in outputs[: t + 1]], d))
        mixed = w["W_O.weight"] @ torch.cat(heads)
        if c.residual:
            mixed = torch.nn.functional.layer_norm(h + mixed, (D,), w["norm.weight"], w["norm.bias"])
        attended.append(mixed)
    short = softmax_mean([float(a @ e) for a in attended], attended, D)

    closed = [w["W_f.weight"] @ w["item.weight"][item] + w["W_f.bias"] for part in parts[:-1] for item in part]
    z = softmax_mean([float(g @ e) for g in closed], closed, D)
    p = (w["W_p.weight"] @ z + w["W_p.bias"]).tanh()
    gate = (w["gate.weight"] @ torch.cat([e, short, p]) + w["gate.bias"]).sigmoid()
    return gate * short + (1 - gate) * p


@pytest.mark.parametrize("config", VARIANTS, ids=str)
@pytest.mark.parametrize("user", [0, 3])
def test_every_prefix_equals_the_slow_version(config: dict[str, Any], user: int) -> None:
    model = small(**config)
    fast = run(model, ITEMS, STARTS, user)
    for length in range(1, len(ITEMS) + 1):
        wanted = slow_answer(model, ITEMS[:length], STARTS[:length], user)
        torch.testing.assert_close(fast[length - 1], wanted, rtol=0, atol=1e-10)


def test_a_long_session_is_cut_after_the_window_however_it_comes() -> None:
    """Events 1-4, 5-8, 9-10 of one session are three; and a cut where a part is just full changes nothing."""
    model, items = small(window=4), ITEMS[:10]
    one, three = [YES] + [NO] * 9, [place % 4 == 0 for place in range(10)]
    whole = run(model, items, one)
    torch.testing.assert_close(whole, run(model, items, three), rtol=0, atol=1e-12)
    events, state = Events.of([items], [one]), model.initial_state(torch.tensor([2]))
    for first, last in ((0, 4), (4, 5), (5, 8), (8, 10)):
        query, state = model(events.cut(first, last), state)
        torch.testing.assert_close(query[0], whole[first:last], rtol=0, atol=1e-10)
    assert state["seen"].tolist() == [2]


def test_a_session_of_one_event_attends_to_it_alone() -> None:
    """^h = W_O W_V h, whatever the user and the queries; the gate's two ends are the two terms."""
    model = small(residual=False, layers=1, heads=1)
    events, state = Events.of([[5]]), model.initial_state(torch.tensor([2]))
    h = model.lstms[0](model.item(torch.tensor([[5]])))[0][0, 0]
    short = model.W_O.weight @ (model.qkv.weight[12:] @ h)
    model.gate.weight.data.zero_()
    model.gate.bias.data.fill_(40.0)
    torch.testing.assert_close(model(events, state)[0][0, 0], short, rtol=0, atol=1e-10)
    model.gate.bias.data.fill_(-40.0)
    torch.testing.assert_close(model(events, state)[0][0, 0], model.W_p.bias.tanh(), rtol=0, atol=1e-10)


def test_closed_sessions_count_without_order_and_the_open_one_with_it() -> None:
    model = small()
    found = run(model, [4, 1, 9, 6, 2, 8], [YES, NO, YES, NO, YES, NO])[-1]
    torch.testing.assert_close(
        run(model, [6, 9, 4, 1, 2, 8], [YES, NO, YES, NO, YES, NO])[-1], found, rtol=0, atol=1e-12
    )
    assert not torch.allclose(run(model, [4, 1, 9, 6, 8, 2], [YES, NO, YES, NO, YES, NO])[-1], found)


def test_before_any_event_it_answers_with_the_gates_share_of_an_empty_long_term() -> None:
    model = small()
    p, e = model.W_p.bias.tanh(), model.user.weight[1]
    gate = torch.sigmoid(model.gate(torch.cat([e, torch.zeros_like(e), p])))
    found = model.query(model.initial_state(torch.tensor([1])))[0, 0]
    torch.testing.assert_close(found, (1 - gate) * p, rtol=0, atol=1e-12)


def test_attention_that_finds_nothing_to_choose_is_a_mean() -> None:
    """Queries and the user's vector 0: every ^h is the mean of the values so far, s the mean of those, z of the g."""
    model = small(residual=False, heads=1, layers=1)
    model.qkv.weight.data[:6] = 0
    model.user.weight.data.zero_()
    starts = [YES, NO, YES, NO, NO]
    reasons = model.explain(Events.of([[4, 1, 9, 6, 2]], [starts]), model.initial_state(torch.tensor([1])))
    for name in ("attention", "self_attention"):
        assert reasons[name].shape == (1, 5, 50)
        half, third = [0, 1 / 2, 1 / 2], [1 / 3, 1 / 3, 1 / 3]
        shares = torch.tensor([[0, 0, 1], half, [0, 0, 1], half, third], dtype=torch.float64)
        torch.testing.assert_close(reasons[name][0, :, -3:], shares, rtol=0, atol=1e-12)
    h = model.lstms[0](model.item(torch.tensor([[9, 6, 2]])))[0][0]
    values = h @ model.qkv.weight[12:].T @ model.W_O.weight.T
    every = values.cumsum(0) / torch.arange(1, 4)[:, None]
    model.gate.weight.data.zero_()
    model.gate.bias.data.fill_(40.0)
    torch.testing.assert_close(run(model, [4, 1, 9, 6, 2], starts, 1)[-1], every.mean(0), rtol=0, atol=1e-10)


def test_the_reasons_are_the_same_wherever_the_row_is_cut() -> None:
    model = small(window=4)
    events, state = Events.of([ITEMS, ITEMS[:8]], [STARTS, STARTS[:8]]), model.initial_state(torch.tensor([2, 0]))
    whole = model.explain(events, state)
    torch.testing.assert_close(whole["attention"][0].sum(-1), torch.ones(11, dtype=torch.float64))
    torch.testing.assert_close(whole["self_attention"][0].sum(-1), torch.ones(11, dtype=torch.float64))
    assert whole["gate"].shape == (2, 11, 6)
    _, later = model(events.cut(0, 7), state)
    for name, part in model.explain(events.cut(7), later).items():
        torch.testing.assert_close(part[0], whole[name][0, 7:], rtol=0, atol=1e-10)


def test_the_penalty_by_hand() -> None:
    model = small()
    of_item = model.item.weight[5].square().sum() + model.v[4].square().sum()
    wanted = model.user.weight[2].square().sum() + 2 * of_item
    torch.testing.assert_close(squares(model.owned(torch.tensor([2, 0]), torch.tensor([5, 5]))), wanted)


def test_defaults_and_what_is_refused() -> None:
    config, recipe = SDM.Config(), TrainConfig.of(SDM.recipe)
    assert (config.embedding_size, config.layers, config.heads, config.window, config.dropout) == (128, 2, 4, 50, 0.2)
    assert (recipe.loss, recipe.optimizer, recipe.learning_rate, recipe.clip) == (
        "sampled_softmax",
        "adagrad",
        0.1,
        5.0,
    )
    assert SDM.needs_of(config) == {"users", "sessions"}
    with pytest.raises(ConfigError, match="cannot be divided among 3 heads"):
        SDM.Config(embedding_size=128, heads=3)
    with pytest.raises(ConfigError, match="did you mean 'heads'"):
        SDM.Config(head=3)
    model = SDM(4, SDM.Config(embedding_size=8))
    assert bool((model.lstms[0].bias_ih_l0[8:16] == 1).all())
    torch.testing.assert_close(model.W_p.weight @ model.W_p.weight.T, torch.eye(8))
