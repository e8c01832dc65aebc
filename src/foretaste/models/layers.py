"""Small parts that several models share. Each works on right-padded rows and says its shapes."""

from __future__ import annotations

import torch
from torch import Tensor


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
