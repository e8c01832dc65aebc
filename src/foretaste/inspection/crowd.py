"""What everybody takes: how popularity is shared among the items, and how fast it moves.

The log is cut into ten slices of about as many events each: by time, or, where it has no times and no users, by the
order of its sessions. A log with users and without times has no order that all share, and no drift to measure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.data.sequences import Sequences

Ints = NDArray[np.int64]

SLICES = 10
LIST = 20
"""Length of the list that the drift is told in."""
SAMPLE = 2_000_000
"""Times that the ends of slices are taken from, at most."""
POINTS = 50
"""Points of the curve of shares."""


@dataclass(frozen=True)
class Popularity:
    """How the events are shared among the items that occur."""

    gini: float
    """0: all items alike; towards 1: one item has everything."""
    top_1: float
    """Share of the events on the top 1 % of the items (at least one item)."""
    top_10: float
    once: int
    """Items with one event."""
    curve: tuple[tuple[float, float], ...]
    """(share of the items, the most popular first; share of the events)."""


@dataclass(frozen=True)
class Drift:
    """Slices of the log, the oldest first."""

    slices: int
    by: str
    top: int
    """How many items are compared."""
    kept: tuple[float, ...]
    """[slices - 1]: share of a slice's most popular items that are among the next slice's."""
    hit: tuple[float, ...]
    """[slices - 1]: share of the next slice's events on a slice's 20 most popular items: what a list of them finds."""
    apart: tuple[float, ...]
    """[slices - 1]: the same as `kept` for slices 1, 2, ... apart, on average."""
    new: tuple[float, ...]
    """[slices]: share of a slice's events on items that no earlier slice has; the first is 1."""


class Crowd:
    """Counts of items a slice, a block at a time."""

    def __init__(self, log: Sequences, n_items: int) -> None:
        self.n_items = n_items
        self.edges: Ints | None = None
        self.by = ""
        if log.times is not None:
            sample = np.asarray(log.times[:: len(log) // SAMPLE + 1])
            inner = np.linspace(0, 1, SLICES + 1)[1:-1]
            self.edges, self.by = np.quantile(sample, inner, method="higher").astype(np.int64), "time"
        elif not (np.asarray(log.user_numbers) > 0).any():
            self.edges, self.by = np.linspace(0, len(log), SLICES + 1)[1:-1].astype(np.int64), "order of sessions"
        self.counts = np.zeros((SLICES if self.by else 1, n_items + 1), np.int64)

    def add(self, items: NDArray[np.integer], when: Ints) -> None:
        """Count a block; `when` [n] is the time of each event, or its place in the log."""
        width = self.n_items + 1
        if self.edges is None:
            self.counts[0] += np.bincount(items, minlength=width)
            return
        place = np.searchsorted(self.edges, when, side="right")
        self.counts += np.bincount(place * width + items, minlength=SLICES * width).reshape(SLICES, width)

    def of_items(self) -> Ints:
        """[I]: how often each item occurs."""
        found: Ints = self.counts.sum(0)[1:]
        return found

    def popularity(self) -> Popularity:
        """Over the items that occur."""
        counts = np.sort(self.of_items())[::-1]
        counts = counts[counts > 0]
        n, total = len(counts), max(int(counts.sum()), 1)
        summed = np.concatenate([[0], np.cumsum(counts)]) / total
        places = np.unique(np.linspace(0, n, POINTS + 1).round().astype(np.int64))
        gini = float((2 * summed[1:-1].sum() + 1) / n - 1) if n else 0.0
        top_1, top_10 = (float(summed[max(1, n // part)]) if n else 0.0 for part in (100, 10))
        curve = tuple((float(k / n), float(summed[k])) for k in places) if n else ()
        return Popularity(max(gini, 0.0), top_1, top_10, int((counts == 1).sum()), curve)

    def drift(self) -> Drift | None:
        """From slice to slice; None where the log has no common order, or too little of one."""
        counts = self.counts[self.counts.sum(1) > 0] if self.by else self.counts[:0]
        if len(counts) < 2:
            return None
        n, known = len(counts), counts[:, 1:]
        top = min(100, max(1, self.n_items // 10))
        order = [np.argsort(-one, kind="stable") for one in known]  # ties: the lower number, so the more popular item
        best = [place[:top][one[place[:top]] > 0] for place, one in zip(order, known, strict=True)]
        kept = {(a, b): len(np.intersect1d(best[a], best[b])) / max(len(best[a]), 1)
                for a in range(n) for b in range(a + 1, n)}  # fmt: skip
        sizes = counts.sum(1)
        hit = [known[k + 1][order[k][:LIST][known[k][order[k][:LIST]] > 0]].sum() / sizes[k + 1] for k in range(n - 1)]
        seen = np.cumsum(known, axis=0) > 0
        new = [1.0, *(1 - known[k][seen[k - 1]].sum() / sizes[k] for k in range(1, n))]
        return Drift(
            slices=n,
            by=self.by,
            top=top,
            kept=tuple(kept[k, k + 1] for k in range(n - 1)),
            hit=tuple(float(share) for share in hit),
            apart=tuple(float(np.mean([kept[a, a + d] for a in range(n - d)])) for d in range(1, n)),
            new=tuple(float(share) for share in new),
        )
