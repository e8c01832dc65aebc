"""ASARS against its equations: golden numbers, a slow version written event by event, and the identities."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.battery import make, random_log
from tests.squares import squares
from torch import Tensor

import foretaste.models
from foretaste.data.events import EventLog
from foretaste.data.sequences import Sequences
from foretaste.data.sessions import with_dwell
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, NeedsError
from foretaste.evaluation.evaluate import evaluate
from foretaste.evaluation.protocols import PerStep, Product
from foretaste.models.asars import ASARS
from foretaste.models.bins import START
from foretaste.models.contract import Events, SequenceModel, State, seeded
from foretaste.models.saved import Trained

NAMES = ("time_user", "user_att", "user_cat", "time_att", "time_cat", "none")
VARIANTS: list[dict[str, object]] = [
    *[{"variant": name} for name in NAMES],
    {"mode": "paper"},
    {"variant": "time_cat", "mode": "paper"},
    {"query": "last"},
    {"query": "last", "window": 3, "variant": "time_att"},
    {"temporal": True},
    {"temporal": True, "variant": "user_att"},
    {"temporal": True, "variant": "user_cat"},
    *[{"temporal": True, term: False} for term in ("drift", "dev", "item_bins", "level")],
    {"temporal": True, "query": "last", "window": 3},
    {"temporal": True, "mode": "paper"},
]
GOLDEN = json.loads((Path(__file__).parent / "asars_golden.json").read_text())
ITEMS, TIMES = [3, 7, 3, 1, 12, 9, 2, 2, 5, 11], [0, 40, 40, 200, 90_000, 90_003, 260_000, 260_900, 260_900, 290_000]
STARTS = [True, False, False, False, True, False, True, False, False, False]
DWELL = [40, 0, 160, 3, 3, 7, 900, 0, 29_100, 5]


def small(n_items: int = 12, **config: object) -> ASARS:
    """Random weights, and a log's bins and mean times set by hand."""
    sizes = {"embedding_size": 4, "time_size": 3, "user_size": 2, "hidden_size": 5, "max_bins": 9, "bin_rank": 3}
    with seeded(7):
        model = ASARS(n_items, ASARS.Config(**{**sizes, **config}), n_users=3).double().eval()
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.7)
    model.item.weight.data[0] = 0
    if model.bins is not None:
        model.bins.width.fill_(30.0)
    if model.temporal is not None:
        model.temporal.mean_day.copy_(torch.tensor([1.0, 0.5, 2.0, 4.0]))
    return model


def events(n: int = len(ITEMS)) -> Events:
    """One row: three sessions, with a pause of no time, and one of hours inside a session."""
    batch = Events.of([ITEMS[:n]], starts=[STARTS[:n]], times=[TIMES[:n]])
    return replace(batch, columns={"dwell": torch.tensor([DWELL[:n]])})


def start(model: SequenceModel, user: int = 1) -> State:
    return model.initial_state(torch.tensor([user]))


def scores(model: ASARS, batch: Events, user: int = 1) -> Tensor:
    """[T, I]: after each event of one row."""
    return model.score(model(batch, start(model, user))[0])[0]


def leveled(model: ASARS) -> ASARS:
    """With the level in its scores, as in training."""
    if model.temporal is not None:
        model.temporal.train()
    return model


