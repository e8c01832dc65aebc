"""Ranks by counting are the places in the lists that a slow, obvious version writes down."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretaste.evaluation import ranking
from foretaste.evaluation.ranking import MISS, ScoreError, Scorer, rank
from tests.evaluation.stubs import Bag, Counter, Fixed, slow_case


def assert_as_slow(scores: torch.Tensor, rows: np.ndarray, items: np.ndarray) -> None:
    found = rank(scores, rows, items)
    for row in range(len(scores)):
        mine = rows == row
        worst, best = slow_case(scores[row].double().numpy(), items[mine].tolist(), set())
        assert [math.inf if place == MISS else place for place in found.pessimistic[mine]] == worst
        assert [math.inf if place == MISS else place for place in found.optimistic[mine]] == best


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 12), st.sampled_from([1, 2, 7, 1000]))
def test_ranks_equal_the_places_in_the_written_lists(seed: int, n_items: int, n: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.integers(0, spread, (n, n_items))).float()
    scores[torch.from_numpy(rng.random((n, n_items)) < 0.1)] = -torch.inf
    chosen = [rng.permutation(n_items)[: rng.integers(0, 5)] + 1 for _ in range(n)]
    rows = np.repeat(np.arange(n), [len(part) for part in chosen])
    items = np.concatenate(chosen).astype(np.int64)
    order = rng.permutation(len(rows))
    assert_as_slow(scores, rows[order], items[order])
    assert_as_slow(scores, np.arange(n), rng.integers(1, n_items + 1, n))  # one target each, counted in place


def test_strips_and_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.integers(0, 5, (9, 50))).float()
    rows, items = np.repeat(np.arange(9), 3), np.tile([4, 17, 50], 9)
    whole = rank(scores, rows, items)
    monkeypatch.setattr(ranking, "STRIP", 7)
    monkeypatch.setattr(ranking, "MOST_ROWS", 4)
    pieces = rank(scores, rows, items)
    assert np.array_equal(whole.pessimistic, pieces.pessimistic)
    assert np.array_equal(whole.optimistic, pieces.optimistic)
    assert np.array_equal(whole.tied, pieces.tied)


def test_by_hand() -> None:
    """Items 2, 3, 4 share the second score. Among the targets 3 and 4 item 2 is the only rival."""
    scores = torch.tensor([[9.0, 5.0, 5.0, 5.0, 1.0]])
    found = rank(scores, np.array([0, 0, 0]), np.array([3, 4, 5]))
    assert found.pessimistic.tolist() == [3, 4, 5]
    assert found.optimistic.tolist() == [2, 3, 5]
    assert found.tied.tolist() == [True, True, False]


def test_constant_scores_are_last_or_first() -> None:
    found = rank(torch.ones(6, 30), np.arange(6), np.array([1, 5, 9, 13, 17, 30]))
    assert set(found.pessimistic) == {30}
    assert set(found.optimistic) == {1}


def test_random_scores_hit_by_chance() -> None:
    """HR@K is K / I: 20,000 lists of 50 items, K = 10, within four standard errors."""
    scores = torch.rand(20_000, 50, generator=torch.Generator().manual_seed(1))
    found = rank(scores, np.arange(20_000), np.random.default_rng(1).integers(1, 51, 20_000))
    assert abs((found.pessimistic <= 10).mean() - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 20_000)
    assert np.array_equal(found.pessimistic, found.optimistic)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_no_finite_number_is_refused_but_minus_infinity(wrong: float) -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [1.0, wrong, 3.0]])
    with pytest.raises(ScoreError, match="NaN or infinity") as raised:
        rank(scores, np.array([0, 1]), np.array([1, 1]))
    assert raised.value.row == 1
    found = rank(torch.tensor([[3e38, -math.inf, 0.0, 2e38]]), np.zeros(4, np.int64), np.arange(1, 5))  # sum to inf
    assert found.pessimistic.tolist() == [1, MISS, 3, 2]


@pytest.mark.parametrize("many", [1, 3, 200])
def test_the_three_ways_of_scoring_agree(many: int) -> None:
    """model.score, a plain product and oneDNN's give the same scores; whole numbers exactly, with all their ties."""
    model = Bag(10_000, size=9, span=3)
    query = torch.from_numpy(np.random.default_rng(2).integers(-4, 5, (many, 9))).float()
    slow, fast, plain = Scorer(model, by_matrix=False), Scorer(model), Scorer(model)
    plain._onednn = None
    assert slow.matrix is None
    wanted = query @ model.item_matrix().T
    for scorer in (slow, fast, plain):
        assert torch.equal(scorer(query), wanted)
    model.table.mul_(0.37)
    query = query * 0.713
    exact = (query.double() @ model.item_matrix().double().T).numpy()
    for scorer in (Scorer(model, by_matrix=False), Scorer(model), plain):
        assert np.abs(scorer(query).numpy() - exact).max() < 1e-5


