"""How a model is trained, as data: every field with its meaning, and the optimiser it asks for."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator

from foretaste.config import Config
from foretaste.data.sequences import Sequences
from foretaste.errors import nearest
from foretaste.models.contract import SequenceModel
from foretaste.training.batches import Aim
from foretaste.training.losses import LOSSES
from foretaste.training.negatives import InBatch, Popularity, Source, Uniform


class TrainConfig(Config):
    """How a model is trained. A model's `recipe` changes the defaults, the caller changes both."""

    targets: Literal["event", "session", "last_session"] = "event"
    """What is wanted: the next event; every item of the next session; or the same of each row's last session alone."""
    ahead: int = Field(1, ge=1)
    """So many next events, each a target."""
    first: bool = False
    """The first event of a row is a target too, asked before anything was seen."""
    latest: int = Field(0, ge=0)
    """Train on so many latest events of each row; 0 for all."""
    loss: str = "softmax"
    """Name of the loss; see `foretaste.training.losses.LOSSES`."""
    loss_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the loss, such as { margin = 1.0 } for the hinge."""
    negatives: int = Field(0, ge=0)
    """M, sampled negatives a target, for the losses that sample; with sampler "batch", beside the batch's own."""
    sampler: Literal["uniform", "popularity", "batch"] = "uniform"
    """Law of the negatives; "batch" takes the other targets of the step, and draws the rest by popularity."""
    sampler_power: float = Field(0.75, ge=0, le=1)
    """Popularity is raised to this power."""
    shared_negatives: bool = False
    """One pool of negatives for all targets of a step, instead of own ones."""
    exclude_touched: bool = True
    """Items that the user has touched so far are no negatives."""
    optimizer: Literal["adam", "adagrad", "sgd"] = "adam"
    """The optimiser."""
    learning_rate: float = Field(1e-3, gt=0)
    """Rate at the start."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate falls from its start to `final_rate` over `epochs`."""
    final_rate: float = Field(0.0, ge=0, le=1)
    """Share of the rate that is left at the end of a falling schedule."""
    weight_decay: float = Field(0.0, ge=0)
    """L2 penalty, decoupled in Adam."""
    l2: float = Field(0.0, ge=0)
    """L2 penalty on the users' and items' own weights that a step touches, a target; see `squares` in the contract."""
    clip: float = Field(0.0, ge=0)
    """Largest norm of the gradient; 0 leaves it alone."""
    average: float = Field(0.0, ge=0, lt=1)
    """Decay of a running average of the weights, which is then what is validated and kept; 0 for none."""
    batch: int = Field(512, ge=1)
    """Targets a step, about."""
    chunk: int = Field(512, ge=1)
    """Longest piece of a history that gradients flow through."""
    epochs: int = Field(30, ge=1)
    """Passes over the log, at most."""
    patience: int = Field(3, ge=1)
    """Passes without a better validation before the run stops."""
    metric: str = "recall@20"
    """Validation metric that chooses the best pass."""
    seed: int = 0
    """Decides initial weights, order of batches, dropout and negatives."""
    checkpoint_seconds: float = Field(60.0, gt=0)
    """Longest time whose work a killed run repeats."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.loss not in LOSSES:
            raise ValueError(f"no loss is called '{self.loss}'; {nearest(self.loss, LOSSES)}")
        samples = LOSSES[self.loss].needs == "negatives"
        if samples and not self.negatives and self.sampler != "batch":
            raise ValueError(f"loss '{self.loss}' compares with sampled items: set negatives to 1 or more")
        if self.ahead > 1 and self.targets != "event":
            raise ValueError(f"ahead = {self.ahead} counts events, and targets = '{self.targets}' asks for sessions")
        if self.negatives and not samples:
            raise ValueError(f"loss '{self.loss}' ranks the whole catalogue: leave negatives at 0")
        return self


def aim_of(config: TrainConfig) -> Aim:
    """What is asked of a row."""
    return Aim(config.targets, config.ahead, config.first, config.latest)


def optimizer_of(model: SequenceModel, config: TrainConfig) -> torch.optim.Optimizer:
    """A new optimiser over the model's weights."""
    parameters, rate = list(model.parameters()), config.learning_rate
    if config.optimizer == "adam":
        return torch.optim.AdamW(parameters, rate, weight_decay=config.weight_decay, fused=True)
    if config.optimizer == "adagrad":
        return torch.optim.Adagrad(parameters, rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(parameters, rate, weight_decay=config.weight_decay)


def sampler_of(log: Sequences, n_items: int, config: TrainConfig) -> Source | None:
    """Where negatives come from, or None for a loss that needs none."""
    if LOSSES[config.loss].needs == "catalogue":
        return None
    if config.sampler == "uniform":
        return Uniform(n_items, shared=config.shared_negatives)
    drawn = Popularity.of(log, n_items, config.sampler_power, shared=config.shared_negatives)
    return InBatch(Popularity.of(log, n_items, 1.0), drawn) if config.sampler == "batch" else drawn
