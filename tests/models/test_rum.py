"""RUM against the equations: golden numbers, a slow version written event by event, and the paper's identities."""

import json
from pathlib import Path

import pytest
import torch
from tests.squares import squares
from torch import Tensor, nn

from foretaste.answers import answered
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError
from foretaste.models import rum
from foretaste.models.contract import Events, SequenceModel, seeded
from foretaste.models.rum import RUM, FeatureRUM, ItemRUM
from foretaste.models.saved import Trained
from foretaste.recommender import Recommender
from foretaste.training.loop import TrainConfig

HERE = Path(__file__).parent
GOLDEN = {kind: json.loads((HERE / f"rum_{kind}_golden.json").read_text()) for kind in ("item", "feature")}
KINDS: dict[str, type[RUM]] = {"item": ItemRUM, "feature": FeatureRUM}
VARIANTS: list[dict[str, object]] = [
    {},
    {"beta": 2.5, "learn_beta": True, "alpha": 1.0},
    {"attention": "ones"},
    {"merge": "multiply"},
    {"merge": "concat"},
    {"predict": "mlp"},
    {"merge": "concat", "predict": "mlp"},
    {"merge": "multiply", "predict": "mlp", "attention": "ones"},
    {"slots": 1},
    {"init": "normal"},
]
N_ITEMS, N_USERS = 7, 3

both = pytest.mark.parametrize("kind", KINDS)
every_variant = pytest.mark.parametrize("config", VARIANTS, ids=str)


def small(kind: str, **config: object) -> RUM:
    """A model whose vectors are large enough for every part to matter."""
    with seeded(7):
        settings = {"embedding_size": 4, "slots": 3, "hidden_size": 5, **config}
        model = KINDS[kind](N_ITEMS, KINDS[kind].Config.of(settings), N_USERS).double().eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name != "beta":
                    weight += 0.7 * torch.randn_like(weight)
            model.user.weight[0] = model.item.weight[0] = 0
    return model


def run(model: RUM, items: list[int], user: int = 1) -> Tensor:
    """Scores [1 + T, I]: before the first event, and after each."""
    state = model.initial_state(torch.tensor([user]))
    query, _ = model(Events.of([items]), state)
    return torch.cat([model.score(model.query(state))[0], model.score(query)[0]])


def slow_scores(model: RUM, items: list[int], user: int = 1) -> Tensor:
    """Scores [I] after the last of `items`, one event, one candidate and one slot at a time; differentiable."""
    c, q, beta = model.config, model.item.weight, model.beta
    p = model.user.weight[user]
    if isinstance(model, FeatureRUM):
        memory = list(model.M0)
        for item in items:
            erase = torch.sigmoid(model.E.T @ q[item] + model.b_e)
            add = torch.tanh(model.A.T @ q[item] + model.b_a)
            weights = slow_weights([beta * q[item] @ f for f in model.F] if c.attention == "softmax" else [], c.slots)
            memory = [m * (1 - z * erase) + z * add for m, z in zip(memory, weights, strict=True)]
    else:
        memory = [q[item] for item in items[-c.slots :]]
    scores = []
    for candidate in range(1, model.n_items + 1):
        against = list(model.F) if isinstance(model, FeatureRUM) and c.attention == "softmax" else memory
        match = [beta * q[candidate] @ m for m in against] if c.attention == "softmax" else []
        weights = slow_weights(match, len(memory))
        if c.attention == "ones" and isinstance(model, ItemRUM):
            weights = [z / c.slots for z in weights]
        read = torch.zeros(c.embedding_size, dtype=torch.float64)
        for z, m in zip(weights, memory, strict=True):
            read = read + z * m
        if c.merge == "add":
            merged = p + c.alpha * read
        elif c.merge == "multiply":
            merged = p * read if memory else p
        else:
            merged = torch.cat([p, read])
        if c.predict == "mlp":
            hidden = model.from_user.weight @ merged + model.from_user.bias + model.from_item.weight @ q[candidate]
            scores.append(model.out.weight[0] @ hidden.clamp(min=0))
        elif c.merge == "concat":
            scores.append(merged @ model.W @ q[candidate])
        else:
            scores.append(merged @ q[candidate])
    return torch.stack(scores)


