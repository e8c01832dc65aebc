"""Batches of whole histories, every valid position a training target.

Rows (sessions or users, by the model's scope) are shuffled, then sorted by length inside pools of some batches, so a
batch holds rows of like length and little padding, while the order of batches stays random. A batch holds about
`budget` targets. Rows longer than `chunk` events run on in further steps with the state carried over and detached
(truncated back-propagation): `fresh` says that a batch starts from the initial state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.data.sequences import Scope, Sequences
from foretaste.models.contract import Events
from foretaste.models.rows import take

POOL = 64
"""Batches that are sorted by length together."""


@dataclass(frozen=True)
class Batch:
    """One training step: events in, and the next event at each asked position."""

    events: Events
    at: Tensor
    """[B, T] bool: positions with a target."""
    targets: Tensor
    """[N] int64: columns of the catalogue (item number - 1), in row order."""
    users: Tensor
    """[B] int64: user numbers, 0 if anonymous."""
    fresh: bool
    """False if the state of the batch before runs on."""

    def to(self, device: torch.device | str) -> Batch:
        """The same step on another device."""
        return Batch(
            self.events.to(device), self.at.to(device), self.targets.to(device), self.users.to(device), self.fresh
        )


def batches(log: Sequences, scope: Scope, *, budget: int, chunk: int, seed: tuple[int, ...]) -> Iterator[Batch]:
    """One pass over the log. The same seed gives the same batches in the same order."""
    offsets = log.offsets(scope)
    users = np.searchsorted(log.users, offsets[:-1], side="right") - 1  # [rows] user row of each row
    numbers = np.asarray(log.user_numbers)[users]
    for rows in _groups(log, offsets, budget, chunk, np.random.default_rng(seed)):
        start, stop = offsets[rows], offsets[rows + 1]
        who = torch.from_numpy(numbers[rows].astype(np.int64))  # [B]
        yield from _steps(log, start, stop, who, chunk)


def count_targets(log: Sequences, scope: Scope) -> int:
    """Training targets in one pass (the "prefixes" of session papers)."""
    offsets = log.offsets(scope)
    last = log.known[offsets[1:]] - log.known[offsets[:-1]]
    return int(np.maximum(last - 1, 0).sum())


def _groups(
    log: Sequences, offsets: NDArray[np.int64], budget: int, chunk: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Row numbers of one batch after the other."""
    targets = log.known[offsets[1:]] - log.known[offsets[:-1]] - 1
    rows = rng.permutation(np.flatnonzero(targets > 0))
    size = np.minimum(targets[rows], chunk)  # what a row adds to one step
    pools = np.cumsum(size) // (budget * POOL)
    rows = rows[np.lexsort((targets[rows], pools))]
    ends = np.cumsum(np.minimum(targets[rows], chunk))
    cuts = np.flatnonzero(np.diff(ends // budget)) + 1
    groups = np.split(rows, cuts)
    for index in rng.permutation(len(groups)):
        if len(groups[index]):
            yield groups[index]


def _steps(
    log: Sequences, start: NDArray[np.int64], stop: NDArray[np.int64], users: Tensor, chunk: int
) -> Iterator[Batch]:
    """A group's rows in pieces of at most `chunk` inputs; the last event of a row is only a target."""
    whole = take(log, start, stop)  # [B, L]
    wanted = whole.mask[:, 1:]  # [B, L - 1]
    if log.target is not None:
        wanted = wanted & whole.columns["target"][:, 1:].bool()
    for first in range(0, whole.shape[1] - 1, chunk):
        last = min(first + chunk, whole.shape[1] - 1)
        at = wanted[:, first:last]
        targets = whole.items[:, first + 1 : last + 1][at] - 1  # [N]
        yield Batch(whole.cut(first, last), at, targets, users, fresh=first == 0)
