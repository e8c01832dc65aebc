"""LSAMN against the equations: golden numbers, a slow version written event by event, and the paper's identities."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.squares import squares
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError
from foretaste.models.contract import Events, State, seeded
from foretaste.models.lsamn import LSAMN
from foretaste.training.batches import batches
from foretaste.training.loop import train
from foretaste.training.settings import TrainConfig, aim_of

N = {"item_attention": False, "preference_attention": False}
VARIANTS: list[dict[str, object]] = [
    {},
    {"preference_attention": False},
    {"item_attention": False},
    N,
    {"session_limit": 2},
    {"init": "normal"},
]
GOLDEN = json.loads((Path(__file__).parent / "lsamn_golden.json").read_text())
SESSIONS = [[3, 7, 3, 1], [12], [9, 2, 2, 9, 5, 2], [4, 4], [1, 8]]


def small(**config: object) -> LSAMN:
    """Twelve items, three users, random weights, c too."""
    with seeded(7):
        model = LSAMN(12, LSAMN.Config(embedding_size=4, **config), 3).double()
        torch.nn.init.normal_(model.c)
    return model.eval()


def batch(sessions: list[list[int]]) -> Events:
    """One row."""
    items = [item for session in sessions for item in session]
    return Events.of([items], [[place == 0 for session in sessions for place in range(len(session))]])


def start(model: LSAMN, user: int = 2) -> State:
    return model.initial_state(torch.tensor([user]))


def run(model: LSAMN, sessions: list[list[int]], user: int = 2) -> Tensor:
    """Scores [T, I] after each event."""
    query, _ = model(batch(sessions), start(model, user))
    return model.score(query)[0]


def gru_cell(w: dict[str, Tensor], x: Tensor, h: Tensor) -> Tensor:
    d = len(h)
    from_x = w["gru.weight_ih_l0"] @ x + w["gru.bias_ih_l0"]
    from_h = w["gru.weight_hh_l0"] @ h + w["gru.bias_hh_l0"]
    reset = torch.sigmoid(from_x[:d] + from_h[:d])
    update = torch.sigmoid(from_x[d : 2 * d] + from_h[d : 2 * d])
    new = torch.tanh(from_x[2 * d :] + reset * from_h[2 * d :])
    return (1 - update) * new + update * h


def slow_session(model: LSAMN, w: dict[str, Tensor], session: list[int]) -> tuple[Tensor, list[tuple[int, float]]]:
    """b of one session, and the items that count with their weights."""
    listed: list[int] = []
    counted: list[int] = []
    for item in session:
        if item in listed:
            continue
        counted.append(item)
        if len(listed) < model.config.session_limit:
            listed.append(item)
    marks = []
    for item in counted:
        mark = torch.tensor(1.0, dtype=torch.float64)
        if model.config.item_attention:
            a = torch.sigmoid(w["Phi0.weight"] @ w["item.weight"][item] + w["Phi0.bias"])
            mark = torch.exp(a @ w["V_beta"])
        marks.append(mark)
    weights = [mark / sum(marks) for mark in marks]
    b = sum((weight * w["item.weight"][item] for weight, item in zip(weights, counted, strict=True)), torch.zeros(()))
    return b, [(item, float(weight.detach())) for weight, item in zip(weights, counted, strict=True)]


def slow(
    model: LSAMN, w: dict[str, Tensor], sessions: list[list[int]], user: int = 2
) -> tuple[Tensor, list[float], list[tuple[int, float]]]:
    """Scores [I], (alpha_long, alpha_short) and item weights after the last event, from equations 1-11."""
    h = torch.zeros(model.config.embedding_size, dtype=torch.float64)
    for session in sessions:
        b, beta = slow_session(model, w, session)
        h = gru_cell(w, b, h)
    v = w["user.weight"][user] if user else w["user.weight"][1:].mean(0)
    long = torch.tanh(w["Phi1.weight"] @ v + w["Phi1.bias"])
    short = torch.tanh(w["Phi2.weight"] @ h + w["Phi2.bias"])
    alpha_long = alpha_short = torch.tensor(0.5, dtype=torch.float64)
    if model.config.preference_attention:
        of_long = torch.tanh(w["Phi3.weight"] @ long + w["Phi4.weight"] @ b + w["Phi3.bias"])
        of_short = torch.tanh(w["Phi5.weight"] @ short + w["Phi6.weight"] @ b + w["Phi5.bias"])
        m1, m2 = w["V_alpha"] @ of_long, w["V_alpha"] @ of_short
        alpha_long = torch.exp(m1) / (torch.exp(m1) + torch.exp(m2))
        alpha_short = torch.exp(m2) / (torch.exp(m1) + torch.exp(m2))
    d = len(h)
    scores = w["W"][:, :d] @ (alpha_long * long) + w["W"][:, d:] @ (alpha_short * short) + w["c"]
    return scores, [float(alpha_long.detach()), float(alpha_short.detach())], beta


def weights_of(model: LSAMN) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.state_dict().items()}


def prefixes(sessions: list[list[int]]) -> list[list[list[int]]]:
    """The history after each event."""
    return [[*sessions[:n], session[: m + 1]] for n, session in enumerate(sessions) for m in range(len(session))]


def golden_model(**config: object) -> LSAMN:
    w = {name: torch.tensor(value, dtype=torch.float64) for name, value in GOLDEN["weights"].items() if name != "gru"}
    gru = {name: torch.tensor(value, dtype=torch.float64) for name, value in GOLDEN["weights"]["gru"].items()}
    n_items, d = w["X"].shape
    model = LSAMN(n_items, LSAMN.Config(embedding_size=d, **config), 1).double()
    loaded = {
        "item.weight": torch.cat([torch.zeros(1, d), w["X"]]),
        "user.weight": torch.stack([torch.zeros(d), w["v_u"]]),
        "stranger": w["v_u"],
        "gru.weight_ih_l0": torch.cat([gru["W_ir"], gru["W_iz"], gru["W_in"]]),
        "gru.weight_hh_l0": torch.cat([gru["W_hr"], gru["W_hz"], gru["W_hn"]]),
        "gru.bias_ih_l0": torch.cat([gru["b_ir"], gru["b_iz"], gru["b_in"]]),
        "gru.bias_hh_l0": torch.cat([gru["b_hr"], gru["b_hz"], gru["b_hn"]]),
        "V_beta": w["V_beta"],
        "V_alpha": w["V_alpha"],
        "W": torch.cat([w["W1"], w["W2"]], 1),
        "c": w["c"],
    }
    loaded |= {f"Phi{n}.weight": w[f"Phi{n}"].T for n in range(7)}  # the oracle writes x Phi
    biases = {0: "Omega0", 1: "Omega1", 2: "Omega2", 3: "Omega_l", 5: "Omega_s"}
    loaded |= {f"Phi{n}.bias": w[name] for n, name in biases.items()}
    model.load_state_dict({name: loaded[name] for name in model.state_dict()})
    return model.eval()


@pytest.mark.parametrize(("stored", "config"), [("scores", {}), ("scores_N_lsamn", N)])
def test_golden_scores_whole_and_event_by_event(stored: str, config: dict[str, object]) -> None:
    model, sessions = golden_model(**config), [[item + 1 for item in session] for session in GOLDEN["sessions"]]
    wanted = torch.tensor(GOLDEN[stored], dtype=torch.float64)
    torch.testing.assert_close(run(model, sessions, user=1), wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(run(model, sessions, user=0), wanted, rtol=0, atol=1e-9)  # the mean of one user
    state, whole = start(model, 1), batch(sessions)
    for place in range(len(wanted)):
        query, state = model(whole.cut(place, place + 1), state)
        torch.testing.assert_close(model.score(query)[0, 0], wanted[place], rtol=0, atol=1e-9)
    torch.testing.assert_close(run(model.float(), sessions, user=1), wanted.float(), rtol=0, atol=1e-5)


def test_golden_weights_of_long_and_short_term() -> None:
    model, sessions = golden_model(), [[item + 1 for item in session] for session in GOLDEN["sessions"]]
    found = model.explain(batch(sessions), start(model, 1))["long_short"][0]
    wanted = torch.tensor(GOLDEN["alpha_long_short"], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
@pytest.mark.parametrize("user", [2, 0])
def test_all_prefixes_in_one_pass_equal_the_slow_version(config: dict[str, object], user: int) -> None:
    model = small(**config)
    fast, w = run(model, SESSIONS, user), weights_of(model)
    for place, history in enumerate(prefixes(SESSIONS)):
        torch.testing.assert_close(fast[place], slow(model, w, history, user)[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_gradients_equal_those_of_the_slow_version(config: dict[str, object]) -> None:
    model = small(**config)
    targets = torch.arange(15) % 12
    run(model, SESSIONS).log_softmax(-1)[torch.arange(15), targets].sum().backward()
    w = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    for history, target in zip(prefixes(SESSIONS), targets, strict=True):
        slow(model, w, history)[0].log_softmax(-1)[target].backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, w[name].grad, rtol=0, atol=1e-11, msg=name)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_explanations_are_the_weights_of_the_slow_version(config: dict[str, object]) -> None:
    model = small(**config)
    found, w = model.explain(batch(SESSIONS), start(model)), weights_of(model)
    for place, history in enumerate(prefixes(SESSIONS)):
        _, alpha, beta = slow(model, w, history)
        assert found["long_short"][0, place].tolist() == pytest.approx(alpha, abs=1e-12)
        shown = [
            (item, weight)
            for item, weight in zip(
                found["items"][0, place].tolist(), found["attention"][0, place].tolist(), strict=True
            )
            if item
        ]
        wanted = beta[: model.config.session_limit]
        assert [item for item, _ in shown] == [item for item, _ in wanted]
        assert [weight for _, weight in shown] == pytest.approx([weight for _, weight in wanted], abs=1e-12)


def test_a_session_of_one_item_has_weight_one_and_is_its_vector() -> None:
    model = small()
    found = model.explain(batch([[5]]), start(model))
    assert found["attention"].flatten().tolist() == pytest.approx([1.0], abs=1e-15)
    _, after = model(batch([[5]]), start(model))
    torch.testing.assert_close(after["mean"][0], model.item.weight[5], rtol=0, atol=0)


@pytest.mark.parametrize("config", [{}, N], ids=str)
def test_the_order_inside_a_session_is_gone_at_its_end(config: dict[str, object]) -> None:
    model = small(**config)
    one, other = run(model, [[3, 7, 1, 9], [2, 5, 6]]), run(model, [[9, 3, 7, 1], [6, 2, 5]])
    torch.testing.assert_close(one[3], other[3], rtol=0, atol=1e-13)
    torch.testing.assert_close(one[6], other[6], rtol=0, atol=1e-13)
    assert not torch.allclose(one[2], other[2])
    swapped = run(model, [[2, 5, 6], [3, 7, 1, 9]])
    assert not torch.allclose(one[6], swapped[6])  # the order of the sessions stays


def test_an_item_counts_once_a_session() -> None:
    model = small()
    torch.testing.assert_close(run(model, [[3, 7, 3, 3, 7]])[-1], run(model, [[3, 7]])[-1], rtol=0, atol=1e-14)
    assert not torch.allclose(run(model, [[3, 7], [3]])[-1], run(model, [[3, 7, 3]])[-1])


def test_attention_that_has_learnt_nothing_is_the_mean() -> None:
    with_attention, without = small(preference_attention=False), small(**N)
    without.load_state_dict(with_attention.state_dict(), strict=False)
    assert not torch.allclose(run(with_attention, SESSIONS), run(without, SESSIONS))
    with torch.no_grad():
        with_attention.V_beta.zero_()
    torch.testing.assert_close(run(with_attention, SESSIONS), run(without, SESSIONS), rtol=0, atol=1e-13)


def test_preferences_without_a_weighting_vector_are_halved() -> None:
    with_attention, without = small(item_attention=False), small(**N)
    without.load_state_dict(with_attention.state_dict(), strict=False)
    with torch.no_grad():
        with_attention.V_alpha.zero_()
    torch.testing.assert_close(run(with_attention, SESSIONS), run(without, SESSIONS), rtol=0, atol=1e-13)


def test_beyond_the_limit_items_are_read_and_their_repeats_count_again() -> None:
    three, plain = small(session_limit=3), small()
    long = [1, 2, 3, 4, 5]
    torch.testing.assert_close(run(three, [long]), run(plain, [long]), rtol=0, atol=1e-14)
    _, after = three(batch([long]), start(three))
    assert after["ids"][0].tolist() == [1, 2, 3]
    torch.testing.assert_close(run(three, [[*long, 2, 1]])[-1], run(plain, [long])[-1], rtol=0, atol=1e-14)
    again, _ = slow_session(three, weights_of(three), [*long, 4])
    torch.testing.assert_close(three(batch([[*long, 4]]), start(three))[1]["mean"][0], again, rtol=0, atol=1e-14)
    assert not torch.allclose(run(three, [[*long, 4]])[-1], run(plain, [long])[-1])


@pytest.mark.parametrize("limit", [2, 64])
def test_a_long_session_cut_anywhere(limit: int) -> None:
    """A session of 150 events over 90 items, beyond both limits, in pieces of 1, 7 and 64 events."""
    with seeded(1):
        model = LSAMN(90, LSAMN.Config(embedding_size=4, session_limit=limit), 3).double().eval()
    items = np.random.default_rng(0).integers(1, 91, 150).tolist()
    whole, final = model(batch([items]), start(model))
    for size in (1, 7, 64):
        state, parts = start(model), []
        for first in range(0, 150, size):
            part, state = model(batch([items]).cut(first, first + size), state)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-10)
        assert state["ids"].tolist() == final["ids"].tolist()
    w = weights_of(model)
    torch.testing.assert_close(final["mean"][0], slow_session(model, w, items)[0], rtol=0, atol=1e-12)


def test_enormous_scores_neither_overflow_nor_lose_the_small_ones() -> None:
    model = small().float()
    with torch.no_grad():
        model.V_beta.mul_(2e4)
    query, after = model(batch(SESSIONS), start(model))
    assert query.isfinite().all()
    marks = model._item_scores(model.item(torch.tensor([1, 8]))).detach()
    assert float(marks.max() - marks.min()) > 200  # e^200 has no float32
    best = int(torch.tensor([1, 8])[marks.argmax()])
    torch.testing.assert_close(after["mean"][0], model.item.weight[best].detach())


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_asked_at_ends_of_sessions_alone_it_takes_a_shorter_way_to_the_same(config: dict[str, object]) -> None:
    """Training on sessions: one sum a session in place of the running one, from whatever state."""
    model, users = small(**config), torch.tensor([2, 1, 0])
    _, before = model(Events.of([[3, 7, 3], [], [5]], [[True, True, False], [], [True]]), model.initial_state(users))
    items = [[7, 1, 12, 12, 4, 9, 4], [8, 8], []]
    starts = [[False, True, False, False, True, False, False], [True, False], []]
    events = Events.of(items, starts)
    ends = torch.tensor([[1, 0, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0, 0], [0] * 7]) > 0
    found = []
    for at in (ends, None):
        model.zero_grad()
        query, after = model(events, {name: part.detach() for name, part in before.items()}, at=at)
        query = query if at is not None else query[ends]
        (query.sin().sum() + after["mean"].sin().sum() + after["h"].sin().sum()).backward()
        found.append((query, after, {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


def test_the_gru_runs_once_over_the_sessions_and_once_for_what_is_asked() -> None:
    model, calls = small(), []
    model.gru.register_forward_hook(lambda _, inputs, __: calls.append(tuple(inputs[0].shape)))
    at = torch.zeros(1, 15, dtype=torch.bool)
    at[0, [3, 4, 14]] = True
    model(batch(SESSIONS), start(model), at=at)
    assert calls == [(1, 4, 4), (3, 1, 4)]  # four closed sessions of the five; three asked positions


def test_a_state_without_events_answers_with_the_long_term_alone() -> None:
    model = small(**N)
    w = weights_of(model)
    query = model.query(start(model))[0, 0]
    long = torch.tanh(w["Phi1.weight"] @ w["user.weight"][2] + w["Phi1.bias"])
    torch.testing.assert_close(query, torch.cat([long / 2, torch.tanh(w["Phi2.bias"]) / 2]))
    with torch.no_grad():
        empty, after = model(Events.of([[]]), start(model))
    assert empty.shape == (1, 0, 8)
    assert float(after["h"].abs().max()) == 0


def test_a_stranger_is_the_mean_user_as_training_left_it() -> None:
    model = small().train()
    with torch.no_grad():
        model.user.weight[1:] = torch.tensor([[1.0], [2.0], [6.0]])
        model.user.weight[2] = 3.0
    mean = torch.full((4,), 10 / 3, dtype=torch.float64)
    in_training = run(model, SESSIONS, user=0)
    model.eval()
    torch.testing.assert_close(model.stranger, mean)
    torch.testing.assert_close(run(model, SESSIONS, user=0), in_training)
    with torch.no_grad():
        model.user.weight[1] = mean
    torch.testing.assert_close(run(model, SESSIONS, user=1), in_training)
    assert LSAMN(5, LSAMN.Config(embedding_size=4)).eval().stranger.tolist() == [0] * 4  # nobody is known


def test_squares_are_those_of_the_rows_that_are_named() -> None:
    model = small()
    w = weights_of(model)
    wanted = 2 * w["user.weight"][3].square().sum()
    for item in (4, 4, 9):
        wanted = (
            wanted + w["item.weight"][item].square().sum() + w["W"][item - 1].square().sum() + w["c"][item - 1] ** 2
        )
    found = squares(model.owned(torch.tensor([3, 0, 3]), torch.tensor([4, 4, 9])))
    torch.testing.assert_close(found, wanted)


def test_the_score_is_one_inner_product() -> None:
    model = small()
    query, _ = model(batch(SESSIONS), start(model))
    torch.testing.assert_close(query @ model.item_matrix().T + model.item_bias(), model.score(query))
    assert model.item_matrix().shape == (12, 8)


def test_the_state_is_as_large_as_the_first_lines_say() -> None:
    state = LSAMN(10).initial_state(torch.zeros(1, dtype=torch.int64))
    assert sum(state[name].nbytes for name in ("h", "mean", "level")) == 4 * (2 * 40 + 1) == 324
    assert state["ids"].nbytes + state["user"].nbytes == 520
    state = LSAMN(10, LSAMN.Config(embedding_size=100)).initial_state(torch.zeros(1, dtype=torch.int64))
    assert sum(part.nbytes for part in state.values()) == 4 * 201 + 520


def follow_log(n_users: int, n_sessions: int = 6) -> Sequences:
    """Sessions of two of three items of a group, then of the next group: only the session before tells the group."""
    rng = np.random.default_rng(0)
    groups = (rng.integers(4, size=n_users)[:, None] + np.arange(n_sessions)) % 4  # [U, S]
    inside = np.argsort(rng.random((n_users, n_sessions, 3)), axis=2)[:, :, :2]  # [U, S, 2]
    items = (3 * groups[..., None] + inside + 1).astype(np.int32).ravel()
    size = 2 * n_sessions
    return Sequences(
        items=items,
        users=np.arange(0, len(items) + 1, size),
        sessions=np.arange(0, len(items) + 1, 2),
        part=np.zeros(len(items), np.uint8),
        user_numbers=np.arange(1, n_users + 1, dtype=np.int32),
    )


def test_training_asks_the_ends_of_sessions_for_all_of_the_next() -> None:
    log = follow_log(3)
    config = TrainConfig.of(LSAMN.recipe)
    (step,) = batches(log, "user", budget=256, chunk=512, seed=(0, 0), aim=aim_of(config))
    assert step.at.tolist() == [[False, True] * 5 + [False]] * 3  # the last session is only wanted
    assert len(step.targets) == 3 * 5 * 2
    for row, items in enumerate(step.events.items.tolist()):
        wanted = (step.targets[step.owners == row] + 1).tolist()
        assert wanted[:-1] == items[2:], "both items of each next session"
    (last,) = batches(log, "user", budget=256, chunk=512, seed=(0, 0), aim=aim_of(config.with_(targets="last_session")))
    assert last.at.nonzero()[:, 1].tolist() == [9] * 3
    assert len(last.targets) == 6


@pytest.mark.parametrize("config", [{}, N], ids=str)
def test_it_learns_what_the_next_session_will_be(config: dict[str, object]) -> None:
    """The loss comes down to that of the true law, and a stranger is shown the next group.

    A target is one of 3 items of its group; a negative is any of the 11 others, so m = 10 / 11 negatives fall on the
    group. Scores that know the group and no more cost log(1 + m) + m log((1 + m) / m); that of a user who is learnt by
    heart is lower.
    """
    log = follow_log(120)
    with seeded(0):
        model = LSAMN(12, LSAMN.Config(embedding_size=24, **config), 120)
    settings = {"epochs": 20, "learning_rate": 0.02, "schedule": "linear", "batch": 64, "exclude_touched": False}
    losses = [entry["loss"] for entry in train(model, log, TrainConfig.of({**LSAMN.recipe, **settings})).history]
    m = 10 / 11
    known = math.log(1 + m) + m * math.log((1 + m) / m)  # 1.32; all scores 0 cost 6 log 2 = 4.16
    assert losses[0] > 2 * known
    assert 0.8 * known < losses[-1] < 1.05 * known
    model.eval()
    with torch.no_grad():
        query, _ = model(batch([[1, 2], [5, 4], [9, 8], [10, 12]]), start(model, 0))
    best = model.score(query)[0].topk(3).indices + 1  # [T, 3]
    assert [set(best[t].tolist()) for t in (1, 3, 5, 7)] == [{4, 5, 6}, {7, 8, 9}, {10, 11, 12}, {1, 2, 3}]


def test_defaults_are_the_papers_and_unknown_keys_are_refused() -> None:
    config = LSAMN.Config()
    assert (config.item_attention, config.preference_attention, config.session_limit) == (True, True, 64)
    recipe = TrainConfig.of(LSAMN.recipe)
    assert (recipe.targets, recipe.loss, recipe.negatives, recipe.sampler, recipe.batch) == (
        "session", "bce", 5, "uniform", 256,
    )  # fmt: skip
    assert LSAMN.needs_of(config) == {"users", "sessions"}
    with pytest.raises(ConfigError, match="did you mean 'session_limit'"):
        LSAMN.Config(sesion_limit=3)


def test_small_initial_tables_have_their_spread() -> None:
    with seeded(0):
        model = LSAMN(5000, LSAMN.Config(init="normal"), 100)
    assert float(model.W.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert float(model.item.weight[1:].detach().std()) == pytest.approx(0.01, rel=0.02)
    assert float(model.Phi1.weight.detach().abs().max()) == pytest.approx(1 / math.sqrt(40), rel=0.01)
    assert not model.c.any()
