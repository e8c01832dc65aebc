"""Foretaste: next-item recommendation, from a raw log to an honest number and a live answer.

    from foretaste import EventLog, Recommender

    log = EventLog.read("clicks.csv", session="session_id", item="item_id", time="timestamp")
    recommender = Recommender("narm").fit(log)
    recommender.recommend(["item 7", "item 12"], k=10)

Every name below is imported when it is first used, so `import foretaste` itself is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretaste.data import splits
    from foretaste.data.events import EventLog
    from foretaste.data.prepared import Prepared
    from foretaste.data.simulate import known, shop
    from foretaste.errors import ForetasteError
    from foretaste.evaluation import protocols
    from foretaste.evaluation.evaluate import Evaluation, evaluate
    from foretaste.recommender import Recommender
    from foretaste.serving.client import Client

__version__ = "0.1.0"

_HOMES = {
    "EventLog": "foretaste.data.events",
    "Prepared": "foretaste.data.prepared",
    "splits": "foretaste.data.splits",
    "known": "foretaste.data.simulate",
    "shop": "foretaste.data.simulate",
    "Recommender": "foretaste.recommender",
    "protocols": "foretaste.evaluation.protocols",
    "evaluate": "foretaste.evaluation.evaluate",
    "Evaluation": "foretaste.evaluation.evaluate",
    "Client": "foretaste.serving.client",
    "ForetasteError": "foretaste.errors",
}

__all__ = [  # noqa: RUF022 (in the order of use)
    "EventLog",
    "Prepared",
    "splits",
    "shop",
    "known",
    "Recommender",
    "protocols",
    "evaluate",
    "Evaluation",
    "Client",
    "ForetasteError",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'foretaste' has no attribute '{name}'")
    module = import_module(_HOMES[name])
    return module if name in ("splits", "protocols") else getattr(module, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
