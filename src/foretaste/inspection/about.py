"""What a saved recommender, the models, or this machine are like: plain facts, and text."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any

import foretaste

if TYPE_CHECKING:
    from foretaste.models.contract import SequenceModel
    from foretaste.models.saved import Trained

PACKAGES = ("torch", "numpy", "duckdb", "safetensors", "pydantic", "cyclopts")
EXTRAS = ("tables", "tune", "serve", "ann", "viz", "track")
"""What a user may install besides; `docs` and `dev` are for the source tree."""

Found = tuple[dict[str, Any], str]
"""Facts, and the same as text."""


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
        facts[name] = model_facts(kind)
        lines += [f"{name:8} {kind.summary}", f"{'':8} {kind.paper}", f"{'':8} {row_of(kind)}"]
        lines += [f"{'':8} {line}" for line in battery_of(kind)]
        lines += [f"{'':8} {key} = {field.default}" for key, field in kind.Config.model_fields.items()]
        lines += [f"{'':8} searched: {key}, {choice}" for key, choice in kind.space.items()] + [""]
    return facts, "\n".join(lines).rstrip()


def model_facts(kind: type[SequenceModel]) -> dict[str, Any]:
    """One model, as plain values."""
    return {
        "summary": kind.summary,
        "paper": kind.paper,
        "scope": kind.scope,
        "needs": sorted(kind.needs),
        "learns": kind.learns,
        "causal": kind.causal,
        "masters": list(kind.masters),
        "short_of": dict(kind.short_of),
        "not_applicable": dict(kind.not_applicable),
        "settings": {
            key: {"default": field.default, "about": field.description}
            for key, field in kind.Config.model_fields.items()
        },
        "searched": {key: str(choice) for key, choice in kind.space.items()},
    }


def battery_of(kind: type[SequenceModel]) -> list[str]:
    """What the battery holds it to, and what it leaves out, with the reasons."""
    lines = [f"learns the simulated logs {', '.join(kind.masters)}"] if kind.masters else []
    lines += [f"does not master {logs}: {why}" for logs, why in kind.short_of.items()]
    return lines + [f"the battery leaves out its {part}: {why}" for part, why in kind.not_applicable.items()]


def row_of(kind: type[SequenceModel]) -> str:
    """What one row is to a model, and what it needs of a log: with its own settings, and by which others."""
    needs = f", needs {' and '.join(sorted(kind.needs))}" if kind.needs else ""
    by_setting = (kind.__dict__["needs_of"].__func__.__doc__ or "") if "needs_of" in kind.__dict__ else ""
    by_setting = f" (by its settings: {by_setting[0].lower()}{by_setting[1:].rstrip('.')})" if by_setting else ""
    return f"a row is a {kind.scope}{needs}{by_setting}"


def environment() -> Found:
    """Versions and hardware."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    facts: dict[str, Any] = {
        "foretaste": foretaste.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpus,
        **{package: _version(package) for package in PACKAGES},
    }
    extras = {extra: {package: _version(package) for package in packages} for extra, packages in _extras().items()}
    said = {
        f"[{extra}]": ", ".join(f"{package} {there}" for package, there in packages.items())
        for extra, packages in extras.items()
    }
    return {**facts, "extras": extras}, _lines({**facts, "gpu": ", ".join(gpus) or "none", **said})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _extras() -> dict[str, list[str]]:
    """The packages of each extra, as the installed package names them; none if it is not installed."""
    try:
        asked = requires("foretaste") or []
    except PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {extra: [] for extra in EXTRAS}
    for requirement in asked:
        package = re.match(r"[\w.-]+", requirement)
        for extra in re.findall(r"""extra == ["']([\w-]+)["']""", requirement):
            if package and extra in found:
                found[extra].append(package[0])
    return found


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
