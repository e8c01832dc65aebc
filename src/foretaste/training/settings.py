"""How a model is trained, as data: every field with its meaning, and the optimiser it asks for.

A training may have one that goes `before` it and whose weights it starts from. Two uses, both of Tan et al., "Improved
Recurrent Neural Networks for Session-based Recommendations", DLRS 2016:

    before = { epochs = 6 }, recent = 0.1, epochs = 2, learning_rate = 1e-4     pre-trained on all, tuned on the newest
    before = { loss = "softmax" }, loss = "regression", frozen = ["item"]       items' vectors learnt, then aimed at
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self, get_args

import torch
from pydantic import Field, model_validator

from foretaste.config import Config
from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError, nearest
from foretaste.models.contract import SequenceModel
from foretaste.training.aims import Aim, Targets
from foretaste.training.losses import LOSSES, check_options
from foretaste.training.negatives import InBatch, Popularity, Source, Uniform

Optimizer = Literal["adam", "adagrad", "sgd"]
OWN: dict[str, Optimizer] = {"beta2": "adam", "accumulator": "adagrad"}
"""Settings of one optimiser alone."""


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
    """Law of the negatives, for the losses that sample; "batch" takes the other targets of the step, and draws the rest
    by popularity."""
    sampler_power: float = Field(0.75, ge=0, le=1)
    """Popularity is raised to this power, where it is the law."""
    shared_negatives: bool = False
    """One pool of negatives for all targets of a step, instead of own ones; sampler "batch" has no other way."""
    exclude_touched: bool = True
    """Items that the user has touched so far are no negatives; with `recent`, so far as the newest rows tell."""
    optimizer: Optimizer = "adam"
    """The optimiser."""
    accumulator: float = Field(0.0, ge=0)
    """What Adagrad's sums of squared gradients begin with: 0 in PyTorch, where the first step is as long for a small
    gradient as for a large one; 0.1 in TensorFlow."""
    beta2: float = Field(0.999, gt=0, lt=1)
    """Decay of Adam's mean of squared gradients. Where the first gradients are far larger than the later ones, less."""
    learning_rate: float = Field(1e-3, gt=0)
    """Rate at the start."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate falls from its start to `final_rate` over `epochs`."""
    final_rate: float = Field(0.0, ge=0, le=1)
    """Share of the rate that is left at the end of a falling schedule."""
    weight_decay: float = Field(0.0, ge=0)
    """L2 penalty, decoupled in Adam."""
    l2: float = Field(0.0, ge=0)
    """L2 penalty on the own weights of the users a step asks for and of the items it scores, a target; see `owned` in
    the contract."""
    penalties: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """L2 penalties on other weights, a target, by the beginning of their names, such as { W1 = 1e-3, W2 = 1e-3 }; where
    several fit one, they add up."""
    clip: float = Field(0.0, ge=0)
    """Largest norm of the gradient; 0 leaves it alone."""
    average: float = Field(0.0, ge=0, lt=1)
    """Decay of a running average of the weights, which is then what is validated and kept; 0 for none."""
    batch: int = Field(512, ge=1)
    """Events a step, about, and as many targets where each is asked for what follows; rows are taken whole. Says
    nothing where rows run in `parallel`."""
    chunk: int = Field(512, ge=1)
    """Longest piece of a history that gradients flow through; in `parallel` rows, `stride` is."""
    parallel: int = Field(0, ge=0)
    """Session-parallel batches: so many rows side by side, a step for each of their next events, and a row that ends
    makes room for another. 0: whole rows."""
    stride: int = Field(1, ge=1)
    """Next events of each parallel row in one step."""
    recent: float = Field(1.0, gt=0, le=1)
    """Train on the newest rows alone, so large a share of all."""
    before: dict[str, Any] = Field(default_factory=dict)
    """Settings in which a training differs that goes before this one, and from whose weights this one starts. It has
    passes, a schedule and an end of its own; unless it says otherwise, it goes over all rows, with no weight frozen and
    no teacher."""
    frozen: tuple[str, ...] = ()
    """Weights that stay as they are, by the beginning of their names."""
    privileged: float = Field(0.0, ge=0, le=1)
    """Weight of what a teacher says that was trained on each session's future; with "softmax". See `privileged.py`."""
    epochs: int = Field(30, ge=1)
    """Passes over the log, at most."""
    patience: int = Field(3, ge=1)
    """Passes without a better validation before the run stops."""
    metric: str = "recall@20"
    """Validation metric that chooses the best pass."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Decides initial weights, order of batches, dropout and negatives."""
    checkpoint_seconds: float = Field(60.0, gt=0)
    """Longest time whose work a killed run repeats."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.loss not in LOSSES:
            raise ValueError(f"no loss is called '{self.loss}'; {nearest(self.loss, LOSSES)}")
        try:
            check_options(self.loss, self.loss_options)
        except ConfigError as error:
            raise ValueError(f"loss_options: {error}") from None
        samples = LOSSES[self.loss].needs == "negatives"
        if samples and not self.negatives and self.sampler != "batch":
            raise ValueError(f"loss '{self.loss}' compares with sampled items: set negatives to 1 or more")
        if self.ahead > 1 and self.targets != "event":
            raise ValueError(f"ahead = {self.ahead} counts events, and targets = '{self.targets}' asks for sessions")
        if self.negatives and not samples:
            raise ValueError(f"loss '{self.loss}' draws no items: leave negatives at 0")
        for name, optimizer in OWN.items():
            value = getattr(self, name)
            if optimizer != self.optimizer and value != type(self).model_fields[name].default:
                raise ValueError(f"{name} = {value} is a setting of {optimizer}, and optimizer = '{self.optimizer}'")
        if self.parallel and (self.targets != "event" or self.ahead > 1):
            raise ValueError(f"parallel = {self.parallel} asks for the next event: set targets = 'event' and ahead = 1")
        if self.stride > 1 and not self.parallel:
            raise ValueError(f"stride = {self.stride} counts events of parallel rows: set parallel to 1 or more")
        if self.privileged and self.loss != "softmax":
            raise ValueError(f"privileged = {self.privileged} compares probabilities: set loss = 'softmax'")
        if self.privileged and (self.targets != "event" or self.ahead > 1):
            raise ValueError(f"privileged = {self.privileged} wants the next event: set targets = 'event', ahead = 1")
        try:
            self.earlier()
        except ConfigError as error:
            raise ValueError(f"before: {error}") from None
        return self

    def earlier(self) -> TrainConfig | None:
        """The training that goes before this one, if any."""
        if not self.before:
            return None
        whole = {"before": {}, "recent": 1.0, "frozen": (), "privileged": 0.0}
        return TrainConfig.of(joined({**self.model_dump(), **whole}, self.before))


def joined(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe, and what a caller changes of it.

    Where the caller names another loss, the options of the recipe's stay behind, and so do its negatives where the
    other loss draws none; where another optimizer, its rate (a fifth for Adagrad is far too much for Adam) and what is
    the recipe's optimizer's alone. What the caller gives beside it is taken as it is.
    """
    kept = dict(recipe)
    optimizer = given.get("optimizer")
    if optimizer in get_args(Optimizer) and optimizer != kept.get("optimizer", TrainConfig().optimizer):
        for name in ("learning_rate", *OWN):
            if OWN.get(name) != optimizer:
                kept.pop(name, None)
    loss = given.get("loss", kept.get("loss"))
    if loss in LOSSES and loss != kept.get("loss", TrainConfig().loss):
        kept.pop("loss_options", None)
        if LOSSES[loss].needs != "negatives":
            kept.pop("negatives", None)
    return {**kept, **given}


