"""What the models of session neighbours share: past sessions are found by the index and vote for what they hold.

A vote is a whole multiple of a power of two, chosen by the greatest vote of the question so that any k of them add up
exactly in float64: a sum does not depend on the order in which it is taken, and what is equal is equal to the last
bit. Scores are rounded so that the place of an item in what settles ties (`ties`, as in counting.py) has the digits
after them: a float64 is shared out by the sum of each question's votes. At 43,097 items a score is
exact to 2^-36 of it; a vote is never less than that, so what any neighbour holds goes before what none does.

The query names the neighbours and their votes, so that a list of candidates costs no more than its neighbours.

Where a log says which of its events are ever asked for, an item gets votes from the sessions in which it was such an
event; what is shared, and so who is a neighbour, goes by all events.

Letters as in contract.py, and: V neighbours of the question that has the most, M neighbours of some questions, E what
they hold, S sessions of the index.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from foretaste.config import Config as Settings
from foretaste.models.baselines.counting import DIGITS, Ties, standing
from foretaste.models.baselines.session_index import MOST, Asked, Floats, Ints, SessionIndex, array
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import slide
from foretaste.models.triangle import newest

if TYPE_CHECKING:
    from foretaste.data.sequences import Sequences

Arrays = Mapping[str, NDArray[Any]]

FINE = 2**40
"""Unit of a weight that is no whole number."""
CELLS = 2**18
"""Scores that are laid out at once."""
LEAST = 1e-300
"""Divides nothing by something."""


class Shared(Settings):
    """What all of them share."""

    k: int = Field(500, ge=1, le=MOST)
    """Neighbours."""
    sample: int = Field(5000, ge=1, le=MOST)
    """m: only so many of the latest sessions that share an item are compared."""
    window: int = Field(100, ge=1, le=1000)
    """W: so many last events are the open session."""
    ties: Ties = "latest"
    """What settles equal scores: training count and then last occurrence, training count ("popularity"), or nothing."""


WHOLE = {
    "last_item, order": "sessions that share items vote for all that they hold, whatever followed in them",
    "user_taste": "its rows are sessions: it does not know whose",
}
"""What no neighbour tells."""


class Neighbours(SequenceModel):
    """Finds neighbours and lets them vote; the models say what is similar and what a vote is worth."""

    learns = "counts"
    not_applicable: ClassVar = {"gradients": "it counts and has no parameters"}
    by_place = False
    """The votes of a session go by the places in it, and the query names the latest shared item."""

    config: Shared
    order: Tensor
    factor: Tensor

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        self.index = SessionIndex(n_items, self.config.sample, places=self.by_place)
        self.register_buffer("order", torch.zeros(n_items, dtype=torch.float64))  # [I] below 1: settles ties
        self.register_buffer("factor", torch.ones(n_items, dtype=torch.float64))  # [I] 1 + idf log(S / n(i))

    @property
    def rarity(self) -> float:
        """How much rare items are raised."""
        return 0.0

    @abstractmethod
    def weigh(self, step: Ints, length: Ints) -> Ints:
        """What an item weighs `step` (1 the newest) events back in a session of `length`: a whole number."""

    @abstractmethod
    def unit(self, length: Ints, distinct: Ints, squares: Floats) -> Floats:
        """[N]: what the weights of an open session are counted in, by its events, its items, and their weights."""

    def decay(self, step: Ints) -> Floats:
        """What a vote is worth whose latest shared item stands `step` events back."""
        return np.ones(len(step))

    def priors(self, ends: Ints, clock: bool) -> Floats:
        """[S]: what each session's similarity is multiplied with, from the times (or places) at which they end."""
        return np.zeros(0)

    def count(self, log: Sequences) -> None:
        """Build the index; what settles ties."""
        ends, found = self.index.build(log)                                # [S], [1 + I]
        idf = np.log(len(ends) / np.maximum(found[1:], 1)) * (found[1:] > 0)  # [I]
        place = standing(log, self.n_items, self.config.ties)              # [I]
        self.index.put("prior", self.priors(ends, log.times is not None))
        device = self.order.device
        self.order = torch.from_numpy(place / 2.0 ** self.n_items.bit_length()).to(device)
        self.factor = torch.from_numpy(1 + self.rarity * idf).to(device)

    def initial_state(self, users: Tensor) -> State:
        """No item yet."""
        return {"last": users.new_zeros(len(users), self.config.window)}   # [B, W] newest last, 0 for none

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """The neighbours after each event: see `_ask`."""
        last = newest(state["last"], events.items)                         # [B, T, W]
        after = {"last": slide(state["last"], events.items, events.lengths())}  # [B, W]
        return self._ask(last * events.mask[..., None] if at is None else last[at]), after

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The neighbours of the window as it stands."""
        return self._ask(state["last"][:, None])                           # [B, 1, V]

    def _ask(self, windows: Tensor) -> Query:
        """Of windows [..., W]: "sessions" [..., V] int32, their "votes" [..., V] (0: none) and, where it goes
        `by_place`, "shared" [..., V] int32, the latest item that each holds."""
        ids = windows.reshape(-1, windows.shape[-1]).cpu().numpy()         # [N, W]
        asked, n = Asked.of(ids, self.weigh), len(ids)
        distinct = np.bincount(asked.question, minlength=n)                # [N]
        squares = np.bincount(asked.question, asked.weight.astype(np.float64) ** 2, n)  # [N]
        unit = self.unit(np.maximum(asked.length, 1), np.maximum(distinct, 1), np.maximum(squares, 1))  # [N]
        parts = list(self.index.neighbours(asked, self.config.k))
        width = max([1, *(int(np.bincount(one.question).max(initial=0)) for _, one in parts)])
        sessions = np.zeros((n, width), dtype=np.int32)                    # [N, V]
        votes, shared = np.zeros((n, width)), np.zeros_like(sessions)      # [N, V]
        for rows, one in parts:
            begins = np.searchsorted(one.question, one.question)           # [M] first neighbour of its question
            row, slot = one.question + rows.start, np.arange(len(begins)) - begins  # [M] each
            sessions[row, slot] = one.session
            votes[row, slot] = one.similarity * unit[row] * self.decay(one.step)
            shared[row, slot] = ids[row, ids.shape[1] - one.step]
        votes = self.rounded(votes, votes.max(1, keepdims=True))
        out = {"sessions": sessions, "votes": votes, **({"shared": shared} if self.by_place else {})}
        lead, device = windows.shape[:-1], windows.device
        return {name: torch.from_numpy(part).to(device).view(*lead, width) for name, part in out.items()}

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """The sum of the votes, in float64 (see `SequenceModel.score`)."""
        return self._for(query, items, self._settled)

    def _for(
        self, query: Query, items: Tensor | None, laid: Callable[[Arrays, Ints | None], Floats]
    ) -> Tensor:
        """What `laid` gives for some queries at a time and all items or a shared list; own candidates pick from it."""
        assert isinstance(query, dict)
        lead, device = query["votes"].shape[:-1], query["votes"].device
        flat = {name: array(part.reshape(-1, part.shape[-1])) for name, part in query.items()}  # [N, V]
        own = None if items is None else array(items)
        if own is not None and own.ndim > 1:
            own = np.broadcast_to(own, (*lead, own.shape[-1])).reshape(-1, own.shape[-1])  # [N, C]
        N, C = len(flat["votes"]), self.n_items if own is None else own.shape[-1]
        out = np.empty((N, C))                                             # [N, I] or [N, C]
        rows = max(1, CELLS // max(C if own is None or own.ndim == 1 else self.n_items, 1))
        for first in range(0, N, rows):
            some = slice(first, first + rows)
            part = {name: values[some] for name, values in flat.items()}
            if own is None or own.ndim == 1:
                out[some] = laid(part, own)
            else:
                out[some] = np.take_along_axis(laid(part, None), own[some] - 1, 1)
        return torch.from_numpy(out).to(device).view(*lead, C)

    def _settled(self, query: Arrays, items: Ints | None = None) -> Floats:
        """Scores of all items, or of a shared list [C], whose ties are settled: [n, I] or [n, C]"""
        unit = self._unit(query)                                           # [n]
        scores = self._sums(query, items, unit)                            # [n, I] or [n, C]
        some = slice(None) if items is None else items - 1
        order, factor = array(self.order)[some], array(self.factor)[some]  # [I] or [C] each
        unit = unit[:, None]                                               # [n, 1]
        if self.rarity:
            scores *= factor
        scores /= unit
        np.rint(scores, out=scores)
        scores += order
        scores *= unit
        return scores

    def _unit(self, query: Arrays) -> Floats:
        """[n]: what the scores of each question are whole multiples of."""
        above = query["votes"].sum(1) * array(self.factor).max()           # [n] about the greatest that a score can be
        unit: Floats = np.ldexp(1.0, np.frexp(above)[1] - (DIGITS - self.n_items.bit_length()))
        return unit

    def _sums(self, query: Arrays, items: Ints | None = None, least: Floats | None = None) -> Floats:
        """The votes that fall to all items, or to a shared list [C], none below `least` [n]: [n, I] or [n, C]"""
        n = len(query["votes"])
        row, slot = np.nonzero(query["votes"] > 0)                         # [M] neighbours
        size, item, place = self.index.entries(query["sessions"][row, slot])  # [M], [E], [E]
        vote = self.votes(query, row, slot, size, item, place)             # [E]
        if least is not None:
            vote = np.maximum(vote, np.repeat(least[row], size))           # [E]
            if self.index.wanted.numel():
                vote *= array(self.index.wanted)[place]                    # [E] the others get none
        if items is None:
            cell = np.repeat(row * self.n_items - 1, size) + item          # [E]
            return _added(cell, vote, n, self.n_items)
        distinct, back = np.unique(items, return_inverse=True)             # [C'], [C]
        C, column = len(distinct), np.full(self.n_items + 1, -1)           # [1 + I]
        column[distinct] = np.arange(C)
        cell = column[item]                                                # [E]
        asked = np.flatnonzero(cell >= 0)
        cell = cell[asked] + np.repeat(row * C, size)[asked]
        return _added(cell, vote[asked], n, C)[:, back]

    def votes(self, query: Arrays, row: Ints, slot: Ints, size: Ints, item: Ints, place: Ints) -> Floats:
        """What each entry of the neighbours gives to its item: [E], whole multiples of what makes sums exact.

        row, slot [M]: the neighbours, and how many items each holds; item, place [E]: these, and where in the index.
        """
        given: Floats = np.repeat(query["votes"][row, slot], size)
        return given

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """"attention" [B, T, W]: of the votes for "items" of the window, the share that falls to each.

        What stands in the window twice has it at its newest place.
        """
        last = newest(state["last"], events.items) * events.mask[..., None]  # [B, T, W]
        again = (last[..., None] == last[..., None, :]).triu(1).any(-1)    # [B, T, W]
        votes = self._for(self._ask(last), last.clamp(min=1), self._sums) * ((last > 0) & ~again)
        return {"attention": votes / votes.sum(-1, keepdim=True).clamp(min=LEAST), "items": last}

    def rounded(self, votes: Floats, greatest: Floats) -> Floats:
        """Votes as whole multiples of the power of two that lets k of the greatest add up exactly; none becomes 0."""
        grain = np.ldexp(1.0, np.frexp(greatest)[1] - (DIGITS - self.config.k.bit_length()))
        out: Floats = np.maximum(np.rint(votes / grain), votes > 0) * grain
        return out


def _added(cell: Ints, vote: Floats, n: int, C: int) -> Floats:
    """Votes by cell as a table [n, C]; of no votes at all bincount makes whole numbers."""
    return np.bincount(cell, vote, n * C).astype(np.float64, copy=False).reshape(n, C)
