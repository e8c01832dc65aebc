"""Exact scores of the whole catalogue, for a model whose weights are fixed and that answers many times."""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.models.contract import Query, SequenceModel


class Exact:
    """A model's scores. Where they are an inner product, the item matrix is kept once more, items along its rows.

    Few queries at a time are scored in the time that the matrix takes to be read, and in this order it is read in one
    sweep. It costs 4 I D bytes more.
    """

    def __init__(self, model: SequenceModel) -> None:
        self.model = model
        self._columns: Tensor | None = None
        self._bias: Tensor | None = None
        if type(model).score is SequenceModel.score:
            with torch.inference_mode():
                self._columns = model.item_matrix().detach().T.contiguous()  # [D, I]
                self._bias = model.item_bias()  # [I]

    def score(self, query: Query, pool: Tensor | None = None) -> Tensor:
        """Scores [B, C] of the items `pool` [C], or [B, I] of all, for a query [B, 1, ...]."""
        if self._columns is None or pool is not None:
            return self.model.score(query, pool)[:, 0]  # [B, C]
        assert isinstance(query, Tensor)
        scores = query[:, 0] @ self._columns  # [B, I]
        return scores if self._bias is None else scores.add_(self._bias)
