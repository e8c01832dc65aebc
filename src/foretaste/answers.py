"""Recommendations for a person to read: with titles where the log has them, and with the events that weighed most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretaste.models.histories import History
    from foretaste.recommender import Recommender

REASONS = 3
"""Events named as reasons; of many numbers, those that are shown."""
FEW = 8
"""So many numbers are shown whole."""


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
    return text if text.isprintable() and text.strip() else repr(text)


def answered(
    recommender: Recommender,
    history: History,
    k: int,
    *,
    explain: bool = True,
    leave_out_seen: bool = False,
    **beside: Any,
) -> tuple[dict[str, Any], str]:
    """The best `k` items after a history, as plain facts and as text; `beside` it its user, times and sessions."""
    found = recommender.recommend(history, k, leave_out_seen=leave_out_seen, **beside)
    reasons = recommender.explain(history, item=found.ids[0] if found.ids else None, **beside) if explain else {}
    title = Titles(recommender)
    lines = [f"{place:3}. {title[raw]}  ({score:.3f})" for place, (raw, score) in enumerate(found, start=1)]
    if len(found) < k:
        lines.append(f"No more than {len(found):,} of the {len(title.of):,} known items can be recommended here.")
    if not len(history) and beside.get("user") is not None and not recommender.trained.model.n_users:
        lines.append("No history was given, and this model knows no users: this is the answer to somebody new.")
    elif found.skipped and len(found.skipped) == len(history):
        lines.append("Nothing of the history is known: this is the answer to an empty one.")
    elif found.skipped:
        lines.append(f"Not known, left out of the history: {', '.join(map(on_one_line, found.skipped))}.")
    users, user = recommender.trained.users, beside.get("user")
    if user is not None and users is not None and not users.number(user):
        lines.append(f"User {on_one_line(user)} was not in training: this is the answer to somebody new.")
    if explain:
        lines += ["", *_because(reasons, title)]
    facts = {
        "k": k,
        "items": found.ids,
        "titles": [title[raw] for raw in found.ids],
        "scores": found.scores,
        "skipped": found.skipped,
        "because": {name: _plain(reason) for name, reason in reasons.items()},
    }
    return facts, "\n".join(lines)


def _because(reasons: dict[str, Any], title: Titles) -> list[str]:
    """The events that weighed most, and the model's gates and memories by name."""
    weights, lines = reasons.get("attention"), []
    if weights:
        most = sorted(weights, key=lambda pair: -abs(pair[1]))[:REASONS]
        shares = min(weight for _, weight in weights) >= 0 and sum(weight for _, weight in weights) < 1.001
        said = "{:6.0%}" if shares else "{:+9.3f}"  # weights of a model that does not make shares of them
        lines = [
            "The past events that weighed most:",
            *(f"{said.format(weight)}  {title[raw]}" for raw, weight in most),
        ]
    beside = [line for name, value in reasons.items() if name != "attention" for line in _told(name, value)]
    if beside:
        lines += ["What else the answer rests on:" if lines else "What the answer rests on:", *beside]
    return lines or ["Nothing in this history explains the list."]


def _told(name: str, value: Any) -> list[str]:
    """A number, or some, on one line; of many the largest, with their places; what is nested line by line."""
    if not isinstance(value, list):
        return [f"  {name} = {value:.3f}"]
    if value and isinstance(value[0], list):
        return [line for place, part in enumerate(value, start=1) for line in _told(f"{name} {place}", part)]
    if len(value) <= FEW:
        return [f"  {name} = {', '.join(f'{one:.3f}' for one in value)}"]
    most = sorted(range(len(value)), key=lambda place: -value[place])[:REASONS]
    largest = ", ".join(f"{value[place]:.3f} (no. {place + 1})" for place in most)
    return [f"  {name}: the largest of {len(value)} are {largest}"]


def _plain(reason: Any) -> Any:
    """Pairs as lists, for JSON."""
    return [list(part) if isinstance(part, tuple) else part for part in reason] if isinstance(reason, list) else reason
