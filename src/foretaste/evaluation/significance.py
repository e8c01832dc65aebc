"""How sure is a number, and is one model better than another?

Cases of one user resemble each other, so what is drawn is users (in a log without users: sessions), with all their
cases. The mean is that over cases. All tests are two-sided, in numpy alone, and drawn from a seed.

    intervals       percentile bootstrap of a mean
    paired          two models on the same cases: bootstrap interval of the difference, and three tests
    holm            p values of many comparisons, corrected so that the chance of any false alarm stays at the level

The tests: bootstrap (how often a drawn difference falls on the other side of 0), randomisation (how often a difference
as large comes out when each user's two results are swapped by a coin), sign (does one model win for more users?).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import ConfigError, DataError

Values = NDArray[np.float64]
RESAMPLES = 1000
DRAWS = 10_000
"""Of the randomisation test, unless said otherwise: p can fall to 0.0001."""


@dataclass(frozen=True)
class Paired:
    """Two models on the same cases. `difference` is the first minus the second."""

    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_randomisation: float
    p_sign: float
    wins: int
    """Clusters for which the first model is better."""
    losses: int
    clusters: int
    cases: int


def intervals(
    values: Values,
    clusters: NDArray[Any] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Values:
    """Bootstrap intervals [M, 2] of the means of `values` [n, M]; all columns are drawn together.

    `clusters` [n] says which cases are drawn together (None: each by itself).
    """
    _check(values, level, resamples)
    sums, size = _by_cluster(values, clusters)  # [G, M], [G]
    return _percentiles(_means(sums, size, resamples, seed), level)


def paired(
    first: Values,
    second: Values,
    clusters: NDArray[Any] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    draws: int = DRAWS,
    seed: int = 0,
) -> Paired:
    """Compare two models by one metric, `first` and `second` [n] holding the value of each of the same cases."""
    if first.shape != second.shape:
        raise DataError(
            f"the two models were asked {len(first)} and {len(second)} cases; a paired comparison needs the same ones: "
            "evaluate both with the same `Cases`"
        )
    gap = (first - second)[:, None]  # [n, 1]
    _check(gap, level, resamples)
    sums, size = _by_cluster(gap, clusters)  # [G, 1], [G]
    sums[abs(sums) < 1e-12] = 0.0  # a draw, but for the rounding
    drawn = _means(sums, size, resamples, seed)  # [R, 1]
    low, high = _percentiles(drawn, level)[0]
    side = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    wins, losses = int((sums > 0).sum()), int((sums < 0).sum())
    return Paired(
        difference=float(gap.mean()),
        low=float(low),
        high=float(high),
        p_bootstrap=min(1.0, 2 * (side + 1) / (resamples + 1)),
        p_randomisation=_randomisation(sums[:, 0], draws, seed),
        p_sign=sign_test(wins, losses),
        wins=wins,
        losses=losses,
        clusters=len(sums),
        cases=len(gap),
    )


def sign_test(wins: int, losses: int) -> float:
    """The chance that fair coins split at least as unevenly, two-sided; draws are left out."""
    n, k = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    logs = np.cumsum(np.log(np.arange(n, n - k, -1)) - np.log(np.arange(1, k + 1)))  # [k] log of n over 1 .. k
    tail = math.fsum(np.exp(np.append(0.0, logs) - n * math.log(2)))
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float], of: int | None = None) -> list[float]:
    """Holm's correction: the i-th smallest of m is multiplied by m - i + 1, and none falls below a smaller one.

    `of` is m where more could have been tested than these. Who compares all with the best of n, and learns from the
    same cases which is best, has chosen among n (n - 1) / 2 pairs; those that are not given count as the largest.
    """
    p, m = np.asarray(p_values, dtype=np.float64), len(p_values) if of is None else of
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * (m - np.arange(len(p)))) if len(p) else p
    out = np.empty(len(p))
    out[order] = np.minimum(raised, 1.0)
    return [float(value) for value in out]


def _by_cluster(values: Values, clusters: NDArray[Any] | None) -> tuple[Values, Values]:
    """Sums [G, M] and numbers of cases [G] of each cluster."""
    if clusters is None:
        return values.copy(), np.ones(len(values))
    _, group = np.unique(clusters, return_inverse=True)
    sums = [np.bincount(group, weights=column) for column in values.T]
    return np.stack(sums, 1), np.bincount(group).astype(np.float64)


def _means(sums: Values, size: Values, resamples: int, seed: int) -> Values:
    """[R, M]: means over the cases of clusters drawn with replacement."""
    rng, n = np.random.default_rng(seed), len(size)
    table = np.column_stack([sums, size])  # [G, M + 1]
    out = np.empty((resamples, table.shape[1]))
    for draw in range(resamples):
        out[draw] = np.bincount(rng.integers(0, n, n, dtype=np.int32), minlength=n) @ table
    return out[:, :-1] / out[:, -1:]


def _percentiles(drawn: Values, level: float) -> Values:
    """[M, 2]"""
    tail = (1 - level) / 2
    bounds: Values = np.quantile(drawn, [tail, 1 - tail], axis=0).T
    return bounds


def _randomisation(sums: Values, draws: int, seed: int) -> float:
    """How often a sum as far from 0 comes out when the sign of each cluster is a coin."""
    rng = np.random.default_rng((seed, 1))
    moved = sums[sums != 0]
    far, extreme, total = abs(moved.sum()) * (1 - 1e-12), 0, moved.sum()
    at_once = max(1, 2_000_000 // max(len(moved), 1))
    for begin in range(0, draws, at_once):
        some = min(at_once, draws - begin)
        bits = rng.integers(0, 256, (some, (len(moved) + 7) // 8), dtype=np.uint8)
        minus = np.unpackbits(bits, axis=1, count=len(moved)).astype(np.float64)  # [some, G]
        extreme += int((abs(total - 2 * (minus @ moved)) >= far).sum())
    return (extreme + 1) / (draws + 1)


def _check(values: Values, level: float, resamples: int) -> None:
    if not len(values):
        raise DataError("no cases, so there is nothing to draw from; choose another protocol or part")
    if not 0 < level < 1:
        raise ConfigError(f"level = {level}; expected a number between 0 and 1, such as 0.95")
    if resamples < 1:
        raise ConfigError(f"resamples = {resamples}; expected 1 or more, such as {RESAMPLES}")
