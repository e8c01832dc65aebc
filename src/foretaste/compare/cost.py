"""What an answer costs: one request at a time, from a history of raw ids to twenty recommendations."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from foretaste.data.prepared import Prepared
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
        if "sessions" in trained.model.needs:
            given["sessions"] = np.searchsorted(log.sessions, np.arange(start, stop), side="right").tolist()
        began = time.perf_counter()
        trained.recommend(k=min(K, len(prepared.items)), **given)
        spent.append(1000 * (time.perf_counter() - began))
    median, p90, p99 = np.percentile(spent[WARM:], [50, 90, 99])
    return {"median": round(float(median), 3), "p90": round(float(p90), 3), "p99": round(float(p99), 3)}