def test_a_bias_is_added_on_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    bias = torch.arange(500.0)
    monkeypatch.setattr(Bag, "item_bias", lambda self: bias)
    model = Bag(500)
    query = torch.ones(20, 4)
    plain = Scorer(model)
    plain._onednn = None
    wanted = query @ model.item_matrix().T + bias
    for scorer in (Scorer(model, by_matrix=False), Scorer(model), plain):
        assert torch.equal(scorer(query), wanted)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 15, 16, 40])
@pytest.mark.parametrize("by_matrix", [True, False])
def test_equal_items_tie_whatever_the_block(n: int, by_matrix: bool) -> None:
    """Items with the same vector have the same score to the last bit, also in a block of one case."""
    rng = np.random.default_rng(n)
    model = Bag(4099, size=50)
    twin = rng.integers(0, 400, 4099)
    model.table[1:] = torch.from_numpy(rng.normal(size=(400, 50)).astype(np.float32)[twin])
    scores = Scorer(model, by_matrix=by_matrix)(torch.from_numpy(rng.normal(size=(n, 50)).astype(np.float32)))
    target = rng.integers(0, 4099, n)
    found = rank(scores, np.arange(n), target + 1)
    twins = np.bincount(twin, minlength=400)[twin[target]]
    assert np.array_equal(found.pessimistic - found.optimistic, twins - 1)


def test_counts_with_a_fraction_keep_their_order_in_float64() -> None:
    scores = torch.tensor([5 + 1e-7, 5 + 2e-7, 5.0], dtype=torch.float64)
    found = rank(Scorer(Fixed(scores))(torch.zeros(3, 1)), np.arange(3), np.array([1, 2, 3]))
    assert found.pessimistic.tolist() == [2, 1, 3]
    assert not found.tied.any()


def test_whole_number_scores_and_queries_of_parts() -> None:
    model = Counter(6)
    query = {"counts": torch.tensor([[0, 2, 0, 1, 1, 0, 0]]), "total": torch.tensor([4])}
    scores = Scorer(model)(query)
    assert scores.dtype == torch.float64
    assert scores.tolist() == [[-2, -4, -3, -3, -4, -4]]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(kind: torch.dtype) -> None:
    with pytest.raises(ScoreError, match=r"call model.float\(\)"):
        Scorer(Fixed(torch.ones(4, dtype=kind)))(torch.zeros(2, 1))
    with pytest.raises(ScoreError, match=r"call model.float\(\)"):
        Scorer(Bag(5).to(kind))(torch.zeros(2, 4))


def test_a_score_of_the_wrong_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fixed, "score", lambda self, query, items=None: torch.zeros(len(query), 3))
    with pytest.raises(ScoreError, match=r"\(16, 3\).*\(16, 4\)"):
        Scorer(Fixed(torch.ones(4)))(torch.zeros(2, 1))


def test_a_block_stays_under_its_budget() -> None:
    for n_items in (10, 40_000, 500_000, 1_000_000):
        block = Scorer(Fixed(torch.ones(n_items))).block
        assert block * n_items * 4 <= ranking.BUDGET
        assert block >= 16
    assert Scorer(Fixed(torch.ones(9)), block=5).block == 5


def test_scores_come_in_strips_of_items() -> None:
    """A model that scores each candidate by itself is never asked for more than a strip."""
    asked: list[int] = []

    class Watched(Fixed):
        def score(self, query, items=None):  # type: ignore[no-untyped-def]
            asked.append(self.n_items if items is None else len(items))
            return super().score(query, items)

    scores = torch.arange(20_000.0)
    found = Scorer(Watched(scores))(torch.zeros(20, 1))
    assert max(asked) == ranking.STRIP
    assert torch.equal(found, scores.expand(20, -1))
