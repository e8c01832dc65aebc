"""HRM: the last basket and the user, put together by averages or by maxima.

Wang, Guo, Lan, Xu, Wan, Cheng, "Learning Hierarchical Representation Model for Next Basket Recommendation", SIGIR 2015.
Two layers: the items of the last basket B become one vector, and that and the user's become the query:

    t = f1({ v_l : l in B })        h = f2({ u, t })        score(i) = <v_i, h>            f1, f2: average or maximum

The maximum is taken number by number, so it is the one place where user and basket do more than add up. `inner` is f1,
`outer` is f2.

Left open by the paper, or read in two ways, and what was chosen:
- One table of items: what is in the basket and what is scored have the same vectors, as the paper has it.
- What a basket is, and that it is a set of at most 64 items: as in fpmc.py, whose baskets these are. The state keeps
  their ids, not their running sum and maximum: so a gradient reaches every v_l and nothing drifts.
- What is not there does not count: an average is over the items of the basket alone, a maximum sees no zeros of
  padding, and before any event h = u. Without users (`users=False`) h = t. A user never seen gets the mean of all.
- Dropout is on the inputs of the second layer, u and t.
- The loss: one target against M = 25 drawn items, -log sigma(s+) - sum_j log sigma(-s_j), the paper's negative
  sampling. It draws by the unigram law; then what is learned is how much more often than usual an item follows (as in
  word2vec), and popularity falls out of the ranking. Where that hurts, set sampler = "uniform".
- The optimiser: Adam. The penalty (`l2`) is the paper's, on the vectors of the users and items that a step scores.

State: the user's number and the basket's ids: 16 bytes with "event", 520 with "session". One event: O(|B| D).

Checked against its definition alone: the papers at hand print HRM only on logs that are not at hand.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.config import Only
from foretaste.models.baselines.bpr_mf import SPREAD
from foretaste.models.baselines.fpmc import BASKET, Baskets
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import Users
from foretaste.spaces import L2, RATE, SIZE, THIRD, Space

Aggregate = Literal["max", "avg"]


class HRM(SequenceModel):
    """Hierarchical representation model. One inner product with the items' own vectors; indexable."""

    class Config(Settings):
        """Sizes and variants."""

        embedding_size: int = Field(64, ge=1)
        """D, size of a user's and an item's vector."""
        inner: Annotated[Aggregate, Only(basket="session")] = "max"
        """f1, how the items of a basket become one vector."""
        outer: Annotated[Aggregate, Only(users=True)] = "max"
        """f2, how the user and the basket become the query."""
        basket: Literal["event", "session"] = "event"
        """The last event, or all distinct items of the last session as far as it has come."""
        users: bool = True
        """False: the basket alone, for logs without users."""
        dropout: float = Field(0.2, ge=0, lt=1)
        """Share of the numbers of u and t that are dropped in training."""

    summary = "the user and the last basket, aggregated by maximum or average in two layers"
    paper = "Wang et al., Learning Hierarchical Representation Model for Next Basket Recommendation, SIGIR 2015"
    scope = "user"
    needs = frozenset({"users"})
    recipe: ClassVar = {
        "loss": "bce", "negatives": 25, "sampler": "popularity", "sampler_power": 1.0, "exclude_touched": False,
        "learning_rate": 5e-3, "l2": 1e-4, "batch": 512, "epochs": 60,
    }  # fmt: skip
    space: ClassVar[Space] = {"learning_rate": RATE, "embedding_size": SIZE, "l2": L2, "dropout": THIRD}
    masters = ("popularity", "user_taste")
    short_of: ClassVar = {"last_item, order, set": "its vectors of items are alike both ways: a, b as b, a"}
    beyond = "order"

    config: HRM.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        D = self.config.embedding_size
        if self.config.users:
            self.user = Users(n_users, D)                                  # u [1 + U, D]
        self.item = nn.Embedding(n_items + 1, D, padding_idx=0)            # v [1 + I, D]
        self.reset_parameters()

    @classmethod
    def needs_of(cls, config: Settings) -> frozenset[str]:
        """Users, unless left out; sessions where they are the baskets."""
        assert isinstance(config, cls.Config)
        return frozenset(["users"] * config.users + ["sessions"] * (config.basket == "session"))

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        for weight in self.parameters():
            nn.init.normal_(weight, std=SPREAD)
            with torch.no_grad():
                weight[0] = 0

    def initial_state(self, users: Tensor) -> State:
        """The user, where there are any, and an empty basket."""
        width = BASKET if self.config.basket == "session" else 1
        basket = users.new_zeros(len(users), width)                        # [B, K] newest last, 0 for none
        return {"user": users, "basket": basket} if self.config.users else {"basket": basket}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """h after each event (see `SequenceModel.forward`)."""
        B, T = events.shape
        asked = torch.ones_like(events.mask) if at is None else at         # [B, T]
        row, place = asked.nonzero(as_tuple=True)                          # [N], [N]
        baskets = Baskets(events, state["basket"])
        h = self._answer(state, row, baskets.after(row, place))            # [N, D]
        after = {**state, "basket": baskets.last(events.lengths())}
        return (h if at is not None else h.view(B, T, h.shape[1])), after

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone."""
        row = torch.arange(len(state["basket"]), device=state["basket"].device)  # [B]
        return self._answer(state, row, state["basket"])[:, None]          # [B, 1, D]

    def _answer(self, state: State, row: Tensor, basket: Tensor) -> Tensor:
        """h = f2(u, f1(B)): the user of each `row` [N] and his basket [N, V], item numbers and 0 for none: [N, D]"""
        c = self.config
        t: Tensor = nn.functional.embedding_bag(                           # f1 [N, D] over the real items alone
            basket, self.item.weight, mode="max" if c.inner == "max" else "mean", padding_idx=0
        )
        t = nn.functional.dropout(t, c.dropout, self.training)
        if not c.users:
            return t
        u = self.user(state["user"])[row]                                  # [N, D]
        u = nn.functional.dropout(u, c.dropout, self.training)
        h = torch.maximum(u, t) if c.outer == "max" else (u + t) / 2       # f2 [N, D]
        return torch.where((basket > 0).any(1, keepdim=True), h, u)

    def item_matrix(self) -> Tensor:
        """v."""
        return self.item.weight[1:]                                        # [I, D]

    def owned(self, users: Tensor, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """u of each user and v_i of each item."""
        own = [(self.user.weight, users)] if self.config.users else []
        return [*own, (self.item.weight, items)]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T, V]: the share of t that each of the "items" of the basket gives.

        1 / |B| of an average; of a maximum, how many of the D numbers are this item's (ties shared).
        """
        B, T = events.shape
        if not B * T:
            return {}
        row, place = torch.ones_like(events.mask).nonzero(as_tuple=True)   # [B T]
        basket = Baskets(events, state["basket"]).after(row, place)        # [B T, V]
        if self.config.inner == "avg":
            gives = (basket > 0).to(self.item.weight.dtype)                # [B T, V]
        else:
            v = self.item(basket).masked_fill((basket == 0)[..., None], -torch.inf)  # [B T, V, D]
            best = (v == v.amax(1, keepdim=True)) & (basket > 0)[..., None]  # [B T, V, D]
            gives = (best / best.sum(1, keepdim=True).clamp(min=1)).sum(-1)  # [B T, V]
        share = gives / gives.sum(1, keepdim=True).clamp(min=1)            # [B T, V]
        return {"attention": share.view(B, T, -1), "items": basket.view(B, T, -1)}
