"""YouTube DNN: the mean of what was watched, through a tower of dense layers, against every item.

Covington, Adams, Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016, section 3: candidate
generation as one softmax over all videos, whose denominator is estimated from sampled ones and corrected for how they
were sampled.

    u = tower([mean of E over the events so far; what is known of the user]),   score(i) = v_i . u + b_i

`variant="pool"` is what the library Spotlight calls `PoolNet` and cites the same paper for; very likely it is the row
"YouTube DNN" of ASARS' tables. It has no tower and no user, scores items by the vectors with which they are read, and
divides by one event too many:

    u = sum of E over the n events so far / (n + 1),   score(i) = E_i . u + b_i

Left out: searches, age, sex, country and device, which logs of events do not hold; the age of the training example,
which is a clock's and is set to zero when it serves; the second network, which ranks a few hundred candidates.

Left open, and what was chosen:
- The user. The paper has features of the user and no vector for each; `users=True` adds one, and a user who is not in
  training then has the mean of all.
- How much is averaged: in the paper the last 50 videos. Here all events of the row (`window=0`), for which a sum and a
  count are kept; with `window=50` the ids of the last 50.
- Sizes: D 64, and a tower of 256, 128, 64 ReLUs for the paper's 256 and 1024, 512, 256, meant for a million videos.
- The bias of an item; the paper prints none. A dropout on the mean, off by default.
- The recipe draws 1,024 items a step by their popularity for all targets of the step ("several thousand" there). Its
  rate and batch are choices. The paper trains on a fixed number of examples a user, so that no user outweighs others;
  here each event is one (`latest` bounds them).
- A target is asked of the events before it, never of those after it: the paper's own finding (its Figure 5b).
- Before any event the mean is zero.

The order of events says nothing to this model, and all count alike: its explanation is 1 / n for each, the newest 64.

State: a sum and a count, 264 bytes (and the user's number); with `window=50` 400 bytes. One event: O(D + the tower's
57,000 products). With gradients through pieces of a long row, the sum of earlier pieces is a constant.

Reference figures: ASARS' Table 2, MRR@20 / recall@20: MovieLens .0145 / .0853, Recsys15 .1941 / .4991, Tianchi .0561 /
.1393. Ours on YOOCHOOSE 1/64, the protocol of NARM: .2542 / .6157.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.config import Only
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import Users, at_length, slide
from foretaste.models.triangle import newest
from foretaste.spaces import RATE, SIZE, THIRD, OneOf, Space

SHOWN = 64
"""Newest events that an explanation shows at most."""


Size = Annotated[int, Field(ge=1)]


class YoutubeDNN(SequenceModel):
    """A tower over a mean. Score: one inner product and a bias; indexable."""

    class Config(Settings):
        """Sizes and variants."""

        variant: Literal["tower", "pool"] = "tower"
        """The paper's network, or Spotlight's PoolNet."""
        embedding_size: int = Field(64, ge=1)
        """D, size of the vector with which an item is read, and of a user's."""
        tower: Annotated[tuple[Size, ...], Field(min_length=1), Only(variant="tower")] = (256, 128, 64)
        """Sizes of the dense layers of variant = "tower"; the last is the size of v."""
        window: int = Field(0, ge=0)
        """Newest events that are averaged; 0 for all."""
        users: bool = False
        """A vector a user beside the mean."""
        bias: bool = True
        """A number an item beside its vector: how popular it is, whoever asks."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Share of the mean's entries dropped in training."""
        scope: Literal["session", "user"] = "user"
        """What one row is: all of a user's events, or a session."""

        @model_validator(mode="after")
        def _agrees(self) -> Self:
            if self.users and self.variant == "pool":
                raise ValueError("variant = 'pool' has no place for a user's vector: take variant = 'tower'")
            return self

    summary = "the mean of what was seen, through a tower of dense layers (or without: PoolNet)"
    paper = "Covington et al., Deep Neural Networks for YouTube Recommendations, RecSys 2016"
    scope: Literal["session", "user"] = "user"
    recipe: ClassVar = {
        "loss": "sampled_softmax", "negatives": 1024, "sampler": "popularity", "sampler_power": 1.0,
        "shared_negatives": True, "exclude_touched": False, "learning_rate": 1e-3, "batch": 512, "epochs": 30,
    }  # fmt: skip
    space: ClassVar[Space] = {
        "learning_rate": RATE, "embedding_size": SIZE, "window": OneOf(0, 20, 50), "dropout": THIRD,
    }  # fmt: skip
    masters = ("popularity", "set", "user_taste")
    short_of: ClassVar = {"last_item, order": "the mean of the last items has no order"}
    beyond = "order"

    config: YoutubeDNN.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c, D = self.config, self.config.embedding_size
        self.scope = c.scope
        self.item = nn.Embedding(n_items + 1, D, padding_idx=0)            # E [1 + I, D]
        if c.users:
            self.user = Users(n_users, D)                                  # [1 + U, D]
        if c.variant == "tower":
            sizes = (2 * D if c.users else D, *c.tower)
            self.tower = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
            self.out = nn.Parameter(torch.empty(n_items, sizes[-1]))       # v [I, H]
        self.bias = nn.Parameter(torch.empty(n_items)) if c.bias else None  # b [I]
        self.reset_parameters()

    @classmethod
    def needs_of(cls, config: Settings) -> frozenset[str]:
        """Users, where they have vectors."""
        assert isinstance(config, cls.Config)
        return frozenset(["users"] * config.users)

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator: the tower's N(0, 2 / inputs), a table's N(0, 1 / width)."""
        for name, weight in self.named_parameters():
            if weight.dim() == 1:
                nn.init.zeros_(weight)
            else:
                inside = name.startswith("tower")
                nn.init.normal_(weight, std=math.sqrt((2 if inside else 1) / weight.shape[1]))
        with torch.no_grad():
            self.item.weight[0] = 0
            if self.config.users:
                self.user.weight[0] = 0

    def initial_state(self, users: Tensor) -> State:
        """Nothing seen."""
        c = self.config
        state: State = {"user": users} if c.users else {}
        if c.window:
            return {**state, "ids": users.new_zeros(len(users), c.window)}  # [B, W] newest last, 0 for none
        zeros = self.item.weight.new_zeros(len(users), c.embedding_size)   # [B, D]
        return {**state, "sum": zeros, "count": torch.zeros_like(users)}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """The mean after each event (see `SequenceModel.forward`)."""
        B, T = events.shape
        lengths = events.lengths()
        asked = torch.ones_like(events.mask) if at is None else at         # [B, T]
        if self.config.window:
            ids = newest(state["ids"], events.items)[asked]                # [N, W]
            mean = self._mean_of(ids)                                      # [N, D]
            after = {**state, "ids": slide(state["ids"], events.items, lengths)}
        else:
            sums = state["sum"][:, None] + self.item(events.items).cumsum(1)  # [B, T, D]
            counts = state["count"][:, None] + events.mask.cumsum(1)       # [B, T]
            mean = self._mean(sums[asked], counts[asked])                  # [N, D]
            last = at_length(sums, state["sum"], lengths)                  # [B, D]
            after = {**state, "sum": last, "count": state["count"] + lengths}
        answer = self._answer(mean, state, asked.nonzero(as_tuple=True)[0])  # [N, D or H]
        return (answer if at is not None else answer.view(B, T, answer.shape[-1])), after

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone."""
        mean = self._mean_of(state["ids"]) if self.config.window else self._mean(state["sum"], state["count"])
        return self._answer(mean, state, torch.arange(len(mean), device=mean.device))[:, None]  # [B, 1, D or H]

    def _mean(self, total: Tensor, count: Tensor) -> Tensor:
        """total [N, D], count [N] -> [N, D]; PoolNet divides by one more."""
        below = count + 1 if self.config.variant == "pool" else count.clamp(min=1)  # [N]
        return total / below[:, None]

    def _mean_of(self, ids: Tensor) -> Tensor:
        """The same of listed events: ids [N, W], 0 for none -> [N, D]"""
        total = nn.functional.embedding_bag(ids, self.item.weight, mode="sum", padding_idx=0)  # [N, D]
        return self._mean(total, (ids > 0).sum(1))

    def _answer(self, mean: Tensor, state: State, row: Tensor) -> Tensor:
        """u of each asked mean [N, D], whose user is that of `row` [N]: [N, D or H]"""
        u = nn.functional.dropout(mean, self.config.dropout, self.training)  # [N, D]
        if self.config.variant == "pool":
            return u
        if self.config.users:
            u = torch.cat([u, self.user(state["user"])[row]], -1)          # [N, 2D]
        for layer in self.tower:
            u = torch.relu(layer(u))                                       # [N, .]
        return u

    def item_matrix(self) -> Tensor:
        """v, or E without a tower."""
        return self.item.weight[1:] if self.config.variant == "pool" else self.out  # [I, D or H]

    def item_bias(self) -> Tensor | None:
        """b, where there is one."""
        return self.bias                                                   # [I]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T, V]: 1 / n for each of the n events that are averaged, the newest last.

        V is the window, but no more than 64: what is lacking to 1 belongs to events that lie further back (and, without
        a tower, to the one too many).
        """
        W, pool = self.config.window, self.config.variant == "pool"
        V = min(W or SHOWN, SHOWN)
        before = (state["ids"] > 0).sum(1) if W else state["count"]        # [B]
        seen = before[:, None] + events.mask.cumsum(1)                     # [B, T]
        seen = seen.clamp(max=W) if W else seen                            # [B, T] n
        age = torch.arange(V - 1, -1, -1, device=seen.device)              # [V]
        share = 1 / (seen + pool).to(self.item.weight.dtype).clamp(min=1)  # [B, T]
        return {"attention": share[..., None] * (age < seen[..., None])}
