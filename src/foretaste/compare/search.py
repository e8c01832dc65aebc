"""Which settings of a row are best on the validation part: exactly what it names, or a search of the model's space.

The search is Optuna's (TPE, and trials that fall behind the median of the others at the same pass are stopped). Its
journal is a plain file beside the checkpoints, so a killed search goes on with the trials it was in. Every draw depends
on the seed and the number of trials before it, and on nothing else: a search that was killed tries what one that was
not killed tries.

Several trials at once are a round: they are drawn one after another, trained side by side, and told to the search
together and in order when the last is done. So it does not matter which of them is quicker, and the same number at once
gives the same trials; another number gives others, as a round knows less than trials one by one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
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


def exactly(tries: Sequence[Settings], train: Train, at_once: int = 1) -> list[Trial]:
    """Each of these, in order, none given up early."""
    return _together([partial(_careful, train, change, _never) for change in tries], at_once)


def search(
    space: Space, current: Settings, trials: int, train: Train, journal: Path, seed: int, at_once: int = 1
) -> list[Trial]:
    """`trials` points of the space, the current settings first.

    Args:
        space: what may be tried; widened where the current settings lie outside.
        current: value of each setting in the space as the row has it.
        trials: how many; fewer where the space has fewer points.
        train: called from `at_once` threads.
        journal: file in which finished trials are kept.
        seed: of the draws.
        at_once: trials of a round.
    """
    study = _Study(space, current, journal, seed, at_once)
    while True:
        together = study.round(at_once, trials)
        if not together:
            return study.found
        made = _together([partial(_made, one, train) for one in together], at_once)
        for one, trial in zip(together, made, strict=True):
            study.tell(one, trial)


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


def _never(epoch: int, value: float) -> bool:
    return False


def _together(each: Sequence[Callable[[], Trial]], at_once: int) -> list[Trial]:
    """What each gives, in order; side by side where there are several. The first that fails ends it."""
    if at_once == 1:
        return [one() for one in each]
    pool = ThreadPoolExecutor(at_once)
    try:
        return [waiting.result() for waiting in [pool.submit(one) for one in each]]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # whoever gave `train` ends what still runs


def _made(one: optuna.Trial, train: Train) -> Trial:
    """What a trial finds, kept as soon as it is known: the rest of its round may take long."""
    if "trial" in one.user_attrs:
        return read(one.user_attrs["trial"])
    found = _careful(train, one.params, _stopper(one))
    one.set_user_attr("trial", found.as_dict())
    return found


def _stopper(one: optuna.Trial) -> Stop:
    told = one.study.get_trials(deepcopy=False)[one.number].intermediate_values.keys()  # before it was cut off

    def stop(epoch: int, value: float) -> bool:
        if epoch not in told:
            one.report(value, epoch)
        return bool(one.should_prune())

    return stop


class _Study:
    """Optuna's study over a journal."""

    def __init__(self, space: Space, current: Settings, journal: Path, seed: int, at_once: int) -> None:
        self.optuna = optuna = library()
        self.current, self.seed, self.several = current, seed, at_once > 1
        journal.parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
        pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1)
        self.study = optuna.create_study(
            study_name="search", storage=storage, direction="maximize", pruner=pruner, load_if_exists=True
        )
        self.wide = {name: _distribution(optuna, one, current[name]) for name, one in space.items()}

    @property
    def found(self) -> list[Trial]:
        """What was told so far, in order."""
        trials = self.study.get_trials(deepcopy=False)
        return [
            read(one.user_attrs["trial"]) for one in trials if one.state.is_finished() and "trial" in one.user_attrs
        ]

    def round(self, at_once: int, trials: int) -> list[optuna.Trial]:
        """The trials that are made next, up to so many in all: those that a kill cut off, then new ones."""
        states = self.optuna.trial.TrialState
        running = self.study.get_trials(deepcopy=False, states=(states.RUNNING,))
        if all("trial" in one.user_attrs for one in running):  # a round that was made, and told in part or not at all
            for one in running:
                self.tell(self.optuna.trial.Trial(self.study, one._trial_id), read(one.user_attrs["trial"]))
            running = []
        together: list[optuna.Trial] = []
        found = self.found
        size = min(at_once, trials - len(found))
        for broken in running:
            if broken.params.keys() == self.wide.keys() and len(together) < size:
                together.append(self.optuna.trial.Trial(self.study, broken._trial_id))
            else:  # killed while it was drawn: drawn again, and the same
                self.study.tell(broken.number, state=states.FAIL)
        waiting = self.study.get_trials(deepcopy=False, states=(states.WAITING,))
        if size and not found and not together and not waiting:
            self.study.enqueue_trial(dict(self.current))
        while len(together) < size:
            one = self._new([trial.change for trial in found] + [one.params for one in together])
            if one is None:
                break
            together.append(one)
        return together

    def _new(self, known: Sequence[Settings]) -> optuna.Trial | None:
        """A trial whose point was not tried before; None if none is found."""
        for attempt in range(ALIKE):
            self.study.sampler = self.optuna.samplers.TPESampler(
                seed=((1000 * self.seed + len(known)) * ALIKE + attempt) % 2**32,
                n_startup_trials=5,
                multivariate=True,
                constant_liar=self.several,
            )
            one = self.study.ask(dict(self.wide))
            if one.params not in known:
                return one  # type: ignore[no-any-return]
            self.study.tell(one, state=self.optuna.trial.TrialState.FAIL)
        return None

    def tell(self, one: optuna.Trial, found: Trial) -> None:
        """The search learns from it, now and not before."""
        states = self.optuna.trial.TrialState
        if math.isnan(found.score):
            self.study.tell(one, state=states.FAIL)
        elif found.pruned:
            self.study.tell(one, state=states.PRUNED)
        else:
            self.study.tell(one, found.score)


def read(kept: Mapping[str, Any]) -> Trial:
    """A trial from plain values."""
    return Trial(**{**kept, "score": math.nan if kept["score"] is None else kept["score"]})


def _distribution(optuna: Any, space: OneOf | Between, current: Any) -> Any:
    """Optuna's word for it, wide enough for the current value."""
    if isinstance(space, OneOf):
        values = space.values if current in space.values else (current, *space.values)
        return optuna.distributions.CategoricalDistribution(values)
    low, high = min(space.low, current), max(space.high, current)
    if space.log and low <= 0:
        raise ConfigError(f"{current} cannot stand on the logarithmic scale {space}; set it above 0")
    return optuna.distributions.FloatDistribution(low, high, log=space.log)


def library() -> Any:
    """Optuna; one sentence where it is missing."""
    try:
        import optuna
    except ImportError:
        raise ForetasteError(
            "searching settings needs Optuna, which is not installed: pip install 'foretaste[tune]'; "
            "without it, compare with --budget 1 (every model as it is)"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
