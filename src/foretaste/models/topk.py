"""The best k of a row of scores, in an order that never depends on chance."""

from __future__ import annotations

import torch
from torch import Tensor


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns of the k highest scores of each row; equal scores stand in the order of their columns.

    scores [B, C] -> values [B, k], columns [B, k]. Columns follow popularity, so what ties goes to the more popular.
    """
    k = min(k, scores.shape[-1])
    more, places = scores.topk(min(k + 1, scores.shape[-1]))               # [B, k + 1]
    values, columns = more[:, :k], places[:, :k]                           # [B, k]
    if k:
        crowded = more[:, k:].eq(values[:, -1:]).any(-1)                   # [B] a tie across the end of the list
        for row in crowded.nonzero().flatten().tolist():
            columns[row] = _first_of_the_best(scores[row], values[row, -1], k)
        values = scores.gather(-1, columns)
        by_column = columns.argsort(dim=-1)
        by_value = values.gather(-1, by_column).argsort(dim=-1, descending=True, stable=True)
        order = by_column.gather(-1, by_value)
        values, columns = values.gather(-1, order), columns.gather(-1, order)
    return values, columns


def _first_of_the_best(scores: Tensor, least: Tensor, k: int) -> Tensor:
    """[k]: the columns of scores [C] above `least`, the k-th highest, then the first that equal it; nothing is sorted.

    What is not a number counts as above, as `topk` has it.
    """
    above = (~(scores <= least)).nonzero().flatten()                       # [< k]
    equal = (scores == least).nonzero().flatten()                          # [> k - those above]
    return torch.cat([above, equal[: k - len(above)]])
