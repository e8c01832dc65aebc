"""What a step minimises: the loss of its targets, what a teacher says of them, and what stands beside."""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError
from foretaste.models.contract import Query, SequenceModel
from foretaste.models.layers import rows_of
from foretaste.training.batches import Batch
from foretaste.training.group import Share
from foretaste.training.losses import loss_of
from foretaste.training.negatives import Negatives, generator
from foretaste.training.privileged import Teacher
from foretaste.training.settings import TrainConfig, check_weights, sampler_of
from foretaste.training.touched import Touched


class Objective:
    """The loss of a batch under a TrainConfig. Negatives depend on the seed, the pass and the step alone."""

    def __init__(
        self, model: SequenceModel, log: Sequences, config: TrainConfig, teacher: Teacher | None = None
    ) -> None:
        self.model, self.config, self.teacher = model, config, teacher
        if config.l2 and type(model).owned is SequenceModel.owned:
            raise ConfigError(
                f"l2 = {config.l2}: {type(model).__name__} names no weights that belong to one user or item alone; "
                "leave l2 at 0, and set penalties, for weights by their names, or weight_decay, for all"
            )
        check_weights("penalties", config.penalties, model)
        self.held = [
            (weight, penalty)
            for name, weight in model.named_parameters()
            for said, penalty in config.penalties.items()
            if name.startswith(said)
        ]
        self.sampler = sampler_of(model, log, config)
        self.touched = Touched(log, model.n_items) if self.sampler and config.exclude_touched else None

    def backward(self, share: Share, query: Query, epoch: int, step: int) -> float:
        """Add the gradients of this process's targets; gives what they add to the mean loss of the step."""
        c, batch = self.config, share.batch
        rows = None if batch.one_each else batch.rows
        negatives = self._negatives(share.whole, epoch, step)
        if negatives is not None and share.mine is not None:
            negatives = negatives.of(share.mine)
        if self.teacher is None:
            loss = loss_of(c.loss, self.model, query, batch.targets, negatives, rows=rows, **c.loss_options)
        else:
            loss = self.teacher.loss(self.model, query, batch, rows, **c.loss_options)
        beside: Tensor | float = 0.0 if self.model.auxiliary is None else self.model.auxiliary
        self.model.auxiliary = None  # it holds the step's graph
        whole: Tensor = (loss + beside) * share.weight
        whole.backward()  # type: ignore[no-untyped-call]
        if self.config.l2:
            self._pull(share, negatives)
        self._hold(share)
        return float(loss.detach()) * share.weight

    def _pull(self, share: Share, negatives: Negatives | None) -> None:
        """`l2` on what the step touched; a pool that all targets share is counted once, by all processes together."""
        batch, items = share.batch, share.batch.targets + 1
        drawn = items[:0] if negatives is None else negatives.items
        split = share.mine is not None and drawn.dim() == 1
        if not split:
            items = torch.cat([items, drawn.reshape(-1)])
        rate = 2 * self.config.l2 / len(share.whole.targets)
        pull(self.model.owned(batch.users[batch.owners], items), rate)
        if split:
            pull(self.model.owned(batch.users[:0], drawn), rate / share.sharers)

    @torch.no_grad()
    def _hold(self, share: Share) -> None:
        """`penalties`: each weight is in every target's score, so once a step, by all processes together."""
        for weight, penalty in self.held:  # [...]
            if weight.requires_grad:
                gradient(weight).add_(weight, alpha=2 * penalty * share.weight)

    def _negatives(self, batch: Batch, epoch: int, step: int) -> Negatives | None:
        """What the targets of a step are compared with."""
        if self.sampler is None:
            return None
        random, device = generator(self.config.seed, epoch, step), batch.targets.device
        exclude = None if self.touched is None else self.touched.at(batch.places, device)
        return self.sampler.sample(batch.targets, self.config.negatives, random, exclude=exclude)


def gradient(weight: Tensor) -> Tensor:
    """What the gradient of a weight is summed in: zeros of its shape where the loss has not met it."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


@torch.no_grad()
def pull(owned: list[tuple[Tensor, Tensor]], rate: float) -> None:
    """Add `rate` times each named row to its own gradient. By hand: autograd would make a table of zeros for each."""
    for weight, rows in owned:  # [R, ...], [n]
        if weight.requires_grad:
            pulls = rate * rows_of(weight, rows)  # [n, ...]
            if weight.device.type == "cpu":
                gradient(weight).index_add_(0, rows, pulls)
            else:  # slower, and in a fixed order there, too
                gradient(weight).index_put_((rows,), pulls, accumulate=True)
