"""Privileged information: a teacher that was trained on what comes later tells the student what else was likely.

Tan, Xu, Liu, "Improved Recurrent Neural Networks for Session-based Recommendations", DLRS 2016, section 3.3, after the
generalised distillation of Lopez-Paz et al. (ICLR 2016). For the target x_{r+1} of a session x_1 .. x_n the teacher
reads the future backwards, x_n, x_{n-1} .. x_{r+2}, and gives a probability to every item. The student, who reads
x_1 .. x_r as ever, minimises

    (1 - lambda) CE(student, x_{r+1}) + lambda CE(student, teacher)

Read backwards, the future is a session's beginning, and the target its next event. So the teacher is the student's own
kind, trained by the same loop on the log with each row turned round: nothing in a model or a batch knows of teachers.
Where the student is trained on all rows `before` the newest, so is the teacher; what may not be a target is none for
either.

Left open by the paper, and what was chosen: a target without a future (the last of its row) has no teacher, and the
plain loss; probabilities are not softened by a temperature; the teacher makes all `epochs`, and nothing validates it.
The rows are cut nowhere: a teacher reads all of the future, whatever piece of a row the student is given (`latest` is
the student's alone).

The teacher's probabilities [N, I] and the student's scores are made some rows at a time and made again in the backward
pass. Letters: N targets, R rows of a block, I items, M places that the teacher is asked at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError
from foretaste.models.contract import Query, SequenceModel, query_length, query_rows
from foretaste.models.rows import ranges, take
from foretaste.training.batches import Batch
from foretaste.training.losses import loss_of

BLOCK = 128
"""R, targets whose scores over all items are held at a time."""


class Teacher:
    """A trained model of the future, and how much it counts (lambda)."""

    def __init__(self, model: SequenceModel, log: Sequences, share: float) -> None:
        self.model, self.log, self.share = model.eval(), log, share
        self.backwards = turned_round(log, model)
        self.offsets = np.asarray(log.offsets(model.scope), dtype=np.int64)

    def loss(self, student: SequenceModel, query: Query, batch: Batch, rows: Tensor | None, **options: Any) -> Tensor:
        """The mean over the batch's targets of both parts; without a future all weight is on the first."""
        query = query if rows is None else query_rows(query, rows)
        device = batch.targets.device
        told, has = self.answers(batch.places, device)
        left = 1 - self.share * has  # [N]
        weights = torch.from_numpy(left).to(device)
        total = float(left.mean()) * loss_of("softmax", student, query, batch.targets, weights=weights, **options)
        if told is None:
            return total
        mine = query_rows(query, torch.from_numpy(np.flatnonzero(has)).to(device))  # [M, ...]
        return total + float(1 - left.mean()) * soft_cross_entropy(student, mine, self.model, told)

    @torch.no_grad()
    def answers(self, places: NDArray[np.int64], device: torch.device) -> tuple[Query | None, NDArray[np.bool_]]:
        """The teacher's query for each target that has a future [M, ...], and which these are [N]."""
        log, back = self.log, self.backwards
        row = np.searchsorted(self.offsets, places, side="right") - 1  # [N]
        mirror = self.offsets[row] + self.offsets[row + 1] - 1 - places  # [N] where the target stands, turned round
        behind = back.known[mirror] - back.known[self.offsets[row]]  # [N] known events of its future
        has = behind > 0
        if not has.any():
            return None, has
        asked, owner = np.unique(row[has], return_inverse=True)
        events = take(back, self.offsets[asked], self.offsets[asked + 1]).to(device)
        users = np.searchsorted(log.users, self.offsets[asked], side="right") - 1
        numbers = torch.from_numpy(np.asarray(log.user_numbers)[users].astype(np.int64)).to(device)
        at = torch.zeros_like(events.mask)
        owners, wanted = torch.from_numpy(owner).to(device), torch.from_numpy(behind[has] - 1).to(device)
        at[owners, wanted] = True
        query, _ = self.model(events, self.model.initial_state(numbers), at=at)  # [distinct, ...] in row order
        number = at.reshape(-1).cumsum(0) - 1
        return query_rows(query, number[owners * at.shape[1] + wanted]), has


def soft_cross_entropy(student: SequenceModel, query: Query, teacher: SequenceModel, told: Query) -> Tensor:
    """Mean over M targets of -sum_i p(i) log q(i): p the teacher's, q the student's probabilities over all items."""

    def cost(mine: Query, theirs: Query) -> Tensor:
        with torch.no_grad():
            p = teacher.score(theirs).softmax(-1)  # [R, I]
        scores = student.score(mine)  # [R, I]
        return (scores.logsumexp(-1) - (p * scores).sum(-1)).sum()

    total: Tensor = torch.zeros(())
    count = query_length(query)
    for first in range(0, count, BLOCK):
        block = slice(first, first + BLOCK)
        total = total + checkpoint(cost, query_rows(query, block), query_rows(told, block), use_reentrant=False)
    return total / count


def turned_round(log: Sequences, model: SequenceModel) -> Sequences:
    """The log with every row of the model's scope read backwards. Times would run backwards too: they are left out."""
    lacks = sorted({"times", "dwell", "sessions"} & model.needs)
    if lacks or model.scope == "user":
        why = f"needs {', '.join(lacks)}" if lacks else "reads all sessions of a user as one row"
        raise ConfigError(
            f"privileged > 0 trains a teacher on sessions read backwards; {type(model).__name__} {why}: set it to 0"
        )
    offsets = np.asarray(log.sessions, dtype=np.int64)
    start, stop = offsets[:-1], offsets[1:]
    event = ranges(start, stop)  # [n]
    size = stop - start
    mirror = np.repeat(start + stop - 1, size) - event  # [n]
    return replace(
        log,
        items=np.asarray(log.items)[mirror],
        part=np.asarray(log.part)[mirror],
        times=None,
        target=None if log.target is None else np.asarray(log.target)[mirror],
        columns={},
    )
