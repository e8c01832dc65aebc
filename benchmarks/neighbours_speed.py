"""How fast session neighbours answer at DIGINETICA's size, in batches and one at a time, and what their index takes.

    python benchmarks/neighbours_speed.py [--data FOLDER]

Each model with its default Config, over DIGINETICA's 186,670 training sessions, asked prefixes of its test sessions,
on one core. `batch` is all a prediction takes: neighbours, scores of all 43,097 items, and the best 20. `single` is the
same for one user whose session goes on event by event, through forward, score and the best 20: milliseconds each, by
the clock and (`cpu`) by the work of this process alone. Serenade (SIGMOD 2022), which is written in Rust, reports p90
< 1.7 ms on up to 60 million events. `index_mb` is what the index holds, `peak_mb` what the process took at most.
Measure on an idle machine; the load average is in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

import numpy as np
import torch
from numpy.typing import NDArray

from foretaste.compare.cost import machine, peak_mb
from foretaste.data import datasets
from foretaste.data.files import write_text
from foretaste.data.sequences import TEST, TRAIN, VALIDATION, Sequences
from foretaste.models import model_class
from foretaste.models.contract import Events, SequenceModel, query_length, query_rows
from foretaste.models.rows import take
from foretaste.models.topk import top_k

Ints = NDArray[np.int64]

MODELS = ("s-knn", "vs-knn", "vstan")
K, ROWS, BLOCK = 20, 512, 64
WARM = 200
"""Predictions before the clock runs."""
RESULT = Path(__file__).parent / "results" / "neighbours_speed.json"


def main() -> None:
    """Measure each model and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--sessions", type=int, default=3000, help="test sessions asked, spread over the test part")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prepared = datasets.apply(datasets.recipe("diginetica"), arguments.data)
    log = prepared.sequences
    first = np.flatnonzero(np.asarray(log.part)[log.sessions[:-1]] == TEST)
    first = first[:: max(1, len(first) // arguments.sessions)]
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**machine("cpu"), "threads": 1, "numpy": np.__version__},
        "load_average": list(os.getloadavg()),
        "items": len(prepared.items),
    }
    training = log.of_part(TRAIN, VALIDATION)
    with torch.inference_mode():
        for name in MODELS:
            found[name] = one = measure(name, len(prepared.items), training, log, first)
            print(name, json.dumps(one), flush=True)
    found["load_average_after"] = list(os.getloadavg())
    write_text(arguments.out, json.dumps(found, indent=1) + "\n")


def measure(name: str, n_items: int, training: Sequences, log: Sequences, first: Ints) -> dict[str, Any]:
    """Everything about one model."""
    model = model_class(name)(n_items).eval()
    began = time.perf_counter()
    model.count(training)
    counted = time.perf_counter() - began
    index = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    batches = list(events(log, first))
    whole, busy, asked = batch(model, batches)
    took, worked = single(model, batches)
    return {
        "config": model.config.as_dict(),
        "sessions": training.n_sessions,
        "index_seconds": round(counted, 2),
        "index_mb": round(index / 2**20, 1),
        "batch": {"predictions": asked, "per_second": round(asked / whole), "per_cpu_second": round(asked / busy)},
        "single": {
            "predictions": len(took),
            **{f"p{part}_ms": round(float(np.percentile(took, part)), 3) for part in (50, 90, 99)},
            **{f"p{part}_cpu_ms": round(float(np.percentile(worked, part)), 3) for part in (50, 90, 99)},
        },
        "peak_mb": peak_mb(),
    }


def events(log: Sequences, first: Ints) -> Iterator[Events]:
    """The test sessions without their last event, some at a time, those of like length together."""
    size = np.diff(log.sessions)[first]
    for rows in np.array_split(first[np.argsort(size, kind="stable")], max(1, len(first) // ROWS)):
        yield take(log, log.sessions[rows], log.sessions[rows + 1] - 1)


def batch(model: SequenceModel, batches: list[Events]) -> tuple[float, float, int]:
    """Seconds, seconds of this process, and predictions, of every prefix in batches."""
    asked = 0
    began, worked = time.perf_counter(), time.process_time()
    for some in batches:
        state = model.initial_state(torch.zeros(len(some.items), dtype=torch.int64))
        query, _ = model(some, state, at=some.mask)
        for start in range(0, query_length(query), BLOCK):
            values, _ = top_k(model.score(query_rows(query, slice(start, start + BLOCK))), K)
            asked += len(values)
    return time.perf_counter() - began, time.process_time() - worked, asked


def single(model: SequenceModel, batches: list[Events], sessions: int = 100) -> tuple[list[float], list[float]]:
    """Milliseconds of each prediction, by the clock and of this process: sessions of every batch, event by event."""
    took: list[float] = []
    worked: list[float] = []
    for some in batches:
        for row in range(0, len(some.items), max(1, len(some.items) // sessions)):
            state = model.initial_state(torch.zeros(1, dtype=torch.int64))
            alone = some.rows(slice(row, row + 1))
            for place in range(int(alone.mask.sum())):
                event = alone.cut(place, place + 1)
                began, busy = time.perf_counter(), time.process_time()
                query, state = model(event, state)
                top_k(model.score(query)[:, 0], K)
                worked.append(1000 * (time.process_time() - busy))
                took.append(1000 * (time.perf_counter() - began))
    return took[WARM:], worked[WARM:]


if __name__ == "__main__":
    main()
