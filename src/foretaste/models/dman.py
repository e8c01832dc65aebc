"""DMAN: attention over the open and the last segment, and over a memory that absorbs everything older.

Tan et al., "Dynamic Memory-based Attention Network for Sequential Recommendation", AAAI 2021 (arXiv 2102.09269).
The memory itself (equations 4-8) is in routing.py.

Left open or contradicted by the paper, and what was chosen (docs/dman.md has the whole list):
- The blocks. The equations have no residual, norm, feed-forward, scaling or positions; the text cites SASRec. Default:
  a block as SASRec's equations have it (pre-norm, what is found added to x, one head, 1 / sqrt(D), dropout 0.2),
  learned positions, a second table for the cached segment, norms on what is read from slots, norms and scale in the
  routing. `bare=True`: the equations alone.
- Levels. Layer l reads memory l - 1, so there is one memory a level 0..L-1 (0: the embedded events).
- When segment n is complete, segment n - 1 is absorbed, and n becomes the cache: no overlap, no gap. Without a cache
  (`nran`) segment n is absorbed at once. Before the first absorption there is no long branch, and the gate is 1.
- The answer after event t scores event t + 1 (equation 9 would let a target be its own query).
- No gradient crosses a segment. The recommendation loss never reaches the routing, the reconstruction loss nothing
  else; so one Adam over their sum makes the same steps as the paper's two in turn (`clip` would cut both by one norm),
  but that the memory which a step reads was written before it, not after.

So, layer by layer, all segments of a history are one pass; only the memories follow one another, in a short loop
without gradients; then all positions read theirs at once.

State, L = 2, m = T = 20, D = 128: memory, cached and open segment, 20 kB each. One event: O(L ((T + m) D + D^2)), and
routing every T events, O(L m (D^2 + (m + T) D)); whatever the history.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.config import Only
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.dman_step import next_event
from foretaste.models.layers import at_length
from foretaste.models.routing import Attention, Kind, Memories, Memory, Routing
from foretaste.models.segments import Cells
from foretaste.spaces import Between, OneOf, Space


class Block(nn.Module):
    """One layer: the attention alone (bare), or the block of SASRec's equations around it."""

    def __init__(self, size: int, bare: bool, dropout: float, slots: bool = False) -> None:
        super().__init__()
        self.attention, self.bare = Attention(size, bare, slots), bare
        self.dropout = nn.Dropout(dropout)
        if not bare:
            self.feed = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))

    def forward(self, rows: Tensor, cells: Cells, keys: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """rows [n, D] at `cells`, keys [B, N, V, D], visible [B, N, T or 1, V] -> [n, D], weights [n, V]"""
        pooled, weight = self.attention.read(cells.spread(self.attention.ask(rows)), keys, visible)
        return self.around(rows, cells.pick(pooled)), cells.pick(weight)

    def around(self, rows: Tensor, pooled: Tensor) -> Tensor:
        """What follows the attention of rows [n, D] over the keys that are pooled [n, D]."""
        found: Tensor = self.attention.V(pooled)                           # [n, D]
        if not self.bare:
            found = rows + self.dropout(found)                             # [n, D]
            found = found + self.dropout(self.feed(found))                 # [n, D]
        return found


Reasons = tuple[list[Tensor], Tensor, Tensor]
"""What answers rest on: equation 1's weights [n, V] a layer, the mean gate [w], equation 2's weights [w, L, m]."""


class DMAN(SequenceModel):
    """Dynamic Memory-based Attention Network. Score: V . x_i, one inner product; indexable."""

    class Config(Settings):
        """Sizes and variants; the defaults are the paper's, but for dropout, of which it says nothing."""

        embedding_size: int = Field(128, ge=1)
        """D, size of an item embedding and of every vector."""
        layers: int = Field(2, ge=1)
        """L, attention layers of each branch."""
        segment: int = Field(20, ge=1)
        """T, events of a segment; the paper takes 50 on XLong."""
        slots: Annotated[int, Only(memory=("dynamic", "fifo"))] = Field(20, ge=1)
        """m, memory slots a level."""
        memory: Literal["dynamic", "fifo", "none"] = "dynamic"
        """Capsules (DMAN), the last m states older than the cached segment (DMAN-FIFO), or nothing (DMAN-XL)."""
        nran: bool = False
        """Attend to the own segment alone, and absorb it as soon as it is complete (DMAN-NRAN)."""
        routing: Annotated[Kind, Only(memory="dynamic")] = "capsule"
        """Routing matrices of memory = "dynamic": one a capsule, one a pair of primary and interest capsule, or one for
        all."""
        rounds: Annotated[int, Only(memory="dynamic")] = Field(3, ge=1, le=3)
        """Rounds of routing. With more, an error in a slot grows, and two ways of cutting a history end apart."""
        bare: bool = False
        """The literal equations, without dropout; see the first lines of this file."""
        dropout: Annotated[float, Only(bare=False)] = Field(0.2, ge=0, lt=1)
        """Share of entries dropped in training: embedded events, and what each sublayer adds."""

    summary = "attention over two segments, and over a memory of capsules for all before them"
    paper = "Tan et al., Dynamic Memory-based Attention Network for Sequential Recommendation, AAAI 2021"
    scope = "user"
    recipe: ClassVar = {"loss": "softmax", "optimizer": "adam", "learning_rate": 1e-3, "batch": 2560, "chunk": 500,
                        "epochs": 200, "patience": 10, "metric": "ndcg@20"}
    space: ClassVar[Space] = {"learning_rate": Between(3e-4, 5e-3), "embedding_size": OneOf(64, 128),
                              "slots": OneOf(10, 20), "dropout": OneOf(0.1, 0.2, 0.4)}
    masters = ("popularity", "last_item", "order", "set", "distant")
    short_of: ClassVar = {"user_taste": "no vector of a user: a taste would have to be told by the history"}
    beyond = "dwell"

    config: DMAN.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c = self.config
        D, L, dropout = c.embedding_size, c.layers, 0.0 if c.bare else c.dropout
        self.item = nn.Embedding(n_items + 1, D, padding_idx=0)            # [1 + I, D]
        self.dropout = nn.Dropout(dropout)
        self.short = nn.ModuleList(Block(D, c.bare, dropout) for _ in range(L))
        if not c.bare:
            self.position = nn.Parameter(torch.empty(c.segment, D))
            self.short_norm = nn.LayerNorm(D)
            if not c.nran:
                self.cached_position = nn.Parameter(torch.empty(c.segment, D))
        if c.memory != "none":
            self.long = nn.ModuleList(Block(D, c.bare, dropout, slots=True) for _ in range(L))
            self.gate_short, self.gate_long = (nn.Linear(D, D, bias=False) for _ in range(2))
            if not c.bare:
                self.long_norm = nn.LayerNorm(D)
            routing = Routing(L, c.slots, c.slots + c.segment, D, c.routing, c.rounds, level=not c.bare)
            self.memory = Memory(c.slots, c.segment, routing if c.memory == "dynamic" else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        c = self.config
        for name, weight in self.named_parameters():
            if name in ("item.weight", "position", "cached_position"):
                nn.init.normal_(weight, std=c.embedding_size**-0.5 if c.bare else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
            elif weight.dim() == 2:
                nn.init.xavier_uniform_(weight)
        if c.memory == "dynamic":
            cast(Routing, self.memory.routing).reset_parameters()
        self.item.weight.data[0] = 0

    def initial_state(self, users: Tensor) -> State:
        """Nothing seen: an empty open segment, no cache, no memory."""
        c, B = self.config, len(users)
        like, segment = self.item.weight, (B, c.layers, c.segment, c.embedding_size)
        state = {"answer": like.new_zeros(B, c.embedding_size),            # [B, D]
                 "open": like.new_zeros(segment),                          # [B, L, T, D] levels of the open segment
                 "count": users.new_zeros(B)}                              # [B] its events, 0..T-1
        if not c.nran:
            state["cached"] = like.new_zeros(segment)                      # [B, L, T, D] levels of the one before it
            state["closed"] = users.new_zeros(B)                           # [B] 1 if there is one
        if c.memory != "none":
            state["memory"] = like.new_zeros(B, c.layers, c.slots, c.embedding_size)  # [B, L, m, D]
            state["filled"] = users.new_zeros(B)                           # [B] slots in use, the last ones
        return state

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """Every segment of every row in one pass (see `SequenceModel.forward`); in answering, one event by itself."""
        if events.shape[1] == 1 and not torch.is_grad_enabled() and not self.training and events.mask.all():
            answer, after = next_event(self, events.items[:, 0], state)    # [B, D]
            return (answer[:, None] if at is None else answer[at[:, 0]]), after
        query, after, _ = self._run(events, state, events.mask if at is None else at)  # [B, T', D]
        return (query if at is None else query[at]), after

    def _run(self, events: Events, state: State, asked: Tensor) -> tuple[Tensor, State, Reasons]:
        """The answer after each asked event [B, T', D], 0 elsewhere, the state after, and what the answers rest on."""
        c, (B, width) = self.config, events.shape
        self.auxiliary = None
        lengths = events.lengths()                                         # [B]
        total = state["count"] + lengths                                   # [B] events in the cells
        complete = total // c.segment                                      # [B] segments that end in this call
        N = max(-(-int(total.max()) // c.segment), 1) if B else 1
        row, place = events.mask.nonzero(as_tuple=True)                    # [n], [n]
        cells = Cells((B, N, c.segment), row * N * c.segment + state["count"][row] + place)
        wanted = asked[row, place] | (place == lengths[row] - 1)           # [n]

        rows = self.item(events.items[row, place])                         # [n, D]
        rows = self.dropout(rows if c.bare else rows + self.position[cells.flat % c.segment])  # [n, D]  level 0
        short, levels, weights = self._short(rows, cells, wanted, state)   # [w, D]
        none = torch.zeros_like(state["open"])                             # [B, L, T, D]
        segments = [state.get("cached", none)[:, :, None], torch.stack(levels, 1), none[:, :, None]]
        timeline = torch.cat(segments, 2)                                  # [B, L, N + 2, T, D]  one before, one after
        memories = self._remember(timeline, state, complete) if c.memory != "none" else None
        answer, gate, memory = self._gated(rows[wanted], short, cells.some(wanted), memories)  # [w, D]
        query = answer.new_zeros(B, width, c.embedding_size)               # [B, T', D]
        query = query.index_put((row[wanted], place[wanted]), answer)

        every = torch.arange(B, device=row.device)                         # [B]
        after = {"answer": at_length(query, state["answer"], lengths),     # [B, D]
                 "open": timeline[every, :, complete + 1],                 # [B, L, T, D]
                 "count": total % c.segment}                               # [B]
        if not c.nran:
            after["cached"] = timeline[every, :, complete]                 # [B, L, T, D]
            after["closed"] = state["closed"] | (complete > 0)             # [B]
        if memories is not None:
            after["memory"], after["filled"] = memories.slots[:, -1], memories.filled[:, -1]  # [B, L, m, D], [B]
        return query, after, (weights, gate, memory)

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The answer after the last event. Before any it is 0, and all items tie."""
        return state["answer"][:, None]                                    # [B, 1, D]

    def _short(
        self, rows: Tensor, cells: Cells, wanted: Tensor, state: State
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Equation 1, all segments at once: H~ of the wanted events [w, D], levels 0..L-1 in cells, weights a layer."""
        c, (B, N, T) = self.config, cells.shape
        visible = torch.ones(T, T, dtype=torch.bool, device=rows.device).tril().expand(B, N, T, T)
        if not c.nran:
            there = torch.ones(B, N, 1, 1, dtype=torch.bool, device=rows.device)
            there[:, 0, 0, 0] = state["closed"] > 0
            visible = torch.cat([there.expand(B, N, T, T), visible], -1)   # [B, N, T, 2T]
        levels, weights = [], []
        for number, layer in enumerate(self.short):
            keys = cells.spread(rows, state["open"][:, number])            # [B, N, T, D]
            levels.append(keys.detach())
            if not c.nran:
                cached = torch.cat([state["cached"][:, number, None], keys[:, :-1]], 1).detach()  # [B, N, T, D]  SG
                keys = torch.cat([cached if c.bare else cached + self.cached_position, keys], 2)  # [B, N, 2T, D]
            if number == c.layers - 1:
                rows, cells = rows[wanted], cells.some(wanted)             # [w, D]
            rows, weight = layer(rows, cells, keys, visible)               # [n or w, D], [n or w, V]
            weights.append(weight)
        return rows if c.bare else self.short_norm(rows), levels, weights

    def _remember(self, timeline: Tensor, state: State, complete: Tensor) -> Memories:
        """Equation 4 after each segment of this call, and in training equation 5, which is left in `auxiliary`."""
        N, late = timeline.shape[2] - 2, 0 if self.config.nran else 1
        ready = complete[:, None] > torch.arange(N, device=complete.device)  # [B, N] segments that end in this call
        if late:
            ready[:, 0] &= state["closed"] > 0                             # there is one before it
        hidden, source = timeline[:, :, 1 : N + 1], timeline[:, :, 1 - late :][:, :, :N]  # [B, L, N, T, D]
        memories: Memories = self.memory(state["memory"], state["filled"], hidden, source, ready)
        if self.training and memories.absorbed:
            self.auxiliary = self.memory.loss(memories.absorbed, [cast(Block, layer).attention for layer in self.short])
        return memories

    def _gated(
        self, rows: Tensor, short: Tensor, cells: Cells, memories: Memories | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Equations 2 and 3: V [w, D], the mean gates [w], and the weights of the slots [w, L, m].

        Where the memory is empty the gate is 1. Training leaves such events out of the long branch; answering does not,
        so that an event costs the same at any age.
        """
        c = self.config
        gate, weights = short.new_ones(len(short)), short.new_zeros(len(short), c.layers, c.slots)
        if memories is None:
            return short, gate, weights
        used = memories.filled[:, :-1]                                     # [B, N]
        visible = torch.arange(-c.slots, 0, device=used.device) >= -used[:, :, None, None]  # [B, N, 1, m]
        knows = used.reshape(-1)[cells.flat // c.segment] > 0              # [w]
        which = (knows if self.training else torch.ones_like(knows)).nonzero()[:, 0]  # [r]
        long, near, cells = rows[which], short[which], cells.some(which)   # [r, D]
        for number, layer in enumerate(self.long):
            long, weight = layer(long, cells, memories.slots[:, :-1, number], visible)  # [r, D], [r, m]  eq. 2
            weights[which, number] = weight.detach()
        long = long if c.bare else self.long_norm(long)                    # [r, D]
        G = torch.sigmoid(self.gate_short(near) + self.gate_long(long))    # [r, D]
        G = G.masked_fill(~knows[which, None], 1)                          # [r, D]
        gate[which] = G.detach().mean(-1)                                  # [r]
        return short.index_copy(0, which, G * near + (1 - G) * long), gate, weights  # eq. 3

    def item_matrix(self) -> Tensor:
        """The embeddings: in and out are one table."""
        return self.item.weight[1:]                                        # [I, D]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T', V]: the mean over layers of equation 1's weights, over the cached and the open segment,
        newest last (V = 2T; T without a cache). "gate" [B, T']: the mean of G, the share of the short branch; 1 while
        there is no memory. "memory" [B, T', L, m]: equation 2's weights over the slots of each level.
        """
        with torch.no_grad():
            _, _, (layers, gate, memory) = self._run(events, state, events.mask)
        mean = torch.stack(layers).mean(0)                                 # [n, V]
        row, place = events.mask.nonzero(as_tuple=True)                    # [n], [n]
        V, T = mean.shape[1], self.config.segment
        late = T - 1 - (state["count"][row] + place) % T                   # [n] keys to come in the own segment
        move = torch.arange(V, device=late.device) - late[:, None]         # [n, V]
        newest_last = mean.gather(1, move.clamp(min=0)) * (move >= 0)      # [n, V]
        parts = {"attention": newest_last} | ({} if self.config.memory == "none" else {"gate": gate, "memory": memory})
        return {name: part.new_zeros(*events.shape, *part.shape[1:]).index_put((row, place), part)
                for name, part in parts.items()}
