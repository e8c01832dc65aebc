"""Recommendations for a person to read: with titles where the log has them, and with the events that weighed most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretaste.models.histories import History
    from foretaste.recommender import Recommender

REASONS = 3
"""Events named as reasons."""


class Titles:
    """What to call an item: its title, or its id."""

    def __init__(self, recommender: Recommender) -> None:
        items = recommender.trained.items
        self.of = dict(zip(items.ids, items.columns.get("title", items.ids), strict=True))

    def __getitem__(self, raw: Any) -> str:
        title = self.of.get(raw)
        return on_one_line(raw if title is None else title)


def on_one_line(value: Any) -> str:
    """A value as text; what would break the line is written as an escape."""
    text = str(value)
    return text if text.isprintable() else repr(text)


def answered(
    recommender: Recommender, history: History, k: int, *, explain: bool = True, leave_out_seen: bool = False
) -> tuple[dict[str, Any], str]:
    """The best `k` items after a history, as plain facts and as text."""
    found = recommender.recommend(history, k, leave_out_seen=leave_out_seen)
    reasons = recommender.explain(history) if explain else {}
    title = Titles(recommender)
    lines = [f"{place:3}. {title[raw]}  ({score:.3f})" for place, (raw, score) in enumerate(found, start=1)]
    if len(found) < k:
        lines.append(f"No more than {len(found):,} of the {len(title.of):,} known items can be recommended here.")
    if found.skipped:
        lines.append(f"Not known, left out of the history: {', '.join(map(on_one_line, found.skipped))}.")
    if explain:
        lines += ["", *_because(reasons, title)]
    facts = {
        "k": k,
        "items": found.ids,
        "titles": [title[raw] for raw in found.ids],
        "scores": found.scores,
        "skipped": found.skipped,
        "because": {name: [list(pair) for pair in weights] for name, weights in reasons.items()},
    }
    return facts, "\n".join(lines)


def _because(reasons: dict[str, list[tuple[Any, float]]], title: Titles) -> list[str]:
    if not reasons:
        return ["Nothing in this history explains the list."]
    lines = []
    for name, weights in reasons.items():
        most = sorted(weights, key=lambda pair: -pair[1])[:REASONS]
        lines.append(f"The past events that weighed most ({name}):")
        lines += [f"{weight:6.0%}  {title[raw]}" for raw, weight in most]
    return lines
