"""An evaluation as text: what a person reads after a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foretaste.evaluation.report import Evaluation

ONE_TARGET = ("recall", "mrr", "ndcg")
MANY_TARGETS = ("recall", "hr", "precision", "f1", "mrr", "ndcg")
COUNTS = ("arp",)
"""Metrics that are no shares and stand as they are; all others are printed in percent."""
NOTHING = "0 (none, or all cold)"
"""Of a history in which the model was shown no event."""


def table(found: Evaluation) -> str:
    """Metrics with their intervals, then what else must be known to read them."""
    facts = found.facts
    many = len(found.items) > len(found)
    what = f"{len(found):,} cases" + (f" with {len(found.items):,} targets" if many else "")
    lines = [f"{facts.model}, {facts.protocol}, {facts.part}: {what}, ranked among all {facts.n_items:,} items", ""]
    lines += _metrics(found, MANY_TARGETS if many else ONE_TARGET)
    lines += ["", *_remarks(found)]
    k = max(facts.cutoffs)
    titles = {"history": "events known before", "popularity": "popularity of the target", "repeats": "the target is"}
    for name, rows in found.breakdown().items():
        if len(rows) > 1:
            labels = [NOTHING if name == "history" and row["label"] == "0" else row["label"] for row in rows]
            width = max(len(titles[name]), *map(len, labels))
            unit = "cases" if name == "history" else "targets"
            lines += ["", f"{titles[name]:<{width}}  {unit:>9}  {f'recall@{k}':>12}  {f'mrr@{k}':>9}"]
            for label, row in zip(labels, rows, strict=True):
                values = f"{100 * row[f'recall@{k}']:10.2f} %  {100 * row[f'mrr@{k}']:7.2f} %"
                lines.append(f"{label:<{width}}  {row['size']:>9,}  {values}")
    return "\n".join(lines)


def _metrics(found: Evaluation, kinds: tuple[str, ...]) -> list[str]:
    """One line a metric; the optimistic value where it differs as printed."""
    worst, best = found.means(), found.means(optimistic=True)
    names = [f"{kind}@{k}" for k in found.facts.cutoffs for kind in kinds] + ["mrr", *found.lists]
    cells = []
    for name in names:
        low, high = found.intervals[name]
        title = f"{name}, a count" if name.split("@")[0] in COUNTS else name
        shown = _number(name, best[name]) if _number(name, best[name]) != _number(name, worst[name]) else ""
        cells.append((title, _number(name, worst[name]), f"{_number(name, low)} to {_number(name, high)}", shown))
    if found.facts.coverage is not None:
        k = max(found.facts.cutoffs)
        cells.append((f"coverage@{k}", _number("coverage", found.facts.coverage), "", ""))
    head = ("", "%", "95 % interval", "if ties go well" if any(cell[3] for cell in cells) else "")
    wide = [max(len(cell[i]) for cell in [head, *cells]) for i in range(4)]
    return [
        f"{cell[0]:<{wide[0]}}  {cell[1]:>{wide[1]}}  {cell[2]:>{wide[2]}}  {cell[3]:>{wide[3]}}".rstrip()
        for cell in [head, *cells]
    ]


def _number(name: str, value: float) -> str:
    return f"{value:,.1f}" if name.split("@")[0] in COUNTS else f"{100 * value:.2f}"


def _remarks(found: Evaluation) -> list[str]:
    """Ties, cold targets, repeats, what the protocol leaks, and whatever else was noticed."""
    facts = found.facts
    fate = "count as misses" if facts.cold == "miss" else "were left out"
    lines = [
        f"ties     in {100 * found.ties:.2f} % of the cases another item has the score of a target",
        f"cold     {100 * found.cold:.2f} % of the targets are no candidates (no earlier part has them) and {fate}",
        f"repeats  {100 * found.repeats:.2f} % of the targets are in the user's history"
        + (", whose items are no candidates" if facts.mask_seen else ""),
    ]
    if facts.leaks:
        lines.append(f"leaks    {facts.leaks}")
    if facts.later is not None:
        lines.append(
            f"         {100 * facts.later:.2f} % of the events of earlier parts are later than the first question."
        )
    return lines + [f"note     {note}" for note in facts.notes]
