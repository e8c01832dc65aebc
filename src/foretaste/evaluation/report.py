"""What an evaluation found: one rank a target, and every number, table and comparison that follows from them.

Every metric has a pessimistic value, in which ties count against the model, and an optimistic one. The first is the
result; the second is printed beside it where they differ, and an outside figure is matched when it lies between them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from foretaste.data.files import write_arrays
from foretaste.errors import ConfigError, DataError, SavedFileError, nearest
from foretaste.evaluation.metrics import Ints, Values, of_cases
from foretaste.evaluation.significance import Paired, holm, intervals, paired

FORMAT = 1
LENGTHS = (*((n, n) for n in range(20)), (20, 49), (50, 99), (100, 999), (1000, np.inf))
"""History lengths that the breakdown tells apart: each one up to 19, as NARM's Table 5 does, and classes beyond."""
TIERS = ("head: the most popular items, a third of training", "middle: the next third", "tail: the rest", "cold")


@dataclass(frozen=True)
class Facts:
    """What was asked of whom."""

    model: str
    protocol: str
    part: str
    n_items: int
    cutoffs: tuple[int, ...]
    leaks: str
    later: float | None
    mask_seen: bool
    cold: str
    """What became of cold targets: "miss" or "drop"."""
    cold_targets: int
    all_targets: int
    """Targets, cold ones included even where they were dropped."""
    fingerprint: str
    """Of the cases: two evaluations with the same one can be compared."""
    coverage: float | None
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Ranks of the m targets of n cases, and what follows. Targets of case i: offsets[i] .. offsets[i + 1]."""

    facts: Facts
    offsets: Ints
    items: NDArray[np.int32]
    """[m]: item number of each target, 0 if cold."""
    pessimistic: Ints
    """[m]: 1, 2, ... or `ranking.MISS`."""
    optimistic: Ints
    tied: NDArray[np.bool_]
    """[m]: an item that is no target of the case has the same score."""
    repeated: NDArray[np.bool_]
    """[m]: the user's history holds the target."""
    tier: NDArray[np.int8]
    """[m]: 0 head, 1 middle, 2 tail, 3 cold."""
    history: Ints
    """[n]: known events before the cut that the model was shown."""
    clusters: Ints
    """[n]: row of the user (of the session in a log without users); cases of one are drawn together."""
    lists: Mapping[str, Values] = field(default_factory=dict)
    """[n] each: what the recommended lists are like, where they were asked for."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def per_case(self) -> dict[str, Values]:
        """Every metric of every case, ties counted against the model: name -> [n]."""
        return {**of_cases(self.pessimistic, self.offsets, self.facts.cutoffs), **self.lists}

    @cached_property
    def per_case_optimistic(self) -> dict[str, Values]:
        """The same, ties counted for the model."""
        return {**of_cases(self.optimistic, self.offsets, self.facts.cutoffs), **self.lists}

    def means(self, *, optimistic: bool = False) -> dict[str, float]:
        """Every metric, averaged over the cases: `means()["recall@20"]`."""
        per_case = self.per_case_optimistic if optimistic else self.per_case
        return {name: float(values.mean()) for name, values in per_case.items()}

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % bootstrap interval of every metric, pessimistic, users drawn with all their cases."""
        names = list(self.per_case)
        found = intervals(np.stack([self.per_case[name] for name in names], 1), self.clusters)  # [M, 2]
        return {name: (float(low), float(high)) for name, (low, high) in zip(names, found, strict=True)}

    @property
    def ties(self) -> float:
        """Share of cases in which another item ties with a target."""
        return float(np.logical_or.reduceat(self.tied, self.offsets[:-1]).mean())

    @property
    def cold(self) -> float:
        """Share of targets that are no candidates: no event of training or validation has the item."""
        return self.facts.cold_targets / self.facts.all_targets

    @property
    def repeats(self) -> float:
        """Share of targets that the user's history holds."""
        return float(self.repeated.mean())

    def breakdown(self) -> dict[str, list[dict[str, Any]]]:
        """Recall and MRR at the largest cut-off by history length (of cases), popularity and repeats (of targets)."""
        k = max(self.facts.cutoffs)
        recall, mrr = self.per_case[f"recall@{k}"], self.per_case[f"mrr@{k}"]  # [n]
        hit = self.pessimistic <= k  # [m]
        inverse = np.where(hit, 1 / self.pessimistic, 0.0)  # [m]

        def row(label: str, some: NDArray[np.bool_], found: Values, place: Values) -> dict[str, Any]:
            means = {f"recall@{k}": float(found[some].mean()), f"mrr@{k}": float(place[some].mean())}
            return {"label": label, "size": int(some.sum()), **means}

        def rows(parts: Mapping[str, NDArray[np.bool_]], found: Values, place: Values) -> list[dict[str, Any]]:
            return [row(label, some, found, place) for label, some in parts.items() if some.any()]

        lengths = {_span(low, high): (self.history >= low) & (self.history <= high) for low, high in LENGTHS}
        tiers = {label: self.tier == number for number, label in enumerate(TIERS)}
        seen = {"in the user's history": self.repeated, "new to the user": ~self.repeated}
        return {
            "history": rows(lengths, recall, mrr),
            "popularity": rows(tiers, hit.astype(np.float64), inverse),
            "repeats": rows(seen, hit.astype(np.float64), inverse),
        }

    def against(self, other: Evaluation, metric: str | None = None, *, seed: int = 0) -> Paired:
        """This model minus another on the same cases, with an interval and three tests; other cases are refused."""
        if self.facts.fingerprint != other.facts.fingerprint:
            raise DataError(
                f"{self.facts.model} ({self.facts.protocol}, {len(self):,} cases) and {other.facts.model} "
                f"({other.facts.protocol}, {len(other):,} cases) were not asked the same cases, or not among the same "
                "items; evaluate both with the same `Cases` on the same prepared log"
            )
        metric = metric or f"recall@{max(self.facts.cutoffs)}"
        for one in (self, other):
            if metric not in one.per_case:
                raise ConfigError(f"{one.facts.model} was not evaluated by '{metric}'; {nearest(metric, one.per_case)}")
        return paired(self.per_case[metric], other.per_case[metric], self.clusters, seed=seed)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the single ranks, as plain values for JSON."""
        best, span = self.means(optimistic=True), self.intervals
        metrics = {
            name: {"value": value, "low": span[name][0], "high": span[name][1], "optimistic": best[name]}
            for name, value in self.means().items()
        }
        shares = {"ties": self.ties, "cold": self.cold, "repeats": self.repeats}
        several = float((np.diff(self.offsets) > 1).mean())
        counts = {"cases": len(self), "targets": len(self.items), "several_targets": several}
        facts = {**asdict(self.facts), "cutoffs": list(self.facts.cutoffs), "notes": list(self.facts.notes)}
        facts["cold_are"] = facts.pop("cold")
        return {**facts, **counts, **shares, "metrics": metrics, "breakdown": self.breakdown()}

    def table(self) -> str:
        """The result as text."""
        from foretaste.evaluation.text import table

        return table(self)

    def save_ranks(self, path: str | Path) -> Path:
        """Write every rank and what was asked to one .npz file (no pickle), in one move."""
        path = Path(path)
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        lists = {f"list.{name}": values for name, values in self.lists.items()}
        facts = np.array(json.dumps({"format": FORMAT, **asdict(self.facts)}))
        write_arrays(path, facts=facts, **arrays, **lists)
        return path

    @classmethod
    def load_ranks(cls, path: str | Path) -> Evaluation:
        """Read what `save_ranks` wrote."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            facts = json.loads(str(arrays.pop("facts")))
            if facts.pop("format") != FORMAT:
                raise SavedFileError(f"{path}: ranks of another version; evaluate again, or read it with that version")
            facts = {**facts, "cutoffs": tuple(facts["cutoffs"]), "notes": tuple(facts["notes"])}
            lists = {name.removeprefix("list."): arrays.pop(name) for name in list(arrays) if name.startswith("list.")}
            return cls(Facts(**facts), **arrays, lists=lists)
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise SavedFileError(
                f"{path}: cannot be read as saved ranks ({error}); it is truncated or another kind of file"
            ) from None


def compare(
    best: Evaluation, others: Mapping[str, Evaluation], metric: str | None = None
) -> dict[str, tuple[Paired, float]]:
    """One model against each of several on the same cases: the comparison, and its p value after Holm's correction."""
    found = {name: best.against(other, metric) for name, other in others.items()}
    raised = holm([result.p_randomisation for result in found.values()])
    return {name: (result, p) for (name, result), p in zip(found.items(), raised, strict=True)}


def _span(low: float, high: float) -> str:
    return f"{low} and more" if high == np.inf else str(low) if low == high else f"{low} to {high}"
