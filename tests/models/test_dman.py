"""DMAN against the equations: golden numbers, a slow version written event by event, and the paper's identities."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from foretaste.data.sequences import TEST, TRAIN
from foretaste.data.simulate import known
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError
from foretaste.evaluation.evaluate import evaluate
from foretaste.evaluation.protocols import PerStep
from foretaste.models.contract import Events, State, seeded
from foretaste.models.dman import DMAN
from foretaste.models.routing import Routing, reconstruction_loss, squash
from foretaste.models.saved import Trained
from foretaste.training.loop import TrainConfig, train

VARIANTS = [
    {},
    {"memory": "fifo"},
    {"memory": "fifo", "slots": 6},
    {"memory": "none"},
    {"nran": True},
    {"nran": True, "memory": "fifo"},
    {"nran": True, "memory": "none"},
    {"routing": "pair"},
    {"routing": "shared"},
    {"layers": 1},
    {"layers": 3},
    {"bare": True},
    {"bare": True, "memory": "fifo"},
    {"bare": True, "memory": "none"},
    {"bare": True, "nran": True},
    {"bare": True, "routing": "pair"},
    {"bare": True, "routing": "shared"},
]
HISTORY = [3, 7, 3, 1, 12, 9, 2, 2, 5, 11, 4, 8, 6, 10, 1, 7, 12, 5]  # 4 segments of 4 and half of a fifth
GOLDEN = json.loads((Path(__file__).parent / "dman_golden.json").read_text())


def numbers(value: object) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def small(n_items: int = 12, **config: object) -> DMAN:
    with seeded(7):
        sizes = {"embedding_size": 5, "segment": 4, "slots": 3}
        model = DMAN(n_items, DMAN.Config.of({**sizes, **config})).double().eval()
        for name, weight in model.named_parameters():
            if "norm" in name or name.endswith("bias") or "position" in name:  # nothing may hide behind a 0 or a 1
                nn.init.normal_(weight, mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
            elif name == "item.weight":
                nn.init.normal_(weight)
        with torch.no_grad():
            model.item.weight[0] = 0
    return model


def nobody(rows: int = 1) -> Tensor:
    return torch.zeros(rows, dtype=torch.int64)


def run(model: DMAN, items: list[int], state: State | None = None) -> tuple[Tensor, State]:
    """Scores [T, I] after each event, and the state after all."""
    query, after = model(Events.of([items]), model.initial_state(nobody()) if state is None else state)
    return model.score(query)[0], after


class Slow:
    """One user of a DMAN, one event, one key and one capsule at a time, from the equations."""

    def __init__(self, model: DMAN) -> None:
        self.c, self.model = model.config, model
        self.w = {name: value.detach() for name, value in model.state_dict().items()}
        self.own: list[list[Tensor]] = [[] for _ in range(self.c.layers)]
        self.cached: list[list[Tensor]] = []
        self.memory: list[list[Tensor]] = [[] for _ in range(self.c.layers)]
        self.losses: list[float] = []

    def norm(self, x: Tensor, name: str) -> Tensor:
        if self.c.bare:
            return x
        centred = x - x.mean()
        return centred / torch.sqrt((centred**2).mean() + 1e-5) * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def attend(self, name: str, query: Tensor, keys: list[Tensor], own: str = "norm") -> Tensor:
        """`own` is the norm of the keys."""
        Q, K, V = (self.w[f"{name}.{part}.weight"] for part in "QKV")
        keys = [self.norm(key, f"{name}.{own}") for key in keys]
        scale = 1.0 if self.c.bare else math.sqrt(self.c.embedding_size)
        scores = [float(Q @ self.norm(query, f"{name}.norm") @ (K @ key)) / scale for key in keys]
        total = sum(math.exp(score) for score in scores)
        return sum(math.exp(score) / total * (V @ key) for score, key in zip(scores, keys, strict=True))

    def block(self, name: str, h: Tensor, keys: list[Tensor], own: str = "norm") -> Tensor:
        found = self.attend(f"{name}.attention", h, keys, own)
        if self.c.bare:
            return found
        h = h + found
        inner = self.w[f"{name}.feed.1.weight"] @ self.norm(h, f"{name}.feed.0") + self.w[f"{name}.feed.1.bias"]
        return h + self.w[f"{name}.feed.3.weight"] @ inner.clamp(min=0) + self.w[f"{name}.feed.3.bias"]

    def answer(self, item: int) -> Tensor:
        """Take in one event and give the scores [I] after it."""
        c, w = self.c, self.w
        x = w["item.weight"][item]
        if not c.bare:
            x = x + w["position"][len(self.own[0])]
        h = x
        for l in range(c.layers):
            self.own[l].append(h)
            cached = [] if c.nran or not self.cached else self.cached[l]
            if not c.bare:
                cached = [key + w["cached_position"][place] for place, key in enumerate(cached)]
            h = self.block(f"short.{l}", h, cached + self.own[l])
        short = self.norm(h, "short_norm")
        vector = short
        if self.memory[0]:
            h = x
            for l in range(c.layers):
                h = self.block(f"long.{l}", h, self.memory[l], "slot_norm")
            long = self.norm(h, "long_norm")
            gate = torch.sigmoid(w["gate_short.weight"] @ short + w["gate_long.weight"] @ long)
            vector = gate * short + (1 - gate) * long
        if len(self.own[0]) == c.segment:
            self.close()
        return w["item.weight"][1:] @ vector

    def close(self) -> None:
        """The open segment is complete: absorb, and let it be the cache."""
        source = self.own if self.c.nran else self.cached
        if source and self.c.memory != "none":
            old = self.memory
            if self.c.memory == "fifo":
                self.memory = [(old[l] + source[l])[-self.c.slots :] for l in range(self.c.layers)]
            else:
                self.memory = [self.route(l, old[l], source[l]) for l in range(self.c.layers)]
                self.losses.append(sum(self.missed(l, old[l] + source[l]) for l in range(self.c.layers)))
        self.cached, self.own = self.own, [[] for _ in range(self.c.layers)]

    def missed(self, l: int, primaries: list[Tensor]) -> float:
        """Equation 5 at one level."""
        name = f"short.{l}.attention"
        return sum(
            float(((self.attend(name, h, primaries) - self.attend(name, h, self.memory[l])) ** 2).sum())
            for h in self.own[l]
        )

    def route(self, l: int, old: list[Tensor], source: list[Tensor]) -> list[Tensor]:
        """Equations 6-8, with one projection for each pair of capsules."""
        c, m = self.c, self.c.slots
        primaries, first = old + source, m - len(old)  # empty slots come first, and are not there
        if not c.bare:
            primaries = [(x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-5) for x in primaries]
        W = self.w["memory.routing.weight"][l]

        def matrix(i: int, j: int) -> Tensor:
            return {"capsule": lambda: W[j], "shared": lambda: W[0], "pair": lambda: W[first + i, j]}[c.routing]()

        u = [[x @ matrix(i, j) for j in range(m)] for i, x in enumerate(primaries)]
        logits = [[0.0] * m for _ in primaries]
        if c.routing == "shared":
            logits = self.w["memory.routing.start"][l][first:].tolist()
        for _ in range(3):
            alpha = [[math.exp(b) / sum(math.exp(a) for a in row) for b in row] for row in logits]
            capsules = []
            for j in range(m):
                s = sum(alpha[i][j] * u[i][j] for i in range(len(primaries)))
                length = float(s.norm())
                capsules.append(length**2 / (1 + length**2) * s / (length + 1e-9))
            scale = 1.0 if c.bare else math.sqrt(c.embedding_size)
            logits = [
                [b + float(u[i][j] @ capsules[j]) / scale for j, b in enumerate(row)] for i, row in enumerate(logits)
            ]
        return capsules


def golden_model() -> DMAN:
    weights = {name: numbers(value) for name, value in GOLDEN["weights"].items()}
    n_items, size = weights["X"].shape
    config = DMAN.Config(embedding_size=size, layers=GOLDEN["L"], segment=GOLDEN["T"], slots=GOLDEN["m"], bare=True)
    model = DMAN(n_items, config).double().eval()
    loaded = {
        "item.weight": torch.cat([torch.zeros(1, size), weights["X"]]),
        "gate_short.weight": weights["Wshort"].T,
        "gate_long.weight": weights["Wlong"].T,
        "memory.routing.weight": weights["R"],
    }
    for l in range(GOLDEN["L"]):
        for part in "QKV":
            loaded[f"short.{l}.attention.{part}.weight"] = weights[f"W{part}"][l]
            loaded[f"long.{l}.attention.{part}.weight"] = weights[f"L{part}"][l]
    model.load_state_dict(loaded)
    return model


def test_golden_scores_whole_and_event_by_event_and_the_memories() -> None:
    model, items = golden_model(), [item + 1 for item in GOLDEN["items"]]
    wanted, memories = numbers(GOLDEN["scores"]), iter(GOLDEN["memories_after_each_absorption"])
    torch.testing.assert_close(run(model, items)[0], wanted, rtol=0, atol=1e-9)
    state = model.initial_state(nobody())
    for place, item in enumerate(items):
        scores, state = run(model, [item], state)
        torch.testing.assert_close(scores[0], wanted[place], rtol=0, atol=1e-9)
        if place >= 5 and place % 3 == 2:  # the end of segment 2, 3 and 4
            torch.testing.assert_close(state["memory"][0], numbers(next(memories)), rtol=0, atol=1e-9)
    assert next(memories, None) is None
    torch.testing.assert_close(run(model.float(), items)[0], wanted.float(), rtol=0, atol=1e-5)


def test_golden_routing() -> None:
    golden = {name: numbers(value) for name, value in GOLDEN["routing"].items()}
    (primaries, size), slots = golden["primaries"].shape, len(golden["W"])
    routing = Routing(1, slots, primaries, size, "capsule", rounds=3, level=False).double()
    routing.weight.data[0] = golden["W"]
    every = torch.ones(1, primaries, dtype=torch.bool)
    alpha = routing.assign(golden["primaries"][None, None], every)
    torch.testing.assert_close(alpha[0, 0], golden["weights"], rtol=0, atol=1e-9)
    torch.testing.assert_close(routing(golden["primaries"][None, None], alpha)[0, 0], golden["out"], rtol=0, atol=1e-9)


def test_golden_reconstruction() -> None:
    golden = {name: numbers(value) for name, value in GOLDEN["reconstruction"].items()}
    attention = golden_model().short[0].attention
    primaries = torch.cat([golden["M_old"], golden["H_prev"]])[None]
    every = torch.ones(primaries.shape[:2], dtype=torch.bool)
    found = reconstruction_loss(attention, golden["H_n"][None], primaries, every, golden["M_new"][None])
    torch.testing.assert_close(found, golden["loss"][None], rtol=0, atol=1e-9)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_all_segments_in_one_pass_equal_the_slow_version(config: dict[str, object]) -> None:
    model = small(**config)
    slow = Slow(model)
    wanted = torch.stack([slow.answer(item) for item in HISTORY])
    scores, state = run(model, HISTORY)
    torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-10)
    assert state["count"].item() == len(HISTORY) % 4
    if model.config.memory != "none":
        filled = int(state["filled"])
        assert filled == len(slow.memory[0])
        kept = torch.stack([torch.stack(level) for level in slow.memory])
        torch.testing.assert_close(state["memory"][0, :, model.config.slots - filled :], kept, rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", [{}, {"memory": "fifo"}, {"nran": True}, {"bare": True}], ids=str)
def test_rows_with_half_full_segments_go_on_together(config: dict[str, object]) -> None:
    """Users who stand at different places of a segment are one batch, and each gets what the slow version says."""
    model, cuts = small(**config), [0, 3, 4, 6, 9]
    states = [run(model, HISTORY[:cut])[1] for cut in cuts]
    together = {name: torch.cat([state[name] for state in states]) for name in states[0]}
    query, _ = model(Events.of([HISTORY[cut:] for cut in cuts]), together)
    slow = Slow(model)
    wanted = torch.stack([slow.answer(item) for item in HISTORY])
    for row, cut in enumerate(cuts):
        found = model.score(query)[row, : len(HISTORY) - cut]
        torch.testing.assert_close(found, wanted[cut:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", [{}, {"nran": True}, {"layers": 1}, {"routing": "pair"}, {"bare": True}], ids=str)
def test_the_auxiliary_loss_is_the_mean_of_equation_5(config: dict[str, object]) -> None:
    model = small(**{"dropout": 0.0, **config})
    slow = Slow(model)
    for item in HISTORY:
        slow.answer(item)
    run(model.train(), HISTORY)
    assert model.auxiliary is not None
    mean = sum(slow.losses) / len(slow.losses) / (4 * 5)
    assert float(model.auxiliary.detach()) == pytest.approx(mean, abs=1e-12)
    run(model, HISTORY[:3])
    assert model.auxiliary is None, "nothing was absorbed"
    run(model.eval(), HISTORY)
    assert model.auxiliary is None, "nothing is trained"


@pytest.mark.parametrize("config", [{}, {"nran": True}, {"routing": "shared"}, {"bare": True}], ids=str)
def test_each_loss_reaches_its_own_weights_only(config: dict[str, object]) -> None:
    model = small(**config).train()
    with seeded(0):
        scores, _ = run(model, HISTORY)
    assert model.auxiliary is not None
    model.auxiliary.backward(retain_graph=True)
    moved = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert moved == {"memory.routing.weight"}
    assert float(model.memory.routing.weight.grad.abs().sum()) > 0
    model.zero_grad()
    scores.log_softmax(-1)[:-1, 0].sum().backward()
    still = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert still == {"memory.routing.weight"}


def test_one_adam_over_the_sum_makes_the_steps_of_two() -> None:
    """The paper's two optimizers, each with its own loss and weights, against one over all weights and the sum."""
    together, apart = small(dropout=0.0).train(), small(dropout=0.0).train()
    routing = [apart.memory.routing.weight]
    others = [weight for weight in apart.parameters() if weight is not routing[0]]
    one, *two = (torch.optim.AdamW(weights, lr=0.01) for weights in (together.parameters(), routing, others))
    for _ in range(10):
        one.zero_grad()
        scores, _ = run(together, HISTORY)
        (together.auxiliary - scores.log_softmax(-1)[:-1, 0].sum()).backward()
        one.step()
        for optimizer in two:
            optimizer.zero_grad()
        scores, _ = run(apart, HISTORY)
        apart.auxiliary.backward()
        (-scores.log_softmax(-1)[:-1, 0].sum()).backward()
        for optimizer in two:
            optimizer.step()
    for name, weight in together.state_dict().items():
        torch.testing.assert_close(weight, apart.state_dict()[name], rtol=0, atol=1e-12)


