"""Caser: the last five items as an image, read by filters of every height; beside it, what this user likes.

Tang & Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding", WSDM 2018, section 3.
The window's L x d image is read across (n_h filters of each height 1 .. L, ReLU, the largest over the window) and down
(n_v filters, each a weighted sum of the L rows). A layer makes d numbers z of both, and

    score(i) = W'_i . [z; P_u] + b'_i

What each piece earns is tried by leaving it out, as in the paper: `horizontal=0`, `vertical=0`, `users=False`.

Left open by the paper, and what was chosen (its authors' code, where that says):
- Sizes and activations come from grids there. Here the code's: d 50, L 5, T 3, 16 filters of each height, 4 vertical,
  ReLU for both activations, a bias for each filter, dropout 0.5 on what the layer reads.
- Initial weights: P and E from N(0, 1/d^2), W' from N(0, 1/(2d)^2), b' 0, the filters PyTorch's own.
- The T next events are targets (`ahead = 3`), and each is set against 3 items drawn for it. Code and paper bar as
  negatives all that the user ever takes; here what he has taken so far, for the rest is not known yet. The code takes
  means over negatives and over targets, so that one target weighs as much as its negatives; here the terms are summed,
  as in the paper's equation 11, and there are three of them a target.
- The L2 penalty of the code, 1e-6 under Adam, is `weight_decay` in the recipe. It is decoupled here and so a great deal
  weaker; raise it, or `l2`, where a log is small.
- A window that is not full is padded on the left with zeros, and every event asks, from the first on. (The code's
  padding is a vector that is learnt, and only users with fewer than L + T events are ever padded.)
- A user who is not in training has the mean of all users. Who asks before any event has a window of zeros.

Nothing is weighed, so there is nothing to explain: which filter won at which place says little to a person.

Filters run once over the row and not once a window: the windows share them, and a running maximum takes the largest
that lies inside each. State: the last L ids and the user's number, 48 bytes. One event: O(L^2 n_h d + L n_v d + d^2).

Checked against DMAN's Table 3, MovieLens-1M, last item out, all items ranked, HR@10 / HR@50 in percent: with the last
segment of each history alone 18.98 / 45.64, here 19.93 / 42.32. Of whole histories the paper has 20.80 / 48.12.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import Users, slide
from foretaste.spaces import RATE, SIZE, THIRD, OneOf, Space


class Caser(SequenceModel):
    """Convolutional sequence embedding. Score: one inner product of 2d numbers and a bias; indexable."""

    class Config(Settings):
        """Sizes and ablations."""

        embedding_size: int = Field(50, ge=1)
        """d, size of an item's and of a user's vector, and of z."""
        window: int = Field(5, ge=1)
        """L, newest events that are read."""
        horizontal: int = Field(16, ge=0)
        """n_h, filters of each height 1 .. L that read some events together; 0 leaves them out."""
        vertical: int = Field(4, ge=0)
        """n_v, filters that sum the window's events, each with weights of its own; 0 leaves them out."""
        users: bool = True
        """A vector a user beside z; False for logs without users."""
        dropout: float = Field(0.5, ge=0, lt=1)
        """Share of what the filters say that is dropped in training."""
        scope: Literal["session", "user"] = "user"
        """What one row is: all of a user's events, or a session, at whose start the window is empty."""

        @model_validator(mode="after")
        def _reads(self) -> Self:
            if not self.horizontal and not self.vertical:
                raise ValueError("horizontal = vertical = 0 leaves no filter; for the user alone take model 'bpr-mf'")
            return self

    summary = "the last five items as an image under convolutions, and what the user likes"
    paper = ("Tang & Wang, Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding, "
             "WSDM 2018")  # fmt: skip
    scope: Literal["session", "user"] = "user"
    needs = frozenset({"users"})
    recipe: ClassVar = {
        "ahead": 3, "loss": "bce", "negatives": 3, "learning_rate": 1e-3, "weight_decay": 1e-6, "batch": 512,
        "epochs": 50,
    }  # fmt: skip
    space: ClassVar[Space] = {
        "learning_rate": RATE, "embedding_size": SIZE, "window": OneOf(3, 5, 9), "dropout": THIRD,
    }  # fmt: skip
    masters = ("popularity", "last_item", "user_taste")
    short_of: ClassVar = {
        "order": "of a filter's answers over the window the largest counts, wherever it is",
        "set": "it sees the last five items",
    }
    beyond = "distant"

    config: Caser.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c = self.config
        d, L, across, down = c.embedding_size, c.window, c.horizontal, c.vertical
        self.scope = c.scope
        self.item = nn.Embedding(n_items + 1, d, padding_idx=0)            # E [1 + I, d]
        if across:
            self.F = nn.ModuleList(nn.Linear(h * d, across) for h in range(1, L + 1))  # F^k, of height h
        if down:
            self.F_down = nn.Linear(L, down)                               # F~
        self.W = nn.Linear(across * L + down * d, d)                       # with b
        if c.users:
            self.user = Users(n_users, d)                                  # P [1 + U, d]
        self.out = nn.Parameter(torch.empty(n_items, 2 * d if c.users else d))  # W' [I, Q]
        self.bias = nn.Parameter(torch.empty(n_items))                     # b' [I]
        self.reset_parameters()

    @classmethod
    def needs_of(cls, config: Settings) -> frozenset[str]:
        """Users, where they have vectors."""
        assert isinstance(config, cls.Config)
        return frozenset(["users"] * config.users)

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
            elif isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, std=1 / layer.embedding_dim)
        nn.init.normal_(self.out, std=1 / self.out.shape[1])
        with torch.no_grad():
            self.bias.zero_()
            self.item.weight[0] = 0
            if self.config.users:
                self.user.weight[0] = 0

    def initial_state(self, users: Tensor) -> State:
        """An empty window, and the user."""
        ids = users.new_zeros(len(users), self.config.window)              # [B, L] newest last, 0 for none
        return {"ids": ids, "user": users} if self.config.users else {"ids": ids}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """The filters over every row (see `SequenceModel.forward`)."""
        B, T = events.shape
        asked = torch.ones_like(events.mask) if at is None else at         # [B, T]
        found = self._read(torch.cat([state["ids"][:, 1:], events.items], 1))  # [B, T, .]
        answer = self._answer(found[asked], state, asked.nonzero(as_tuple=True)[0])  # [N, Q]
        after = {**state, "ids": slide(state["ids"], events.items, events.lengths())}
        return (answer if at is not None else answer.view(B, T, answer.shape[-1])), after

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone: one window."""
        row = torch.arange(len(state["ids"]), device=state["ids"].device)  # [B]
        return self._answer(self._read(state["ids"])[:, 0], state, row)[:, None]  # [B, 1, Q]

    def _read(self, ids: Tensor) -> Tensor:
        """What the filters say of each of the T windows in a row: ids [B, L - 1 + T] -> [B, T, n_h L + n_v d]."""
        c = self.config
        L, T = c.window, ids.shape[1] - c.window + 1
        if not T:
            return self.out.new_zeros(len(ids), 0, self.W.in_features)     # [B, 0, .]
        E = self.item(ids)                                                 # [B, L - 1 + T, d]
        parts = []
        for h in range(1, L + 1) if c.horizontal else ():
            places = L + T - h                                             # where a filter of height h may lie
            rows = torch.cat([E[:, k : k + places] for k in range(h)], -1)  # [B, places, h d]
            lies = self.F[h - 1](rows).unfold(1, L - h + 1, 1)             # [B, T, n_h, L - h + 1]  eq. 3, 4
            parts.append(torch.relu(lies.amax(-1)))                        # [B, T, n_h]  eq. 5
        if c.vertical:
            parts.append(self.F_down(E.unfold(1, L, 1)).flatten(2))        # [B, T, d n_v]  eq. 6, 7
        return torch.cat(parts, -1)

    def _answer(self, found: Tensor, state: State, row: Tensor) -> Tensor:
        """[z; P_u] of each asked window, whose user is that of `row` [N]: [N, Q]"""
        found = nn.functional.dropout(found, self.config.dropout, self.training)  # [N, .]
        z = torch.relu(self.W(found))                                      # [N, d]  eq. 8
        if not self.config.users:
            return z
        return torch.cat([z, self.user(state["user"])[row]], -1)           # [N, 2d]  eq. 9

    def item_matrix(self) -> Tensor:
        """W'."""
        return self.out                                                    # [I, Q]

    def item_bias(self) -> Tensor | None:
        """b'."""
        return self.bias                                                   # [I]

    def owned(self, users: Tensor, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """P_u of each user; E_i, W'_i and b'_i of each item."""
        own = [(self.user.weight, users)] if self.config.users else []
        return [*own, (self.item.weight, items), (self.out, items - 1), (self.bias, items - 1)]
