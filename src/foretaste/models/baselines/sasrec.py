"""SASRec, gSASRec, eSASRec: causal self-attention over the last W events. One network, three ways to train it.

Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, section III: item and position embeddings, L
pre-norm layers (attention_blocks.py), the score an inner product with the same item embeddings. `sasrec` is trained as
there, by binary cross-entropy with one negative. What the same network does with a better loss:

- Klenitskiy & Vasilev, RecSys 2023: the full softmax. `loss = "softmax", negatives = 0`, nothing else to change.
- `gsasrec`: Petrov & Macdonald, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
  Sampling", RecSys 2023: gBCE with 256 negatives (`training.losses.gbce`, t = 0.75).
- `esasrec`: Tikhonovich et al., "eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion", RecSys
  2025: LiGR layers (Borisyuk et al., 2025) and sampled softmax with 256 uniform negatives.

The law. Row t is by definition the network on the last min(t, W) events alone, positions counted from the oldest of
them. Up to W events all prefixes are one causal pass. Beyond, each asked row is a pass of its own over its window: when
the window moves, every event changes its position, and a deep layer's key of an event is made of events that have left
the window. So a sliding cache of keys and values is not equal, and is not offered; a model with relative positions and
a band would be another one. Rows of which one place is asked (serving, last-item protocols) are a window each in any
case: their last layer is worked out at one place.

Training goes by pieces: a row is cut into pieces of W events, each from the empty state, whatever came before. So a
pass is causal passes alone; only in training mode is what a state holds left unread. Training on all of a history is
the default; the paper takes the latest W + 1 events of each user: `latest = W + 1`.

Left open or contradicted by the papers, and what was chosen:
- Positions. The code of the papers pads on the left, so that a short history takes the *last* positions, and a
  prefix in training others than when it is asked. Here the oldest event has the first, in training and asking alike.
- Norms. The paper's equation has Q, K and V from LN(x); its code Q alone. Here the paper. A last norm before the
  scores, as in SASRec's and gSASRec's code; eSASRec's (RecTools) has none.
- What a sublayer's finding is added to. The paper's equation says x, the codes of SASRec and gSASRec LN(x). Here the
  codes: as small as embeddings begin, x drowns in what the first sublayer adds to it, and the event itself with it.
  LiGR's layers add to x, as published. Embeddings are multiplied by sqrt(D) on their way in, as in SASRec's code; the
  other two do not. Here all three have both, the last norm and the factor.
- Dropout: on the embedded events and on what each sublayer adds, as the paper says; its code on attention weights in
  place of what attention adds, and inside the feed-forward net; eSASRec's on attention weights too.
- The maps to Q, K, V and LiGR's after the heads have no bias; in the three codes they have one.
- One table of items, read and scored, as in SASRec's paper; gSASRec's code scores with a second one unless told not to.
- Initial weights: N(0, 0.02^2) for embeddings, Xavier for maps, 0 for biases.
- gSASRec has SASRec's sizes and beta2; for MovieLens 1M its authors' code has W = 200, D = 128 and more, dropout 0.1 or
  none, and beta2 0.999.
- Adam's beta2 is 0.98, SASRec's. It matters: with many negatives a binary loss has first gradients a thousand
  times its later ones; at the usual 0.999 they are remembered, and steps kept small, for ten thousand steps. But of a
  large catalogue each item is a target so rarely that 0.98 hinders it: there take 0.999 (docs/baselines.md).
- The paper's batch of 128 users is about 2,560 targets on short histories.
- Negatives exclude what the user has touched so far; the paper's also what he will touch. gSASRec's and eSASRec's
  exclude nothing. All are drawn for each target, as in the papers' code; `shared_negatives = true` draws one set for a
  step, which is less work.
- Before any event the answer is 0: all items tie.

State: the last W ids and their number, 408 bytes at W = 50, 1.6 kB at 200. One event: nothing but to keep it; an
answer O(L W (W + D) D).

Checked against (MovieLens 1M, leave-one-out, full ranking, seen items out; HR@10 / NDCG@10, ours in brackets, by
`foretaste reproduce baselines/sasrec-ml-1m`): SASRec .250 / .134 (not made yet), with full softmax .315 / .182 (.312 /
.182), both Klenitskiy's; gSASRec .300 / .173 (.314 / .181), eSASRec .313 / .177 (.317 / .184), by their repositories.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.models.baselines.attention_blocks import Block, LiGRBlock, SASRecBlock
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import slide
from foretaste.spaces import RATE, SIZE, OneOf, Space

HELD = {"cpu": 2**22, "other": 2**27}
"""Numbers of one layer's activations that are held at a time when windows are worked out, by kind of device."""


