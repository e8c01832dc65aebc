"""Item-KNN: what is often found together with the last items, set against how often each is found at all.

Sarwar, Karypis, Konstan, Riedl, "Item-based Collaborative Filtering Recommendation Algorithms", WWW 2001, with the
shrinkage that session papers took over from Hidasi et al., ICLR 2016 (NARM's and GRU4Rec's baseline "Item-KNN"):

    sim(i, j) = n(i, j) / sqrt((n(i) + lambda) (n(j) + lambda))
    score(i)  = sum over the last W items l of sim(l, i),     i among the `kept` nearest of l

n(i, j) sessions that hold both, n(i) that hold i. For lambda = 0 it is the cosine of two columns of the table of
sessions and items; lambda > 0 holds back items that met once by chance.

Left open, and what was chosen:
- What n counts (`once`). True: sessions; a repeated click counts once. False: events: n(i) is the events of i and
  n(i, j) the sum over sessions of the product of both counts. GRU4Rec's code stands between the two: n(i) is the
  events of i, and each of them counts once for every other item of its session, so its n(i, j) is not n(j, i).
- Who asks: the last click alone (`last` = 1, as in the session papers), the last k, or the whole history, for which
  `last` = 64, the largest, is a ring of the 64 latest events: what is kept of a user has to end somewhere.
- What lies equally near. Similarities are rounded to whole multiples of a power of two, as fine as float64 leaves room
  for (see counting.py; 2^-29 at 43,000 items), so that equal ones are equal for certain. `ties` then settles them, and
  with them the items that are no neighbour at all. An item is no neighbour of itself.

State: the last W ids, 8 bytes each. One event: O(W); one list: O(I + W kept).

Checked against, in percent: DIGINETICA, 60,858 prefixes, last click, once a session, lambda 20, ties left and nothing
filled in: R@20 / MRR@20 37.15-37.44 / 11.91-12.08. RUM's split of Amazon Instant Video, lambda 20: HR@5 14.7 with the
last 5 items, 15.2 with all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from foretaste.models.baselines.counting import Floats, Ints, Table
from foretaste.models.baselines.rules import companions, nth_of_row
from foretaste.spaces import OneOf, Space

if TYPE_CHECKING:
    from foretaste.data.sequences import Sequences


class ItemKNN(Table):
    """Neighbours of the last items, by their shrunk cosine."""

    class Config(Table.Config):
        """Who asks, and how nearness is counted."""

        kept: int = Field(100, ge=0)
        """Neighbours kept of an item, the nearest; 0 for all."""
        shrinkage: float = Field(20.0, ge=0)
        """lambda, added to both counts."""
        once: bool = True
        """An item counts once a session; else each of its events does."""

    summary = "items that are found in the same sessions as the last ones (shrunk cosine)"
    paper = "Sarwar et al., Item-based Collaborative Filtering Recommendation Algorithms, WWW 2001"
    space: ClassVar[Space] = {
        "last": OneOf(1, 5, 20), "shrinkage": OneOf(0.0, 5.0, 20.0, 50.0), "kept": OneOf(0, 100, 500),
    }  # fmt: skip
    masters = ("popularity",)
    short_of: ClassVar = {"last_item, order, set, user_taste": "it counts which items meet in a session, two by two"}
    beyond = "order"

    config: ItemKNN.Config

    def weighted_pairs(self, log: Sequences) -> tuple[Ints, Floats]:
        """All pairs that ever met, and how near they are."""
        within = log.offsets(self.scope)
        met, often = companions(log, self.n_items, within, self.config.once, itself=False)  # [V], [V]
        one, other = met // (self.n_items + 1), met % (self.n_items + 1)
        support = self._support(log, within) + self.config.shrinkage       # [1 + I]
        return met, often / np.sqrt(support[one] * support[other])         # both ways the same to the last bit

    def _support(self, log: Sequences, within: Ints) -> Ints:
        """n(i): sessions, or events, of each item; [1 + I]"""
        items = np.asarray(log.items)[np.asarray(log.items) > 0]
        if self.config.once:
            row = np.repeat(np.arange(len(within) - 1), np.diff(log.known[within]))
            items = items[nth_of_row(items.astype(np.int64), row) == 0]
        return np.bincount(items, minlength=self.n_items + 1)
