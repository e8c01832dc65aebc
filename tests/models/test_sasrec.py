"""SASRec, gSASRec, eSASRec by hand, against a slow version written event by event, and against what they must equal."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste import Recommender
from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError
from foretaste.models import model_class
from foretaste.models.baselines import sasrec
from foretaste.models.baselines.sasrec import ESASRec, GSASRec, SASRec
from foretaste.models.contract import Events, seeded
from foretaste.training.loop import TrainConfig, train

VARIANTS: list[dict[str, object]] = [
    {},
    {"heads": 2},
    {"layers": 1, "heads": 4},
    {"layers": 3, "expansion": 2},
    {"block": "ligr"},
    {"block": "ligr", "heads": 2, "expansion": 3},
]
ITEMS = [3, 7, 3, 1, 12, 9, 2, 2, 5, 11, 3]


def small(n_items: int = 12, **config: object) -> SASRec:
    with seeded(7):
        model = SASRec(n_items, SASRec.Config.of({"embedding_size": 8, "window": 5, **config})).double().eval()
        for weight in model.parameters():
            weight.data += 0.3 * torch.randn_like(weight)
    return model


def start(model: SASRec, rows: int = 1) -> dict[str, Tensor]:
    return model.initial_state(torch.zeros(rows, dtype=torch.int64))


def run(model: SASRec, items: list[int]) -> Tensor:
    """Scores [T, I] after each event."""
    query, _ = model(Events.of([items]), start(model))
    return model.score(query)[0].detach()


def normed(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    mean = x.mean()
    return (x - mean) / ((x - mean).square().mean() + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def slow_answer(model: SASRec, items: list[int]) -> tuple[Tensor, list[float]]:
    """The answer [D] after the last of `items`, and the last layer's weights over the window, the oldest first."""
    c, w = model.config, {name: value.detach() for name, value in model.state_dict().items()}
    d, weights = c.embedding_size // c.heads, []
    scale = math.sqrt(c.embedding_size)
    levels = [scale * w["item.weight"][item] + w["position"][t] for t, item in enumerate(items[-c.window :])]
    for number in range(c.layers):
        at, after = f"blocks.{number}.", []
        q, k, v = w[f"{at}attention.qkv.weight"].split(c.embedding_size)
        keys = [normed(x, w, f"{at}norm") for x in levels]
        for t, x in enumerate(levels):
            heads, weights = [], [0.0] * len(levels)
            for h in range(c.heads):
                own = slice(h * d, (h + 1) * d)
                match = [math.exp(float((q @ keys[t])[own] @ (k @ keys[j])[own]) / math.sqrt(d)) for j in range(t + 1)]
                share = [m / sum(match) for m in match]
                heads.append(sum(a * (v @ keys[j])[own] for j, a in enumerate(share)))
                for j, a in enumerate(share):
                    weights[j] += a / c.heads
            found = torch.cat(heads)
            if c.block == "ligr":
                found = w[f"{at}attention.out.weight"] @ found
                found = torch.sigmoid(w[f"{at}gates.0.weight"] @ x + w[f"{at}gates.0.bias"]) * found
            x = (x if c.block == "ligr" else keys[t]) + found
            fed = normed(x, w, f"{at}feed_norm")
            if c.block == "ligr":
                left, right = w[f"{at}W12.weight"].chunk(2)
                inner = left @ fed
                found = w[f"{at}W3.weight"] @ (inner * torch.sigmoid(inner) * (right @ fed))
                found = torch.sigmoid(w[f"{at}gates.1.weight"] @ x + w[f"{at}gates.1.bias"]) * found
            else:
                inner = (w[f"{at}W1.weight"] @ fed + w[f"{at}W1.bias"]).clamp(min=0)
                found = w[f"{at}W2.weight"] @ inner + w[f"{at}W2.bias"]
            after.append((x if c.block == "ligr" else fed) + found)
        levels = after
    return normed(levels[-1], w, "norm"), weights