def test_the_gradient_of_the_routing_goes_through_the_last_round_alone() -> None:
    routing, generator = small(dropout=0.0).memory.routing, torch.Generator().manual_seed(0)
    primaries = torch.randn(2, 2, 7, 5, dtype=torch.float64, generator=generator)
    alpha = routing.assign(primaries, torch.ones(2, 7, dtype=torch.bool))
    aim = torch.randn(2, 2, 3, 5, dtype=torch.float64, generator=generator)
    (routing(primaries, alpha) * aim).sum().backward()
    W = routing.weight.detach().clone().requires_grad_()
    u = torch.einsum("rlpd,lmde->rlpme", nn.functional.layer_norm(primaries, (5,)), W)  # every projection by itself
    (squash((alpha[..., None] * u).sum(2)) * aim).sum().backward()
    torch.testing.assert_close(routing.weight.grad, W.grad, rtol=0, atol=1e-12)


def test_with_the_gate_at_one_it_is_dman_xl() -> None:
    class Open(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full_like(x, math.inf)

    full, xl = small(), small(memory="none")
    xl.load_state_dict({name: full.state_dict()[name] for name in xl.state_dict()})
    assert not torch.allclose(run(full, HISTORY)[0], run(xl, HISTORY)[0])
    full.gate_long = Open()
    torch.testing.assert_close(run(full, HISTORY)[0], run(xl, HISTORY)[0], rtol=0, atol=0)


@pytest.mark.parametrize("bare", [False, True])
def test_a_segment_longer_than_the_history_is_plain_causal_attention(bare: bool) -> None:
    model, n = small(segment=30, bare=bare), len(HISTORY)
    h = model.item(torch.tensor(HISTORY)) if bare else model.item(torch.tensor(HISTORY)) + model.position[:n]
    for layer in model.short:
        x = layer.attention.norm(h)
        q, k, v = (part(x)[None] for part in (layer.attention.Q, layer.attention.K, layer.attention.V))
        scale = 1.0 if bare else 5**-0.5
        found = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)[0]
        h = found if bare else h + found + layer.feed(h + found)
    wanted = (h if bare else model.short_norm(h)) @ model.item_matrix().T
    torch.testing.assert_close(run(model, HISTORY)[0], wanted, rtol=0, atol=1e-12)


