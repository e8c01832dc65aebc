"""HPMN by hand, against a slow version written event by event from the equations, and against what it must equal."""

import math
from typing import Any

import pytest
import torch
from tests.squares import squares
from torch import Tensor

from foretaste.errors import ConfigError
from foretaste.models.baselines.hpmn import HPMN, covariances
from foretaste.models.contract import Events, seeded
from foretaste.training.loop import TrainConfig

VARIANTS: list[dict[str, Any]] = [{}, {"period": 3, "hops": 1}, {"slots": 2, "period": 5}, {"slots": 5}]


def small(n_items: int = 12, **config: Any) -> HPMN:
    with seeded(7):
        model = HPMN(n_items, HPMN.Config(**{"embedding_size": 4, "hidden_size": 6, "slots": 3, **config}))
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.5)
    model.item.weight.data[0] = 0
    return model.double().eval()


def run(model: HPMN, items: list[int]) -> Tensor:
    """Answers [T, D] after each event."""
    return model(Events.of([items]), model.initial_state(torch.tensor([0])))[0][0].detach()


def history(length: int) -> list[int]:
    return torch.randint(1, 13, (length,), generator=torch.Generator().manual_seed(1)).tolist()


def slow_memory(model: HPMN, items: list[int]) -> tuple[list[Tensor], list[bool]]:
    """Slots and which are written: GRU after GRU, event after event, each where its period divides the time."""
    w, c = model.state_dict(), model.config
    slots = [torch.zeros(c.hidden_size, dtype=torch.float64) for _ in range(c.slots)]
    written = [False] * c.slots
    for t, item in enumerate(items, start=1):
        below = w["item.weight"][item]
        for r in range(c.slots):
            if t % c.period**r:
                break
            name, h = f"grus.{r}.", slots[r]
            x_r, x_z, x_n = (w[name + "weight_ih_l0"] @ below + w[name + "bias_ih_l0"]).chunk(3)
            h_r, h_z, h_n = (w[name + "weight_hh_l0"] @ h + w[name + "bias_hh_l0"]).chunk(3)
            z = (x_z + h_z).sigmoid()
            slots[r] = (1 - z) * (x_n + (x_r + h_r).sigmoid() * h_n).tanh() + z * h
            below, written[r] = slots[r], True
    return slots, written


def slow_answer(model: HPMN, items: list[int]) -> Tensor:
    """[D] after the last of `items`: slot by slot, hop by hop."""
    w, (slots, written) = model.state_dict(), slow_memory(model, items)
    x = w["item.weight"][items[-1]] if items else w["item.weight"][0]
    q = w["W_q.weight"] @ x + w["W_q.bias"]
    for _ in range(model.config.hops):
        kept, energies = [m for m, known in zip(slots, written, strict=True) if known], []
        for m in kept:
            hidden = torch.cat([q, m, q - m, q * m])
            for layer in (0, 2):
                hidden = (w[f"energy.{layer}.weight"] @ hidden + w[f"energy.{layer}.bias"]).relu()
            energies.append(math.exp(float(w["energy.4.weight"] @ hidden)))
        q = w["H.weight"] @ q + sum(e / sum(energies) * m for e, m in zip(energies, kept, strict=True))
    return w["B.weight"] @ q


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_every_prefix_equals_the_slow_version(config: dict[str, Any]) -> None:
    model, items = small(**config), history(37)
    fast = run(model, items)
    for length in range(1, len(items) + 1):
        torch.testing.assert_close(fast[length - 1], slow_answer(model, items[:length]), rtol=0, atol=1e-10)
    torch.testing.assert_close(model.query(model.initial_state(torch.tensor([0])))[0, 0], slow_answer(model, []))


def test_rows_at_different_places_of_their_periods_write_at_their_own_times() -> None:
    """Rows of 0, 1, 2, ... 8 events go on together: each upper slot is written where its own count says."""
    model, items = small(period=3), history(30)
    _, state = model(Events.of([items[:n] for n in range(9)]), model.initial_state(torch.zeros(9, dtype=torch.int64)))
    query, state = model(Events.of([items[n : n + 17] for n in range(9)]), state)
    for n in range(9):
        torch.testing.assert_close(query[n, -1], slow_answer(model, items[: n + 17]), rtol=0, atol=1e-10)
        for r, slot in enumerate(slow_memory(model, items[: n + 17])[0]):
            torch.testing.assert_close(state["slots"][n, r], slot, rtol=0, atol=1e-10)
    assert state["count"].tolist() == [n + 17 for n in range(9)]


