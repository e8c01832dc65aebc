"""What a person sees while a model trains: one live line on a terminal, one line a pass anywhere else."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO


class Live:
    """Prints the reports of a training run; give it as `report`.

    On a terminal the line of the running pass is redrawn up to five times a second: pass, share done, loss, targets a
    second, time left for the pass. Elsewhere (a file, a pipe) only finished passes are printed.
    """

    def __init__(self, metric: str = "recall@20", out: TextIO | None = None) -> None:
        self.metric = metric
        self.out = out if out is not None else sys.stderr
        self.live = self.out.isatty()
        self.drawn = 0.0

    def __call__(self, facts: Mapping[str, Any]) -> None:
        """One report of the loop: a step, or a finished pass."""
        if "done" not in facts:
            self._line(finished_line(facts, self.metric))
        elif self.live and time.monotonic() - self.drawn > 0.2:
            self.drawn = time.monotonic()
            print(f"\r\033[K{running_line(facts)}", end="", file=self.out, flush=True)

    def _line(self, text: str) -> None:
        tell(f"\r\033[K{text}" if self.live else text, self.out)


def tell(text: str, out: TextIO) -> None:
    """A line for whoever reads along; that nobody does any more (a closed pipe) is no reason to stop the work."""
    try:
        print(text, file=out, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def together(*reports: Callable[[Mapping[str, Any]], None]) -> Callable[[Mapping[str, Any]], None]:
    """One report that tells all of these."""

    def report(facts: Mapping[str, Any]) -> None:
        for one in reports:
            one(facts)

    return report


class Ranked:
    """How many cases are ranked: a live line on a terminal, nothing elsewhere; give it as `progress`."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out if out is not None else sys.stderr
        self.live = self.out.isatty()
        self.drawn = 0.0

    def __call__(self, done: int, all_cases: int) -> None:
        """One block was ranked."""
        if self.live and (done == all_cases or time.monotonic() - self.drawn > 0.2):
            self.drawn = time.monotonic()
            line = "" if done == all_cases else f"ranked {done:,} of {all_cases:,} cases"
            print(f"\r\033[K{line}", end="", file=self.out, flush=True)


def running_line(facts: Mapping[str, Any]) -> str:
    """`pass 2/8  [#######.............]  35 %  loss 5.612  11,204 targets/s  0:21 left`"""
    share = min(facts["done"] / max(facts["targets"], 1), 1.0)
    rate = facts["done"] / max(facts["seconds"], 1e-9)
    left = (facts["targets"] - facts["done"]) / max(rate, 1e-9)
    bar = "#" * round(20 * share)
    return (
        f"{_pass(facts)}  [{bar:.<20}] {share:4.0%}  loss {facts['loss']:.3f}  "
        f"{rate:,.0f} targets/s  {clock(left)} left"
    )


def finished_line(facts: Mapping[str, Any], metric: str) -> str:
    """`pass 2/8  loss 5.601  33 s  11,207 targets/s  recall@20 0.6931  (best so far)`"""
    line = (
        f"{_pass(facts)}  loss {facts['loss']:.3f}  {facts['seconds']:.0f} s  "
        f"{facts['targets_per_second']:,.0f} targets/s"
    )
    if "validation" in facts:
        line += f"  {metric} {facts['validation'][metric]:.4f}"
        line += "  (best so far)" if facts["best_epoch"] == facts["epoch"] else f"  (best: pass {facts['best_epoch']})"
    return line


def _pass(facts: Mapping[str, Any]) -> str:
    """`pass 2/8`, and of which training, where one goes before another."""
    stage = f"{facts['stage']}: " if "stage" in facts else ""
    return f"{stage}pass {facts['epoch']}/{facts['epochs']}"


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
