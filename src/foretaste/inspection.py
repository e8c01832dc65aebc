"""What a log, a prepared folder, a saved recommender, the models or this machine are like: plain facts, and text."""

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
    from foretaste.data.prepared import Prepared
    from foretaste.models.saved import Trained

PACKAGES = ("torch", "numpy", "duckdb", "safetensors", "pydantic", "cyclopts")
QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}

Found = tuple[dict[str, Any], str]
"""Facts, and the same as text."""


def is_ours(source: str) -> bool:
    """Whether this is a folder without Parquet data files of its own: one that Foretaste wrote, or should have."""
    folder = Path(source)
    written = any((folder / name).exists() for name in ("manifest.json", "recommender.json"))
    return folder.is_dir() and (written or not any(folder.glob("**/*.parquet")))


def inspect_log(log: EventLog) -> Found:
    """A raw log, taken whole."""
    facts = _log_facts(log.prepare(None))
    return {"steps": [vars(step) for step in log.steps], **facts}, f"{log.report()}\n\n{_lines(facts)}"


def inspect_folder(folder: Path) -> Found:
    """A prepared folder or a saved recommender."""
    from foretaste.data.prepared import Prepared
    from foretaste.models.saved import Trained

    if (folder / "recommender.json").exists():
        return trained_facts(Trained.load(folder))
    if (folder / "manifest.json").exists():
        prepared = Prepared.open(folder)
        facts = _log_facts(prepared)
        return {**prepared.manifest, **facts}, f"{prepared.report()}\n\n{_lines(facts)}"
    raise DataError(
        f"{folder}: neither a prepared log (manifest.json) nor a saved recommender (recommender.json), nor has it "
        "Parquet files; for CSV files give one of them, or a pattern such as '*.csv'"
    )


def trained_facts(trained: Trained) -> Found:
    """A trained recommender: its settings, and what it was made from."""
    model, facts = trained.model, trained.facts
    passes = facts.get("history") or []
    best = next((one for one in passes if one["epoch"] == facts.get("passes") and "validation" in one), None)
    made = facts.get("trained_with") or {}
    lines: dict[str, Any] = {
        "model": f"{trained.name}: {type(model).summary}",
        "settings": _pairs(model.config.as_dict()),
        "trained with": _pairs(made),
        "weights": sum(weight.numel() for weight in model.state_dict().values()),
        "items": model.n_items,
        "users": model.n_users,
        "data": facts.get("data", {}).get("split", {}) and facts["data"]["split"]["text"],
        "passes": f"{facts['passes']} of {len(passes)}" if passes and not made.get("refit") else facts.get("passes"),
    }
    if best is not None:
        name = made.get("metric", "recall@20")
        lines["validation"] = f"{name} {100 * best['validation'][name]:.2f} %, in pass {best['epoch']}"
    lines["made with"] = f"Foretaste {facts.get('made_with')}"
    known = {"model": trained.name, "config": model.config.as_dict(), "items": model.n_items, "users": model.n_users}
    return {**known, **facts}, _lines({name: value for name, value in lines.items() if value})


def inspect_models() -> Found:
    """The models that can be trained."""
    from foretaste.models import MODELS, model_class

    facts, lines = {}, []
    for name in MODELS:
        kind = model_class(name)
        facts[name] = {
            "summary": kind.summary,
            "paper": kind.paper,
            "scope": kind.scope,
            "needs": sorted(kind.needs),
            "learns": kind.learns,
            "causal": kind.causal,
            "not_applicable": dict(kind.not_applicable),
            "settings": {
                key: {"default": field.default, "about": field.description}
                for key, field in kind.Config.model_fields.items()
            },
        }
        needs = f", needs {' and '.join(sorted(kind.needs))}" if kind.needs else ""
        lines += [f"{name:8} {kind.summary}", f"{'':8} {kind.paper}", f"{'':8} a row is a {kind.scope}{needs}"]
        lines += [f"{'':8} the battery leaves out its {part}: {why}" for part, why in kind.not_applicable.items()]
        lines += [f"{'':8} {key} = {field.default}" for key, field in kind.Config.model_fields.items()] + [""]
    return facts, "\n".join(lines).rstrip()


def environment() -> Found:
    """Versions and hardware."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    facts: dict[str, Any] = {
        "foretaste": foretaste.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpus,
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "missing"
    return facts, _lines({**facts, "gpu": ", ".join(gpus) or "none"})


def _log_facts(prepared: Prepared) -> dict[str, Any]:
    """Sizes, lengths, repeats and popularity of the events of all parts."""
    log, n_items = prepared.sequences, len(prepared.items)
    items = np.asarray(log.items)
    counts = np.sort(np.bincount(items, minlength=n_items + 1)[1:])[::-1]
    session = np.repeat(np.arange(log.n_sessions, dtype=np.int64), np.diff(log.sessions))
    inside = session[1:] == session[:-1]
    distinct = len(np.unique(session * (n_items + 1) + items))
    head = max(1, n_items // 100)
    facts: dict[str, Any] = {"events": len(log), "items": n_items}
    if prepared.users is not None:
        facts["users"] = int((np.asarray(log.user_numbers) > 0).sum())
        facts["events_of_a_user"] = _spread(np.diff(log.users))
    if "sessions" in prepared.manifest["has"]:
        facts["sessions"] = log.n_sessions
        facts["events_of_a_session"] = _spread(np.diff(log.sessions))
    row = "session" if "sessions" in prepared.manifest["has"] else "history"
    facts |= {
        f"repeats_inside_a_{row}": round(1 - distinct / len(items), 4),
        "immediate_repeats": round(float(((items[1:] == items[:-1]) & inside).sum() / max(inside.sum(), 1)), 4),
        "events_on_the_top_1_percent_of_items": round(float(counts[:head].sum() / len(items)), 4),
        "items_seen_once": int((counts == 1).sum()),
    }
    if log.times is not None:
        times = np.asarray(log.times)
        facts["from"], facts["until"] = (str(np.datetime64(int(moment), "s")) for moment in (times.min(), times.max()))
        facts["seconds_to_the_next_event"] = _spread(np.diff(times)[inside])
    return facts


def _spread(values: NDArray[Any]) -> dict[str, float]:
    if not len(values):
        return {}
    found = np.quantile(values, list(QUANTILES.values()))
    return {"mean": round(float(values.mean()), 2)} | dict(zip(QUANTILES, map(float, found), strict=True))


def _lines(facts: dict[str, Any]) -> str:
    """One line a fact."""
    width = max(map(len, facts)) + 2
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number:,.6g}" for key, number in value.items()) or "none"
        elif isinstance(value, float):
            value = f"{100 * value:.2f} %"
        elif isinstance(value, int):
            value = f"{value:,}"
        lines.append(f"{name.replace('_', ' '):{width}}{value}")
    return "\n".join(lines)


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
