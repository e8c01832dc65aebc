"""Metrics by hand, by a slow version, and by torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretaste.evaluation.metrics import Lists, of_cases, percentiles
from foretaste.evaluation.ranking import MISS, rank
from tests.evaluation.stubs import slow_metrics


def test_one_target_by_hand() -> None:
    ranks = np.array([1, 4, 20, 21, MISS])
    found = of_cases(ranks, np.arange(6), (20,))
    assert found["recall@20"].tolist() == found["hr@20"].tolist() == [1, 1, 1, 0, 0]
    assert found["precision@20"].tolist() == [0.05, 0.05, 0.05, 0, 0]
    assert found["mrr@20"].tolist() == found["mrr-mean@20"].tolist() == [1, 0.25, 0.05, 0, 0]
    assert found["mrr"].tolist() == pytest.approx([1, 0.25, 0.05, 1 / 21, 0], abs=0)
    assert found["ndcg@20"].tolist() == pytest.approx([1, 1 / math.log2(5), 1 / math.log2(21), 0, 0])


def test_many_targets_by_hand() -> None:
    """Three targets at 1, 3 and nowhere; then two, both beyond the list."""
    found = of_cases(np.array([3, 1, MISS, 6, 9]), np.array([0, 3, 5]), (2, 5))
    assert found["recall@5"].tolist() == pytest.approx([2 / 3, 0])
    assert found["hr@5"].tolist() == [1, 0]
    assert found["precision@5"].tolist() == [0.4, 0]
    assert found["f1@5"].tolist() == pytest.approx([0.5, 0])
    assert found["mrr@5"].tolist() == [1, 0]
    assert found["mrr-mean@5"].tolist() == pytest.approx([(1 + 1 / 3) / 3, 0])
    assert found["mrr-mean"].tolist() == pytest.approx([(1 + 1 / 3) / 3, (1 / 6 + 1 / 9) / 2])
    dcg = 1 + 1 / 2
    assert found["ndcg@5"][0] == pytest.approx(dcg / (1 + 1 / math.log2(3) + 1 / 2))
    assert found["ndcg-fixed@5"][0] == pytest.approx(dcg / sum(1 / math.log2(j + 1) for j in range(1, 6)))
    assert found["ndcg@2"][0] == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_mean_f1_is_not_the_f1_of_the_means() -> None:
    found = of_cases(np.array([1, 9, 9, 9, 9]), np.array([0, 1, 5]), (1,))
    recall, precision = found["recall@1"].mean(), found["precision@1"].mean()
    assert found["f1@1"].mean() == 0.5
    assert 2 * recall * precision / (recall + precision) == 0.5
    found = of_cases(np.array([1, 1, 9, 9, 9]), np.array([0, 1, 5]), (1,))
    recall, precision = found["recall@1"].mean(), found["precision@1"].mean()
    assert found["f1@1"].mean() == pytest.approx((1 + 0.4) / 2)
    assert 2 * recall * precision / (recall + precision) == pytest.approx(10 / 13)


@given(st.lists(st.lists(st.one_of(st.integers(1, 30), st.just(MISS)), min_size=1, max_size=6), min_size=1, max_size=8))
def test_equal_to_the_definitions(cases: list[list[int]]) -> None:
    found = of_cases(np.concatenate(cases), np.cumsum([0, *map(len, cases)]), (1, 5, 20))
    for case, ranks in enumerate(cases):
        real = [math.inf if place == MISS else place for place in ranks]
        for k in (1, 5, 20):
            for name, value in slow_metrics(real, k).items():
                assert found[name][case] == pytest.approx(value, abs=1e-12), name


def scores_and_targets(seed: int = 0) -> tuple[torch.Tensor, np.ndarray, np.ndarray, torch.Tensor]:
    """60 lists of 40 items without ties, one to five targets each."""
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.permuted(np.tile(np.arange(40.0), (60, 1)), axis=1)).float()
    chosen = [rng.permutation(40)[: rng.integers(1, 6)] for _ in range(60)]
    relevant = torch.zeros(60, 40, dtype=torch.bool)
    for row, columns in enumerate(chosen):
        relevant[row, columns] = True
    rows = np.repeat(np.arange(60), [len(part) for part in chosen])
    return scores, rows, np.concatenate(chosen) + 1, relevant


@pytest.mark.parametrize("k", [1, 5, 20])
def test_equal_to_torchmetrics(k: int) -> None:
    from torchmetrics.functional import retrieval

    scores, rows, items, relevant = scores_and_targets()
    ranks = rank(scores, rows, items).pessimistic
    found = of_cases(ranks, np.searchsorted(rows, np.arange(61)), (k,))
    theirs = {
        "recall": retrieval.retrieval_recall,
        "precision": retrieval.retrieval_precision,
        "hr": retrieval.retrieval_hit_rate,
        "mrr": retrieval.retrieval_reciprocal_rank,
        "ndcg": retrieval.retrieval_normalized_dcg,
    }
    for name, function in theirs.items():
        wanted = [float(function(s, t, top_k=k)) for s, t in zip(scores, relevant, strict=True)]
        assert found[f"{name}@{k}"] == pytest.approx(np.array(wanted), abs=1e-6), name


def test_percentiles_and_lists_by_hand() -> None:
    assert percentiles(np.array([9, 5, 5, 1])).tolist() == pytest.approx([1, 0.5, 0.5, 0])
    assert percentiles(np.array([3, 3])).tolist() == [0.5, 0.5]
    assert percentiles(np.array([3])).tolist() == [0.5]
    lists = Lists(2, np.array([9, 5, 5, 1]))
    yes, no = True, False
    lists.add(np.array([2]), np.array([[1, 2]]), np.array([[yes, yes]]), np.array([[yes, no]]))
    lists.add(np.array([1, 0]), np.array([[1, 4], [2, 1]]), np.array([[yes, no], [no, no]]), np.full((2, 2), no))
    found = lists.of_cases()
    assert found["popularity@2"].tolist() == pytest.approx([0, 1, 0.75])
    assert found["arp@2"].tolist() == pytest.approx([0, 9, 7])
    assert found["repeats@2"].tolist() == pytest.approx([0, 0, 0.5])
    assert lists.coverage == 0.5  # items 1 and 2; item 4 stood where no candidate was left
