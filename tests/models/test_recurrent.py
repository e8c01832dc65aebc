"""The plain GRU and LSTM against their equations, one event at a time, and against NARM's global encoder."""

import pytest
import torch
from torch import Tensor

from foretaste.models.baselines.recurrent import Recurrent
from foretaste.models.contract import Events, seeded
from foretaste.models.narm import NARM

VARIANTS = [
    {},
    {"cell": "lstm"},
    {"output": "free"},
    {"cell": "lstm", "output": "free"},
    {"bias": False},
    {"cell": "lstm", "output": "free", "bias": False},
]


def small(n_items: int = 12, **config: object) -> Recurrent:
    with seeded(7):
        model = Recurrent(n_items, Recurrent.Config(embedding_size=4, hidden_size=5, **config)).double().eval()
        if model.bias is not None:
            torch.nn.init.normal_(model.bias)
    return model


def run(model: Recurrent | NARM, items: list[int]) -> Tensor:
    """Scores [T, I] after each event."""
    query, _ = model(Events.of([items]), model.initial_state(torch.zeros(1, dtype=torch.int64)))
    return model.score(query)[0].detach()


def slow_scores(model: Recurrent, items: list[int]) -> Tensor:
    """Scores [I] after the last of `items`, from the equations of the cell."""
    w, H = {name: value.detach() for name, value in model.state_dict().items()}, model.config.hidden_size
    h = c = torch.zeros(H, dtype=torch.float64)
    for item in items:
        from_x = (w["cell.weight_ih_l0"] @ w["item.weight"][item] + w["cell.bias_ih_l0"]).split(H)
        from_h = (w["cell.weight_hh_l0"] @ h + w["cell.bias_hh_l0"]).split(H)
        if model.config.cell == "gru":
            reset, keep = (torch.sigmoid(from_x[n] + from_h[n]) for n in (0, 1))
            h = (1 - keep) * torch.tanh(from_x[2] + reset * from_h[2]) + keep * h
        else:
            write, keep, new, show = (a + b for a, b in zip(from_x, from_h, strict=True))
            c = torch.sigmoid(keep) * c + torch.sigmoid(write) * torch.tanh(new)
            h = torch.sigmoid(show) * torch.tanh(c)
    scores = w["W"] @ h if model.config.output == "free" else w["item.weight"][1:] @ (w["B.weight"] @ h)
    return scores + w["bias"] if model.config.bias else scores


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


@pytest.mark.parametrize("config", [{}, {"cell": "lstm"}], ids=str)
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


@pytest.mark.parametrize(("output", "decoder"), [("tied", "bilinear"), ("free", "full")])
def test_a_gru_is_narm_without_attention(output: str, decoder: str) -> None:
    plain = small(output=output, bias=output == "free")
    narm = NARM(12, NARM.Config(embedding_size=4, hidden_size=5, encoder="global", decoder=decoder)).double().eval()
    weights = {name.replace("cell.", "gru."): value for name, value in plain.state_dict().items()}
    narm.load_state_dict({("U" if name == "W" else name): value for name, value in weights.items()})
    torch.testing.assert_close(run(plain, [3, 7, 3, 1]), run(narm, [3, 7, 3, 1]), rtol=0, atol=1e-12)


def test_before_any_event_only_the_bias_speaks() -> None:
    for config in VARIANTS:
        model = small(**config)
        found = model.score(model.query(model.initial_state(torch.tensor([4]))))[0, 0]
        wanted = torch.zeros(12, dtype=torch.float64) if model.bias is None else model.bias
        torch.testing.assert_close(found, wanted)


def test_a_row_is_a_session_or_a_user() -> None:
    assert small().scope == "session"
    assert small(scope="user").scope == "user"
    assert Recurrent.scope == "session"


def test_the_state_is_as_large_as_the_first_lines_say() -> None:
    users = torch.zeros(1, dtype=torch.int64)
    size = {
        cell: sum(part.nbytes for part in Recurrent(3, Recurrent.Config(cell=cell)).initial_state(users).values())
        for cell in ("gru", "lstm")
    }
    assert size == {"gru": 400, "lstm": 800}


def test_dropout_is_for_training_alone() -> None:
    model = small(embedding_dropout=0.5, output_dropout=0.5)
    torch.testing.assert_close(run(model, [1, 2, 3]), run(model, [1, 2, 3]), rtol=0, atol=0)
    model.train()
    with seeded(0):
        first, second = run(model, [1, 2, 3]), run(model, [1, 2, 3])
    assert not torch.allclose(first, second)
