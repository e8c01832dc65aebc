"""A grid of models on one log, each tuned the same way: what the benchmarks of the papers' tables share.

A cell is (log, row, seed) and one file, written when it is finished; finished cells are kept, and a killed run goes on
where it was. The procedure is the same for every row: what it may `try` is trained and compared on the validation part,
passes included; then the best is trained afresh on train + validation for that many passes, and the test part is asked
once. What seed 0 chose, the other seeds take. The test part decides nothing. The ranks are kept beside the cells (not
under version control), so that rows can be compared case by case.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded; see docs/start.md

import numpy as np
import torch

from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.evaluation.protocols import Protocol
from foretaste.evaluation.report import Evaluation, compare
from foretaste.recommender import Recommender

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One line of a table: a model, its settings, and what may be tried on the validation part."""

    name: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tries: Sequence[Mapping[str, Any]] = ({},)
    published: str = ""
    """What the paper prints for it."""


@dataclass(frozen=True)
class Grid:
    """One log, what is asked of it, and the rows."""

    bench: str
    log: str
    rows: Sequence[Row]
    ask: Protocol
    """What the test part is asked."""
    choose: Protocol
    """What the validation part is asked."""
    metric: str
    """Chooses on the validation part."""
    show: Sequence[str]
    """Metrics of the table, in percent."""
    cutoffs: Sequence[int] = (5, 10, 20)
    reference: str = ""
    """The row that all others are compared with, case by case, by the first metric shown."""
    about: str = ""
    """What a reader must know, above the table."""
    also: Mapping[str, Protocol] = field(default_factory=dict)
    """Other questions to the same trained model; each gives further columns."""

    @property
    def folder(self) -> Path:
        """Where its cells lie."""
        return RESULTS / self.bench / self.log

    def run(self, prepared: Prepared, names: Sequence[str], seeds: Sequence[int]) -> None:
        """Make the cells that are asked for and not there yet, then write the table."""
        for seed in seeds:
            for row in self.rows:
                path = self.folder / f"{row.name}-seed{seed}.json"
                if row.name in names and not path.exists():
                    print(f"== {self.bench} {self.log} {row.name} seed {seed}", flush=True)
                    write_text(path, json.dumps(self.cell(prepared, row, seed), indent=1) + "\n")
                    write_text(self.folder.with_suffix(".md"), self.table())
        write_text(self.folder.with_suffix(".md"), self.table())
        print(self.folder.with_suffix(".md").read_text())

    def cell(self, prepared: Prepared, row: Row, seed: int) -> dict[str, Any]:
        """Choose on validation, train on everything before the test, and ask the test part once."""
        began, runs = time.time(), self.folder / ".runs" / f"{row.name}-seed{seed}"
        first = self.folder / f"{row.name}-seed0.json"
        known = json.loads(first.read_text()) if seed and first.exists() else None
        tries = list(row.tries) if known is None else [known["chosen"]]
        scores, chosen, best, speed = [], 0, None, 0.0
        for number, change in enumerate(tries):
            one = Recommender(row.model, **{"metric": self.metric, **row.settings, **change, "seed": seed})
            counts = one.kind.learns == "counts"
            if not counts or len(tries) > 1:
                one.fit(prepared, protocol=self.choose, refit=False, folder=None if counts else runs / str(number))
                found = one.evaluate(prepared, protocol=self.choose, part=1, cutoffs=self.cutoffs)
                scores.append(found.means()[self.metric])
                print(f"   {dict(change)} {self.metric} {100 * scores[-1]:.3f} {_passes(one)}", flush=True)
            else:
                scores.append(float("nan"))
            if best is None or scores[number] > scores[chosen]:
                chosen, best = number, one
        final = Recommender(row.model, **{"metric": self.metric, **row.settings, **tries[chosen], "seed": seed})
        counts = final.kind.learns == "counts"
        final.fit(prepared, protocol=self.choose, refit=True, folder=None if counts else runs / str(chosen))
        if final.result and final.result.history:
            speed = float(np.median([entry["targets_per_second"] for entry in final.result.history]))
        found = final.evaluate(prepared, protocol=self.ask, cutoffs=self.cutoffs, name=row.name)
        found.save_ranks(self.ranks(row.name, seed))
        also = {
            name: final.evaluate(prepared, protocol=ask, cutoffs=self.cutoffs, name=row.name).as_dict()
            for name, ask in self.also.items()
        }
        print(found.table(), flush=True)
        shutil.rmtree(runs, ignore_errors=True)
        return {
            "row": row.name,
            "model": row.model,
            "seed": seed,
            "config": final.config.as_dict(),
            "training": final.training.as_dict() if not counts else {},
            "tried": [{**change, self.metric: score} for change, score in zip(tries, scores, strict=True)],
            "chosen": dict(tries[chosen]),
            "passes": None if final.result is None else final.result.best_epoch,
            "history": [] if final.result is None else final.result.history,
            "targets_per_second": speed,
            "weights": sum(weight.numel() for weight in final.trained.model.parameters()),
            "test": found.as_dict(),
            "also": also,
            "seconds": round(time.time() - began, 1),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "threads": torch.get_num_threads(),
        }

    def ranks(self, row: str, seed: int) -> Path:
        """Where the ranks of a cell lie."""
        return self.folder / ".ranks" / f"{row}-seed{seed}.npz"

    def table(self) -> str:
        """What is finished: means over seeds, their spread, the interval over users, the reference row less this."""
        columns = [*self.show, *(f"{name}: {metric}" for name in self.also for metric in self.show)]
        lines = [f"# {self.bench} on {self.log}", ""]
        lines += [self.about.strip(), ""] if self.about else []
        lines += [f"Asked: {self.ask.describe}.", ""]
        lines += [
            "In percent. In brackets: the 95 % interval over users (seed 0), and the least and greatest of the seeds "
            "where there are several. "
            + (f"Difference: {self.reference} less this row, {self.show[0]}, seed 0, 95 % interval of the paired "
               "bootstrap over users, p of the randomisation test after Holm." if self.reference else ""),
            "",
            "| row | " + " | ".join(columns) + " | paper | difference | seeds | passes | chosen |",
            "| --- " * (len(columns) + 6) + "|",
        ]  # fmt: skip
        against = self.differences()
        for row in self.rows:
            cells = [json.loads(path.read_text()) for path in sorted(self.folder.glob(f"{row.name}-seed*.json"))]
            if cells:
                asked = [[cell["test"] for cell in cells]]
                asked += [[cell["also"][name] for cell in cells] for name in self.also]
                shown = [_figure([one["metrics"][metric] for one in each]) for each in asked for metric in self.show]
                chosen = ", ".join(f"{name} = {value}" for name, value in cells[0]["chosen"].items())
                lines.append(
                    f"| {row.name} | {' | '.join(shown)} | {row.published} | {against.get(row.name, '')} "
                    f"| {len(cells)} | {cells[0]['passes'] or ''} | {chosen} |"
                )
        return "\n".join(lines) + "\n"

    def differences(self) -> dict[str, str]:
        """The reference row less each other, as text; empty where ranks are not at hand."""
        found = {row.name: self.ranks(row.name, 0) for row in self.rows}
        found = {name: path for name, path in found.items() if path.exists()}
        if self.reference not in found or len(found) < 2:
            return {}
        all_ranks = {name: Evaluation.load_ranks(path) for name, path in found.items()}
        best = all_ranks.pop(self.reference)
        return {
            name: f"{100 * pair.difference:+.2f} ({100 * pair.low:+.2f} to {100 * pair.high:+.2f}), p {p:.3f}"
            for name, (pair, p) in compare(best, all_ranks, self.show[0]).items()
        }


def _figure(found: Sequence[Mapping[str, float]]) -> str:
    values = [100 * one["value"] for one in found]
    text = f"{np.mean(values):.2f} ({100 * found[0]['low']:.2f} to {100 * found[0]['high']:.2f})"
    return text + (f" [{min(values):.2f} to {max(values):.2f}]" if len(values) > 1 else "")


def _passes(one: Recommender) -> str:
    return "" if one.result is None else f"after {one.result.best_epoch} of {one.result.epochs} passes"
