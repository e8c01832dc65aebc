"""`foretaste compare` and `foretaste tune`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretaste import words
from foretaste.compare.grid import Grid, Place, Row, lengths
from foretaste.compare.publish import fingerprint, publish
from foretaste.compare.run import alone, refuse_taken, run
from foretaste.compare.summary import facts_of
from foretaste.compare.tracked import TrackedCells
from foretaste.compare.trials import Bench, Crew, check
from foretaste.compare.written import markdown, plain
from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import PARTS, TEST, VALIDATION
from foretaste.errors import ConfigError, TrainingError, nearest
from foretaste.inspection.settings import written
from foretaste.models import model_class
from foretaste.options import Cutoffs, Device, Flag, Json, Settings, Threads, Track
from foretaste.recommender import RunRecipe
from foretaste.training.settings import TrainConfig
from foretaste.training.tracking import tracker

WITH_USERS = ("pop", "s-pop", "sr", "item-knn", "vstan", "bpr-mf", "fpmc", "gru4rec", "narm")
WITHOUT_USERS = ("pop", "s-pop", "sr", "item-knn", "vstan", "gru4rec", "narm")
"""Compared where no models are named: those that any log with, or without, users can have, and that are cheap to tune.
With users, S-POP counts each one's own favourites, which where people come back are hard to beat (Instacart's orders).
VSTAN stands for the neighbours: it costs what VS-KNN costs, and found more on each of the three logs that had both.
What scores each candidate by itself (RUM), or needs sessions of one user besides, is left to those who name it."""


def compare(
    data: Path | None = None,
    /,
    *,
    out: Path,
    models: str | None = None,
    protocol: str = "per-step",
    metric: str = "recall@20",
    cutoffs: Cutoffs = (5, 10, 20),
    budget: int = 8,
    seeds: int = 3,
    set: Settings = (),
    workers: int = 1,
    threads: Threads = 1,
    device: Device = "cpu",
    track: Track = None,
    simulated: Flag = False,
    json: Json = False,
) -> None:
    """A fair comparison of models on one log: same split, same questions, same tuning budget, several seeds.

    Example: `foretaste compare clicks --out clicks-compared --models pop,fpmc,narm --budget 8 --seeds 3`

    Killed, it goes on when started again; with more models or seeds it makes what is missing. It writes table.md,
    report.html and every number as CSV, keeps every cell and every rank, and saves each model (models/NAME),
    ready to serve.

    Parameters
    ----------
    data
        A folder written by `foretaste prepare`, with a validation and a test part.
    out
        Folder of the comparison.
    models
        Names of `foretaste models`, with commas. A name may stand for a variant: narm-small=narm and then
        --set narm-small.hidden_size=50. Left out: pop, s-pop, sr, item-knn, vstan, bpr-mf, fpmc, gru4rec and narm where
        the log has users (s-pop by all they had); pop, s-pop, sr, item-knn, vstan, gru4rec and narm where it has none.
    protocol
        What test and validation part are asked, as in `foretaste evaluate`.
    metric
        Chooses settings and passes on the validation part, and is what models are compared in.
    cutoffs
        List lengths of the metrics.
    budget
        Settings that are tried for each model, the first being its own; 1 tunes nothing but the number of passes.
    seeds
        Trainings of each model with the chosen settings.
    set
        A setting as key=value for every model that has it, or model.key=value for one; such a setting is not searched.
    workers
        Processes at work at a time, one a cell; with several workers a model, so many trials of its search at once.
    simulated
        Compare on a simulated shop; no log is needed.
    """
    from foretaste.cli import show

    if (data is None) != simulated:
        raise ConfigError("compare: give a folder written by `foretaste prepare`, or --simulated")
    if seeds < 1:
        raise ConfigError(f"seeds = {seeds}; give at least 1")
    refuse_taken(out)
    place = Place(out)
    cells = TrackedCells(tracker(track), place)
    folder = _shop(out) if data is None else data
    log = Prepared.open(folder)
    _check_parts(log, folder, (VALIDATION, "chooses the settings"), (TEST, "is asked in the end"))
    words.protocol(protocol)
    given, users = _settings(set, "--seeds"), "users" in log.offers
    if models is None:
        models = ",".join(WITH_USERS if users else WITHOUT_USERS)
        given = {"s-pop.scope": "user", **given} if users else given
    grid = Grid(
        title=f"Comparison on {folder.name}",
        rows=tuple(_rows(models, budget, given)),
        seeds=tuple(range(seeds)),
        ask=protocol,
        metric=metric,
        show=tuple(dict.fromkeys((metric, f"mrr@{max(cutoffs)}"))),
        cutoffs=lengths(metric, cutoffs),
        data=fingerprint(log),
    )
    check(grid)
    with alone(place.folder) as lock:
        place.begin(grid)
        run(place, folder, workers=workers, threads=threads, device=device, finished=cells, lock=lock)
        summary = publish(place, folder)
    cells.close()
    page = out / "report.html"
    look = f"look at {page if page.exists() else out / 'table.md'}; every number is in {out / 'numbers.csv'}"
    show({"folder": str(out), **facts_of(summary)}, f"{markdown(summary)}\n{look}", json)
    if not any(line.cells for line in summary.lines):
        raise TrainingError(f"no model has a result; {out / 'table.md'} says why of each")


def tune(
    data: Path,
    /,
    *,
    model: str,
    out: Path,
    trials: int = 20,
    protocol: str = "per-step",
    metric: str = "recall@20",
    set: Settings = (),
    seed: int = 0,
    workers: int = 1,
    threads: Threads = 1,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Search a model's settings on the validation part, and write the best as a recipe for `foretaste train`.

    Example: `foretaste tune clicks --model narm --trials 20 --out narm-clicks.toml`

    Trials that fall behind are stopped early. Killed, it goes on when started again, with as many trials or more:
    OUT.run holds what was tried until all is done.

    Parameters
    ----------
    data
        A folder written by `foretaste prepare`, with a validation part. The test part is not touched.
    model
        One of `foretaste models`; `foretaste models` also shows what is searched.
    out
        TOML file for the recipe.
    trials
        Settings that are tried, the first being the model's own.
    protocol
        What the validation part is asked.
    metric
        What is to be best.
    set
        A setting as key=value, the same in all trials.
    seed
        Of the draws and of the trainings.
    workers
        Trials made at a time, each in a process of its own. Another number tries other settings.
    """
    import shutil

    from foretaste.cli import show
    from foretaste.compare.cell import tune as search
    from foretaste.memory import keep_freed
    from foretaste.training.progress import clock

    if workers < 1:
        raise ConfigError(f"workers = {workers}; give at least 1")
    words.use_threads(threads)
    keep_freed()
    if out.exists():
        raise ConfigError(f"{out}: is there already; name another file for the recipe, or delete this one")
    if trials < 1:
        raise ConfigError(f"trials = {trials}; give at least 1")
    log = Prepared.open(data)
    _check_parts(log, data, (VALIDATION, "chooses the settings"))
    row = Row(name=model, model=model, settings=_settings(set, "--seed"), trials=trials)
    asked: dict[str, Any] = {"metric": metric, "show": (metric,), "cutoffs": lengths(metric), "data": fingerprint(log)}
    grid = Grid(title="", rows=(row,), seeds=(seed,), ask=protocol, **asked)
    check(grid)
    place = Place(out.with_name(f"{out.name}.run"))
    first = Bench(log, grid, row, seed, place, device).recommender({})
    first.check_needs(log)  # before anything is made
    own = {"metric": metric, "seed": seed} if first.kind.learns == "gradient" else {}
    live = sys.stderr.isatty()

    def say(facts: Mapping[str, Any]) -> None:
        if live:
            text = f"\r\033[K{facts['step']} pass {facts['epoch']}/{facts['epochs']} {facts['share']:4.0%}"
            print(text, end="", file=sys.stderr, flush=True)

    with alone(place.folder):
        _begin(place, grid)
        with Crew(place, data, model, seed, threads, device, workers, say) as crew:
            found, best = search(log, grid, row, seed, place, device, say, crew if workers > 1 else None)
        what = f"{metric} {100 * best.score:.2f} %"
        about = f"Best of {len(found)} settings on the validation part, asked {protocol}: {what}."
        write_text(out, _recipe(model, about, {**own, **row.settings, **best.change}))
        RunRecipe.read(str(out))  # who trains by it must be able to, before the search is forgotten
        shutil.rmtree(place.folder, ignore_errors=True)
    lines = [f"{'':3} {metric:>10}  {'passes':>6}  {'time':>6}  settings"]
    for number, trial in enumerate(found, 1):
        score = trial.error or f"{100 * trial.score:8.2f} %" + ("  stopped" if trial.pruned else "")
        mark = "*" if trial is best else " "
        changes = ", ".join(f"{name} = {plain(value)}" for name, value in trial.change.items())
        lines.append(f"{mark}{number:2} {score}  {trial.passes:6}  {clock(trial.seconds):>6}  {changes}")
    facts = {"saved": str(out), "best": best.as_dict(), "tried": [trial.as_dict() for trial in found]}
    train = f"train by it: foretaste train {data} --out FOLDER --recipe {out} --protocol {protocol}"
    show(facts, "\n".join([*lines, "", f"saved: {out}", train]), json)


