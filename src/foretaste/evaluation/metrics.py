"""Metrics, all of them from one array: the rank of each target.

A case has T distinct targets, of which `found` stand on the list of the first K. One value a case, averaged over cases:

    recall@K         found / T                          HR@K for one target; "P@20" of some session papers
    hr@K             1 if any is found
    precision@K      found / K
    f1@K             harmonic mean of the two, in each case; the F1 of the averages is another number
    mrr@K, mrr       1 / rank of the best target, 0 beyond K
    mrr-mean@K, ...  mean over the targets of 1 / rank, 0 beyond K
    ndcg@K           DCG / best possible DCG with min(K, T) targets
    ndcg-fixed@K     DCG / sum of 1 / log2(j + 1) for j <= K, whatever T (the papers that follow RUM's code)

With one target in each case recall = hr, mrr = mrr-mean, and both NDCG agree up to their normaliser. What depends on
the lists themselves (coverage, popularity, repeats) is counted in `Lists`, a few numbers a case, never the lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.ranking import MISS

Ints = NDArray[np.int64]
Values = NDArray[np.float64]


def of_cases(ranks: Ints, offsets: Ints, cutoffs: Sequence[int]) -> dict[str, Values]:
    """Every metric of every case: name -> [n].

    `ranks` [m] holds 1, 2, ... or MISS, one a target; those of case i are offsets[i] .. offsets[i + 1], at least one.
    """
    first, count = offsets[:-1], np.diff(offsets)
    inverse = np.where(ranks < MISS, 1 / ranks, 0.0)  # [m]
    gain = np.where(ranks < MISS, 1 / np.log2(ranks + 1.0), 0.0)  # [m]
    best = np.maximum.reduceat(inverse, first)  # [n]
    out = {}
    for k in cutoffs:
        hit = ranks <= k  # [m]
        found = np.add.reduceat(hit, first, dtype=np.float64)  # [n]
        recall, precision = found / count, found / k
        dcg = np.add.reduceat(gain * hit, first)  # [n]
        ideal = np.cumsum(1 / np.log2(np.arange(k) + 2.0))  # [k] best DCG with 1 .. k targets
        out[f"recall@{k}"] = recall
        out[f"hr@{k}"] = (found > 0).astype(np.float64)
        out[f"mrr@{k}"] = np.maximum.reduceat(inverse * hit, first)
        out[f"mrr-mean@{k}"] = np.add.reduceat(inverse * hit, first) / count
        out[f"ndcg@{k}"] = dcg / ideal[np.minimum(count, k) - 1]
        out[f"ndcg-fixed@{k}"] = dcg / ideal[-1]
        out[f"precision@{k}"] = precision
        out[f"f1@{k}"] = 2 * found / (count + k)  # 2 P R / (P + R), 0 if both are 0
    out["mrr"] = best
    out["mrr-mean"] = np.add.reduceat(inverse, first) / count
    return out


def percentiles(popularity: NDArray[Any]) -> Values:
    """[I]: the share of items that are less popular, ties counting half: 0 is the rarest, 1 the most popular."""
    values, inverse, count = np.unique(popularity, return_inverse=True, return_counts=True)
    below = np.cumsum(count) - count
    share: Values = ((below + (count - 1) / 2) / max(1, len(popularity) - 1))[inverse]
    return share if len(values) > 1 else np.full(len(popularity), 0.5)


@dataclass
class Lists:
    """What the recommended lists are like, gathered block by block.

    popularity@K     mean popularity percentile of what was recommended (0.5 = no bias)
    arp@K            mean training count of what was recommended (average recommendation popularity)
    repeats@K        share of what was recommended that the user's history already holds
    coverage@K       share of all items that stand on at least one list; of the whole run, not of a case
    """

    k: int
    popularity: NDArray[Any]
    """[I]: training count of each item."""

    def __post_init__(self) -> None:
        self._percentile = percentiles(self.popularity)
        self._shown = np.zeros(len(self.popularity), bool)
        self._cases: list[Ints] = []
        self._values: list[Values] = []

    def add(self, cases: Ints, items: Ints, real: NDArray[np.bool_], seen: NDArray[np.bool_]) -> None:
        """Lists `items` [n, K] of some cases: `real` where a candidate stands, `seen` where the history has it."""
        size = np.maximum(real.sum(1), 1)  # [n]
        column = np.where(real, items - 1, 0)  # [n, K]
        self._shown[column[real]] = True
        mean = [(part * real).sum(1) / size for part in (self._percentile[column], self.popularity[column], seen)]
        self._cases.append(cases)
        self._values.append(np.stack(mean, 1).astype(np.float64))  # [n, 3]

    def of_cases(self) -> dict[str, Values]:
        """Every list metric of every case, in the order of the cases."""
        values = np.concatenate(self._values)[np.argsort(np.concatenate(self._cases))]  # [n, 3]
        return {f"{name}@{self.k}": values[:, i] for i, name in enumerate(("popularity", "arp", "repeats"))}

    @property
    def coverage(self) -> float:
        """Share of all items on at least one list."""
        return float(self._shown.mean())
