"""NARM: what the session does and what it is for, read by attention from the newest click.

Li, Ren, Chen, Ren, Lian, Ma, "Neural Attentive Session-based Recommendation", CIKM 2017, sections 3.2-3.5.

Left open or contradicted by the paper, and what was chosen:
- The attention weights. Equations 7-8 use the raw score; the authors' own code normalises it with a softmax over the
  session. Default: softmax. `attention="raw"` is the equation as printed (and what two popular ports compute).
- "BPTT 19". The authors' code cuts the input to the first 19 clicks. Default: the attention sees the last 19 and the
  GRU runs on; `keep="first"` freezes the answer after 19 events, for replication.
- "Two encoders" are one GRU in the authors' code, and here.
- Dropout: 0.25 on the embedded click, 0.5 on the context c; both from the paper's section 4.3.
- The GRU is PyTorch's: its gate z is swapped (a matter of names), and r multiplies (U h + b) rather than h. The
  authors' gates, and the sigma of their attention, are hard sigmoids; here they are sigmoids, as the paper has it.
- Initialisation: `init="authors"` draws E and every dense matrix from N(0, 2 / rows), with the rows of the authors'
  code: the items for E, D for B, one for v, else the inputs; recurrent matrices orthogonal, biases 0. Default: uniform
  within 1 / sqrt(H), the usual choice for GRUs of this size.

All prefixes of a session are one pass: the GRU runs once, and each position attends to the keys up to itself.

State, H = 100, W = 19: h and a ring of W keys, 8 kB; NARM-global 0.4 kB. One event: O(W H^2), whatever the history.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.config import Only
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import additive_scores, at_length, masked_softmax, slide, weighted_rows
from foretaste.spaces import RATE, SIZE, THIRD, OneOf, Space

LOCAL = Only(encoder=("hybrid", "local"))


class NARM(SequenceModel):
    """Neural Attentive Recommendation Machine. Score: q . E_i, one inner product; indexable."""

    class Config(Settings):
        """Sizes and variants; the defaults are the paper's."""

        embedding_size: int = Field(50, ge=1)
        """D, size of an item embedding."""
        hidden_size: int = Field(100, ge=1)
        """H, size of the GRU's state; the paper also reports 50."""
        encoder: Literal["hybrid", "global", "local"] = "hybrid"
        """What the context holds: the last state (global), the attended states (local), or both."""
        decoder: Literal["bilinear", "full"] = "bilinear"
        """Bi-linear: E (B c), equation 10. Full: a free output row and a bias an item, Table 2's alternative."""
        attention: Annotated[Literal["softmax", "raw"], LOCAL] = "softmax"
        """Weights that sum to 1 (the authors' code), or the score itself (equation 8 as printed)."""
        window: Annotated[int, LOCAL, Only(keep="first")] = Field(19, ge=1)
        """W, how many events the attention sees; the paper's "BPTT 19"."""
        keep: Literal["last", "first"] = "last"
        """The last W events, or the first W: after them nothing changes (the authors' code)."""
        embedding_dropout: float = Field(0.25, ge=0, lt=1)
        """Share of embedding entries dropped in training."""
        context_dropout: float = Field(0.5, ge=0, lt=1)
        """Share of context entries dropped in training."""
        init: Literal["uniform", "authors"] = "uniform"
        """Initial weights; see the first lines of this file."""

    summary = "GRU over the session, attention from the newest click over all of them"
    paper = "Li et al., Neural Attentive Session-based Recommendation, CIKM 2017"
    scope = "session"
    recipe: ClassVar = {"loss": "softmax", "optimizer": "adam", "learning_rate": 1e-3, "batch": 512, "epochs": 30}
    space: ClassVar[Space] = {
        "learning_rate": RATE, "embedding_size": SIZE, "hidden_size": OneOf(50, 100, 200), "embedding_dropout": THIRD,
        "context_dropout": THIRD,
    }  # fmt: skip
    masters = ("popularity", "last_item", "order", "set")
    short_of: ClassVar = {"user_taste": "its rows are sessions: it does not know whose"}
    beyond = "user_taste"

    config: NARM.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c = self.config
        D, H = c.embedding_size, c.hidden_size
        context = 2 * H if c.encoder == "hybrid" else H
        self.item = nn.Embedding(n_items + 1, D, padding_idx=0)            # E [1 + I, D]
        self.gru = nn.GRU(D, H, batch_first=True)
        if c.encoder != "global":
            self.A1 = nn.Linear(H, H, bias=False)
            self.A2 = nn.Linear(H, H, bias=False)
            self.v = nn.Parameter(torch.empty(H))
        if c.decoder == "bilinear":
            self.B = nn.Linear(context, D, bias=False)
        else:
            self.U = nn.Parameter(torch.empty(n_items, context))
            self.bias = nn.Parameter(torch.empty(n_items))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        authors, bound = self.config.init == "authors", 1 / math.sqrt(self.config.hidden_size)
        for name, weight in self.named_parameters():
            if not authors:
                nn.init.uniform_(weight, -bound, bound)
            elif name.startswith("gru.bias") or name == "bias":
                nn.init.zeros_(weight)
            elif name == "gru.weight_hh_l0":
                for gate in weight.data.chunk(3):
                    nn.init.orthogonal_(gate)
            else:  # the authors' rows are PyTorch's columns, but for E and B
                rows = 1 if name == "v" else weight.shape[0 if name in ("item.weight", "B.weight") else 1]
                nn.init.normal_(weight, std=math.sqrt(2 / rows))
        with torch.no_grad():
            self.item.weight[0] = 0

    def initial_state(self, users: Tensor) -> State:
        """Nothing seen: h = 0, an empty ring."""
        c = self.config
        state = {"h": self.item.weight.new_zeros(len(users), c.hidden_size),   # [B, H]
                 "seen": users.new_zeros(len(users))}                      # [B] events so far, at most W
        if c.encoder != "global":
            state["ring"] = self.item.weight.new_zeros(len(users), c.window, c.hidden_size)  # [B, W, H] newest last
        return state

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """Every prefix of every row in one pass (see `SequenceModel.forward`)."""
        c, (B, T) = self.config, events.shape
        lengths = events.lengths()                                         # [B]
        if c.keep == "first":
            lengths = lengths.minimum(c.window - state["seen"])            # [B] events beyond W change nothing
        embedded = nn.functional.dropout(self.item(events.items), c.embedding_dropout, self.training)  # [B, T, D]
        if T == 1 and not torch.is_grad_enabled():                         # one event: the step by itself
            hidden = torch.gru_cell(embedded[:, 0], state["h"], *self.gru.all_weights[0])[:, None]  # [B, 1, H]
        elif T:
            hidden, _ = self.gru(embedded, state["h"][None])               # [B, T, H]  eq. 1-4
        else:
            hidden = embedded.new_zeros(B, 0, c.hidden_size)               # [B, 0, H]
        after = {"h": at_length(hidden, state["h"], lengths),              # [B, H]
                 "seen": (state["seen"] + lengths).clamp(max=c.window)}    # [B]
        if "ring" in state:
            after["ring"] = slide(state["ring"], hidden, lengths)          # [B, W, H]

        asked = torch.ones(B, T, dtype=torch.bool, device=lengths.device) if at is None else at  # [B, T]
        row, place = asked.nonzero(as_tuple=True)                          # [N], [N]
        if c.keep == "first":
            place = place.minimum(lengths[row] - 1)                        # [N]  -1: frozen before this call
        last = torch.cat([state["h"][:, None], hidden], 1)[row, place + 1]  # [N, H]  h_t
        if at is not None and not len(row):                                # nothing is asked: only the state matters
            return last.new_empty(0, self.item_matrix().shape[1]), after   # [0, D]
        if "ring" in state:
            keys, valid, flat = self._keys(state, hidden, row, place)      # [B (R + T), H], [N, V], [N, V]
            context, _ = self._context(last, keys, flat, valid)            # [N, H or 2H]
        else:
            context = last                                                 # [N, H]  eq. 5 alone
        answer = self._decode(context)                                     # [N, D]
        return (answer if at is not None else answer.view(B, T, answer.shape[-1])), after

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone. Before any event the context is 0: all items tie, but for a bias."""
        context = state["h"]                                               # [B, H]
        if "ring" in state:
            context, _ = self._context(context, *self._ring(state))        # [B, H or 2H]
        return self._decode(context)[:, None]                              # [B, 1, D]

    def _keys(self, state: State, hidden: Tensor, row: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The keys before and in this call, and which of them position `place` of `row` sees, the newest last."""
        B, T, H = hidden.shape
        R = int(state["seen"].max()) if B else 0                           # ring entries in use
        keys = torch.cat([state["ring"][:, state["ring"].shape[1] - R :], hidden], 1).reshape(-1, H)  # [B (R + T), H]
        V = max(1, min(self.config.window, R + T))
        age = torch.arange(V - 1, -1, -1, device=row.device)               # [V] 0 is the position itself
        valid = age <= (place + state["seen"][row])[:, None]               # [N, V]
        flat = (row * (R + T) + R + place)[:, None] - age                  # [N, V] places in `keys`
        return keys, valid, flat.where(valid, 0)

    def _ring(self, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """The ring as keys, as `_keys` gives them for the newest event."""
        B, W, H = state["ring"].shape
        age = torch.arange(W - 1, -1, -1, device=state["ring"].device)     # [W]
        flat = torch.arange(B * W, device=age.device).view(B, W)           # [B, W]
        return state["ring"].reshape(-1, H), flat, age < state["seen"][:, None]

    def _context(self, last: Tensor, keys: Tensor, flat: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Equations 5-9: attend from h_t over the visible keys. Gives the context and the weights [N, V]."""
        similar = additive_scores(self.A1(last), self.A2(keys), flat, self.v)  # [N, V]  eq. 8
        weight = masked_softmax(similar, valid) if self.config.attention == "softmax" else similar * valid  # eq. 7
        local = weighted_rows(weight, keys, flat)                          # [N, H]  eq. 6
        if self.config.encoder == "local":
            return local, weight
        return torch.cat([last, local], -1), weight                        # [N, 2H]  eq. 9

    def _decode(self, context: Tensor) -> Tensor:
        context = nn.functional.dropout(context, self.config.context_dropout, self.training)  # [N, H or 2H]
        return self.B(context) if self.config.decoder == "bilinear" else context  # [N, D]  eq. 10

    def item_matrix(self) -> Tensor:
        """E, or the free rows U of the full decoder."""
        return self.item.weight[1:] if self.config.decoder == "bilinear" else self.U  # [I, D]

    def item_bias(self) -> Tensor | None:
        """The full decoder's bias."""
        return None if self.config.decoder == "bilinear" else self.bias    # [I]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T, V]: the weights of equation 7 over the V newest events, the newest last.

        Nothing for the global encoder, which does not attend, nor for `keep="first"`, which does not see the newest.
        """
        B, T = events.shape
        if "ring" not in state or self.config.keep == "first" or not B * T:
            return {}
        hidden, _ = self.gru(self.item(events.items), state["h"][None])    # [B, T, H]
        row, place = torch.ones(B, T, dtype=torch.bool, device=hidden.device).nonzero(as_tuple=True)  # [N]
        keys, valid, flat = self._keys(state, hidden, row, place)
        _, weight = self._context(hidden.reshape(B * T, -1), keys, flat, valid)  # [N, V]
        return {"attention": weight.view(B, T, -1)}
