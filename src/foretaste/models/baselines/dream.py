"""DREAM: a recurrent network over baskets; its state is what the user wants next.

Yu, Liu, Wu, Wang, Tan, "A Dynamic Recurrent Model for Next Basket Recommendation", SIGIR 2016, section 2:

    b_t = the largest (or the mean) of the vectors of basket t, number by number                              (eq. 1, 2)
    h_t = f(X b_t + R h_{t-1}),    score(i) = q_i . h_t,    f the sigmoid                                     (eq. 3)

Baskets and scores have one table of items, and there is no vector of the user: only what he took.

Left open by the paper, and what was chosen:
- What a basket is. `basket="event"` (default): each event alone, so h runs over events. `"session"`: the paper's set;
  the open session counts as far as it has come, as one step more from the state of the closed ones, and the first event
  of the next closes it. Asked at a session's end this is the paper's next basket: train it with targets = "session".
- A basket is a set: an item that comes twice counts once. It is the last 64 distinct items of its session (see
  fpmc.py), the same for any way of cutting. The state keeps their ids rather than a running sum and maximum: so a
  gradient reaches each of them, and only ids need to outlive new weights. Padding is in no basket: neither does its 0
  stand against negative numbers in the maximum, nor does it count in the mean, as in some public ports.
- h_0 = 0, and all items tie; no biases. `cell="tanh"`, `"gru"`, `"lstm"` are what ports offer beside the paper's.
- BPR with one uniform negative a target (for targets = "session" set `exclude_touched`, see fpmc.py); Adam for the
  paper's plain SGD; its L2 on items by `owned`. Items from N(0, 0.1^2), the cell within 1 / sqrt(D).

sigma(a) = (1 + tanh(a / 2)) / 2, so the sigmoid network is one of tanh in g = 2 h - 1, with X / 2, R / 4 and a bias
R 1 / 4: it runs as fast as PyTorch's own. The LSTM's cells are wanted after every basket, so it goes step by step.

Checked against RUM's Table 2 (Instant Video, 70 / 30, P / R / F1 / HR at 5, percent): the paper's 1.312 / 1.652 / 1.342
/ 6.097, about as good as its FPMC, here 1.15 / 1.58 / 1.27 / 5.40, hardly above POP; by the
exact softmax 2.06 / 3.01 / 2.31 / 8.38.

State, D = 64: h 256 bytes (LSTM twice that); with sessions 64 ids, 512 bytes. One event: O(D^2), and O(|B| D).
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.config import Only
from foretaste.models.baselines.bpr_mf import SPREAD
from foretaste.models.baselines.fpmc import BASKET, Baskets
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import at_length
from foretaste.spaces import L2, RATE, SIZE, OneOf, Space

CELLS = {"sigmoid": nn.RNN, "tanh": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class DREAM(SequenceModel):
    """Dynamic REcurrent bAsket Model. Score: q_i . h, one inner product; indexable."""

    class Config(Settings):
        """Sizes and variants."""

        embedding_size: int = Field(64, ge=1)
        """D, size of an item's vector and of the state."""
        basket: Literal["event", "session"] = "event"
        """What the network runs over: events, or the sets of items of whole sessions."""
        pool: Annotated[Literal["max", "mean"], Only(basket="session")] = "max"
        """How a basket becomes a vector: the largest of its items' numbers, or their mean."""
        cell: Literal["sigmoid", "tanh", "gru", "lstm"] = "sigmoid"
        """The recurrence: the paper's, or another."""

    summary = "a recurrent network over events or over the baskets of sessions"
    paper = "Yu et al., A Dynamic Recurrent Model for Next Basket Recommendation, SIGIR 2016"
    scope = "user"
    recipe: ClassVar = {
        "loss": "bpr", "negatives": 1, "exclude_touched": False, "learning_rate": 2e-3, "l2": 1e-3, "batch": 512,
        "epochs": 60,
    }  # fmt: skip
    space: ClassVar[Space] = {
        "learning_rate": RATE, "embedding_size": SIZE, "l2": L2, "pool": OneOf("max", "mean"),
    }  # fmt: skip
    masters = ("popularity", "last_item", "order", "set")
    short_of: ClassVar = {"user_taste": "no vector of a user: a taste would have to be told by the history"}
    beyond = "dwell"

    config: DREAM.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c, D = self.config, self.config.embedding_size
        self.item = nn.Embedding(n_items + 1, D, padding_idx=0)            # q [1 + I, D]
        self.cell = CELLS[c.cell](D, D, batch_first=True, bias=c.cell in ("gru", "lstm"))  # X, R
        self.reset_parameters()

    @classmethod
    def needs_of(cls, config: Settings) -> frozenset[str]:
        """Sessions where they are the baskets."""
        assert isinstance(config, cls.Config)
        return frozenset(["sessions"] * (config.basket == "session"))

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        bound = 1 / math.sqrt(self.config.embedding_size)
        nn.init.normal_(self.item.weight, std=SPREAD)
        self.item.weight.data[0] = 0
        for weight in self.cell.parameters():
            nn.init.uniform_(weight, -bound, bound)

    def initial_state(self, users: Tensor) -> State:
        """No basket closed, and an empty open one."""
        c = self.config
        M = c.embedding_size * (2 if c.cell == "lstm" else 1)              # h, or h and its cell side by side
        state = {"h": self.item.weight.new_zeros(len(users), M)}           # [B, M] after the closed baskets
        return state | ({"ids": users.new_zeros(len(users), BASKET)} if c.basket == "session" else {})  # [B, K]

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """Every prefix of every row in one pass (see `SequenceModel.forward`)."""
        (B, T), D = events.shape, self.config.embedding_size
        if self.config.basket == "event":
            every = self._run(self.item(events.items), state["h"])         # [B, T, M]  eq. 3
            after = {"h": at_length(every, state["h"], events.lengths())}  # [B, M]
            return every[..., :D] if at is None else every[at][:, :D], after  # [B, T, D] or [N, D]
        baskets = Baskets(events, state["ids"])
        hidden, closed = self._close(events, state, baskets)               # [B, 1 + S, M], [B, 1 + T]
        last = hidden[torch.arange(B, device=closed.device), closed[:, -1]]  # [B, M]
        row, place = (torch.ones_like(events.mask) if at is None else at).nonzero(as_tuple=True)  # [N], [N]
        now = self._pool(baskets.after(row, place))                        # [N, D]
        answer = self._run(now[:, None], hidden[row, closed[row, place + 1]])[:, 0, :D]  # [N, D]
        after = {"h": last, "ids": baskets.last(events.lengths())}         # [B, M], [B, K]
        return (answer if at is not None else answer.view(B, T, D)), after

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone: one step more where a session is open."""
        h = state["h"]                                                     # [B, M]
        if "ids" in state:
            is_open = (state["ids"] > 0).any(1, keepdim=True)              # [B, 1]
            h = torch.where(is_open, self._run(self._pool(state["ids"])[:, None], h)[:, 0], h)
        return h[:, None, : self.config.embedding_size]                    # [B, 1, D]

    def _close(self, events: Events, state: State, baskets: Baskets) -> tuple[Tensor, Tensor]:
        """h after 0, 1, ... S of the sessions that this call closes [B, 1 + S, M]; how many before each event, and 0 in
        front [B, 1 + T]."""
        closes = events.starts & events.mask                               # [B, T] the session before is over
        closes[:, :1] &= (state["ids"] > 0).any(1, keepdim=True)           # if there is one
        closed = nn.functional.pad(closes.cumsum(1), (1, 0))               # [B, 1 + T]
        S = int(closed[:, -1].max()) if len(closed) else 0
        row, place = closes.nonzero(as_tuple=True)                         # [n], [n]
        whole = self._pool(baskets.after(row, place - 1))                  # [n, D]
        sessions = whole.new_zeros(len(closed), S, whole.shape[1])         # [B, S, D]
        sessions = sessions.index_put((row, closed[row, place]), whole)
        return torch.cat([state["h"][:, None], self._run(sessions, state["h"])], 1), closed

    def _pool(self, basket: Tensor) -> Tensor:
        """b of each basket, item numbers and 0 for none [N, V]: [N, D]  eq. 1, 2"""
        return nn.functional.embedding_bag(basket, self.item.weight, mode=self.config.pool, padding_idx=0)

    def _run(self, inputs: Tensor, h: Tensor) -> Tensor:
        """h after each of the inputs [N, S, D], from h [N, M]: [N, S, M]"""
        if not inputs.shape[0] * inputs.shape[1]:
            return inputs.new_zeros(*inputs.shape[:2], h.shape[1])
        if isinstance(self.cell, nn.LSTM):
            steps = []
            for step in inputs.unbind(1):  # S times [N, D]
                h = torch.cat(torch.lstm_cell(step, h.chunk(2, 1), *self.cell.parameters()), 1)  # [N, 2D]
                steps.append(h)
            return torch.stack(steps, 1)
        if self.config.cell != "sigmoid":
            every: Tensor = self.cell(inputs, h[None].contiguous())[0]     # [N, S, D]
            return every
        X, R = self.cell.weight_ih_l0, self.cell.weight_hh_l0              # [D, D] twice
        level: Tensor = R.sum(1) / 4                                       # [D]
        halves = (X / 2, R / 4, level, torch.zeros_like(level))
        start = (2 * h - 1)[None]                                          # [1, N, D]
        g, _ = torch.rnn_tanh(inputs, start, halves, True, 1, 0.0, self.training, False, True)  # [N, S, D]
        return (1 + g) / 2

    def item_matrix(self) -> Tensor:
        """q."""
        return self.item.weight[1:]                                        # [I, D]

    def owned(self, users: Tensor, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """q of each item."""
        return [(self.item.weight, items)]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T, V]: which share of the open basket's vector each of its "items" gave: as many of the D
        numbers as it had the largest of, or 1 / |B|. Nothing where each event is a basket of its own.
        """
        (B, T), c = events.shape, self.config
        if c.basket == "event" or not B * T:
            return {}
        row, place = torch.ones_like(events.mask).nonzero(as_tuple=True)   # [B T]
        basket = Baskets(events, state["ids"]).after(row, place)          # [B T, V]
        share = (basket > 0) / (basket > 0).sum(1, keepdim=True).clamp(min=1)  # [B T, V]
        if c.pool == "max":
            largest = self.item(basket).masked_fill(basket[..., None] == 0, float("-inf")).argmax(1)  # [B T, D]
            won = torch.zeros_like(share).scatter_add(1, largest, torch.ones_like(largest, dtype=share.dtype))
            share = won * (basket > 0) / c.embedding_size                  # [B T, V]
        return {"attention": share.view(B, T, -1), "items": basket.view(B, T, -1)}
