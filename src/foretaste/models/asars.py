"""ASARS: how long each item was looked at says which of them count; the user's own vector is added.

Wang, Li, Yan, "Time-weighted Attentional Session-Aware Recommender System", arXiv 1909.05414, sections 2.2-2.4.

Left open or contradicted by the paper, and what was chosen:
- Equation 18 fills the upper triangle with zeros before the softmax: the future gets weight e^0. Here it is -inf.
- The score of an event (equation 16) is p_j . h_j, of its own hidden state: only then one row of scores serves all
  prefixes, as equation 18 has it. `query="last"` is p_j . h_t, over a window of the newest events.
- The time beside an event. The paper takes its dwell, which is known only when the target has been clicked.
  `mode="causal"`: the dwell of the item before, time(t) - time(t-1), and a bin START at first. `mode="paper"` reads the
  prepared column "dwell", and says causal = False. Bins: see bins.py; longer than an hour counts as an hour.
- Equation 3 has a GRU, the experiments an LSTM: here an LSTM. Sizes "item 64 ... item 32": the second is the user's.
- The full connection ends in the size of an item. Equation 20's b_j is alike for all items and left out.
- An unknown user has a vector of its own, number 0, which training learns on a tenth of the rows.
- The user's attention (equation 19): p_j = tanh(W_u h_j + b_u). What was never evaluated: asars_temporal.py.

State: two LSTM states, (max, sum, weighted sum), the last time, the user, the newest scores to explain from: 2.1 kB.
One event: O(H^2), whatever the history. `query="last"` keeps 200 events, 160 kB more.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.config import Only
from foretaste.data.sequences import Sequences
from foretaste.models.asars_temporal import Temporal
from foretaste.models.bins import TimeBins, dwells, gaps, given
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import at_length, slide
from foretaste.models.triangle import LOWEST, before_each, newest, recent, run, running_softmax, windowed_softmax
from foretaste.spaces import THIRD, Between, OneOf, Space

TIMED = Only(variant=("time_user", "time_att", "time_cat"))
OWNED = ("time_user", "user_att", "user_cat")
BINNED = (TIMED, Only(item_bins=True))


class ASARS(SequenceModel):
    """Attentional Session-Aware Recommender System. Score: o . e_k + b_k, one inner product; indexable."""

    class Config(Settings):
        """Sizes and variants; the defaults are the paper's, but for the mode and for user_dropout, which it lacks."""

        variant: Literal["time_user", "user_att", "user_cat", "time_att", "time_cat", "none"] = "time_user"
        """Attention by time, user beside it; attention by user; no attention, user beside it; attention by time alone;
        time beside each item; or the plain LSTM."""
        embedding_size: int = Field(64, ge=1)
        """D, size of an item embedding."""
        time_size: Annotated[int, TIMED] = Field(16, ge=1)
        """Size of the embedding of a time bin."""
        user_size: Annotated[int, Only(variant=OWNED)] = Field(32, ge=1)
        """Size of a user's vector."""
        hidden_size: int = Field(100, ge=1)
        """H, size of both LSTMs' states."""
        dropout: float = Field(0.5, ge=0, lt=1)
        """Share of embedding entries dropped in training, before both LSTMs."""
        user_dropout: Annotated[float, Only(variant=OWNED)] = Field(0.1, ge=0, lt=1)
        """Share of rows that train the vector of unknown users."""
        mode: Literal["causal", "paper"] = "causal"
        """Time beside an event: since the event before it, or the column "dwell", which knows of the next one."""
        query: Literal["own", "last"] = "own"
        """An event's score is p_j . h_j (its own state), or p_j . h_t (the newest)."""
        window: Annotated[int, Only(query="last")] = Field(200, ge=1)
        """W, how many events `query="last"` sees."""
        explained: Annotated[int, Only(variant=("time_user", "time_att", "user_att"), query="own")] = Field(20, ge=1)
        """How many of the newest events keep their score in the state, for `explain`."""
        longest: Annotated[float, *BINNED] = Field(3600.0, gt=0)
        """Seconds; a longer time counts as this."""
        max_bins: Annotated[int, *BINNED] = Field(1000, ge=1)
        """Most time bins; the last takes what is longer."""
        temporal: bool = False
        """Equations 5-14: a row is a user, and each session leaves something behind. The fields below are its terms."""
        drift: Annotated[bool, Only(temporal=True)] = True
        """e_u(t) = e_u + alpha_u h_u(t), h_u a GRU over the ends of sessions."""
        dev: Annotated[bool, Only(drift=True)] = True
        """What enters that GRU is scaled by dev_u(t)."""
        item_bins: Annotated[bool, Only(temporal=True)] = True
        """An item's bias moves with the bin of the last gap."""
        bin_rank: Annotated[int, Only(item_bins=True)] = Field(16, ge=1)
        """Rank of those biases, items by bins."""
        level: Annotated[bool, Only(temporal=True)] = True
        """mu + b_u + alpha_u dev_u(t), alike for all items."""

        @model_validator(mode="after")
        def _agrees(self) -> Self:
            if self.temporal and self.variant not in OWNED:
                raise ValueError(f"temporal: take variant time_user, user_att or user_cat, not '{self.variant}'")
            if self.query == "last" and self.variant not in ("time_user", "time_att"):
                raise ValueError(f"query = 'last' asks by time: take time_user or time_att, not '{self.variant}'")
            if self.mode == "paper" and not self.reads("max_bins"):
                raise ValueError(f"mode = 'paper' is about time, and variant '{self.variant}' reads none: leave it out")
            return self

    summary = "LSTM over the session, attention by how long each item was looked at, and the user's vector"
    paper = "Wang, Li, Yan, Time-weighted Attentional Session-Aware Recommender System, arXiv 1909.05414"
    needs = frozenset({"users", "times"})
    recipe: ClassVar = {"loss": "hinge", "sampler": "batch", "optimizer": "adagrad", "learning_rate": 0.2, "batch": 512,
                        "chunk": 200, "epochs": 100, "patience": 10}
    space: ClassVar[Space] = {"learning_rate": Between(1e-2, 0.5), "hidden_size": OneOf(50, 100), "dropout": THIRD}
    masters = ("popularity", "last_item", "order", "set", "user_taste", "dwell")
    beyond = "distant"
    per_user = ("user.weight", "temporal.alpha", "temporal.user_bias", "temporal.mean_day")

    config: ASARS.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c = self.config
        D, H = c.embedding_size, c.hidden_size
        self.scope = "user" if c.temporal else "session"
        self.causal = c.mode == "causal" or not c.reads("max_bins")
        self.item = nn.Embedding(n_items + 1, D, padding_idx=0)            # e [1 + I, D]
        self.dropped = nn.Dropout(c.dropout)
        self.item_b = nn.Parameter(torch.empty(n_items))                   # b_k
        self.lstm = nn.LSTM(D + (c.time_size if c.variant == "time_cat" else 0), H, batch_first=True)
        self.bins = TimeBins(c.longest, c.max_bins) if c.reads("max_bins") else None
        if c.variant.startswith("time"):
            self.time = nn.Embedding(1 + c.max_bins, c.time_size)          # bins, START first
        if "user" in c.variant:
            self.user = nn.Embedding(1 + n_users, c.user_size)             # e_u; row 0: users unknown
        self.attends = {"time_user": "time", "time_att": "time", "user_att": "user"}.get(c.variant)
        if self.attends == "time":
            self.time_lstm = nn.LSTM(c.time_size, H, batch_first=True)
        if self.attends:
            self.W_s = nn.Linear(H, H if self.attends == "time" else c.user_size)
        self.out = nn.Linear(H + (c.user_size if "user" in c.variant else 0), D)  # FC
        self.temporal = Temporal(n_items, n_users, c) if c.temporal else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        bound = 1 / math.sqrt(self.config.hidden_size)
        for name, weight in self.named_parameters():
            if name in ("item_b", "temporal.mu", "temporal.user_bias"):
                nn.init.zeros_(weight)
            elif name == "temporal.alpha":
                nn.init.ones_(weight)
            else:
                nn.init.uniform_(weight, -bound, bound)
        self.item.weight.data[0] = 0

    @classmethod
    def needs_of(cls, config: Settings) -> frozenset[str]:
        """Users, times, sessions or the column "dwell", by variant."""
        assert isinstance(config, ASARS.Config)
        needs = {"users"} if "user" in config.variant else set()
        if config.reads("max_bins"):
            needs.add("times" if config.mode == "causal" else "dwell")
        if config.temporal:
            needs |= {"sessions", "times"} if config.level or (config.drift and config.dev) else {"sessions"}
        return frozenset(needs)

    def count(self, log: Sequences) -> None:
        """The width of the time bins, and each user's mean time, from the training log."""
        if self.bins is not None:
            self.bins.fit(gaps(log) if self.config.mode == "causal" else dwells(log))
        if self.temporal is not None:
            self.temporal.count(log)

    def initial_state(self, users: Tensor) -> State:
        """Nothing seen. In training a share of the users is treated as unknown."""
        c, B = self.config, len(users)

        H, state = c.hidden_size, {"seen": torch.zeros_like(users)}        # [B] events of the open session

        def zeros(**sizes: int) -> State:
            return {name: self.item_b.new_zeros(B, size) for name, size in sizes.items()}

        if "user" in c.variant:
            unknown = torch.rand(B, device=users.device) < c.user_dropout if self.training else users == 0
            state["user"] = users.masked_fill(unknown, 0)                  # [B]
        if "times" in self.needs:
            state["last"] = torch.zeros_like(users)                        # [B] seconds, of the newest event
        state |= zeros(h=H, c=H)                                           # [B, H] the LSTM over items
        if self.attends == "time":
            state |= zeros(g=H, g_c=H)                                     # [B, H] the LSTM over time
        if self.attends and c.query == "own":
            state |= zeros(sum=H, scores=c.explained)                      # [B, H], [B, V] newest last
            state["mass"] = torch.zeros_like(state["sum"][:, 0])           # [B]
            state["top"] = torch.full_like(state["mass"], LOWEST)          # [B]
        elif self.attends:
            ring = self.item_b.new_zeros(B, c.window, H)                   # [B, W, H] newest last
            state |= {**zeros(q=H), "ring_p": ring, "ring_h": ring.clone()}  # [B, H] and the rings
        if self.temporal is not None and c.drift:
            state |= zeros(taste=c.user_size)                              # [B, H_u] h_u
        if self.temporal is not None and c.item_bins:
            state["bin"] = torch.zeros_like(users)                         # [B] of the newest event
        return state

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """Every prefix of every row in one pass (see `SequenceModel.forward`)."""
        steps, after = self._take_in(events, state)
        if at is not None:
            row, place = at.nonzero(as_tuple=True)                         # [N], [N]
            steps = {name: step[row, place] for name, step in steps.items()}  # [N, ...]
        return self._answer(steps), after                                  # [B, T, D] or [N, D]

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone. Before any event it is the user's, and the items' own bias."""
        return self._answer(state)[:, None]                                # [B, 1, D]

    def _take_in(self, events: Events, state: State) -> tuple[State, State]:
        """What holds after each event [B, T, ...], under the state's names; and the state after the last."""
        c, lengths = self.config, events.lengths()                         # [B]
        place = torch.arange(events.shape[1], device=lengths.device)       # [T]
        starts = events.starts & (self.temporal is not None)               # [B, T] a session's row has no second start
        begins = torch.where(starts, place, -1).cummax(1).values           # [B, T] where its session does, -1: before
        seen = place + 1 - begins.where(begins >= 0, -state["seen"][:, None])  # [B, T]
        steps, rings = {"seen": seen}, {}
        if "user" in state:
            steps["user"] = state["user"][:, None].expand_as(seen)         # [B, T]
        if "last" in state:
            steps["last"] = given(events.times, "times")                   # [B, T]
        if self.bins is not None and c.mode == "causal":
            gap = steps["last"] - before_each(steps["last"], state["last"])  # [B, T] dwell of the item before
            steps["bin"] = self.bins(gap, seen == 1)                       # [B, T]
        elif self.bins is not None:
            steps["bin"] = self.bins(given(events.columns.get("dwell"), "column 'dwell'"), ~events.mask)  # [B, T]

        inputs = self.dropped(self.item(events.items))                     # [B, T, D]
        if c.variant == "time_cat":
            inputs = torch.cat([inputs, self.dropped(self.time(steps["bin"]))], -1)  # [B, T, D + D_t]
        steps["h"], rings["c"] = run(self.lstm, inputs, events.mask, starts, state["h"], state["c"])
        if "taste" in state:
            assert self.temporal is not None
            ended = starts & ((place > 0) | (state["seen"] > 0)[:, None])  # [B, T]
            times = before_each(steps["last"], state["last"]) if "last" in state else None  # [B, T]
            hidden = before_each(steps["h"], state["h"])                   # [B, T, H]
            steps["taste"] = self.temporal.tastes(ended, hidden, state["user"], times, state["taste"])  # [B, T, H_u]
        if self.attends == "time":
            inputs = self.dropped(self.time(steps["bin"]))                 # [B, T, D_t]
            steps["g"], rings["g_c"] = run(self.time_lstm, inputs, events.mask, starts, state["g"], state["g_c"])
        if self.attends:
            p = torch.tanh(self.W_s(steps["g" if self.attends == "time" else "h"]))  # [B, T, H or H_u]  eq. 15
        if self.attends and c.query == "own":
            wanted = steps["h"] if self.attends == "time" else self._user(steps)  # [B, T, H or H_u]
            steps["score"] = (p * wanted).sum(-1)                          # [B, T]  eq. 16, 18, 19
            steps |= running_softmax(steps["score"], steps["h"], begins, state)  # [B, T], [B, T], [B, T, H]
            rings["scores"] = slide(state["scores"], steps["score"], lengths)  # [B, V]
        elif self.attends:
            old_p, old_h = state["ring_p"], state["ring_h"]                # [B, W, H]
            steps |= {"p": p, "q": windowed_softmax(steps["h"], p, seen, old_p, old_h)}  # [B, T, H]  eq. 17
            rings |= {"ring_p": slide(old_p, p, lengths), "ring_h": slide(old_h, steps["h"], lengths)}  # [B, W, H]
        return steps, {name: rings[name] if name in rings else at_length(steps[name], state[name], lengths)
                       for name in state}

    def _user(self, view: State) -> Tensor:
        """e_u, or e_u(t): [..., H_u]"""
        own: Tensor = self.user(view["user"])
        if self.temporal is None or "taste" not in view:
            return own
        return own + self.temporal.alpha[view["user"]][..., None] * view["taste"]  # eq. 11

    def _answer(self, view: State) -> Tensor:
        """[..., D], and what the temporal terms add, from what holds after an event."""
        if not self.attends:
            context = view["h"]                                            # [..., H]
        elif self.config.query == "last":
            context = view["q"]                                            # [..., H]
        else:
            context = view["sum"] / view["mass"].clamp(min=1)[..., None]   # [..., H]  eq. 17
        if "user" in view:
            context = torch.cat([context, self._user(view)], -1)           # [..., H + H_u]
        answer: Tensor = self.out(context)                                 # [..., D]
        return answer if self.temporal is None else torch.cat([answer, *self.temporal.asks(view)], -1)

    def item_matrix(self) -> Tensor:
        """e; with `temporal`, c_i beside it, where the query carries the bin, and in training 1, for the level."""
        rows = self.item.weight[1:]                                        # [I, D]
        return rows if self.temporal is None else torch.cat([rows, *self.temporal.answers(rows)], -1)

    def item_bias(self) -> Tensor:
        """b_k."""
        return self.item_b                                                 # [I]

    def owned(self, users: Tensor, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """e_u of each user, e_k and b_k of each item."""
        own = [(self.user.weight, users[users > 0])] if "user" in self.config.variant else []
        return [*own, (self.item.weight, items), (self.item_b, items - 1)]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T, V]: the weights of equation 16 over the V newest events of the session, newest last.

        V is `explained` (`window` for query="last"); in a longer session the rest of the weight lies on older events.
        """
        if not self.attends:
            return {}
        steps, _ = self._take_in(events, state)
        if self.config.query == "own":
            scores = newest(state["scores"], steps["score"])               # [B, T, V]
            return {"attention": recent(scores, steps["seen"], steps["top"], steps["mass"])}
        scores = torch.einsum("bth,bthv->btv", steps["h"], newest(state["ring_p"], steps["p"]))  # [B, T, V]
        return {"attention": recent(scores, steps["seen"])}