def slow_weights(match: list[Tensor], slots: int) -> list[Tensor | float]:
    """The softmax of `match`, or all 1 where there is nothing to match."""
    if not match:
        return [1.0] * slots
    powers = [m.exp() for m in match]
    return [power / sum(powers) for power in powers]


def golden_model(kind: str) -> RUM:
    stored = GOLDEN[kind]
    weights = {name: torch.tensor(value, dtype=torch.float64) for name, value in stored["weights"].items()}
    (n_items, size), K = weights["Q"].shape, stored.get("K", len(weights.get("F", ())))
    config = {"embedding_size": size, "slots": K, "alpha": stored["alpha"], "beta": stored["beta"]}
    model = KINDS[kind](n_items, KINDS[kind].Config.of(config), 1).double().eval()
    tables = {"item.weight": weights.pop("Q"), "user.weight": weights.pop("p")[None]}
    padded = {name: torch.cat([torch.zeros(1, size), table]) for name, table in tables.items()}
    model.load_state_dict({**padded, **weights})
    return model


@both
def test_golden_scores_whole_and_event_by_event(kind: str) -> None:
    model, items = golden_model(kind), [item + 1 for item in GOLDEN[kind]["items"]]
    wanted = torch.tensor(GOLDEN[kind]["scores"], dtype=torch.float64)
    torch.testing.assert_close(run(model, items), wanted, rtol=0, atol=1e-9)
    state = model.initial_state(torch.ones(1, dtype=torch.int64))
    for place, item in enumerate(items, start=1):
        query, state = model(Events.of([[item]]), state)
        torch.testing.assert_close(model.score(query)[0, 0], wanted[place], rtol=0, atol=1e-9)
    torch.testing.assert_close(run(model.float(), items), wanted.float(), rtol=0, atol=1e-5)


def test_golden_memories() -> None:
    model = golden_model("feature")
    state = model.initial_state(torch.ones(1, dtype=torch.int64))
    wanted = torch.tensor(GOLDEN["feature"]["memories"], dtype=torch.float64)
    torch.testing.assert_close(state["memory"][0], wanted[0], rtol=0, atol=1e-9)
    for place, item in enumerate(GOLDEN["feature"]["items"], start=1):
        _, state = model(Events.of([[item + 1]]), state)
        torch.testing.assert_close(state["memory"][0], wanted[place], rtol=0, atol=1e-9)


@both
@every_variant
def test_a_whole_history_equals_the_slow_version(kind: str, config: dict[str, object]) -> None:
    model, items = small(kind, **config), [3, 7, 3, 1, 2, 6, 2, 2]
    fast = run(model, items)
    for length in range(len(items) + 1):
        torch.testing.assert_close(fast[length], slow_scores(model, items[:length]), rtol=0, atol=1e-12)


