"""SHAN: what this user's attention makes of all closed sessions is one more item of the open one.

Ying, Zhuang, Zhang, Liu, Xu, Xie, Xiong, Wu, "Sequential Recommender System based on Hierarchical Attention Network",
IJCAI 2018, section 3. Two attention layers, both asked by the user's vector u:

    alpha_j = softmax over closed j of u . phi(W1 x_j + b1),        u_long = sum alpha_j x_j                (eq. 1-3)
    beta    = softmax over u_long and open j of u . phi(W2 x_j + b2),    u_hybrid = beta_0 u_long + sum beta_j x_j
    score(i) = u_hybrid . x_i                                                                              (eq. 4-7)

Neither the question u nor the keys depend on the time, so each softmax is a running (max, sum, weighted sum), without a
window: one over all events, which is copied when a session begins, and one over the open session.

Left open or contradicted, and what was chosen:
- The paper's long term is a set, the union of sessions. A bounded state cannot know whether an item of long ago comes
  again, so here every event counts, in the open session too: an item n times has n times the weight.
- The session that is open stays so until the first event of the next. While no session is closed there is no u_long:
  it takes no part (a zero vector in its place would). Before any event nothing is known, and all items tie.
- phi is the paper's ReLU. `activation="sigmoid"` is that of an early public code, which also asks the second layer with
  u_long, and draws every entry of W1 and W2 alike; a popular library scores all items from the sequence in the wrong
  direction, so its short term is padding. None of that is here.
- A user never seen asks with the mean of all users (see bpr_mf.py).
- The paper's L-SHAN and S-SHAN are `parts="long"` and `parts="short"`.
- Training. The paper draws one target of each session; here each event is one. L2 on u and x is `l2`; the paper's
  other penalty, on W1 and W2, is `penalties = { W1 = ..., W2 = ... }`, and is not in the recipe. Adam for the paper's
  SGD. u, x from N(0, 0.1^2); W within sqrt(3 / D); b = 0. The paper compares sizes D up to 100 and takes 100.

To be checked against: DMAN's Table 3 (MovieLens-1M, leave one out, % HR@10 / HR@50 / NDCG@100: 21.34 / 49.52 / 19.55).

State, D = 100: three triples 1.2 kB, V = 20 newest ids to explain from, the user: 1.4 kB. One event: O(D^2).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.models.baselines.bpr_mf import SPREAD
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import Users, at_length, slide
from foretaste.models.triangle import LOWEST, newest, running_softmax
from foretaste.spaces import L2, RATE, SIZE, Space

TRIPLE = ("top", "mass", "sum")
"""A running softmax: its highest score, its sum of exponentials relative to that, the same sum of weighted values."""


class SHAN(SequenceModel):
    """Sequential Hierarchical Attention Network. Score: u_hybrid . x_i, one inner product; indexable."""

    class Config(Settings):
        """Sizes and ablations; the defaults are the paper's."""

        embedding_size: int = Field(100, ge=1)
        """D, size of a user's and of an item's vector."""
        activation: Literal["relu", "sigmoid", "tanh"] = "relu"
        """phi of equations 1 and 4."""
        parts: Literal["both", "long", "short"] = "both"
        """Both layers; the closed sessions alone (L-SHAN); or the open session alone (S-SHAN)."""
        explained: int = Field(20, ge=1)
        """V, how many of the newest items the state keeps for `explain`."""

    summary = "the user's attention over closed sessions, and over that and the open one"
    paper = "Ying et al., Sequential Recommender System based on Hierarchical Attention Network, IJCAI 2018"
    scope = "user"
    needs = frozenset({"users", "sessions"})
    recipe: ClassVar = {
        "loss": "bpr", "negatives": 1, "exclude_touched": False, "learning_rate": 2e-3, "l2": 3e-3, "batch": 512,
        "epochs": 60,
    }  # fmt: skip
    space: ClassVar[Space] = {"learning_rate": RATE, "embedding_size": SIZE, "l2": L2}
    masters = ("popularity", "set", "user_taste")
    short_of: ClassVar = {"last_item, order": "it weighs sets of items"}
    beyond = "order"

    config: SHAN.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        D = self.config.embedding_size
        self.item = nn.Embedding(n_items + 1, D, padding_idx=0)            # x [1 + I, D]
        self.user = Users(n_users, D)                                      # u [1 + U, D]
        self.long, self.short = self.config.parts != "short", self.config.parts != "long"
        if self.long:
            self.W1 = nn.Linear(D, D)                                      # with b1
        if self.short:
            self.W2 = nn.Linear(D, D)                                      # with b2
        self.phi = getattr(torch, self.config.activation)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        bound = math.sqrt(3 / self.config.embedding_size)
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            elif name in ("item.weight", "user.weight"):
                nn.init.normal_(weight, std=SPREAD)
                weight.data[0] = 0
            else:
                nn.init.uniform_(weight, -bound, bound)

    def initial_state(self, users: Tensor) -> State:
        """No session closed, none open."""
        c, B, like = self.config, len(users), self.item.weight
        state = {"user": users,                                            # [B]
                 "seen": torch.zeros_like(users),                          # [B] events of the open session
                 "ids": users.new_zeros(B, c.explained)}                   # [B, V] newest last, 0 for none
        for name in ("ever", "long") * self.long + ("open",) * self.short:
            state |= no_softmax(name, like, B, c.embedding_size)           # [B], [B], [B, D]
        return state

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """Every prefix of every session in one pass (see `SequenceModel.forward`)."""
        steps = self._take_in(events, state)
        lengths = events.lengths()                                         # [B]
        after = {name: at_length(step, state[name], lengths) for name, step in steps.items()}
        after |= {"user": state["user"], "ids": slide(state["ids"], events.items, lengths)}
        u = self._users(state)                                             # [B, D]
        if at is None:
            return self._answer(u[:, None].expand(-1, events.shape[1], -1), steps)[0], after  # [B, T, D]
        row, place = at.nonzero(as_tuple=True)                             # [N], [N]
        return self._answer(u[row], {name: step[row, place] for name, step in steps.items()})[0], after  # [N, D]

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone; before any event it is 0, and all items tie."""
        return self._answer(self._users(state), state)[0][:, None]         # [B, 1, D]

    def _users(self, state: State) -> Tensor:
        users: Tensor = self.user(state["user"])                           # [B, D]
        return users

    def _take_in(self, events: Events, state: State) -> State:
        """What holds after each event [B, T, ...], under the state's names."""
        begins, seen = session_places(events, state["seen"])               # [B, T], [B, T]
        x, u = self.item(events.items), self._users(state)[:, None]        # [B, T, D], [B, 1, D]
        steps = {"seen": seen}
        if self.long:
            steps |= ever_and_long(self._match(u, x, self.W1), x, begins, state)
        if self.short:
            steps |= open_softmax(self._match(u, x, self.W2), x, begins, state)
        return steps

    def _match(self, u: Tensor, x: Tensor, W: nn.Linear) -> Tensor:
        """u . phi(W x + b): users and items [..., D] -> [...]"""
        scores: Tensor = (u * self.phi(W(x))).sum(-1)                      # [...]  eq. 1, 4
        return scores

    def _answer(self, u: Tensor, view: State) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u_hybrid [..., D]; beta_0 [...]; top and sum of exponentials of the second softmax [...], to explain from."""
        zero = torch.zeros_like(u[..., 0])                                 # [...]
        if self.long:
            u_long, closed = softmax_mean(view, "long"), view["long_mass"] > 0  # [..., D], [...]  eq. 2, 3
        if not self.short:
            return u_long, closed.to(zero.dtype), zero, zero
        top, mass, total = (view[f"open_{name}"] for name in TRIPLE)       # [...], [...], [..., D]
        if not self.long:
            return softmax_mean(view, "open"), zero, top, mass
        own = self._match(u, u_long, self.W2)                              # [...]  eq. 4 of u_long
        highest = top.maximum(own.detach().where(closed, LOWEST))          # [...] its gradient cancels
        first = (own.where(closed, LOWEST) - highest).exp() * closed       # [...]
        others = (top - highest).exp()                                     # [...]
        whole = (first + others * mass).clamp(min=torch.finfo(mass.dtype).tiny)  # [...]  eq. 5
        mixed = first[..., None] * u_long + others[..., None] * total      # [..., D]
        return mixed / whole[..., None], first / whole, highest, whole     # eq. 6

    def item_matrix(self) -> Tensor:
        """x."""
        return self.item.weight[1:]                                        # [I, D]

    def owned(self, users: Tensor, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """u of each user and x of each item."""
        return [(self.user.weight, users), (self.item.weight, items)]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T, V]: the share of each of the V newest events in u_hybrid, the newest last: beta_j where it
        is of the open session, beta_0 alpha_j where it is not. The rest lies on older events.
        "long_attention" [B, T, V]: alpha_j alone. "long_short" [B, T, 2]: beta_0 and the rest.
        """
        steps, u = self._take_in(events, state), self._users(state)[:, None]  # [B, 1, D]
        _, share, top, whole = self._answer(u.expand(*events.shape, -1), steps)  # [B, T] each
        ids = newest(state["ids"], events.items)                           # [B, T, V]
        age = torch.arange(ids.shape[2] - 1, -1, -1, device=ids.device)    # [V]
        here = age < steps["seen"][..., None]                              # [B, T, V] of the open session
        both = torch.cat([state["ids"], events.items], 1)                  # [B, V + T]
        out = {"attention": torch.zeros_like(ids, dtype=u.dtype), "long_short": torch.stack([share, 1 - share], -1)}

        def weights(W: nn.Linear, highest: Tensor, mass: Tensor, which: Tensor) -> Tensor:
            found = self._match(u, self.item(both), W).unfold(1, ids.shape[2], 1)[:, 1:]  # [B, T, V]
            found = (found - highest[..., None]).masked_fill(~which, float("-inf")).exp()
            return found / mass[..., None].clamp(min=torch.finfo(mass.dtype).tiny)

        if self.short:
            out["attention"] = weights(self.W2, top, whole, here)          # [B, T, V]  beta
        if self.long:
            alpha = weights(self.W1, steps["long_top"], steps["long_mass"], ~here & (ids > 0))  # [B, T, V]
            out["long_attention"] = alpha
            out["attention"] = out["attention"] + share[..., None] * alpha
        return out


