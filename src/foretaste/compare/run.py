"""Runs what is missing of a comparison, each cell in a process of its own, and shows how far the whole is."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from foretaste.compare.grid import Grid, Place
from foretaste.data.files import write_text
from foretaste.data.folders import MANIFEST
from foretaste.errors import ConfigError
from foretaste.threads import WAITING
from foretaste.training.progress import clock, tell

Job = tuple[str, int]
"""Row and seed."""


@dataclass(frozen=True)
class How:
    """What is the same for every cell of a run."""

    data: Path
    threads: int
    device: str
    at_once: int
    """Trials of a cell."""
    finished: Callable[[dict[str, Any]], None]
    """Is told of each."""
    lock: int | None
    """The lock of the folder, which each process holds as long as it lives: a killed run leaves them for a moment."""


def run(
    place: Place,
    data: Path,
    *,
    only: Collection[str] = (),
    workers: int = 1,
    threads: int = 1,
    device: str = "cpu",
    out: TextIO | None = None,
    finished: Callable[[dict[str, Any]], None] = lambda cell: None,
    lock: int | None = None,
) -> None:
    """Make every cell that is not there yet; of these rows `only`, where some are named. `lock` is that of `alone`.

    A cell that fails leaves a file that says why, the others go on; failed cells are tried again by the next run.
    `workers` processes are at work at a time, with `threads` threads each: one cell each, and where there are more
    workers than rows that choose among several settings, so many trials of a cell at once as there are workers a row.
    `finished` is told of every cell that is there or gets there, from several threads.
    """
    if workers < 1:
        raise ConfigError(f"workers = {workers}; give at least 1")
    grid = place.grid()
    if only:
        grid = grid.with_(rows=tuple(grid.row(name) for name in only), reference="")
    first, *others = sorted(grid.seeds)
    choosing = sum(row.trials > 1 or len(row.tries) > 1 for row in grid.rows)
    how = How(data, threads, device, max(1, workers // choosing) if choosing else 1, finished, lock)
    board = Board(place, grid, out)
    for job in board.all:
        if (there := place.read(*job)) is not None:
            finished(there)
    for seeds in ((first,), tuple(others)):  # the first seed chooses for the others
        jobs = [(row.name, seed) for seed in seeds for row in grid.rows if place.read(row.name, seed) is None]
        jobs = [job for job in jobs if job[1] == first or place.read(job[0], first) is not None]
        _all(jobs, place, workers, how, board)
    board.close()


def _all(jobs: Sequence[Job], place: Place, workers: int, how: How, board: Board) -> None:
    """Make these cells; an interrupt ends the processes that make them, and nothing else is lost."""
    children: dict[Job, subprocess.Popen[str]] = {}
    stopping = threading.Event()

    def one(job: Job) -> None:
        if not stopping.is_set():
            _one(job, place, how, board, children, stopping)

    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(one, job) for job in jobs]
        try:
            for each in waiting:
                each.result()
        except BaseException:
            stopping.set()
            for child in list(children.values()):
                child.terminate()
            raise


def _one(
    job: Job,
    place: Place,
    how: How,
    board: Board,
    children: dict[Job, subprocess.Popen[str]],
    stopping: threading.Event,
) -> None:
    """One cell, in its process. One that was interrupted is not made yet, and has not failed."""
    row, seed = job
    run = place.run(row, seed)
    log = run.with_name(f"{run.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    failed = place.failure(row, seed)
    failed.unlink(missing_ok=True)
    board.begin(job)
    said: dict[str, Any] = {}
    command = [sys.executable, "-m", "foretaste.compare.cell", str(place.folder), str(how.data), row, str(seed)]
    command += [str(how.threads), how.device, str(how.at_once)]
    environment = {**WAITING, **os.environ, "OMP_NUM_THREADS": str(how.threads)}
    with log.open("w") as errors:
        held = () if how.lock is None else (how.lock,)
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, pass_fds=held
        )
        children[job] = child
        if stopping.is_set():  # since this cell was begun: whoever ends the others has not seen it
            child.terminate()
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("{"):
                said = json.loads(line)
                board.heard(job, said)
        code = child.wait()
    del children[job]
    if (cell := place.read(row, seed)) is not None:
        log.unlink(missing_ok=True)
        board.end(job, "")
        how.finished(cell)
        return
    if stopping.is_set() or code == -signal.SIGINT:
        log.unlink(missing_ok=True)
        board.end(job, "interrupted")
        return
    why = _why(said, code, log)
    write_text(
        failed, json.dumps({"row": row, "seed": seed, "refused": "refused" in said, "why": why}, indent=1) + "\n"
    )
    board.end(job, why)


def _why(said: Mapping[str, Any], code: int, log: Path) -> str:
    """Why a cell is not there: its own last word, or how its process ended. The log stays if it says more."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    if "refused" in said or not lines:
        log.unlink(missing_ok=True)
        return str(said.get("refused") or said.get("failed") or f"its process {ended(code)}")
    if "failed" in said:
        return f"{said['failed']} (its process said more: {log})"
    return f"{lines[-1] if code >= 0 else f'its process {ended(code)}'} (the whole story: {log})"