@both
@every_variant
def test_gradients_equal_those_of_the_slow_version(kind: str, config: dict[str, object]) -> None:
    """Through the scores, the attention and all writes before them."""
    model, items = small(kind, **config), [3, 7, 3, 1, 2]
    pull = torch.randn(len(items) + 1, N_ITEMS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (run(model, items) * pull).sum().backward()
    fast = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    for length in range(len(items) + 1):
        (slow_scores(model, items[:length]) * pull[length]).sum().backward()
    for name, weight in model.named_parameters():
        wanted = weight.grad.clone()
        if name.endswith("weight") and name.split(".")[0] in ("item", "user"):
            wanted[0] = 0  # padding is never moved
        torch.testing.assert_close(fast[name], wanted, rtol=0, atol=1e-11, msg=name)


@both
def test_without_memory_it_is_matrix_factorisation(kind: str) -> None:
    """alpha = 0, section 4.2: p* . q, whatever happened, at both levels."""
    model = small(kind, alpha=0.0)
    wanted = model.item.weight[1:] @ model.user.weight[2]
    torch.testing.assert_close(run(model, [3, 1, 5], user=2), wanted.expand(4, -1))


def test_one_slot_and_alpha_one_is_fpmc_with_shared_item_vectors() -> None:
    """Section 4.3, equation 17: p . q_i + q_l . q_i, where l is the last item."""
    model, items = small("item", slots=1, alpha=1.0), [3, 7, 1]
    p, q = model.user.weight[1], model.item.weight
    for place, last in enumerate(items, start=1):
        torch.testing.assert_close(run(model, items)[place], q[1:] @ p + q[1:] @ q[last])


def test_a_weight_of_one_and_a_full_erase_clear_a_slot() -> None:
    """Equation 12: what M_0 held is gone, and the add vector alone stands there."""
    model = small("feature", slots=1)  # one slot has all the weight
    with torch.no_grad():
        model.b_e.fill_(1e3)
    _, after = model(Events.of([[4]]), model.initial_state(torch.tensor([1])))
    add = torch.tanh(model.item.weight[4] @ model.A + model.b_a)
    torch.testing.assert_close(after["memory"][0, 0], add)


def test_an_item_that_writes_nothing_leaves_every_score_alone() -> None:
    model = small("feature")
    with torch.no_grad():
        for weight in (model.E, model.A, model.b_a):
            weight.zero_()
        model.b_e.fill_(-1e3)
    scores = run(model, [3, 1, 5])
    torch.testing.assert_close(scores, scores[:1].expand(4, -1), rtol=0, atol=1e-14)  # double: one rounding at most


def test_a_slot_without_weight_is_left_alone() -> None:
    model = small("feature", beta=500.0)
    with torch.no_grad():
        model.F.copy_(torch.eye(3, 4))
        model.item.weight[2] = torch.tensor([9.0, 0, 0, 0])  # feature 0, and nothing else: the others weigh 0
    state = model.initial_state(torch.tensor([1]))
    _, after = model(Events.of([[2]]), state)
    assert torch.equal(after["memory"][0, 1:], state["memory"][0, 1:])
    assert not torch.allclose(after["memory"][0, 0], state["memory"][0, 0])


@both
def test_attention_sums_to_one_over_the_slots_and_is_not_even(kind: str) -> None:
    model, name = small(kind), {"item": "attention", "feature": "features"}[kind]
    state = model.initial_state(torch.tensor([1]))
    weights = model.explain(Events.of([[1, 2, 3, 4]]), state, torch.arange(1, N_ITEMS + 1))[name]
    assert weights.shape == (1, 4, N_ITEMS, 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 4, N_ITEMS, dtype=torch.float64))
    full = weights[0, 3]  # [I, K]
    assert bool((full.std(-1) > 1e-3).all())
    assert bool((full.std(0) > 1e-3).all()), "candidates do not differ"


def test_the_attention_names_the_items_and_leaves_empty_slots_out() -> None:
    model = small("item")
    found = model.explain(Events.of([[4, 6, 4, 5]]), model.initial_state(torch.tensor([1])), torch.tensor([2]))
    assert found["items"][0].tolist() == [[0, 0, 4], [0, 4, 6], [4, 6, 4], [6, 4, 5]]
    assert found["attention"][0, 0, 0].tolist() == [0, 0, 1]
    q = model.item.weight.detach()
    wanted = torch.softmax(q[[6, 4, 5]] @ q[2], 0)
    torch.testing.assert_close(found["attention"][0, 3, 0], wanted)


