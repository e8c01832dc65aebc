"""FPMC: what this user likes, plus what follows the last basket.

Rendle, Freudenthaler, Schmidt-Thieme, "Factorizing Personalized Markov Chains for Next-Basket Recommendation",
WWW 2010. A cube of transitions (user, item of the last basket, next item), factorised by pairs and averaged over the
basket B. Of the three pairs, (user, last item) is the same for every candidate and falls away in a ranking:

    score(i) = <U_u, I_i> + 1/|B| sum over l in B of <F_l, T_i>

U and I say who likes what; F ("from") and T ("to") say what follows what. `users=False` is FMC, the paper's factorised
Markov chain without the person: for sessions without users, whom one would otherwise have to call users of their own.
It also goes by its own name, "fmc".

Left open by the paper, and what was chosen:
- What a basket is. `basket="event"` (default): each event alone, so B is the last item. `"session"`: the paper's set;
  B is the last session as far as it has come, that is the open one, which the first event of the next replaces. Asked
  at a session's end, this is the paper's next basket: train it with targets = "session".
- A basket is a set: an item that comes twice counts once. It is the last 64 distinct items of its session, the same
  for any way of cutting. The state keeps their ids, not their sum: so a gradient reaches every F_l, nothing drifts,
  and only ids need to outlive new weights.
- Before any event the chain says nothing. A user never seen gets the mean of all users (see bpr_mf.py).
- S-BPR draws j among the items outside the next basket. For targets = "event" the recipe does just that; what the user
  has touched before may come again and is a fair negative (`exclude_touched=False`). For targets = "session" set it to
  True, or an item of the basket may be set against another of the same basket.
- The optimiser, the L2 penalty and the initial weights are those of bpr_mf.py. The penalty falls on all three vectors
  of the items that a step scores, F too; the paper's pulls F of the items that it reads.

State: the user's number and the basket's ids: 16 bytes with "event", 520 with "session". One event: O(|B| D).

Checked against RUM's Table 2 on Instant Video (P / R / F1 / HR at 5, percent): the paper's FPMC 1.301 / 1.612 / 1.322 /
5.917, here 3.57 / 4.93 / 3.88 / 14.20; POP is the paper's to the digit where ties go to the lower id, its settings are
not known.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.models.baselines.bpr_mf import SPREAD
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import Users
from foretaste.spaces import L2, RATE, SIZE, Space

BASKET = 64
"""Distinct items of a session that are its basket, at most."""


class FPMC(SequenceModel):
    """Factorised personalised Markov chain. Score: [U_u; mean F] . [I_i; T_i], one inner product; indexable."""

    class Config(Settings):
        """Sizes and variants."""

        embedding_size: int = Field(64, ge=1)
        """D, size of each of the four kinds of vectors."""
        basket: Literal["event", "session"] = "event"
        """What the chain goes by: the last event, or all distinct items of the last session as far as it has come."""
        users: bool = True
        """False: FMC, the chain alone."""

    summary = "what the user likes plus what follows the last item or basket (without users: FMC)"
    paper = "Rendle et al., Factorizing Personalized Markov Chains for Next-Basket Recommendation, WWW 2010"
    scope = "user"
    needs = frozenset({"users"})
    recipe: ClassVar = {
        "loss": "bpr", "negatives": 1, "exclude_touched": False, "learning_rate": 5e-3, "l2": 3e-3, "batch": 512,
        "epochs": 60,
    }  # fmt: skip
    space: ClassVar[Space] = {"learning_rate": RATE, "embedding_size": SIZE, "l2": L2}
    masters: ClassVar[tuple[str, ...]] = ("popularity", "last_item", "user_taste")
    short_of: ClassVar = {"order, set": "it looks at the newest basket alone"}
    beyond = "order"
    by_candidate = ("taste", "chain")

    config: FPMC.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        D = self.config.embedding_size
        if self.config.users:
            self.user = Users(n_users, D)                                  # U [1 + U, D]
            self.liked = nn.Parameter(torch.empty(n_items, D))             # I [I, D]
        self.source = nn.Embedding(n_items + 1, D, padding_idx=0)          # F [1 + I, D]
        self.next = nn.Parameter(torch.empty(n_items, D))                  # T [I, D]
        self.reset_parameters()

    @classmethod
    def needs_of(cls, config: Settings) -> frozenset[str]:
        """Users but for FMC, sessions where they are the baskets."""
        assert isinstance(config, cls.Config)
        return frozenset(["users"] * config.users + ["sessions"] * (config.basket == "session"))

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        for weight in self.parameters():
            nn.init.normal_(weight, std=SPREAD)
        with torch.no_grad():
            self.source.weight[0] = 0
            if self.config.users:
                self.user.weight[0] = 0

    def initial_state(self, users: Tensor) -> State:
        """The user (but for FMC), and an empty basket."""
        width = BASKET if self.config.basket == "session" else 1
        basket = users.new_zeros(len(users), width)                        # [B, K] newest last, 0 for none
        return {"user": users, "basket": basket} if self.config.users else {"basket": basket}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """The basket after each event (see `SequenceModel.forward`)."""
        B, T = events.shape
        asked = torch.ones_like(events.mask) if at is None else at         # [B, T]
        row, place = asked.nonzero(as_tuple=True)                          # [N], [N]
        baskets = Baskets(events, state["basket"])
        answer = self._answer(state, row, baskets.after(row, place))  # [N, D or 2D]
        after = {**state, "basket": baskets.last(events.lengths())}
        return (answer if at is not None else answer.view(B, T, answer.shape[-1])), after

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone."""
        row = torch.arange(len(state["basket"]), device=state["basket"].device)
        return self._answer(state, row, state["basket"])[:, None]          # [B, 1, D or 2D]

    def _answer(self, state: State, row: Tensor, basket: Tensor) -> Tensor:
        """The user of `row` [N] beside the mean of his basket [N, V], item numbers and 0 for none: [N, D or 2D]"""
        mean: Tensor = nn.functional.embedding_bag(basket, self.source.weight, mode="mean", padding_idx=0)  # [N, D]
        return torch.cat([self.user(state["user"])[row], mean], -1) if self.config.users else mean

    def item_matrix(self) -> Tensor:
        """I and T side by side."""
        return torch.cat([self.liked, self.next], -1) if self.config.users else self.next  # [I, D or 2D]

    def owned(self, users: Tensor, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """U_u of each user; I_i, F_i and T_i of each item."""
        taste = [(self.user.weight, users), (self.liked, items - 1)] if self.config.users else []
        return [*taste, (self.source.weight, items), (self.next, items - 1)]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T, V]: 1 / |B| for each of the "items" of the basket.

        For candidates `items` [C] also what each half adds to the score: "taste" and "chain", [B, T, C].
        """
        B, T = events.shape
        if not B * T:
            return {}
        row, place = torch.ones_like(events.mask).nonzero(as_tuple=True)   # [B T]
        basket = Baskets(events, state["basket"]).after(row, place)       # [B T, V]
        share = (basket > 0) / (basket > 0).sum(1, keepdim=True).clamp(min=1)  # [B T, V]
        out = {"attention": share.view(B, T, -1), "items": basket.view(B, T, -1)}
        if items is not None:
            answer, matrix = self._answer(state, row, basket), self.item_matrix()[items - 1]
            names = ("taste", "chain") if self.config.users else ("chain",)
            for name, a, b in zip(names, answer.chunk(len(names), -1), matrix.chunk(len(names), -1), strict=True):
                out[name] = (a @ b.T).view(B, T, -1)                       # [B, T, C]
        return out


class FMC(FPMC):
    """The factorised Markov chain alone: FPMC without users. Score: mean F . T_i."""

    class Config(FPMC.Config):
        """Sizes and variants."""

        users: Literal[False] = False
        """There are none: with users it is FPMC."""

    summary = "what follows the last item or basket, factorised (FPMC without users)"
    needs = frozenset()
    masters = ("popularity", "last_item")
    short_of: ClassVar = {"order, set": "it looks at the newest basket alone", "user_taste": "it has no users"}


class Baskets:
    """The basket after every event: the last K distinct items of the session in which the event lies.

    An event stands for its item until the same item comes again in the session. The places of a row are the kept ids,
    oldest first, then the events of this call: V = R + T of them, R as many as the fullest state holds, at least 1.
    """

    def __init__(self, events: Events, kept: Tensor) -> None:
        self.K, self.T = kept.shape[1], events.shape[1]
        self.R = max(1, int((kept > 0).sum(1).amax())) if len(kept) else 1  # kept ids in use
        self.items = torch.cat([kept[:, self.K - self.R :], events.items], 1)  # [B, V]
        self.session = nn.functional.pad(events.starts.cumsum(1), (self.R, 0))  # [B, V] 0: the one open before

    @cached_property
    def again(self) -> Tensor:
        """[B, V]: the place at which an item comes again in its session, or V."""
        V = self.items.shape[1]
        key, order = (self.items * (self.T + 1) + self.session).sort(dim=1, stable=True)  # [B, V]
        later = torch.where(key[:, 1:] == key[:, :-1], order[:, 1:], V)    # [B, V - 1]
        return torch.full_like(order, V).scatter(1, order[:, :-1], later)  # [B, V]

    def after(self, row: Tensor, place: Tensor) -> Tensor:
        """The baskets after event `place` [N] of `row` [N], -1 for none yet -> item numbers [N, V], 0 elsewhere."""
        now = (place + self.R)[:, None]                                    # [N, 1]
        if self.K == 1:
            return self.items[row].gather(1, now)                          # [N, 1]
        when = torch.arange(self.items.shape[1], device=row.device)        # [V]
        items, session = self.items[row], self.session[row]                # [N, V]
        here = (session == session.gather(1, now)) & (items > 0)           # [N, V]
        stands = here & (now >= when) & (now < self.again[row])            # [N, V]
        newer = stands.flip(1).cumsum(1).flip(1)                           # [N, V] so many stand from here on
        return items.where(stands & (newer <= self.K), 0)                  # [N, V]

    def last(self, lengths: Tensor) -> Tensor:
        """The baskets after the last real event of each row, packed to the right: [B, K]."""
        ids = self.after(torch.arange(len(lengths), device=lengths.device), lengths - 1)  # [B, V]
        ids = ids.gather(1, (ids > 0).long().argsort(dim=1, stable=True))  # [B, V] gaps first
        return nn.functional.pad(ids, (self.K, 0))[:, -self.K :]           # [B, K]
