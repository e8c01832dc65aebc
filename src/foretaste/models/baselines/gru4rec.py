"""GRU4Rec: a recurrent network over the items of a session, asked after each. What attention and memory have to beat.

Hidasi, Karatzoglou, Baltrunas, Tikk, "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016; Hidasi,
Karatzoglou, "Recurrent Neural Networks with Top-k Gains for Session-based Recommendations", CIKM 2018; Tan, Xu, Liu,
"Improved Recurrent Neural Networks for Session-based Recommendations", DLRS 2016. What is theirs in the training are
settings of it: session-parallel rows (`parallel`), the losses top1, bpr, bpr_max and sampled_softmax (which is their
cross-entropy; its logQ correction is `correct`) against the step's other targets and more by popularity
(`sampler="batch"`, `negatives`, `sampler_power`); Tan's tuning on the newest rows (`before`, `recent`), privileged
information (`privileged`) and regression onto items' vectors (`score="cosine"`, loss "regression", `frozen`). The
recipe is Tan's plain model: every prefix, exact softmax, Adam. The others stand in recipes/training/gru4rec-*.toml.

Left open or contradicted by the papers, and what was chosen:
- Items: "tied", one vector in and out (CIKM's constrained embedding; a matrix B joins D and H where they differ);
  "separate"; "one-hot", a column of each gate's W an item (ICLR): an embedding of all gates, read through an identity.
- Dropout of a state. In the authors' code what is dropped is missing from the next event's state too; so here
  (`carry=True`), one event at a time in training. `carry=False` drops what is read and scored, and runs at once. On
  one-hot items their PyTorch code applies the rate of the embedding to the first layer; here, as in their Theano code,
  it is the state's.
- Tan et al.'s embedding dropout deletes whole clicks of the input, others in each pass, which makes an input of its own
  for every prefix; here all prefixes of a session are one run, and, as in Hidasi's code, `embedding_dropout` drops
  entries of a click's vector. Nor is an input cut to 19 clicks, which would make answers depend on where it was cut.
- Left out: the final activation (tanh, ELU), so that a score is an inner product. It is monotone, so it changes no list
  of given weights; the losses read scores without a bound instead, and train other ones. Momentum, which no other
  optimiser here has. Adagrad's root holds 1e-6, as theirs does (`accumulator`).
- The cells are PyTorch's (r multiplies U h + b, as in the authors' PyTorch code). `cell="lstm"` is the "RNN" of ASARS.
  `init="uniform"` is within 1 / sqrt(H); "authors" within sqrt(6 / (rows + columns)) of each matrix, biases 0.
- Sessions come in random order, not by time; a target that another row of the step shares is never its negative.
- `scope="user"` runs through all of a user's sessions without a break.

Checked against session-rec's tuned GRU4Rec (R@20 / MRR@20, percent, ours after it): DIGINETICA 51.0 / 17.5, 53.20 /
18.29; YOOCHOOSE 1/64 65.3 / 27.5, 71.42 / 30.95. Its rule for ties may differ.
State, H = 100: 0.4 kB a layer, an LSTM's 0.8. One event: O(H (D + H)) a layer.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize

from foretaste.config import Config as Settings
from foretaste.config import Only
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import at_length
from foretaste.models.triangle import run
from foretaste.spaces import RATE, THIRD, OneOf, Space


class GRU4Rec(SequenceModel):
    """Layers of GRU or LSTM. Score: one inner product; indexable."""

    class Config(Settings):
        """Sizes and variants."""

        cell: Literal["gru", "lstm"] = "gru"
        """What runs over the events."""
        items: Literal["tied", "separate", "one-hot"] = "tied"
        """An item's vector: the same where it is read and where it is scored; one each; or none where it is read."""
        embedding_size: Annotated[int, Only(items=("tied", "separate"))] = Field(100, ge=1)
        """D, size of an item's vector where it is read; one-hot items have none."""
        hidden_size: int = Field(100, ge=1)
        """H, size of each layer's state."""
        layers: int = Field(1, ge=1)
        """L, layers one above the other."""
        bias: Annotated[bool, Only(score="inner")] = True
        """A number an item beside its vector."""
        score: Literal["inner", "cosine"] = "inner"
        """Inner product; or `scale` times the cosine, without bias."""
        scale: Annotated[float, Only(score="cosine")] = Field(16.0, gt=0)
        """Score of an item that lies where the answer points, under "cosine"."""
        embedding_dropout: Annotated[float, Only(items=("tied", "separate"))] = Field(0.25, ge=0, lt=1)
        """Share of an embedded item's entries dropped in training; items = "one-hot" embeds none."""
        hidden_dropout: float = Field(0.25, ge=0, lt=1)
        """Share of each layer's state dropped in training."""
        carry: bool = True
        """What was dropped of a state stays dropped at the next event."""
        init: Literal["uniform", "authors"] = "uniform"
        """Initial weights; see the first lines of this file."""
        scope: Literal["session", "user"] = "session"
        """What one row is: a session, or all of a user's events."""

    summary = "GRU (or LSTM) layers over the items; session-parallel training, pairwise losses, fine-tuning"
    paper = "Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016; CIKM 2018"
    recipe: ClassVar = {"loss": "softmax", "optimizer": "adam", "learning_rate": 1e-3, "batch": 512, "epochs": 30}
    space: ClassVar[Space] = {
        "learning_rate": RATE, "hidden_size": OneOf(50, 100, 200), "embedding_dropout": THIRD, "hidden_dropout": THIRD,
    }  # fmt: skip
    masters = ("popularity", "last_item", "order", "set")
    short_of: ClassVar = {"user_taste": "its rows are sessions: it does not know whose"}
    beyond = "user_taste"

    config: GRU4Rec.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c = self.config
        H, gates = c.hidden_size, 3 if c.cell == "gru" else 4
        D = gates * H if c.items == "one-hot" else c.embedding_size
        kind = nn.GRU if c.cell == "gru" else nn.LSTM
        self.scope = c.scope
        self.item = nn.Embedding(n_items + 1, D, padding_idx=0)            # E, or a row of W an item [1 + I, D]
        self.cells = nn.ModuleList(kind(H if layer else D, H, batch_first=True) for layer in range(c.layers))
        if c.items == "one-hot":                                           # W is in E: nothing is left to multiply
            first = self.cells[0]
            del first.weight_ih_l0
            first.register_buffer("weight_ih_l0", None, persistent=False)
            first.weight_ih_l0 = torch.eye(D)
        if c.items != "tied":
            self.W = nn.Parameter(torch.empty(n_items, H))                 # [I, H]
        elif D != H:
            self.B = nn.Linear(H, D, bias=False)
        self.bias = nn.Parameter(torch.empty(n_items)) if c.bias and c.score == "inner" else None  # [I]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        gates = 3 if self.config.cell == "gru" else 4
        for name, weight in self.named_parameters():
            bound = 1 / math.sqrt(self.config.hidden_size)
            if self.config.init == "authors" and weight.dim() == 2:
                several = "cells" in name or (name == "item.weight" and self.config.items == "one-hot")
                rows, columns = weight.shape if "cells" not in name else weight.shape[::-1]
                bound = math.sqrt(6 / (rows + columns / (gates if several else 1)))
            elif self.config.init == "authors" or name == "bias":
                bound = 0.0
            nn.init.uniform_(weight, -bound, bound)
        with torch.no_grad():
            self.item.weight[0] = 0

    def initial_state(self, users: Tensor) -> State:
        """Nothing seen: zeros."""
        c = self.config
        zeros = self.item.weight.new_zeros(len(users), c.layers, c.hidden_size)  # [B, L, H]
        return {"h": zeros} if c.cell == "gru" else {"h": zeros, "c": zeros.clone()}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """One run over every row (see `SequenceModel.forward`)."""
        c = self.config
        embedded = self.item(events.items)                                 # [B, T, D]
        if c.items != "one-hot":
            embedded = dropout(embedded, c.embedding_dropout, self.training)
        T, apart = embedded.shape[1], self.training and c.carry and c.hidden_dropout > 0
        step, outputs = 1 if apart else max(T, 1), []
        for first in range(0, max(T, 1), step):
            piece = slice(first, first + step)
            output, state = self._run(embedded[:, piece], state, events.mask[:, piece])
            outputs.append(output)
        hidden = torch.cat(outputs, 1)                                     # [B, T, H]
        return self._ask(hidden if at is None else hidden[at]), state      # [B, T, D or H] or [N, D or H]

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone. Before any event all items tie, but for their bias."""
        return self._ask(state["h"][:, -1])[:, None]                       # [B, 1, D or H]

    def _run(self, inputs: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """What the last layer gives after each event [B, T, H], and the state after each row's last real one."""
        c, lengths = self.config, mask.sum(1)                              # [B]
        afters: dict[str, list[Tensor]] = {name: [] for name in state}
        for layer, cell in enumerate(self.cells):
            h = state["h"][:, layer]                                       # [B, H]
            if isinstance(cell, nn.LSTM):  # its cell at a row's own end is no output, so rows run by length
                never = torch.zeros_like(mask)                             # [B, T] no row starts afresh inside
                hidden, last = run(cell, inputs, mask, never, h, state["c"][:, layer])  # [B, T, H], [B, H]
                afters["c"].append(last)
            elif inputs.shape[1]:
                hidden, _ = cell(inputs, h[None].contiguous())             # [B, T, H]
            else:
                hidden = inputs.new_zeros(*mask.shape, c.hidden_size)      # [B, 0, H]
            inputs = dropout(hidden, c.hidden_dropout, self.training)      # [B, T, H]
            afters["h"].append(at_length(inputs if c.carry else hidden, h, lengths))  # [B, H]
        return inputs, {name: torch.stack(parts, 1) for name, parts in afters.items()}  # [B, L, H] each

    def _ask(self, hidden: Tensor) -> Tensor:
        answer: Tensor = self.B(hidden) if hasattr(self, "B") else hidden  # [..., D or H]
        return self.config.scale * normalize(answer, dim=-1) if self.config.score == "cosine" else answer

    def item_matrix(self) -> Tensor:
        """E, or the items' own rows W; each of length 1 under "cosine"."""
        matrix = self.item.weight[1:] if self.config.items == "tied" else self.W  # [I, D or H]
        return normalize(matrix, dim=-1) if self.config.score == "cosine" else matrix

    def item_bias(self) -> Tensor | None:
        """The bias, where there is one."""
        return self.bias                                                   # [I]