def test_reasons_of_the_feature_level_add_up_to_the_score() -> None:
    """score = p* . q + alpha sum_k z_k (q . m_k)."""
    model, events = small("feature"), Events.of([[4, 6, 5]])
    state = model.initial_state(torch.tensor([1]))
    found = model.explain(events, state)
    assert found["values"].shape == (1, 3, N_ITEMS, 3)
    own = model.item.weight[1:] @ model.user.weight[1]
    from_memory = model.config.alpha * (found["features"] * found["values"]).sum(-1)
    torch.testing.assert_close(own + from_memory, model.score(model(events, state)[0]))


def test_all_weights_one_is_the_mean_of_the_last_items() -> None:
    """What the authors' code computes at item level."""
    model, items = small("item", attention="ones"), [5, 2, 7, 1]
    p, q = model.user.weight[1], model.item.weight
    wanted = q[1:] @ (p + 0.2 * q[[2, 7, 1]].mean(0))
    torch.testing.assert_close(run(model, items)[4], wanted)
    assert "F" not in dict(small("feature", attention="ones").named_parameters())


def test_concat_starts_as_the_weighted_sum() -> None:
    with seeded(1):
        plain = ItemRUM(N_ITEMS, RUM.Config(embedding_size=4, slots=3), N_USERS)
        joined = ItemRUM(N_ITEMS, RUM.Config(embedding_size=4, slots=3, merge="concat"), N_USERS)
    joined.item, joined.user = plain.item, plain.user
    torch.testing.assert_close(run(joined, [1, 5, 2]), run(plain, [1, 5, 2]))


def test_more_slots_than_events() -> None:
    """Slots that were never filled take no part: as many as there are events would do."""
    wide, narrow, items = small("item", slots=50), small("item", slots=4), [3, 1, 3, 6]
    torch.testing.assert_close(run(wide, items), run(narrow, items))


@both
@every_variant
def test_a_history_without_a_known_item_is_the_initial_state(kind: str, config: dict[str, object]) -> None:
    model = small(kind, **config)
    state = model.initial_state(torch.tensor([2, 1]))
    query, after = model(Events.of([[], [4]]), state)
    assert bool(torch.isfinite(model.score(query)).all())
    before = {name: part[:1] for name, part in state.items()}
    assert all(torch.equal(after[name][:1], part) for name, part in before.items())
    found = model.score(model.query({name: part[:1] for name, part in after.items()}))
    torch.testing.assert_close(found[0, 0], slow_scores(model, [], user=2))
    nothing, same = model(Events.of([[], []]), state)
    assert model.score(nothing).shape == (2, 0, N_ITEMS)
    assert all(torch.equal(same[name], part) for name, part in state.items())


@both
def test_a_new_user_has_the_mean_taste(kind: str) -> None:
    model = small(kind)
    with torch.no_grad():
        known = torch.stack([run(model, [3, 1, 5], user) for user in (1, 2, 3)])
        torch.testing.assert_close(run(model, [3, 1, 5], user=0), known.mean(0))  # scores are linear in p*
        nobody = KINDS[kind](N_ITEMS)  # a log without users never gets here; a saved model without them may
        assert bool(torch.isfinite(run(nobody, [3], user=0)).all())
    assert KINDS[kind].needs_of(RUM.Config()) == {"users"}