class Slow:
    """ASARS from the paper's equations: one event at a time, lists and loops, nothing shared with the model."""

    def __init__(self, model: ASARS, user: int) -> None:
        self.c, self.user = model.config, user
        self.w = {name: value.detach() for name, value in model.state_dict().items()}
        self.sessions = 0
        self.time = 0
        self.taste = torch.zeros(self.c.user_size, dtype=torch.float64)
        self._begin()

    def _begin(self) -> None:
        H = self.c.hidden_size
        self.h, self.cell, self.g, self.g_cell = (torch.zeros(H, dtype=torch.float64) for _ in range(4))
        self.p: list[Tensor] = []
        self.states: list[Tensor] = []
        self.bin = START

    def _lstm(self, name: str, x: Tensor, h: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        w = self.w
        z = w[f"{name}.weight_ih_l0"] @ x + w[f"{name}.bias_ih_l0"]
        z = z + w[f"{name}.weight_hh_l0"] @ h + w[f"{name}.bias_hh_l0"]
        i, f, g, o = z.chunk(4)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell

    def _dev(self) -> float:
        days = self.time / 86_400 - float(self.w["temporal.mean_day"][self.user])
        return math.copysign(abs(days) ** 0.4, days)

    def _close(self) -> None:
        """Equation 14: the session's last state, scaled, enters the user's GRU."""
        w = self.w
        x = self.h * (self._dev() if self.c.dev else 1.0)
        from_x = w["temporal.gru.weight_ih_l0"] @ x + w["temporal.gru.bias_ih_l0"]
        from_h = w["temporal.gru.weight_hh_l0"] @ self.taste + w["temporal.gru.bias_hh_l0"]
        (xr, xz, xn), (hr, hz, hn) = from_x.chunk(3), from_h.chunk(3)
        z, n = torch.sigmoid(xz + hz), torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
        self.taste = (1 - z) * n + z * self.taste

    def _e_u(self) -> Tensor:
        own = self.w["user.weight"][self.user]
        drifts = self.c.temporal and self.c.drift
        return own + self.w["temporal.alpha"][self.user] * self.taste if drifts else own

    def take_in(self, item: int, time: int, starts: bool, dwell: int) -> None:
        c, w = self.c, self.w
        if c.temporal and starts:
            if self.sessions and c.drift:
                self._close()
            self._begin()
            self.sessions += 1
        seconds = dwell if c.mode == "paper" else time - self.time
        first = c.mode == "causal" and not self.states
        self.bin = START if first else min(int(min(max(seconds, 0), 3600) / 30), 8) + 1
        self.time = time
        x = w["item.weight"][item]
        if c.variant == "time_cat":
            x = torch.cat([x, w["time.weight"][self.bin]])
        self.h, self.cell = self._lstm("lstm", x, self.h, self.cell)
        if c.variant in ("time_user", "time_att"):
            self.g, self.g_cell = self._lstm("time_lstm", w["time.weight"][self.bin], self.g, self.g_cell)
            self.p.append(torch.tanh(w["W_s.weight"] @ self.g + w["W_s.bias"]))
        elif c.variant == "user_att":
            self.p.append(torch.tanh(w["W_s.weight"] @ self.h + w["W_s.bias"]))
        self.states.append(self.h)

    def weights(self) -> list[float]:
        """Equation 16: of each event of the session so far, the oldest first."""
        if self.c.query == "last":
            found = [float(p @ self.h) for p in self.p][-self.c.window :]
        elif self.c.variant == "user_att":
            found = [float(p @ self._e_u()) for p in self.p]
        else:
            found = [float(p @ h) for p, h in zip(self.p, self.states, strict=True)]
        total = sum(math.exp(s) for s in found)
        return [math.exp(s) / total for s in found]

    def scores(self) -> Tensor:
        """[I]: equation 20, and with temporal equation 14's biases."""
        c, w = self.c, self.w
        context = self.h
        if c.variant in ("time_user", "time_att", "user_att"):
            context = torch.zeros_like(self.h)
            weights = self.weights()
            for weight, h in zip(weights, self.states[len(self.states) - len(weights) :], strict=True):
                context = context + weight * h
        if "user" in c.variant:
            context = torch.cat([context, self._e_u()])
        found = w["item.weight"][1:] @ (w["out.weight"] @ context + w["out.bias"]) + w["item_b"]
        if c.temporal and c.item_bins:
            found = found + w["temporal.item_bin"] @ w["temporal.bin.weight"][self.bin]
        if c.temporal and c.level:
            dev = self._dev() if self.sessions else 0.0
            found = found + w["temporal.mu"] + w["temporal.user_bias"][self.user] + w["temporal.alpha"][self.user] * dev
        return found


def golden_model(mode: str) -> ASARS:
    given = {k: torch.tensor(v, dtype=torch.float64) for k, v in GOLDEN["weights"].items() if not isinstance(v, dict)}
    n_items, size = given["E"].shape
    before = 1 if mode == "paper" else 0  # causal: the stored bin 0, which only stands first, is START
    sizes = {"embedding_size": size, "time_size": 3, "user_size": 2, "hidden_size": 5, "max_bins": 5 + before}
    model = ASARS(n_items, ASARS.Config(mode=mode, **sizes), n_users=1).double().eval()
    loaded = {
        "item.weight": torch.cat([torch.zeros(1, size), given["E"]]),
        "item_b": given["b_k"],
        "time.weight": torch.cat([torch.zeros(before, 3), given["Tb"]]),
        "user.weight": torch.stack([torch.zeros(2), given["e_u"]]),
        "W_s.weight": given["W_s"].T,
        "W_s.bias": given["b_s"],
        "out.weight": given["W_o"].T,
        "out.bias": given["b_o"],
        "bins.width": torch.tensor(1.0),
        "bins.number": torch.tensor(5.0 + before),
    }
    for role, name in (("item", "lstm"), ("time", "time_lstm")):
        part = {k: torch.tensor(v, dtype=torch.float64) for k, v in GOLDEN["weights"][role].items()}
        for side in "ih":
            loaded[f"{name}.weight_{side}h_l0"] = torch.cat([part[f"W_{side}{gate}"] for gate in "ifgo"])
            loaded[f"{name}.bias_{side}h_l0"] = torch.cat([part[f"b_{side}{gate}"] for gate in "ifgo"])
    model.load_state_dict(loaded)
    return model


def golden_events() -> Events:
    """The stored bins as dwell for the paper's mode, and as gaps for the causal one."""
    bins = torch.tensor([GOLDEN["bins"]])
    times = (bins - 1).clamp(min=0).cumsum(1) + 1_000
    return replace(Events.of([[n + 1 for n in GOLDEN["items"]]]), times=times, columns={"dwell": bins})


@pytest.mark.parametrize("mode", ["causal", "paper"])
def test_golden_scores_whole_and_event_by_event(mode: str) -> None:
    model, batch = golden_model(mode), golden_events()
    wanted = torch.tensor(GOLDEN["scores"], dtype=torch.float64)
    torch.testing.assert_close(scores(model, batch), wanted, rtol=0, atol=1e-9)
    state = start(model)
    for place in range(batch.shape[1]):
        query, state = model(batch.cut(place, place + 1), state)
        torch.testing.assert_close(model.score(query)[0, 0], wanted[place], rtol=0, atol=1e-9)
        torch.testing.assert_close(model.score(model.query(state))[0, 0], wanted[place], rtol=0, atol=1e-9)
    torch.testing.assert_close(scores(model.float(), batch), wanted.float(), rtol=0, atol=1e-5)


def test_golden_attention() -> None:
    model = golden_model("causal")
    weights = model.explain(golden_events(), start(model))["attention"][0]
    for place, wanted in enumerate(GOLDEN["attention"]):
        found = weights[place]
        assert found[-place - 1 :].tolist() == pytest.approx(wanted, abs=1e-9)
        assert not found[: -place - 1].any()


@pytest.mark.parametrize("config", VARIANTS, ids=str)
@pytest.mark.parametrize("user", [0, 2])
def test_one_pass_equals_the_slow_version(config: dict[str, object], user: int) -> None:
    model, batch = leveled(small(**config)), events()
    fast, slow = scores(model, batch, user), Slow(model, user)
    torch.testing.assert_close(model.score(model.query(start(model, user)))[0, 0], slow.scores(), rtol=0, atol=1e-10)
    reasons = model.explain(batch, start(model, user)).get("attention")
    for place, event in enumerate(zip(ITEMS, TIMES, STARTS, DWELL, strict=True)):
        slow.take_in(*event)
        torch.testing.assert_close(fast[place], slow.scores(), rtol=0, atol=1e-10)
        if reasons is not None:
            found = reasons[0, place]
            assert found[found > 0].tolist() == pytest.approx(slow.weights(), abs=1e-12)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_the_gradient_of_all_prefixes_is_the_sum_over_prefixes(config: dict[str, object]) -> None:
    model, targets = leveled(small(**config)), torch.tensor(ITEMS[1:]) - 1
    scores(model, events().cut(0, 9)).log_softmax(-1)[torch.arange(9), targets].sum().backward()
    whole = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    for n in range(1, 10):
        scores(model, events(n))[-1].log_softmax(-1)[targets[n - 1]].backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(whole[name], weight.grad, rtol=0, atol=1e-11, msg=name)


# ------------------------------------------------------------------------ identities


def test_constant_times_and_scores_give_the_running_mean() -> None:
    """With p = 0 every p_j . h_j is 0: all weights are alike, and q_t is the mean of h so far."""
    model = small()
    model.W_s.weight.data.zero_()
    model.W_s.bias.data.zero_()
    batch = events()
    steps, _ = model._take_in(batch, start(model))
    mean = steps["sum"] / steps["mass"][..., None]
    wanted = steps["h"].cumsum(1) / torch.arange(1, 11)[:, None]
    torch.testing.assert_close(mean, wanted, rtol=0, atol=1e-12)


def test_user_beside_the_last_state_without_user_rows_is_the_plain_lstm() -> None:
    beside, plain = small(variant="user_cat"), small(variant="none")
    shared = {name: value for name, value in beside.state_dict().items() if name in plain.state_dict()}
    plain.load_state_dict({**shared, "out.weight": beside.out.weight[:, :5]})
    assert not torch.allclose(scores(beside, events()), scores(plain, events()))
    beside.user.weight.data.zero_()
    torch.testing.assert_close(scores(beside, events()), scores(plain, events()))


# ------------------------------------------------------------------------ time


def log_of(times: list[int], sessions: list[int], users: list[int], numbers: list[int], **columns: object) -> Sequences:
    return Sequences(
        items=np.arange(1, len(times) + 1, dtype=np.int32) % 12 + 1,
        users=np.array(users),
        sessions=np.array(sessions),
        part=np.zeros(len(times), np.uint8),
        user_numbers=np.array(numbers, np.int32),
        times=np.array(times, np.int64),
        columns={name: np.array(column) for name, column in columns.items()},
    )


def test_the_width_is_scotts_over_the_gaps_inside_training_sessions() -> None:
    """Gaps 20, 100, 9,000 (an hour); the pause of 50,000 between the sessions is none of them."""
    log = log_of([0, 20, 120, 50_120, 59_120], [0, 3, 5], [0, 5], [1])
    model = small(max_bins=1000)
    model.count(log)
    gaps = np.array([20, 100, 3600.0])
    width = 3.490_83 * gaps.std() / 3 ** (1 / 3)  # (24 sqrt(pi)) ^ (1/3) = 3.49083
    assert float(model.bins.width) == pytest.approx(width, rel=1e-5)
    assert float(model.bins.number) == math.floor(3600 / width) + 1


def test_bins_come_from_the_training_part_alone() -> None:
    log = log_of([0, 20, 120, 3_000], [0, 4], [0, 4], [1])
    whole, training, alone = small(), small(), small()
    whole.count(log)
    training.count(replace(log, part=np.array([0, 0, 0, 2], np.uint8)).of_part(0))
    alone.count(log_of([0, 20, 120], [0, 3], [0, 3], [1]))
    assert float(training.bins.width) == float(alone.bins.width) < float(whole.bins.width)


def test_equal_and_enormous_times_are_answered() -> None:
    model = small()
    for times in ([5, 5, 5], [0, 2**40, 2**41], [9, 3, 1]):
        batch = Events.of([[1, 2, 3]], times=[times])
        assert bool(scores(model, batch).isfinite().all())
    paused = [scores(model, Events.of([[1, 2, 3]], times=[[0, 10, gap]])) for gap in (3610, 10_000_000)]
    assert torch.equal(*paused), "longer than an hour is an hour"


def dwell_of(times: Tensor) -> Tensor:
    """The paper's column as the data layer prepares it; one more event comes a minute after the last."""
    clock = [*times[0].tolist(), int(times[0, -1]) + 60]
    source = {"s": ["a"] * len(clock), "i": list(range(len(clock))), "t": clock}
    log = with_dwell(EventLog.read(source, session="s", item="i", time="t")).prepare()
    return torch.from_numpy(log.sequences.columns["dwell"])[None]


@pytest.mark.parametrize("variant", ["time_user", "time_att", "time_cat"])
def test_the_paper_mode_leaks_and_the_causal_mode_does_not(variant: str) -> None:
    """Move what comes after event 5 in time, and prepare the columns again: answers up to 5 must not move."""
    batch = replace(events(), times=60 * torch.arange(10)[None])
    later = torch.where(torch.arange(10) > 5, batch.times + 100, batch.times)
    leak = {}
    for mode in ("paper", "causal"):
        model = small(variant=variant, mode=mode)
        moved = [
            scores(model, replace(batch, times=times, columns={"dwell": dwell_of(times)}))
            for times in (batch.times, later)
        ]
        leak[mode] = (moved[0] - moved[1]).detach().abs().amax(-1)
        assert model.causal == (mode == "causal")
    assert float(leak["causal"][:6].max()) == 0
    assert float(leak["causal"][6]) > 1e-9, "the gap before event 6 is known at event 6"
    assert float(leak["paper"][:5].max()) == 0
    assert float(leak["paper"][5]) > 1e-9, "the answer after event 5 knows when event 6 will come"


def test_what_leaks_is_never_asked_and_is_marked() -> None:
    model = small(mode="paper").float()
    trained = Trained("asars", model, Vocabulary(list(range(12))), None, {})
    with pytest.raises(NeedsError, match="causal = False"):
        trained.recommend([1, 2], times=[0, 5])
    log = log_of([0, 20, 120, 200], [0, 4], [0, 4], [1], dwell=[20, 100, 80, 0])
    assert "causal = False" in evaluate(model, log, PerStep().cases(log, 0)).facts.notes[0]
    with pytest.raises(ConfigError, match="variant 'user_cat' reads none"):
        small(mode="paper", variant="user_cat")


# ------------------------------------------------------------------------ users


def test_an_unknown_user_has_its_own_vector_and_training_learns_it() -> None:
    model, batch = small(user_dropout=0.25), events()
    assert torch.equal(scores(model, batch, user=0), scores(model, batch, user=0))
    assert not torch.allclose(scores(model, batch, user=0), scores(model, batch, user=1))
    users = torch.ones(40_000, dtype=torch.int64)
    assert bool((model.initial_state(users)["user"] == 1).all())
    with seeded(0):
        dropped = model.train().initial_state(users)["user"] == 0
    assert float(dropped.double().mean()) == pytest.approx(0.25, abs=0.01)


def test_before_the_first_event_the_users_vector_asks() -> None:
    model = small()
    context = torch.cat([torch.zeros(5, dtype=torch.float64), model.user.weight[2]])
    wanted = model.item.weight[1:] @ (model.out(context)) + model.item_b
    torch.testing.assert_close(model.score(model.query(start(model, 2)))[0, 0], wanted)


def test_the_mean_time_of_a_user_and_dev_by_hand() -> None:
    """User 1 at days 10 and 12, user 2 at day 20, user 3 never: dev is sign(x) |x|^0.4 in days from the mean."""
    day = 86_400
    model = small(temporal=True)
    model.count(log_of([10 * day, 12 * day, 20 * day], [0, 1, 2, 3], [0, 2, 3], [1, 2]))
    users, at = torch.tensor([1, 1, 2, 3, 0]), torch.tensor([43, 10, 20, 15, 14]) * day
    wanted = [32**0.4, -1.0, 0.0, 1.0, 0.0]  # 43 - 11, 10 - 11, 20 - 20, 15 - 14, 14 - 14
    assert model.temporal.dev(users, at).tolist() == pytest.approx(wanted, abs=1e-12)


def test_each_temporal_term_is_switched_off_alone() -> None:
    full = dict(small(temporal=True).named_parameters())
    gone = {
        "drift": {f"temporal.gru.{n}_{s}h_l0" for n in ("weight", "bias") for s in "ih"},
        "dev": set(),
        "item_bins": {"temporal.item_bin", "temporal.bin.weight"},
        "level": {"temporal.mu", "temporal.user_bias"},
    }
    for term, names in gone.items():
        model = small(temporal=True, **{term: False})
        assert full.keys() - dict(model.named_parameters()).keys() == names
    off = small(temporal=True, drift=False, dev=False, item_bins=False, level=False)
    assert not [name for name in full if name in dict(off.named_parameters()) and "temporal" in name]
    one = Events.of([[3, 5, 2]], times=[[0, 60, 70]])  # one session: nothing of the temporal part is left
    plain = small()
    plain.load_state_dict({k: v for k, v in off.state_dict().items() if "temporal" not in k})
    torch.testing.assert_close(scores(off, one), scores(plain, one))


def test_the_level_moves_no_ranking() -> None:
    """It is in the scores of training, alike for all items, and in no answer, where float32 would pay for it."""
    model, batch = small(temporal=True), events()
    answered, before = scores(model, batch), scores(leveled(model), batch)
    model.temporal.mu.data += 3
    model.temporal.user_bias.data += torch.tensor([1.0, 2, 3, 4])
    after = scores(model, batch)
    torch.testing.assert_close(after - before, torch.full_like(before, 5.0))
    moved = before - answered
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved))
    assert torch.equal(scores(model.eval(), batch), answered)


