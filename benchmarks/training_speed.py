"""Training and ranking speed of NARM, at the sizes at which benchmarks/recbole measures RecBole's NARM.

    python benchmarks/training_speed.py [--data FOLDER] [--log ml-100k|diginetica] [--recbole FILE]

D = 64, H = 128, 512 prefixes a step, window 50 (gradients flow through 50 events, in RecBole too), exact float32
softmax over all items; with one torch thread and with two. One pass over the training prefixes is timed (preparation
apart), then full rankings of the test cases, again and again for five seconds, as RecBole's are. Each run has a fresh
process, so its peak of memory is its own. `--recbole FILE` puts the figures of benchmarks/recbole into the same
result. The machine must be idle: how many cores others kept busy is measured and stands beside each figure; above 0.1
the figure does not count, and a line says so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foretaste.threads import WAITING

os.environ.update({**WAITING, **os.environ})  # before torch is loaded

from foretaste.data.files import write_text

SIZES = {"embedding_size": 64, "hidden_size": 128, "window": 50, "chunk": 50, "batch": 512, "epochs": 1}
RESULT = Path("benchmarks/results/training_speed.json")


def main() -> None:
    """Measure each log in a process of its own and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--log", choices=["ml-100k", "diginetica"])
    parser.add_argument("--recbole", type=Path)
    arguments = parser.parse_args()
    if arguments.log:
        print(json.dumps(measure(arguments.log, arguments.data, arguments.threads)))
        return
    from foretaste.compare.cost import made

    result: dict[str, Any] = {
        "command": "python benchmarks/training_speed.py --recbole FILE",
        **made(),
        "sizes": SIZES,
    }
    for log, threads in itertools.product(("ml-100k", "diginetica"), (1, 2)):
        command = [sys.executable, __file__, "--log", log, "--data", str(arguments.data), "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        name = f"{log}, {threads} threads"
        result[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, json.dumps(result[name]), flush=True)
        if max(result[name]["others_busy_cores_training"], result[name]["others_busy_cores_ranking"]) > 0.1:
            print(f"{name}: NOT IDLE, these figures do not count", flush=True)
    if arguments.recbole:
        result["recbole"] = json.loads(arguments.recbole.read_text())
    write_text(RESULT, json.dumps(result, indent=1) + "\n")


def measure(name: str, data: Path, threads: int) -> dict[str, Any]:
    """Prefixes a second in training, cases a second in ranking, peak memory, and what others used of the cores."""
    import torch

    from foretaste.compare.cost import peak_mb
    from foretaste.data import datasets
    from foretaste.data.sequences import TRAIN, VALIDATION
    from foretaste.data.splits import LastItem
    from foretaste.evaluation.evaluate import evaluate
    from foretaste.evaluation.protocols import PerStep
    from foretaste.recommender import Recommender
    from foretaste.training.loop import train

    torch.set_num_threads(threads)
    began = time.perf_counter()
    recipe = datasets.recipe(name)
    if name == "ml-100k":
        source = data / "ml-100k.parquet"
        prepared = datasets.log(recipe, source).prepare(LastItem(), None)
    else:
        prepared = datasets.apply(recipe, data)
    preparation = time.perf_counter() - began
    recommender = Recommender("narm", **SIZES)
    model = recommender._new(prepared)
    training = prepared.sequences.of_part(TRAIN, VALIDATION)
    before = _clock()
    result = train(model, training, recommender.training)
    others = _others(before)
    cases = PerStep().cases(prepared.sequences)
    before = _clock()
    ranking = _timed(lambda: evaluate(model, prepared.sequences, cases))
    return {
        "items": model.n_items,
        "prefixes": len(training) - training.n_sessions,
        "training_prefixes_per_second": result.history[0]["targets_per_second"],
        "training_seconds": result.history[0]["seconds"],
        "others_busy_cores_training": others,
        "ranking_cases": len(cases),
        "ranking_cases_per_second": round(len(cases) / ranking, 1),
        "others_busy_cores_ranking": _others(before),
        "preparation_seconds": round(preparation, 2),
        "peak_mb": peak_mb(),
        "threads": torch.get_num_threads(),
    }


def _timed(call: Callable[[], object], seconds: float = 5.0) -> float:
    """Mean seconds a call, of as many as fill the time."""
    began, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - began < seconds:
        call()
        calls += 1
    return (time.perf_counter() - began) / calls


def _clock() -> tuple[float, float, float]:
    """Now: wall time, busy seconds of all cores, own CPU seconds."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    ticks = [int(word) for word in words[:8]]
    busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), busy, time.process_time()


def _others(before: tuple[float, float, float]) -> float:
    """Cores that other processes kept busy since `before`."""
    now = _clock()
    wall, busy, own = (b - a for a, b in zip(before, now, strict=True))
    return round(max(busy - own, 0.0) / wall, 2)


if __name__ == "__main__":
    main()
