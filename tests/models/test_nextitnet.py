"""NextItNet and WaveNet CNN by hand, column by column from the equations, and against PyTorch's own convolution."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, layer_norm, pad

from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError
from foretaste.models.baselines.nextitnet import NextItNet, WaveNet
from foretaste.models.contract import Events, seeded
from foretaste.training.loop import TrainConfig, train

Model = NextItNet | WaveNet
CASES: list[tuple[type[Model], dict[str, object]]] = [
    (NextItNet, {}),
    (NextItNet, {"dilations": (1,), "kernel_size": 2}),
    (NextItNet, {"dilations": (3, 1), "kernel_size": 4, "repeats": 2}),
    (WaveNet, {}),
    (WaveNet, {"nonlinearity": "relu", "dilations": (2, 3)}),
    (WaveNet, {"residual": False, "kernel_size": 5, "dilations": (1,)}),
]
every_case = pytest.mark.parametrize(("kind", "config"), CASES, ids=lambda part: getattr(part, "__name__", str(part)))
NOBODY = torch.zeros(1, dtype=torch.int64)


def small(kind: type[Model], n_items: int = 12, **config: object) -> Model:
    """Random weights of size one, so that every layer matters."""
    with seeded(7):
        model = kind(n_items, kind.Config(embedding_size=4, **config))
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.7)
        model.item.weight.data[0] = 0
    return model.double().eval()


def run(model: Model, items: list[int]) -> Tensor:
    """Scores [T, I] after each event."""
    query, _ = model(Events.of([items]), model.initial_state(NOBODY))
    return model.score(query)[0].detach()


def weights(model: Model) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.state_dict().items()}


def slow_scores(model: Model, items: list[int]) -> Tensor:
    """Scores [I] after the last of `items`: one column after the other, each from the columns that it names."""
    w, c = weights(model), model.config
    D, K = c.embedding_size, c.kernel_size

    def conv(n: int, dilation: int, below: list[Tensor], t: int) -> Tensor:
        out = w[f"layers.{n}.bias"].clone()
        for k, tap in enumerate(w[f"layers.{n}.weight"].split(D, 1)):
            place = t - (K - 1 - k) * dilation
            if place >= 0:
                out += tap @ below[place]
        return out

    def norm(n: int, column: Tensor) -> Tensor:
        deviation = ((column - column.mean()).square().mean() + 1e-8).sqrt()
        return w[f"norms.{n}.weight"] * (column - column.mean()) / deviation + w[f"norms.{n}.bias"]

    columns, times, n = [w["item.weight"][item] for item in items], range(len(items)), 0
    for dilation in c.dilations * c.repeats:
        if isinstance(model, NextItNet):
            inside = [norm(n, conv(n, dilation, columns, t)).clamp(min=0) for t in times]
            made = [norm(n + 1, conv(n + 1, 2 * dilation, inside, t)).clamp(min=0) for t in times]
            n += 2
        else:
            bare = [conv(n, dilation, columns, t) for t in times]
            made = [column.tanh() if c.nonlinearity == "tanh" else column.clamp(min=0) for column in bare]
            n += 1
        kept = isinstance(model, NextItNet) or c.residual
        columns = [old + new for old, new in zip(columns, made, strict=True)] if kept else made
    if isinstance(model, NextItNet):
        return w["out"] @ columns[-1].clamp(min=0) + w["bias"]
    return w["item.weight"][1:] @ columns[-1] + w["bias"]


def test_wavenet_by_hand() -> None:
    """E = 1, -2; one layer: relu(2 x_{t-3} + 3 x_t - 1), added to x; b = 0, 5."""
    model = WaveNet(2, WaveNet.Config(embedding_size=1, kernel_size=2, dilations=(3,), nonlinearity="relu")).eval()
    w = {"item.weight": [[0], [1], [-2]], "layers.0.weight": [[2, 3]], "layers.0.bias": [-1], "bias": [0, 5]}
    model.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in w.items()})
    x = [1 + 2, -2 + 0, 1 + 2, 1 + 4, 1 + 0]  # 1, 2, 1, 1, 1: the fourth sees the first, the last sees the second
    assert run(model, [1, 2, 1, 1, 1]).tolist() == [[a, 5 - 2 * a] for a in x]


def test_nextitnet_by_hand() -> None:
    """Two channels: normalised, they are 1 and -1 or the other way round; the ReLU leaves the larger one."""
    model = NextItNet(2, NextItNet.Config(embedding_size=2, kernel_size=1, dilations=(1,))).eval()
    eye, w = [[1, 0], [0, 1]], weights(model)
    w |= {"layers.0.weight": eye, "layers.1.weight": [[0, 1], [1, 0]], "item.weight": [[0, 0], [3, 1], [-4, 2]]}
    w |= {"out": [[1, 10], [-1, 0]], "bias": [0, 7]}
    model.load_state_dict({name: torch.as_tensor(value, dtype=torch.float32) for name, value in w.items()})
    # item 1: (3, 1) -> (1, -1) -> (1, 0) -> swapped (0, 1) -> (-1, 1) -> (0, 1), added: (3, 2)
    # item 2: (-4, 2) -> (-1, 1) -> (0, 1) -> swapped (1, 0) -> (1, -1) -> (1, 0), added: (-3, 2), the ReLU: (0, 2)
    torch.testing.assert_close(run(model, [1, 2]), torch.tensor([[23.0, 4.0], [20.0, 7.0]]))


@every_case
def test_every_prefix_equals_the_slow_version(kind: type[Model], config: dict[str, object]) -> None:
    model, items = small(kind, **config), np.random.default_rng(0).integers(1, 13, 40).tolist()
    fast = run(model, items)
    for length in (1, 2, 3, 4, 7, 16, 31, 32, 40):
        torch.testing.assert_close(fast[length - 1], slow_scores(model, items[:length]), rtol=0, atol=1e-10)


@every_case
def test_rows_of_unlike_length_end_where_they_end(kind: type[Model], config: dict[str, object]) -> None:
    """Also when only some rows go on, and when none has an event: no padding ever enters a ring."""
    model = small(kind, **config)
    state = model.initial_state(torch.zeros(3, dtype=torch.int64))
    _, state = model(Events.of([[1, 2, 3, 4], [], [5, 6]]), state)
    query, state = model(Events.of([[], [], []]), state)
    assert query.shape[:2] == (3, 0)
    masked = Events.of([[7], [7], [7]])
    masked.mask[:] = False
    _, state = model(masked, state)
    _, state = model(Events.of([[8], [9, 1], []]), state)
    _, state = model(Events.of([[2, 2, 3], [], [4, 11]]), state)
    found = model.score(model.query(state))[:, 0].detach()
    for row, items in enumerate([[1, 2, 3, 4, 8, 2, 2, 3], [9, 1], [5, 6, 4, 11]]):
        torch.testing.assert_close(found[row], slow_scores(model, items), rtol=0, atol=1e-10)


@every_case
def test_a_layer_is_a_dilated_convolution(kind: type[Model], config: dict[str, object]) -> None:
    """The whole stack again, with PyTorch's conv1d over rows padded with zeros on the left."""
    model, items = small(kind, **config), [3, 7, 3, 1, 12, 9, 2, 2, 5, 6, 6, 1]
    w, c = weights(model), model.config
    x = w["item.weight"][items].T[None]  # [1, D, T]
    dilations = [l * twice for l in c.dilations for twice in ((1, 2) if kind is NextItNet else (1,))] * c.repeats
    made = x
    for n, dilation in enumerate(dilations):
        kernel = w[f"layers.{n}.weight"].view(4, c.kernel_size, 4).transpose(1, 2)  # [D, D, K]
        below = x if kind is WaveNet or n % 2 == 0 else made
        reach = (c.kernel_size - 1) * dilation
        made = conv1d(pad(below, (reach, 0)), kernel, w[f"layers.{n}.bias"], dilation=dilation)
        if kind is WaveNet:
            made = made.tanh() if c.nonlinearity == "tanh" else made.relu()
            x = x + made if c.residual else made
        else:
            made = layer_norm(made.mT, (4,), w[f"norms.{n}.weight"], w[f"norms.{n}.bias"], 1e-8).relu().mT
            x = x + made if n % 2 else x
    items_by = (x.relu()[0].T @ w["out"].T) if kind is NextItNet else x[0].T @ w["item.weight"][1:].T
    torch.testing.assert_close(run(model, items), items_by + w["bias"], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kind", "reach"), [(NextItNet, 31), (WaveNet, 31)])
def test_how_far_it_sees(kind: type[Model], reach: int) -> None:
    """1 + 2 (1 + 2 + 4 + 8) events, the newest among them."""
    model, items = small(kind), [1] * 40
    whole = run(model, items)[-1]
    assert not torch.equal(run(model, [*items[:-reach], 2, *items[1 - reach :]])[-1], whole)
    torch.testing.assert_close(run(model, [*items[: -reach - 1], 2, *items[-reach:]])[-1], whole, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [NextItNet, WaveNet])
def test_kernels_of_one_see_the_last_item_alone(kind: type[Model]) -> None:
    model = small(kind, kernel_size=1)
    torch.testing.assert_close(run(model, [4, 9, 7])[-1], run(model, [7])[-1], rtol=0, atol=1e-12)


@every_case
def test_before_any_event_only_the_biases_speak(kind: type[Model], config: dict[str, object]) -> None:
    model = small(kind, **config)
    found = model.score(model.query(model.initial_state(NOBODY)))[0, 0]
    torch.testing.assert_close(found, model.bias)


def test_the_state_is_as_large_as_the_first_lines_say() -> None:
    size = [sum(part.nbytes for part in kind(3).initial_state(NOBODY).values()) for kind in (NextItNet, WaveNet)]
    assert size == [4 * (30 * 100 + 100), 4 * (30 * 64 + 64)]


@pytest.mark.parametrize("kind", [NextItNet, WaveNet])
def test_a_row_is_a_session_or_a_user(kind: type[Model]) -> None:
    assert kind.scope == small(kind).scope == "session"
    assert small(kind, scope="user").scope == "user"


@pytest.mark.parametrize("wrong", [{"dilations": ()}, {"dilations": (0,)}, {"kernel_size": 0}, {"repeats": 0}])
def test_sizes_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        NextItNet.Config(**wrong)


@pytest.mark.parametrize("kind", [NextItNet, WaveNet])
def test_dropout_is_for_training_alone(kind: type[Model]) -> None:
    model = small(kind, embedding_dropout=0.5, output_dropout=0.5)
    torch.testing.assert_close(run(model, [1, 2, 3]), run(model, [1, 2, 3]), rtol=0, atol=0)
    model.train()
    with seeded(0):
        first, second = run(model, [1, 2, 3]), run(model, [1, 2, 3])
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("kind", [NextItNet, WaveNet])
@pytest.mark.parametrize("n_items", [2, 5])
def test_it_learns_a_circle_even_of_two(kind: type[Model], n_items: int) -> None:
    """Each item is followed by the next one, the last by the first."""
    items, rows = (np.arange(399) % n_items + 1).astype(np.int32), np.arange(0, 400, 19)
    log = Sequences(items, rows, rows, np.zeros(399, np.uint8), np.zeros(21, np.int32))
    with seeded(0):
        model = kind(n_items, kind.Config(embedding_size=16))
    train(model, log, TrainConfig.of({**kind.recipe, "learning_rate": 0.01, "batch": 64, "epochs": 12}))
    events, state = Events.of([[n] for n in range(1, n_items + 1)]), model.initial_state(torch.zeros(n_items).long())
    query, _ = model.eval()(events, state)
    assert (model.score(query)[:, 0].argmax(-1) + 1).tolist() == [*range(2, n_items + 1), 1]
