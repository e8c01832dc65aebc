"""How a model is trained, as data: every field with its meaning, and the optimiser it asks for."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from foretaste.config import Config
from foretaste.models.contract import SequenceModel
from foretaste.training.losses import LOSSES


class TrainConfig(Config):
    """How a model is trained. A model's `recipe` changes the defaults, the caller changes both."""

    loss: Literal[*sorted(LOSSES)] = "softmax"  # type: ignore[valid-type]
    """Name of the loss; see `foretaste.training.losses`."""
    negatives: int = Field(0, ge=0)
    """N, sampled negatives a target, for the losses that sample; 0 for those that rank the whole catalogue."""
    sampler: Literal["uniform", "popularity"] = "uniform"
    """Law of the negatives."""
    sampler_power: float = Field(0.75, ge=0, le=1)
    """Popularity is raised to this power."""
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


def optimizer_of(model: SequenceModel, config: TrainConfig) -> torch.optim.Optimizer:
    """A new optimiser over the model's weights."""
    parameters, rate = list(model.parameters()), config.learning_rate
    if config.optimizer == "adam":
        return torch.optim.AdamW(parameters, rate, weight_decay=config.weight_decay, fused=True)
    if config.optimizer == "adagrad":
        return torch.optim.Adagrad(parameters, rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(parameters, rate, weight_decay=config.weight_decay)