def test_without_cache_and_memory_a_segment_stands_alone() -> None:
    model = small(nran=True, memory="none")
    torch.testing.assert_close(run(model, HISTORY)[0][8:12], run(model, HISTORY[8:12])[0], rtol=0, atol=1e-12)


def test_memory_holds_what_is_older_than_the_cached_segment() -> None:
    """First in, first out, of level 0: the embedded events themselves, and nothing before two segments are complete."""
    model = small(memory="fifo", slots=6)
    embedded = model.item(torch.tensor(HISTORY)) + model.position[torch.arange(len(HISTORY)) % 4]
    for seen, kept in [(7, slice(0, 0)), (8, slice(0, 4)), (11, slice(0, 4)), (12, slice(2, 8)), (18, slice(6, 12))]:
        _, state = run(model, HISTORY[:seen])
        filled = kept.stop - kept.start
        assert int(state["filled"]) == filled
        torch.testing.assert_close(state["memory"][0, 0, 6 - filled :], embedded[kept])
        assert not state["memory"][0, 0, : 6 - filled].any()


def test_no_gradient_crosses_a_segment() -> None:
    model = small()
    query, _ = model(Events.of([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]), model.initial_state(nobody()))
    query[0, 9].square().sum().backward()
    moved = model.item.weight.grad.abs().sum(1).nonzero()[:, 0].tolist()
    assert moved == [9, 10]  # the open segment


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["capsule", "pair", "shared"]), slots=st.integers(1, 6))
def test_each_primary_capsule_shares_itself_among_the_slots(seed: int, kind: str, slots: int) -> None:
    with seeded(seed):
        routing = Routing(2, slots, slots + 4, 5, kind, rounds=3, level=True)
        routing.reset_parameters()
        primaries, real = torch.randn(3, 2, slots + 4, 5), torch.rand(3, slots + 4) < 0.7
    alpha = routing.assign(primaries, real)
    torch.testing.assert_close(alpha.sum(-1), real[:, None].expand(3, 2, -1).float())
    lengths = routing(primaries, alpha).detach().norm(dim=-1)
    assert bool((lengths < 1).all())
    one_each = kind != "shared" and slots > 1 and bool(real.any(1).all())
    assert not one_each or float((alpha.amax(-1) - alpha.amin(-1)).amax()) > 0, "capsules differ"