def ended(code: int) -> str:
    """How a process ended, by its exit status."""
    if code >= 0:
        return f"ended with exit status {code}"
    name = signal.Signals(-code).name
    return f"was ended by {name}{', perhaps for want of memory' if name == 'SIGKILL' else ''}"


class Board:
    """The progress of the whole: one live line on a terminal, one line a cell anywhere else."""

    def __init__(self, place: Place, grid: Grid, out: TextIO | None = None) -> None:
        self.place, self.grid = place, grid
        self.out = out if out is not None else sys.stderr
        self.live, self.drawn = self.out.isatty(), 0.0
        self.began: dict[Job, float] = {}
        self.doing: dict[Job, str] = {}
        self.lock = threading.Lock()
        self.spent: dict[str, list[float]] = defaultdict(list)
        """Of each row: seconds of its first seed, and of another, which tries one setting."""
        self.all = [(row.name, seed) for row in grid.rows for seed in grid.seeds]
        self.done = {job for job in self.all if self._remember(job)}
        if self.done:
            self._print(f"{len(self.done)} of {len(self.all)} cells are there already")

    def _remember(self, job: Job) -> bool:
        cell = self.place.read(*job)
        if cell is not None:
            total, tries = sum(cell["seconds"].values()), max(len(cell["tried"]), 1)
            others = total - cell["seconds"].get("tuning", 0.0) * (1 - 1 / tries)
            self.spent[job[0]] += [total, others] if job[1] == min(self.grid.seeds) else [total]
        return cell is not None

    def begin(self, job: Job) -> None:
        """A cell was begun."""
        with self.lock:
            self.began[job], self.doing[job] = time.monotonic(), "starting"

    def heard(self, job: Job, said: dict[str, Any]) -> None:
        """A message from the process that makes a cell."""
        if "step" not in said:
            return
        passes = f" pass {said['epoch']}/{said['epochs']} {said['share']:4.0%}" if "epoch" in said else ""
        with self.lock:
            self.doing[job] = said["step"] + passes
            if self.live and time.monotonic() - self.drawn > 0.2:
                self.drawn = time.monotonic()
                self.out.write(f"\r\033[K{self.line()}")
                self.out.flush()

    def end(self, job: Job, why: str) -> None:
        """A cell is finished, or failed."""
        with self.lock:
            took = time.monotonic() - self.began.pop(job)
            self.doing.pop(job)
            self.done.add(job)
            cell = self.place.read(*job)
            if cell is None:
                what = f"failed: {why}"
            else:
                self._remember(job)
                metric = self.grid.show[0]
                what = f"{metric} {100 * cell['test']['metrics'][metric]['value']:.2f} %"
            left = self.left()
            self._print(
                f"[{len(self.done)}/{len(self.all)}] {job[0]}, seed {job[1]}: {what}, in {clock(took)}"
                + (f"; about {clock(left)} left" if left else "")
            )

    def line(self) -> str:
        """`3/36 done; narm, seed 0: trial 2 pass 3/30  41 %; about 12:30 left`"""
        doing = "; ".join(f"{row}, seed {seed}: {what}" for (row, seed), what in self.doing.items())
        left = self.left()
        return f"{len(self.done)}/{len(self.all)} done; {doing}" + (f"; about {clock(left)} left" if left else "")

    def left(self) -> float:
        """Seconds that the missing cells will take, by those that are finished; 0 if nothing is known."""
        first = min(self.grid.seeds)
        whole = [spent[0] for spent in self.spent.values()]
        if not whole:
            return 0.0
        mean, total = sum(whole) / len(whole), 0.0
        for row, seed in self.all:
            if (row, seed) not in self.done:
                known = self.spent.get(row)
                total += (known[0 if seed == first else -1]) if known else mean
        running = sum(time.monotonic() - began for began in self.began.values())
        return max(total - running, 0.0) / max(len(self.began), 1)

    def close(self) -> None:
        """The live line goes."""
        if self.live:
            self.out.write("\r\033[K")
            self.out.flush()

    def _print(self, text: str) -> None:
        tell(f"\r\033[K{text}" if self.live else text, self.out)


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that is something else."""
    if any((folder / name).exists() for name in (MANIFEST, "recommender.json")):
        raise ConfigError(f"{folder}: holds a prepared log or a recommender; give the comparison a folder of its own")


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Two runs in one folder would make the same cells, and write in one grid and one journal of a search.

    What is refused before anything is made leaves no folder behind.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{folder}: another run is at work here; wait for it, or choose another folder") from None
        try:
            yield file.fileno()
        finally:
            if new and [one.name for one in folder.glob("*")] == ["lock"]:  # tune may have taken it away
                (folder / "lock").unlink()
                folder.rmdir()
