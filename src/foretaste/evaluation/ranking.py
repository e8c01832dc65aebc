"""Ranks by counting: the place of each target among all items, without sorting a single score.

    pessimistic rank = 1 + other candidates scored at least as high as the target
    optimistic rank  = 1 + other candidates scored higher

Two targets of one case that tie do not count against each other. They stand one after the other, as in any list that
could be shown; counted as one place, precision@1 could reach 2. An item scored -inf is no candidate: as a target it is
a miss.

What was chosen, and why:

- The target's own score is read from the matrix it is compared with. Computed apart it could differ by a rounding, and
  the target would tie with itself or not by chance.
- Fewer than 16 rows are filled up to 16. For a handful of rows some matrix libraries take other code at the edge of the
  matrix, and two items with equal vectors get unequal scores.
- Comparisons are written into a float buffer, then summed: with torch on a CPU about ten times faster than into a bool
  buffer. A strip of columns is read while it lies in the cache.
- For an inner product in float32 on a CPU, oneDNN's product is used where it is the faster one (products.py). It is
  plain float32 like the other, and up to twice as fast. Screening in bfloat16 would be faster still, and is not worth
  its bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.errors import TrainingError
from foretaste.models.contract import Query, SequenceModel, query_length, query_rows
from foretaste.models.products import Product, onednn_product

Ints = NDArray[np.int64]

MISS = np.iinfo(np.int64).max
"""The rank of a target that is no candidate: a cold item, a masked one, one scored -inf."""
BUDGET = 64 * 2**20
"""Bytes of scores held at once."""
LEAST_ROWS, MOST_ROWS = 16, 128
STRIP = 8192
"""Columns compared at once."""


class ScoreError(TrainingError):
    """Scores that cannot be ranked. `row` is the row of the block that is to blame, where there is one."""

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True)
class Places:
    """Ranks of some targets, one each: int64, `MISS` where the target is no candidate."""

    pessimistic: Ints
    optimistic: Ints
    tied: NDArray[np.bool_]
    """True where an item that is no target of the case has the same score."""


def rank(scores: Tensor, rows: Ints, items: Ints) -> Places:
    """Places of the targets `items` [R] in the rows `rows` [R] of `scores` [n, I]; column c belongs to item c + 1.

    The targets of one row are distinct items. A row may have several targets, or none. ScoreError on NaN and +infinity.
    """
    line = torch.from_numpy(rows).to(scores.device)  # [R]
    own = scores[line, torch.from_numpy(items - 1).to(scores.device)]  # [R]
    alone = len(np.unique(rows)) == len(rows)
    if alone and 2 * len(rows) > len(scores):  # count in place, rows without a target too
        bar = own.new_zeros(len(scores)).index_copy(0, line, own)  # [n]
        higher, least, broken = (part[rows] for part in _count(scores, bar))
    else:
        pieces = [slice(first, first + MOST_ROWS) for first in range(0, len(rows) or 1, MOST_ROWS)]
        parts = [_count(scores[line[piece]], own[piece]) for piece in pieces]
        higher, least, broken = (np.concatenate(part) for part in zip(*parts, strict=True))
    if broken.any():
        raise ScoreError("the scores hold NaN or infinity", int(rows[broken][0]))
    value = own.cpu().numpy()
    before, group = (np.int64(0), np.int64(1)) if alone else _among_targets(rows, value)
    others = least - higher - group  # [R] ties with items that are no targets
    candidate = value > -np.inf
    return Places(
        pessimistic=np.where(candidate, 1 + higher + others + before, MISS),
        optimistic=np.where(candidate, 1 + higher + before, MISS),
        tied=candidate & (others > 0),
    )


def _count(scores: Tensor, bar: Tensor) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """For each row [n] of `scores` [n, I]: columns above `bar` [n], columns at least as high, is any NaN or +inf."""
    n, n_items = scores.shape
    bar = bar[:, None]  # [n, 1]
    compared = scores.new_empty(n, min(STRIP, n_items))  # [n, strip]
    higher = torch.zeros(n, dtype=torch.int64, device=scores.device)  # [n]
    least = torch.zeros_like(higher)  # [n]
    total = scores.new_zeros(n)  # [n]
    for first in range(0, n_items, STRIP):
        strip = scores[:, first : first + STRIP]  # [n, strip]
        ones = compared[:, : strip.shape[1]]  # [n, strip]
        total += strip.sum(1)
        higher += torch.gt(strip, bar, out=ones).sum(1).long()
        least += torch.ge(strip, bar, out=ones).sum(1).long()
    broken = total.isnan() | total.isposinf()  # [n]
    if bool(broken.any()):  # many large scores may add up to infinity as well
        broken[broken.clone()] = (scores[broken].isnan() | scores[broken].isposinf()).any(1)
    return higher.cpu().numpy(), least.cpu().numpy(), broken.cpu().numpy()


def _among_targets(rows: Ints, own: NDArray[Any]) -> tuple[Ints, Ints]:
    """For each target: how many equal targets of its row come before it, and how many there are with itself."""
    order = np.lexsort((own, rows))  # stable: equal ones keep their order
    first = np.ones(len(rows), bool)
    first[1:] = (rows[order][1:] != rows[order][:-1]) | (own[order][1:] != own[order][:-1])
    starts = np.flatnonzero(first)
    sizes = np.diff(np.append(starts, len(rows)))
    before, group = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    before[order] = np.arange(len(rows)) - np.repeat(starts, sizes)
    group[order] = np.repeat(sizes, sizes)
    return before, group


class Scorer:
    """Scores of all items for one block of queries after the other, as a model gives them.

    `block` is the number of cases in a block: what `BUDGET` bytes hold, at least 16 and at most 128. The tensor that a
    call gives is valid until the next call, and may be written into.
    """

    def __init__(self, model: SequenceModel, block: int | None = None, *, by_matrix: bool = True) -> None:
        self.model = model
        self.name = type(model).__name__
        self.block = block or max(LEAST_ROWS, min(MOST_ROWS, BUDGET // (4 * max(1, model.n_items))))
        self.matrix: Tensor | None = None
        self.bias: Tensor | None = None
        self._held: Tensor | None = None
        self._onednn: Product | None = None
        kind = type(model)
        if by_matrix and kind.item_matrix is not SequenceModel.item_matrix and kind.score is SequenceModel.score:
            self.matrix, bias = model.item_matrix().detach().contiguous(), model.item_bias()  # [I, D], [I]
            self.bias = None if bias is None else bias.detach().to(self.matrix).contiguous()
            if self.matrix.dtype == torch.float32 and self.matrix.device.type == "cpu":
                self._onednn = onednn_product()

    def __call__(self, query: Query) -> Tensor:
        """[n, I] scores of a block of queries [n, ...], in float32 or float64."""
        n = query_length(query)
        if n < LEAST_ROWS:
            query = query_rows(query, torch.arange(LEAST_ROWS).clamp(max=n - 1))
        scores = self._by_matrix(query) if self.matrix is not None else self._by_score(query)
        return scores[:n]

    def _by_matrix(self, query: Query) -> Tensor:
        assert isinstance(query, Tensor)
        assert self.matrix is not None
        self._check(self.matrix)
        query = query.to(self.matrix.dtype).contiguous()  # [n, D]
        if self._onednn is not None:
            return self._onednn(query, self.matrix, self.bias)  # [n, I]
        scores = torch.mm(query, self.matrix.T, out=self._space(query, len(query), query.dtype))  # [n, I]
        return scores if self.bias is None else scores.add_(self.bias)

    def _by_score(self, query: Query) -> Tensor:
        n, n_items = query_length(query), self.model.n_items
        some = query if isinstance(query, Tensor) else next(iter(query.values()))
        for first in range(0, n_items, STRIP):
            items = torch.arange(first + 1, min(first + STRIP, n_items) + 1, device=some.device)  # [C]
            strip = self.model.score(query, None if len(items) == n_items else items)  # [n, C]
            self._check(strip)
            if strip.shape != (n, len(items)):
                raise ScoreError(
                    f"{self.name}.score gave the shape {tuple(strip.shape)}, expected one score for each of "
                    f"{n} queries and {len(items)} items: ({n}, {len(items)})"
                )
            if first == 0:
                scores = self._space(some, n, strip.dtype if strip.is_floating_point() else torch.float64)  # [n, I]
            scores[:, first : first + STRIP] = strip
        return scores

    def _space(self, like: Tensor, n: int, dtype: torch.dtype) -> Tensor:
        """[n, I] of memory that is used again and again: fresh pages cost more than the product."""
        if self._held is None or len(self._held) < n or self._held.dtype != dtype:
            self._held = like.new_empty(max(n, self.block), self.model.n_items, dtype=dtype)  # [block, I]
        return self._held[:n]

    def _check(self, scores: Tensor) -> None:
        if scores.dtype in (torch.float16, torch.bfloat16):
            raise ScoreError(
                f"{self.name} scores in {str(scores.dtype).removeprefix('torch.')}, where too many scores are equal to "
                "rank by; call model.float() before evaluating it"
            )
