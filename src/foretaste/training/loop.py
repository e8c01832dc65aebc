"""One loop for every neural model: batches of histories, a loss, an optimiser, validation, checkpoints.

What it promises: the same seed, thread count and machine give the same weights; a run killed at any moment and started
again on its folder ends with the weights it would have had; validation never looks at the test part; the best weights
seen on validation are kept. Dropout draws from torch's generator inside `seeded`, so the caller's is untouched.

A training that goes before another (`TrainConfig.before`), and that of a teacher (`privileged`), are runs of the same
loop in folders of their own: killed, each goes on where it was.

A user of whom nothing is ever asked (with one event, for most models) has own weights that no step moves: they get what
a stranger has, before each validation and in the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError
from foretaste.models.contract import SequenceModel, seeded
from foretaste.training.aims import Targets
from foretaste.training.batches import newest
from foretaste.training.group import Group
from foretaste.training.privileged import Teacher, turned_round
from foretaste.training.run import Report, Run, TrainResult, Validate
from foretaste.training.settings import TrainConfig, aim_of, check_pieces

__all__ = ["Report", "TrainConfig", "TrainResult", "Validate", "train"]


def train(
    model: SequenceModel,
    log: Sequences,
    config: TrainConfig,
    *,
    validate: Validate | None = None,
    like: TrainResult | None = None,
    asked: str = "",
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    report: Report | None = None,
) -> TrainResult:
    """Train `model` in place on `log`; with `folder`, resumably.

    Without `validate` it makes all passes: `config.epochs`, or as many as were best in the run that it is to be `like`,
    which leaves the schedule of the rate as it was in that run. `asked` says what `validate` measures: a run in
    `folder` goes on only with the same. Under torchrun every process calls this; see `group.py`.
    """
    group = Group.here(torch.device(device))
    if config.parallel and not group.alone:
        raise ConfigError(
            f"parallel = {config.parallel} hands states from row to row within one process, and this run has "
            f"{group.size}: leave parallel at 0, or start it without torchrun"
        )
    check_pieces(type(model), model.config, config)
    tell, before = report if report and group.rank == 0 else (lambda facts: None), None
    earlier = config.earlier()
    if earlier is not None:
        before = train(
            model, log, earlier, validate=validate, like=like.before if like else None, asked=asked, device=device,
            folder=folder and folder / "before", report=lambda facts: tell({**facts, "stage": "before"}),
        )  # fmt: skip
    strangers = _never_asked(model, log, config, earlier)

    def validated(candidate: SequenceModel) -> Mapping[str, float]:
        assert validate is not None
        candidate.forget(strangers)
        return validate(candidate)

    teacher = _teacher(model, log, config, folder, device, tell) if config.privileged else None
    log = newest(log, model.scope, config.recent)
    with seeded(config.seed):
        passes = config.epochs if like is None else like.best_epoch
        asks = None if validate is None else validated
        run = Run(model.to(device), log, config, passes, asks, asked, folder, group, tell, teacher)
        result = run.run()
        model.forget(strangers)
        return replace(result, before=before)


def _never_asked(model: SequenceModel, log: Sequences, *trainings: TrainConfig | None) -> Tensor:
    """[N]: the numbers of the users of whom none of these trainings asks anything."""
    asked = [np.zeros(0, np.int64)]
    for config in trainings if model.n_users else ():
        if config is not None:
            rows = newest(log, model.scope, config.recent)
            asked.append(Targets.of(rows, model.scope, aim_of(config)).users(rows, model.scope))
    return torch.from_numpy(np.setdiff1d(np.arange(1, model.n_users + 1), np.concatenate(asked)))


def _teacher(
    model: SequenceModel,
    log: Sequences,
    config: TrainConfig,
    folder: Path | None,
    device: torch.device | str,
    report: Report,
) -> Teacher:
    """A new model of the same kind, trained as this one is, with the rows turned round and whole."""
    with seeded(config.seed):
        teacher = type(model)(model.n_items, model.config, model.n_users)
        teacher.count(turned_round(log, model))
    place = folder and folder / "teacher"
    for stage, where in ((config.earlier(), place and place / "before"), (config, place)):
        if stage is not None:
            rows = newest(log, model.scope, stage.recent)
            train(
                teacher, turned_round(rows, model), stage.with_(privileged=0.0, latest=0, before={}, recent=1.0),
                device=device, folder=where, report=lambda facts: report({**facts, "stage": "teacher"}),
            )  # fmt: skip
    return Teacher(teacher, newest(log, model.scope, config.recent), config.privileged)
