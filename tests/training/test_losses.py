"""The losses: each against its formula written out with loops, then through a model by `loss_of`."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from foretaste.errors import ConfigError
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.training import losses
from foretaste.training.losses import LOSSES, loss_of, sampled_softmax
from foretaste.training.negatives import Negatives
from foretaste.training.softmax import score_cross_entropy

SAMPLED = {name: loss for name, loss in LOSSES.items() if loss.needs == "negatives"}


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def weights_of(negative: list[float]) -> list[float]:
    whole = sum(math.exp(s) for s in negative)
    return [math.exp(s) / whole for s in negative]


def slow(name: str, p: float, negative: list[float], **o: float) -> float:
    """One row of each loss, from its docstring, in plain Python."""
    if name == "sampled_softmax":
        return -math.log(math.exp(p) / (math.exp(p) + sum(math.exp(s) for s in negative)))
    if name == "bce":
        return -math.log(sigma(p)) - sum(math.log(1 - sigma(s)) for s in negative)
    if name == "gbce":
        beta = o["rate"] * (o["t"] * (1 - 1 / o["rate"]) + 1 / o["rate"])
        return -math.log(sigma(p) ** beta) - sum(math.log(1 - sigma(s)) for s in negative)
    if not negative:
        return 0.0
    if name == "bpr":
        return sum(-math.log(sigma(p - s)) for s in negative) / len(negative)
    if name == "bpr_max":
        w = weights_of(negative)
        close = sum(v * sigma(p - s) for v, s in zip(w, negative, strict=True))
        return -math.log(close) + o["regularisation"] * sum(v * s * s for v, s in zip(w, negative, strict=True))
    if name == "top1":
        return sum(sigma(s - p) + sigma(s * s) for s in negative) / len(negative)
    if name == "top1_max":
        w = weights_of(negative)
        return sum(v * (sigma(s - p) + sigma(s * s)) for v, s in zip(w, negative, strict=True))
    gaps = [max(0.0, o["margin"] - p + s) for s in negative]
    return max(gaps) if o["adaptive"] else sum(gaps) / len(gaps)


OPTIONS: dict[str, list[dict[str, float]]] = {
    "gbce": [{"rate": 0.2, "t": 0.75}, {"rate": 0.01, "t": 1.0}],
    "bpr_max": [{"regularisation": 1.0}, {"regularisation": 0.0}],
    "hinge": [{"margin": 1.0, "adaptive": False}, {"margin": 0.3, "adaptive": True}],
}
CASES = [(name, options) for name in SAMPLED for options in OPTIONS.get(name, [{}])]


def rows_of(name: str, positive: Tensor, negative: Tensor, real: Tensor, **options: float) -> Tensor:
    function = LOSSES[name].rows
    assert function is not None
    return function(positive, negative, real, **options)


@pytest.mark.parametrize(("name", "options"), CASES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), m=st.integers(1, 6))
def test_a_loss_equals_its_formula(name: str, options: dict[str, float], seed: int, m: int) -> None:
    g = torch.Generator().manual_seed(seed)
    positive = 2 * torch.randn(5, generator=g, dtype=torch.float64)
    negative = 2 * torch.randn(5, m, generator=g, dtype=torch.float64)
    real = torch.rand(5, m, generator=g) < 0.7
    got = rows_of(name, positive, negative, real, **options)
    for n in range(5):
        kept = [s for s, r in zip(negative[n].tolist(), real[n].tolist(), strict=True) if r]
        assert got[n].item() == pytest.approx(slow(name, positive[n].item(), kept, **options), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_gradients_are_those_of_the_value(name: str, options: dict[str, float]) -> None:
    g = torch.Generator().manual_seed(1)
    positive = torch.randn(4, generator=g, dtype=torch.float64, requires_grad=True)
    negative = torch.randn(4, 3, generator=g, dtype=torch.float64, requires_grad=True)
    real = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda p, n: rows_of(name, p, n, real, **options), (positive, negative))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_loss_falls_with_the_target_and_not_with_the_negatives(name: str, options: dict[str, float]) -> None:
    """The sign that LSAMN's eq. 13 and ASARS' eq. 21 have the wrong way round."""
    positive = torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    negative = torch.tensor([[0.1, 0.5]], dtype=torch.float64, requires_grad=True)
    rows_of(name, positive, negative, torch.ones(1, 2, dtype=torch.bool), **options).sum().backward()
    assert positive.grad is not None
    assert negative.grad is not None
    assert positive.grad.item() < 0
    assert negative.grad[0, 1].item() > 0


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_scores_stay_finite_in_float32(name: str, options: dict[str, float], size: float) -> None:
    positive = torch.tensor([size, size], requires_grad=True)
    negative = torch.tensor([[-size, 0.0], [size, -size]], requires_grad=True)
    real = torch.tensor([[True, True], [False, False]])
    value = rows_of(name, positive, negative, real, **options).sum()
    value.backward()
    assert positive.grad is not None
    assert negative.grad is not None
    assert torch.isfinite(value)
    assert torch.isfinite(positive.grad).all()
    assert torch.isfinite(negative.grad).all()
    assert (negative.grad[1] == 0).all()


def test_gbce_runs_from_bce_to_the_weight_of_the_sampling_rate() -> None:
    p, n, real = torch.tensor([0.7]), torch.tensor([[0.1, -0.4]]), torch.ones(1, 2, dtype=torch.bool)
    assert losses.gbce(p, n, real, rate=0.05, t=0.0).item() == pytest.approx(losses.bce(p, n, real).item())
    low = losses.bce(p, n, real) - losses.gbce(p, n, real, rate=0.05, t=1.0)
    assert low.item() == pytest.approx(0.95 * -math.log(sigma(0.7)), rel=1e-5)


class Vector(SequenceModel):
    """Scores are q . e + b."""

    def __init__(self, n_items: int) -> None:
        super().__init__(n_items)
        g = torch.Generator().manual_seed(n_items)
        self.table = torch.nn.Parameter(torch.randn(n_items, 3, generator=g, dtype=torch.float64))
        self.bias = torch.nn.Parameter(torch.randn(n_items, generator=g, dtype=torch.float64))

    def initial_state(self, users: Tensor) -> State:
        return {}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        raise NotImplementedError

    def query(self, state: State, now: Tensor | None = None) -> Query:
        raise NotImplementedError

    def item_matrix(self) -> Tensor:
        return self.table

    def item_bias(self) -> Tensor | None:
        return self.bias


class Reader(Vector):
    """Scores depend on the candidate by more than an inner product, and the query is a dictionary."""

    item_matrix = SequenceModel.item_matrix

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        assert isinstance(query, dict)
        items = torch.arange(1, self.n_items + 1) if items is None else items
        candidates = self.table[items - 1]  # [C, 3] or [N, C, 3]
        match = query["taste"][:, None] * candidates  # [N, C, 3]
        return torch.tanh(match).sum(-1) + self.bias[items - 1]  # [N, C]


def asked(model: SequenceModel, n: int, seed: int = 0) -> tuple[Query, Tensor]:
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(n, 3, generator=g, dtype=torch.float64, requires_grad=True)
    return ({"taste": q} if isinstance(model, Reader) else q), torch.randint(model.n_items, (n,), generator=g)


def pool(items: Tensor, n: int) -> Negatives:
    """Every item counted on once."""
    zero = torch.zeros(items.shape, dtype=torch.float64)
    return Negatives(items, torch.ones(n, items.shape[-1], dtype=torch.bool), zero, torch.zeros(n, dtype=torch.float64))


def test_sampled_softmax_learns_the_law_however_often_an_item_is_drawn() -> None:
    law = torch.full((202,), 0.2 / 200, dtype=torch.float64)  # what truly follows: two items nearly always
    law[0], law[1] = 0.42, 0.38
    count, draws = 1000, 60
    chance = torch.full_like(law, (1 - 10.05 / count) / 200)
    chance[0], chance[1] = 0.05 / count, 10 / count  # one is drawn once in twenty pools, the other ten times in each
    log_q, own = (count * chance).log(), torch.arange(202)
    scores = law.log().requires_grad_()
    random, loss = torch.Generator().manual_seed(1), torch.zeros(())
    for _ in range(draws):
        drawn = torch.multinomial(chance, count, replacement=True, generator=random)  # [M]
        rows = sampled_softmax(
            scores, scores[drawn].expand(202, count), drawn != own[:, None], log_q[drawn].expand(202, count), log_q
        )
        loss = loss + law @ rows / draws
    (pull,) = torch.autograd.grad(loss, scores)
    assert pull.abs().max() < 0.03  # at the law itself nothing pulls; were Q not held to 1, by 0.18


@pytest.mark.parametrize("kind", [Vector, Reader])
def test_full_softmax_of_a_model_is_cross_entropy_of_its_scores(kind: type[Vector]) -> None:
    model = kind(23)
    query, targets = asked(model, 7)
    weights = torch.tensor([1.0, 0, 2, 1, 1, 0.5, 3])
    each = cross_entropy(model.score(query), targets, reduction="none")
    want = (each * weights).sum() / weights.sum()
    expected = torch.autograd.grad(want, list(model.parameters()))
    got = loss_of("softmax", model, query, targets, weights=weights)
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(torch.autograd.grad(got, list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_tiles_through_score_equal_the_whole() -> None:
    model = Reader(23)
    query, targets = asked(model, 7)
    got = score_cross_entropy(model.score, query, 23, targets, block_rows=3, block_items=5)
    want = cross_entropy(model.score(query), targets)
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(*(torch.autograd.grad(x, list(model.parameters())) for x in (got, want)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", [Vector, Reader])
@pytest.mark.parametrize("correct", ["both", "negatives"])
def test_sampled_softmax_with_every_item_once_is_the_full_softmax(kind: type[Vector], correct: str) -> None:
    """The pool holds each target as well: counted twice it would be wrong, so it is masked in its own row."""
    model = kind(19)
    query, targets = asked(model, 6)
    got = loss_of("sampled_softmax", model, query, targets, pool(torch.arange(1, 20), 6), correct=correct)
    torch.testing.assert_close(got, loss_of("softmax", model, query, targets))


@pytest.mark.parametrize("name", SAMPLED)
def test_a_negative_that_is_the_target_costs_nothing(name: str) -> None:
    model = Vector(19)
    query, targets = asked(model, 4)
    others = torch.stack([(targets + 1 + k) % 19 + 1 for k in (0, 4)], 1)  # [N, 2] never the target
    with_target = torch.cat([others, (targets + 1)[:, None]], 1)  # [N, 3]
    options = {"correct": "negatives"} if name == "sampled_softmax" else {"t": 0.0} if name == "gbce" else {}
    want = loss_of(name, model, query, targets, pool(others, 4), **options)
    torch.testing.assert_close(loss_of(name, model, query, targets, pool(with_target, 4), **options), want)


def test_several_targets_of_one_position_share_its_query() -> None:
    model = Vector(19)
    query, _ = asked(model, 3)
    rows, targets = torch.tensor([0, 0, 2]), torch.tensor([4, 7, 1])
    assert isinstance(query, Tensor)
    for name, drawn in (("softmax", None), ("bce", pool(torch.tensor([3, 9]), 3))):
        got = loss_of(name, model, query, targets, drawn, rows=rows)
        torch.testing.assert_close(got, loss_of(name, model, query[rows], targets, drawn))


def test_what_cannot_be_meant_is_said_in_a_sentence() -> None:
    model = Vector(19)
    query, targets = asked(model, 3)
    with pytest.raises(ConfigError, match="unknown loss 'bprmax'; did you mean 'bpr_max'"):
        loss_of("bprmax", model, query, targets)
    with pytest.raises(ConfigError, match="set negatives to at least 1"):
        loss_of("bpr", model, query, targets)
    with pytest.raises(ConfigError, match="'hinge' has no option 'margn'; did you mean 'margin'"):
        loss_of("hinge", model, query, targets, pool(torch.tensor([3]), 3), margn=2)
    with pytest.raises(ConfigError, match="'twice'"):
        loss_of("sampled_softmax", model, query, targets, pool(torch.tensor([3]), 3), correct="twice")
    with pytest.raises(ConfigError, match="'bfloat61'; did you mean 'bfloat16'"):
        loss_of("softmax", model, query, targets, precision="bfloat61")


@pytest.mark.parametrize("kind", [Vector, Reader])
def test_no_targets_cost_nothing(kind: type[Vector]) -> None:
    model = kind(19)
    query, targets = asked(model, 0)
    assert loss_of("softmax", model, query, targets).item() == 0
    assert loss_of("bpr", model, query, targets, pool(torch.tensor([3, 9]), 0)).item() == 0
