"""Sessions as sets: which events are new to their session, and the running softmax over those that are.

A softmax over a set that grows is kept as the log of its sum ("level") and its weighted mean b; two parts of a set,
each so kept, are joined in one step.

Letters: B rows, T events, R items listed before them, K length of a list, d size of a vector.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from foretaste.models.contract import Events


class Sets(NamedTuple):
    """The sessions of a call as sets. R items that the state lists come first, then the T events."""

    session: Tensor
    """[B, T]: which session each event is of; 0 is the one that the state holds open."""
    owner: Tensor
    """[B, R + T]: the same with the listed items before them."""
    items: Tensor
    """[B, R + T]: item numbers, 0 where padded."""
    slot: Tensor
    """[B, R + T]: the place of a new item in its session's list; K, the length of a list, for all others."""
    counts: Tensor
    """[B, T]: False for padding, and for an item that its session already lists."""


def sets_of(events: Events, ids: Tensor) -> Sets:
    """Which events are new to their session; the open one lists `ids` [B, K], 0 for none.

    Equal items of one session stand together after a stable sort.
    """
    K, R = ids.shape[1], int((ids > 0).sum(1).max())
    session = (events.starts & events.mask).cumsum(1)                  # [B, T]
    owner = nn.functional.pad(session, (R, 0))                         # [B, R + T]
    items = torch.cat([ids[:, :R], events.items * events.mask], 1)     # [B, R + T]
    place = torch.arange(items.shape[1], device=items.device)          # [R + T]
    key, order = (owner * (int(items.max()) + 1) + items).sort(dim=1, stable=True)  # [B, R + T] twice
    lead = nn.functional.pad(key[:, 1:] != key[:, :-1], (1, 0), value=True)  # [B, R + T]
    leader = order.gather(1, torch.where(lead, place, 0).cummax(1).values)  # [B, R + T]
    first = torch.empty_like(order).scatter(1, order, leader)          # [B, R + T] where its item came first
    new = (first == place) & (items > 0)                               # [B, R + T]
    begins = nn.functional.pad(owner[:, 1:] != owner[:, :-1], (1, 0), value=True)  # [B, R + T]
    count = new.cumsum(1)                                              # [B, R + T]
    rank = count - torch.where(begins, count - new.long(), 0).cummax(1).values - 1  # [B, R + T] in the session
    slot = torch.where(new, rank, K).clamp(max=K)                      # [B, R + T]
    counts = (items > 0) & (new | (rank.gather(1, first) >= K))        # [B, R + T] the unlisted count each time
    return Sets(session, owner, items, slot, counts[:, R:])


def ends_of(sets: Sets, mask: Tensor) -> Tensor:
    """[B, T]: the last real event of each session of this call."""
    goes_on = (sets.session[:, 1:] == sets.session[:, :-1]) & mask[:, 1:]  # [B, T - 1]
    return mask & ~nn.functional.pad(goes_on, (0, 1))                  # [B, T]


def nothing(like: Tensor) -> float:
    """The log of an empty sum, as a number that can be stored and compared."""
    return torch.finfo(like.dtype).min


def join(level: Tensor, b: Tensor, more: Tensor, b_more: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Two parts of a session as one, where `same`; elsewhere the second alone. Levels [B, t], means [B, t, d]."""
    share = torch.sigmoid(more - level).masked_fill(~same, 1)[..., None]   # [B, t, 1] of the second part
    return torch.where(same, torch.logaddexp(level, more), more), torch.lerp(b.expand_as(b_more), b_more, share)
