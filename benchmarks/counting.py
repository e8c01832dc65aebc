"""Counting models on three logs: the known figures to the digit, and what each reaches when its settings are chosen.

    python benchmarks/counting.py LOG [ROW ...] [--data FOLDER]

LOG is diginetica, yoochoose1_64 or amazon-instant-video-rum; ROW is a row of its table, or left out for all. `known`
rows have the settings behind a published figure, which must lie between the two ends shown. `chosen` rows try some
settings on the validation part (on every fifth case of it, where there are more than 50,000), counted on the training
part alone. Every row is then counted on training and validation together and asked the test part once; the test part
decides nothing. A row takes seconds to count and minutes to rank, so finished rows are kept in the table's JSON file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foretaste.compare.cost import peak_mb
from foretaste.data import datasets
from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import TEST, TRAIN, VALIDATION
from foretaste.evaluation.evaluate import Evaluation, evaluate
from foretaste.evaluation.protocols import Cases, Frozen, PerStep, Protocol
from foretaste.models import model_class
from foretaste.models.contract import SequenceModel

RESULTS = Path(__file__).parent / "results" / "counting"
MOST = 50_000
"""Validation cases from which on every fifth is asked."""


@dataclass(frozen=True)
class Row:
    """One line: a model, its settings, what may be tried, and what is printed elsewhere."""

    name: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tries: Sequence[Mapping[str, Any]] = ({},)
    published: str = ""
    ties: str = ""
    """For pop: of equal counts none is above another ("none"), or the one with the lower id ("lower id")."""


def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """Every combination."""
    return [dict(zip(values, some, strict=True)) for some in itertools.product(*values.values())]


SR = grid(steps=(3, 10), decay=("div", "quadratic", "log", "same"))
SHRINKAGE, MORE = (0, 5, 20, 50), (0, 5, 10, 20, 50, 100)
RAW, BY_COUNT = {"ties": "none", "fill": False}, {"ties": "popularity", "fill": False}

SESSIONS = [
    Row("pop", "pop"),
    Row("s-pop", "s-pop"),
    Row("markov", "markov"),
    Row("sr", "sr", tries=SR),
    Row("ar", "ar", tries=grid(once=(False, True), last=(1, 3))),
    Row("item-knn", "item-knn", tries=grid(shrinkage=SHRINKAGE, last=(1, 3, 10))),
]
"""Chosen on validation."""
PUBLISHED = {
    "yoochoose1_64": {"sr": "66.7 / 30.3", "markov": "64.8 / 29.8", "ar": "66.5 / 28.6"},
    "diginetica": {"markov": "34.4 / 13.1", "ar": "43.9 / 14.6"},
}
"""session-rec's, whose rule for ties is not known."""
KNOWN = [
    Row("pop (known)", "pop", published="0.93 / 0.21"),
    Row("s-pop (known)", "s-pop", {"ties": "popularity"}, published="21.08-21.09 / 13.65-13.72"),
    Row("markov (known)", "markov", BY_COUNT, published="34.67-34.74 / 12.91-12.99"),
    Row("markov, raw counts (known)", "markov", RAW, published="30.69-37.76 / 10.75-16.85"),
    Row("item-knn (known)", "item-knn", {**RAW, "shrinkage": 20.0}, published="37.15-37.44 / 11.91-12.08"),
]
"""On DIGINETICA."""
WHOLE = {"scope": "user", "once": True}
NEAR = {**WHOLE, **RAW, "shrinkage": 20.0, "kept": 0}
USERS = [
    Row("pop", "pop"),
    Row("pop, ties to the lower id (known)", "pop", published="5.178 / 1.227 / 1.110 / 1.521", ties="lower id"),
    Row("pop, raw counts (known)", "pop", published="from 4.586 / 1.073 / 0.962 / 1.337", ties="none"),
    Row("markov", "markov", {"scope": "user"}),
    Row("sr", "sr", {"scope": "user"}, grid(steps=(3, 10, 50), decay=("div", "same"), last=(1, 5, 20))),
    Row("ar", "ar", WHOLE, grid(last=(1, 5, 20, 64))),
    Row("item-knn", "item-knn", WHOLE, grid(shrinkage=MORE, last=(1, 3, 5, 10, 20, 64), kept=(100, 0))),
    Row("item-knn, last 5 (known)", "item-knn", {**NEAR, "last": 5}, published="14.719"),
    Row("item-knn, all (known)", "item-knn", {**NEAR, "last": 64}, published="15.237"),
]
"""On Instant Video. RUM's paper prints the first known figures, as its most-popular row; of Item-KNN it is HR@5."""


