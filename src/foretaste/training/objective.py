"""What a step minimises: the loss of its targets, what a teacher says of them, and what stands beside."""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.models.contract import Query, SequenceModel
from foretaste.training.batches import Batch
from foretaste.training.losses import loss_of
from foretaste.training.negatives import Negatives, generator
from foretaste.training.privileged import Teacher
from foretaste.training.settings import TrainConfig, sampler_of
from foretaste.training.touched import Touched


class Objective:
    """The loss of a batch under a TrainConfig. Negatives depend on the seed, the pass and the step alone."""

    def __init__(
        self, model: SequenceModel, log: Sequences, config: TrainConfig, teacher: Teacher | None = None
    ) -> None:
        self.model, self.config, self.teacher = model, config, teacher
        self.sampler = sampler_of(log, model.n_items, config)
        self.touched = Touched(log, model.n_items) if self.sampler and config.exclude_touched else None

    def __call__(self, batch: Batch, query: Query, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """The mean loss of the targets, to be reported, and all that is to be minimised."""
        c, rows = self.config, None if batch.one_each else batch.rows
        negatives = self._negatives(batch, epoch, step)
        if self.teacher is None:
            loss = loss_of(c.loss, self.model, query, batch.targets, negatives, rows=rows, **c.loss_options)
        else:
            loss = self.teacher.loss(self.model, query, batch, rows, **c.loss_options)
        return loss, loss + self._beside(batch, negatives)

    def _beside(self, batch: Batch, negatives: Negatives | None) -> Tensor | float:
        """The model's auxiliary loss, and the penalty on what the step touched."""
        beside: Tensor | float = 0.0 if self.model.auxiliary is None else self.model.auxiliary
        if self.config.l2:
            items = batch.targets + 1
            if negatives is not None:
                items = torch.cat([items, negatives.items.reshape(-1)])
            squares = self.model.squares(batch.users[batch.owners], items)
            beside = beside + self.config.l2 * squares / len(batch.targets)
        return beside

    def _negatives(self, batch: Batch, epoch: int, step: int) -> Negatives | None:
        """What the targets of a step are compared with."""
        if self.sampler is None:
            return None
        random, device = generator(self.config.seed, epoch, step), batch.targets.device
        exclude = None if self.touched is None else self.touched.at(batch.places, device)
        return self.sampler.sample(batch.targets, self.config.negatives, random, exclude=exclude)