def test_a_session_leaves_something_behind_once_the_next_begins() -> None:
    model, batch = small(temporal=True, item_bins=False, level=False), events()
    _, state = model(batch.cut(0, 4), start(model))
    assert not state["taste"].any(), "the first session is still open"
    _, state = model(batch.cut(4, 5), state)
    assert state["taste"].all()
    assert int(state["seen"]) == 1
    alone = Events.of([[ITEMS[4]]], times=[[TIMES[4]]])
    _, fresh = model(alone, start(model))
    torch.testing.assert_close(state["h"], fresh["h"], msg="the LSTM began afresh")
    moved = model._user(state) - model.user.weight[1]
    torch.testing.assert_close(moved, model.temporal.alpha[1] * state["taste"])


def test_what_each_variant_needs_of_a_log() -> None:
    def needs(**config: object) -> set[str]:
        return set(ASARS.needs_of(ASARS.Config(**config)))

    assert needs() == set(ASARS.needs) == {"users", "times"}
    assert needs(variant="time_att") == needs(variant="time_cat") == {"times"}
    assert needs(variant="user_att") == needs(variant="user_cat") == {"users"}
    assert needs(variant="none") == set()
    assert needs(mode="paper") == {"users", "dwell"}
    assert needs(temporal=True, variant="user_cat") == {"users", "times", "sessions"}
    assert needs(temporal=True, variant="user_cat", item_bins=False, level=False, dev=False) == {"users", "sessions"}
    assert (small().scope, small(temporal=True).scope) == ("session", "user")
    model = small()
    with pytest.raises(NeedsError, match="times"):
        model(replace(events(), times=None), start(model))
    with pytest.raises(NeedsError, match="dwell"):
        small(mode="paper").count(log_of([0, 1], [0, 2], [0, 2], [1]))


