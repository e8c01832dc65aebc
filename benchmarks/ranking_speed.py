"""How fast cases are ranked: full ranking in float32 at DIGINETICA's size, 43,097 items and 60,858 per-step cases.

    python benchmarks/ranking_speed.py

Two figures. `ranking` is scoring and counting alone: queries in, ranks out. `evaluate` is all that a user waits for:
NARM (embedding 64, hidden 128, window 50) over 15,963 generated sessions of DIGINETICA's lengths, from the log to the
ranks. Weights are fresh and items are drawn by Zipf's law; neither changes the work. Each figure is the mean of some
runs after a first one that does not count. Measure on an idle machine: torch's threads wait for each other, so one busy
core can cost a factor of five. Compare with `benchmarks/recbole`, whose figure is RecBole's own `evaluate`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foretaste.data.files import write_text
from foretaste.data.sequences import TEST, Sequences
from foretaste.evaluation.evaluate import evaluate
from foretaste.evaluation.protocols import PerStep
from foretaste.evaluation.ranking import Scorer, rank
from foretaste.models.contract import seeded
from foretaste.models.narm import NARM
from foretaste.models.products import onednn_product, processor

ITEMS, SESSIONS, CASES, DIM = 43_097, 15_963, 60_858, 64
RESULT = Path(__file__).parent / "results" / "ranking_speed.json"


def generated_log() -> Sequences:
    """15,963 test sessions with 60,858 prefixes."""
    rng = np.random.default_rng(0)
    spare = rng.multinomial(CASES - SESSIONS, rng.dirichlet(np.ones(SESSIONS)))
    offsets = np.concatenate([[0], np.cumsum(2 + spare)])
    popularity = 1 / np.arange(1, ITEMS + 1) ** 0.8
    items = rng.choice(np.arange(1, ITEMS + 1), size=offsets[-1], p=popularity / popularity.sum())
    part, nobody = np.full(len(items), TEST, np.uint8), np.zeros(SESSIONS, np.int32)
    return Sequences(items.astype(np.int32), offsets, offsets, part, nobody)


def busy_seconds() -> float:
    """Core-seconds the whole machine has worked since it started; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        user, nice, system, *_ = Path("/proc/stat").read_text().split()[1:]
        return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def mean_of(runs: int, work: Callable[[], None]) -> dict[str, float]:
    """Cases a second over some runs, and how busy others kept the machine meanwhile."""
    work()
    start, busy, own = time.perf_counter(), busy_seconds(), time.process_time()
    for _ in range(runs):
        work()
    spent = time.perf_counter() - start
    others = (busy_seconds() - busy - (time.process_time() - own)) / spent
    figures = {"cases_per_second": round(CASES * runs / spent), "seconds": round(spent / runs, 3)}
    return {**figures, "others_busy_cores": round(max(0.0, others), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure full ranking at DIGINETICA's size.")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--out", type=Path, default=RESULT, help="the JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    log = generated_log()
    cases = PerStep().cases(log)
    assert len(cases) == CASES
    with seeded(0):
        model = NARM(ITEMS, NARM.Config(embedding_size=DIM, hidden_size=128, window=50)).eval()
        queries = torch.randn(CASES, DIM)
    targets = log.items[cases.start].astype(np.int64)

    def ranking() -> None:
        scorer = Scorer(model)
        with torch.inference_mode():
            for first in range(0, CASES, scorer.block):
                block = queries[first : first + scorer.block]
                rank(scorer(block), np.arange(len(block)), targets[first : first + len(block)])

    def whole() -> None:
        evaluate(model, log, cases)

    result: dict[str, Any] = {
        "what": "full ranking in float32, pessimistic and optimistic ranks",
        "items": ITEMS,
        "cases": CASES,
        "dim": DIM,
        "command": "python benchmarks/ranking_speed.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "machine": processor() or platform.machine(),
        "threads": arguments.threads,
        "torch": torch.__version__,
        "product": "oneDNN" if onednn_product() else "torch.mm",
        "ranking": mean_of(arguments.runs, ranking),
        "evaluate": mean_of(arguments.runs, whole),
    }
    for name in ("ranking", "evaluate"):
        found = result[name]
        print(f"{name:<9} {found['cases_per_second']:>7,} cases/s")
        if found["others_busy_cores"] > 0.1:
            print(f"  NOT IDLE: other programs kept {found['others_busy_cores']} cores busy; measure again")
    write_text(arguments.out, json.dumps(result, indent=2) + "\n")
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
