"""The best k of a row of scores, in an order that never depends on chance."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTH = 128
"""Columns of a block: its best one decides whether the block is looked into."""


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns of the k highest scores of each row; equal scores stand in the order of their columns.

    scores [B, C] -> values [B, k], columns [B, k]. Columns follow popularity, so what ties goes to the more popular.
    """
    k = min(k, scores.shape[-1])
    more, places = highest(scores, min(k + 1, scores.shape[-1]))           # [B, k + 1]
    values, columns = more[:, :k], places[:, :k]                           # [B, k]
    if k:
        crowded = more[:, k:].eq(values[:, -1:]).any(-1)                   # [B] a tie across the end of the list
        for row in crowded.nonzero().flatten().tolist():
            above = (~(scores[row] <= values[row, -1])).nonzero()[:, 0]    # fewer than k, a NaN among them
            level = (scores[row] == values[row, -1]).nonzero()[:, 0]       # by column
            columns[row] = torch.cat([above, level])[:k]
        if crowded.any() or values[:, 1:].eq(values[:, :-1]).any():        # else their order is the only one
            values = scores.gather(-1, columns)
            by_column = columns.argsort(dim=-1)
            by_value = values.gather(-1, by_column).argsort(dim=-1, descending=True, stable=True)
            order = by_column.gather(-1, by_value)
            values, columns = values.gather(-1, order), columns.gather(-1, order)
    return values, columns


def highest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest values of each row [B, C] and columns that hold them, as `Tensor.topk`, in less time.

    They lie in the k blocks with the highest maxima: whatever lies outside has k values above or beside it. A NaN is
    higher than every number, in a block's maximum as in a row.
    """
    rows, size = scores.shape
    blocks = size // WIDTH
    if scores.device.type != "cpu" or blocks < 4 * k or not rows:
        return scores.topk(k)
    cut = scores[:, : blocks * WIDTH].view(rows, blocks, WIDTH)            # [B, blocks, WIDTH]
    chosen = cut.amax(-1).topk(k, sorted=False).indices                    # [B, k]
    inside = cut.gather(1, chosen[:, :, None].expand(-1, -1, WIDTH)).flatten(1)  # [B, k WIDTH]
    rest = scores[:, blocks * WIDTH :]                                     # [B, less than WIDTH]
    values, places = torch.cat([inside, rest], 1).topk(k)                  # [B, k]
    columns = chosen.gather(1, (places // WIDTH).clamp(max=k - 1)) * WIDTH + places % WIDTH  # [B, k]
    return values, columns.where(places < k * WIDTH, places - k * WIDTH + blocks * WIDTH)
