"""Batches of whole histories, every valid position a training target.

Rows (sessions or users, by the model's scope) are shuffled, then sorted by length inside pools of some batches, so a
batch holds rows of like length and little padding, while the order of batches stays random. A batch holds about
`budget` known events, which are as many targets where each is asked for what follows it; of a session or a purchase in
many events there are fewer, of several next events more. Rows longer than `chunk` events run on in further steps with
the state carried over and detached (truncated back-propagation). Such a step has only what is left of the longest rows,
and moves the weights as any other: where few rows are much longer than `chunk`, their late events weigh more each.

Session-parallel batches (`parallel_batches`; Hidasi et al., ICLR 2016, section 3.1.1) are the other way: some rows
side by side, one event of each a step, and a row that has ended makes room for the next. `before` says of each row of a
batch whose state it runs on from, or that it begins; so the loop carries states in both ways alike.

What is asked of a row, and after which event, is an `Aim`: the next event, the next few, or every item of the next
session. A batch names each target's place in the log, up to which everything is known when the target is compared
with negatives; so no loss and no sampler looks into the events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.data.sequences import Scope, Sequences
from foretaste.models.contract import Events
from foretaste.models.rows import take
from foretaste.training.aims import Aim

POOL = 64
"""Batches that are sorted by length together."""


@dataclass(frozen=True)
class Batch:
    """One training step: events in, and what is wanted after some of them."""

    events: Events
    at: Tensor
    """[B, T] bool: positions that are asked."""
    targets: Tensor
    """[N] int64: columns of the catalogue (item number - 1), in the order of `rows`."""
    users: Tensor
    """[B] int64: user numbers, 0 if anonymous."""
    before: Tensor
    """[B] int64: the row of the batch before whose state this row runs on from, -1 where it begins here."""
    blank: Tensor
    """[B] bool: rows whose initial state is asked as well; these queries stand after those of `at`."""
    rows: Tensor
    """[N] int64: which query each target belongs to."""
    owners: Tensor
    """[N] int64: the row of the batch that each target belongs to."""
    places: NDArray[np.int64]
    """[N]: the last place in the log that is no longer unknown when the target is compared with negatives: that of the
    last event that is wanted with it, or the end of its session where the whole session is wanted."""

    @property
    def fresh(self) -> bool:
        """Does every row begin here?"""
        return bool((self.before < 0).all())

    @property
    def one_each(self) -> bool:
        """Does every query have exactly one target, in its order?"""
        return len(self.rows) == int(self.at.sum()) + int(self.blank.sum())

    def to(self, device: torch.device | str) -> Batch:
        """The same step on another device."""
        names = ("events", "at", "targets", "users", "before", "blank", "rows", "owners")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def batches(
    log: Sequences, scope: Scope, *, budget: int, chunk: int, seed: tuple[int, ...], aim: Aim | None = None
) -> Iterator[Batch]:
    """One pass over the log. The same seed gives the same batches in the same order."""
    aim = aim or Aim()
    start, stop, opening = aim.rows(log, scope)
    users = np.searchsorted(log.users, log.offsets(scope)[:-1], side="right") - 1  # [rows] user row of each row
    numbers = np.asarray(log.user_numbers)[users]
    size = log.known[stop] - log.known[start] - ~opening  # [rows] about what it asks
    for rows in _groups(size, budget, chunk, np.random.default_rng(seed)):
        who = torch.from_numpy(numbers[rows].astype(np.int64))  # [B]
        yield from _steps(log, start[rows], stop[rows], who, torch.from_numpy(opening[rows]), chunk, aim)


def parallel_batches(
    log: Sequences, scope: Scope, *, rows: int, stride: int = 1, seed: tuple[int, ...], aim: Aim | None = None
) -> Iterator[Batch]:
    """One pass with `rows` rows side by side, `stride` events of each a step; the next events are their targets.

    Rows come in random order. When none is left to begin, those that still run go on alone: no target is left out, and
    fewer rows than asked for are no error. The same seed gives the same batches in the same order.
    """
    aim = aim or Aim()
    start, stop, opening = aim.rows(log, scope)
    users = np.searchsorted(log.users, log.offsets(scope)[:-1], side="right") - 1  # [rows] user row of each row
    numbers = torch.from_numpy(np.asarray(log.user_numbers)[users].astype(np.int64))
    place = np.flatnonzero(np.asarray(log.items) > 0)  # where the k-th known event stands
    first, last = log.known[start], log.known[stop] - 1  # [rows] known events; the last is only a target
    waiting = np.random.default_rng(seed).permutation(np.flatnonzero(last - first + opening > 0))
    row, waiting = waiting[:rows], waiting[rows:]  # [B]
    at, before = first[row], np.full(len(row), -1)  # [B], [B]
    while len(row):
        until = np.minimum(at + stride, last[row])  # [B]
        fresh = torch.from_numpy((before < 0) & opening[row])
        (batch,) = _steps(log, place[at], place[until] + 1, numbers[row], fresh, stride, aim)
        yield replace(batch, before=torch.from_numpy(before))
        ended = until == last[row]  # [B]
        free = np.flatnonzero(ended)[: len(waiting)]
        row, at, before, keep = row.copy(), until, np.arange(len(row)), ~ended
        row[free], waiting = waiting[: len(free)], waiting[len(free) :]
        at[free], before[free], keep[free] = first[row[free]], -1, True
        row, at, before = row[keep], at[keep], before[keep]


def newest(log: Sequences, scope: Scope, share: float) -> Sequences:
    """The events of the newest rows, so large a share of all rows (at least one).

    Newest by the time of their last event, where the log has times; else by their place in the log.
    """
    if share == 1:
        return log
    offsets = np.asarray(log.offsets(scope), dtype=np.int64)
    size = np.diff(offsets)
    order = np.arange(len(size)) if log.times is None else np.argsort(log.times[offsets[1:] - 1], kind="stable")
    kept = np.zeros(len(size), bool)
    kept[order[len(size) - max(round(share * len(size)), 1) :]] = True
    return log.select(np.repeat(kept, size))


def _groups(size: NDArray[np.int64], budget: int, chunk: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Row numbers of one batch after the other."""
    rows = rng.permutation(np.flatnonzero(size > 0))
    steps = np.minimum(size[rows], chunk)  # what a row adds to one step
    pools = np.cumsum(steps) // (budget * POOL)
    rows = rows[np.lexsort((size[rows], pools))]
    ends = np.cumsum(np.minimum(size[rows], chunk))
    cuts = np.flatnonzero(np.diff(ends // budget)) + 1
    groups = np.split(rows, cuts)
    for index in rng.permutation(len(groups)):
        if len(groups[index]):
            yield groups[index]


def _steps(
    log: Sequences,
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    users: Tensor,
    first_asked: Tensor,
    chunk: int,
    aim: Aim,
) -> Iterator[Batch]:
    """A group's rows in pieces of at most `chunk` inputs; the last event of a row is only a target."""
    whole = take(log, start, stop)  # [B, L]
    row, asked, target = _wanted(whole, first_asked, aim)  # [M] each, in the order of (row, asked)
    items = whole.items[row, target] - 1  # [M]
    places = _places(log, start, stop, row, asked, target, aim)  # [M]
    length = whole.shape[1] - 1
    for first in range(0, max(length, 1), chunk):
        last = min(first + chunk, length)
        here = torch.nonzero((asked >= first) & (asked < last))[:, 0]  # [n]
        blank = torch.zeros(len(users), dtype=torch.bool)
        if first == 0 and first_asked.any():
            opening = torch.nonzero(asked < 0)[:, 0]
            blank[row[opening]] = True
            here = torch.cat([here, opening])
        at = torch.zeros(len(users), last - first, dtype=torch.bool)
        inside = here[asked[here] >= 0]
        at[row[inside], asked[inside] - first] = True
        yield Batch(
            events=whole.cut(first, last),
            at=at,
            targets=items[here],
            users=users,
            before=torch.arange(len(users)) if first else torch.full((len(users),), -1),
            blank=blank,
            rows=_query_of(row[here], asked[here] - first, at, blank),
            owners=row[here],
            places=places[here.numpy()],
        )


def _wanted(whole: Events, first_asked: Tensor, aim: Aim) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair of an asked position (-1: the initial state) and a target position, as (row, asked, target)."""
    B, L = whole.shape
    may = whole.mask & (whole.columns["target"].bool() if "target" in whole.columns else True)  # [B, L]
    position = torch.arange(L).expand(B, L)
    if aim.targets == "event":
        pairs = []
        for distance in range(1, aim.ahead + 1):
            row, target = (may & (position >= distance - 1)).nonzero(as_tuple=True)
            pairs.append(torch.stack([row, target - distance, target]))
        row, asked, target = torch.cat(pairs, 1)
    else:
        starts = whole.starts | (position == 0)
        begin = torch.where(starts, position, 0).cummax(1).values  # [B, L] where the session begins
        if aim.targets == "last_session":
            last = begin.gather(1, (whole.lengths() - 1).clamp(min=0)[:, None])  # [B, 1]
            may = may & (begin == last)
        row, target = may.nonzero(as_tuple=True)
        key = (row * L + begin[row, target]) * (whole.items.max() + 1) + whole.items[row, target]
        kept = _first_of_each(key)  # a session is a set
        row, target = row[kept], target[kept]
        asked = begin[row, target] - 1
    keep = (asked >= 0) | first_asked[row]
    row, asked, target = row[keep], asked[keep], target[keep]
    order = torch.argsort(row * (L + 1) + asked + 1, stable=True)
    return row[order], asked[order], target[order]


def _first_of_each(key: Tensor) -> Tensor:
    """The places, ascending, at which each value of `key` [M] stands for the first time."""
    order = torch.argsort(key, stable=True)
    sorted_key = key[order]
    new = torch.ones(len(key), dtype=torch.bool)
    new[1:] = sorted_key[1:] != sorted_key[:-1]
    return order[new].sort().values


def _query_of(row: Tensor, asked: Tensor, at: Tensor, blank: Tensor) -> Tensor:
    """[n]: the number of the query that answers each (row, asked); those of `at` come first, then those of `blank`."""
    T = at.shape[1]
    number = at.reshape(-1).cumsum(0) - 1  # [B T]
    opening = int(at.sum()) + blank.cumsum(0) - 1  # [B]
    if not T:
        return opening[row]
    return torch.where(asked < 0, opening[row], number[row * T + asked.clamp(min=0)])


def _places(
    log: Sequences,
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    row: Tensor,
    asked: Tensor,
    target: Tensor,
    aim: Aim,
) -> NDArray[np.int64]:
    """[M]: see `Batch.places`. The k-th known event of a row, the last that is wanted with it, or its session's end."""
    first, last = log.known[start][row.numpy()], log.known[stop][row.numpy()] - 1  # [M] the row's known events
    of_event = aim.targets == "event"
    known = np.minimum(first + asked.numpy() + aim.ahead, last) if of_event else first + target.numpy()
    place: NDArray[np.int64] = np.searchsorted(log.known, known, side="right") - 1
    if of_event:
        return place
    ends: NDArray[np.int64] = np.asarray(log.sessions, dtype=np.int64)[1:]
    return ends[np.searchsorted(ends, place, side="right")] - 1
