"""What a cell costs: its passes, its memory, an answer, one request at a time; and the machine that it ran on."""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import foretaste
from foretaste.data.prepared import Prepared
from foretaste.models.products import processor
from foretaste.models.saved import Trained

REQUESTS, WARM, K, LONGEST = 200, 10, 20, 200
"""Asked; not counted, before them; items wanted; events of a history at most, the newest."""


def latency(trained: Trained, prepared: Prepared) -> dict[str, float]:
    """Milliseconds an answer: median, p90 and p99 over drawn moments of the log, the whole history sent each time."""
    log, rng = prepared.sequences, np.random.default_rng(0)
    offsets = log.users if trained.model.scope == "user" else log.sessions
    rows = rng.integers(0, len(offsets) - 1, REQUESTS + WARM)
    spent = []
    for row in rows:
        stop = int(rng.integers(offsets[row], offsets[row + 1])) + 1
        start = max(int(offsets[row]), stop - LONGEST)
        given: dict[str, Any] = {"history": prepared.items.raw(log.items[start:stop])}
        if "users" in trained.model.needs and prepared.users is not None:
            owner = int(np.searchsorted(log.users, start, side="right")) - 1
            given["user"] = prepared.users.raw(log.user_numbers[owner : owner + 1])[0]
        if "times" in trained.model.needs and log.times is not None:
            given["times"] = log.times[start:stop].tolist()
        if trained.model.needs & {"times", "sessions"}:  # with times alone they would be cut anew
            given["sessions"] = np.searchsorted(log.sessions, np.arange(start, stop), side="right").tolist()
        began = time.perf_counter()
        trained.recommend(k=min(K, len(prepared.items)), **given)
        spent.append(1000 * (time.perf_counter() - began))
    median, p90, p99 = np.percentile(spent[WARM:], [50, 90, 99])
    return {"median": round(float(median), 3), "p90": round(float(p90), 3), "p99": round(float(p99), 3)}


def spent(folder: Path) -> float:
    """Seconds of all passes made in a folder, with their validation, and of what went before; those before a kill too.

    A refit below it is a training of its own.
    """
    total = 0.0
    for path in folder.rglob("log.jsonl"):
        if "refit" not in path.relative_to(folder).parts:
            passes = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            total += sum(one["seconds"] + one.get("validation_seconds", 0.0) for one in passes)
    return total


def memory(device: str) -> dict[str, int]:
    """The most that this process held, in MB: of the machine's memory, and of the GPU's where it was used."""
    found = {"peak_mb": peak_mb()}
    if torch.device(device).type == "cuda":
        found["gpu_peak_mb"] = torch.cuda.max_memory_allocated(device) // 2**20
    return found


def peak_mb() -> int:
    """The most of the machine's memory that this process held, in MB.

    Linux counts `ru_maxrss` on from what the process that started this one had held; VmHWM begins with the program.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    high = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)  # kB
    if high is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 1024)
    return high // 1024


def made(device: str = "cpu") -> dict[str, Any]:
    """What figures of cost belong to: the machine, and the day."""
    return {"machine": machine(device), "made": datetime.now(UTC).date().isoformat()}


def machine(device: str) -> dict[str, Any]:
    """The processor or GPU, and the versions that decide how fast it is."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if torch.device(device).type == "cuda" else {}
    return {
        "processor": processor() or platform.machine(),
        "cores": os.cpu_count(),
        **gpu,
        "torch": torch.__version__,
        "foretaste": foretaste.__version__,
    }