def session_places(events: Events, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Where in this call the session of each event began, -1: before it [B, T]; events of it so far [B, T].

    seen [B]: events of the session that the state holds open.
    """
    place = torch.arange(events.shape[1], device=seen.device)              # [T]
    begins = torch.where(events.starts, place, -1).cummax(1).values        # [B, T]
    return begins, place + 1 - begins.where(begins >= 0, -seen[:, None])


def no_softmax(name: str, like: Tensor, rows: int, size: int) -> State:
    """A softmax over nothing, under the name's keys: [B], [B], [B, size]."""
    return {f"{name}_top": like.new_full((rows,), LOWEST), f"{name}_mass": like.new_zeros(rows),
            f"{name}_sum": like.new_zeros(rows, size)}


def softmax_mean(view: State, name: str) -> Tensor:
    """The weighted mean [..., D]; 0 of nothing. A softmax over something has a mass of 1 or more."""
    return view[f"{name}_sum"] / view[f"{name}_mass"].clamp(min=1)[..., None]


def open_softmax(scores: Tensor, values: Tensor, begins: Tensor, state: State) -> State:
    """"open_*": the softmax over the session so far, after each event: scores [B, T], values [B, T, D]."""
    found = running_softmax(scores, values, begins, {name: state[f"open_{name}"] for name in TRIPLE})
    return {f"open_{name}": step for name, step in found.items()}


def ever_and_long(scores: Tensor, values: Tensor, begins: Tensor, state: State) -> State:
    """"ever_*": the softmax over all events so far, after each; "long_*": the same as the open session found it.

    scores [B, T], values [B, T, D], begins [B, T] as `session_places` gives them.
    """
    before = {name: state[f"ever_{name}"] for name in TRIPLE}
    steps: State = {}
    rows = torch.arange(len(begins), device=begins.device)[:, None]        # [B, 1]
    for name, step in running_softmax(scores, values, torch.full_like(begins, -1), before).items():
        found = torch.cat([state[f"long_{name}"][:, None], before[name][:, None], step], 1)  # [B, 2 + T, ...]
        steps |= {f"ever_{name}": step, f"long_{name}": found[rows, begins + 1]}  # [B, T, ...]
    return steps
