"""A plain GRU or LSTM: one layer over the items, the last state asks. What attention and memory have to beat.

The model that papers call "RNN" beside their own: NARM without attention (its global encoder), ASARS without attention
("LSTM"), RNNs on sessions after Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR
2016. It follows no single paper; GRU4Rec's own losses and session-parallel batches are a matter of training.

What was chosen:
- Scores. `output="tied"`: E_i . (B h), the item's own input vector, so B maps H to D. `output="free"`: a row of its
  own an item, w_i . h. Either with a bias an item, or without. NARM's global encoder is the tied GRU without bias.
- Dropout, in training: on the embedded item, and on the state before it is compared with items.
- The cells are PyTorch's. Initial weights: uniform within 1 / sqrt(H), its own choice for them; bias of items 0.
- `scope="user"` runs through all of a user's sessions without a break; the default starts afresh in each.

The LSTM's cell at a row's own end is not among its outputs, so its rows run by length (`triangle.run`). A GRU's state
is its output, and it runs over the padding.

State, H = 100: h 0.4 kB; the LSTM also its cell, 0.8 kB. One event: O(H (D + H)).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import at_length
from foretaste.models.triangle import run


class Recurrent(SequenceModel):
    """GRU or LSTM, one layer. Score: one inner product; indexable."""

    class Config(Settings):
        """Sizes and variants."""

        cell: Literal["gru", "lstm"] = "gru"
        """What runs over the events."""
        embedding_size: int = Field(64, ge=1)
        """D, size of an item embedding."""
        hidden_size: int = Field(100, ge=1)
        """H, size of the state."""
        output: Literal["tied", "free"] = "tied"
        """How items are scored: by their input embedding, or by a free row [H] each."""
        bias: bool = True
        """A number an item beside its vector."""
        embedding_dropout: float = Field(0.25, ge=0, lt=1)
        """Share of embedding entries dropped in training."""
        output_dropout: float = Field(0.25, ge=0, lt=1)
        """Share of state entries dropped in training, before items are scored."""
        scope: Literal["session", "user"] = "session"
        """What one row is: a session, or all of a user's events."""

    summary = "one GRU or LSTM over the items, nothing else"
    paper = "after Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016"
    recipe: ClassVar = {"loss": "softmax", "optimizer": "adam", "learning_rate": 1e-3, "batch": 512, "epochs": 30}
    masters = ("popularity", "last_item", "order", "set")
    beyond = "user_taste"

    config: Recurrent.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c = self.config
        D, H = c.embedding_size, c.hidden_size
        self.scope = c.scope
        self.item = nn.Embedding(n_items + 1, D, padding_idx=0)            # E [1 + I, D]
        self.cell = (nn.GRU if c.cell == "gru" else nn.LSTM)(D, H, batch_first=True)
        if c.output == "tied":
            self.B = nn.Linear(H, D, bias=False)
        else:
            self.W = nn.Parameter(torch.empty(n_items, H))
        self.bias = nn.Parameter(torch.empty(n_items)) if c.bias else None  # [I]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        bound = 1 / math.sqrt(self.config.hidden_size)
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)
        with torch.no_grad():
            self.item.weight[0] = 0
            if self.bias is not None:
                self.bias.zero_()

    def initial_state(self, users: Tensor) -> State:
        """Nothing seen: zeros."""
        zeros = self.item.weight.new_zeros(len(users), self.config.hidden_size)  # [B, H]
        return {"h": zeros} if self.config.cell == "gru" else {"h": zeros, "c": zeros.clone()}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """One run over every row (see `SequenceModel.forward`)."""
        embedded = self.item(events.items)                                 # [B, T, D]
        embedded = nn.functional.dropout(embedded, self.config.embedding_dropout, self.training)
        hidden, after = self._run(embedded, state, events.mask)            # [B, T, H]
        return self._ask(hidden if at is None else hidden[at]), after      # [B, T, .] or [N, .]

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone. Before any event all items tie, but for their bias."""
        return self._ask(state["h"])[:, None]                              # [B, 1, D or H]

    def _run(self, embedded: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """h after each event [B, T, H], and the state after each row's last real one."""
        if isinstance(self.cell, nn.LSTM):
            never = torch.zeros_like(mask)                                 # [B, T] no row starts afresh inside
            hidden, c = run(self.cell, embedded, mask, never, state["h"], state["c"])  # [B, T, H], [B, H]
            return hidden, {"h": at_length(hidden, state["h"], mask.sum(1)), "c": c}
        if not embedded.shape[1]:
            return embedded.new_zeros(*mask.shape, self.config.hidden_size), state  # [B, 0, H]
        hidden, _ = self.cell(embedded, state["h"][None])                  # [B, T, H]
        return hidden, {"h": at_length(hidden, state["h"], mask.sum(1))}

    def _ask(self, hidden: Tensor) -> Tensor:
        hidden = nn.functional.dropout(hidden, self.config.output_dropout, self.training)  # [..., H]
        answer: Tensor = self.B(hidden) if self.config.output == "tied" else hidden  # [..., D or H]
        return answer

    def item_matrix(self) -> Tensor:
        """E, or the free rows."""
        return self.item.weight[1:] if self.config.output == "tied" else self.W  # [I, D or H]

    def item_bias(self) -> Tensor | None:
        """The bias, where there is one."""
        return self.bias                                                   # [I]
