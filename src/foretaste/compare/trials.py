"""One trial, a training that shows what a setting is worth; and processes that make several at once.

A process makes one trial after another:  python -m foretaste.compare.trials FOLDER DATA ROW SEED THREADS DEVICE

It reads {"number", "change"} from standard input and answers with JSON lines: how far it is, after each pass the
question whether to give up (answered by {"stop"}), in the end what was found. The search itself stays with who asks, so
that one process alone writes its journal.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from foretaste import words
from foretaste.compare.cost import spent
from foretaste.compare.grid import Grid, Place, Row
from foretaste.compare.run import ended
from foretaste.compare.search import Settings, Stop, Trial, library, named, read
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import VALIDATION
from foretaste.errors import ConfigError, ForetasteError, NeedsError, TrainingError
from foretaste.memory import keep_freed
from foretaste.models import model_class
from foretaste.recommender import Recommender
from foretaste.spaces import OneOf, Space
from foretaste.threads import WAITING
from foretaste.training.checkpoint import read_facts
from foretaste.training.group import several
from foretaste.training.settings import OWN

Say = Callable[[dict[str, Any]], None]
ERRORS = {"TrainingError": TrainingError, "NeedsError": NeedsError}
"""That mean something to who asks; all others are a ForetasteError there."""


class GivenUp(Exception):
    """Raised inside a training to end a trial that falls behind."""


def check(grid: Grid) -> None:
    """Refuse what a model does not take, in any row and any of its tries, before hours of work on the others."""
    if several():
        raise ConfigError(
            "this is one of several processes that torchrun started, and here each model is trained by one alone: "
            "start it without torchrun, and make several at once with --workers"
        )
    for row in grid.rows:
        window = space_of(row).get("window")
        largest = {"window": max(window.values)} if isinstance(window, OneOf) else {}
        for change in row.tries or ({}, largest):
            mine = {**row.settings, **change}
            wrong = [name for name in ("metric", "seed") if name in mine or name in (mine.get("before") or {})]
            if wrong:
                raise ConfigError(f"row '{row.name}': {wrong[0]} is the table's, the same for every row: take it out")
            try:
                Recommender(row.model, **mine)
            except ConfigError as error:
                raise ConfigError(f"row '{row.name}': {error}") from None
    if any(space_of(row) for row in grid.rows):
        library()


def space_of(row: Row) -> Space:
    """What a search of this row goes through: nothing where its tries are named, or where it is taken as it is.

    What the row settles is left alone, and so is what its optimiser does not have and what says nothing beside the
    settings of its model.
    """
    if row.tries or row.trials == 1:
        return {}
    kind = model_class(row.model)
    optimizer = row.settings.get("optimizer", kind.recipe.get("optimizer", "adam"))
    config = kind.Config.of({name: row.settings[name] for name in row.settings if name in kind.Config.model_fields})
    left = {*row.settings, *config.idle, *(name for name, own in OWN.items() if own != optimizer)}
    return {name: one for name, one in kind.space.items() if name not in left}


class Bench:
    """All that the trials of a cell have in common."""

    def __init__(self, prepared: Prepared, grid: Grid, row: Row, seed: int, place: Place, device: str) -> None:
        self.prepared, self.grid, self.row, self.seed = prepared, grid, row, seed
        self.place, self.device = place, device
        self.asked = words.protocol(grid.choose or grid.ask)

    def recommender(self, change: Settings) -> Recommender:
        """The row with these changes, untrained."""
        settings = {"metric": self.grid.metric, **self.row.settings, **change, "seed": self.seed}
        return Recommender(self.row.model, **settings)

    def folder(self, change: Settings) -> Path:
        """Where its checkpoints lie."""
        return self.place.run(self.row.name, self.seed) / named(change)

    def trial(self, change: Settings, stop: Stop, say: Say, what: str) -> Trial:
        """Train on the training part; measure on the validation part."""
        began, one = time.perf_counter(), self.recommender(change)
        if one.kind.learns == "counts":
            return Trial(dict(change), self._counted(one), seconds=time.perf_counter() - began)
        folder, metric, tell = self.folder(change), self.grid.metric, progress(say, what)
        seen = [entry["validation"][metric] for entry in _passes(folder)]  # made before the trial was cut off

        def report(facts: Mapping[str, Any]) -> None:
            tell(facts)
            if "validation" in facts and "stage" not in facts:
                seen.append(facts["validation"][metric])
                if stop(facts["epoch"], max(seen)):
                    raise GivenUp

        try:
            if seen and stop(len(seen), max(seen)):
                raise GivenUp
            one.fit(self.prepared, protocol=self.asked, refit=False, folder=folder, device=self.device, report=report)
        except GivenUp:
            seconds = spent(folder)
            shutil.rmtree(folder, ignore_errors=True)
            return Trial(dict(change), max(seen), 0, len(seen), seconds, pruned=True)
        assert one.result is not None
        reached = max(entry["validation"][metric] for entry in one.result.history)
        return Trial(dict(change), reached, one.result.best_epoch, one.result.epochs, spent(folder))

    def _counted(self, one: Recommender) -> float:
        one.fit(self.prepared, refit=False)
        found = one.evaluate(self.prepared, protocol=self.asked, part=VALIDATION, cutoffs=self.grid.cutoffs)
        return found.means()[self.grid.metric]


def progress(say: Say, what: str) -> Callable[[Mapping[str, Any]], None]:
    """Training's reports as messages: a few a second, and every finished pass."""
    last = 0.0

    def report(facts: Mapping[str, Any]) -> None:
        nonlocal last
        if "done" not in facts or time.monotonic() - last > 0.3:
            last = time.monotonic()
            share = 1.0 if "done" not in facts else facts["done"] / max(facts["targets"], 1)
            say({"step": what, "epoch": facts["epoch"], "epochs": facts["epochs"], "share": round(share, 3)})

    return report