# ------------------------------------------------------------------------ reasons, sizes, settings


def test_reasons_sum_to_one_and_the_rest_of_a_long_session_lies_on_older_events() -> None:
    model, short = small(), small(explained=3)
    short.load_state_dict(model.state_dict())
    whole = model.explain(events(), start(model))["attention"][0]  # [10, 20]
    torch.testing.assert_close(whole.sum(-1), torch.ones(10, dtype=torch.float64))
    newest = short.explain(events(), start(short))["attention"][0]  # [10, 3]
    torch.testing.assert_close(newest, whole[:, -3:])
    assert float(newest[-1].detach().sum()) < 1
    _, before = short(events().cut(0, 9), start(short))
    alone = short.explain(events().cut(9), before)["attention"][0, 0]
    torch.testing.assert_close(alone, whole[-1, -3:], msg="from the state")
    assert small(variant="user_cat").explain(events(), start(model)) == {}


def test_a_saved_recommender_answers_and_explains_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(foretaste.models.MODELS, "asars", "foretaste.models.asars:ASARS")
    for config in ({}, {"temporal": True}, {"query": "last", "window": 3}):
        model = small(**config).float()
        names = Vocabulary(["a", "b", "c"])
        trained = Trained("asars", model, Vocabulary(list("abcdefghijkl")), names, {})
        beside = {"user": "b", "times": [0, 5, 9, 300], "sessions": [1, 1, 2, 2]}
        again = Trained.load(trained.save(tmp_path / str(len(config)) / "run"))
        history = ["b", "a", "?", "d"]
        assert again.recommend(history, 5, **beside).ids == trained.recommend(history, 5, **beside).ids
        reasons = again.explain(history, **beside)["attention"]
        assert [item for item, weight in reasons if weight] == ["d"]  # of the open session, whatever the scope
        assert sum(weight for _, weight in reasons) == pytest.approx(1, abs=1e-5)


