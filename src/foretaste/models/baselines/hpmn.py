"""HPMN: R memory slots of a user, each slower than the one below it, read by attention from the newest item.

Ren, Qin, Fang, Zhang, Zheng, Bian, Zhou, Xu, Yu, Zhu, Gai, "Lifelong Sequential Modeling with Personalized Memorization
for User Response Prediction", SIGIR 2019, section 4. Slot r is the state of a GRU that runs on what the slot below has
become, at every p_r-th event, p_r = period^r; slot 0 takes in every item:

    m_0 = GRU_0(x_t, m_0);    m_r = GRU_r(m_{r-1}, m_r)  where p_r divides t,  else m_r stays            (write)
    w = softmax over slots of E(q, m_r),   q <- H q + sum_r w_r m_r,   `hops` times, from q = W_q x_t + b   (read)

Adapted to ranking a catalogue, as DMAN must have done and does not say: the paper predicts whether a given item is
clicked, asks with that item, and gives the read to a tower of dense layers. Here the newest item asks, the read is
mapped to an item's size and compared with every item, score(i) = (B q) . x_i, and the loss is that of our DMAN.

Left open, and what was chosen:
- The energy E is the authors': [q, m, q - m, q * m] through 80 and 40 ReLU units. Its last bias is alike for all slots
  and left out. In their code the three hops share H, and each has an E of its own; here they share both.
- A slot not yet written takes no part. The authors fill short histories with zeros in front, which do get written.
- Before any event q comes from b alone, and nothing is read.
- The paper's penalty keeps the slots apart: half the sum of squares of the covariances between slots (over their H
  numbers), the mean over what is asked, times `covariance`. The authors' code sums the root of it over a batch, times
  1e-5; ours is of that order, and has a gradient at 0. It is the `auxiliary` loss.
- Periods are powers of one number; the paper allows one a layer, and uses 2 on its longest log, with 5 slots, as here.
- D = H = 128, the size that DMAN gives to every model; the authors' own log loss has 16 and 32. Uniform within
  1 / sqrt(H). The user's id and profile, which the authors put beside every item, are left out: most logs have no
  profile, and a stranger must be answered from events alone.

Training: slot 0 is one run over the row; slot r one run over every period-th state below it, all rows side by side
wherever they stand. So R runs of T, T / 2, T / 4, ... steps.

To be checked against: DMAN's Table 3 (MovieLens-1M, leave one out, % HR@10 / HR@50 / NDCG@100: 22.84 / 50.54 / 19.77).

State, R = 5, H = 128: slots 2.6 kB, how many events, the newest item. One event: O(H (D + H)) on average, twice that of
one GRU; at worst R times.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import at_length, masked_softmax
from foretaste.spaces import RATE, THIRD, OneOf, Space


class HPMN(SequenceModel):
    """Hierarchical Periodic Memory Network. Score: (B q) . x_i, one inner product; indexable."""

    class Config(Settings):
        """Sizes."""

        embedding_size: int = Field(128, ge=1)
        """D, size of an item embedding."""
        hidden_size: int = Field(128, ge=1)
        """H, size of a slot."""
        slots: int = Field(5, ge=2)
        """R, slots and GRUs."""
        period: int = Field(2, ge=2)
        """Slot r is written at every period^r-th event."""
        hops: int = Field(3, ge=1)
        """How often the memory is read, each time asked by what was read before."""
        covariance: float = Field(1e-3, ge=0)
        """Weight of the penalty on covariances between slots."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Share of the entries of what is written that are dropped in training; the item that asks is read whole."""

    summary = "stacked GRUs, each slower than the one below; their states are read by attention from the newest item"
    paper = ("Ren et al., Lifelong Sequential Modeling with Personalized Memorization for User Response Prediction, "
             "SIGIR 2019")  # fmt: skip
    scope = "user"
    recipe: ClassVar = {
        "loss": "softmax", "optimizer": "adam", "learning_rate": 1e-3, "batch": 2560, "chunk": 500, "epochs": 200,
        "patience": 10, "metric": "ndcg@20",
    }  # fmt: skip
    space: ClassVar[Space] = {
        "learning_rate": RATE, "embedding_size": OneOf(64, 128), "slots": OneOf(3, 5), "dropout": THIRD,
    }  # fmt: skip
    masters = ("popularity", "last_item", "order", "set")
    short_of: ClassVar = {"user_taste": "no vector of a user: a taste would have to be told by the history"}
    beyond = "dwell"

    config: HPMN.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c = self.config
        D, H = c.embedding_size, c.hidden_size
        self.item = nn.Embedding(n_items + 1, D, padding_idx=0)            # x [1 + I, D]
        self.grus = nn.ModuleList(nn.GRU(H if slot else D, H, batch_first=True) for slot in range(c.slots))
        self.W_q = nn.Linear(D, H)                                         # with b
        self.H = nn.Linear(H, H, bias=False)
        self.energy = nn.Sequential(                                       # E
            nn.Linear(4 * H, 80), nn.ReLU(), nn.Linear(80, 40), nn.ReLU(), nn.Linear(40, 1, bias=False)
        )
        self.B = nn.Linear(H, D, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        bound = 1 / math.sqrt(self.config.hidden_size)
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)
        self.item.weight.data[0] = 0

    def initial_state(self, users: Tensor) -> State:
        """Nothing written."""
        c = self.config
        slots = self.item.weight.new_zeros(len(users), c.slots, c.hidden_size)  # [B, R, H]
        return {"slots": slots, "count": torch.zeros_like(users), "last": torch.zeros_like(users)}  # [B] each

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """Every prefix of every row in one pass (see `SequenceModel.forward`)."""
        (B, T), lengths = events.shape, events.lengths()                   # [B]
        every = self._write(events, state)                                 # R times [B, 1 + S_r, H]
        rows, count = torch.arange(B, device=lengths.device), state["count"]  # [B], [B]
        after = {"slots": self._slots(every, count, rows, lengths),        # [B, R, H]
                 "count": count + lengths,                                 # [B]
                 "last": at_length(events.items[..., None], state["last"][:, None], lengths)[:, 0]}  # [B]
        row, place = (torch.ones_like(events.mask) if at is None else at).nonzero(as_tuple=True)  # [N], [N]
        slots = self._slots(every, count, row, place + 1)                  # [N, R, H]
        self.auxiliary = self.config.covariance * covariances(slots) if self.training else None
        answer, _ = self._read(self.item(events.items[row, place]), slots, count[row] + place + 1)  # [N, D]
        return (answer if at is not None else answer.view(B, T, answer.shape[-1])), after

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone; before any event it is the same for everyone."""
        return self._read(self.item(state["last"]), state["slots"], state["count"])[0][:, None]  # [B, 1, D]

    def _periods(self, like: Tensor) -> Tensor:
        """[R]: at every how many events each slot is written."""
        return self.config.period ** torch.arange(self.config.slots, device=like.device)

    def _write(self, events: Events, state: State) -> list[Tensor]:
        """Of each slot, what it was before this call and after each time it is written: R times [B, 1 + S_r, H].

        Writes are counted from the user's first event on: when the upper slot is written for the g-th time, the one
        below has been written g * period times.
        """
        count, end = state["count"], state["count"] + events.lengths()     # [B], [B]
        inputs = nn.functional.dropout(self.item(events.items), self.config.dropout, self.training)  # [B, T, D]
        rows, period = torch.arange(len(count), device=count.device)[:, None], self.config.period
        every: list[Tensor] = []
        for slot, gru in enumerate(self.grus):
            before = state["slots"][:, slot]                               # [B, H]
            if slot:
                below, count, end = count, count // period, end // period  # [B] each, writes of the slot below and here
                S = int((end - count).max()) if len(count) else 0
                nth = count[:, None] + torch.arange(1, S + 1, device=count.device)  # [B, S] g
                place = nth * period - below[:, None]                      # [B, S] among the writes below in this call
                inputs = every[-1][rows, place.clamp(max=every[-1].shape[1] - 1)]  # [B, S, H]
            out = gru(inputs, before[None].contiguous())[0] if inputs.shape[1] else before[:, None][:, :0]  # [B, S, H]
            every.append(torch.cat([before[:, None], out], 1))
        return every

    def _slots(self, every: list[Tensor], count: Tensor, row: Tensor, events: Tensor) -> Tensor:
        """The memory of `row` [N] after so many of its `events` [N] in this call: [N, R, H]"""
        periods, count = self._periods(count), count[row, None]            # [R], [N, 1]
        writes = (count + events[:, None]) // periods - count // periods   # [N, R]
        found = [states[row, nth.clamp(max=states.shape[1] - 1)]           # what is asked of padding matters not
                 for states, nth in zip(every, writes.unbind(1), strict=True)]
        return torch.stack(found, 1)

    def _read(self, x: Tensor, slots: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """From the newest item x [N, D]: the answer [N, D], and the weights of each hop [N, hops, R]."""
        q, weights = self.W_q(x), []                                       # [N, H]
        written = count[:, None] >= self._periods(count)                   # [N, R]
        for _ in range(self.config.hops):
            asks = q[:, None].expand_as(slots)                             # [N, R, H]
            pairs = torch.cat([asks, slots, asks - slots, asks * slots], -1)  # [N, R, 4H]
            weights.append(masked_softmax(self.energy(pairs)[..., 0], written))  # [N, R]
            q = self.H(q) + torch.einsum("nr,nrh->nh", weights[-1], slots)  # [N, H]
        return self.B(q), torch.stack(weights, 1)

    def item_matrix(self) -> Tensor:
        """x."""
        return self.item.weight[1:]                                        # [I, D]

    def owned(self, users: Tensor, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """x of each item."""
        return [(self.item.weight, items)]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"slots" [B, T, hops, R]: the weight of each slot at each hop, the quickest slot first."""
        (B, T), count = events.shape, state["count"]
        if not B * T:
            return {}
        row, place = torch.ones_like(events.mask).nonzero(as_tuple=True)   # [B T]
        slots = self._slots(self._write(events, state), count, row, place + 1)  # [B T, R, H]
        _, weights = self._read(self.item(events.items[row, place]), slots, count[row] + place + 1)
        return {"slots": weights.view(B, T, self.config.hops, -1)}


def covariances(slots: Tensor) -> Tensor:
    """Half the sum of squares of the covariances between different slots [N, R, H], the mean over N: a scalar."""
    apart = slots - slots.mean(-1, keepdim=True)                           # [N, R, H]
    C = apart @ apart.mT / slots.shape[-1]                                 # [N, R, R]
    between = C.square().sum() - C.diagonal(dim1=1, dim2=2).square().sum()
    return between / (2 * max(len(slots), 1))
