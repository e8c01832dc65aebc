"""Caser by hand, against a slow version written window by window, and what must not change its answer."""

import numpy as np
import pytest
import torch
from tests.squares import squares
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError
from foretaste.models.baselines.bpr_mf import BPRMF
from foretaste.models.baselines.caser import Caser
from foretaste.models.contract import Events, seeded
from foretaste.training.batches import batches
from foretaste.training.loop import TrainConfig, train
from foretaste.training.settings import aim_of

VARIANTS: list[dict[str, object]] = [
    {},
    {"users": False},
    {"horizontal": 0},
    {"vertical": 0},
    {"window": 1},
    {"window": 8, "users": False},
]


def small(n_items: int = 12, n_users: int = 3, **config: object) -> Caser:
    with seeded(7):
        model = Caser(n_items, Caser.Config(**{"embedding_size": 4, "horizontal": 3, "vertical": 2, **config}), n_users)
        torch.nn.init.normal_(model.bias)
    return model.double().eval()


def run(model: Caser, items: list[int], user: int = 2) -> Tensor:
    """Scores [T, I] after each event."""
    query, _ = model(Events.of([items]), model.initial_state(torch.tensor([user])))
    return model.score(query)[0].detach()


def slow_scores(model: Caser, items: list[int], user: int) -> Tensor:
    """Scores [I] after the last of `items`: each filter at each place of the last window."""
    w, c = model.state_dict(), model.config
    L, d = c.window, c.embedding_size
    window = [0] * max(0, L - len(items)) + items[-L:]
    image = [w["item.weight"][item] for item in window]  # item 0: zeros
    found = []
    for h in range(1, L + 1) if c.horizontal else ():
        for n in range(c.horizontal):
            lies = []
            for place in range(L - h + 1):
                pieces = w[f"F.{h - 1}.weight"][n].split(d)
                total = sum(float(piece @ image[place + k]) for k, piece in enumerate(pieces))
                lies.append(max(0.0, total + float(w[f"F.{h - 1}.bias"][n])))
            found.append(max(lies))
    if c.vertical:
        for place in range(d):
            for n in range(c.vertical):
                down = sum(float(w["F_down.weight"][n, k] * image[k][place]) for k in range(L))
                found.append(down + float(w["F_down.bias"][n]))
    wish = (w["W.weight"] @ torch.tensor(found, dtype=torch.float64) + w["W.bias"]).clamp(min=0)
    if c.users:
        users = w["user.weight"]
        wish = torch.cat([wish, users[user] if user else users[1:].mean(0)])
    return w["out"] @ wish + w["bias"]


def by_hand() -> Caser:
    """A window of two events of one number each, E = 1, -2, 3; one filter of each height, and one down."""
    model = Caser(3, Caser.Config(embedding_size=1, window=2, horizontal=1, vertical=1), 1).eval()
    w = {
        "item.weight": [[0], [1], [-2], [3]], "F.0.weight": [[2]], "F.0.bias": [1], "F.1.weight": [[1, -1]],
        "F.1.bias": [0], "F_down.weight": [[3, 1]], "F_down.bias": [-1], "W.weight": [[1, 10, 100]], "W.bias": [0.5],
        "user.weight": [[0], [10]], "out": [[1, 1], [2, 0], [0, -1]], "bias": [0, 5, 0],
    }  # fmt: skip
    model.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in w.items()})
    return model


def test_scores_by_hand() -> None:
    """After 3, 1: height one gives 2*3+1 = 7 and 2*1+1 = 3, so 7; height two 3-1 = 2; down 3*3+1-1 = 9."""
    found = run(by_hand(), [3, 1, 2], user=1)
    first = 7 + 0 + 100 * (3 - 1) + 0.5  # an empty row, then 3: max(1, 7), max(0, 0-3), 3*0+3-1
    second = 7 + 10 * 2 + 100 * 9 + 0.5
    third = 3 + 10 * 3 + 100 * (3 - 2 - 1) + 0.5  # 1, then -2: max(3, -3), 1+2, 3*1-2-1
    for row, z in zip(found.tolist(), (first, second, third), strict=True):
        assert row == pytest.approx([z + 10, 2 * z + 5, -10])


