"""YouTube DNN and PoolNet by hand, against a slow version, and what a mean cannot tell apart."""

import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError
from foretaste.models.baselines.youtube_dnn import YoutubeDNN
from foretaste.models.contract import Events, seeded
from foretaste.models.saved import Trained
from foretaste.training.loop import TrainConfig, train

VARIANTS: list[dict[str, object]] = [
    {},
    {"users": True},
    {"variant": "pool"},
    {"variant": "pool", "bias": False},
    {"window": 3},
    {"window": 3, "variant": "pool"},
    {"tower": (5,), "users": True, "window": 40},
]


def small(n_items: int = 12, n_users: int = 3, **config: object) -> YoutubeDNN:
    with seeded(7):
        model = YoutubeDNN(n_items, YoutubeDNN.Config(**{"embedding_size": 4, "tower": (6, 5), **config}), n_users)
        for weight in model.parameters():
            if weight.dim() == 1:
                torch.nn.init.normal_(weight)
    return model.double().eval()


def run(model: YoutubeDNN, items: list[int], user: int = 2) -> Tensor:
    """Scores [T, I] after each event."""
    query, _ = model(Events.of([items]), model.initial_state(torch.tensor([user])))
    return model.score(query)[0].detach()


def slow_scores(model: YoutubeDNN, items: list[int], user: int) -> Tensor:
    """Scores [I] after the last of `items`, one item after the other."""
    w, c = model.state_dict(), model.config
    read = items[-c.window :] if c.window else items
    u = torch.zeros(c.embedding_size, dtype=torch.float64)
    for item in read:
        u += w["item.weight"][item] / (len(read) + (c.variant == "pool"))
    if c.users:
        u = torch.cat([u, w["user.weight"][user] if user else w["user.weight"][1:].mean(0)])
    if c.variant == "tower":
        for n in range(len(c.tower)):
            u = (w[f"tower.{n}.weight"] @ u + w[f"tower.{n}.bias"]).clamp(min=0)
    scores = (w["item.weight"][1:] if c.variant == "pool" else w["out"]) @ u
    return scores + w["bias"] if c.bias else scores


def test_pool_by_hand() -> None:
    """E = 1, 3, -8: sums 1, 4, -4, divided by 2, 3, 4."""
    model = YoutubeDNN(3, YoutubeDNN.Config(variant="pool", embedding_size=1)).eval()
    with torch.no_grad():
        model.item.weight.copy_(torch.tensor([[0.0], [1.0], [3.0], [-8.0]]))
        model.bias.copy_(torch.tensor([0.0, 0.0, 10.0]))
    u = torch.tensor([1 / 2, 4 / 3, -4 / 4])
    torch.testing.assert_close(run(model, [1, 2, 3]), torch.stack([u, 3 * u, 10 - 8 * u], -1))


def test_tower_by_hand() -> None:
    """E = 1, 3: means 1, 2; the user's number 5; two ReLUs 2 m + 1 p and -m, then one 3 a + b - 20."""
    model = YoutubeDNN(2, YoutubeDNN.Config(embedding_size=1, tower=(2, 1), users=True), 1).eval()
    w = {
        "item.weight": [[0], [1], [3]], "user.weight": [[0], [5]], "tower.0.weight": [[2, 1], [-1, 0]],
        "tower.0.bias": [0, 0], "tower.1.weight": [[3, 1]], "tower.1.bias": [-20], "out": [[1], [-2]], "bias": [0, 4],
    }  # fmt: skip
    model.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in w.items()})
    assert run(model, [1, 2], user=1).tolist() == [[1, 2], [7, -10]]  # 3*7 - 20 = 1; 3*9 - 20 = 7