class SASRec(SequenceModel):
    """Self-Attentive Sequential Recommendation. Score: F_t . E_i, one inner product; indexable."""

    class Config(Settings):
        """Sizes; the defaults are the paper's for short histories. For MovieLens 1M: window 200, dropout 0.2."""

        embedding_size: int = Field(50, ge=1)
        """D, size of an item embedding and of every vector."""
        window: int = Field(50, ge=1)
        """W, the last events that are seen, and the longest piece that is trained on."""
        layers: int = Field(2, ge=1)
        """L, layers."""
        heads: int = Field(1, ge=1)
        """Heads of each attention, D / heads wide."""
        block: Literal["sasrec", "ligr"] = "sasrec"
        """The layers: the paper's, or LiGR's with gates and SwiGLU (eSASRec)."""
        expansion: int = Field(1, ge=1)
        """Width of the hidden layer at each position, in D; eSASRec takes 4."""
        dropout: float = Field(0.5, ge=0, lt=1)
        """Share of entries dropped in training: embedded events, and what each sublayer adds."""
        scope: Literal["session", "user"] = "user"
        """What one row is: a session, or all of a user's events."""

        @model_validator(mode="after")
        def _divides(self) -> Self:
            if self.embedding_size % self.heads:
                raise ValueError(f"heads = {self.heads} must divide embedding_size = {self.embedding_size}")
            return self

    summary = "self-attention over the last events, trained on one negative a target (or a full softmax)"
    paper = "Kang & McAuley, Self-Attentive Sequential Recommendation, ICDM 2018"
    scope: Literal["session", "user"] = "user"
    recipe: ClassVar = {"loss": "bce", "negatives": 1, "optimizer": "adam", "learning_rate": 1e-3, "beta2": 0.98,
                        "batch": 2560, "chunk": 1000, "epochs": 200, "patience": 20, "metric": "ndcg@10"}
    space: ClassVar[Space] = {"learning_rate": RATE, "embedding_size": SIZE, "layers": OneOf(1, 2, 3),
                              "dropout": OneOf(0.1, 0.2, 0.5), "window": OneOf(50, 200), "beta2": OneOf(0.98, 0.999)}
    masters: ClassVar[tuple[str, ...]] = ("popularity", "last_item", "order", "set")
    short_of: ClassVar = {"user_taste": "no vector of a user: a taste would have to be told by the history"}
    beyond = "dwell"
    carries = False

    config: SASRec.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c = self.config
        self.scope = c.scope
        kind = SASRecBlock if c.block == "sasrec" else LiGRBlock
        self.item = nn.Embedding(n_items + 1, c.embedding_size, padding_idx=0)  # E [1 + I, D]
        self.position = nn.Parameter(torch.empty(c.window, c.embedding_size))  # P [W, D]
        self.blocks = nn.ModuleList(kind(c.embedding_size, c.heads, c.dropout, c.expansion) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.embedding_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        for name, weight in self.named_parameters():
            if name in ("item.weight", "position"):
                nn.init.normal_(weight, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
            elif weight.dim() == 2:
                for part in weight.data.chunk(3 if name.endswith("qkv.weight") else 1):
                    nn.init.xavier_uniform_(part)
        with torch.no_grad():
            self.item.weight[0] = 0

    def initial_state(self, users: Tensor) -> State:
        """Nothing seen."""
        return {"ring": users.new_zeros(len(users), self.config.window),   # [B, W] newest last, 0 for none
                "seen": users.new_zeros(len(users))}                       # [B] events so far, at most W

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """Every asked prefix (see `SequenceModel.forward`); in training by pieces, see the first lines of this file."""
        lengths = events.lengths()                                         # [B]
        after = {"ring": slide(state["ring"], events.items, lengths),      # [B, W]
                 "seen": (state["seen"] + lengths).clamp(max=self.config.window)}  # [B]
        if self.training:
            answer = self._pieces(events.items)                            # [B, T, D]
            return (answer if at is None else answer[at]), after
        asked = events.mask if at is None else at                          # [B, T]
        row, place = asked.nonzero(as_tuple=True)                          # [N], [N]
        found = self._answers(events, state, row, place)                   # [N, D]
        if at is not None:
            return found, after
        return found.new_zeros(*asked.shape, found.shape[1]).index_put((row, place), found), after  # [B, T, D]

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone. Before any event it is 0, and all items tie."""
        row = state["seen"].nonzero()[:, 0]                                # [n] rows that have seen anything
        end = torch.full_like(row, self.config.window)                     # [n]
        found = self._last(state["ring"], row, end, state["seen"][row])    # [n, D]
        return found.new_zeros(len(state["seen"]), found.shape[1]).index_copy(0, row, found)[:, None]  # [B, 1, D]

    def _pieces(self, items: Tensor) -> Tensor:
        """All positions of rows cut into pieces of W, each from the empty state: [B, T] -> [B, T, D]"""
        (B, T), W = items.shape, self.config.window
        if T <= W:
            return self._prefixes(items)
        pieces = nn.functional.pad(items, (0, -T % W)).view(-1, W)         # [B P, W]
        real = (pieces[:, 0] > 0).nonzero()[:, 0]                          # [n] pieces with any event
        found = self._prefixes(pieces[real])                               # [n, W, D]
        whole = found.new_zeros(len(pieces), W, found.shape[2]).index_copy(0, real, found)  # [B P, W, D]
        return whole.view(B, -1, found.shape[2])[:, :T]

    def _prefixes(self, items: Tensor) -> Tensor:
        """Every prefix of rows of at most W events, the oldest first: [B, V] -> [B, V, D]"""
        if not items.numel():
            return self.position.new_zeros(*items.shape, self.config.embedding_size)
        rows = self._embedded(items)                                       # [B, V, D]
        for block in self.blocks:
            rows = block(rows)
        answer: Tensor = self.norm(rows)                                   # [B, V, D]
        return answer

    def _embedded(self, items: Tensor) -> Tensor:
        """sqrt(D) E + P, positions from the oldest: [B, V] -> [B, V, D]"""
        c = self.config
        rows = self.item(items) * c.embedding_size**0.5 + self.position[: items.shape[1]]  # [B, V, D]  eq. 1
        return nn.functional.dropout(rows, c.dropout, self.training)

    def _answers(self, events: Events, state: State, row: Tensor, place: Tensor) -> Tensor:
        """The answers [N, D] after event `place` [N] of `row` [N], ascending."""
        W, seen = self.config.window, state["seen"]
        line = torch.cat([state["ring"], events.items], 1)                 # [B, W + T] old ids, then new ones
        count = seen[row] + place + 1                                      # [N] events up to here
        shared = (count <= W) & (torch.bincount(row, minlength=len(seen))[row] > 1)  # [N] one pass a row
        alone, along = (~shared).nonzero()[:, 0], shared.nonzero()[:, 0]   # [n], [m]
        own = self._last(line, row[alone], W + place[alone] + 1, count[alone].clamp(max=W))  # [n, D]
        answer = own.new_zeros(len(row), own.shape[1]).index_copy(0, alone, own)  # [N, D]
        longest = torch.zeros_like(seen).scatter_reduce(0, row[along], count[along], "amax")  # [B]
        rows = longest.nonzero()[:, 0]                                     # [r]
        for some in self._shares(len(rows), int(longest.max()) if len(rows) else 1):
            here = rows[some]                                              # [r']
            found = self._prefixes(_windows(line, here, W - seen[here] + longest[here], longest[here]))  # [r', V, D]
            mine = along[(row[along] >= here[0]) & (row[along] <= here[-1])]  # [k]
            found = found[torch.searchsorted(here, row[mine]), count[mine] - 1]  # [k, D]
            answer = answer.index_copy(0, mine, found)
        return answer

    def _last(self, line: Tensor, row: Tensor, stop: Tensor, size: Tensor) -> Tensor:
        """The answers [N, D] to windows of their own: the `size` [N] ids of line[row] that end before `stop` [N]."""
        found = [self._window(_windows(line, row[some], stop[some], size[some]), size[some])[0]
                 for some in self._shares(len(row), int(size.max()) if len(row) else 1)]
        return torch.cat([self.position.new_zeros(0, self.config.embedding_size), *found])

    def _window(self, items: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """The answer [N, D] to the newest of `size` [N] ids [N, V], the oldest first; the weights [N, h, V]."""
        rows = self._embedded(items)                                       # [N, V, D]
        for block in self.blocks[:-1]:
            rows = block(rows)
        newest, weight = cast(Block, self.blocks[-1]).last(rows, size - 1)  # [N, D], [N, h, V]
        return self.norm(newest), weight

    def _shares(self, rows: int, width: int) -> Iterator[slice]:
        """Some rows of `width` events at a time, so that memory is bounded."""
        c, kind = self.config, "cpu" if self.position.device.type == "cpu" else "other"
        step = max(1, HELD[kind] // (width * (width * c.heads + 8 * c.expansion * c.embedding_size)))
        return (slice(first, min(first + step, rows)) for first in range(0, rows, step))

    def item_matrix(self) -> Tensor:
        """E: in and out are one table."""
        return self.item.weight[1:]                                        # [I, D]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T, V]: the weights of the last layer, the mean of its heads, over the V newest events, the
        newest last. Deeper down each of these has already looked at those before it."""
        B, T = events.shape
        row, place = events.mask.nonzero(as_tuple=True)                    # [N], [N]
        count = (state["seen"][row] + place + 1).clamp(max=self.config.window)  # [N]
        V = int(count.max()) if len(count) else 0
        line, stop = torch.cat([state["ring"], events.items], 1), self.config.window + place + 1
        found = self.position.new_zeros(B, T, V)                           # [B, T, V]
        with torch.no_grad():
            for some in self._shares(len(row), max(V, 1)):
                ids = _windows(line, row[some], stop[some], count[some])   # [n, V']
                weight = self._window(ids, count[some])[1].mean(1)         # [n, V']
                move = torch.arange(V, device=row.device) - (V - count[some])[:, None]  # [n, V] from the oldest
                found[row[some], place[some]] = weight.gather(1, move.clamp(min=0)) * (move >= 0)
        return {"attention": found}


def _windows(line: Tensor, row: Tensor, stop: Tensor, size: Tensor) -> Tensor:
    """The `size` [N] ids of line[row] before `stop` [N], the oldest first, padded on the right: [N, V]"""
    V = int(size.max()) if len(size) else 0
    index = (stop - size)[:, None] + torch.arange(V, device=line.device)   # [N, V]
    real = index < stop[:, None]                                           # [N, V]
    return line[row[:, None], index.where(real, 0)] * real


class GSASRec(SASRec):
    """SASRec trained by gBCE on many negatives."""

    summary = "SASRec trained by gBCE on 256 negatives: probabilities that sampling does not inflate"
    paper = "Petrov & Macdonald, gSASRec: Reducing Overconfidence in Sequential Recommendation, RecSys 2023"
    recipe: ClassVar = {**SASRec.recipe, "loss": "gbce", "negatives": 256, "exclude_touched": False}
    masters = ("popularity", "last_item", "set")
    short_of: ClassVar = {"order": "by gBCE it learns too slowly; by the softmax it is SASRec", **SASRec.short_of}


class ESASRec(SASRec):
    """SASRec with LiGR layers, trained by sampled softmax."""

    class Config(SASRec.Config):
        """The same; the defaults are the paper's for MovieLens 1M."""

        embedding_size: int = Field(64, ge=1)
        """D, size of an item embedding and of every vector."""
        window: int = Field(200, ge=1)
        """W, the last events that are seen, and the longest piece that is trained on."""
        block: Literal["sasrec", "ligr"] = "ligr"
        """The layers: LiGR's with gates and SwiGLU, or SASRec's."""
        expansion: int = Field(4, ge=1)
        """Width of the hidden layer at each position, in D."""
        dropout: float = Field(0.1, ge=0, lt=1)
        """Share of entries dropped in training: embedded events, and what each sublayer adds."""

    summary = "SASRec with gated layers (LiGR), trained by sampled softmax on 256 negatives"
    paper = "Tikhonovich et al., eSASRec: Enhancing Transformer-based Recommendations, RecSys 2025"
    recipe: ClassVar = {**SASRec.recipe, "loss": "sampled_softmax", "negatives": 256, "exclude_touched": False}

    config: ESASRec.Config
