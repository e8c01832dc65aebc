"""Segments of equal length side by side: which cell of [B, N, T] each event of a ragged batch stands in.

Letters: B rows, N segments, T events of a segment, n events, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Cells:
    """Where events stand: every row moves right by its open events, so that segments of all rows fall together."""

    shape: tuple[int, int, int]
    """(B, N, T): rows, segments, events of a segment."""
    flat: Tensor
    """[n] cell of each event among the B N T."""

    def spread(self, values: Tensor, under: Tensor | None = None) -> Tensor:
        """[n, D] into cells [B, N, T, D]; elsewhere 0, or in the first segment `under` [B, T, D]."""
        B, N, T = self.shape
        cells = values.new_zeros(B, N, T, values.shape[-1])                # [B, N, T, D]
        if under is not None:
            cells[:, 0] = under
        return cells.view(B * N * T, -1).index_copy_(0, self.flat, values).view(B, N, T, -1)

    def pick(self, cells: Tensor) -> Tensor:
        """[B, N, T, V] -> [n, V]"""
        return cells.reshape(-1, cells.shape[-1]).index_select(0, self.flat)

    def some(self, which: Tensor) -> Cells:
        """Only the events `which`: [n] bool, or their numbers."""
        return Cells(self.shape, self.flat[which])
