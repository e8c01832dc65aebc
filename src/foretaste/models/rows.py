"""From flat arrays to a padded batch: the one place where rows are made, for training, evaluation and serving."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.models.contract import Events


def take(log: Sequences, start: NDArray[np.int64], stop: NDArray[np.int64]) -> Events:
    """The known events of the ranges start[b] .. stop[b] as a batch [B, T]; cold items are skipped.

    `starts` marks the first known event of each session, so that a session whose first item is cold still begins.
    """
    counts = log.known[stop] - log.known[start]                            # [B] known events in each range
    index = ranges(start, stop)                                           # [n] flat places, row after row
    index = index[np.asarray(log.items)[index] > 0]
    rows = np.repeat(np.arange(len(start)), counts)                        # [n]
    places = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)  # [n] position inside the row
    shape = (len(start), int(counts.max(initial=0)))

    def padded(values: NDArray[Any]) -> Tensor:
        out = np.zeros(shape, dtype=np.int64 if values.dtype.kind in "iub" else values.dtype)
        out[rows, places] = values
        return torch.from_numpy(out)                                       # [B, T]

    session = np.searchsorted(log.sessions, index, side="right")           # [n] which session each event lies in
    begins = np.ones(len(index), dtype=bool)
    begins[1:] = (session[1:] != session[:-1]) | (rows[1:] != rows[:-1])
    inside = np.asarray(log.sessions)[session - 1] < start[rows]           # the range begins inside this session
    begins &= ~(inside & (log.known[start[rows]] > log.known[np.asarray(log.sessions)[session - 1]]))
    columns = dict(log.columns) if log.target is None else {**log.columns, "target": log.target}
    return Events(
        items=padded(np.asarray(log.items)[index]),
        mask=torch.arange(shape[1])[None, :] < torch.from_numpy(counts)[:, None],
        starts=padded(begins).bool(),
        times=None if log.times is None else padded(np.asarray(log.times)[index]),
        columns={name: padded(np.asarray(column)[index]) for name, column in columns.items()},
    )


def ranges(start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
    """The integers of all ranges start[b] .. stop[b], one after the other."""
    size = stop - start
    ends = np.cumsum(size)
    places: NDArray[np.int64] = np.arange(ends[-1] if len(ends) else 0) + np.repeat(start - (ends - size), size)
    return places
