"""Quantiles, histograms and a gamma fit from counts of values, so that a log is read a block at a time.

Whole numbers (events of a session, seconds to the next event) take few distinct values, whatever the size of the log.
What is kept is how often each occurs; all that follows is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from foretaste.models.bins import scott_bins

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SIZES = (1, 2, 3, 4, 5, 6, 11, 21, 51, 101, 201, 501, 1001)
"""Lower ends of the bars for numbers of events and sessions."""
SECONDS = (0, 1, 10, 30, 60, 300, 1800, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400)
"""Lower ends of the bars for times."""


@dataclass(frozen=True)
class Bar:
    """How many values are `least` or more, and less than the next bar's."""

    least: float
    label: str
    count: int


@dataclass(frozen=True)
class Spread:
    """What some numbers are like."""

    of: int
    """How many numbers."""
    mean: float
    median: float
    p90: float
    p99: float
    max: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Gamma:
    """Seconds from event to event against a gamma law, in bins by Scott's rule (ASARS, Figure 1 and equation 8)."""

    shape: float
    scale: float
    """In seconds; the law's mean is shape * scale."""
    distance: float
    """The largest gap between the log's share of times up to x and the law's: 0 is a perfect fit."""
    fitted: float
    """Share of the times that the fit has seen: above 0 and up to `longest`."""
    longest: float
    """Seconds; what is longer counts as this for the bins and is left out of the fit."""
    width: float
    """Of a bin, in seconds."""
    bins: int
    density: tuple[float, ...]
    """Of the bins from 0 on: share of the fitted times a second."""

    def at(self, seconds: Floats) -> Floats:
        """The law's density."""
        k, x = self.shape, np.maximum(seconds, 1e-9)
        return np.asarray(np.exp((k - 1) * np.log(x) - x / self.scale - math.lgamma(k) - k * math.log(self.scale)))


class Tally:
    """How often each whole number occurs."""

    def __init__(self) -> None:
        self._parts: list[tuple[Ints, Ints]] = []

    def add(self, values: NDArray[np.integer]) -> None:
        """Count these as well."""
        if len(values):
            self._parts.append(_counted(values.astype(np.int64), None))
        if len(self._parts) > 16:
            self._parts = [self.counts()]

    def counts(self) -> tuple[Ints, Ints]:
        """The distinct values in order, and how often each occurs."""
        if not self._parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        values, counts = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        return _counted(values, counts)

    def spread(self, edges: Sequence[int]) -> Spread | None:
        """Mean, quantiles and bars; None where nothing was counted."""
        values, counts = self.counts()
        n = int(counts.sum())
        if not n:
            return None
        median, p90, p99 = (_quantile(values, counts, share) for share in (0.5, 0.9, 0.99))
        mean = float((values * counts).sum() / n)
        return Spread(n, mean, median, p90, p99, float(values[-1]), _bars(values, counts, edges))

    def gamma(self, longest: float = 3600.0, most: int = 1000) -> Gamma | None:
        """The law of greatest likelihood for the times above 0 and up to `longest`; None where they do not vary."""
        values, counts = self.counts()
        inside = (values > 0) & (values <= longest)
        x, n = values[inside].astype(np.float64), counts[inside]
        total = int(n.sum())
        if len(x) < 2:
            return None
        mean = float((x * n).sum() / total)
        shape = _shape(math.log(mean) - float((np.log(x) * n).sum() / total))
        scale = mean / shape
        law = _cumulative(shape, (x + 0.5) / scale)
        distance = float(np.abs(np.cumsum(n) / total - law).max())
        clipped = np.clip(values, 0, longest).astype(np.float64)
        width, bins = scott_bins(clipped, most, counts)
        heights = np.bincount(np.minimum((x / width).astype(np.int64), bins - 1), weights=n, minlength=bins)
        density = tuple((heights / (total * width)).tolist())
        return Gamma(shape, scale, distance, total / int(counts.sum()), longest, width, bins, density)


def duration(seconds: float) -> str:
    """12 s, 3 min, 2.5 h, 9 d."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _counted(values: Ints, weights: Ints | None) -> tuple[Ints, Ints]:
    low, high = int(values.min()), int(values.max())
    if high - low < max(4 * len(values), 100_000):
        found = np.bincount(values - low, weights=weights)
        there = np.flatnonzero(found)
        return there + low, found[there].astype(np.int64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    sizes = np.diff(np.append(begins, len(values))) if weights is None else np.add.reduceat(weights[order], begins)
    return ordered[begins], sizes.astype(np.int64)


def _quantile(values: Ints, counts: Ints, share: float) -> float:
    """Linear between the two nearest, as `numpy.quantile`."""
    ends = np.cumsum(counts)
    place = share * (int(ends[-1]) - 1)
    below, above = (
        values[np.searchsorted(ends, whole, side="right")] for whole in (math.floor(place), math.ceil(place))
    )
    return float(below + (above - below) * (place - math.floor(place)))


def _bars(values: Ints, counts: Ints, edges: Sequence[int]) -> tuple[Bar, ...]:
    place = np.searchsorted(edges, values, side="right") - 1
    heights = np.bincount(np.maximum(place, 0), weights=counts, minlength=len(edges)).astype(np.int64)
    last = int(np.flatnonzero(heights)[-1])
    labels = [_label(low, high, edges is SECONDS) for low, high in pairwise([*edges, math.inf])]
    return tuple(Bar(edges[k], labels[k], int(heights[k])) for k in range(last + 1))


def _label(low: float, high: float, times: bool) -> str:
    """Of the bar from `low` to below `high`."""
    if math.isinf(high):
        return f"{duration(low) if times else low} or more"
    if times:
        return f"to {duration(high)}" if low else f"under {duration(high)}"
    return str(low) if high == low + 1 else f"{low} to {high - 1}"


def _shape(gap: float) -> float:
    """Where log k - digamma(k) = `gap` (mean's logarithm less the logarithms' mean): Minka's start, then Newton."""
    k = (3 - gap + math.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    for _ in range(20):
        at = torch.tensor(k, dtype=torch.float64)
        slope = 1 / k - float(torch.special.polygamma(1, at))
        step = (math.log(k) - float(torch.special.digamma(at)) - gap) / slope
        k = max(k - step, k / 2)
        if abs(step) < 1e-12 * k:
            break
    return k


def _cumulative(shape: float, x: Floats) -> Floats:
    """The law's share up to x, in units of its scale."""
    law = torch.special.gammainc(torch.tensor(shape, dtype=torch.float64), torch.from_numpy(np.ascontiguousarray(x)))
    return np.asarray(law.numpy())