def check_pieces(kind: type[SequenceModel], model: Config, config: TrainConfig) -> None:
    """Refuse to cut rows into pieces that a model with these settings could not see over in training."""
    window = getattr(model, "window", 0)
    if kind.carries or not (config.parallel or config.chunk < window):
        return
    cut = f"parallel = {config.parallel}" if config.parallel else f"chunk = {config.chunk}"
    raise ConfigError(
        f"{cut} cuts rows in pieces, and in training {kind.__name__} reads no further back than its piece: set "
        f"parallel to 0, and chunk to its window of {window} or more"
    )


def check_weights(setting: str, beginnings: Iterable[str], model: SequenceModel) -> None:
    """Refuse a setting that names weights which the model does not have."""
    names = [name for name, _ in model.named_parameters()]
    for said in beginnings:
        if not any(name.startswith(said) for name in names):
            raise ConfigError(f"{setting}: {type(model).__name__} has no weights '{said}'; {nearest(said, names)}")


def aim_of(config: TrainConfig) -> Aim:
    """What is asked of a row."""
    return Aim(config.targets, config.ahead, config.first, config.latest)


def optimizer_of(model: SequenceModel, config: TrainConfig) -> torch.optim.Optimizer:
    """A new optimiser over the model's weights, those that are frozen left out: they get no gradient either."""
    check_weights("frozen", config.frozen, model)
    for name, weight in model.named_parameters():
        weight.requires_grad_(not name.startswith(config.frozen))
    parameters, rate = [weight for weight in model.parameters() if weight.requires_grad], config.learning_rate
    if not parameters:
        raise ConfigError(f"frozen = {list(config.frozen)}: {type(model).__name__} has no weights left to train")
    if config.optimizer == "adam":
        return torch.optim.AdamW(parameters, rate, (0.9, config.beta2), weight_decay=config.weight_decay, fused=True)
    if config.optimizer == "adagrad":
        return torch.optim.Adagrad(
            parameters, rate, weight_decay=config.weight_decay, initial_accumulator_value=config.accumulator
        )
    return torch.optim.SGD(parameters, rate, weight_decay=config.weight_decay)


def sampler_of(model: SequenceModel, log: Sequences, config: TrainConfig) -> Source | None:
    """Where negatives come from, or None for a loss that needs none."""
    if LOSSES[config.loss].needs != "negatives":
        return None
    if config.sampler == "uniform":
        return Uniform(model.n_items, shared=config.shared_negatives)
    drawn = Popularity.of(log, model.n_items, config.sampler_power, shared=config.shared_negatives)
    if config.sampler == "popularity":
        return drawn
    targets = Targets.of(log, model.scope, aim_of(config))
    return InBatch(Popularity(targets.items(model.n_items), 1.0), drawn)
