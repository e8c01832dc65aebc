"""`foretaste train`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from foretaste import words
from foretaste.errors import ConfigError
from foretaste.options import Device, Flag, Json, Settings, Threads, Track

if TYPE_CHECKING:
    from foretaste.recommender import Recommender


def train(
    data: Path,
    /,
    *,
    out: Path,
    model: str | None = None,
    recipe: str | None = None,
    set: Settings = (),
    protocol: str | None = None,
    refit: Flag = False,
    replace: Flag = False,
    track: Track = None,
    threads: Threads = 1,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Train a model on a prepared folder and save the recommender. Killed, it goes on when started again.

    Several processes share the work where torchrun starts them: docs/start.md.

    Example: `foretaste train clicks --out clicks-narm --model narm --set hidden_size=128 --set learning_rate=0.002`

    Parameters
    ----------
    data
        A folder written by `foretaste prepare`.
    out
        Folder for the recommender; checkpoints stand beside it in OUT.run until it is saved.
    model
        One of `foretaste models`. Default: narm, or what the recipe says.
    recipe
        TOML file, or the name of one that comes with Foretaste, with the model and its settings.
    set
        A setting as key=value, such as --set hidden_size=128; may be repeated, and goes before the recipe's.
    protocol
        What the validation part is asked, as in `foretaste evaluate`. Default: last-session for a model that is trained
        on whole sessions, per-step for the others.
    refit
        After choosing the number of passes on the validation part, train afresh on training + validation.
    replace
        Put the new recommender in the place of one that stands at --out.
    """
    from foretaste.cli import show
    from foretaste.data.folders import check_free
    from foretaste.data.prepared import Prepared
    from foretaste.inspection import trained_facts
    from foretaste.memory import keep_freed
    from foretaste.recommender import RunRecipe
    from foretaste.training import group
    from foretaste.training.checkpoint import forget
    from foretaste.training.progress import Live, together
    from foretaste.training.tracking import tracker

    words.use_threads(threads)
    keep_freed()
    out = out if out.name else out.resolve()  # `.` has no name
    check_free(out, "a recommender", "recommender.json", replace=replace)
    plan = RunRecipe(model="narm") if recipe is None else RunRecipe.read(recipe)
    plan = plan if model is None else plan.with_(model=model)
    given = words.settings(set)
    recommender, run = plan.recommender(**given), out.with_name(f"{out.name}.run")
    _check_settings(recommender, given)
    asked = None if protocol is None else words.protocol(protocol)
    log, refit = Prepared.open(data), refit or plan.refit
    if not group.first():
        recommender.fit(log, protocol=asked, refit=refit, folder=run, device=device)
        return
    with tracker(track).begin(out.name, recommender.settings, of=str(out.resolve())) as tracked:
        report = together(Live(recommender.training.metric), tracked)
        recommender.fit(log, protocol=asked, refit=refit, folder=run, device=device, report=report)
        recommender.save(out)
        tracked.keep(out)
    forget(run)
    facts, _ = trained_facts(recommender.trained)
    show({"saved": str(out), **facts}, f"saved: {out}", json)


def _check_settings(recommender: Recommender, given: Iterable[str]) -> None:
    """A model that counts takes no settings of training."""
    own = recommender.kind.Config.model_fields
    for name in given if recommender.kind.learns == "counts" else ():
        if name not in own:
            known = ", ".join(own) or "none"
            raise ConfigError(
                f"model '{recommender.name}' counts, and takes no setting '{name}'; its settings: {known}"
            )
