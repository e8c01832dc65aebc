"""An index of past sessions: which ones hold an item, the latest first, and which items a session holds.

Kersbergen, Sprangers, Schelter, "Serenade - Low-Latency Session-Based Recommendation in e-Commerce at
Scale", SIGMOD 2022 (VMIS-kNN). Neighbours are looked for among the m latest sessions that share an item with the open
one. Sessions are numbered by their age, 0 the latest, and the list of an item holds no more than its m latest. Nothing
is lost by that: among the m latest of a union, a session stands among the m latest of each list that it is on. So the
answer is that of looking at every session, at a cost that does not grow with the log.

Instead of the paper's heaps, all lists of many questions are put together as whole numbers (question, session, place in
the open session) and sorted once; equal ones stand side by side, the latest session first. Sums are of whole numbers,
or of whole multiples of a power of two, and so exact: they do not depend on the order in which they are taken, and what
is equal is equal to the last bit.

A session is as late as its last event, by the clock or, in a log without one, by its place in the log; of two sessions
of one second the later in the log is the later. In a log without a clock whose rows are users, the sessions of
different users cannot be compared, and the place in the log says little. A session holds each item once.

Letters: N questions, W places of the open session, E places of the lists, G pairs of a question and a session,
V neighbours, S sessions, I items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.errors import SavedFileError
from foretaste.models.rows import ranges

if TYPE_CHECKING:
    from foretaste.data.sequences import Sequences

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ENTRIES = 2**19
"""Entries of lists that are worked through at once."""
ROWS = 2**12
"""Questions that are worked through at once."""
MOST = 2**17
"""m, at most."""
RANK_BITS = 32
"""Similarities of one question that differ by less than 2^-32 of the greatest count as equal; the later goes first."""


@dataclass(frozen=True)
class Asked:
    """The distinct items of some open sessions, session after session: [M] each, and the `length` [N] in events."""

    question: Ints
    item: Ints
    step: Ints
    """Events back at its newest place, 1 for the newest event."""
    weight: Ints
    """What it weighs: a whole number above 0."""
    length: Ints

    @classmethod
    def of(cls, windows: Ints, weigh: Callable[[Ints, Ints], Ints]) -> Asked:
        """From windows [N, W] of item numbers, the newest last and 0 for none, by weigh(step, length); 0 is no item."""
        W = windows.shape[1]
        length = (windows > 0).sum(1)                                      # [N]
        question, place = np.nonzero(windows)
        item, bits = windows[question, place], _bits(W + 1)
        key = (question * (int(item.max(initial=0)) + 1) + item << bits) | W - place
        key.sort()
        key = key[_firsts(key >> bits)]
        question, item = np.divmod(key >> bits, int(item.max(initial=0)) + 1)
        step = key & 2**bits - 1
        weight = weigh(step, length[question])
        some = weight > 0
        return cls(question[some], item[some], step[some], weight[some], length)


@dataclass(frozen=True)
class Found:
    """The neighbours of some questions, question after question: [V] each."""

    question: Ints
    session: Ints
    similarity: Floats
    step: Ints
    """Events back in the open session to the latest item that it shares."""


class SessionIndex(nn.Module):
    """Items to sessions and back, as buffers: 4 bytes an entry of either, and 8 a session and an item."""

    list_starts: Tensor
    lists: Tensor
    session_starts: Tensor
    items: Tensor
    places: Tensor
    prior: Tensor
    wanted: Tensor

    def __init__(self, n_items: int, most: int, *, places: bool = False) -> None:
        super().__init__()
        self.n_items, self.most, self.with_places = n_items, most, places
        self.register_buffer("list_starts", torch.zeros(n_items + 2, dtype=torch.int64))  # of item 0, 1 .. I
        self.register_buffer("lists", torch.zeros(0, dtype=torch.int32))   # sessions, the latest first
        self.register_buffer("session_starts", torch.zeros(1, dtype=torch.int64))  # [S + 1]
        self.register_buffer("items", torch.zeros(0, dtype=torch.int32))   # of each session, ascending
        self.register_buffer("places", torch.zeros(0, dtype=torch.int32))  # of the last time in its session, from 1
        self.register_buffer("prior", torch.zeros(0, dtype=torch.float64))  # [S] of a session's similarity, or none: 1
        self.register_buffer("wanted", torch.zeros(0, dtype=torch.bool))   # items that may be asked for, or none: all

    def build(self, log: Sequences) -> tuple[Ints, Ints]:
        """Take in a log: the last second of each session [S] (its place where there is no clock), and in how many
        sessions each item is found [1 + I]."""
        item = np.asarray(log.items).astype(np.int64)
        known = item > 0
        row = np.repeat(np.arange(log.n_sessions), np.diff(log.sessions))[known]  # [n]
        item = item[known]
        filled, row = np.unique(row, return_inverse=True)                  # sessions with a known item
        end = np.arange(len(filled)) if log.times is None else np.asarray(log.times)[log.sessions[filled + 1] - 1]
        latest = np.lexsort((-np.arange(len(filled)), -end))               # [S] session of each number
        number = np.empty_like(latest)
        number[latest] = np.arange(len(latest))
        session, place = number[row], np.arange(len(row)) - np.searchsorted(row, row) + 1  # [n]
        key = session * (self.n_items + 1) + item
        order = np.lexsort((place, key))
        final = np.append(key[order][1:] != key[order][:-1], True)[: len(order)]  # the last time in its session
        kept = order[final]                                                # [Q] distinct pairs
        session, item, place = session[kept], item[kept], place[kept]
        by_item = np.lexsort((session, item))
        found = np.bincount(item, minlength=self.n_items + 1)              # [1 + I]
        short = np.arange(len(by_item)) - _starts(found)[item[by_item]] < self.most
        self.put("list_starts", _starts(np.minimum(found, self.most)))
        self.put("lists", session[by_item][short])
        self.put("session_starts", _starts(np.bincount(session, minlength=len(latest))))
        self.put("items", item)
        if log.target is not None:
            asked = np.unique(key[log.may_be_target()[known]])             # distinct pairs
            self.put("wanted", np.isin(key[kept], asked, assume_unique=True))
        if self.with_places:
            self.put("places", place)
        return end[latest], found

    def put(self, name: str, values: NDArray[Any]) -> None:
        """Set a buffer."""
        like = getattr(self, name)
        setattr(self, name, torch.from_numpy(values).to(like.dtype).to(like.device))

    def neighbours(self, asked: Asked, most: int) -> Iterator[tuple[slice, Found]]:
        """The `most` nearest sessions of each open one, some questions at a time (those of the slice, counted from 0).

        Similarity is the sum of the weights of what is shared, times the session's `prior`.
        """
        starts, lists, n = array(self.list_starts), array(self.lists), len(asked.length)
        step_bits, session_bits = _bits(int(asked.step.max(initial=1)) + 1), _bits(self.session_starts.numel())
        weights = np.zeros((n, 2**step_bits), dtype=np.int64)              # [N, steps]
        weights[asked.question, asked.step] = asked.weight
        size = starts[asked.item + 1] - starts[asked.item]
        upto = _starts(np.bincount(asked.question, size, n).astype(np.int64))  # [N + 1] entries before each
        for rows in _blocks(upto):
            some = slice(*np.searchsorted(asked.question, [rows.start, rows.stop]))
            own = (asked.question[some] - rows.start << session_bits + step_bits) | asked.step[some]
            listed = lists[ranges(starts[asked.item[some]], starts[asked.item[some] + 1])]  # [E]
            key = np.repeat(own, size[some]) | listed.astype(np.int64) << step_bits
            key.sort()
            yield rows, self._nearest(key, weights[rows], session_bits, step_bits, most)

    def _nearest(
        self, key: Ints, weights: Ints, session_bits: int, step_bits: int, most: int
    ) -> Found:
        """Sum up what each session shares, keep the latest sessions and among them the nearest: key [E] sorted."""
        pair, step = key >> step_bits, key & 2**step_bits - 1              # [E]
        first = _firsts(pair)                                              # [G]
        question, session, newest = pair[first] >> session_bits, pair[first] & 2**session_bits - 1, step[first]
        sums = np.add.reduceat(weights[pair >> session_bits, step], first) if len(first) else first  # [G]
        late = _within(question) < self.most
        if not late.all():
            question, session, sums, newest = question[late], session[late], sums[late], newest[late]
        near = sums * array(self.prior)[session] if self.prior.numel() else sums.astype(np.float64)  # [G]
        within = _within(question)                                         # [G]
        if (within >= most).any():
            bits, begins = _bits(int(within.max()) + 1), np.flatnonzero(within == 0)
            top = np.repeat(np.maximum.reduceat(near, begins), np.diff(np.append(begins, len(near))))  # [G]
            share = np.divide(near, top, out=np.zeros_like(near), where=top > 0)
            lower = np.rint((1 - share) * 2.0**RANK_BITS).astype(np.int64)  # [G] 0 is the nearest
            order = (question << RANK_BITS + 1 + bits) | (lower << bits) | within
            order.sort()                                                   # by question, as before: sizes stay
            index = np.arange(len(order)) - within + (order & 2**bits - 1)  # [G]
            kept = np.sort(index[within < most])
            question, session, near, newest = question[kept], session[kept], near[kept], newest[kept]
        return Found(question, session, near, newest)

    def entries(self, sessions: Ints) -> tuple[Ints, Ints, Ints]:
        """What these sessions [M] hold, one after the other: how much each [M]; items [E], flat places here [E]."""
        starts = array(self.session_starts)
        first, stop = starts[sessions], starts[sessions + 1]
        place = ranges(first, stop)
        return stop - first, array(self.items)[place], place

    def sizes(self) -> Ints:
        """[S]: distinct items of each session."""
        return np.diff(array(self.session_starts))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """A saved index brings its own sizes, and is looked through: what points outside is refused."""
        state_dict.setdefault(prefix + "wanted", self.wanted[:0])  # one of an earlier version has none
        given = {name: state_dict.get(prefix + name, buffer) for name, buffer in self.named_buffers()}
        for name, value in given.items():
            setattr(self, name, getattr(self, name).new_zeros(value.shape))
        n_sessions = given["session_starts"].numel() - 1
        fits = [
            _are_starts(given["list_starts"], given["lists"]) and given["list_starts"].numel() == self.n_items + 2,
            _are_starts(given["session_starts"], given["items"]),
            _lie_in(given["lists"], 0, n_sessions) and _lie_in(given["items"], 1, self.n_items + 1),
            given["places"].numel() == given["items"].numel() * self.with_places,
            given["prior"].numel() in (0, n_sessions),
            given["wanted"].numel() in (0, given["items"].numel()),
        ]
        if not all(fits):
            raise SavedFileError("the index of sessions points outside itself: copy the folder again, or train again")
        super()._load_from_state_dict(state_dict, prefix, *rest)


def array(buffer: Tensor) -> NDArray[Any]:
    """A buffer as numpy sees it: the work is done on the CPU, wherever the model lies."""
    return buffer.numpy() if buffer.device.type == "cpu" else buffer.cpu().numpy()


def _starts(counts: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(counts)])


def _bits(count: int) -> int:
    """Binary digits of the whole numbers below `count`, at least 1."""
    return max(int(count) - 1, 1).bit_length()


def _firsts(group: Ints) -> Ints:
    """Where each group begins; equal numbers of `group` stand side by side."""
    return np.flatnonzero(np.append(True, group[1:] != group[:-1])[: len(group)])


def _within(group: Ints) -> Ints:
    """[n]: the place of each entry in its group."""
    begins = _firsts(group)
    return np.arange(len(group)) - np.repeat(begins, np.diff(np.append(begins, len(group))))


def _blocks(upto: Ints) -> Iterator[slice]:
    """Slices of rows of about `ENTRIES`, at least a row each and at most `ROWS`; `upto` [rows + 1] come before each."""
    first, last = 0, len(upto) - 1
    while first < last:
        stop = int(np.searchsorted(upto, upto[first] + ENTRIES, side="right")) - 1
        stop = min(max(stop, first + 1), first + ROWS, last)
        yield slice(first, stop)
        first = stop


def _are_starts(starts: Tensor, entries: Tensor) -> bool:
    edges = starts.numel() > 0 and int(starts[0]) == 0 and int(starts[-1]) == entries.numel()
    return edges and bool((starts[1:] >= starts[:-1]).all())


def _lie_in(values: Tensor, low: int, high: int) -> bool:
    return values.numel() == 0 or (int(values.min()) >= low and int(values.max()) < high)
