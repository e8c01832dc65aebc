"""GRU4Rec against its equations, one event at a time; its dropout; a hand case; and NARM's global encoder."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.errors import TrainingError
from foretaste.models.baselines.gru4rec import GRU4Rec
from foretaste.models.contract import Events, seeded
from foretaste.models.narm import NARM
from foretaste.training.loop import train
from foretaste.training.settings import TrainConfig

VARIANTS: list[dict[str, object]] = [
    {},
    {"embedding_size": 5},
    {"items": "separate"},
    {"items": "one-hot", "bias": False},
    {"layers": 2},
    {"layers": 3, "items": "one-hot"},
    {"score": "cosine", "scale": 3.0},
    {"cell": "lstm"},
    {"cell": "lstm", "items": "separate", "score": "cosine"},
    {"cell": "lstm", "layers": 2, "items": "one-hot"},
]


def small(n_items: int = 12, **config: object) -> GRU4Rec:
    with seeded(7):
        sizes = {"embedding_size": 4, "hidden_size": 5, **config}
        model = GRU4Rec(n_items, GRU4Rec.Config.of(sizes)).double().eval()
        if model.bias is not None:
            torch.nn.init.normal_(model.bias)
    return model


def run(model: GRU4Rec | NARM, items: list[int]) -> Tensor:
    """Scores [T, I] after each event."""
    query, _ = model(Events.of([items]), model.initial_state(torch.zeros(1, dtype=torch.int64)))
    return model.score(query)[0].detach()


def slow_scores(model: GRU4Rec, items: list[int]) -> Tensor:
    """Scores [I] after the last of `items`, from the equations of the cells."""
    w, c = {name: value.detach() for name, value in model.state_dict().items()}, model.config
    H, nothing = c.hidden_size, torch.zeros(c.hidden_size, dtype=torch.float64)
    h, cell = [nothing] * c.layers, [nothing] * c.layers
    for item in items:
        x = w["item.weight"][item]
        for n in range(c.layers):
            own = f"cells.{n}."
            read = x if n == 0 and c.items == "one-hot" else w[own + "weight_ih_l0"] @ x
            from_x = (read + w[own + "bias_ih_l0"]).split(H)
            from_h = (w[own + "weight_hh_l0"] @ h[n] + w[own + "bias_hh_l0"]).split(H)
            if c.cell == "gru":
                reset, keep = (torch.sigmoid(from_x[k] + from_h[k]) for k in (0, 1))
                h[n] = (1 - keep) * torch.tanh(from_x[2] + reset * from_h[2]) + keep * h[n]
            else:
                write, keep, new, show = (a + b for a, b in zip(from_x, from_h, strict=True))
                cell[n] = torch.sigmoid(keep) * cell[n] + torch.sigmoid(write) * torch.tanh(new)
                h[n] = torch.sigmoid(show) * torch.tanh(cell[n])
            x = h[n]
    answer = w["B.weight"] @ x if "B.weight" in w else x
    rows = w["item.weight"][1:] if c.items == "tied" else w["W"]
    if c.score == "cosine":
        return torch.stack([c.scale * row @ answer / (row.norm() * answer.norm()) for row in rows])
    return rows @ answer + (w["bias"] if c.bias else 0)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_all_prefixes_in_one_pass_equal_the_slow_version(config: dict[str, object]) -> None:
    model, items = small(**config), [3, 7, 3, 1, 12, 9, 2, 2]
    fast = run(model, items)
    for length in range(1, len(items) + 1):
        torch.testing.assert_close(fast[length - 1], slow_scores(model, items[:length]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_rows_of_unlike_length_end_where_they_end(config: dict[str, object]) -> None:
    """Also when only some rows go on, and when none has an event."""
    model = small(**config)
    state = model.initial_state(torch.zeros(3, dtype=torch.int64))
    _, state = model(Events.of([[1, 2, 3, 4], [], [5, 6]]), state)
    query, state = model(Events.of([[], [], []]), state)
    assert query.shape[:2] == (3, 0)
    masked = Events.of([[7], [7], [7]])
    masked.mask[:] = False
    _, state = model(masked, state)
    _, state = model(Events.of([[8], [9, 1], []]), state)
    found = model.score(model.query(state))[:, 0]
    for row, items in enumerate([[1, 2, 3, 4, 8], [9, 1], [5, 6]]):
        torch.testing.assert_close(found[row], slow_scores(model, items), rtol=0, atol=1e-10)


def test_by_hand() -> None:
    """One hidden number, all weights 1/2 and biases 0: z = sigma(1/2 e), n = tanh(1/2 e), h = (1 - z) n."""
    model = small(2, embedding_size=1, hidden_size=1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(0.5 if "weight" in name else 0.0)
        model.item.weight[1:, 0] = torch.tensor([2.0, -1.0])
        model.bias[:] = torch.tensor([0.0, 0.25])
    z = 1 / (1 + math.exp(-1))
    first = (1 - z) * math.tanh(1)
    found = run(model, [1, 2])
    np.testing.assert_allclose(found[0], [2 * first, -first + 0.25], rtol=0, atol=1e-12)
    r = z = 1 / (1 + math.exp(0.5 - 0.5 * first))
    second = (1 - z) * math.tanh(-0.5 + r * 0.5 * first) + z * first
    np.testing.assert_allclose(found[1], [2 * second, -second + 0.25], rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", [{}, {"cell": "lstm"}, {"items": "one-hot", "layers": 2}], ids=str)
def test_the_gradient_of_all_prefixes_is_the_sum_over_prefixes(config: dict[str, object]) -> None:
    model, rows = small(**config), [[3, 7, 3, 1, 12, 9], [2, 5, 4]]
    events = Events.of([row[:-1] for row in rows])
    query, _ = model(events, model.initial_state(torch.zeros(2, dtype=torch.int64)), at=events.mask)
    wanted = torch.tensor([item for row in rows for item in row[1:]]) - 1
    model.score(query).log_softmax(-1)[torch.arange(7), wanted].sum().backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for row in rows:
        for length in range(1, len(row)):
            start = model.initial_state(torch.zeros(1, dtype=torch.int64))
            query, _ = model(Events.of([row[:length]]), start)
            model.score(query)[0, -1].log_softmax(-1)[row[length] - 1].backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(whole[name], parameter.grad, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize(("items", "decoder"), [("tied", "bilinear"), ("separate", "full")])
def test_one_gru_is_narm_without_attention(items: str, decoder: str) -> None:
    plain = small(items=items, bias=items == "separate")
    narm = NARM(12, NARM.Config(embedding_size=4, hidden_size=5, encoder="global", decoder=decoder)).double().eval()
    weights = {name.replace("cells.0.", "gru."): value for name, value in plain.state_dict().items()}
    narm.load_state_dict({("U" if name == "W" else name): value for name, value in weights.items()})
    torch.testing.assert_close(run(plain, [3, 7, 3, 1]), run(narm, [3, 7, 3, 1]), rtol=0, atol=1e-12)


def test_one_hot_items_are_separate_ones_whose_vectors_are_the_columns_of_w() -> None:
    """W x of a one-hot x is a column of W: the same scores as an embedding E with W E as its gates."""
    separate, hot = small(items="separate"), small(items="one-hot")
    weights = separate.state_dict()
    gates = weights["item.weight"] @ weights.pop("cells.0.weight_ih_l0").T  # [1 + I, 3H]
    hot.load_state_dict({**weights, "item.weight": gates})
    torch.testing.assert_close(run(hot, [3, 7, 3, 1]), run(separate, [3, 7, 3, 1]), rtol=0, atol=1e-12)


def test_before_any_event_only_the_bias_speaks() -> None:
    for config in VARIANTS:
        model = small(**config)
        found = model.score(model.query(model.initial_state(torch.tensor([4]))))[0, 0]
        wanted = torch.zeros(12, dtype=torch.float64) if model.bias is None else model.bias
        torch.testing.assert_close(found, wanted)


def test_a_row_is_a_session_or_a_user() -> None:
    assert small().scope == "session"
    assert small(scope="user").scope == "user"
    assert GRU4Rec.scope == "session"


def test_the_state_is_as_large_as_the_first_lines_say() -> None:
    users = torch.zeros(1, dtype=torch.int64)
    size = {
        cell: sum(part.nbytes for part in GRU4Rec(3, GRU4Rec.Config(cell=cell)).initial_state(users).values())
        for cell in ("gru", "lstm")
    }
    assert size == {"gru": 400, "lstm": 800}


def test_dropout_is_for_training_alone() -> None:
    model = small(embedding_dropout=0.5, hidden_dropout=0.5)
    torch.testing.assert_close(run(model, [1, 2, 3]), run(model, [1, 2, 3]), rtol=0, atol=0)
    model.train()
    with seeded(0):
        first, second = run(model, [1, 2, 3]), run(model, [1, 2, 3])
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("carry", [True, False])
def test_what_is_dropped_of_a_state_is_missing_from_the_next_one_where_it_is_carried(carry: bool) -> None:
    """A state of 400 numbers, none of them 0 by itself: after one event of training half are missing, or none."""
    model = small(hidden_size=400, embedding_dropout=0.0, hidden_dropout=0.5, carry=carry, items="separate").train()
    with seeded(1):
        query, state = model(Events.of([[3]]), model.initial_state(torch.zeros(1, dtype=torch.int64)))
    missing = float((query == 0).double().mean())
    assert missing == pytest.approx(0.5, abs=0.1)
    assert float((state["h"] == 0).double().mean()) == (missing if carry else 0.0)


@pytest.mark.parametrize("config", [{}, {"layers": 2}, {"cell": "lstm"}], ids=str)
def test_carried_dropout_makes_whole_sessions_what_single_events_are(config: dict[str, object]) -> None:
    """The law in training, draw by draw: so whole rows are dropped from as session-parallel ones are."""
    model = small(embedding_dropout=0.0, hidden_dropout=0.5, **config).train()
    events, nobody = Events.of([[3, 7, 1, 2], [5, 6]]), torch.zeros(2, dtype=torch.int64)
    with seeded(2):
        whole, after = model(events, model.initial_state(nobody))
    with seeded(2):
        state, parts = model.initial_state(nobody), []
        for t in range(4):
            query, state = model(events.cut(t, t + 1), state)
            parts.append(query)
    torch.testing.assert_close(torch.cat(parts, 1)[events.mask], whole[events.mask], rtol=0, atol=1e-12)
    for name, part in after.items():
        torch.testing.assert_close(state[name], part, rtol=0, atol=1e-12)


def test_initial_weights_of_the_authors() -> None:
    """Uniform within sqrt(6 / (rows + columns)), each gate a matrix of its own; biases 0."""
    with seeded(0):
        model = GRU4Rec(40, GRU4Rec.Config(embedding_size=30, hidden_size=20, items="separate", init="authors"))
    wanted = {"item.weight": 71, "cells.0.weight_ih_l0": 50, "cells.0.weight_hh_l0": 40, "W": 60}
    for name, weight in model.named_parameters():
        largest = float(weight.detach().abs().max())
        bound = math.sqrt(6 / wanted[name]) if name in wanted else 0.0
        assert largest <= bound
        assert largest >= 0.97 * bound, name


def log_of(rows: list[list[int]]) -> Sequences:
    items = np.array([item for row in rows for item in row], dtype=np.int32)
    ends = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Sequences(items, ends, ends, np.zeros(len(items), np.uint8), np.zeros(len(rows), np.int32))


LOSSES = ["softmax", "sampled_softmax", "top1", "top1_max", "bpr", "bpr_max"]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("parallel", [0, 3])
def test_a_catalogue_of_two_items_is_learnt(loss: str, parallel: int) -> None:
    """Each item is followed by the other; three sessions side by side have one negative at most, some have none."""
    log = log_of([[1, 2, 1, 2, 1], [2, 1, 2], [1, 2], [2, 1, 2, 1]])
    with seeded(0):
        model = GRU4Rec(2, GRU4Rec.Config(embedding_size=4, hidden_size=4, hidden_dropout=0.0, embedding_dropout=0.0))
    config = TrainConfig.of({"loss": loss, "sampler": "batch", "parallel": parallel, "exclude_touched": False})
    train(model.train(), log, config.with_(epochs=60, learning_rate=0.05, negatives=0 if loss == "softmax" else 2))
    found = run(model.eval(), [1, 2, 1, 2])
    assert found.argmax(-1).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("parallel", [0, 32])
def test_sessions_of_one_event_teach_nothing(parallel: int) -> None:
    with pytest.raises(TrainingError, match="no event that follows another"):
        train(small().float(), log_of([[1], [2], [3]]), TrainConfig(parallel=parallel))
