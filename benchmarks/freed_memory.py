"""What a step of training costs where freed memory goes back to the system, and where the process keeps it.

    python benchmarks/freed_memory.py [--steps 60]

LSAMN with five drawn items a target, gSASRec with 256, and GRU4Rec with the exact softmax, each on the same random log
of 14,000 items; each in a process of its own, in turn, twice. Processor time is counted, so other programs matter
little: that of the process itself, and that of the system on its behalf, which is where pages are cleared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foretaste import EventLog, Recommender, splits
from foretaste.data.files import write_text
from foretaste.inspection.about import environment
from foretaste.memory import keep_freed
from foretaste.training.objective import Objective

USERS, SESSIONS, LENGTH, ITEMS, WARM = 600, 20, 10, 14_000, 10
MODELS: dict[str, dict[str, Any]] = {
    "lsamn": {"embedding_size": 100, "l2": 0.001, "batch": 256},
    "gsasrec": {"embedding_size": 64, "batch": 512},
    "gru4rec": {"embedding_size": 64, "loss": "softmax", "negatives": 0, "batch": 512},
}
RESULT = Path(__file__).parent / "results" / "freed_memory.json"


def one(model: str, keep: bool, steps: int) -> None:
    """Print what a step takes, and end the process in the middle of its training."""
    torch.set_num_threads(1)
    if keep and not keep_freed():
        raise SystemExit("this system has no such setting, or the environment sets it")
    random, n = np.random.default_rng(0), USERS * SESSIONS * LENGTH
    clicks = {
        "user": np.repeat(np.arange(USERS), SESSIONS * LENGTH),
        "session": np.repeat(np.arange(USERS * SESSIONS), LENGTH),
        "item": random.integers(0, ITEMS, n),
        "time": np.arange(n),
    }
    log = EventLog.read(clicks, **{name: name for name in clicks}).prepare(splits.LastSession())
    usual, done, began = Objective.backward, 0, os.times()

    def counted(self: Objective, *arguments: Any) -> Any:
        nonlocal done, began
        done += 1
        if done == WARM:
            began = os.times()
        if done == WARM + steps:
            now, peak = os.times(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            user, system = (1000 * (b - a) / steps for a, b in zip(began[:2], now[:2], strict=True))
            print(json.dumps({"ms": user, "ms of the system": system, "peak MB": peak}), flush=True)
            os._exit(0)
        return usual(self, *arguments)

    Objective.backward = counted  # type: ignore[method-assign]
    Recommender(model, epochs=100, **MODELS[model]).fit(log)


def main() -> None:
    """Each model both ways, in turn."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--steps", type=int, default=60)
    words.add_argument("--one", nargs=2, metavar=("MODEL", "KEEP"), help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.one:
        one(given.one[0], given.one[1] == "kept", given.steps)
    found: dict[str, Any] = {}
    for model in MODELS:
        for way in ("given back", "kept") * 2:
            made = subprocess.run(
                [sys.executable, __file__, "--one", model, way, "--steps", str(given.steps)],
                check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            found.setdefault(model, {}).setdefault(way, []).append(json.loads(made.stdout.splitlines()[-1]))
            print(model, way, found[model][way][-1])
    write_text(RESULT, json.dumps({"steps": given.steps, "found": found, "made on": environment()[0]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
