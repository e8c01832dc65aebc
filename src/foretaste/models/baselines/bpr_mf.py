"""BPR-MF: a vector a user, a vector an item, and what the user took ranked above what he did not.

Rendle, Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009:
matrix factorisation under the criterion BPR-Opt. It knows no order and no session; whoever beats it has shown that
order is worth something.

`users=False` is for sessions without users, as the papers on sessions use it (Hidasi et al., ICLR 2016; NARM, Table 3):
p is the mean of the vectors of the events so far.

Left open by the paper, and what was chosen:
- An item bias. The paper's model has none; popularity then has to share the D numbers with taste. Default: with bias,
  as in most later work; `bias=False` is the paper's.
- A user never seen gets the mean of all users. Scores are linear in p_u, so he is shown what all users would be shown
  on average, bias or not; a vector of zeros would leave no more than the bias, or nothing. Rows without a user train
  the items alone and leave the mean where it is.
- The sample. The paper draws triples (user, taken, not taken) with replacement, and each pair of user and item once.
  Here a pass goes over all events, the first of each user too, and what was taken twice counts twice. A negative is
  drawn from what the user has not touched so far; to leave out what he takes later would be to look ahead.
- The optimiser. The paper steps by plain SGD, one triple at a time. Default: Adam, as for every model in a table; the
  L2 penalty is the paper's, on the vectors of its user and of the items it scores (`l2`, by `owned`).
- Initial weights: N(0, 0.1^2); biases 0.
- Without users, the vectors of what was seen and of what is scored are the same: "the item's vector" of those papers is
  the one that is scored (two tables would be FMC, its basket the whole row). They train on sessions as if each were a
  user, and take the mean only to ask; here the mean is what is trained, so no vector a session is ever kept. An item
  that comes twice counts twice. Before any event p is 0, and the bias alone speaks.

State: the user's number, 8 bytes, and one event is nothing to do.
Without users: the sum of D numbers and a count; one event O(D).

Checked against RUM's Table 2 on Instant Video (P / R / F1 / HR at 5, percent): the paper's BPR 1.198 / 1.624 / 1.300 /
5.917, here 2.50 / 3.57 / 2.78 / 10.80; POP is the paper's to the digit where ties go to the lower id, its settings are
not known. And (`users=False`) against NARM's Table 3, R@20 / MRR@20: YOOCHOOSE 1/64 31.31 / 12.08, here 60.98 / 23.87;
DIGINETICA 15.19 / 8.63, here 39.99 / 13.37.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import Users, at_length
from foretaste.spaces import L2, RATE, SIZE, Space

SPREAD = 0.1
"""Standard deviation of initial weights."""


class BPRMF(SequenceModel):
    """Matrix factorisation for ranking. Score: p . q_i + b_i, one inner product; indexable."""

    class Config(Settings):
        """Sizes and variants."""

        embedding_size: int = Field(64, ge=1)
        """D, size of a user's and of an item's vector."""
        bias: bool = True
        """A number an item beside its vector: how popular it is, whoever asks."""
        users: bool = True
        """False: p is the mean of the vectors of the session's items so far, for logs without users."""

    summary = "a vector a user and a vector an item; what was taken ranks above what was not"
    paper = "Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009"
    scope: Literal["session", "user"] = "user"
    needs = frozenset({"users"})
    recipe: ClassVar = {
        "loss": "bpr", "negatives": 1, "first": True, "learning_rate": 5e-3, "l2": 3e-3, "batch": 512, "epochs": 60,
    }  # fmt: skip
    space: ClassVar[Space] = {"learning_rate": RATE, "embedding_size": SIZE, "l2": L2}
    masters = ("popularity", "user_taste")
    short_of: ClassVar = {"last_item, order, set": "it knows the user alone"}
    beyond = "last_item"

    config: BPRMF.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        D = self.config.embedding_size
        self.scope = "user" if self.config.users else "session"
        if self.config.users:
            self.user = Users(n_users, D)                                  # p [1 + U, D]
        self.item = nn.Parameter(torch.empty(n_items, D))                  # q [I, D]
        self.bias = nn.Parameter(torch.empty(n_items)) if self.config.bias else None  # b [I]
        self.reset_parameters()

    @classmethod
    def needs_of(cls, config: Settings) -> frozenset[str]:
        """Users, where they have vectors."""
        assert isinstance(config, cls.Config)
        return frozenset(["users"] * config.users)

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        if self.config.users:
            nn.init.normal_(self.user.weight, std=SPREAD)
        nn.init.normal_(self.item, std=SPREAD)
        with torch.no_grad():
            if self.config.users:
                self.user.weight[0] = 0
            if self.bias is not None:
                self.bias.zero_()

    def initial_state(self, users: Tensor) -> State:
        """The user's number: all there is to know. Without users: no events."""
        if self.config.users:
            return {"user": users}                                         # [B]
        zeros = self.item.new_zeros(len(users), self.item.shape[1])        # [B, D]
        return {"sum": zeros, "count": torch.zeros_like(users)}            # [B, D], [B]

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """p_u at every position: events change nothing. Without users, the mean after each event."""
        if not self.config.users:
            means, after = self._means(events, state)                      # [B, T, D]
            return (means if at is None else means[at]), after             # [B, T, D] or [N, D]
        taste = self.user(state["user"])                                   # [B, D]
        if at is not None:
            return taste[at.nonzero(as_tuple=True)[0]], state              # [N, D]
        return taste[:, None].expand(-1, events.shape[1], -1), state       # [B, T, D]

    def _means(self, events: Events, state: State) -> tuple[Tensor, State]:
        """The mean of q over the events up to each, those of `state` among them: [B, T, D]"""
        lengths = events.lengths()                                         # [B]
        seen = self.item[(events.items - 1).clamp(min=0)] * events.mask[..., None]  # [B, T, D]
        sums = state["sum"][:, None] + seen.cumsum(1)                      # [B, T, D]
        counts = state["count"][:, None] + events.mask.cumsum(1)           # [B, T]
        after = {"sum": at_length(sums, state["sum"], lengths), "count": state["count"] + lengths}
        return sums / counts.clamp(min=1)[..., None], after

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """p."""
        if self.config.users:
            known: Tensor = self.user(state["user"])[:, None]              # [B, 1, D]
            return known
        return (state["sum"] / state["count"].clamp(min=1)[:, None])[:, None]  # [B, 1, D]

    def item_matrix(self) -> Tensor:
        """q."""
        return self.item                                                   # [I, D]

    def item_bias(self) -> Tensor | None:
        """b."""
        return self.bias                                                   # [I]

    def owned(self, users: Tensor, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """p_u of each user, q_i and b_i of each item."""
        own = [(self.user.weight, users)] if self.config.users else []
        bias = [] if self.bias is None else [(self.bias, items - 1)]
        return [*own, (self.item, items - 1), *bias]
