"""Training speed of GRU4Rec, at the sizes at which benchmarks/recbole measures RecBole's GRU4Rec.

    python benchmarks/gru4rec_speed.py [--data FOLDER] [--seconds 60] [--recbole FILE]

DIGINETICA, 43,097 items; D = 64, H = 128, one layer; with one torch thread and with two. Exact cross-entropy over all
items on whole sessions (512 prefixes a step, as RecBole has) and on 32 and 256 session-parallel rows; and BPR-max
against the step's other targets and 2,048 drawn items, as GRU4Rec's authors train. Each row has a fresh process and is
stopped after some seconds, or one pass; the first five steps are not timed. `--recbole FILE` puts what
`benchmarks/recbole/measure.py --model GRU4Rec` wrote beside it. The machine must be idle: how many cores others kept
busy is measured and stands beside each figure.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretaste.threads import WAITING

os.environ.update({**WAITING, **os.environ})  # before torch is loaded

from foretaste.data.files import write_text
from training_speed import _clock, _others

SIZES = {"embedding_size": 64, "hidden_size": 128, "chunk": 50, "batch": 512, "epochs": 1}
BPR_MAX = {"loss": "bpr_max", "sampler": "batch", "negatives": 2048, "exclude_touched": False}
ROWS: Mapping[str, Mapping[str, Any]] = {
    "softmax whole": {},
    "softmax parallel-32": {"parallel": 32},
    "softmax parallel-256": {"parallel": 256},
    "bpr_max whole": BPR_MAX,
    "bpr_max parallel-32": {**BPR_MAX, "parallel": 32},
    "bpr_max parallel-256": {**BPR_MAX, "parallel": 256},
}
WARM_UP = 5
"""Steps before the clock starts."""
RESULT = Path(__file__).parent / "results" / "gru4rec_speed.json"


def main() -> None:
    """Measure each row in a process of its own and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--recbole", type=Path)
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(ROWS[arguments.row], arguments.data, arguments.threads, arguments.seconds)))
        return
    from foretaste.compare.cost import made

    result: dict[str, Any] = {
        "command": "python benchmarks/gru4rec_speed.py --recbole FILE",
        **made(),
        "sizes": SIZES,
    }
    for row, threads in itertools.product(ROWS, (1, 2)):
        command = [sys.executable, __file__, "--row", row, "--data", str(arguments.data), "--threads", str(threads)]
        done = subprocess.run([*command, "--seconds", str(arguments.seconds)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{row}: {done.stderr.strip().splitlines()[-1]}")
        name = f"{row}, {threads} threads"
        result[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, json.dumps(result[name]), flush=True)
        if result[name]["others_busy_cores"] > 0.1:
            print(f"{name}: NOT IDLE, this figure does not count", flush=True)
    if arguments.recbole:
        result["recbole"] = json.loads(arguments.recbole.read_text())
        theirs = result["recbole"]["logs"]["diginetica"]["train"]["prefixes_per_second"]
        for row in ROWS:
            found = result[f"{row}, {result['recbole']['torch_threads']} threads"]
            found["times_recbole"] = round(found["prefixes_per_second"] / theirs, 2)
    write_text(arguments.out, json.dumps(result, indent=1) + "\n")


class Enough(Exception):
    """The time is up."""


def measure(change: Mapping[str, Any], data: Path, threads: int, seconds: float) -> dict[str, Any]:
    """Prefixes a second in training, peak memory, and what others used of the cores."""
    import torch

    from foretaste.compare.cost import peak_mb
    from foretaste.data import datasets
    from foretaste.data.sequences import TRAIN, VALIDATION
    from foretaste.recommender import Recommender
    from foretaste.training.loop import train

    torch.set_num_threads(threads)
    prepared = datasets.apply(datasets.recipe("diginetica"), data)
    recommender = Recommender("gru4rec", **{**SIZES, **change})
    model, training = recommender._new(prepared), prepared.sequences.of_part(TRAIN, VALIDATION)
    steps: list[tuple[float, int]] = []
    before = _clock()

    def report(facts: Mapping[str, Any]) -> None:
        nonlocal before
        if "done" not in facts:
            return
        steps.append((time.perf_counter(), facts["done"]))
        if len(steps) == WARM_UP:
            before = _clock()
        if len(steps) > WARM_UP and steps[-1][0] - steps[WARM_UP - 1][0] > seconds:
            raise Enough

    whole_pass = True
    try:
        train(model, training, recommender.training, report=report)
    except Enough:
        whole_pass = False
    others = _others(before)
    (began, first), (ended, last) = steps[WARM_UP - 1], steps[-1]
    return {
        "items": model.n_items,
        "prefixes": last - first,
        "prefixes_per_second": round((last - first) / (ended - began), 1),
        "steps_per_second": round((len(steps) - WARM_UP) / (ended - began), 1),
        "whole_pass": whole_pass,
        "others_busy_cores": others,
        "peak_mb": peak_mb(),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
