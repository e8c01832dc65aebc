"""Training speed by processes: one with one thread, one with two threads, two with one thread each (torchrun).

    python benchmarks/processes_speed.py [--data FOLDER]

One pass of the models named below over MovieLens-100K, one row a user, after a pass that warms up; targets a second,
with 512 and with 4,096 targets a step: each step, the processes add up their gradients. The machine must be idle.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from foretaste.threads import WAITING

os.environ.update({**WAITING, **os.environ})  # before torch is loaded

from foretaste.data.files import write_text

MODELS = ("narm", "gru4rec", "sasrec", "dman", "nextitnet")
WAYS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}
RESULT = Path("benchmarks/results/processes_speed.json")


def main() -> None:
    """Measure each way with processes of its own and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "BATCH", "THREADS"), help="what one process measures")
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.data, arguments.one[0], int(arguments.one[1]), int(arguments.one[2]))
        return
    from foretaste.compare.cost import made

    result: dict[str, Any] = {"command": "python benchmarks/processes_speed.py", **made(), "unit": "targets a second"}
    for model in MODELS:
        for batch in (512, 4096):
            name = f"{model}, {batch} targets a step"
            result[name] = {way: _run(arguments.data, model, batch, *WAYS[way]) for way in WAYS}
            print(name, json.dumps(result[name]), flush=True)
    write_text(RESULT, json.dumps(result, indent=1) + "\n")


def _run(data: Path, model: str, batch: int, processes: int, threads: int) -> float:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += [__file__, "--data", str(data), "--one", model, str(batch), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def measure(data: Path, model: str, batch: int, threads: int) -> None:
    """Prints targets a second of the second pass, from the first process alone."""
    import torch

    from foretaste.data import datasets
    from foretaste.data.sequences import TRAIN
    from foretaste.data.splits import LastItem
    from foretaste.recommender import Recommender
    from foretaste.training.group import first
    from foretaste.training.loop import train

    torch.set_num_threads(threads)
    prepared = datasets.log(datasets.recipe("ml-100k"), data / "ml-100k.parquet").prepare(LastItem(), None)
    recommender = Recommender(model, batch=batch, chunk=200, epochs=2, loss="softmax", negatives=0, l2=0)
    training = prepared.sequences.of_part(TRAIN)
    untrained = recommender._new(prepared)
    untrained.count(training)
    result = train(untrained, training, recommender.training)
    if first():
        print(result.history[1]["targets_per_second"])


if __name__ == "__main__":
    main()
