"""Small parts that several models share. Each works on right-padded rows and says its shapes."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CACHED = 2**17
"""Numbers of a block that is worked through while it lies in the cache."""


class Users(nn.Embedding):
    """Own vectors of users, by their numbers: [...] -> [..., D]. Who was never seen, 0, has the mean of all.

    No gradient flows through the mean. Outside training it is taken once, so that a stranger costs no more than anybody
    else, and anew where weights were loaded or changed.
    """

    mean: Tensor

    def __init__(self, n_users: int, size: int) -> None:
        super().__init__(1 + n_users, size, padding_idx=0)                 # [1 + U, D], row 0 is padding
        self.register_buffer("mean", torch.zeros(size), persistent=False)  # [D]
        self._taken: tuple[int, int] | None = None

    def forward(self, users: Tensor) -> Tensor:
        """The vectors."""
        vectors = super().forward(users)                                   # [..., D]
        unknown = (users == 0)[..., None]                                  # [..., 1]
        return torch.where(unknown, self._stranger(), vectors) if unknown.any() else vectors

    def train(self, mode: bool = True) -> Self:
        """As ever."""
        self._taken = None
        return super().train(mode)

    def _stranger(self) -> Tensor:
        """The mean [D]."""
        keeps = not (self.training or self.weight.is_inference())
        now = (self.weight._version, self.weight.data_ptr()) if keeps else None
        if now is None or now != self._taken:
            mean = self.weight[1:].detach().sum(0) / max(self.num_embeddings - 1, 1)  # [D]
            if now is None:
                return mean
            self.mean.copy_(mean)
            self._taken = now
        return self.mean


def rows_of(table: Tensor, index: Tensor) -> Tensor:
    """table[index], table [R, ...], index [...]: the faster way on a CPU, most of all its gradient, to the same bits.

    The gradient of `index_select` adds up one row after the other there; on a GPU in any order, so it is not used.
    """
    if table.device.type != "cpu":
        return table[index]                                                # [..., ...]
    return table.index_select(0, index.reshape(-1)).view((*index.shape, *table.shape[1:]))  # [..., ...]


def at_length(outputs: Tensor, before: Tensor, lengths: Tensor) -> Tensor:
    """The output of each row's last real position, or `before` in a row that has none.

    outputs [B, T, H], before [B, H], lengths [B] -> [B, H]
    """
    every = torch.cat([before[:, None], outputs], dim=1)                   # [B, 1 + T, H]
    return every[torch.arange(len(lengths), device=lengths.device), lengths]  # [B, H]


def slide(ring: Tensor, new: Tensor, lengths: Tensor) -> Tensor:
    """The last W entries of each row after its real `new` ones were appended; the newest stands last.

    ring [B, W, ...], new [B, T, ...], lengths [B] -> [B, W, ...]
    """
    rows, width = ring.shape[:2]
    both = torch.cat([ring, new], dim=1)                                   # [B, W + T, ...]
    kept = lengths[:, None] + torch.arange(width, device=ring.device)      # [B, W]
    return both[torch.arange(rows, device=ring.device)[:, None], kept]     # [B, W, ...]


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis among the True places; a row without any is all zeros, never NaN."""
    hidden = scores.masked_fill(~mask, float("-inf"))                      # [..., V]
    top = hidden.amax(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)  # [..., 1]
    weights = (hidden - top).exp()                                         # [..., V]
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)


def additive_scores(queries: Tensor, keys: Tensor, flat: Tensor, v: Tensor) -> Tensor:
    """v . sigma(q_n + k_j) for each query n and each of its keys j = flat[n, :]; no [N, V, H] is ever held.

    queries [N, H], keys [M, H], flat [N, V] places in `keys`, v [H] -> [N, V]
    """
    if not torch.is_grad_enabled():
        return _additive(queries, keys, flat, v)                           # [N, V]
    scores: Tensor = _AdditiveScores.apply(queries, keys, flat, v)         # type: ignore[no-untyped-call]
    return scores


def weighted_rows(weights: Tensor, rows: Tensor, flat: Tensor) -> Tensor:
    """sum_j weights[n, j] rows[flat[n, j]], without copying the rows: weights, flat [N, V], rows [M, H] -> [N, H]"""
    return torch.nn.functional.embedding_bag(flat, rows, per_sample_weights=weights, mode="sum")


class _AdditiveScores(torch.autograd.Function):
    """Some rows at a time, forward and backward; the sigmoid is computed again rather than kept."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, flat: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(queries, keys, flat, v)
        return _additive(queries, keys, flat, v)                           # [N, V]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_scores: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, flat, v = ctx.saved_tensors
        by_queries, by_keys, by_v = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(v)
        for rows in _blocks(flat, len(v)):
            hidden = _hidden(queries[rows], keys, flat[rows])              # [r, V, H]
            by_score = by_scores[rows]                                     # [r, V]
            by_v += by_score.reshape(-1) @ hidden.view(-1, len(v))
            slope = torch.addcmul(hidden, hidden, hidden, value=-1).mul_(by_score[..., None])  # [r, V, H] / v
            by_queries[rows] = slope.sum(1)
            by_keys.index_add_(0, flat[rows].reshape(-1), slope.view(-1, len(v)))
        return by_queries.mul_(v), by_keys.mul_(v), None, by_v


def _additive(queries: Tensor, keys: Tensor, flat: Tensor, v: Tensor) -> Tensor:
    """The scores [N, V], some rows at a time."""
    blocks = _blocks(flat, len(v))
    if len(blocks) == 1:
        return _hidden(queries, keys, flat) @ v                            # [N, V]
    scores = queries.new_empty(flat.shape)                                 # [N, V]
    for rows in blocks:
        scores[rows] = _hidden(queries[rows], keys, flat[rows]) @ v
    return scores


def _blocks(flat: Tensor, size: int) -> list[slice]:
    """Slices of the rows [N, V] so that a block of [r, V, size] stays in the cache; more on a GPU."""
    budget = CACHED if flat.device.type == "cpu" else 400 * CACHED
    step = max(1, budget // max(flat.shape[1] * size, 1))
    return [slice(first, first + step) for first in range(0, len(flat), step)]


def _hidden(queries: Tensor, keys: Tensor, flat: Tensor) -> Tensor:
    """sigma(q_n + k_j): [r, V, H]"""
    picked = keys.index_select(0, flat.reshape(-1)).view(*flat.shape, -1)  # [r, V, H]
    return picked.add_(queries[:, None]).sigmoid_()
