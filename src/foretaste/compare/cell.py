"""One cell of a comparison, made in a process of its own: tune on validation, train afresh, ask the test part once.

A process of its own, because its memory can then be measured, and because one that dies takes nothing with it.

    python -m foretaste.compare.cell FOLDER DATA ROW SEED THREADS DEVICE

It prints what it does as JSON lines, for the process that started it, and ends when that one is gone.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from foretaste import words
from foretaste.compare.cost import latency
from foretaste.compare.grid import Grid, Place, Row
from foretaste.compare.search import Settings, Stop, Trial, best_of, exactly, named, search
from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.errors import ForetasteError, NeedsError
from foretaste.recommender import Recommender
from foretaste.spaces import SPACES

Say = Callable[[dict[str, Any]], None]


class GivenUp(Exception):
    """Raised inside a training to end a trial that falls behind."""


def make(prepared: Prepared, grid: Grid, row: Row, seed: int, place: Place, device: str, say: Say) -> dict[str, Any]:
    """The cell, as it is kept."""
    began, choose = time.perf_counter(), words.protocol(grid.choose or grid.ask)
    tried, chosen = tune(prepared, grid, row, seed, place, device, say)
    tuned = time.perf_counter()
    final = _recommender(grid, row, chosen.change, seed)
    counts = final.kind.learns == "counts"
    folder = None if counts else place.run(row.name, seed) / named(chosen.change)
    final.fit(prepared, protocol=choose, refit=True, folder=folder, device=device, report=_progress(say, "final"))
    trained = time.perf_counter()
    say({"step": "ranking"})
    found = final.evaluate(prepared, protocol=words.protocol(grid.ask), cutoffs=grid.cutoffs, name=row.name)
    found.save_ranks(place.ranks(row.name, seed))
    ranked = time.perf_counter()
    also = {
        name: final.evaluate(prepared, protocol=words.protocol(ask), cutoffs=grid.cutoffs, name=row.name).as_dict()
        for name, ask in grid.also.items()
    }
    if seed == min(grid.seeds):
        final.save(place.model(row.name))
    history = [] if final.result is None else final.result.history
    return {
        "row": row.name,
        "model": row.model,
        "seed": seed,
        "config": final.config.as_dict(),
        "training": {} if counts else final.training.as_dict(),
        "tried": [trial.as_dict() for trial in tried],
        "chosen": dict(chosen.change),
        "passes": None if final.result is None else final.result.best_epoch,
        "history": history,
        "targets_per_second": float(np.median([one["targets_per_second"] for one in history])) if history else None,
        "weights": sum(weight.numel() for weight in final.trained.model.state_dict().values()),
        "test": found.as_dict(),
        "also": also,
        "seconds": {
            "tuning": round(tuned - began, 2),
            "training": round(trained - tuned, 2),
            "ranking": round(ranked - trained, 2),
        },
        "milliseconds": latency(final.trained, prepared) if final.trained.model.causal else None,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform != "darwin" else 2**20),
    }


def tune(
    prepared: Prepared, grid: Grid, row: Row, seed: int, place: Place, device: str, say: Say
) -> tuple[list[Trial], Trial]:
    """What was tried and what was best; another seed takes what the first chose."""
    first = place.read(row.name, min(grid.seeds)) if seed != min(grid.seeds) else None
    if first is not None:
        return [], Trial(first["chosen"], float("nan"))
    plain = _recommender(grid, row, {}, seed)
    if plain.kind.learns == "counts" and not row.tries and row.trials == 1:
        return [], Trial({}, float("nan"))  # nothing to choose, not even the number of passes
    number = 0

    def train(change: Settings, stop: Stop) -> Trial:
        nonlocal number
        number += 1
        began, one = time.perf_counter(), _recommender(grid, row, change, seed)
        folder = place.run(row.name, seed) / named(change)
        if one.kind.learns == "counts":
            return Trial(dict(change), _validated(one, prepared, grid), seconds=time.perf_counter() - began)
        seen: list[float] = []

        def report(facts: Mapping[str, Any]) -> None:
            _progress(say, f"trial {number}")(facts)
            if "validation" in facts:
                seen.append(facts["validation"][grid.metric])
                if stop(facts["epoch"], max(seen)):
                    raise GivenUp

        try:
            choose = words.protocol(grid.choose or grid.ask)
            one.fit(prepared, protocol=choose, refit=False, folder=folder, device=device, report=report)
        except GivenUp:
            shutil.rmtree(folder, ignore_errors=True)
            return Trial(dict(change), max(seen), 0, len(seen), time.perf_counter() - began, pruned=True)
        assert one.result is not None
        reached = max(entry["validation"][grid.metric] for entry in one.result.history)
        passes = one.result.best_epoch, one.result.epochs
        return Trial(dict(change), reached, *passes, time.perf_counter() - began)

    if row.tries:
        found = exactly(row.tries, train)
    else:
        space = dict(SPACES.get(row.model, {})) if row.trials > 1 else {}
        current = {**plain.training.model_dump(), **plain.config.model_dump()}
        space = {name: one for name, one in space.items() if name not in row.settings}
        journal = place.run(row.name, seed) / "search.journal"
        found = search(space, {name: current[name] for name in space}, row.trials, train, journal, seed) if space else (
            exactly(({},), train)
        )  # fmt: skip
    return found, best_of(found)


def _recommender(grid: Grid, row: Row, change: Settings, seed: int) -> Recommender:
    return Recommender(row.model, **{"metric": grid.metric, **row.settings, **change, "seed": seed})


def _validated(one: Recommender, prepared: Prepared, grid: Grid) -> float:
    """The metric of a counting model on the validation part."""
    from foretaste.data.sequences import VALIDATION

    one.fit(prepared, refit=False)
    choose = words.protocol(grid.choose or grid.ask)
    found = one.evaluate(prepared, protocol=choose, part=VALIDATION, cutoffs=grid.cutoffs)
    return found.means()[grid.metric]


def _progress(say: Say, what: str) -> Callable[[Mapping[str, Any]], None]:
    """Training's reports as messages: a few a second, and every finished pass."""
    last = 0.0

    def report(facts: Mapping[str, Any]) -> None:
        nonlocal last
        if "done" not in facts or time.monotonic() - last > 0.3:
            last = time.monotonic()
            share = 1.0 if "done" not in facts else facts["done"] / max(facts["targets"], 1)
            say({"step": what, "epoch": facts["epoch"], "epochs": facts["epochs"], "share": round(share, 3)})

    return report


def main() -> None:
    """Make one cell and write it."""
    folder, data, name, seed, threads, device = sys.argv[1:]
    parent = os.getppid()

    def say(facts: dict[str, Any]) -> None:
        if os.getppid() != parent:
            raise SystemExit("the comparison that started this cell is gone")
        print(json.dumps(facts), flush=True)

    place = Place(folder)
    try:
        words.use_threads(int(threads))
        grid, prepared = place.grid(), Prepared.open(Path(data))
        cell = make(prepared, grid, grid.row(name), int(seed), place, device, say)
        write_text(place.cell(name, int(seed)), json.dumps({**cell, "threads": int(threads)}, indent=1) + "\n")
        shutil.rmtree(place.run(name, int(seed)), ignore_errors=True)
    except NeedsError as error:
        shutil.rmtree(place.run(name, int(seed)), ignore_errors=True)
        say({"refused": str(error)})
    except ForetasteError as error:
        say({"failed": str(error)})


if __name__ == "__main__":
    main()
