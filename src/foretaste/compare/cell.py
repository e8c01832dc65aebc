"""One cell of a comparison, made in a process of its own: tune on validation, train afresh, ask the test part once.

A process of its own, because its memory can then be measured, and because one that dies takes nothing with it.

    python -m foretaste.compare.cell FOLDER DATA ROW SEED THREADS DEVICE AT_ONCE

With AT_ONCE above 1, so many trials are made at a time, in processes of their own (trials.py). It prints what it does
as JSON lines, for the process that started it, and ends when that one is gone.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from foretaste import words
from foretaste.compare import cases
from foretaste.compare.cost import latency, made, memory, spent
from foretaste.compare.grid import Grid, Place, Row
from foretaste.compare.search import Settings, Stop, Trial, best_of, exactly, search
from foretaste.compare.trials import Bench, Crew, Say, progress, space_of
from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.errors import ForetasteError, NeedsError
from foretaste.memory import keep_freed


def make(
    prepared: Prepared, grid: Grid, row: Row, seed: int, place: Place, device: str, say: Say, crew: Crew | None = None
) -> dict[str, Any]:
    """The cell, as it is kept."""
    bench = Bench(prepared, grid, row, seed, place, device)
    tried: list[Trial] = []
    chosen = Trial({}, float("nan"))  # of a model with nothing to choose, not even the number of passes
    if row.tries or row.trials > 1 or bench.recommender({}).kind.learns != "counts":
        tried, chosen = tune(prepared, grid, row, seed, place, device, say, crew)
    final = bench.recommender(chosen.change)
    counts = final.kind.learns == "counts"
    folder = None if counts else bench.folder(chosen.change)
    began = time.perf_counter()
    final.fit(prepared, protocol=bench.asked, refit=True, folder=folder, device=device, report=progress(say, "final"))
    trained = time.perf_counter()
    tuning, training = sum(trial.seconds for trial in tried), trained - began
    if folder is not None:  # what its passes took, whoever was killed in between
        training = spent(folder / "refit")
        tuning = tuning or spent(folder)  # of a seed that chose nothing but the number of passes
    say({"step": "ranking"})
    found = final.evaluate(prepared, protocol=words.protocol(grid.ask), cutoffs=grid.cutoffs, name=row.name)
    found.save_ranks(place.ranks(row.name, seed))
    cases.keep(place.cases(row.name, seed), found, grid.show)
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
        "scope": final.trained.model.scope,
        "seed": seed,
        "units": "users" if "users" in prepared.offers else "sessions",
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
            "tuning": round(tuning, 2),
            "training": round(training, 2),
            "ranking": round(ranked - trained, 2),
        },
        "milliseconds": latency(final.trained, prepared) if final.trained.model.causal else None,
        **memory(device),
        **made(device),
    }


def tune(
    prepared: Prepared,
    grid: Grid,
    row: Row,
    seed: int,
    place: Place,
    device: str,
    say: Say,
    crew: Crew | None = None,
) -> tuple[list[Trial], Trial]:
    """What was tried and what was best; another seed takes what the first chose. A `crew` makes trials side by side."""
    first = place.read(row.name, min(grid.seeds)) if seed != min(grid.seeds) else None
    if first is not None:
        return [], Trial(first["chosen"], float("nan"))
    bench = Bench(prepared, grid, row, seed, place, device)
    plain = bench.recommender({})
    crew = None if max(len(row.tries), row.trials) == 1 else crew
    number, at_once = itertools.count(1), 1 if crew is None else crew.count

    def train(change: Settings, stop: Stop) -> Trial:
        if crew is not None:
            return crew.trial(change, stop, next(number))
        return bench.trial(change, stop, say, f"trial {next(number)}")

    space = space_of(row)
    if not space:
        found = exactly(row.tries or ({},), train, at_once)
    else:
        current = {**plain.training.model_dump(), **plain.config.model_dump()}
        now = {name: current[name] for name in space}
        journal = place.run(row.name, seed) / "search.journal"
        found = search(space, now, row.trials, train, journal, seed, at_once)
    return found, best_of(found)


def main() -> None:
    """Make one cell and write it."""
    folder, data, name, seed, threads, device, at_once = sys.argv[1:]
    parent = os.getppid()

    def say(facts: dict[str, Any]) -> None:
        if os.getppid() != parent:
            raise SystemExit("the comparison that started this cell is gone")
        print(json.dumps(facts), flush=True)

    place = Place(folder)
    try:
        words.use_threads(int(threads))
        keep_freed()
        grid, prepared = place.grid(), Prepared.open(Path(data))
        with Crew(place, Path(data), name, int(seed), int(threads), device, int(at_once), say) as crew:
            hands = crew if crew.count > 1 else None
            cell = make(prepared, grid, grid.row(name), int(seed), place, device, say, hands)
        write_text(place.cell(name, int(seed)), json.dumps({**cell, "threads": int(threads)}, indent=1) + "\n")
        shutil.rmtree(place.run(name, int(seed)), ignore_errors=True)
    except NeedsError as error:
        shutil.rmtree(place.run(name, int(seed)), ignore_errors=True)
        say({"refused": str(error)})
    except ForetasteError as error:
        say({"failed": str(error)})


if __name__ == "__main__":
    main()