class Crew:
    """Up to so many processes that make trials; at the end of `with` they are ended.

    Args:
        place, data, row, seed, threads, device: of the cell whose trials they make.
        count: processes.
        say: hears how far they are, from several threads.
    """

    def __init__(
        self, place: Place, data: Path, row: str, seed: int, threads: int, device: str, count: int, say: Say
    ) -> None:
        self.count, self.say = count, say
        command = [sys.executable, "-m", "foretaste.compare.trials", str(place.folder), str(data)]
        self.command: Sequence[str] = [*command, row, str(seed), str(threads), device]
        self.environment = {**WAITING, **os.environ, "OMP_NUM_THREADS": str(threads)}
        self.all: list[subprocess.Popen[str]] = []
        self.free: list[subprocess.Popen[str]] = []
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self.all:
            child.terminate()
            child.wait()

    def trial(self, change: Settings, stop: Stop, number: int) -> Trial:
        """One trial, by whoever is free."""
        child = self._free()
        _send(child, {"number": number, "change": dict(change)})
        assert child.stdout is not None
        for line in child.stdout:
            said = json.loads(line) if line.startswith("{") else {}
            if "asks" in said:
                _send(child, {"stop": stop(said["asks"], said["best"])})
            elif "trial" in said:
                self.free.append(child)
                return read(said["trial"])
            elif "error" in said:
                self.free.append(child)
                raise ERRORS.get(said["error"], ForetasteError)(said["why"])
            elif said:
                self.say(said)
        raise ForetasteError(f"trial {number}: its process {ended(child.wait())}")

    def _free(self) -> subprocess.Popen[str]:
        """One that waits, or a new one: as many are started as are asked for at once."""
        with self.lock:
            if not self.free:
                pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
                self.free.append(subprocess.Popen(self.command, text=True, env=self.environment, **pipes))
                self.all.append(self.free[-1])
            return self.free.pop()


def _send(child: subprocess.Popen[str], what: dict[str, Any]) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(what) + "\n")
        child.stdin.flush()
    except OSError:
        pass  # it is gone, and reading from it will tell


def _passes(folder: Path) -> list[dict[str, Any]]:
    """The passes that were made in a folder: what a run goes on from, which is written before its log."""
    path = folder / "checkpoint.safetensors"
    return list(read_facts(path)["history"]) if path.exists() else []


def main() -> None:
    """Make the trials that are asked for, until nobody asks any more."""
    folder, data, name, seed, threads, device = sys.argv[1:]
    parent, place = os.getppid(), Place(folder)

    def say(facts: dict[str, Any]) -> None:
        if os.getppid() != parent:
            raise SystemExit("who asked for this trial is gone")
        print(json.dumps(facts), flush=True)

    def stop(epoch: int, best: float) -> bool:
        say({"asks": epoch, "best": best})
        answer = sys.stdin.readline()
        if not answer:
            raise SystemExit("who asked for this trial is gone")
        return bool(json.loads(answer)["stop"])

    words.use_threads(int(threads))
    keep_freed()
    grid = place.grid()
    bench = Bench(Prepared.open(Path(data)), grid, grid.row(name), int(seed), place, device)
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        try:
            say({"trial": bench.trial(asked["change"], stop, say, f"trial {asked['number']}").as_dict()})
        except ForetasteError as error:
            say({"error": type(error).__name__, "why": str(error)})


if __name__ == "__main__":
    main()
