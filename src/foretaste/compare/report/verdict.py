"""The decision that a comparison allows: the best model, those that cannot be told from it, the cheapest good one.

Good is what lies within 2 % of the best (most would not notice the difference), or inside its 95 % interval and is not
told apart from it. Of the good ones, the cheapest is the one that trains in the least time; times within a factor of
two are alike, and so are those below a second. No candidate is what cannot be asked one event at a time
(`causal = False`), for it cannot serve, nor what was made on another machine than the best, for its costs do not
compare with the others'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foretaste.compare.summary import Line, Summary

LEVEL = 0.05
"""A p value below it tells two rows apart."""
NEAR = 0.98
"""Of the best: near enough to be called good."""
MUCH, ALIKE_SECONDS, ALIKE_MILLISECONDS = 2.0, 1.0, 0.5
"""Costs within this factor are alike, and so are all below these."""


@dataclass(frozen=True)
class Verdict:
    """What follows from the first metric shown."""

    metric: str
    ranked: tuple[Line, ...]
    """Rows with figures, the best first."""
    reference: str
    """The row that the others were tested against; nearly always the best."""
    alike: tuple[Line, ...]
    """Cannot be told from the reference."""
    worse: tuple[Line, ...]
    """Told apart from the reference, and below it."""
    mixed: tuple[Line, ...]
    """Below it by the test, which knows the seeds that were trained and no others; but single seeds overlap."""
    untested: tuple[Line, ...]
    """Without cases, so without a test."""
    good: tuple[Line, ...]
    """Inside the interval of the best or near it, and able to serve; the best among them if it is."""
    elsewhere: tuple[Line, ...]
    """Of the good ones, those made on another machine than the best."""
    cheapest: Line | None
    """Of the other good ones, the quickest to train; the best of those alike."""
    quickest: Line | None
    """Of the same, the quickest to answer; the best of those alike."""

    @property
    def best(self) -> Line:
        """The greatest mean."""
        return self.ranked[0]

    @property
    def tested(self) -> bool:
        """Whether the others were tested against the best, and not against a row that somebody named."""
        return self.reference == self.best.name


def decide(summary: Summary) -> Verdict | None:
    """None where no row has figures."""
    metric = summary.grid.show[0]
    there = [line for line in summary.lines if metric in line.figures]
    if not there:
        return None
    ranked = tuple(sorted(there, key=lambda line: -line.figures[metric].mean))
    others = [line for line in ranked if line.name != summary.reference]
    tested = [line for line in others if line.p is not None and line.against is not None]
    apart = [line for line in tested if line.p is not None and line.p < LEVEL]
    below = [line for line in apart if line.against is not None and line.against.difference > 0]
    mixed = [line for line in below if _overlap(summary.line(summary.reference), line, metric)]
    good = [line for line in ranked if line.cost("median") is not None and _good(line, ranked[0], metric, apart)]
    here = [line for line in good if line.machines == ranked[0].machines]
    return Verdict(
        metric=metric,
        ranked=ranked,
        reference=summary.reference,
        alike=tuple(line for line in tested if line not in apart),
        worse=tuple(line for line in below if line not in mixed),
        mixed=tuple(mixed),
        untested=tuple(line for line in others if line not in tested),
        good=tuple(good),
        elsewhere=tuple(line for line in good if line not in here),
        cheapest=_least(here, metric, "training", ALIKE_SECONDS),
        quickest=_least(here, metric, "median", ALIKE_MILLISECONDS),
    )


def _good(line: Line, best: Line, metric: str, apart: Sequence[Line]) -> bool:
    top, mean = best.figures[metric], line.figures[metric].mean
    return mean >= NEAR * top.mean or (mean >= top.low and line not in apart)


def _overlap(above: Line, below: Line, metric: str) -> bool:
    """Whether a seed of the lower row is as good as one of the higher."""
    return max(below.figures[metric].seeds) >= min(above.figures[metric].seeds)


def spread_known(lines: Sequence[Line]) -> bool:
    """Whether any row was trained more than once."""
    return any(len(line.cells) > 1 for line in lines)


def _least(good: Sequence[Line], metric: str, cost: str, alike: float) -> Line | None:
    """The best of those whose cost is like the least."""
    costs = {line.name: value for line in good if (value := line.cost(cost)) is not None}
    if not costs:
        return None
    most = max(alike, MUCH * min(costs.values()))
    return max(
        (line for line in good if costs.get(line.name, most + 1) <= most), key=lambda line: line.figures[metric].mean
    )
