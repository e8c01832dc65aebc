"""NARM against the equations: golden numbers, a slow version written event by event, and the paper's identities."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foretaste.errors import ConfigError
from foretaste.models.contract import Events, seeded
from foretaste.models.narm import NARM

VARIANTS = [
    {},
    {"encoder": "global"},
    {"encoder": "local"},
    {"attention": "raw"},
    {"decoder": "full"},
    {"window": 3},
    {"window": 3, "attention": "raw", "encoder": "local"},
    {"window": 3, "keep": "first"},
    {"init": "authors"},
]
GOLDEN = json.loads((Path(__file__).parent / "narm_golden.json").read_text())


def small(n_items: int = 12, **config: object) -> NARM:
    with seeded(7):
        return NARM(n_items, NARM.Config(embedding_size=4, hidden_size=5, **config)).double().eval()


def run(model: NARM, items: list[int]) -> Tensor:
    """Scores [T, I] after each event."""
    events = Events.of([items])
    query, _ = model(events, model.initial_state(torch.zeros(1, dtype=torch.int64)))
    return model.score(query)[0]


def slow_scores(model: NARM, items: list[int]) -> Tensor:
    """Scores [I] after the last of `items`, from the equations, one event and one key at a time."""
    c, w = model.config, {name: value.detach() for name, value in model.state_dict().items()}
    if c.keep == "first":
        items = items[: c.window]
    h, states = torch.zeros(c.hidden_size, dtype=torch.float64), []
    for item in items:
        x = w["item.weight"][item]
        from_x = w["gru.weight_ih_l0"] @ x + w["gru.bias_ih_l0"]
        from_h = w["gru.weight_hh_l0"] @ h + w["gru.bias_hh_l0"]
        H = c.hidden_size
        reset = torch.sigmoid(from_x[:H] + from_h[:H])
        update = torch.sigmoid(from_x[H : 2 * H] + from_h[H : 2 * H])
        new = torch.tanh(from_x[2 * H :] + reset * from_h[2 * H :])
        h = (1 - update) * new + update * h
        states.append(h)
    context = h
    if c.encoder != "global":
        keys = states[-c.window :]
        similar = [float(w["v"] @ torch.sigmoid(w["A1.weight"] @ h + w["A2.weight"] @ key)) for key in keys]
        if c.attention == "softmax":
            total = sum(math.exp(s) for s in similar)
            similar = [math.exp(s) / total for s in similar]
        local = sum(s * key for s, key in zip(similar, keys, strict=True))
        context = local if c.encoder == "local" else torch.cat([h, local])
    if c.decoder == "full":
        return w["U"] @ context + w["bias"]
    return w["item.weight"][1:] @ (w["B.weight"] @ context)


def golden_model(**config: object) -> NARM:
    weights = {
        name: torch.tensor(value, dtype=torch.float64) for name, value in GOLDEN["weights"].items() if name != "gru"
    }
    gru = {name: torch.tensor(value, dtype=torch.float64) for name, value in GOLDEN["weights"]["gru"].items()}
    n_items, size = weights["E"].shape
    model = NARM(n_items, NARM.Config(embedding_size=size, hidden_size=len(weights["v"]), **config)).double().eval()
    loaded = {
        "item.weight": torch.cat([torch.zeros(1, size), weights["E"]]),
        "gru.weight_ih_l0": torch.cat([gru["W_ir"], gru["W_iz"], gru["W_in"]]),
        "gru.weight_hh_l0": torch.cat([gru["W_hr"], gru["W_hz"], gru["W_hn"]]),
        "gru.bias_ih_l0": torch.cat([gru["b_ir"], gru["b_iz"], gru["b_in"]]),
        "gru.bias_hh_l0": torch.cat([gru["b_hr"], gru["b_hz"], gru["b_hn"]]),
        "A1.weight": weights["A1"],
        "A2.weight": weights["A2"],
        "v": weights["v"],
        "B.weight": weights["B"],
    }
    model.load_state_dict(loaded)
    return model


@pytest.mark.parametrize(
    ("stored", "config"),
    [("hybrid_softmax", {}), ("hybrid_softmax_window3", {"window": 3}), ("hybrid_raw", {"attention": "raw"})],
)
def test_golden_scores_whole_and_event_by_event(stored: str, config: dict[str, object]) -> None:
    model, items = golden_model(**config), [item + 1 for item in GOLDEN["items"]]
    wanted = torch.tensor(GOLDEN[stored], dtype=torch.float64)
    torch.testing.assert_close(run(model, items), wanted, rtol=0, atol=1e-9)
    state = model.initial_state(torch.zeros(1, dtype=torch.int64))
    for place, item in enumerate(items):
        query, state = model(Events.of([[item]]), state)
        torch.testing.assert_close(model.score(query)[0, 0], wanted[place], rtol=0, atol=1e-9)
    torch.testing.assert_close(run(model.float(), items), wanted.float(), rtol=0, atol=1e-5)


def test_golden_attention() -> None:
    model, items = golden_model(), [item + 1 for item in GOLDEN["items"]]
    state = model.initial_state(torch.zeros(1, dtype=torch.int64))
    weights = model.explain(Events.of([items]), state)["attention"][0]
    for place, wanted in enumerate(GOLDEN["attention"]):
        found = weights[place, weights.shape[1] - place - 1 :]
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-9)
        assert not weights[place, : weights.shape[1] - place - 1].any()


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_all_prefixes_in_one_pass_equal_the_slow_version(config: dict[str, object]) -> None:
    model, items = small(**config), [3, 7, 3, 1, 12, 9, 2, 2]
    fast = run(model, items)
    for length in range(1, len(items) + 1):
        torch.testing.assert_close(fast[length - 1], slow_scores(model, items[:length]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_the_gradient_of_all_prefixes_is_the_sum_over_prefixes(config: dict[str, object]) -> None:
    model, items = small(**config), [3, 7, 3, 1, 12, 9]
    run(model, items[:-1]).log_softmax(-1)[torch.arange(5), torch.tensor(items[1:]) - 1].sum().backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for length in range(1, len(items)):
        run(model, items[:length])[-1].log_softmax(-1)[items[length] - 1].backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(whole[name], parameter.grad, rtol=0, atol=1e-12, msg=name)


def test_one_event_has_weight_one_and_the_context_is_h_twice() -> None:
    model = small()
    state = model.initial_state(torch.zeros(1, dtype=torch.int64))
    events = Events.of([[5]])
    assert model.explain(events, state)["attention"].flatten().tolist() == [1.0]
    _, after = model(events, state)
    torch.testing.assert_close(model.query(after)[:, 0], model.B(torch.cat([after["h"], after["h"]], -1)))


def test_hybrid_without_its_local_half_is_global() -> None:
    hybrid, plain = small(), small(encoder="global")
    plain.item.load_state_dict(hybrid.item.state_dict())
    plain.gru.load_state_dict(hybrid.gru.state_dict())
    with torch.no_grad():
        plain.B.weight.copy_(hybrid.B.weight[:, :5])
        hybrid.B.weight[:, 5:] = 0
    torch.testing.assert_close(run(hybrid, [1, 2, 3]), run(plain, [1, 2, 3]))


def test_after_the_first_w_events_nothing_changes_if_asked_so() -> None:
    model = small(window=3, keep="first")
    scores = run(model, [1, 2, 3, 4, 5, 6])
    torch.testing.assert_close(scores[3:], scores[2].expand(3, -1))
    assert not torch.allclose(run(small(window=3), [1, 2, 3, 4])[3], scores[2])


def test_weights_sum_to_one_inside_the_window() -> None:
    model = small(window=3)
    weights = model.explain(Events.of([[1, 2, 3, 4, 5]]), model.initial_state(torch.zeros(1, dtype=torch.int64)))
    attention = weights["attention"][0]  # [5, 3]
    torch.testing.assert_close(attention.sum(-1), torch.ones(5, dtype=torch.float64))
    assert (attention[2:] > 0).all()


def test_the_state_is_as_large_as_the_first_lines_say() -> None:
    state = NARM(10).initial_state(torch.zeros(1, dtype=torch.int64))
    assert state["h"].nbytes + state["ring"].nbytes == 4 * 100 * (1 + 19)
    state = NARM(10, NARM.Config(encoder="global")).initial_state(torch.zeros(1, dtype=torch.int64))
    assert state["h"].nbytes == 400


def test_authors_initial_weights_have_their_spread() -> None:
    with seeded(0):
        model = NARM(20_000, NARM.Config(init="authors"))
    assert float(model.item.weight[1:].detach().std()) == pytest.approx(math.sqrt(2 / 20_001), rel=0.01)
    assert float(model.B.weight.detach().std()) == pytest.approx(math.sqrt(2 / 50), rel=0.03)
    assert float(model.v.detach().std()) == pytest.approx(math.sqrt(2), rel=0.3)
    assert float(model.A1.weight.detach().std()) == pytest.approx(math.sqrt(2 / 100), rel=0.03)
    assert float(model.gru.weight_ih_l0.detach().std()) == pytest.approx(math.sqrt(2 / 50), rel=0.03)
    recurrent = model.gru.weight_hh_l0[:100]
    torch.testing.assert_close(recurrent @ recurrent.T, torch.eye(100), rtol=0, atol=1e-5)
    assert float(model.gru.bias_ih_l0.detach().abs().max()) == 0


def test_defaults_are_the_papers_and_unknown_keys_are_refused() -> None:
    config = NARM.Config()
    assert (config.embedding_size, config.hidden_size, config.window) == (50, 100, 19)
    assert (config.embedding_dropout, config.context_dropout) == (0.25, 0.5)
    assert dict(NARM.recipe)["batch"] == 512
    with pytest.raises(ConfigError, match="did you mean 'hidden_size'"):
        NARM.Config(hiden_size=3)
