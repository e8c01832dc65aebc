"""What the users of a log have touched by each place in it, kept so that it can be asked without being listed.

A pair (user, item) counts from the place where it stands first. So the log needs one sorted array of pairs, made once,
and a question costs the same after ten events as after ten thousand: whether a user has touched an item is one search;
how likely a draw is to hit what they touched is a difference of two sums.

All of the user's events in this log count, also those of earlier sessions and chunks; none that comes later does.

Letters: n events, U users, E pairs, N places asked, M items asked, A different users among them, C different items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.models.rows import ranges


class Touched:
    """The pairs of a log whose items are 1..n_items; a cold item (0) is none."""

    def __init__(self, log: Sequences, n_items: int) -> None:
        items = np.asarray(log.items, dtype=np.int64)  # [n]
        user = np.repeat(np.arange(log.n_users), np.diff(log.users))  # [n]
        known = np.flatnonzero(items)
        self.width = n_items + 1
        keys, first = np.unique((user * self.width + items)[known], return_index=True)  # [E] twice
        self.keys, self.first = torch.from_numpy(keys), torch.from_numpy(known[first])  # [E] sorted; the first place
        self.user = torch.from_numpy(user)  # [n]
        self.begins = torch.from_numpy(np.asarray(log.users, np.int64))  # [U + 1]
        self._sums: tuple[object, Tensor] | None = None

    def at(self, places: NDArray[np.int64], device: torch.device | str = "cpu") -> Past:
        """What was touched up to and including each of these places [N]."""
        place = torch.from_numpy(np.asarray(places, dtype=np.int64))  # [N]
        return Past(self, self.user[place], place, torch.device(device))

    def sums(self, log_q: Callable[[Tensor], Tensor]) -> Tensor:
        """[n + 1]: the probability, under a law of items, of all pairs that begin before each place."""
        if self._sums is None or self._sums[0] != log_q:
            fresh = torch.zeros(len(self.user) + 1, dtype=torch.float64)  # [n + 1]
            fresh[self.first + 1] = log_q(self.keys % self.width).double().exp()
            self._sums = log_q, fresh.cumsum(0)
        return self._sums[1]


@dataclass(frozen=True)
class Past:
    """The pairs of N users, each up to a place."""

    touched: Touched
    user: Tensor
    """[N]: row of the user in the log."""
    place: Tensor
    """[N]: the last event that counts."""
    device: torch.device
    """Where answers are wanted; the pairs stay where they are."""

    def holds(self, items: Tensor) -> Tensor:
        """[N, M] bool: whether each item was touched; items [M] for a list that all share, or [N, M]."""
        asked = items.to(self.user.device)
        return (self._any_of(asked) if asked.dim() == 1 else self._own(asked)).to(self.device)

    def mass(self, log_q: Callable[[Tensor], Tensor]) -> Tensor:
        """[N]: the probability that one draw hits what was touched, by the law whose logarithm is `log_q`."""
        sums = self.touched.sums(log_q)
        return (sums[self.place + 1] - sums[self.touched.begins[self.user]]).float().to(self.device)

    def _own(self, items: Tensor) -> Tensor:
        known = self.touched
        if not len(known.keys):
            return torch.zeros_like(items, dtype=torch.bool)
        key = self.user[:, None] * known.width + items  # [N, M]
        at = torch.searchsorted(known.keys, key).clamp_max(len(known.keys) - 1)  # [N, M]
        return (known.keys[at] == key) & (known.first[at] <= self.place[:, None])

    def _any_of(self, items: Tensor) -> Tensor:
        """For a list: each user's pairs are looked up in it, which are far fewer than N M."""
        known = self.touched
        who, row = (torch.from_numpy(part) for part in np.unique(self.user.numpy(), return_inverse=True))  # [A], [N]
        pool, column = (torch.from_numpy(part) for part in np.unique(items.numpy(), return_inverse=True))  # [C], [M]
        bounds = torch.searchsorted(known.keys, torch.stack([who, who + 1]) * known.width)  # [2, A]
        pair = torch.from_numpy(ranges(bounds[0].numpy(), bounds[1].numpy()))  # [P] all pairs of the users
        holder = torch.arange(len(who)).repeat_interleave(bounds[1] - bounds[0])  # [P]
        item = known.keys[pair] % known.width  # [P]
        at = torch.searchsorted(pool, item).clamp_max(len(pool) - 1)  # [P]
        hit = pool[at] == item  # [P]
        first = torch.full((len(who), len(pool)), len(known.user))  # [A, C] beyond the last place: never
        first[holder[hit], at[hit]] = known.first[pair[hit]]
        return first[row].index_select(1, column) <= self.place[:, None]  # [N, M]
