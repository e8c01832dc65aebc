"""What a log, a prepared folder, a saved recommender or this machine is like, as plain facts and as text."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import foretaste
from foretaste.errors import DataError

if TYPE_CHECKING:
    from foretaste.data.events import EventLog
    from foretaste.data.sequences import Sequences

PACKAGES = ("torch", "numpy", "duckdb", "safetensors", "pydantic", "cyclopts")
QUANTILES = (0.5, 0.9, 0.99, 1.0)


def inspect_log(log: EventLog) -> tuple[dict[str, Any], str]:
    """Facts and text about a raw log, taken whole."""
    prepared = log.prepare(None)
    facts = {"steps": [vars(step) for step in log.steps], **_sequence_facts(prepared.sequences, len(prepared.items))}
    return facts, f"{log.report()}\n\n{_as_text(facts)}"


def inspect_folder(folder: Path) -> tuple[dict[str, Any], str]:
    """Facts and text about a prepared folder or a saved recommender."""
    from foretaste.data.prepared import Prepared
    from foretaste.models.saved import Trained

    if (folder / "recommender.json").exists():
        trained = Trained.load(folder)
        facts = {"model": trained.name, "config": trained.model.config.as_dict(), **trained.facts}
        return facts, "\n".join(f"{name:14} {value}" for name, value in facts.items())
    if (folder / "manifest.json").exists():
        prepared = Prepared.open(folder)
        facts = _sequence_facts(prepared.sequences, len(prepared.items))
        return {**prepared.manifest, **facts}, f"{prepared.report()}\n\n{_as_text(facts)}"
    raise DataError(f"{folder}: neither a prepared log (manifest.json) nor a recommender (recommender.json); name a log")


def environment() -> dict[str, str]:
    """Versions and hardware."""
    import torch

    facts = {
        "foretaste": foretaste.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "missing"
    return facts


def _sequence_facts(log: Sequences, n_items: int) -> dict[str, Any]:
    """Sizes, lengths, repeats and popularity of a log in flat arrays."""
    items = np.asarray(log.items)
    lengths, per_user = np.diff(log.sessions), np.diff(log.users)
    counts = np.sort(np.bincount(items, minlength=n_items + 1)[1:])[::-1]
    session = np.repeat(np.arange(log.n_sessions, dtype=np.int64), lengths)
    distinct = len(np.unique(session * (n_items + 1) + items))
    same = items[1:] == items[:-1]
    inside = session[1:] == session[:-1]
    head = max(1, n_items // 100)
    facts: dict[str, Any] = {
        "events": len(log),
        "users": int((np.asarray(log.user_numbers) > 0).sum()),
        "sessions": log.n_sessions,
        "items": n_items,
        "events_a_session": _quantiles(lengths),
        "events_a_user": _quantiles(per_user),
        "share_repeated_in_session": round(1 - distinct / max(len(items), 1), 4),
        "share_immediate_repeats": round(float((same & inside).sum() / max(inside.sum(), 1)), 4),
        "share_of_events_on_top_1_percent_of_items": round(float(counts[:head].sum() / max(counts.sum(), 1)), 4),
        "items_seen_once": int((counts == 1).sum()),
    }
    if log.times is not None and len(log):
        times = np.asarray(log.times)
        facts["from"], facts["until"] = (str(np.datetime64(int(t), "s")) for t in (times.min(), times.max()))
        facts["seconds_to_next_event"] = _quantiles(np.diff(times)[inside])
    return facts


def _quantiles(values: NDArray[Any]) -> dict[str, float]:
    if not len(values):
        return {}
    found = {"mean": round(float(values.mean()), 2)}
    names = ("median", "p90", "p99", "max")
    return found | {n: float(v) for n, v in zip(names, np.quantile(values, QUANTILES), strict=True)}


def _as_text(facts: dict[str, Any]) -> str:
    lines = []
    for name, value in facts.items():
        if name == "steps":
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number:,.6g}" for key, number in value.items())
        elif isinstance(value, int):
            value = f"{value:,}"
        lines.append(f"{name.replace('_', ' '):44} {value}")
    return "\n".join(lines)
