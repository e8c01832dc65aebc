"""LSAMN: a user's lasting taste and the course of their sessions, weighed against each other at every step.

Chen, Zhang, Qi, Yuan, "Sequence-Aware Recommendation with Long-Term and Short-Term Attention Memory Networks", MDM
2019, section IV.

Left open or contradicted by the paper, and what was chosen:
- Equation 13 scores the items of session t from a state that has read session t. Algorithm 1 does not, and neither does
  this: the state after session t answers for session t + 1. Every such step trains (`targets = "session"`); Algorithm 1
  uses the last session of each user alone (`targets = "last_session"`).
- The paper has only whole sessions. Here the open one counts as far as it has come: b_t is the attention over its items
  so far, h_t a GRU step from the closed ones. Before any event b = 0 and h = 0.
- A session is a set: an item counts once. The state lists the first `session_limit` distinct items of the open session.
  Those that come later are read all the same, but each of their repeats counts again.
- One letter, Omega_t, is the bias of the GRU and of the output. They are two: the GRU's own, and c, one number an item.
- A level that is switched off takes means (items) or one half each (preferences); W1 and W2 absorb the scale.
- A user who is not in training has the mean of all user vectors, taken when training ends and when users are forgotten.
- The paper gives grids and no choices, and no initial weights. Here d = 40, the middle of its grid; all weights uniform
  within 1 / sqrt(d), c = 0. `init="normal"` draws the three tables from N(0, 0.01^2), as is usual for factor models.
- The paper's one penalty is on all weights: `l2` is that of users and items, `penalties = { Phi = ..., V_ = ..., gru =
  ... }` of the others, and is not in the recipe.
- The paper descends by plain SGD; the recipe is Adam, which does not mind how many targets a step has.

One pass for any number of sessions: inside them a running softmax, as a scan of log2(longest session) steps; over them
one run of the GRU; then one step more of it for each position that is asked. The running softmax is kept as the log of
its sum and its weighted mean: what (max, sum, weighted sum) say, in one number less (session_sets.py). Each event
rounds that log once: in single precision weights are off by 1e-7 of it an event. Where training asks the ends of
sessions alone, it need not run: one sum a session does.

State, d = 40: h, b and the log 324 bytes; 64 item numbers and the user's 520 bytes. One event: O(d^2).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import at_length
from foretaste.models.session_sets import Sets, ends_of, join, nothing, sets_of
from foretaste.spaces import L2, RATE, SIZE, Space


class LSAMN(SequenceModel):
    """Long- and Short-term Attention Memory Network. Score: one inner product of 2d numbers and a bias; indexable."""

    class Config(Settings):
        """Sizes and ablations."""

        embedding_size: int = Field(40, ge=1)
        """d, size of every vector; the paper tries 10 to 100."""
        item_attention: bool = True
        """Items of a session are weighed by attention; off, their mean. On alone: S-LSAMN."""
        preference_attention: bool = True
        """Long and short term are weighed by attention; off, one half each. On alone: P-LSAMN; both off: N-LSAMN."""
        session_limit: int = Field(64, ge=1)
        """K, how many distinct items of the open session are known again when they are repeated."""
        init: Literal["uniform", "normal"] = "uniform"
        """Initial weights; see the first lines of this file."""

    summary = "a user's vector against a GRU over sessions, attention inside a session and between the two"
    paper = ("Chen et al., Sequence-Aware Recommendation with Long-Term and Short-Term Attention Memory Networks, "
             "MDM 2019")  # fmt: skip
    scope = "user"
    needs = frozenset({"users", "sessions"})
    recipe: ClassVar = {
        "targets": "session", "loss": "bce", "negatives": 5, "sampler": "uniform",
        "optimizer": "adam", "learning_rate": 2e-3, "batch": 256, "epochs": 60,
    }  # fmt: skip
    space: ClassVar[Space] = {"learning_rate": RATE, "embedding_size": SIZE, "l2": L2}
    masters = ("popularity", "set", "user_taste")
    short_of: ClassVar = {"last_item, order": "a session is a set of items"}
    beyond = "order"

    config: LSAMN.Config
    stranger: Tensor

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c, d = self.config, self.config.embedding_size
        self.item = nn.Embedding(n_items + 1, d, padding_idx=0)            # x [1 + I, d]
        self.user = nn.Embedding(n_users + 1, d, padding_idx=0)            # v [1 + U, d]
        self.register_buffer("stranger", torch.zeros(d))                   # [d] the mean of v
        if c.item_attention:
            self.Phi0 = nn.Linear(d, d)                                    # with Omega_0
            self.V_beta = nn.Parameter(torch.empty(d))
        self.gru = nn.GRU(d, d, batch_first=True)
        self.Phi1 = nn.Linear(d, d)                                        # with Omega_1
        self.Phi2 = nn.Linear(d, d)                                        # with Omega_2
        if c.preference_attention:
            self.Phi3 = nn.Linear(d, d)                                    # with Omega_l
            self.Phi4 = nn.Linear(d, d, bias=False)
            self.Phi5 = nn.Linear(d, d)                                    # with Omega_s
            self.Phi6 = nn.Linear(d, d, bias=False)
            self.V_alpha = nn.Parameter(torch.empty(d))
        self.W = nn.Parameter(torch.empty(n_items, 2 * d))                 # [W1 | W2]
        self.c = nn.Parameter(torch.empty(n_items))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        bound = 1 / math.sqrt(self.config.embedding_size)
        for name, weight in self.named_parameters():
            if self.config.init == "normal" and name in ("item.weight", "user.weight", "W"):
                nn.init.normal_(weight, std=0.01)
            else:
                nn.init.uniform_(weight, -bound, bound)
        with torch.no_grad():
            self.c.zero_()
            for table in (self.item, self.user):
                table.weight[0] = 0

    def train(self, mode: bool = True) -> Self:
        """As ever; on leaving training the mean user is taken, so that a stranger costs no more than anybody else."""
        if not mode:
            self.stranger.copy_(self._mean_user())
        return super().train(mode)

    def forget(self, users: Tensor) -> None:
        """As ever; the mean user is what is left."""
        super().forget(users)
        self.stranger.copy_(self._mean_user())

    def _mean_user(self) -> Tensor:
        return self.user.weight[1:].detach().sum(0) / max(self.n_users, 1)  # [d]

    def initial_state(self, users: Tensor) -> State:
        """No session closed, none open."""
        d, blank = self.config.embedding_size, self.item.weight.new_zeros(len(users))  # [B]
        return {"user": users,                                             # [B]
                "h": blank[:, None].repeat(1, d),                          # [B, d] after the closed sessions
                "mean": blank[:, None].repeat(1, d),                       # [B, d] b of the open one
                "level": torch.full_like(blank, nothing(blank)),           # [B] log of the sum of its softmax
                "ids": users.new_zeros(len(users), self.config.session_limit)}  # [B, K] its distinct items, 0 for none

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """Every prefix of every session in one pass (see `SequenceModel.forward`)."""
        (B, T), K = events.shape, self.config.session_limit
        if not B * T:
            return self.W.new_zeros(*(events.shape if at is None else (0,)), self.W.shape[1]), state
        sets = sets_of(events, state["ids"])
        ends = None if at is None else ends_of(sets, events.mask)          # [B, T]
        if at is None or ends is None or (at & ~ends).any():
            level, b = self._running(events, state, sets)                  # [B, T], [B, T, d]
        else:
            level, b = self._whole(events, state, sets, ends)              # [B, T], [B, T, d]
        hidden, closed = self._close(events, state, b)                     # [B, 1 + S, d], [B, T]
        lengths, rows = events.lengths(), torch.arange(B, device=b.device)  # [B], [B]
        slot = sets.slot.masked_fill(sets.owner != sets.owner[:, -1:], K)  # [B, R + T] only the session left open
        listed = state["ids"].new_zeros(B, K + 1).scatter(1, slot, sets.items)  # [B, K + 1]
        after = {"user": state["user"],
                 "h": hidden[rows, closed[:, -1]],                         # [B, d]
                 "mean": at_length(b, state["mean"], lengths),             # [B, d]
                 "level": at_length(level[..., None], state["level"][:, None], lengths)[:, 0],  # [B]
                 "ids": listed[:, :K]}                                     # [B, K]
        row, place = (torch.ones_like(events.mask) if at is None else at).nonzero(as_tuple=True)  # [N], [N]
        now = b[row, place]                                                # [N, d]
        h = self._step(now, hidden[row, closed[row, place]])               # [N, d]
        answer, _ = self._answer(state["user"], row, now, h)               # [N, 2d]
        return (answer if at is not None else answer.view(B, T, -1)), after

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone; before any event b and h are 0."""
        h = self._step(state["mean"], state["h"])                          # [B, d]
        h = torch.where(state["ids"][:, :1] > 0, h, state["h"])            # [B, d]
        rows = torch.arange(len(h), device=h.device)                       # [B]
        return self._answer(state["user"], rows, state["mean"], h)[0][:, None]  # [B, 1, 2d]

    def _running(self, events: Events, state: State, sets: Sets) -> tuple[Tensor, Tensor]:
        """Equations 2-3 for every prefix of every session: log of the sum [B, T], b [B, T, d]."""
        x = self.item(events.items)                                        # [B, T, d]
        level = self._item_scores(x).masked_fill(~sets.counts, nothing(x))  # [B, T]
        b = x * sets.counts[..., None]                                     # [B, T, d]
        begin = torch.where(events.starts, torch.arange(x.shape[1], device=x.device), 0).cummax(1).values  # [B, T]
        longest, reach = int((events.mask.cumsum(1) - begin).max()), 1
        while reach < longest:  # row t holds the events t - reach + 1 .. t of its session
            same = sets.session[:, reach:] == sets.session[:, :-reach]     # [B, T - reach]
            joined = join(level[:, :-reach], b[:, :-reach], level[:, reach:], b[:, reach:], same)
            level, b = (torch.cat([part[:, :reach], more], 1) for part, more in zip((level, b), joined, strict=True))
            reach *= 2
        return join(state["level"][:, None], state["mean"][:, None], level, b, sets.session == 0)

    def _whole(self, events: Events, state: State, sets: Sets, ends: Tensor) -> tuple[Tensor, Tensor]:
        """The same at the `ends` [B, T] alone: one sum a session, which is all that training asks."""
        B, S = len(ends), int(sets.session.max()) + 1
        row, place = sets.counts.nonzero(as_tuple=True)                    # [n], [n]
        owner = row * S + sets.session[row, place]                         # [n]
        x = self.item(events.items[row, place])                            # [n, d]
        score = self._item_scores(x)                                       # [n]
        top = score.new_full((B * S,), nothing(x)).scatter_reduce(0, owner, score.detach(), "amax")  # [B S]
        share = (score - top[owner]).exp()                                 # [n]
        total = torch.zeros_like(top).index_add(0, owner, share).clamp(min=1)  # [B S] that of the top is 1
        b = x.new_zeros(B * S, x.shape[1]).index_add(0, owner, share[:, None] * x) / total[:, None]  # [B S, d]
        level, b = (top + total.log()).view(B, S), b.view(B, S, -1)        # [B, S], [B, S, d]
        old = join(state["level"][:, None], state["mean"][:, None], level[:, :1], b[:, :1], ends.new_ones(B, 1))
        level, b = (torch.cat([first, part[:, 1:]], 1) for first, part in zip(old, (level, b), strict=True))
        where = ends.nonzero(as_tuple=True)                                # [e], [e]
        found = where[0], sets.session[where]                              # [e], [e]
        spread = x.new_zeros(*ends.shape, x.shape[1]).index_put(where, b[found])  # [B, T, d]
        return x.new_zeros(ends.shape).index_put(where, level[found]), spread  # [B, T]

    def _item_scores(self, x: Tensor) -> Tensor:
        """V_beta . a_i of items [..., d]: [...]; without attention 0 for all, which gives means."""
        if not self.config.item_attention:
            return x.new_zeros(x.shape[:-1])
        scores: Tensor = torch.sigmoid(self.Phi0(x)) @ self.V_beta         # [...]  eq. 1, 2
        return scores

    def _close(self, events: Events, state: State, b: Tensor) -> tuple[Tensor, Tensor]:
        """h after 0, 1, ... S of the sessions that this call closes [B, 1 + S, d]; how many, at each event [B, T]."""
        closes = events.starts & events.mask                               # [B, T] the session before is over
        closes[:, 0] &= state["ids"][:, 0] > 0                             # if there is one
        closed = closes.cumsum(1)                                          # [B, T]
        before = state["h"][:, None]                                       # [B, 1, d]
        S = int(closed[:, -1].max())
        if not S:
            return before, closed
        row, place = closes.nonzero(as_tuple=True)                         # [M], [M]
        whole = torch.cat([state["mean"][:, None], b], 1)[row, place]      # [M, d] as they stood one event earlier
        sessions = b.new_zeros(len(b), S, b.shape[2]).index_put((row, closed[row, place] - 1), whole)  # [B, S, d]
        hidden, _ = self.gru(sessions, state["h"][None])                   # [B, S, d]  eq. 6
        return torch.cat([before, hidden], 1), closed

    def _step(self, b: Tensor, h: Tensor) -> Tensor:
        """One session more: [N, d]"""
        after: Tensor = self.gru(b[:, None], h[None])[1][0]                # [N, d]  eq. 6
        return after

    def _answer(self, users: Tensor, row: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The query of each asked place, whose user is users[row]: [N, 2d]; (alpha_long, alpha_short) [N, 2]."""
        v = self.user(users)                                               # [B, d]
        v = torch.where(users[:, None] > 0, v, self._mean_user() if self.training else self.stranger)
        long = torch.tanh(self.Phi1(v))                                    # [B, d]  eq. 4
        short = torch.tanh(self.Phi2(h))                                   # [N, d]  eq. 5
        if self.config.preference_attention:
            m1 = torch.tanh(self.Phi3(long)[row] + self.Phi4(b)) @ self.V_alpha  # [N]  eq. 7
            m2 = torch.tanh(self.Phi5(short) + self.Phi6(b)) @ self.V_alpha  # [N]  eq. 8
            share = torch.stack([m1, m2], -1).softmax(-1)                  # [N, 2]  eq. 9, 10
        else:
            share = torch.full_like(b[:, :1], 0.5).expand(-1, 2)           # [N, 2]
        return torch.cat([share[:, :1] * long[row], share[:, 1:] * short], -1), share  # [N, 2d]

    def item_matrix(self) -> Tensor:
        """[W1 | W2], equation 11."""
        return self.W                                                      # [I, 2d]

    def item_bias(self) -> Tensor | None:
        """c, equation 11."""
        return self.c                                                      # [I]

    def owned(self, users: Tensor, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """v of the users; x, W1, W2 and c of the items."""
        return [(self.user.weight, users), (self.item.weight, items), (self.W, items - 1), (self.c, items - 1)]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" and "items" [B, T, V]: beta of the open session's distinct items, the oldest first, at most K.
        "long_short" [B, T, 2]: alpha_long, alpha_short. What the former lack to 1 belongs to items beyond the K-th.
        """
        (B, T), K = events.shape, self.config.session_limit
        if not B * T:
            return {}
        sets = sets_of(events, state["ids"])
        level, b = self._running(events, state, sets)                      # [B, T], [B, T, d]
        hidden, closed = self._close(events, state, b)                     # [B, 1 + S, d], [B, T]
        row, place = torch.ones_like(events.mask).nonzero(as_tuple=True)   # [B T]
        now = b.view(B * T, -1)                                            # [B T, d]
        _, share = self._answer(state["user"], row, now, self._step(now, hidden[row, closed[row, place]]))

        V = int(sets.slot.where(sets.slot < K, -1).max()) + 1
        lists = sets.owner * (V + 1) + sets.slot.clamp(max=V)              # [B, R + T] a list of V a session, and a bin
        shape = B, (int(sets.owner.max()) + 1) * (V + 1)
        come = torch.arange(sets.items.shape[1], device=b.device).expand(B, -1)  # [B, R + T]
        mine = (sets.session[..., None] * (V + 1) + torch.arange(V, device=b.device)).flatten(1)  # [B, T V]
        listed = sets.items.new_zeros(shape).scatter(1, lists, sets.items).gather(1, mine).view(B, T, V)
        since = sets.items.new_zeros(shape).scatter(1, lists, come).gather(1, mine).view(B, T, V)
        come_by = (since <= come[:, -T:, None]) & events.mask[..., None]   # [B, T, V]
        shown = listed.where(come_by, 0)                                   # [B, T, V] those that have come by t
        beta = (self._item_scores(self.item(shown)) - level[..., None]).exp()  # [B, T, V]  eq. 2
        return {"attention": beta.where(shown > 0, 0), "items": shown, "long_short": share.view(B, T, 2)}