@pytest.mark.parametrize("config", VARIANTS, ids=str)
@pytest.mark.parametrize("user", [0, 3])
def test_every_prefix_equals_the_slow_version(config: dict[str, object], user: int) -> None:
    model, items = small(**config), [3, 7, 3, 1, 12, 9, 2, 2, 3, 5, 3]
    fast = run(model, items, user)
    for length in range(1, len(items) + 1):
        torch.testing.assert_close(fast[length - 1], slow_scores(model, items[:length], user), rtol=0, atol=1e-10)
    empty = model.score(model.query(model.initial_state(torch.tensor([user]))))[0, 0].detach()
    torch.testing.assert_close(empty, slow_scores(model, [], user), rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_rows_of_unlike_length_end_where_they_end(config: dict[str, object]) -> None:
    """Also when only some rows go on, and when none has an event."""
    model, users = small(**config), torch.tensor([1, 2, 0])
    state = model.initial_state(users)
    _, state = model(Events.of([[1, 2, 3, 4], [], [5, 6]]), state)
    query, state = model(Events.of([[], [], []]), state)
    assert query.shape[:2] == (3, 0)
    _, state = model(Events.of([[8], [9, 1], []]), state)
    found = model.score(model.query(state))[:, 0].detach()
    for row, items in enumerate([[1, 2, 3, 4, 8], [9, 1], [5, 6]]):
        torch.testing.assert_close(found[row], slow_scores(model, items, int(users[row])), rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", [{}, {"variant": "pool"}], ids=str)
def test_what_a_mean_cannot_tell_apart(config: dict[str, object]) -> None:
    model = small(**config)
    found = run(model, [4, 1, 9, 1, 6])[-1]
    torch.testing.assert_close(run(model, [6, 1, 1, 9, 4])[-1], found, rtol=0, atol=1e-12)  # the order
    same = torch.allclose(run(model, [4, 4, 9, 9])[-1], run(model, [4, 9])[-1], rtol=0, atol=1e-12)
    assert same == (model.config.variant == "tower"), "and how much there was, unless one too many is below the line"


@pytest.mark.parametrize("variant", ["tower", "pool"])
def test_a_window_wide_enough_is_the_mean_of_all(variant: str) -> None:
    every, newest = small(variant=variant), small(variant=variant, window=9)
    items = [3, 7, 3, 1, 12, 9, 2, 2, 3]
    torch.testing.assert_close(run(every, items), run(newest, items), rtol=0, atol=1e-12)
    torch.testing.assert_close(run(newest, [5, *items])[-1], run(every, items)[-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [0, 4])
def test_the_weights_of_the_explanation_make_the_mean(window: int) -> None:
    model = small(variant="pool", bias=False, window=window)
    _, state = model(Events.of([[8, 2], []]), model.initial_state(torch.tensor([0, 0])))
    rows = [[3, 7, 3, 1, 12], [9, 2]]
    events = Events.of(rows)
    weight = model.explain(events, state)["attention"]
    query, _ = model(events, state)
    for row, before in ((0, [8, 2]), (1, [])):
        for t in range(len(rows[row])):
            known = [*before, *rows[row][: t + 1]][-(window or 99) :]
            n = len(known)
            assert weight[row, t].tolist() == pytest.approx([0] * (weight.shape[2] - n) + [1 / (n + 1)] * n)
            mean = sum(w * model.item.weight[item] for w, item in zip(weight[row, t, -n:], known, strict=True))
            torch.testing.assert_close(mean, query[row, t])
    tower = small().explain(Events.of([[1, 2, 3]]), small().initial_state(torch.tensor([0])))["attention"]
    torch.testing.assert_close(tower[0, 2, -3:], torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize(("config", "n"), [({}, 5), ({"variant": "pool"}, 6), ({"window": 9}, 5)], ids=str)
def test_every_event_that_is_averaged_is_a_reason(config: dict[str, object], n: int) -> None:
    """`Trained.explain` brings the last event alone: the others are in the state before it."""
    ids, history = Vocabulary([f"i{number}" for number in range(12)]), ["i3", "i7", "i3", "i1", "i2"]
    reasons = Trained("youtube-dnn", small(**config), ids, None, {}).explain(history)["attention"]
    assert [item for item, _ in reasons] == history
    assert [weight for _, weight in reasons] == pytest.approx([1 / n] * 5)


def test_a_long_history_is_explained_by_its_latest_64() -> None:
    model = small()
    weight = model.explain(Events.of([[1] * 100]), model.initial_state(torch.tensor([0])))["attention"]
    assert weight.shape == (1, 100, 64)
    torch.testing.assert_close(weight[0, 99], torch.full((64,), 1 / 100, dtype=torch.float64))


def test_what_each_variant_needs() -> None:
    assert small().needs == small(variant="pool").needs == set()
    assert small(users=True).needs == {"users"}
    assert YoutubeDNN.scope == small().scope == "user"
    assert small(scope="session").scope == "session"


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="pool"):
        YoutubeDNN.Config(variant="pool", users=True)
    with pytest.raises(ConfigError, match="tower"):
        YoutubeDNN.Config(tower=())


def test_the_state_is_as_large_as_the_first_lines_say() -> None:
    def size(**config: object) -> int:
        state = YoutubeDNN(3, YoutubeDNN.Config(**config)).initial_state(torch.tensor([0]))
        return sum(part.nbytes for part in state.values())

    assert (size(), size(window=50)) == (264, 400)


@pytest.mark.parametrize("variant", ["tower", "pool"])
@pytest.mark.parametrize("n_items", [2, 6])
def test_it_learns_that_like_goes_with_like(variant: str, n_items: int) -> None:
    """Users take odd items or even ones; with the recipe, whose 1,024 negatives are then many times the same few."""
    rng = np.random.default_rng(0)
    items = (rng.integers(0, n_items // 2, (40, 10)) * 2 + np.arange(40)[:, None] % 2 + 1).astype(np.int32)
    rows = np.arange(0, 401, 10)
    log = Sequences(items.reshape(-1), rows, rows, np.zeros(400, np.uint8), np.zeros(40, np.int32))
    with seeded(0):
        model = YoutubeDNN(n_items, YoutubeDNN.Config(variant=variant, embedding_size=8, tower=(16, 8)))
    recipe = {**YoutubeDNN.recipe, "learning_rate": 0.02, "batch": 64, "epochs": 15}
    train(model, log, TrainConfig.of(recipe))
    query, _ = model.eval()(Events.of([[1, 1], [2, 2]]), model.initial_state(torch.zeros(2).long()))
    best = model.score(query)[:, 1].topk(n_items // 2).indices + 1
    assert bool((best[0] % 2 == 1).all())
    assert bool((best[1] % 2 == 0).all())