def slow_scores(model: SASRec, items: list[int]) -> Tensor:
    return model.item.weight[1:].detach() @ slow_answer(model, items)[0]


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_every_event_equals_the_slow_version_on_its_window(config: dict[str, object]) -> None:
    """Up to W events in one pass, and beyond, where the oldest of the window has the first position again."""
    model = small(**config)
    fast = run(model, ITEMS)
    for length in range(1, len(ITEMS) + 1):
        torch.testing.assert_close(fast[length - 1], slow_scores(model, ITEMS[:length]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", [{}, {"block": "ligr", "heads": 2}], ids=str)
def test_rows_at_different_places_and_some_positions_asked(config: dict[str, object]) -> None:
    """Rows with nothing before, half a window, a full one; the asked places alone, in shares of one row at a time."""
    model, histories = small(**config), [[], [4, 6], [1, 2, 3, 4, 5, 6, 7], [9]]
    _, state = model(Events.of(histories), start(model, 4))
    new = [[3, 8, 3, 1, 10, 11, 2], [5, 5, 5, 5], [12], []]
    events = Events.of(new)
    at = torch.zeros(events.shape, dtype=torch.bool)
    for row, place in ((0, 0), (0, 3), (0, 5), (0, 6), (1, 0), (1, 2), (2, 0)):
        at[row, place] = True
    wanted = [slow_scores(model, histories[row] + new[row][: place + 1]) for row, place in at.nonzero().tolist()]
    for held in (1, 2**22):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sasrec.HELD, "cpu", held)
            query, after = model(events, state, at=at)
        torch.testing.assert_close(model.score(query), torch.stack(wanted), rtol=0, atol=1e-10)
    last = model.score(model.query(after))[:, 0]
    for row in range(4):
        torch.testing.assert_close(last[row], slow_scores(model, histories[row] + new[row]), rtol=0, atol=1e-10)
    assert after["ring"].tolist() == [[3, 1, 10, 11, 2], [6, 5, 5, 5, 5], [4, 5, 6, 7, 12], [0, 0, 0, 0, 9]]
    assert after["seen"].tolist() == [5, 5, 5, 1]


def test_by_hand() -> None:
    """D = 2, one layer. q, k, v read one side of LN(x) = (+-1, -+1); the net adds nothing."""
    model = SASRec(3, SASRec.Config(embedding_size=2, window=2, layers=1)).double().eval()
    block = model.blocks[0]
    with torch.no_grad():
        model.item.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 1.0], [1.0, 5.0], [2.0, 0.0]]))
        model.position.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        block.attention.qkv.weight.zero_()
        block.attention.qkv.weight[0, 0] = math.sqrt(2) * math.log(2)  # q = (sqrt(2) log 2 z, 0) where LN(x) = (z, -z)
        block.attention.qkv.weight[2, 0] = 0.5  # k = (z / 2, 0)
        block.attention.qkv.weight[4, 0] = 6.0  # v = (6 z, 0)
        block.W2.weight.zero_()
    # After item 1: z = 1, alone: (1 + 6, -1). After item 2 at position 1: z = -1; over item 1 with exp(-log 2 / 2) and
    # itself with exp(log 2 / 2): weights 1/3 and 2/3, v = 6 (1/3 - 2/3) = -2: (-1 - 2, 1).
    # LN makes (1, -1) and (-1, 1) of them, so the scores are +-(E_0 - E_1).
    found, minus = run(model, [1, 2]), torch.tensor([2.0, -4.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(found, torch.stack([minus, -minus]), rtol=0, atol=1e-4)
    weight = model.explain(Events.of([[1, 2]]), start(model))["attention"][0]
    torch.testing.assert_close(weight, weight.new_tensor([[0, 1], [1 / 3, 2 / 3]]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("block", ["sasrec", "ligr"])
def test_without_values_it_is_item_and_position_alone(block: str) -> None:
    """One layer that reads no value and whose net is silent: norms of sqrt(D) E + P, whatever came before."""
    model = small(layers=1, block=block)
    layer = model.blocks[0]
    with torch.no_grad():
        layer.attention.qkv.weight[16:] = 0
        for name, weight in layer.named_parameters():
            if name.startswith(("W2", "W3")):
                weight.zero_()
    query, _ = model(Events.of([ITEMS]), start(model))
    place = torch.arange(len(ITEMS)).clamp(max=4)
    event = math.sqrt(8) * model.item(torch.tensor(ITEMS)) + model.position[place]
    carried = event if block == "ligr" else layer.feed_norm(layer.norm(event))
    torch.testing.assert_close(query[0], model.norm(carried), rtol=0, atol=1e-12)


def test_without_positions_and_depth_the_order_of_the_older_events_does_not_matter() -> None:
    model = small(layers=1)
    with torch.no_grad():
        model.position.zero_()
    torch.testing.assert_close(run(model, [1, 2, 3, 4])[-1], run(model, [3, 1, 2, 4])[-1], rtol=0, atol=1e-12)
    assert not torch.allclose(run(small(layers=1), [1, 2, 3, 4])[-1], run(small(layers=1), [3, 1, 2, 4])[-1])


def test_a_sliding_cache_would_not_be_equal() -> None:
    """What has left the window moves nothing; with the cached keys of a deep layer it would."""
    model = small()
    torch.testing.assert_close(run(model, [1, *ITEMS[:5]])[-1], run(model, [8, *ITEMS[:5]])[-1], rtol=0, atol=0)


def test_training_cuts_rows_into_pieces_of_w_events_from_the_empty_state() -> None:
    model = small(dropout=0.0)
    rows = [ITEMS, ITEMS[:4], [], ITEMS[:5]]
    events = Events.of(rows)
    _, carried = model(Events.of([[6, 6]] * 4), start(model, 4))
    query, after = model.train()(events, carried)
    model.eval()
    for row, items in enumerate(rows):
        for place in range(len(items)):
            piece = items[place // 5 * 5 : place + 1]
            torch.testing.assert_close(model.score(query)[row, place], slow_scores(model, piece), rtol=0, atol=1e-10)
    asked, _ = model.train()(events, carried, at=events.mask)
    torch.testing.assert_close(asked, query[events.mask], rtol=0, atol=0)
    torch.testing.assert_close(after["ring"][0], torch.tensor(ITEMS[-5:]))
    short, _ = model(events.cut(0, 3), carried)
    torch.testing.assert_close(short[events.mask[:, :3]], query[:, :3][events.mask[:, :3]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", [{}, {"block": "ligr", "heads": 2}], ids=str)
def test_the_gradient_of_a_piece_is_the_sum_over_its_prefixes(config: dict[str, object]) -> None:
    """The causal pass of training, and the windows that are asked one at a time."""
    model, rows = small(dropout=0.0, **config), [[3, 7, 3, 1, 12, 9], [2, 5, 4]]
    events = Events.of([row[:-1] for row in rows])
    query, _ = model.train()(events, start(model, 2), at=events.mask)
    wanted = torch.tensor([item for row in rows for item in row[1:]]) - 1
    model.score(query).log_softmax(-1)[torch.arange(7), wanted].sum().backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.eval()
    for row in rows:
        for length in range(1, len(row)):
            _, state = model(Events.of([row[:length]]), start(model))
            model.score(model.query(state))[0, 0].log_softmax(-1)[row[length] - 1].backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(whole[name], parameter.grad, rtol=0, atol=1e-11, msg=name)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_the_reason_is_the_last_layers_attention(config: dict[str, object]) -> None:
    model, old = small(**config), [8, 4]
    _, state = model(Events.of([old, []]), start(model, 2))
    found = model.explain(Events.of([ITEMS[:7], [6]]), state)["attention"]
    assert found.shape == (2, 7, 5)
    for place in range(7):
        _, weights = slow_answer(model, old + ITEMS[: place + 1])
        wanted = torch.tensor([0.0] * (5 - len(weights)) + weights, dtype=torch.float64)
        torch.testing.assert_close(found[0, place], wanted, rtol=0, atol=1e-10)
    assert found[1, 0].tolist() == [0, 0, 0, 0, 1]
    assert not found[1, 1:].any()


def test_no_positions_no_rows_and_nothing_seen() -> None:
    model = small()
    query, state = model(Events.of([[], []]), start(model, 2))
    assert query.shape == (2, 0, 8)
    assert not state["seen"].any()
    assert torch.equal(model.query(state), torch.zeros(2, 1, 8, dtype=torch.float64))
    none = Events.of([])
    assert model(none, start(model, 0))[0].shape == (0, 0, 8)
    assert model.query(start(model, 0)).shape == (0, 1, 8)
    assert model.train()(Events.of([[], []]), start(model, 2))[0].shape == (2, 0, 8)
    assert model.explain(Events.of([[], []]), start(model, 2))["attention"].shape == (2, 0, 0)


def test_what_the_three_names_stand_for() -> None:
    kinds = {name: model_class(name) for name in ("sasrec", "gsasrec", "esasrec")}
    assert kinds == {"sasrec": SASRec, "gsasrec": GSASRec, "esasrec": ESASRec}
    assert SASRec.Config().as_dict() == GSASRec.Config().as_dict()
    assert (SASRec.recipe["loss"], SASRec.recipe["negatives"]) == ("bce", 1)
    assert (GSASRec.recipe["loss"], GSASRec.recipe["negatives"]) == ("gbce", 256)
    assert (ESASRec.recipe["loss"], ESASRec.recipe["negatives"]) == ("sampled_softmax", 256)
    assert {kind.recipe["beta2"] for kind in kinds.values()} == {0.98}
    assert ESASRec.Config().block == "ligr"
    full = Recommender("sasrec", loss="softmax", negatives=0)
    assert full.training.loss == "softmax"
    with seeded(0):
        plain = ESASRec(9, ESASRec.Config(block="sasrec", embedding_size=8))
        same = SASRec(9, SASRec.Config(embedding_size=8, window=200, expansion=4))
    assert {name: p.shape for name, p in plain.named_parameters()} == {n: p.shape for n, p in same.named_parameters()}


def test_heads_must_divide_the_vector() -> None:
    with pytest.raises(ConfigError, match="heads = 3 must divide embedding_size = 8"):
        SASRec.Config(embedding_size=8, heads=3)


def test_a_row_is_a_user_or_a_session() -> None:
    assert SASRec(3).scope == "user"
    assert SASRec(3, SASRec.Config(scope="session")).scope == "session"


def test_the_state_is_as_large_as_the_first_lines_say() -> None:
    models = [SASRec(3, SASRec.Config(window=window)) for window in (50, 200)]
    sizes = [sum(part.nbytes for part in start(model).values()) for model in models]
    assert sizes == [408, 1608]


def test_dropout_is_for_training_alone() -> None:
    model = small(dropout=0.5)
    assert torch.equal(run(model, [1, 2, 3]), run(model, [1, 2, 3]))
    model.train()
    with seeded(0):
        assert not torch.allclose(run(model, [1, 2, 3]), run(model, [1, 2, 3]))


@pytest.mark.parametrize("kind", [SASRec, GSASRec, ESASRec])
def test_two_items_and_sessions_of_one_item(kind: type[SASRec]) -> None:
    """A catalogue of two items, and users who take the same one again and again: the model says so."""
    items = np.repeat([1, 2, 1, 2, 1, 2, 1, 2], 12).astype(np.int32)
    users = np.arange(0, 97, 12, dtype=np.int64)
    log = Sequences(items, users, users, np.zeros(96, np.uint8), np.zeros(8, np.int32))
    with seeded(0):
        model = kind(2, kind.Config.of({"embedding_size": 8, "window": 4, "dropout": 0.1}))
    settings = {**kind.recipe, "exclude_touched": False, "learning_rate": 0.02, "epochs": 15, "batch": 32}
    train(model, log, TrainConfig.of(settings))
    model.eval()
    assert run(model, [1] * 6).argmax(-1).tolist() == [0] * 6
    assert run(model, [2] * 6).argmax(-1).tolist() == [1] * 6
