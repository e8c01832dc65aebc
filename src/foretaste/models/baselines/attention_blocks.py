"""The layers of SASRec and eSASRec: causal self-attention, and what stands around it.

Every sublayer F reads LN(x). What it finds is added to LN(x) in SASRec, to x in LiGR; with residual dropout on F:

    SASRec   LN x + F(LN x)            F: attention; then W2 relu(W1 x + b1) + b2, D -> D -> D   (its eq. 2-5)
    LiGR     x + sigma(G x) * F(LN x)  F: attention and a D x D map; then W3 (silu(W1 x) * W2 x), D -> m D -> D

A layer answers at every position, or at one position of each row, which costs the keys and values of all and the rest
of one. Rows are padded on the right, so under causal attention nobody sees a padded place and no key needs a mask.

Letters as in contract.py, and: h heads, d = D / h.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, scaled_dot_product_attention, silu

from foretaste.models.layers import masked_softmax


class Attention(nn.Module):
    """softmax(q k / sqrt(d)) v for each head, side by side; q, k, v from one product."""

    def __init__(self, size: int, heads: int, mixed: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(size, 3 * size, bias=False)
        self.out = nn.Linear(size, size, bias=False) if mixed else nn.Identity()

    def forward(self, rows: Tensor) -> Tensor:
        """Every position over those up to itself: [B, T, D] -> [B, T, D]"""
        B, T, D = rows.shape
        split = self.qkv(rows).view(B, T, 3, self.heads, D // self.heads)  # [B, T, 3, h, d]
        q, k, v = split.permute(2, 0, 3, 1, 4)                             # [B, h, T, d] each
        pooled = scaled_dot_product_attention(q, k, v, is_causal=True)     # [B, h, T, d]  eq. 2, 3
        mixed: Tensor = self.out(pooled.transpose(1, 2).reshape(B, T, D))  # [B, T, D]
        return mixed

    def last(self, rows: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """The same at position `place` [B] of each row alone: [B, D], and the weights [B, h, T]."""
        B, T, D = rows.shape
        matrix, split = self.qkv.weight, (self.heads, D // self.heads)
        q = linear(rows[torch.arange(B, device=place.device), place], matrix[:D]).view(B, *split)  # [B, h, d]
        k, v = linear(rows, matrix[D:]).view(B, T, 2, *split).unbind(2)    # [B, T, h, d] each
        match = torch.einsum("bhd,bthd->bht", q, k) * split[1] ** -0.5     # [B, h, T]
        visible = torch.arange(T, device=place.device) <= place[:, None]   # [B, T]
        weight = masked_softmax(match, visible[:, None])                   # [B, h, T]
        pooled = torch.einsum("bht,bthd->bhd", weight, v)                  # [B, h, d]
        return self.out(pooled.reshape(B, D)), weight


class Block(nn.Module):
    """One layer: attention, then a feed-forward net at each position."""

    def __init__(self, size: int, heads: int, share: float, mixed: bool) -> None:
        super().__init__()
        self.share = share
        self.attention = Attention(size, heads, mixed)
        self.norm, self.feed_norm = nn.LayerNorm(size), nn.LayerNorm(size)

    def feed(self, rows: Tensor) -> Tensor:
        """The feed-forward net: [..., D] -> [..., D]"""
        raise NotImplementedError

    def added(self, rows: Tensor, normed: Tensor, found: Tensor, sublayer: int) -> Tensor:
        """x, LN(x), and what sublayer 0 (attention) or 1 (feed-forward) found: [..., D]"""
        raise NotImplementedError

    def forward(self, rows: Tensor) -> Tensor:
        """Every position: [B, T, D] -> [B, T, D]"""
        normed = self.norm(rows)                                           # [B, T, D]
        return self._fed(self.added(rows, normed, self._dropped(self.attention(normed)), 0))

    def last(self, rows: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Position `place` [B] of each row alone: [B, D], and the weights [B, h, T]."""
        normed, row = self.norm(rows), torch.arange(len(place), device=place.device)  # [B, T, D], [B]
        found, weight = self.attention.last(normed, place)                 # [B, D], [B, h, T]
        return self._fed(self.added(rows[row, place], normed[row, place], self._dropped(found), 0)), weight

    def _fed(self, rows: Tensor) -> Tensor:
        normed = self.feed_norm(rows)                                      # [..., D]
        return self.added(rows, normed, self._dropped(self.feed(normed)), 1)

    def _dropped(self, found: Tensor) -> Tensor:
        return dropout(found, self.share, self.training)


class SASRecBlock(Block):
    """Kang & McAuley's: no map after the heads, one hidden layer of D; what is carried on is LN(x)."""

    def __init__(self, size: int, heads: int, share: float, expansion: int) -> None:
        super().__init__(size, heads, share, mixed=False)
        self.W1, self.W2 = nn.Linear(size, expansion * size), nn.Linear(expansion * size, size)

    def feed(self, rows: Tensor) -> Tensor:
        """Equation 4."""
        found: Tensor = self.W2(self.W1(rows).relu())                      # [..., D]
        return found

    def added(self, rows: Tensor, normed: Tensor, found: Tensor, sublayer: int) -> Tensor:
        """LN(x) + F"""
        return normed + found


class LiGRBlock(Block):
    """Borisyuk et al.'s: a gate on each sublayer, SwiGLU between the two maps."""

    def __init__(self, size: int, heads: int, share: float, expansion: int) -> None:
        super().__init__(size, heads, share, mixed=True)
        self.W12 = nn.Linear(size, 2 * expansion * size, bias=False)
        self.W3 = nn.Linear(expansion * size, size, bias=False)
        self.gates = nn.ModuleList(nn.Linear(size, size) for _ in range(2))

    def feed(self, rows: Tensor) -> Tensor:
        """W3 (silu(W1 x) * W2 x)"""
        gate, value = self.W12(rows).chunk(2, -1)                          # [..., m D] each
        found: Tensor = self.W3(silu(gate) * value)                        # [..., D]
        return found

    def added(self, rows: Tensor, normed: Tensor, found: Tensor, sublayer: int) -> Tensor:
        """x + sigma(G x) * F"""
        return rows + torch.sigmoid(self.gates[sublayer](rows)) * found
