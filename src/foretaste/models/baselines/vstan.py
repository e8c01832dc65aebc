"""VSTAN: session neighbours, by place, by age, and by nearness to the item that is shared.

Ludewig, Mauro, Latifi, Jannach, "Empirical Analysis of Session-Based Recommendation Algorithms", UMUAI 2021. To the
three decays of STAN (Garg, Gupta, Malhotra, Vig, Shroff, "Sequence and Time Aware Neighborhood for Session-based
Recommendations", SIGIR 2019) it adds VS-KNN's decay by the latest shared item, and its idf. With d distances:

    sim(s, n)  = sum over shared i of exp(-d(i, end of s) / place) / (|s| sqrt(|n|)) * exp(-age(n) / days)
    score(i)   = sum over n in N(s) that hold i of  sim(s, n) exp(-d(i*, end of s) / step) exp(-d(i, i*) / near)
                 (1 + idf log(S / n(i)))              i* the latest item of s that n holds, d(i, i*) in n

|s| is the norm of what its items weigh. N(s) are the k most similar of the m latest sessions that share an item with s;
neighbours.py says what all of these models have in common.

Left open, and what was chosen:
- It needs no clock when asked. The age of n is t(s) - t(n), and exp(-t(s) / days) is the same for all n: it changes no
  ranking. So a session weighs exp(-(its days before the latest one) / `days`), beyond 600 `days` all alike. In a log
  without a clock its age is the share of the log's sessions that are later, and `share` takes the place of `days`.
- An item stands at its last place in n, and |n| counts distinct items. i* is STAN's: the latest of s, not (as in
  session-rec) the last in n.
- What weighs less than 2^-40 by its place in s weighs 2^-40: it still finds neighbours.

State: the last W ids, 8 bytes each. The index holds 4 bytes more an entry than VS-KNN's, and 8 a session.

Checked against session-rec's five windows (R@20 / MRR@20 in percent), which show it beside the others: DIGINETICA
VSTAN 48.0 / 18.4, VS-KNN 47.3 / 17.8; RSC15 67.6 / 29.4 and 65.1 / 28.7. On the usual single split, settings
chosen on the newest tenth of the training sessions: DIGINETICA 53.04 / 18.75 (k = 250, place 5, near 50, step 2),
YOOCHOOSE 1/64 70.09 / 28.41 (place 5, near 10), where VS-KNN has 52.04 / 18.40 and 69.33 / 28.61. Neither has a clock.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from foretaste.models.baselines.session_index import Floats, Ints, array
from foretaste.models.baselines.session_votes import FINE, WHOLE, Arrays, Neighbours, Shared
from foretaste.spaces import IDF, VOTERS, OneOf, Space


class VSTAN(Neighbours):
    """Sequence and time aware neighbours: STAN's decays, VS-KNN's sequence awareness and idf."""

    class Config(Shared):
        """Decays."""

        place: float = Field(1.02, gt=0)
        """lambda 1, of the place in the open session, in events: what an item weighs in the cosine."""
        days: float = Field(5.0, gt=0)
        """lambda 2, of a neighbour's age, in days."""
        share: float = Field(1.0, gt=0)
        """The same in a log without a clock, as a share of its sessions."""
        near: float = Field(2.05, gt=0)
        """lambda 3, of the distance in the neighbour from the shared item, in events."""
        step: float = Field(1.02, gt=0)
        """lambda 4, of the place of the latest shared item in the open session, in events: what a vote is worth."""
        idf: float = Field(5.0, ge=0)
        """How much rare items are raised: by 1 + idf log(S / n(i)); 0 not at all."""

    summary = "past sessions vote, by place, by age, and by nearness to the shared item (VSTAN)"
    paper = "Ludewig et al., Empirical Analysis of Session-Based Recommendation Algorithms, UMUAI 2021"
    space: ClassVar[Space] = {
        "k": VOTERS, "place": OneOf(0.2, 1.02, 4.1), "days": OneOf(2.5, 5.0, 20.0, 80.0),
        "near": OneOf(0.5, 2.05, 8.2), "step": OneOf(0.2, 1.02, 4.1), "idf": IDF,
    }  # fmt: skip
    masters = ("popularity", "set")
    short_of = WHOLE
    beyond = "user_taste"

    by_place = True

    config: VSTAN.Config

    @property
    def rarity(self) -> float:
        """`idf`."""
        return self.config.idf

    def weigh(self, step: Ints, length: Ints) -> Ints:
        """exp(-d / lambda 1), at least one unit."""
        fine: Ints = np.maximum(np.rint(np.exp((1 - step) / self.config.place) * FINE), 1).astype(np.int64)
        return fine

    def unit(self, length: Ints, distinct: Ints, squares: Floats) -> Floats:
        """1 / the norm of the open session's weights."""
        return 1 / np.sqrt(squares)

    def decay(self, step: Ints) -> Floats:
        """exp(-d / lambda 4)."""
        return np.exp((1 - step) / self.config.step)

    def priors(self, ends: Ints, clock: bool) -> Floats:
        """exp(-age / lambda 2) / sqrt(|n|); beyond 600 lambda all are equally old."""
        age = (ends.max(initial=0) - ends) / 86_400 / self.config.days if clock else None
        if age is None:
            age = np.arange(len(ends)) / max(len(ends), 1) / self.config.share
        return np.exp(-np.minimum(age, 600)) / np.sqrt(self.index.sizes())

    def votes(self, query: Arrays, row: Ints, slot: Ints, size: Ints, item: Ints, place: Ints) -> Floats:
        """The vote times exp(-d / lambda 3), d the distance from the shared item."""
        owner = np.repeat(np.arange(len(row)), size)                       # [E]
        places = array(self.index.places)[place].astype(np.int64)          # [E]
        there = item == query["shared"][row, slot][owner]                  # [E] True once a neighbour
        near = np.exp(-np.abs(places - places[there][owner]) / self.config.near)  # [E]
        return self.rounded(query["votes"][row, slot][owner] * near, query["votes"].max(1)[row][owner])
