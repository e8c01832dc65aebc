"""S-KNN and VS-KNN: past sessions that share items with the open one say what comes next.

    N(s)      the k most similar of the m latest sessions that share an item with the open session s
    score(i)  = sum over n in N(s) that hold i of  sim(s, n) decay(n) (1 + idf log(S / n(i)))

S-KNN: Jannach, Ludewig, "When Recurrent Neural Networks meet the Neighborhood for Session-Based Recommendation", RecSys
2017: sim is the cosine of two sets of items; decay = 1, idf = 0.
VS-KNN: Ludewig, Jannach, "Evaluation of Session-based Recommendation Algorithms", UMUAI 2018: sim is the sum of what
the shared items weigh by their place in s (`weighting`) over |s|; decay goes by the steps back to the latest shared
item (`score_weighting`); idf as in the authors' session-rec. Computed as VMIS-kNN (session_index.py).

Left out: neighbours drawn by chance (the latest are taken, the default of the authors' code), similarities other than
those of its figures, session-rec's switch for dwell times (a past session's dwell is known, the open one's last is
not), and the reminders that push items of the session up: those are scored like any other.

Left open, and what was chosen:
- An item that comes again in s stands at its newest place; steps and lengths count events, |s| distinct items.
- linear is 1 - 0.1 steps and never below 0 (session-rec and Serenade run into negative weights; session-rec's linear
  weighting is 0 for every click after a session's tenth, its linear score_weighting 0.9 for the newest item, not 1).
  What weighs nothing looks for no neighbours.
- idf goes by the sessions that hold i, so it is never below 0 (session-rec: by events).
- Equally similar sessions: the later one. Equal scores: `ties`, which also orders all that no neighbour holds.

State: the last W ids of the session, 8 bytes each (W = 100: 800 bytes). One event: O(W). One list: the posting lists of
its items, at most W m entries, and O(I) to lay out the scores. benchmarks/neighbours_speed.py measures both.

Checked against session-rec (R@20 / MRR@20 in percent, per step, its rule for ties differs), chosen on the newest tenth
of the training sessions: DIGINETICA S-KNN 48.5 / 17.4 (here, k = 100: 49.68 / 17.38), VS-KNN 52.0 / 18.4 (its settings,
which are the defaults: 51.37 / 18.27; k = 150, weighting "linear": 52.04 / 18.40). YOOCHOOSE 1/64 S-KNN 64.2 / 25.2
(64.15 / 25.06), VS-KNN 69.6 / 28.8 (its settings, k = 1000, "log", "quadratic", idf 2: 69.33 / 28.61).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from foretaste.models.baselines.session_index import Floats, Ints
from foretaste.models.baselines.session_votes import FINE, WHOLE, Neighbours, Shared
from foretaste.spaces import IDF, VOTERS, OneOf, Space

Decay = Literal["same", "linear", "div", "quadratic", "log"]
DECAYS = OneOf("linear", "quadratic", "log", "div", "same")
SAMPLE = OneOf(1000, 2500, 5000)


class SKNN(Neighbours):
    """Session k-nearest-neighbours by the cosine of their sets of items."""

    class Config(Shared):
        """How many are asked."""

    summary = "past sessions with the same items vote (S-KNN)"
    paper = "Jannach and Ludewig, When Recurrent Neural Networks meet the Neighborhood, RecSys 2017"
    space: ClassVar[Space] = {"k": VOTERS, "sample": SAMPLE}
    masters = ("popularity", "set")
    short_of = WHOLE
    beyond = "user_taste"

    def weigh(self, step: Ints, length: Ints) -> Ints:
        """1 each."""
        return np.ones_like(step)

    def unit(self, length: Ints, distinct: Ints, squares: Floats) -> Floats:
        """1 / sqrt(|s|)."""
        return 1 / np.sqrt(distinct)

    def priors(self, ends: Ints, clock: bool) -> Floats:
        """1 / sqrt(|n|)."""
        return 1 / np.sqrt(self.index.sizes())


class VSKNN(Neighbours):
    """Vector session k-nearest-neighbours: newer items of the open session weigh more."""

    class Config(Shared):
        """Weights."""

        weighting: Decay = "quadratic"
        """What an item weighs, by its place p of L, 1 the oldest, d = L - p steps from the newest: same 1; linear
        1 - 0.1 d; div p / L; quadratic (p / L)^2; log 1 / log10(d + 1.7)."""
        score_weighting: Decay = "div"
        """What a vote is worth, by the place q of the latest shared item, 1 the newest: same 1; linear 1 - 0.1 (q - 1);
        div 1 / q; quadratic 1 / q^2; log 1 / log10(q + 1.7)."""
        idf: float = Field(10.0, ge=0)
        """How much rare items are raised: by 1 + idf log(S / n(i)); 0 not at all."""

    summary = "past sessions vote, newer shared items counting more (VS-KNN, computed as VMIS-kNN)"
    paper = "Ludewig and Jannach, Evaluation of Session-based Recommendation Algorithms, UMUAI 2018"
    space: ClassVar[Space] = {
        "k": VOTERS, "sample": SAMPLE, "weighting": DECAYS, "score_weighting": DECAYS, "idf": IDF,
    }  # fmt: skip
    masters = ("popularity", "set")
    short_of = WHOLE
    beyond = "user_taste"

    config: VSKNN.Config

    @property
    def rarity(self) -> float:
        """`idf`."""
        return self.config.idf

    def weigh(self, step: Ints, length: Ints) -> Ints:
        """By `weighting`, in the units of `unit`."""
        place = length - step + 1
        match self.config.weighting:
            case "same":
                return np.ones_like(step)
            case "linear":
                return np.maximum(11 - step, 0)
            case "div":
                return place
            case "quadratic":
                return place**2
            case "log":
                fine: Ints = np.rint(FINE / np.log10(step + 0.7)).astype(np.int64)
                return fine

    def unit(self, length: Ints, distinct: Ints, squares: Floats) -> Floats:
        """Of a weight, over |s|."""
        match self.config.weighting:
            case "same":
                return 1 / distinct
            case "linear":
                return 0.1 / distinct
            case "div":
                return 1 / (length * distinct)
            case "quadratic":
                return 1 / (length**2 * distinct)
            case "log":
                return 1 / (FINE * distinct)

    def decay(self, step: Ints) -> Floats:
        """By `score_weighting`."""
        worth: Floats
        match self.config.score_weighting:
            case "same":
                worth = np.ones(len(step))
            case "linear":
                worth = np.maximum(11 - step, 0) / 10
            case "div":
                worth = 1 / step
            case "quadratic":
                worth = 1 / step**2
            case "log":
                worth = 1 / np.log10(step + 1.7)
        return worth