@dataclass(frozen=True)
class Table:
    """One log, what is asked of it, and the rows."""

    log: str
    rows: Sequence[Row]
    ask: Protocol
    metrics: Sequence[str]
    """Shown; the first chooses."""
    cutoffs: Sequence[int]

    @property
    def file(self) -> Path:
        """The finished rows."""
        return RESULTS / f"{self.log}.json"

    def run(self, prepared: Prepared, wanted: Sequence[str]) -> None:
        """Make the rows that are asked for and not there yet; write the table after each."""
        done = json.loads(self.file.read_text()) if self.file.exists() else {}
        for row in self.rows:
            if row.name in wanted and row.name not in done:
                done[row.name] = self.row(prepared, row)
                ordered = {one.name: done[one.name] for one in self.rows if one.name in done}
                write_text(self.file, json.dumps(ordered, indent=1) + "\n")
                write_text(self.file.with_suffix(".md"), self.text(ordered))
                print(f"{row.name}: {done[row.name]['chosen']} {self.figures(done[row.name])}", flush=True)

    def row(self, prepared: Prepared, row: Row) -> dict[str, Any]:
        """Choose, count again on everything before the test, ask the test part once."""
        log, tried = prepared.sequences, []
        if len(row.tries) > 1:
            asked = thinned(self.ask.cases(log, VALIDATION))
            for change in row.tries:
                model, _ = counted(prepared, row, change, TRAIN)
                found = evaluate(model, log, asked, cutoffs=self.cutoffs).means()
                tried.append({**change, **{metric: round(100 * found[metric], 3) for metric in self.metrics}})
                print(f"   {tried[-1]}", flush=True)
        best = max(range(len(tried)), key=lambda n: tried[n][self.metrics[0]]) if tried else 0
        model, seconds = counted(prepared, row, row.tries[best], TRAIN, VALIDATION)
        found = evaluate(model, log, self.ask.cases(log, TEST), cutoffs=self.cutoffs, name=row.name)
        return {
            "model": row.model,
            "config": model.config.as_dict(),
            "published": row.published,
            "tried": tried,
            "chosen": dict(row.tries[best]),
            "test": ends(found),
            "cases": len(found),
            "count_seconds": round(seconds, 2),
            "rank_seconds": round(found.facts.seconds, 1),
            "table_mb": round(sum(part.nbytes for part in model.buffers()) / 2**20, 2),
            "peak_mb": peak_mb(),
            "load_average": round(os.getloadavg()[0], 1),
            "threads": torch.get_num_threads(),
        }

    def figures(self, found: Mapping[str, Any]) -> str:
        """Both ends of each metric shown."""
        return " / ".join(found["test"][metric]["text"] for metric in self.metrics)

    def text(self, done: Mapping[str, Mapping[str, Any]]) -> str:
        """The table."""
        lines = [
            f"# Counting models on {self.log}", "",
            f"`python benchmarks/counting.py {self.log}`. Asked: {self.ask.describe}. In percent, "
            "from the pessimistic to the optimistic reading of a tie where they differ. Rows marked (known) have the "
            "settings of a figure that is known from elsewhere; the others chose theirs on the validation part, by "
            f"{self.metrics[0]}. Seconds were measured on a machine that was doing other work.", "",
            "| row | " + " | ".join(self.metrics) + " | elsewhere | chosen | count, s | rank, s | table, MB |",
            "| --- " * (len(self.metrics) + 6) + "|",
        ]  # fmt: skip
        for name, row in done.items():
            shown = " | ".join(row["test"][metric]["text"] for metric in self.metrics)
            chosen = ", ".join(f"{key} = {value}" for key, value in row["chosen"].items())
            lines.append(
                f"| {name} | {shown} | {row['published']} | {chosen} | {row['count_seconds']} | {row['rank_seconds']} "
                f"| {row['table_mb']} |"
            )
        return "\n".join(lines) + "\n"


def counted(prepared: Prepared, row: Row, change: Mapping[str, Any], *parts: int) -> tuple[SequenceModel, float]:
    """A model that has counted these parts, and the seconds it took."""
    kind, log = model_class(row.model), prepared.sequences.of_part(*parts)
    model, began = kind(len(prepared.items), kind.Config.of({**row.settings, **change})), time.perf_counter()
    model.count(log)
    if row.ties:
        counts = np.bincount(log.items, minlength=len(prepared.items) + 1)[1:]
        rank = np.argsort(np.argsort([int(raw) for raw in prepared.items.ids]))
        below = rank / len(rank) if row.ties == "lower id" else 0.0
        model.counts = torch.as_tensor(counts - below, dtype=torch.float32)
    return model.eval(), time.perf_counter() - began


def thinned(cases: Cases) -> Cases:
    """Every fifth of many cases."""
    step = 5 if len(cases) > MOST else 1
    return replace(cases, cut=cases.cut[::step], start=cases.start[::step], stop=cases.stop[::step])


def ends(found: Evaluation) -> dict[str, Any]:
    """Each metric with both ends, in percent."""
    low, high = found.means(), found.means(optimistic=True)
    out = {}
    for metric in low:
        pair = f"{100 * low[metric]:.2f}", f"{100 * high[metric]:.2f}"
        text = pair[0] if pair[0] == pair[1] else "-".join(pair)
        out[metric] = {"pessimistic": 100 * low[metric], "optimistic": 100 * high[metric], "text": text}
    return out


def tables() -> dict[str, Table]:
    """All three."""
    made = {}
    for log, more in {"diginetica": KNOWN, "yoochoose1_64": []}.items():
        rows = [replace(row, published=PUBLISHED[log].get(row.name, "")) for row in SESSIONS]
        made[log] = Table(log, [*more, *rows], PerStep(), ("recall@20", "mrr@20"), (5, 10, 20))
    shown = tuple(f"{metric}@5" for metric in ("hr", "f1", "precision", "recall"))
    made["amazon-instant-video-rum"] = Table("amazon-instant-video-rum", USERS, Frozen(mask_seen=True), shown, (5,))
    return made


def main() -> None:
    """Make what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", choices=list(tables()))
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--data", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    table = tables()[arguments.log]
    prepared = datasets.apply(datasets.recipe(table.log), arguments.data)
    table.run(prepared, arguments.rows or [row.name for row in table.rows])
    print(table.file.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