@both
@every_variant
def test_blocks_of_candidates_change_nothing(
    kind: str, config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(kind, **config)
    query, _ = model(Events.of([[3, 1, 5], [2]]), model.initial_state(torch.tensor([1, 0])))
    whole, own = model.score(query), torch.tensor([[[1, 7], [2, 2], [3, 4]], [[5, 6], [7, 1], [1, 1]]])
    monkeypatch.setitem(rum.HELD, "cpu", 1)  # one candidate at a time
    torch.testing.assert_close(model.score(query), whole)
    torch.testing.assert_close(model.score(query, own), whole.gather(-1, own - 1))


def test_reasons_are_those_of_the_first_of_the_list() -> None:
    """Each candidate has reasons of its own: not those of what was seen and left out."""
    raw = [f"i{n}" for n in range(1, N_ITEMS + 1)]
    recommender, moved = Recommender("rum-item"), 0
    for seed in range(20):
        with seeded(seed):
            model = ItemRUM(N_ITEMS, RUM.Config(embedding_size=4, slots=3, alpha=1.0, beta=9.0, init="normal"), 2)
            nn.init.normal_(model.item.weight[1:])
        recommender._trained = Trained("rum-item", model.eval(), Vocabulary(raw), None, {})
        history = ["i3", "i1", "i5"]
        facts, _ = answered(recommender, history, 2, leave_out_seen=True)
        wanted = recommender.explain(history, item=facts["items"][0])
        assert facts["because"]["attention"] == [list(pair) for pair in wanted["attention"]]
        moved += wanted != recommender.explain(history)
    assert moved


def test_writes_learn_only_if_gradients_flow_through_them() -> None:
    """E and A are behind the memory: with the state cut off before the answer nothing reaches them."""
    model, events = small("feature").train(), Events.of([[3, 1, 5]])
    _, after = model(events, model.initial_state(torch.tensor([1])))
    model.score(model.query(after)).square().sum().backward()
    for weight in (model.E, model.b_e, model.A, model.b_a, model.M0):
        assert float(weight.grad.abs().sum()) > 0
    model.zero_grad()
    model.score(model.query({name: part.detach() for name, part in after.items()})).square().sum().backward()
    assert model.E.grad is None
    assert model.A.grad is None


def test_squares_of_what_a_step_touches() -> None:
    model = small("item")
    p, q = model.user.weight.detach(), model.item.weight.detach()
    found = squares(model.owned(torch.tensor([1, 1, 0]), torch.tensor([4, 6]))).detach()
    assert float(found) == pytest.approx(float(2 * p[1].square().sum() + q[4].square().sum() + q[6].square().sum()))


def test_the_state_is_as_large_as_the_first_lines_say() -> None:
    def bytes_of(model: SequenceModel) -> int:
        return sum(part.nbytes for part in model.initial_state(torch.tensor([0])).values())

    assert bytes_of(ItemRUM(10)) == 8 + 4 * 20
    assert bytes_of(FeatureRUM(10)) == 8 + 4 * 20 * 50


def test_initial_weights_are_drawn_as_said() -> None:
    with seeded(0):
        model, plain = FeatureRUM(5000, None, 5), ItemRUM(5000, RUM.Config(init="normal"), 5)
    q = model.item.weight[1:].detach()
    assert 0 <= float(q.min()) <= 1e-5
    assert float(q.max()) == pytest.approx(0.1, abs=1e-5)
    assert float(q.mean()) == pytest.approx(0.05, rel=0.01)
    assert float(plain.item.weight[1:].detach().std()) == pytest.approx(0.01, rel=0.01)
    assert torch.equal(model.E, torch.eye(50))
    assert torch.equal(model.A, torch.eye(50))
    assert not model.b_e.any()
    assert not model.b_a.any()
    assert not torch.equal(model.F, model.M0)


def test_defaults_are_the_papers_and_unknown_keys_are_refused() -> None:
    config = RUM.Config()
    assert (config.slots, config.alpha, config.beta, config.merge, config.predict) == (20, 0.2, 1.0, "add", "inner")
    recipe = TrainConfig.of(ItemRUM.recipe)
    assert (recipe.loss, recipe.negatives, recipe.sampler, recipe.first) == ("bce", 1, "uniform", True)
    assert small("item", beta=2.5, learn_beta=True).state_dict()["beta"] == 2.5
    with pytest.raises(ConfigError, match="attention = 'ones' has no strength to learn"):
        RUM.Config(attention="ones", learn_beta=True)
    with pytest.raises(ConfigError, match="did you mean 'slots'"):
        RUM.Config(slot=3)
