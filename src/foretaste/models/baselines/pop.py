"""POP: what most people took, to everyone. The floor that every model must beat.

Score: how often the item occurs in the training log; where only some events are ever asked for (purchases, say), how
often among those. Items with the same count are ordered by their last training occurrence, the later first; what was
last seen at the same moment, or never, still ties. Counts are whole numbers and the order inside a tie is a fraction
below 1, both in float64, where they stay exact.

`days` counts the last N days of training alone: what is popular now. A moving shop changes fast, and then this beats
many a model (a published comparison on beer reviews has seven days above most transformers). Items that tie, those not
seen in that time among them, go by their count in the whole log, then by their last occurrence. The days end with the
newest training event, to the second; the log needs a clock.

State: nothing but the user's number, which it does not use.

Checked against: DIGINETICA, 60,858 prefixes: R@20 / MRR@20 0.93 / 0.21 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foretaste.config import Config as Settings
from foretaste.errors import NeedsError
from foretaste.models.baselines.counting import standing
from foretaste.models.contract import Events, Query, SequenceModel, State

if TYPE_CHECKING:
    from foretaste.data.sequences import Sequences

DAY = 86_400
"""Seconds."""


class Pop(SequenceModel):
    """Popularity in the training log."""

    class Config(Settings):
        """Since when."""

        days: float = Field(0, ge=0, allow_inf_nan=False)
        """Only the last so many days of training count; 0 for all of it."""

    summary = "the most frequent items of the training log, or of its last days, the same for everyone"
    paper = "the first baseline of every paper"
    learns = "counts"
    masters = ("popularity",)
    short_of: ClassVar = {"last_item, order, set, user_taste": "it counts items, whatever came before"}
    beyond = "last_item"
    not_applicable: ClassVar = {"gradients": "it counts and has no parameters"}

    config: Pop.Config
    counts: Tensor

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        self.needs = frozenset()  # the days were counted in training; whoever asks needs no clock
        self.register_buffer("counts", torch.zeros(n_items, dtype=torch.float64))  # [I]

    @classmethod
    def needs_of(cls, config: Settings) -> frozenset[str]:
        """Times, where days are counted."""
        assert isinstance(config, cls.Config)
        return frozenset(["times"] * (config.days > 0))

    def count(self, log: Sequences) -> None:
        """Occurrences of each item, and its place among those that tie as the fraction."""
        items, counted = np.asarray(log.items), log.may_be_target()
        place = standing(log, self.n_items)                                # [I]
        if self.config.days and len(items):
            if log.times is None:
                raise NeedsError("popularity of the last days needs times, which this log does not have; set days = 0")
            times = np.asarray(log.times)
            counted = counted & (times > times.max() - self.config.days * DAY)
        counts = np.bincount(items[counted], minlength=self.n_items + 1)[1:]        # [I]
        self.counts = torch.from_numpy(counts + place / self.n_items).to(self.counts.device)

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
