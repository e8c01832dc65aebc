"""Histories fed to a model, each row once, and the model asked at every place where something is to be known.

Long rows are fed in chunks with the state carried over; by the law this is what serving would have answered event by
event. What has no known event before its cut is answered from the initial state.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from foretaste.data.sequences import Scope, Sequences
from foretaste.evaluation.ranking import Ints
from foretaste.models.contract import Query, SequenceModel, query_rows
from foretaste.models.rows import take

TOKENS = 8192
"""Events fed in one call of the model."""
CHUNK = 512
"""Positions of a row fed in one call."""


def opening(log: Sequences, scope: Scope, events: Ints) -> Ints:
    """[n]: where the row of this scope begins that holds each of these events."""
    offsets = np.asarray(log.offsets(scope), dtype=np.int64)
    found: Ints = offsets[np.searchsorted(offsets, events, side="right") - 1]
    return found


def answers(
    model: SequenceModel,
    log: Sequences,
    cut: Ints,
    begins: Ints,
    apart: bool,
    device: torch.device,
    tokens: int,
    chunk: int,
) -> Iterator[tuple[Ints, Ints, Query]]:
    """The query of every case: (case numbers [N], known events shown before the cut [N], queries [N, ...]).

    A case is shown the known events from `begins` [n] to `cut` [n], of one user. Cases that begin at one place share a
    row, unless each is to stand `apart`. Rows of like length come together, the longest first.
    """
    start, member = (begins, np.arange(len(cut))) if apart else np.unique(begins, return_inverse=True)  # [rows], [n]
    stop = start.copy()
    np.maximum.at(stop, member, cut)  # the last cut: nothing at or after it is fed
    length = log.known[stop] - log.known[start]  # [rows]
    users = np.asarray(log.user_numbers)[np.searchsorted(log.users, start, side="right") - 1].astype(np.int64)
    users = np.where(users <= model.n_users, users, 0)  # [rows]
    order = np.argsort(-length, kind="stable")  # longest first
    rank_of = np.empty_like(order)
    rank_of[order] = np.arange(len(order))
    by_row = np.argsort(rank_of[member], kind="stable")  # cases, row after row in that order
    ends = np.searchsorted(rank_of[member][by_row], np.arange(len(order) + 1))
    begin = 0
    while begin < len(order):
        width = int(min(max(length[order[begin]], 1), chunk))
        end = min(begin + max(1, tokens // width), len(order))
        batch, some = order[begin:end], by_row[ends[begin] : ends[end]]
        row = rank_of[member[some]] - begin  # [N] row in the batch
        known = log.known[cut[some]] - log.known[start[batch[row]]]  # [N]
        state = model.initial_state(torch.from_numpy(users[batch]).to(device))
        if (known == 0).any():
            blank = known == 0
            query = query_rows(model.query(state), torch.from_numpy(row[blank]).to(device))  # [N, 1, ...]
            yield some[blank], known[blank], _only_column(query)
        for first in range(0, int(length[batch[0]]), chunk):
            active = batch[length[batch] > first]  # a prefix of the batch
            low = _after(log, start[active], first)
            high = _after(log, start[active], np.minimum(first + chunk, length[active]))
            events = take(log, low, high).to(device)  # [B, T]
            mine = (known > first) & (known <= first + chunk)
            place = row[mine] * events.shape[1] + known[mine] - first - 1  # [N] flat position in [B, T]
            places, back = np.unique(place, return_inverse=True)
            at = torch.zeros(events.shape, dtype=torch.bool, device=device)  # [B, T]
            at.view(-1)[torch.from_numpy(places).to(device)] = True
            state = {key: part[: len(active)] for key, part in state.items()}
            query, state = model(events, state, at=at)
            if mine.any():
                yield some[mine], known[mine], query_rows(query, torch.from_numpy(back).to(device))
        begin = end


def _after(log: Sequences, start: Ints, known: Ints | int) -> Ints:
    """The place just after so many known events from `start`."""
    place: Ints = np.searchsorted(log.known, log.known[start] + known, side="left")
    return np.maximum(place, start)


def _only_column(query: Query) -> Query:
    """[N, 1, ...] -> [N, ...]"""
    return query[:, 0] if isinstance(query, torch.Tensor) else {name: part[:, 0] for name, part in query.items()}


@contextmanager
def ready(model: SequenceModel, device: str | torch.device | None) -> Iterator[torch.device]:
    """The model in evaluation mode on its device, without gradients; afterwards as it was."""
    tensor = next(iter(model.state_dict().values()), None)
    was = torch.device("cpu") if tensor is None else tensor.device
    home = was if device is None else torch.device(device)
    training = [module for module in model.modules() if module.training]
    model.eval()
    if home != was:
        model.to(home)
    try:
        with torch.inference_mode():
            yield home
    finally:
        if home != was:
            model.to(was)
        for module in training:
            module.training = True
