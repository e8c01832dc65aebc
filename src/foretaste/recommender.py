"""From a log to recommendations in three calls: fit, evaluate, recommend. Raw ids in, raw ids out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

import foretaste
from foretaste.config import Config, read_toml
from foretaste.data.datasets import find_recipe
from foretaste.data.events import EventLog
from foretaste.data.prepared import MADE_BY, Prepared
from foretaste.data.sequences import PARTS, TEST, TRAIN, VALIDATION, Sequences
from foretaste.data.splits import SessionOrder, Split
from foretaste.errors import ConfigError, DataError, NeedsError, nearest
from foretaste.evaluation.evaluate import Evaluation, evaluate
from foretaste.evaluation.metrics import of_cases
from foretaste.evaluation.protocols import Cases, LastSession, PerStep, Protocol
from foretaste.evaluation.protocols import protocol as named
from foretaste.evaluation.remembered import remembered
from foretaste.models import model_class
from foretaste.models.choosing import Recommendations
from foretaste.models.contract import SequenceModel, seeded
from foretaste.models.device import usable
from foretaste.models.histories import History
from foretaste.models.saved import Trained
from foretaste.training.loop import Report, TrainResult, train
from foretaste.training.settings import TrainConfig, check_pieces, joined

CUTOFFS = (5, 10, 20)
"""Of the metrics that are measured on the validation part after each pass."""


class Recommender:
    """A model by name, with its settings: `Recommender("narm", hidden_size=128, learning_rate=0.002)`.

    Settings that belong to the model's `Config` go there, the rest to `TrainConfig`; unknown ones are refused.
    """

    def __init__(self, model: str = "narm", **settings: Any) -> None:
        self.name = model
        self.kind = model_class(model)
        own = {name: value for name, value in settings.items() if name in self.kind.Config.model_fields}
        rest = {name: value for name, value in settings.items() if name not in own}
        unknown = [name for name in rest if name not in TrainConfig.model_fields]
        if unknown:
            training = TrainConfig.model_fields if self.kind.learns == "gradient" else ()
            known = [*self.kind.Config.model_fields, *training]
            raise ConfigError(f"model '{model}' has no setting '{unknown[0]}'; {nearest(unknown[0], known)}")
        self.config = self.kind.Config.of(own)
        self.config.refuse_unread(own, f"model '{model}'")
        self.training = TrainConfig.of(joined(self.kind.recipe, rest))
        check_pieces(self.kind, self.config, self.training)
        self._trained: Trained | None = None
        self.result: TrainResult | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """All of them as plain values, the model's name first; without those of training for a model that counts."""
        training = self.training.as_dict() if self.kind.learns == "gradient" else {}
        return {"model": self.name, **training, **self.config.as_dict()}

    def fit(
        self,
        data: EventLog | Prepared,
        *,
        split: Split | None = None,
        validation: Split | None = None,
        protocol: Protocol | None = None,
        refit: bool | None = None,
        folder: str | Path | None = None,
        device: str = "cpu",
        report: Report | None = None,
    ) -> Recommender:
        """Train on a log, or on a prepared one.

        `protocol` asks the validation part; left out, it is LastSession for a model that is trained on whole sessions
        (`targets`), and PerStep for the others.

        With a validation part, the best pass on it is kept; `refit` then trains afresh on train + validation for that
        many passes. A log without `split` is used whole: its most recent tenth chooses the number of passes, and it is
        refitted unless `refit` says no. `folder` keeps checkpoints: a killed run goes on from there.
        """
        device = str(usable(device))
        prepared = data if isinstance(data, Prepared) else _prepared(data, split, validation)
        self.check_needs(prepared)
        folder = None if folder is None else Path(folder)
        refit = (data is not prepared and split is None) if refit is None else refit
        model = self._new(prepared)
        if self.kind.learns == "counts":
            model.count(prepared.sequences.of_part(TRAIN, VALIDATION) if refit else prepared.sequences.of_part(TRAIN))
        else:
            asked = protocol or (PerStep() if self.training.targets == "event" else LastSession())
            model = self._fit_by_gradient(model, prepared, asked, refit, folder, device, report)
        self._trained = Trained(self.name, model.eval(), prepared.items, prepared.users, self._facts(prepared, refit))
        return self

    def _fit_by_gradient(
        self,
        model: SequenceModel,
        prepared: Prepared,
        protocol: Protocol,
        refit: bool,
        folder: Path | None,
        device: str,
        report: Report | None,
    ) -> SequenceModel:
        log, config = prepared.sequences, self.training
        metrics = [one.metric for one in (config, config.earlier()) if one is not None]
        cutoffs = tuple(sorted({cutoff for metric in metrics for cutoff in _cutoffs(metric)}))
        known = of_cases(np.ones(1, np.int64), np.arange(2), cutoffs)
        for metric in metrics:
            if metric not in known:
                raise ConfigError(f"metric '{metric}' is not measured; {nearest(metric, known)}")
        has_slice = bool((log.part == VALIDATION).any())
        if refit and not has_slice:
            raise ConfigError(
                "refit=True (--refit) chooses the number of passes on a validation part, and this log has none"
            )
        asked = _questions(log, VALIDATION, protocol) if has_slice else None

        training = log.of_part(TRAIN)

        def validate(candidate: SequenceModel) -> Mapping[str, float]:
            assert asked is not None
            return evaluate(candidate, log, asked, cutoffs=cutoffs, device=device).means()

        model.count(training)
        self.result = train(
            model,
            training,
            config,
            validate=validate if has_slice else None,
            asked=repr(protocol),
            folder=folder,
            device=device,
            report=report,
        )
        if not refit:
            return model
        chosen = self.result.best_epoch
        model = self._new(prepared)
        training = log.of_part(TRAIN, VALIDATION)
        model.count(training)
        again = folder / "refit" if folder is not None else None
        tell = report and (lambda facts: report({**facts, "stage": f"refit/{facts.get('stage', '')}".rstrip("/")}))
        final = train(model, training, config, like=self.result, folder=again, device=device, report=tell)
        self.result = replace(final, best_epoch=chosen, history=self.result.history)
        return model

    def evaluate(
        self, data: Prepared, *, protocol: Protocol | str = "per-step", part: int = TEST, **options: Any
    ) -> Evaluation:
        """Rank every target of the test part among all items; `options` as in `foretaste.evaluate`."""
        trained = self.trained
        if not isinstance(data, Prepared):
            raise ConfigError(f"evaluate reads a prepared log (log.prepare(split)), not {type(data).__name__}")
        if part not in (TRAIN, VALIDATION, TEST):
            raise ConfigError(f"part = {part!r}; expected TRAIN, VALIDATION or TEST of foretaste.data.sequences")
        usable(options.get("device") or "cpu")
        trained.check_items(data.items)
        asking = named(protocol) if isinstance(protocol, str) else protocol
        if part == TEST and not trained.facts.get("trained_with", {}).get("refit", True):
            learnt = data.sequences.of_part(TRAIN).items
            options.setdefault("popularity", np.bincount(learnt, minlength=len(data.items) + 1)[1:])
        found = evaluate(trained.model, data.sequences, _questions(data.sequences, part, asking), **options)
        notes = (*found.facts.notes, *remembered(trained.facts, data.manifest, part == VALIDATION))
        return replace(found, facts=replace(found.facts, notes=notes))

    @property
    def trained(self) -> Trained:
        """The fitted model with its vocabulary."""
        if self._trained is None:
            raise ConfigError("this recommender is not fitted yet; call fit(log) or Recommender.load(folder)")
        return self._trained

    def recommend(self, history: History = (), k: int = 10, **options: Any) -> Recommendations:
        """The best `k` items after a history of raw ids; options as in `Trained.recommend`."""
        return self.trained.recommend(history, k, **options)

    def recommend_batch(self, histories: Sequence[History], k: int = 10, **options: Any) -> list[Recommendations]:
        """`recommend` for many histories at once; the lists are the same as one by one."""
        return self.trained.recommend_batch(histories, k, **options)

    def similar_items(self, item: Hashable, k: int = 10) -> Recommendations:
        """The items nearest to one item."""
        return self.trained.similar_items(item, k)

    def explain(self, history: History, **options: Any) -> dict[str, Any]:
        """What the answer after a history rests on; options as in `Trained.explain`."""
        return self.trained.explain(history, **options)

    def save(self, folder: str | Path) -> Path:
        """Write the recommender to a folder, in one move; one that stands there makes room for it."""
        return self.trained.save(folder)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Recommender:
        """Read a saved recommender."""
        trained = Trained.load(folder, device)
        made = trained.facts.get("trained_with", {})
        known = {name: value for name, value in made.items() if name in TrainConfig.model_fields}
        new = cls(trained.name, **known, **trained.model.config.model_dump())
        new._trained = trained
        return new

    def _new(self, prepared: Prepared) -> SequenceModel:
        n_users = len(prepared.users or ()) if "users" in self.kind.needs_of(self.config) else 0
        with seeded(self.training.seed):
            return self.kind(len(prepared.items), self.config, n_users)

    def check_needs(self, prepared: Prepared) -> None:
        """Say before training what the model needs and the log lacks."""
        lacking = sorted(self.kind.needs_of(self.config) - prepared.offers)
        if lacking:
            how = "; ".join(MADE_BY[name] for name in lacking)
            raise NeedsError(f"model '{self.name}' needs {' and '.join(lacking)}, which this log does not have; {how}")

    def _facts(self, prepared: Prepared, refit: bool) -> dict[str, Any]:
        """What a saved folder says of its making."""
        return {
            "trained_with": {**(self.training.as_dict() if self.kind.learns == "gradient" else {}), "refit": refit},
            "passes": None if self.result is None else self.result.best_epoch,
            "history": [] if self.result is None else self.result.history,
            "data": {
                name: prepared.manifest.get(name) for name in ("sources", "counts", "split", "validation", "rules")
            },
            "made_with": foretaste.__version__,
        }


