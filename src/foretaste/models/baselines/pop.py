"""POP: what most people took, to everyone. The floor that every model must beat.

Score: how often the item occurs in the training log. Items with the same count are ordered by their last training
occurrence, the later first, so no tie is left. Counts are whole numbers and the order inside a tie is a fraction below
1, both in float64, where they stay exact.

State: nothing but the user's number, which it does not use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from foretaste.config import Config as Settings
from foretaste.models.contract import Events, Query, SequenceModel, State

if TYPE_CHECKING:
    from foretaste.data.sequences import Sequences


class Pop(SequenceModel):
    """Popularity in the training log."""

    summary = "the most frequent items of the training log, the same for everyone"
    paper = "the first baseline of every paper"
    learns = "counts"
    masters = ("popularity",)
    beyond = "last_item"
    not_applicable: ClassVar = {"gradients": "it counts and has no parameters"}

    counts: Tensor

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        self.register_buffer("counts", torch.zeros(n_items, dtype=torch.float64))  # [I]

    def count(self, log: Sequences) -> None:
        """Occurrences of each item, and its rank by last occurrence as the fraction."""
        items = np.asarray(log.items)
        counts = np.bincount(items, minlength=self.n_items + 1)[1:]        # [I]
        last = np.full(self.n_items + 1, -1, dtype=np.int64)
        when = np.arange(len(items)) if log.times is None else np.asarray(log.times)
        np.maximum.at(last, items, when)
        order = np.argsort(np.argsort(last[1:], kind="stable"), kind="stable")  # [I] 0 is the longest ago
        self.counts = torch.from_numpy(counts + order / self.n_items)

    def initial_state(self, users: Tensor) -> State:
        """The user's number, which keeps the row's place."""
        return {"user": users}                                             # [B]

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """The query is always 1."""
        asked = events.items if at is None else events.items[at]           # [B, T] or [N]
        return self.counts.new_ones(*asked.shape, 1), state                # [B, T, 1] or [N, 1]

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The query is always 1."""
        return self.counts.new_ones(len(state["user"]), 1, 1)              # [B, 1, 1]

    def item_matrix(self) -> Tensor:
        """[I, 1]: the counts."""
        return self.counts[:, None]
