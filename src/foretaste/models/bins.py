"""Seconds as numbered bins of one width, chosen from the training log: Scott's rule (ASARS, equation 8).

    width = sigma (24 sqrt(pi) / n) ^ (1/3)

Gaps between clicks have a long tail, so they are cut at `longest` seconds before sigma is taken. Left open by the
paper, and what was chosen: no bin is narrower than a second, the clock of the log; there are at most `most` bins, and
the last one takes whatever is longer. Bin START is that of an event with nothing before it; the others are 1, 2, ...
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.data.sequences import Sequences
from foretaste.errors import NeedsError

T = TypeVar("T")

START = 0
"""The bin of the first event of a session, which has no gap."""


class TimeBins(nn.Module):
    """The width and the number of the bins, as buffers that are saved with the weights."""

    width: Tensor
    number: Tensor

    def __init__(self, longest: float, most: int) -> None:
        super().__init__()
        self.longest, self.most = longest, most
        self.register_buffer("width", torch.ones(()))                      # seconds
        self.register_buffer("number", torch.full((), float(most)))        # bins beside START

    def fit(self, seconds: NDArray[np.float64]) -> None:
        """Choose width and number from the training log's own gaps."""
        inside = np.clip(np.nan_to_num(seconds.astype(np.float64)), 0, self.longest)  # [n]
        width, number = scott_bins(inside, self.most)
        self.width.fill_(width)
        self.number.fill_(number)

    def forward(self, seconds: Tensor, first: Tensor) -> Tensor:
        """Bin numbers [B, T] int64 of `seconds` [B, T]; START where `first`. Less than nothing counts as nothing."""
        inside = seconds.to(self.width.dtype).nan_to_num(0.0).clamp(0, self.longest)  # [B, T]
        bins = (inside / self.width).floor().minimum(self.number - 1)      # [B, T]
        return (bins.nan_to_num(0.0).long().clamp(0, self.most - 1) + 1).masked_fill(first, START)  # [B, T]


def scott_bins(seconds: NDArray[np.float64], most: int, counts: NDArray[np.int64] | None = None) -> tuple[float, int]:
    """Width and number of the bins for these times; `counts` says how often each occurs, if not once."""
    width = max(scott_width(seconds, counts), 1.0)
    return width, min(math.floor(seconds.max(initial=0) / width) + 1, most)


def scott_width(values: NDArray[np.float64], counts: NDArray[np.int64] | None = None) -> float:
    """Equation 8; 0 where there is nothing to spread."""
    n = len(values) if counts is None else int(counts.sum())
    if not n:
        return 0.0
    sigma = values.std() if counts is None else np.cov(values, fweights=counts, ddof=0) ** 0.5
    return float(sigma * (24 * math.sqrt(math.pi) / n) ** (1 / 3))


def gaps(log: Sequences) -> NDArray[np.float64]:
    """Seconds from each known event to the next known one of its session."""
    known = np.flatnonzero(np.asarray(log.items) > 0)                      # [n]
    session = np.searchsorted(log.sessions, known, side="right")           # [n]
    gap = np.diff(np.asarray(given(log.times, "times"))[known])            # [n - 1]
    inside: NDArray[np.float64] = gap[session[1:] == session[:-1]].astype(np.float64)
    return inside


def dwells(log: Sequences) -> NDArray[np.float64]:
    """The prepared column "dwell" of each known event."""
    return np.asarray(given(log.columns.get("dwell"), "column 'dwell'"))[np.asarray(log.items) > 0].astype(np.float64)


def given(column: T | None, name: str) -> T:
    """What time is read from: it must be there."""
    if column is None:
        raise NeedsError(f"this model reads the {name} of events, and found none; give them, or choose another variant")
    return column