def test_when_slots_change() -> None:
    """Slot r changes with events p^r, 2 p^r, ... and never between."""
    model, items = small(slots=4), history(20)
    state, before = model.initial_state(torch.tensor([0])), torch.zeros(4, 6, dtype=torch.float64)
    for t, item in enumerate(items, start=1):
        _, state = model(Events.of([[item]]), state)
        changed = (state["slots"][0] != before).any(-1).tolist()
        assert changed == [t % 2**r == 0 for r in range(4)], t
        before = state["slots"][0]


def test_a_slot_not_yet_written_takes_no_part() -> None:
    """The first event reads one slot alone: q <- H q + m_0; each slot joins with its first write."""
    model = small(hops=1)
    events, state = Events.of([history(9)]), model.initial_state(torch.tensor([0]))
    weights = model.explain(events, state)["slots"][0]  # [T, hops, R]
    assert weights.shape == (9, 1, 3)
    assert weights[0, 0].tolist() == [1, 0, 0]
    assert (weights[:, 0] > 0).tolist() == [[True, t >= 2, t >= 4] for t in range(1, 10)]
    torch.testing.assert_close(weights.sum(-1), torch.ones(9, 1, dtype=torch.float64))
    x = model.item(events.items[0, 0])
    m = model.grus[0](x[None, None])[0][0, 0]
    wanted = model.B(model.H(model.W_q(x)) + m)
    torch.testing.assert_close(run(model, history(9))[0], wanted, rtol=0, atol=1e-12)


def test_the_penalty_between_slots_by_hand() -> None:
    """Covariances of (1, -1), (2, 0) and (3, 3): 1, 0, 0 between different ones; each pair counts once."""
    slots = torch.tensor([[[1.0, -1.0], [2.0, 0.0], [3.0, 3.0]], [[5.0, 5.0], [1.0, 4.0], [0.0, 0.0]]])
    assert covariances(slots[:1]).item() == 1.0
    assert covariances(slots).item() == 0.5
    assert covariances(slots[:0]).item() == 0.0
    model, events = small(covariance=0.5), Events.of([history(11)])
    state = model.initial_state(torch.tensor([0]))
    model.train()(events, state)
    memories = torch.stack([torch.stack(slow_memory(model, history(11)[:n])[0]) for n in range(1, 12)])
    centred = memories - memories.mean(-1, keepdim=True)
    pairs = [(a, b) for a in range(3) for b in range(a)]
    wanted = sum(((centred[:, a] * centred[:, b]).mean(-1) ** 2).mean() for a, b in pairs)
    torch.testing.assert_close(model.auxiliary, 0.5 * wanted)
    model.auxiliary.backward()
    assert all(bool(weight.grad.isfinite().all()) for weight in model.parameters() if weight.grad is not None)
    model.eval()(events, state)
    assert model.auxiliary is None


def test_the_penalty_on_items_by_hand() -> None:
    model = small()
    wanted = 2 * model.item.weight[5].square().sum()
    torch.testing.assert_close(squares(model.owned(torch.tensor([2, 0]), torch.tensor([5, 5]))), wanted)


def test_defaults_and_what_is_refused() -> None:
    config, recipe = HPMN.Config(), TrainConfig.of(HPMN.recipe)
    assert (config.slots, config.period, config.hops, config.hidden_size) == (5, 2, 3, 128)
    assert (recipe.loss, recipe.optimizer, recipe.learning_rate) == ("softmax", "adam", 1e-3)
    assert HPMN.needs_of(config) == set()
    with pytest.raises(ConfigError, match="slots"):
        HPMN.Config(slots=1)
    with pytest.raises(ConfigError, match="did you mean 'period'"):
        HPMN.Config(periods=3)