def test_the_state_is_as_large_as_the_first_lines_say() -> None:
    def size(**config: object) -> int:
        state = ASARS(10, ASARS.Config(**config)).initial_state(torch.zeros(1, dtype=torch.int64))
        return sum(part.nbytes for part in state.values())

    assert size() == 4 * (5 * 100 + 2 + 20) + 3 * 8 == 2112
    assert size(temporal=True) == 2112 + 4 * 32 + 8
    assert size(variant="none") == 808
    assert size(query="last") == 4 * (5 * 100 + 2 * 200 * 100) + 3 * 8


def test_squares_by_hand() -> None:
    model = small()
    users, items = torch.tensor([1, 0, 1]), torch.tensor([4, 4, 2])
    wanted = 2 * model.user.weight[1].square().sum()
    for n in (4, 4, 2):
        wanted = wanted + model.item.weight[n].square().sum() + model.item_b[n - 1] ** 2
    torch.testing.assert_close(squares(model.owned(users, items)), wanted)


def test_defaults_are_the_papers_and_what_does_not_fit_is_refused() -> None:
    c = ASARS.Config()
    assert (c.embedding_size, c.time_size, c.user_size, c.hidden_size, c.dropout) == (64, 16, 32, 100, 0.5)
    recipe = dict(ASARS.recipe)
    assert (recipe["loss"], recipe["optimizer"], recipe["learning_rate"], recipe["chunk"]) == (
        "hinge",
        "adagrad",
        0.2,
        200,
    )
    with pytest.raises(ConfigError, match="take variant time_user, user_att or user_cat, not 'time_att'"):
        ASARS.Config(temporal=True, variant="time_att")
    with pytest.raises(ConfigError, match="take time_user or time_att, not 'user_att'"):
        ASARS.Config(query="last", variant="user_att")
    with pytest.raises(ConfigError, match="did you mean 'time_size'"):
        ASARS.Config(tme_size=3)


def test_the_product_protocol_refuses_what_no_service_could_know() -> None:
    log, model = random_log(), make("asars", {"mode": "paper"}, dtype=torch.float32)
    with pytest.raises(NeedsError, match=r"causal = False.*service"):
        evaluate(model, log, Product().cases(log, 0))
    found = evaluate(model, log, PerStep().cases(log, 0))
    assert any("causal = False" in note for note in found.facts.notes)
