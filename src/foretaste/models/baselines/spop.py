"""S-POP: what this session holds most often, then what most people took.

The second baseline of every session paper (Hidasi et al., ICLR 2016; NARM's "S-POP"): people come back to what they
have just looked at.

    score(i) = how often i stands among the last W events of the session

Items of the session come first, all others after them by popularity; so it is the common rule for ties (counting.py)
that makes the rest of the list. With `scope` = "user" it is the user's own favourites, the plain baseline of personal
popularity.

Left open, and what was chosen: how much of a session counts. What is kept of a user has to end somewhere: W = 64
events. Few sessions are longer.

State: the last W ids, 8 bytes each. One event: O(W); one list: O(I + W).

Checked against: DIGINETICA, 60,858 prefixes, ties by popularity: R@20 / MRR@20 21.08-21.09 / 13.65-13.72 %.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from foretaste.models.baselines.counting import Votes


class SPop(Votes):
    """The items of the session by their count in it."""

    class Config(Votes.Config):
        """How far back it looks."""

        window: int = Field(64, ge=1)
        """W, so many last events are counted."""

    summary = "the most frequent items of the session, then those of the training log (S-POP)"
    paper = "the second baseline of session papers, after Hidasi et al., ICLR 2016"
    masters = ("popularity", "user_taste")
    short_of: ClassVar = {"last_item, order, set": "it counts what was there before"}
    beyond = "last_item"

    config: SPop.Config

    @property
    def width(self) -> int:
        """W."""
        return self.config.window

    def cast(self, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One vote an event, for its own item."""
        row, place = (last > 0).nonzero(as_tuple=True)                     # [V], [V]
        return row, last[row, place], torch.ones_like(row, dtype=self.order.dtype)
