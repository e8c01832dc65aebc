"""Which settings of a row are best on the validation part: exactly what it names, or a search of the model's space.

The search is Optuna's (TPE, and trials that fall behind the median of the others at the same pass are stopped). Its
journal is a plain file beside the checkpoints, so a killed search goes on with the trial it was in. Every draw depends
on the seed and the number of trials before it, and on nothing else: a search that was killed tries what one that was
not killed tries.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretaste.errors import ConfigError, ForetasteError, TrainingError
from foretaste.spaces import Between, OneOf, Space

if TYPE_CHECKING:
    import optuna

Settings = Mapping[str, Any]
Stop = Callable[[int, float], bool]
"""Pass and validation metric so far -> whether to give this trial up."""
Train = Callable[[Settings, Stop], "Trial"]
"""Trains once with these changes."""
ALIKE = 50
"""Draws in a row that bring nothing new: the space is exhausted."""


@dataclass(frozen=True)
class Trial:
    """One training on the training part, by what it reached on the validation part."""

    change: Settings
    score: float
    """Best validation metric; NaN where it failed."""
    best_epoch: int = 0
    passes: int = 0
    seconds: float = 0.0
    pruned: bool = False
    """Given up for falling behind the others."""
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a failed trial's score is null."""
        return {**asdict(self), "change": dict(self.change), "score": None if math.isnan(self.score) else self.score}


def named(change: Settings) -> str:
    """A file name for these changes: the same for the same ones."""
    return "trial-" + hashlib.sha256(json.dumps(dict(change), sort_keys=True).encode()).hexdigest()[:12]


def exactly(tries: tuple[dict[str, Any], ...], train: Train) -> list[Trial]:
    """Each of these, in order, none given up early."""
    return [_careful(train, change, lambda epoch, value: False) for change in tries]


def search(space: Space, current: Settings, trials: int, train: Train, journal: Path, seed: int) -> list[Trial]:
    """`trials` points of the space, the current settings first.

    Args:
        space: what may be tried; widened where the current settings lie outside.
        current: value of each setting in the space as the row has it.
        trials: how many; fewer where the space has fewer points.
        journal: file in which finished trials are kept.
        seed: of the draws.
    """
    optuna = _optuna()
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1)
    study = optuna.create_study(
        study_name="search", storage=storage, direction="maximize", pruner=pruner, load_if_exists=True
    )
    running = optuna.trial.TrialState.RUNNING
    for broken in study.get_trials(deepcopy=False, states=(running,)):  # killed in the middle: again
        study.tell(broken.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(broken.params)
    wide = {name: _distribution(optuna, one, current[name]) for name, one in space.items()}
    while len(_finished(study)) < trials:
        if not study.trials:
            study.enqueue_trial(dict(current))
        one = _new(optuna, study, wide, seed)
        if one is None:
            break
        _tell(optuna, study, one, _careful(train, one.params, _stopper(one)))
    return _finished(study)


def best_of(found: list[Trial]) -> Trial:
    """The one with the best score; the first of equals."""
    good = [trial for trial in found if not math.isnan(trial.score) and not trial.pruned]
    if not good:
        raise TrainingError("nothing that was tried could be trained: " + "; ".join(trial.error for trial in found))
    return max(good, key=lambda trial: trial.score)


def _careful(train: Train, change: Settings, stop: Stop) -> Trial:
    """A trial that diverges is a bad trial; everything else that goes wrong ends the cell."""
    try:
        return train(change, stop)
    except TrainingError as error:
        return Trial(dict(change), math.nan, error=str(error))


def _new(optuna: Any, study: Any, wide: Mapping[str, Any], seed: int) -> optuna.Trial | None:
    """A trial whose point was not tried before; None if none is found."""
    known = [trial.change for trial in _finished(study)]
    for attempt in range(ALIKE):
        draw = (1000 * seed + len(known)) * ALIKE + attempt
        study.sampler = optuna.samplers.TPESampler(seed=draw, n_startup_trials=5, multivariate=True)
        one = study.ask(dict(wide))
        if one.params not in known:
            return one  # type: ignore[no-any-return]
        study.tell(one, state=optuna.trial.TrialState.FAIL)
    return None


def _stopper(one: optuna.Trial) -> Stop:
    def stop(epoch: int, value: float) -> bool:
        one.report(value, epoch)
        return bool(one.should_prune())

    return stop


def _tell(optuna: Any, study: optuna.Study, one: optuna.Trial, found: Trial) -> None:
    """Keep what a trial found."""
    one.set_user_attr("trial", found.as_dict())
    states = optuna.trial.TrialState
    if math.isnan(found.score):
        study.tell(one, state=states.FAIL)
    elif found.pruned:
        study.tell(one, state=states.PRUNED)
    else:
        study.tell(one, found.score)


def _finished(study: optuna.Study) -> list[Trial]:
    """What was found so far, in order."""
    kept = [one.user_attrs["trial"] for one in study.get_trials(deepcopy=False) if "trial" in one.user_attrs]
    return [Trial(**{**one, "score": math.nan if one["score"] is None else one["score"]}) for one in kept]


def _distribution(optuna: Any, space: OneOf | Between, current: Any) -> Any:
    """Optuna's word for it, wide enough for the current value."""
    if isinstance(space, OneOf):
        values = space.values if current in space.values else (current, *space.values)
        return optuna.distributions.CategoricalDistribution(values)
    low, high = min(space.low, current), max(space.high, current)
    if space.log and low <= 0:
        raise ConfigError(f"{current} cannot stand on the logarithmic scale {space}; set it above 0")
    return optuna.distributions.FloatDistribution(low, high, log=space.log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ForetasteError(
            "searching settings needs Optuna, which is not installed: pip install 'foretaste[tune]'; "
            "without it, compare with --budget 1 (every model as it is)"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