@pytest.mark.parametrize("config", VARIANTS, ids=str)
@pytest.mark.parametrize("user", [0, 3])
def test_every_prefix_equals_the_slow_version(config: dict[str, object], user: int) -> None:
    model, items = small(**config), [3, 7, 3, 1, 12, 9, 2, 2, 3, 5, 3]
    fast = run(model, items, user)
    for length in range(1, len(items) + 1):
        wanted = slow_scores(model, items[:length], user)
        torch.testing.assert_close(fast[length - 1], wanted, rtol=0, atol=1e-10)
    empty = model.score(model.query(model.initial_state(torch.tensor([user]))))[0, 0]
    torch.testing.assert_close(empty.detach(), slow_scores(model, [], user), rtol=0, atol=1e-10)


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


def test_only_the_window_counts() -> None:
    model = small(window=3)
    one, other = run(model, [1, 2, 3, 4, 5, 6]), run(model, [9, 9, 9, 4, 5, 6])
    torch.testing.assert_close(one[-1], other[-1], rtol=0, atol=0)
    assert not torch.allclose(one[-2], other[-2])


def test_without_its_filters_it_is_matrix_factorisation() -> None:
    model, factors = small(), BPRMF(12, BPRMF.Config(embedding_size=4), 3).double()
    with torch.no_grad():
        model.out[:, :4] = 0
        factors.user.weight.copy_(model.user.weight)
        factors.item.copy_(model.out[:, 4:])
        factors.bias.copy_(model.bias)
    for user in (0, 2):
        wanted = factors.score(factors.query(factors.initial_state(torch.tensor([user]))))[0, 0].detach()
        torch.testing.assert_close(run(model, [3, 7, 3], user)[-1], wanted, rtol=0, atol=1e-12)


def test_without_users_whoever_asks_gets_the_same() -> None:
    model = small(users=False)
    assert model.needs == set()
    assert Caser.needs_of(Caser.Config()) == {"users"}
    torch.testing.assert_close(run(model, [3, 7], 1), run(model, [3, 7], 3), rtol=0, atol=0)
    assert set(model.initial_state(torch.tensor([1]))) == {"ids"}


def test_no_filter_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves no filter"):
        Caser.Config(horizontal=0, vertical=0)


def test_a_row_is_a_user_or_a_session() -> None:
    assert Caser.scope == small().scope == "user"
    assert small(scope="session").scope == "session"


def test_the_state_is_as_large_as_the_first_lines_say() -> None:
    state = Caser(3, Caser.Config(), 1).initial_state(torch.tensor([1]))
    assert sum(part.nbytes for part in state.values()) == 48


def test_the_recipe_asks_for_the_three_next_events() -> None:
    row = np.array([0, 5])
    log = Sequences(np.arange(1, 6, dtype=np.int32), row, row, np.zeros(5, np.uint8), np.ones(1, np.int32))
    config = TrainConfig.of(Caser.recipe)
    (batch,) = batches(log, "user", budget=512, chunk=512, seed=(0,), aim=aim_of(config))
    asked = [(int(q), int(t) + 1) for q, t in zip(batch.rows, batch.targets, strict=True)]
    assert asked == [(0, 2), (0, 3), (0, 4), (1, 3), (1, 4), (1, 5), (2, 4), (2, 5), (3, 5)]
    assert (config.loss, config.negatives) == ("bce", 3)


def test_the_penalty_by_hand() -> None:
    found = squares(by_hand().owned(torch.tensor([1, 0]), torch.tensor([2, 2, 1])))
    assert found.item() == 100 + 2 * (4 + 4 + 25) + (1 + 2 + 0)


@pytest.mark.parametrize("n_items", [2, 5])
def test_it_learns_what_follows_an_item_even_of_two(n_items: int) -> None:
    """A circle: each item is followed by the next one, the last by the first."""
    items, rows = (np.arange(399) % n_items + 1).astype(np.int32), np.arange(0, 400, 19)
    log = Sequences(items, rows, rows, np.zeros(399, np.uint8), np.zeros(21, np.int32))
    with seeded(0):
        model = Caser(n_items, Caser.Config(embedding_size=16, users=False, dropout=0.0))
    recipe = {**Caser.recipe, "ahead": 1, "exclude_touched": False, "learning_rate": 0.01, "batch": 64}
    train(model, log, TrainConfig.of({**recipe, "epochs": 25}))
    events, state = Events.of([[n] for n in range(1, n_items + 1)]), model.initial_state(torch.zeros(n_items).long())
    query, _ = model.eval()(events, state)
    assert (model.score(query)[:, 0].argmax(-1) + 1).tolist() == [*range(2, n_items + 1), 1]
