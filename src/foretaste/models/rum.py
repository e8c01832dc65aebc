"""RUM: what a user likes, and a memory of what she did, read by the candidate itself.

Chen, Xu, Zhang, Tang, Cao, Qin, Zha, "Sequential Recommendation with User Memory Networks", WSDM 2018, section 3. It is
one framework (`RUM`: MERGE and PREDICT) with two memories (READ and WRITE): `ItemRUM` holds the last K items,
`FeatureRUM` holds K values that each item erases and adds to. They differ in state, cost and reasons, so they are two
models.

Left open or contradicted, and what was chosen (more in docs/rum.md):
- Attention: softmax over the filled slots, eq. 7 and 9. The authors' code takes it over an axis of size 1: every weight
  is 1, and item level divides by K: `attention="ones"`. The strength beta is 1, or learned.
- Memory before the first event: empty slots take no part, and p_u is then p*; at feature level all start from one
  learned M_0. In the authors' code each user has a trained memory, that the next pass finds as the last one left it.
- E and A: learned with their biases, from the identity and 0; the authors' code has neither. Gradients flow through the
  writes of a chunk; written after scoring, which the contract sees to.
- MERGE: "multiplication" is p* . p^m, "concat" is [p*; p^m], mapped to D by a matrix that starts as "add" (not where
  a hidden layer follows); alpha is add's. PREDICT: an inner product, or one hidden layer over [p_u; q] as in He et al.,
  WWW 2017. No sigmoid: the loss has it.
- The penalty of eq. 5 is on all parameters. Here it is `l2`, on p* and q of what a step asks and scores; 0 by default.
- A user who was not in training has the mean of all p*.
- SGD, one event at a time in the authors' code, is Adam on batches of users here; docs/rum.md says how to repeat it.

State, K = 20, D = 50: the user's number and K ids (88 bytes), or K values (4 kB). One event: O(1), or O(K D + D^2).
Scoring: exact, O(K D) a candidate. The read depends on the candidate, so there is no item matrix.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.config import Only
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import Users, slide
from foretaste.spaces import L2, RATE, OneOf, Space

HELD = {"cpu": 2**19, "other": 2**26}
"""Numbers of one temporary while a block of candidates is scored, by kind of device."""
SLAB = 32
"""Events of each row that are looked up at once while values are written."""


class RUM(SequenceModel):
    """The framework, section 3.1. Score: q . MERGE(p*, READ(M, q))."""

    class Config(Settings):
        """Sizes and variants; the defaults are the paper's, or the authors' code's where the paper gives a grid."""

        embedding_size: int = Field(50, ge=1)
        """D, size of every vector; the paper tries 10 to 50."""
        slots: int = Field(20, ge=1)
        """K, memory slots: the last K items, or K features. The paper's heat maps have 5."""
        alpha: Annotated[float, Only(merge="add"), Only(merge="concat", predict="inner")] = Field(0.2, ge=0)
        """How much the memory counts beside the user's own vector, in merge = "add"; 0 is matrix factorisation."""
        beta: Annotated[float, Only(attention="softmax")] = Field(1.0, ge=0)
        """Strength of attention = "softmax": 0 weighs all slots alike, large values pick one."""
        learn_beta: bool = False
        """Train beta, from the value above."""
        attention: Literal["softmax", "ones"] = "softmax"
        """Weights that sum to 1, or all 1 (1 / K at item level), which is what the authors' code computes."""
        merge: Literal["add", "multiply", "concat"] = "add"
        """How the memory joins the user's own vector: weighted sum, product entry by entry, or side by side; the 2D of
        the last enter the hidden layer of predict = "mlp" as they are, and alpha says nothing."""
        predict: Literal["inner", "mlp"] = "inner"
        """How a candidate is scored: inner product, or a network with one hidden layer."""
        hidden_size: Annotated[int, Only(predict="mlp")] = Field(50, ge=1)
        """Hidden units of predict = "mlp"."""
        init: Literal["uniform", "normal"] = "uniform"
        """Initial vectors from U(0, 0.1), or from N(0, 0.01^2). The authors' code draws p* and q from the former; F and
        M_0, which are drawn like them here, by Glorot's law."""

        @model_validator(mode="after")
        def _agrees(self) -> Self:
            if self.learn_beta and self.attention == "ones":
                raise ValueError("attention = 'ones' has no strength to learn: leave learn_beta, or take 'softmax'")
            return self

    paper = "Chen et al., Sequential Recommendation with User Memory Networks, WSDM 2018"
    scope = "user"
    needs = frozenset({"users"})
    recipe: ClassVar = {
        "loss": "bce", "negatives": 1, "sampler": "uniform", "optimizer": "adam", "learning_rate": 1e-3,
        "first": True, "chunk": 20, "batch": 512, "epochs": 30,
    }  # fmt: skip
    space: ClassVar[Space] = {"learning_rate": RATE, "l2": L2, "alpha": OneOf(0.2, 0.5, 1.0), "slots": OneOf(5, 20)}

    config: RUM.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c = self.config
        D, merged = c.embedding_size, c.embedding_size * (2 if c.merge == "concat" else 1)
        self.user = Users(n_users, D)                                      # p* [1 + U, D]
        self.item = nn.Embedding(n_items + 1, D, padding_idx=0)            # q [1 + I, D]
        self.beta: Tensor | float = nn.Parameter(torch.tensor(c.beta)) if c.learn_beta else c.beta
        if c.predict == "mlp":
            self.from_user = nn.Linear(merged, c.hidden_size)
            self.from_item = nn.Linear(D, c.hidden_size, bias=False)
            self.out = nn.Linear(c.hidden_size, 1, bias=False)
        elif c.merge == "concat":
            self.W = nn.Parameter(torch.cat([torch.eye(D), c.alpha * torch.eye(D)]))  # [2D, D]
        for table in (self.user, self.item):
            self.draw(table.weight)
            table.weight.data[0] = 0

    def draw(self, weight: Tensor) -> Tensor:
        """New values for `weight` from torch's current generator (see `contract.seeded`)."""
        uniform = self.config.init == "uniform"
        return nn.init.uniform_(weight, 0, 0.1) if uniform else nn.init.normal_(weight, std=0.01)

    @abstractmethod
    def attend(self, q: Tensor, match: Tensor, filled: Tensor | None) -> Tensor:
        """z [N, K, C] or [K, C]: how candidates q [C, D] or [N, C, D] weigh the slots; match [N, K, C] is q . m_k."""

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Every candidate reads the memory by itself; in blocks of candidates (see `SequenceModel.score`)."""
        assert isinstance(query, dict)
        axes = query["user"].shape[:-1]                                    # [B, T] or [N] or [B, 1]
        user, memory = query["user"].flatten(0, -2), query["memory"].flatten(0, -3)  # [N, D], [N, K, D]
        filled = query["filled"].flatten(0, -2) if "filled" in query else None  # [N, K]
        if filled is not None:
            empty = filled.shape[-1] - (int(filled.sum(-1).max()) if len(filled) else 0)
            memory, filled = memory[:, empty:], filled[:, empty:]          # [N, K, D], [N, K] slots filled in any row
        if items is None:
            items = torch.arange(1, self.n_items + 1, device=user.device)  # [I]
        candidates = items if items.dim() == 1 else items.flatten(0, -2)   # [C] or [N, C]
        held = HELD["cpu" if user.device.type == "cpu" else "other"]
        own = self.config.embedding_size if items.dim() > 1 else 0         # of a row's own candidates' vectors
        step = max(1, held // (max(len(user), 1) * max(self._widest, own)))
        scores = user.new_empty(len(user), items.shape[-1])                # [N, C]
        for first in range(0, items.shape[-1], step):
            q = self.item(candidates[..., first : first + step])           # [c, D] or [N, c, D]
            scores[:, first : first + step] = self._score(user, memory, filled, q)
        return scores.view(*axes, items.shape[-1])

    @property
    def _widest(self) -> int:
        """Numbers that a temporary holds for each pair of a row and a candidate."""
        c = self.config
        plain = c.merge == "add" and c.predict == "inner"
        return c.slots if plain else max(c.slots, 2 * c.embedding_size, c.hidden_size)

    def _score(self, user: Tensor, memory: Tensor, filled: Tensor | None, q: Tensor) -> Tensor:
        """[N, C]: candidates q [C, D] or [N, C, D] against user [N, D] and memory [N, K, D]."""
        c = self.config
        match = memory @ q.mT                                              # [N, K, C]  q . m_k
        z = self.attend(q, match, filled)                                  # [N, K, C] or [K, C]  eq. 7, 9
        if c.merge == "add" and c.predict == "inner":                      # q . sum z m = sum z (q . m)
            return (user[:, None] @ q.mT)[:, 0] + c.alpha * (z * match).sum(-2)  # [N, C]  eq. 1-4
        read = z.mT @ memory                                               # [N, C, D]  eq. 8, 10
        merged = self._merge(user[:, None].expand_as(read), read, filled)  # [N, C, D or 2D]  eq. 2
        if c.predict == "mlp":
            hidden = torch.relu(self.from_user(merged) + self.from_item(q))  # [N, C, H]
            scores: Tensor = self.out(hidden)[..., 0]                      # [N, C]
            return scores
        return ((merged @ self.W if c.merge == "concat" else merged) * q).sum(-1)  # [N, C]  eq. 4

    def _merge(self, user: Tensor, read: Tensor, filled: Tensor | None) -> Tensor:
        if self.config.merge == "add":
            return user + self.config.alpha * read                         # [N, C, D]  eq. 3
        if self.config.merge == "concat":
            return torch.cat([user, read], -1)                             # [N, C, 2D]
        if filled is None:
            return user * read                                             # [N, C, D]
        return user * torch.where(filled.any(-1)[:, None, None], read, 1)  # [N, C, D] nothing read: 1

    def owned(self, users: Tensor, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """p* of each user; 0 has none of its own; q of each item."""
        return [(self.user.weight, users), (self.item.weight, items)]


class ItemRUM(RUM):
    """Item level, section 3.2: the memory is the last K items, looked up live; the newest stands last."""

    summary = "own taste and the last K items, each candidate attends to them (item level)"
    masters = ("popularity", "user_taste")
    short_of: ClassVar = {"last_item, order, set": "slots are read by their likeness to a candidate, in no order"}
    beyond = "order"
    by_candidate = ("attention",)

    def initial_state(self, users: Tensor) -> State:
        """Every slot empty."""
        empty = torch.zeros(len(users), self.config.slots, dtype=torch.int32, device=users.device)  # [B, K]
        return {"user": users, "slots": empty}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """Push each item into the ring (eq. 6), then answer."""
        B, T = events.shape
        slots = self._rings(events, state)                                 # [B, T, K]
        after = {"user": state["user"], "slots": slide(state["slots"], events.items.int(), events.lengths())}
        user = self.user(state["user"])[:, None].expand(B, T, -1)          # [B, T, D]
        return (self._ask(user, slots) if at is None else self._ask(user[at], slots[at])), after

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """From the ring as it stands."""
        return self._ask(self.user(state["user"])[:, None], state["slots"][:, None])  # [B, 1, ...]

    def _rings(self, events: Events, state: State) -> Tensor:
        """The slots after each event, newest last: [B, T, K]"""
        both = torch.cat([state["slots"], events.items.int()], 1)          # [B, K + T]
        return both.unfold(1, self.config.slots, 1)[:, 1:]                 # [B, T, K]

    def _ask(self, user: Tensor, slots: Tensor) -> Query:
        return {"user": user, "memory": self.item(slots), "filled": slots > 0}  # [..., D], [..., K, D], [..., K]

    def attend(self, q: Tensor, match: Tensor, filled: Tensor | None) -> Tensor:
        """Equation 7 over the filled slots; without any, what the weights are is of no matter: empty slots hold 0."""
        assert filled is not None
        if self.config.attention == "ones":
            return filled[..., None].to(match.dtype) / self.config.slots   # [N, K, 1]
        least = torch.finfo(match.dtype).min
        return (self.beta * match).masked_fill(~filled[..., None], least).softmax(-2)  # [N, K, C]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T, C, K]: z of each candidate over "items" [B, T, K], the ids in the slots, newest last."""
        query, _ = self(events, state)
        slots = self._rings(events, state)                                 # [B, T, K]
        q = self.item.weight[1:] if items is None else self.item(items)    # [C, D]
        match = query["memory"] @ q.T                                      # [B, T, K, C]
        z = self.attend(q, match, query["filled"]) * query["filled"][..., None]  # [B, T, K, C]
        return {"attention": z.expand_as(match).mT, "items": slots.long()}