def _prepared(log: EventLog, split: Split | None, validation: Split | None) -> Prepared:
    """The log in memory; without a split, all of it for training but the most recent tenth, which validates."""
    if not isinstance(log, EventLog):
        raise ConfigError(f"fit reads a log (EventLog.read(...)) or a prepared one, not {type(log).__name__}")
    if split is not None or validation is not None:
        return log.prepare(split, validation=validation)
    try:
        return log.prepare(None, validation=SessionOrder(fraction=0.1))
    except DataError as error:
        raise DataError(
            f"the most recent tenth of the sessions is to choose the best pass, but {error}; "
            "to train without, fit(log.prepare())"
        ) from None


def _cutoffs(metric: str) -> tuple[int, ...]:
    """The usual ones and the one that the metric names: 100 in "ndcg@100"."""
    k = metric.partition("@")[2]
    return (*CUTOFFS, int(k)) if k.isdecimal() and int(k) > 0 else CUTOFFS


def _questions(log: Sequences, part: int, protocol: Protocol) -> Cases:
    cases = protocol.cases(log, part)
    if not len(cases):
        why = "; every session of the log has one event" if len(log) == log.n_sessions else ""
        raise ConfigError(
            f"the {PARTS[part]} part has nothing to ask under the protocol {protocol.name} "
            f"({protocol.asks.format(protocol)}){why}; choose another protocol, or prepare the log with another split"
        )
    return cases


class RunRecipe(Config):
    """How one recommender is made: a model, its settings, and whether it is trained afresh on all."""

    model: str
    """A name of `foretaste models`."""
    about: str = ""
    """What it is for, in a sentence or two."""
    data: str = ""
    """The data recipe it was made for."""
    refit: bool = False
    """Train afresh on training + validation for the chosen number of passes."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the model's Config and of TrainConfig."""

    @classmethod
    def read(cls, name: str) -> RunRecipe:
        """From a TOML file, or by the name of one that comes with Foretaste (see `recipes/training`)."""
        path = find_recipe(name, "training")
        values = read_toml(path)
        try:
            return cls.of(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def recommender(self, **changes: Any) -> Recommender:
        """The recommender, untrained."""
        return Recommender(self.model, **{**self.settings, **changes})
