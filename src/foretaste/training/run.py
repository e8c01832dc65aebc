"""One run of the loop: the passes over a log, what is measured after each, and the checkpoints. See `loop.py`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretaste.data.files import write_text
from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError, TrainingError
from foretaste.models.contract import SequenceModel, State, query_cat, query_rows
from foretaste.training.aims import Targets
from foretaste.training.batches import Batch, batches, parallel_batches
from foretaste.training.checkpoint import fingerprint, forget, read_tensors, restore, run_state, write_tensors
from foretaste.training.group import Group, Share
from foretaste.training.objective import Objective
from foretaste.training.privileged import Teacher
from foretaste.training.settings import TrainConfig, aim_of, optimizer_of

Validate = Callable[[SequenceModel], Mapping[str, float]]
"""Gives the metrics of a model on the validation part."""

Report = Callable[[Mapping[str, Any]], None]
"""Is told how far the run is: see `progress.Live`."""


@dataclass
class TrainResult:
    """What a run found."""

    epochs: int
    """Passes made."""
    best_epoch: int
    """The pass whose weights were kept."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry a pass: loss, targets a second, seconds, validation metrics."""
    before: TrainResult | None = None
    """What the training that went before found."""


class Run:
    """A model, a log and settings; `run` trains the model in place."""

    def __init__(
        self,
        model: SequenceModel,
        log: Sequences,
        config: TrainConfig,
        passes: int,
        validate: Validate | None,
        asked: str,
        folder: Path | None,
        group: Group,
        report: Report,
        teacher: Teacher | None,
    ) -> None:
        self.model, self.log, self.config, self.validate = model, log, config, validate
        self.passes, self.group, self.device = passes, group, group.device
        self.report, self.begun = report, folder
        self.folder = folder if group.rank == 0 else None  # where this process writes
        self.which = {} if folder is None else {"log": fingerprint(log), "asked": asked if validate else ""}
        self.aim = aim_of(config)
        self.targets = Targets.of(log, model.scope, self.aim).count
        if not self.targets:
            wanted = "event" if log.target is None else "target"
            raise TrainingError(
                f"the training log has no {wanted} that follows another event in the same row; "
                "give longer sessions or histories" + ("" if log.target is None else ", or other target actions")
            )
        self.optimizer = optimizer_of(model, config)
        self.objective = Objective(model, log, config, teacher)
        self.epoch, self.step, self.loss_sum, self.done, self.seconds = 0, 0, 0.0, 0, 0.0
        self.best: dict[str, Tensor] = {}
        self.average: dict[str, Tensor] = {}
        self.state: State = {}
        self.result = TrainResult(0, 0)
        self.saved_at = time.monotonic()

    def run(self) -> TrainResult:
        self._resume()
        self.group.same(self.model)
        place = {"epoch": self.epoch, "step": self.step}
        if self.group.told(place) != place:
            raise ConfigError(f"{self.begun}: not every process reads the same checkpoint; give a folder that all see")
        try:
            while self.epoch < self.passes and not self._gave_up():
                self._pass()
                self._finish_pass()
        except TrainingError:
            if self.folder is not None:
                forget(self.folder)  # going on from there would come to the same end
            raise
        final = self.best or self.average
        if final:
            self.model.load_state_dict(final)
        self.result.epochs = self.epoch
        self.model.requires_grad_(True)  # what was frozen
        return self.result

    def _gave_up(self) -> bool:
        return self.validate is not None and self.epoch - self.result.best_epoch >= self.config.patience

    def _batches(self) -> Iterator[Batch]:
        """The steps of this pass."""
        c, scope, order = self.config, self.model.scope, (self.config.seed, self.epoch)
        if c.parallel:
            return parallel_batches(self.log, scope, rows=c.parallel, stride=c.stride, seed=order, aim=self.aim)
        return batches(self.log, scope, budget=c.batch, chunk=c.chunk, seed=order, aim=self.aim)

    def _pass(self) -> None:
        self.model.train()
        started = time.monotonic() - self.seconds
        for index, batch in enumerate(self._batches()):
            if index < self.step:
                continue  # made before the run was interrupted
            due = self.step and time.monotonic() - self.saved_at > self.config.checkpoint_seconds
            if due and (self.group.alone or batch.fresh):  # a state that runs on is not known to the others
                self.seconds = time.monotonic() - started
                self._save()
            self._train_step(batch.to(self.device))
            self.step = index + 1
            self.seconds = time.monotonic() - started
            self.report(
                {
                    "epoch": self.epoch + 1,
                    "epochs": self.passes,
                    "done": self.done,
                    "targets": self.targets,
                    "loss": self.loss_sum / max(self.done, 1),
                    "seconds": self.seconds,
                }
            )

    def _train_step(self, whole: Batch) -> None:
        """One batch forward, backward, and a step; keeps the state for what runs on."""
        self.group.draw(self.config.seed, self.epoch, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        value, count = self.group.sum(self.model, self._backward(self.group.share(whole))), len(whole.targets)
        if not math.isfinite(value):
            raise self._diverged(f"the loss became {value} in pass {self.epoch + 1}, step {self.step + 1}")
        if count:
            self._set_rate()
            if self.config.clip:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            self.optimizer.step()
            self._average()
            self.loss_sum += value * count
            self.done += count

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(f"{what}: try a lower learning_rate (now {self.config.learning_rate}) or clip=1.0")

    def _backward(self, share: Share) -> float:
        """Gradients of this process's rows; gives what they add to the mean loss of the step."""
        batch = share.batch
        if not len(batch.users):
            return 0.0
        state = self._begin(batch)
        query, after = self.model(batch.events, state, at=batch.at)
        self.state = {name: part.detach() for name, part in after.items()}
        if not len(batch.targets):
            return 0.0
        if batch.blank.any():
            query = query_cat(query, query_rows(self.model.query(state), batch.blank))
        return self.objective.backward(share, query, self.epoch, self.step)

    def _begin(self, batch: Batch) -> State:
        """The state that each row of a batch starts from: the initial one, or that of the row that it runs on from."""
        if batch.fresh:
            return self.model.initial_state(batch.users)
        kept = {name: part[batch.before.clamp(min=0)] for name, part in self.state.items()}
        begins = batch.before < 0  # [B]
        if not begins.any():
            return kept
        for name, part in self.model.initial_state(batch.users[begins]).items():
            kept[name][begins] = part
        return kept

    def _set_rate(self) -> None:
        """The rate of the schedule at this place of the whole run."""
        c = self.config
        progress = (self.epoch + min(self.done / self.targets, 1.0)) / c.epochs
        left = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[c.schedule]
        for group in self.optimizer.param_groups:
            group["lr"] = c.learning_rate * (c.final_rate + (1 - c.final_rate) * left)

    def _average(self) -> None:
        """A running average of the weights, started at the first step."""
        if not self.config.average:
            return
        current = self.model.state_dict()
        if not self.average:
            self.average = {name: value.clone() for name, value in current.items()}
        for name, value in current.items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - self.config.average)

    def _finish_pass(self) -> None:
        if not all(bool(weight.isfinite().all()) for weight in self.model.parameters()):
            raise self._diverged(f"weights became NaN or infinite in the last steps of pass {self.epoch + 1}")
        entry: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "loss": self.loss_sum / max(self.done, 1),
            "seconds": round(self.seconds, 3),
            "targets_per_second": round(self.done / max(self.seconds, 1e-9), 1),
        }
        self.epoch, self.step, self.loss_sum, self.done, self.seconds = self.epoch + 1, 0, 0.0, 0, 0.0
        self.state = {}
        if self.validate is not None:
            began = time.monotonic()
            metrics, weights = self._validated()
            entry |= {"validation": metrics, "validation_seconds": round(time.monotonic() - began, 3)}
            if self.config.metric not in metrics:
                raise ConfigError(f"metric '{self.config.metric}' is not measured; choose one of {', '.join(metrics)}")
            if not self.best or metrics[self.config.metric] > self._best_value():
                self.result.best_epoch = self.epoch
                self.best = weights
        else:
            self.result.best_epoch = self.epoch
        self.result.history.append(entry)
        self._save()
        if self.folder is not None:
            lines = "".join(json.dumps(line) + "\n" for line in self.result.history)
            write_text(self.folder / "log.jsonl", lines)
        self.report({**entry, "epochs": self.passes, "best_epoch": self.result.best_epoch})

    def _best_value(self) -> float:
        return float(self.result.history[self.result.best_epoch - 1]["validation"][self.config.metric])

    def _validated(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics of the averaged weights where there are any, else of the current ones; and these weights as they were
        then, for whoever validates gives users that were never trained what a stranger has."""
        current = _copy(self.model) if self.average else {}
        if self.average:
            self.model.load_state_dict(self.average)
        assert self.validate is not None
        metrics = self.group.told(self.validate(self.model) if self.group.rank == 0 else {})
        self.group.same(self.model)
        weights = _copy(self.model)
        if current:
            self.model.load_state_dict(current)
        return metrics, weights

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = {
            **self._identity(),
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "done": self.done,
            "seconds": self.seconds,
            "best_epoch": self.result.best_epoch,
            "history": self.result.history,
        }
        write_tensors(
            self.folder / "checkpoint.safetensors",
            run_state(self.model, self.optimizer, best=self.best, average=self.average, state=self.state),
            facts,
        )

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on from a checkpoint."""
        model = {"kind": type(self.model).__name__, **self.model.config.as_dict()}
        size = {"targets": self.targets, "items": self.model.n_items, "users": self.model.n_users}
        return {"config": self.config.as_dict(), "model": model, **size, **self.which}

    def _resume(self) -> None:
        path = None if self.begun is None else self.begun / "checkpoint.safetensors"
        if path is None or not path.exists():
            return
        tensors, facts = read_tensors(path)
        facts["config"] = {**TrainConfig().as_dict(), **facts.get("config", {})}  # a setting newer than the file
        if any(facts.get(name, value) != value for name, value in self._identity().items()):
            raise ConfigError(
                f"{path}: this folder holds a run with other settings, another log or another protocol; "
                "give the same ones to go on with it, or remove the folder to begin afresh"
            )
        parts = restore(tensors, self.model, self.optimizer)
        self.best = parts.get("best", {})
        self.average = {name: value.to(self.device) for name, value in parts.get("average", {}).items()}
        self.state = {name: part.to(self.device) for name, part in parts.get("state", {}).items()}
        self.epoch, self.step, self.done = facts["epoch"], facts["step"], facts["done"]
        self.loss_sum, self.seconds = facts["loss_sum"], facts["seconds"]
        self.result = TrainResult(self.epoch, facts["best_epoch"], facts["history"])


def _copy(model: SequenceModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