class FeatureRUM(RUM):
    """Feature level, section 3.3: K features that all users share, and of each user a value for each of them."""

    summary = "own taste and a value for each of K features, erased and added to by each item (feature level)"
    masters = ("popularity", "user_taste", "set")
    short_of: ClassVar = {"last_item, order": "its memory sums up a history, whatever the order"}
    beyond = "dwell"
    by_candidate = ("features", "values")

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        K, D = self.config.slots, self.config.embedding_size
        if self.config.attention == "softmax":
            self.F = nn.Parameter(self.draw(torch.empty(K, D)))            # [K, D] the features' keys
        self.M0 = nn.Parameter(self.draw(torch.empty(K, D)))               # [K, D] values before the first event
        self.E, self.b_e = nn.Parameter(torch.eye(D)), nn.Parameter(torch.zeros(D))  # [D, D], [D]
        self.A, self.b_a = nn.Parameter(torch.eye(D)), nn.Parameter(torch.zeros(D))  # [D, D], [D]

    def initial_state(self, users: Tensor) -> State:
        """M_0, for everybody, at the start of every pass."""
        return {"user": users, "memory": self.M0.repeat(len(users), 1, 1)}  # [B], [B, K, D]

    def attend(self, q: Tensor, match: Tensor, filled: Tensor | None) -> Tensor:
        """Equation 9: which features an item has, whoever asks."""
        if self.config.attention == "ones":
            return q.new_ones(self.config.slots, 1)                        # [K, 1]
        return (self.beta * (self.F @ q.mT)).softmax(-2)                   # [K, C] or [N, K, C]

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """A scan over time, all rows at once: erase and add, then answer where asked."""
        B, T = events.shape
        asked = torch.ones_like(events.mask) if at is None else at         # [B, T]
        place, row = asked.T.nonzero(as_tuple=True)                        # [N], [N] one event after the other
        who = torch.split(row, asked.sum(0).tolist())                      # T of [n]
        memory, kept = state["memory"], [state["memory"][:0]]
        for first in range(0, T, SLAB):
            piece = events.cut(first, first + SLAB)                        # [B, S]
            q = self.item(piece.items)                                     # [B, S, D]
            z = self.attend(q, q, None).mT * piece.mask[..., None]         # [B, S, K] padding writes nothing
            erase = torch.sigmoid(q @ self.E + self.b_e)                   # [B, S, D]  eq. 11
            add = torch.tanh(q @ self.A + self.b_a)                        # [B, S, D]  eq. 13
            for t in range(q.shape[1]):                                    # m (1 - z e) + z a = m + z (a - e m)
                change = torch.addcmul(add[:, t, None], erase[:, t, None], memory, value=-1)  # [B, K, D]
                memory = torch.addcmul(memory, z[:, t, :, None], change)   # [B, K, D]  eq. 12, 13
                kept.append(memory[who[first + t]])                        # [n, K, D]
        values = torch.cat(kept)[(row * T + place).argsort()]              # [N, K, D] one row after the other
        query = {"user": self.user(state["user"])[row.sort().values], "memory": values}  # [N, D], [N, K, D]
        if at is None:
            query = {name: part.view(B, T, *part.shape[1:]) for name, part in query.items()}  # [B, T, ...]
        return query, {"user": state["user"], "memory": memory}

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """From the values as they stand."""
        return {"user": self.user(state["user"])[:, None], "memory": state["memory"][:, None]}  # [B, 1, ...]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"features" [B, T, C, K]: z of each candidate; "values" [B, T, C, K]: q . m_k, what each slot says of it."""
        query, _ = self(events, state)
        q = self.item.weight[1:] if items is None else self.item(items)    # [C, D]
        match = query["memory"] @ q.T                                      # [B, T, K, C]
        return {"features": self.attend(q, match, None).expand_as(match).mT, "values": match.mT}
