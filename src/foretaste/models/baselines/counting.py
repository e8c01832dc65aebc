"""What the counting models share: scores that are sums of whole numbers, the order of what ties, tables that load.

A counting model lets the last items of a row vote. Each vote is a whole number, in a unit that is a power of two, and
the ones that fall to an item are added up in float64, where such sums are exact: they do not depend on the order in
which they are taken, so the law holds to the last bit and what ties, ties. A weight that is no multiple of the unit
(1/3, a cosine) is rounded once, in the table: two sums of several such votes that are equal on paper, as SR and
Item-KNN with `last` > 1 have them, may lie a unit or so apart, and then no rule for ties settles them.

Where a log says which of its events are ever asked for (purchases, not clicks), all vote, and those alone get votes.
Ties (`ties` of each Config). Counts are small numbers, so many items share one, and what is shown of them is chance
unless it is settled. "latest": by how often the item occurs in the training log, then by how late it occurs there.
"popularity": by the first alone, as most published figures have it. "none": left as they are. The place of an item in
this order is added to its score as a fraction of one unit, so it never outweighs a vote. Whatever is still equal stays
equal: evaluation then shows two figures, one for each way in which it may fall. Items without a vote follow in the same
order; with `fill` = False they are never shown, as in lists of rules or neighbours alone.

A table of votes from item to item is a sparse matrix by rows, in three buffers: `offsets` [I + 2] int64, one a row from
0 (no item, always empty) on, `columns` [V] int32 the items that are voted for, `votes` [V] int32. So a pair costs
8 bytes. Its size depends on the log, so a saved one brings its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from foretaste.config import Config as Settings
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import slide
from foretaste.models.rows import ranges
from foretaste.models.triangle import newest

if TYPE_CHECKING:
    from foretaste.data.sequences import Sequences

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Ties = Literal["latest", "popularity", "none"]

DIGITS = 52
"""Binary digits of a float64: what the votes of a row, and the order of the items, have to share."""
LARGEST = 30
"""Binary digits of one vote, at most; it is kept as an int32."""
ARRAY = 2**24
"""So many sums fit an array of their own: those of all pairs among 4,095 items."""
PAIRS = 2**22
"""Pairs of events that are counted at once."""
ROWS = 64
"""Rows whose own candidates are scored at once."""


class Votes(SequenceModel):
    """Each of the last W items of a row votes; an item scores the sum of its votes and its place in the order."""

    class Config(Settings):
        """What all of these models share."""

        ties: Ties = "latest"
        """Settles equal scores: training count, then last occurrence; training count ("popularity"); or nothing."""
        fill: bool = True
        """Items without a vote follow those that have one; False: they are never shown."""
        scope: Literal["session", "user"] = "session"
        """What one row is: a session, or all of a user's events as one."""

    learns = "counts"
    by_candidate = ("votes",)
    not_applicable: ClassVar = {"gradients": "it counts and has no parameters"}

    config: Votes.Config
    order: Tensor
    unit: Tensor

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        self.scope = self.config.scope
        self.register_buffer("order", torch.zeros(n_items, dtype=torch.float64))  # [I] below 1, in units
        self.register_buffer("unit", torch.ones((), dtype=torch.float64))  # of a vote

    @property
    @abstractmethod
    def width(self) -> int:
        """W: so many last items vote."""

    @abstractmethod
    def cast(self, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The votes of `last` [N, W], item numbers and 0 for none: rows [V], items [V], whole numbers [V]."""

    def initial_state(self, users: Tensor) -> State:
        """No item yet."""
        return {"last": users.new_zeros(len(users), self.width)}           # [B, W] newest last, 0 for none

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """The query is the last W items after each event."""
        last = newest(state["last"], events.items)                         # [B, T, W]
        after = slide(state["last"], events.items, events.lengths())       # [B, W]
        return (last if at is None else last[at]), {"last": after}

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The last W items."""
        return state["last"][:, None]                                      # [B, 1, W]

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """The sum of the votes and the order, in float64 (see `SequenceModel.score`)."""
        assert isinstance(query, Tensor)
        last = query.reshape(-1, self.width)                               # [N, W]
        if items is None or items.dim() == 1:
            scores = self._sums(last, items)                               # [N, I] or [N, C]
        else:
            own = items.expand(*query.shape[:-1], -1).reshape(len(last), -1)  # [N, C]
            blocks = zip(torch.split(last, ROWS), torch.split(own, ROWS), strict=True)
            scores = torch.cat([self._sums(rows).gather(1, one - 1) for rows, one in blocks])  # [N, C]
        return scores.view(*query.shape[:-1], scores.shape[1])

    def _sums(self, last: Tensor, items: Tensor | None = None) -> Tensor:
        """Scores of all items, or of a shared list [C]: [N, I] or [N, C]"""
        row, column, vote = self.cast(last)                                # [V] each
        column, back, order = column - 1, None, self.order
        if items is not None:
            distinct = items                                               # [C'] in ascending order
            if not bool((items[1:] > items[:-1]).all()):
                distinct, back = torch.unique(items, return_inverse=True)  # [C'], [C]
            place = torch.full((self.n_items,), -1, device=items.device)   # [I]
            place[distinct - 1] = torch.arange(len(distinct), device=items.device)
            column, order = place[column], order[distinct - 1]             # [V], [C']
            asked = column >= 0                                            # [V]
            row, column, vote = row[asked], column[asked], vote[asked]
        order, vote = order * self.unit, vote * self.unit                  # [C'], [V]
        sums = order.repeat(len(last), 1) if self.config.fill else order.new_zeros(len(last), len(order))  # [N, C']
        sums.view(-1).index_add_(0, row * len(order) + column, vote)
        if not self.config.fill:
            sums.masked_fill_(sums == 0, -torch.inf).add_(order)
        return sums if back is None else sums[:, back]

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T, W]: each of the last "items" alike. For candidates `items` [C] also their votes."""
        last, _ = self.forward(events, state)
        assert isinstance(last, Tensor)
        share = (last > 0) / (last > 0).sum(-1, keepdim=True).clamp(min=1)  # [B, T, W]
        out = {"attention": share, "items": last}
        if items is not None:
            sums = self.score(last, items)                                 # [B, T, C]
            out["votes"] = (sums - self.order[items - 1] * self.unit).clamp(min=0)  # [B, T, C]
        return out

    def count(self, log: Sequences) -> None:
        """What settles a tie in this log."""
        place = standing(log, self.n_items, self.config.ties)              # [I]
        self.order = torch.from_numpy(place / 2.0 ** _digits(self.n_items)).to(self.order.device)


class Table(Votes):
    """Votes from item to item, in a sparse table."""

    class Config(Votes.Config):
        """Who votes, and for how many."""

        last: int = Field(1, ge=1, le=64)
        """W, so many last events vote; 64 is as much of a history as is kept."""
        kept: int = Field(0, ge=0)
        """Items kept in the table for each, those with most votes; 0 for all."""

    config: Table.Config
    offsets: Tensor
    columns: Tensor
    votes: Tensor

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        self.register_buffer("offsets", torch.zeros(n_items + 2, dtype=torch.int64))
        self.register_buffer("columns", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("votes", torch.zeros(0, dtype=torch.int32))

    @property
    def width(self) -> int:
        """W."""
        return self.config.last

    def cast(self, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the table says of each item of `last` [N, W]."""
        voter = last.reshape(-1)                                           # [N W]
        start, size = self.offsets[voter], self.offsets[voter + 1] - self.offsets[voter]  # [N W]
        ends = size.cumsum(0)                                              # [N W]
        who = torch.repeat_interleave(torch.arange(len(voter), device=last.device), size)  # [V]
        place = torch.arange(len(who), device=last.device) + (start - ends + size)[who]  # [V]
        row = who // max(last.shape[1], 1)                                 # [V]
        return row, self.columns[place].long(), self.votes[place].double()

    @abstractmethod
    def weighted_pairs(self, log: Sequences) -> tuple[Ints, Floats]:
        """Pairs of items, each once, as (I + 1) * from + to, and the weight of each, 0 or more: [V], [V]"""

    def count(self, log: Sequences) -> None:
        """The table of this log: its weights as whole numbers of a unit, the strongest of each item."""
        super().count(log)
        pairs, weight = self.weighted_pairs(log)
        pairs, weight = pairs[weight > 0], weight[weight > 0]
        room = min(LARGEST, DIGITS - _digits(self.n_items) - _digits(self.width))
        digits = room - _digits(int(np.ceil(weight.max(initial=1.0))) + 1)  # of the fraction of a weight
        votes = np.maximum(np.rint(weight * 2.0**digits), 1).astype(np.int64)  # [V]
        source, target = pairs // (self.n_items + 1), pairs % (self.n_items + 1)
        if self.config.kept:
            place = standing(log, self.n_items, self.config.ties)          # [I]
            best = np.lexsort((target, -place[target - 1], -votes, source))  # [V] by source, the strongest first
            first = np.searchsorted(source, source, side="left")           # [V] of its source; pairs are in order
            best = best[np.arange(len(best)) - first < self.config.kept]
            source, target, votes = source[best], target[best], votes[best]
        counts = np.bincount(source, minlength=self.n_items + 1)           # [1 + I]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)  # [2 + I]
        device = self.order.device
        self.offsets = torch.from_numpy(offsets).to(device)
        self.columns = torch.from_numpy(target.astype(np.int32)).to(device)
        self.votes = torch.from_numpy(votes.astype(np.int32)).to(device)
        self.unit = torch.tensor(2.0**-digits, dtype=torch.float64, device=device)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        for name in ("columns", "votes"):
            if prefix + name in state_dict:
                setattr(self, name, getattr(self, name).new_zeros(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def standing(log: Sequences, n_items: int, ties: Ties = "latest") -> Ints:
    """[I]: the place of each item in what settles a tie, higher is better; equal where nothing settles it.

    By count in this log (of what may be asked for), then, for "latest", by the last occurrence: its time, or its place.
    """
    items = np.asarray(log.items)
    last = np.full(n_items + 1, -1, dtype=np.int64)
    if ties == "latest":
        np.maximum.at(last, items, np.arange(len(items)) if log.times is None else np.asarray(log.times))
    counts = np.bincount(items[log.may_be_target()], minlength=n_items + 1)  # [1 + I]
    if ties == "none":
        counts[:] = 0
    return dense_rank(last[1:], counts[1:])


def dense_rank(*keys: NDArray[Any]) -> Ints:
    """[n]: the place of each entry by the last key, ties by the one before it, and so on; equal entries share one."""
    order = np.lexsort(keys)
    rises = np.zeros(len(order), dtype=np.int64)
    for key in keys:
        rises[1:] |= key[order][1:] != key[order][:-1]
    rank = np.empty_like(rises)
    rank[order] = np.cumsum(rises)
    return rank


def pairs_of(log: Sequences, within: Ints, steps: int = 0) -> Iterator[tuple[Ints, Ints]]:
    """Places of two known events of one row of offsets `within`, the earlier first, at most `steps` apart (0: any).

    A row is not longer for its cold items. In blocks of about `PAIRS`; the places are those of the known events alone.
    """
    known = log.known[within]                                              # [rows + 1]
    n = int(known[-1])
    stop = np.repeat(known[1:], np.diff(known))                            # [n] end of each event's row
    if steps:
        stop = np.minimum(stop, np.arange(n) + 1 + steps)
    many = np.concatenate([[0], np.cumsum(stop - np.arange(n) - 1)])       # [n + 1] pairs before each event
    cuts = np.searchsorted(many, np.arange(PAIRS, int(many[-1]) + PAIRS, PAIRS), side="right") - 1
    first = 0
    for last in np.append(cuts, n).clip(max=n).tolist():
        last = max(last, min(first + 1, n))
        some = np.arange(first, last)
        yield np.repeat(some, stop[some] - some - 1), ranges(some + 1, stop[some])
        first = last


class Sums:
    """Sums of weights by a key 0..size-1, block after block: in an array where it is small, else sorted and merged."""

    def __init__(self, size: int) -> None:
        self.every = np.zeros(size) if size <= ARRAY else None             # [size]
        self.keys, self.sums = np.zeros(0, dtype=np.int64), np.zeros(0)    # [P] each

    def add(self, key: Ints, weight: Floats | None = None) -> None:
        """Keys, and the weight of each (None: 1 each)."""
        if self.every is not None:
            self.every += np.bincount(key, weight, len(self.every))
            return
        weights = np.concatenate([self.sums, np.ones(len(key)) if weight is None else weight])
        self.keys, back = np.unique(np.concatenate([self.keys, key]), return_inverse=True)
        self.sums = np.bincount(back, weights, len(self.keys)).astype(np.float64)

    def all(self) -> tuple[Ints, Floats]:
        """The keys whose sum is above 0, in ascending order, and their sums."""
        sums = self.sums if self.every is None else self.every
        some = np.flatnonzero(sums)
        return (some if self.every is not None else self.keys[some]), sums[some]


def _digits(largest: int) -> int:
    """Binary digits that the whole numbers below `largest` take."""
    return max(int(largest) - 1, 0).bit_length()
