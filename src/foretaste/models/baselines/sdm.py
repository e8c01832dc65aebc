"""SDM: an LSTM, self-attention and the user's attention read the open session; a gate mixes in the closed ones.

Lv, Jin, Yu, Sun, Lin, Yang, Ng, "SDM: Sequential Deep Matching Model for Online Large-scale Recommender System", CIKM
2019, section 3, with item ids alone (the paper adds leaf and first-level category, brand, shop, and a user's profile):

    h_t = LSTM(x_t), afresh in each session;   ^h = multi-head self-attention over h, causal
    s   = sum over the open session of softmax(^h_k . e_u) ^h_k                      the short term
    z   = sum over closed sessions of softmax(g_k . e_u) g_k,  g_k = W_f x_k + b_f;   p = tanh(W_p z + b_p)
    G   = sigma(W [e_u; s; p] + b),   o = G * s + (1 - G) * p,   score(i) = o . v_i

Left open or simplified, and what was chosen:
- One long set, of items; the paper has one for each kind of attribute, side by side before W_p. It takes those of the
  last seven days and at most some tens of each; here all events of closed sessions count, by a running softmax.
- A session of more than W = 50 events is cut, as in the paper: a new one begins with event 51. So self-attention never
  sees more than 50 states, and they are all that a ring has to keep.
- Self-attention: scaled by the root of a head's size, then h + W_O [heads], then a norm, as in the authors' code;
  `residual=False` is the equation as printed. No map has a bias, and attention weights are not dropped, as they are in
  that code. The user's attention is as printed, neither scaled nor mapped.
- All vectors have one size, so that e_u can be compared with ^h and g. Layers of the LSTM after the first add what
  they read; 2 of them, 128 numbers, dropout 0.2 before each layer and after the heads are the authors' settings.
- With no closed session z = 0, and p = tanh(b_p); with no open one s = 0. So a first answer is the gate's share of p.
- A user never seen has the mean of all users (see bpr_mf.py).
- Training: sampled softmax with logQ correction, one pool a step. The authors take 20,000 of 10^8 items by a
  log-uniform law over ids sorted by frequency, which is popularity; here 1,000 by popularity. Adagrad, 0.1, with sums
  that begin at 0.1 as TensorFlow's do; norm at most 5. Tables uniform within 0.1, dense weights orthogonal,
  the forget gate's bias 1.

To be checked against: DMAN's Table 3 (MovieLens-1M, leave one out, % HR@10 / HR@50 / NDCG@100: 23.42 / 51.26 / 20.44).

State, D = 128: two LSTM states 2 kB, the ring 25.6 kB, three triples 1.6 kB: 29 kB. One event: O(D^2 + W D).
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.models.baselines.shan import ever_and_long, no_softmax, open_softmax, session_places, softmax_mean
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import Users, at_length, slide
from foretaste.models.triangle import newest, recent, run, windowed_softmax
from foretaste.spaces import Between, OneOf, Space


class SDM(SequenceModel):
    """Sequential Deep Matching. Score: o . v_i, one inner product; indexable."""

    class Config(Settings):
        """Sizes; the defaults are the authors' published settings."""

        embedding_size: int = Field(128, ge=1)
        """D, size of every vector: items, users, LSTM, output."""
        layers: int = Field(2, ge=1)
        """L, layers of the LSTM; those after the first add what they read."""
        heads: int = Field(4, ge=1)
        """Heads of the self-attention; D is divided among them."""
        residual: bool = True
        """Self-attention adds what it read and is normalised, as in the authors' code; off, the equation as printed."""
        window: int = Field(50, ge=1)
        """W, the longest session; a longer one is cut, and its part counts as closed."""
        dropout: float = Field(0.2, ge=0, lt=1)
        """Share dropped in training, before each layer of the LSTM and after the heads."""

        @model_validator(mode="after")
        def _agrees(self) -> Self:
            if self.embedding_size % self.heads:
                raise ValueError(f"embedding_size = {self.embedding_size} cannot be divided among {self.heads} heads")
            return self

    summary = "LSTM and self-attention over the open session, gated with the user's attention over closed ones"
    paper = "Lv et al., SDM: Sequential Deep Matching Model for Online Large-scale Recommender System, CIKM 2019"
    scope = "user"
    needs = frozenset({"users", "sessions"})
    recipe: ClassVar = {
        "loss": "sampled_softmax", "negatives": 1000, "shared_negatives": True, "sampler": "popularity",
        "sampler_power": 1.0, "exclude_touched": False, "optimizer": "adagrad", "learning_rate": 0.1,
        "accumulator": 0.1, "clip": 5.0, "batch": 256, "epochs": 30,
    }  # fmt: skip
    space: ClassVar[Space] = {
        "learning_rate": Between(1e-2, 0.3), "embedding_size": OneOf(64, 128), "dropout": OneOf(0.1, 0.2, 0.4),
    }  # fmt: skip
    masters = ("popularity", "order", "set")
    short_of: ClassVar = {
        "last_item": "without users its attention is nearly a mean, and it learns slowly",
        "user_taste": "a user's vector is in its attention alone",
    }
    beyond = "dwell"

    config: SDM.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c, D = self.config, self.config.embedding_size
        self.item = nn.Embedding(n_items + 1, D, padding_idx=0)            # x [1 + I, D]
        self.user = Users(n_users, D)                                      # e [1 + U, D]
        self.lstms = nn.ModuleList(nn.LSTM(D, D, batch_first=True) for _ in range(c.layers))
        self.qkv = nn.Linear(D, 3 * D, bias=False)                         # W_Q, W_K, W_V of all heads
        self.W_O = nn.Linear(D, D, bias=False)
        self.norm = nn.LayerNorm(D) if c.residual else None
        self.W_f = nn.Linear(D, D)
        self.W_p = nn.Linear(D, D)
        self.gate = nn.Linear(3 * D, D)
        self.v = nn.Parameter(torch.empty(n_items, D))                     # v [I, D]
        self.dropped = nn.Dropout(c.dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        for name, weight in self.named_parameters():
            if name in ("item.weight", "user.weight", "v"):
                nn.init.uniform_(weight, -0.1, 0.1)
            elif weight.dim() == 2:
                for part in torch.split(weight.data, self.config.embedding_size):
                    nn.init.orthogonal_(part)
            elif name == "norm.weight":
                nn.init.ones_(weight)
            else:
                nn.init.zeros_(weight)
            if name.endswith("bias_ih_l0"):
                weight.data.chunk(4)[1].fill_(1)                           # the forget gate's
            elif name in ("item.weight", "user.weight"):
                weight.data[0] = 0

    def initial_state(self, users: Tensor) -> State:
        """No session closed, none open."""
        c, B, like = self.config, len(users), self.item.weight
        D = c.embedding_size
        state = {"user": users, "seen": torch.zeros_like(users),           # [B]; events of the open session, at most W
                 "ring": like.new_zeros(B, c.window, D),                   # [B, W, D] h, newest last
                 "scores": like.new_zeros(B, c.window)}                    # [B, W] ^h . e_u, to explain from
        for layer in range(c.layers):
            state |= {f"h{layer}": like.new_zeros(B, D), f"c{layer}": like.new_zeros(B, D)}
        for name in ("open", "ever", "long"):
            state |= no_softmax(name, like, B, D)                          # [B], [B], [B, D]
        return state

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """Every prefix of every session in one pass (see `SequenceModel.forward`)."""
        steps, after = self._take_in(events, state)
        e = self.user(state["user"])                                       # [B, D]
        if at is None:
            return self._answer(e[:, None].expand(-1, events.shape[1], -1), steps)[0], after  # [B, T, D]
        row, place = at.nonzero(as_tuple=True)                             # [N], [N]
        return self._answer(e[row], {name: step[row, place] for name, step in steps.items()})[0], after  # [N, D]

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone."""
        return self._answer(self.user(state["user"]), state)[0][:, None]   # [B, 1, D]

    def _take_in(self, events: Events, state: State) -> tuple[State, State]:
        """What holds after each event [B, T, ...], under the state's names; and the state after the last."""
        c, lengths = self.config, events.lengths()                         # [B]
        _, place = session_places(events, state["seen"])                   # [B, T]
        seen = (place - 1) % c.window + 1                                  # [B, T] a long session is cut
        starts = (seen == 1) & events.mask                                 # [B, T]
        when = torch.arange(events.shape[1], device=seen.device)           # [T]
        begins = torch.where(starts, when, -1).cummax(1).values            # [B, T]
        e = self.user(state["user"])[:, None]                              # [B, 1, D]
        x = self.item(events.items)                                        # [B, T, D]

        after, h = {"user": state["user"]}, x
        steps = {"seen": seen}
        for layer, lstm in enumerate(self.lstms):
            assert isinstance(lstm, nn.LSTM)
            before = state[f"h{layer}"], state[f"c{layer}"]                # [B, D] each
            out, after[f"c{layer}"] = run(lstm, self.dropped(h), events.mask, starts, *before)  # [B, T, D], [B, D]
            steps[f"h{layer}"] = out
            h = out + h if layer else out                                  # [B, T, D]
        attended = self._attend(h, seen, state["ring"])                    # [B, T, D]  ^h
        scores = (attended * e).sum(-1)                                    # [B, T]
        steps |= open_softmax(scores, attended, begins, state)
        g = self.W_f(x)                                                    # [B, T, D]
        steps |= ever_and_long((g * e).sum(-1), g, begins, state)
        after |= {"ring": slide(state["ring"], h, lengths), "scores": slide(state["scores"], scores, lengths)}
        return steps, after | {name: at_length(step, state[name], lengths) for name, step in steps.items()}

    def _heads(self, h: Tensor, ring: Tensor, used: int) -> tuple[Tensor, ...]:
        """Queries, keys, values [B heads, T, d], and the ring's keys and values [B heads, W, d]; `used` are filled."""
        def split(rows: Tensor) -> Tensor:
            B, T, D = rows.shape
            size = D // self.config.heads                                  # d
            return rows.view(B, T, self.config.heads, size).transpose(1, 2).reshape(B * self.config.heads, T, size)

        filled, blank = ring[:, ring.shape[1] - used :], (0, 0, ring.shape[1] - used, 0)  # [B, R, D]
        q, k, v = (split(part) for part in self.qkv(h).chunk(3, -1))       # [B heads, T, d]
        _, old_k, old_v = (nn.functional.pad(split(part), blank) for part in self.qkv(filled).chunk(3, -1))
        return q / math.sqrt(q.shape[-1]), k, v, old_k, old_v

    def _attend(self, h: Tensor, seen: Tensor, ring: Tensor) -> Tensor:
        """Multi-head self-attention of each state over its session so far: [B, T, D] -> [B, T, D]"""
        (B, T), heads = seen.shape, self.config.heads
        used = int((seen[:, 0] - 1).max()) if B * T else 0                 # R, filled places of the ring in sight
        q, k, v, old_k, old_v = self._heads(h, ring, used)
        mixed = windowed_softmax(q, k, seen.repeat_interleave(heads, 0), old_k, old_v, values=v)  # [B heads, T, d]
        together = mixed.view(B, heads, T, mixed.shape[-1]).transpose(1, 2).reshape(h.shape)  # [B, T, D]
        answer: Tensor = self.W_O(together)                                # [B, T, D]
        return answer if self.norm is None else self.norm(h + self.dropped(answer))

    def _answer(self, e: Tensor, view: State) -> tuple[Tensor, Tensor]:
        """o and the gate G: [..., D] each."""
        short, z = softmax_mean(view, "open"), softmax_mean(view, "long")  # [..., D]
        p = torch.tanh(self.W_p(z))                                        # [..., D]
        gate = torch.sigmoid(self.gate(torch.cat([e, short, p], -1)))      # [..., D]
        return torch.lerp(p, short, gate), gate                            # G s + (1 - G) p

    def item_matrix(self) -> Tensor:
        """v."""
        return self.v                                                      # [I, D]

    def owned(self, users: Tensor, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """e of each user, x and v of each item."""
        return [(self.user.weight, users), (self.item.weight, items), (self.v, items - 1)]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T, W]: the user's attention over the open session, the newest last. "gate" [B, T, D]: G, the
        short term's share. "self_attention" [B, T, W]: what the newest state reads in it, the mean of the heads.
        """
        (B, T), c = events.shape, self.config
        if not B * T:
            return {}
        steps, _ = self._take_in(events, state)
        seen, e = steps["seen"], self.user(state["user"])[:, None]         # [B, T], [B, 1, D]
        h = self.item(events.items)                                        # [B, T, D]
        for layer in range(c.layers):
            h = steps[f"h{layer}"] + h if layer else steps["h0"]           # [B, T, D]
        q, k, _, old, _ = self._heads(h, state["ring"], c.window)
        match = torch.einsum("bth,bthv->btv", q, newest(old, k))           # [B heads, T, W]
        weights = recent(match, seen.repeat_interleave(c.heads, 0)).view(B, c.heads, T, -1).mean(1)  # [B, T, W]
        scores = newest(state["scores"], (self._attend(h, seen, state["ring"]) * e).sum(-1))  # [B, T, W]
        _, gate = self._answer(e.expand(-1, T, -1), steps)
        return {"attention": recent(scores, seen), "self_attention": weights, "gate": gate}