def test_squash_keeps_the_direction_and_nothing_is_not_nan() -> None:
    s = numbers([[3.0, 4.0], [0.0, 0.0]]).requires_grad_()
    found = squash(s)  # length 5: 25 / 26
    torch.testing.assert_close(found, numbers([[3 / 5 * 25 / 26, 4 / 5 * 25 / 26], [0.0, 0.0]]), rtol=0, atol=1e-9)
    found.sum().backward()
    assert bool(s.grad.isfinite().all())


def test_as_many_slots_as_events_can_be_reconstructed_without_loss() -> None:
    """The first absorption, m = T: if each slot is one event, equation 5 is 0."""
    attention = small().short[0].attention
    hidden, events = torch.randn(2, 1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    every = torch.ones(1, 4, dtype=torch.bool)
    assert float(reconstruction_loss(attention, hidden, events, every, events.flip(1)).detach()) < 1e-24
    assert float(reconstruction_loss(attention, hidden, events, every, events[:, :2]).detach()) > 1e-3


def test_absorbing_forgets_errors() -> None:
    """After 120 absorptions in single precision, one pass and 600 single events still agree; no error has grown."""
    with seeded(0):
        model = DMAN(30, DMAN.Config(embedding_size=32, segment=5, slots=8)).eval()
        items = torch.randint(1, 31, (600,)).tolist()
    with torch.no_grad():
        whole, final = run(model, items)
        state = model.initial_state(nobody())
        for place, item in enumerate(items):
            scores, state = run(model, [item], state)
            assert float((scores[0] - whole[place]).abs().max()) <= 1e-5
    torch.testing.assert_close(state["memory"], final["memory"], rtol=0, atol=1e-5)


def test_the_reasons_are_weights_of_the_newest_events_slots_and_a_gate() -> None:
    model = small()
    reasons = model.explain(Events.of([HISTORY]), model.initial_state(nobody()))
    attention, gate, memory = reasons["attention"][0], reasons["gate"][0], reasons["memory"][0]
    assert attention.shape == (18, 8)
    assert attention[0].tolist() == [0.0] * 7 + [1.0]
    torch.testing.assert_close(attention.sum(-1), torch.ones(18, dtype=torch.float64))
    visible = [min(t, 4 + t % 4) + 1 for t in range(18)]  # the own segment so far, and all of the one before it
    assert [int((row > 0).sum()) for row in attention] == visible
    assert all(bool((row[-size:] > 0).all()) for row, size in zip(attention, visible, strict=True))
    assert gate[:8].tolist() == [1.0] * 8  # two segments without a memory
    assert bool(((gate[8:] > 0) & (gate[8:] < 1)).all())
    assert memory.shape == (18, 2, 3)
    assert not memory[:8].any()
    torch.testing.assert_close(memory[8:].sum(-1), torch.ones(10, 2, dtype=torch.float64))
    last = model.explain(Events.of([HISTORY[-1:]]), run(model, HISTORY[:-1])[1])
    torch.testing.assert_close(last["attention"][0, 0], attention[-1])
    plain = small(nran=True, memory="none")
    assert plain.explain(Events.of([[1]]), plain.initial_state(nobody())).keys() == {"attention"}


def test_the_state_is_as_large_as_the_first_lines_say() -> None:
    state = DMAN(10).initial_state(nobody())
    assert {name: part.nbytes for name, part in state.items()} == {
        "answer": 512, "count": 8, "open": 20480, "cached": 20480, "closed": 8, "memory": 20480, "filled": 8,
    }  # fmt: skip
    assert {"cached", "closed"} & DMAN(10, DMAN.Config(nran=True)).initial_state(nobody()).keys() == set()
    assert "memory" not in DMAN(10, DMAN.Config(memory="none")).initial_state(nobody())


def test_defaults_are_the_papers_and_unknown_keys_are_refused() -> None:
    c = DMAN.Config()
    assert (c.embedding_size, c.layers, c.segment, c.slots, c.rounds) == (128, 2, 20, 20, 3)
    assert dict(DMAN.recipe)["batch"] == 128 * 20
    assert DMAN.scope == "user"
    with pytest.raises(ConfigError, match="did you mean 'segment'"):
        DMAN.Config(segmnt=3)
    with pytest.raises(ConfigError, match="slots"):
        DMAN.Config(slots=0)
    with pytest.raises(ConfigError, match="rounds"):  # with more, cuts of a history end apart
        DMAN.Config(rounds=4)


def test_one_layer_is_still_a_row_for_each_level() -> None:
    items = Vocabulary(list(range(1, 13)))
    for layers in (1, 2):
        because = Trained("dman", small(layers=layers).float(), items, None, {}).explain(HISTORY)
        assert [len(level) for level in because["memory"]] == [3] * layers


def test_after_training_it_holds_no_graph() -> None:
    log, model = known("distant", seed=0), DMAN(12, DMAN.Config(embedding_size=4, segment=5, slots=2))
    model = DMAN(log.n_items, model.config)
    train(model, log.sequences.of_part(TRAIN), TrainConfig.of({**DMAN.recipe, "epochs": 1}))
    assert model.auxiliary is None
    copy.deepcopy(model)


def recall(seed: int, **config: object) -> tuple[float, float, float]:
    """Recall on "distant", its ceiling, and the best for those who do not remember."""
    log = known("distant", seed=seed)
    sizes = {"embedding_size": 32, "segment": 5, "slots": 8, "dropout": 0.0}
    with seeded(seed):
        model = DMAN(log.n_items, DMAN.Config.of({**sizes, **config}))
    settings = {"learning_rate": 0.005, "schedule": "linear", "epochs": 6, "batch": 1024, "seed": seed}
    train(model, log.sequences.of_part(TRAIN), TrainConfig.of({**DMAN.recipe, **settings}))
    found = evaluate(model, log.sequences, PerStep().cases(log.sequences, TEST), cutoffs=(log.k,))
    return found.means()[f"recall@{log.k}"], log.ceiling, log.without["recent"]


@pytest.mark.slow
def test_only_capsules_remember_what_is_older_than_all_windows() -> None:
    """30 events of noise lie between the secret and the question: two segments of 5 and 8 slots hold 18."""
    full, ceiling, blind = recall(0)
    assert full >= 0.9 * ceiling
    assert recall(0, memory="fifo")[0] <= blind + 0.03
    assert recall(0, memory="none")[0] <= blind + 0.03
    assert recall(0, memory="fifo", slots=40)[0] >= 0.9 * ceiling, "a queue that holds everything"
