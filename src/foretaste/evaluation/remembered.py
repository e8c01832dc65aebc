"""What a figure must not be taken for: events that a recommender remembers are no proof of what it foresees."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

REFITTED = (
    "this recommender was trained on the validation part too (refit): the figures say how well it is remembered, not "
    "what will come"
)
"""Beside figures of the validation part."""
OTHERWISE = (
    "this log is split otherwise than the one that the recommender was trained on: what is asked for may be what it "
    "was trained on"
)
"""Beside figures of any part."""


def remembered(facts: Mapping[str, Any], manifest: Mapping[str, Any], validation: bool) -> tuple[str, ...]:
    """Notes on an evaluation of a recommender, by what it says of its training (`facts`) and the log of itself."""
    data = facts.get("data") or {}
    names = ("split", "validation", "counts")
    apart = any(name in data and _plain(data[name]) != _plain(manifest.get(name)) for name in names)
    refit = validation and bool((facts.get("trained_with") or {}).get("refit"))
    return (*[REFITTED] * refit, *[OTHERWISE] * apart)


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