def _settings(given: Settings, seeds: str) -> dict[str, Any]:
    """What `--set` says, without what is the same for all that is tried."""
    found = words.settings(given)
    for key in found:
        for name, flag in (("seed", seeds), ("metric", "--metric")):
            if key.rpartition(".")[2] == name:
                raise ConfigError(f"--set {key}: is the same for all that is tried; say it with {flag}")
    return found


def _begin(place: Place, grid: Grid) -> None:
    """Begin a search, or go on with the one that was cut off: how many are tried in all is no part of what it is."""
    try:
        place.begin(grid.with_(rows=tuple(row.with_(trials=1) for row in grid.rows)))
    except ConfigError:
        raise ConfigError(
            f"{place.folder}: holds a search that was cut off, of another log or with other settings; go on with the "
            "same words as before, or delete the folder and begin anew"
        ) from None


def _rows(models: str, budget: int, settings: Mapping[str, Any]) -> list[Row]:
    """`pop,narm-small=narm` and the settings of each."""
    named: dict[str, str] = {}
    for word in (part.strip() for part in models.split(",") if part.strip()):
        name, _, model = word.partition("=")
        named[name] = model or name
        model_class(named[name])
    unused, rows, takes = dict(settings), [], set[str]()
    for name, model in named.items():
        kind, mine = model_class(model), {}
        fields = {*kind.Config.model_fields, *(TrainConfig.model_fields if kind.learns == "gradient" else ())}
        takes |= fields
        for key, value in settings.items():
            row, dot, field = key.rpartition(".")
            if (not dot and key in fields) or (dot and row == name and field in fields):
                mine[field if dot else key] = value
                unused.pop(key, None)
        rows.append(Row(name=name, model=model, settings=mine, trials=budget))
    if unused:
        row, dot, field = (wrong := next(iter(unused))).rpartition(".")
        if dot and row not in named:
            raise ConfigError(f"'{wrong}': no model here is called '{row}'; {nearest(row, list(named))}")
        if field in TrainConfig.model_fields:
            raise ConfigError(f"'{wrong}' is a setting of training, and what it is for counts: leave it out")
        raise ConfigError(f"no model here has the setting '{wrong}'; {nearest(field, sorted(takes))}")
    return rows


def _check_parts(log: Prepared, folder: Path, *parts: tuple[int, str]) -> None:
    for part, what in parts:
        if not (log.sequences.part == part).any():
            raise ConfigError(
                f"{folder}: no {PARTS[part]} part, which {what}; prepare the log with --split and --validation"
            )


def _shop(out: Path) -> Path:
    """The simulated shop, prepared beside the comparison."""
    from foretaste.data.simulate import shop
    from foretaste.data.splits import GlobalTime

    folder = out / "shop"
    if not folder.exists():
        shop().log().prepare(GlobalTime(fraction=0.1), validation=GlobalTime(fraction=0.1), folder=folder)
    return folder


def _recipe(model: str, about: str, settings: Mapping[str, Any]) -> str:
    """A TOML recipe that `foretaste train --recipe` reads."""
    lines = [f"model = {written(model, True)}", f"about = {written(about, True)}", "refit = true", "", "[settings]"]
    return "\n".join([*lines, *(f"{name} = {written(value, True)}" for name, value in settings.items())]) + "\n"
