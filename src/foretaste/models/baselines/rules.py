"""Rules from one item to the next, counted: Markov, sequential rules, association rules.

    score(i) = sum over the last W items l of n(l, i),      W = 1 by default

`markov`: n(l, i) is how often i came right after l; a first-order Markov chain, as a list (dividing by the count of l
changes no order). `sr`, sequential rules: i came after l in the same session, at most `steps` later, and each such pair
weighs w(distance). `ar`, association rules of two items: both occurred in the same session, in whatever order.

Sources: Agrawal, Imielinski, Swami, "Mining Association Rules between Sets of Items in Large Databases", SIGMOD 1993;
Ludewig & Jannach, "Evaluation of Session-based Recommendation Algorithms", UMUAI 28, 2018, who define all three as
baselines for sessions. Left out: rules with more than one item on the left, thresholds on support and confidence
(Ludewig & Jannach leave them out too: a list of 20 needs the weak rules).

Left open, and what was chosen:
- A click on the same item again is a rule like any other (`itself`); on logs with reloads it is a large part of what
  comes next. The textbook's association rules have no such thing, and no more than 53 % on the log below, where AR has
  66 % with it, as published.
- The decays "linear" and "log" are not session-rec's, which are 1 - d/10 and 1/log10(d + 1.7); it also keeps 20 rules
  of an item by default, here `kept` bounds them. Our figures have "div", which is the same in both.
- Only the last click asks (`last` = 1), as published. A larger W adds the rules of the last W events.
- What ties; see counting.py. Counts of transitions are small, and the order in which ties fall moves recall by points.

State: the last W ids, 8 bytes each. One event: O(W); one list: O(I + W R), R rules of an item.

Checked against, in percent, R@20 / MRR@20, from the pessimistic to the optimistic reading of a tie. DIGINETICA, 60,858
prefixes, `fill` = False: Markov 30.69-37.76 / 10.75-16.85 with `ties` "none", 34.67-34.74 / 12.91-12.99 with
"popularity". YOOCHOOSE 1/64: session-rec's SR has 66.7 / 30.3, its Markov 64.8 / 29.8, its AR 66.5 / 28.6 (its rule for
ties is not known).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from foretaste.models.baselines.counting import Floats, Ints, Sums, Table, pairs_of
from foretaste.spaces import OneOf, Space

if TYPE_CHECKING:
    from foretaste.data.sequences import Sequences

Decay = Literal["div", "linear", "quadratic", "log", "same"]


class SequentialRules(Table):
    """What came later in the session, the sooner the better."""

    class Config(Table.Config):
        """How far a rule reaches and what it weighs."""

        steps: int = Field(10, ge=1)
        """A rule reaches so many events ahead."""
        decay: Decay = "div"
        """w(d) of two events d apart: 1/d, max(0, 1.1 - d/10), 1/d^2, 1/log10(d + 9), or 1."""
        itself: bool = True
        """The same item again is a rule too."""

    summary = "what came after the last item within some steps, weighted by the distance (SR)"
    paper = "Ludewig & Jannach, Evaluation of Session-based Recommendation Algorithms, UMUAI 2018"
    space: ClassVar[Space] = {"steps": OneOf(5, 10, 20), "decay": OneOf("div", "quadratic", "linear", "log")}
    masters = ("popularity", "last_item")
    short_of: ClassVar = {"order, set, user_taste": "it counts which item follows which, two by two"}
    beyond = "order"

    config: SequentialRules.Config

    def weighted_pairs(self, log: Sequences) -> tuple[Ints, Floats]:
        """Pairs in the order of time."""
        return self.directed(log, self.config.steps, self.config.decay, self.config.itself)

    def directed(self, log: Sequences, steps: int, decay: Decay, itself: bool) -> tuple[Ints, Floats]:
        """Pairs at most `steps` apart, and the sum of w(distance) over the occurrences of each."""
        known = np.asarray(log.items) > 0
        items, wanted = np.asarray(log.items)[known].astype(np.int64), log.may_be_target()[known]  # [n], [n]
        sums = Sums((self.n_items + 1) ** 2)
        for earlier, later in pairs_of(log, log.offsets(self.scope), steps):
            earlier, later = earlier[wanted[later]], later[wanted[later]]  # [P]
            one, other = items[earlier], items[later]                      # [P]
            weight = _weight(later - earlier, decay)                       # [P]
            if not itself:
                one, other, weight = (part[items[earlier] != items[later]] for part in (one, other, weight))
            sums.add(one * (self.n_items + 1) + other, weight)
        return sums.all()


class Markov(SequentialRules):
    """What came right after the last item."""

    class Config(Table.Config):
        """Variants."""

        itself: bool = True
        """The same item again is a transition too."""

    summary = "what came right after the last item (first-order Markov chain, counted)"
    paper = "a chain of first order; as a baseline for sessions in Ludewig & Jannach, UMUAI 2018"
    space: ClassVar[Space] = {}

    config: Markov.Config  # type: ignore[assignment]

    def weighted_pairs(self, log: Sequences) -> tuple[Ints, Floats]:
        """Neighbours."""
        return self.directed(log, 1, "same", self.config.itself)


class AssociationRules(Table):
    """What occurred in the same sessions."""

    class Config(Table.Config):
        """How pairs are counted."""

        once: bool = False
        """An item counts once a session; else each pair of events does."""
        itself: bool = True
        """An item that comes twice in a session is a rule of itself."""

    summary = "what occurred in the same sessions as the last item, before or after it (AR)"
    paper = "Agrawal et al., Mining Association Rules between Sets of Items, SIGMOD 1993"
    space: ClassVar[Space] = {"once": OneOf(True, False)}
    masters = ("popularity",)
    short_of: ClassVar = {"last_item, order, set, user_taste": "it counts which items meet in a session, two by two"}
    beyond = "order"

    config: AssociationRules.Config

    def weighted_pairs(self, log: Sequences) -> tuple[Ints, Floats]:
        """Pairs in both directions."""
        return companions(log, self.n_items, log.offsets(self.scope), self.config.once, self.config.itself)


def companions(log: Sequences, n_items: int, within: Ints, once: bool, itself: bool) -> tuple[Ints, Floats]:
    """Pairs of items of one row, (I + 1) * one + other in both directions, and how often they met.

    Met: an event of the one, and another of the other, which may be asked for; with `once`, a row that holds both.
    `itself`: with itself too.
    """
    known = np.asarray(log.items) > 0
    items, wanted = np.asarray(log.items)[known].astype(np.int64), log.may_be_target()[known]  # [n], [n]
    row = np.repeat(np.arange(len(within) - 1), np.diff(log.known[within]))  # [n]
    nth = nth_of_row(items, row)                                           # [n]
    if once:  # it is enough that one of the item's events in the row may be
        pair = np.unique(row * (n_items + 1) + items, return_inverse=True)[1]  # [n]
        wanted = np.bincount(pair, wanted)[pair] > 0                       # [n]
    sums = Sums((n_items + 1) ** 2)
    for a, b in pairs_of(log, within):
        same = items[a] == items[b]                                        # [P]
        some = ~same | itself                                              # [P]
        if once:
            some &= (nth[a] == 0) & (nth[b] == same)
        a, b = a[some], b[some]                                            # [P']
        one, other = items[a], items[b]                                    # [P']
        back = (other != one) | (not once)                                 # [P'] a row meets itself once
        sums.add((one * (n_items + 1) + other)[wanted[b]])
        sums.add((other * (n_items + 1) + one)[back & wanted[a]])
    return sums.all()


def nth_of_row(items: Ints, row: Ints) -> Ints:
    """[n]: so many times an item stood in its row before. items, row [n]"""
    order = np.lexsort((row, items))                                       # [n] equal ones as they came
    new = np.ones(len(items), dtype=bool)
    new[1:] = (items[order][1:] != items[order][:-1]) | (row[order][1:] != row[order][:-1])
    first = np.maximum.accumulate(np.where(new, np.arange(len(items)), 0))
    nth = np.empty(len(items), dtype=np.int64)
    nth[order] = np.arange(len(items)) - first
    return nth


def _weight(distance: Ints, decay: Decay) -> Floats:
    """w(d)"""
    d = distance.astype(np.float64)
    if decay == "linear":
        return np.maximum(0.0, 1.1 - d / 10)
    if decay == "log":
        return 1 / np.log10(d + 9)
    weight: Floats = d ** -{"same": 0.0, "div": 1.0, "quadratic": 2.0}[decay]
    return weight
