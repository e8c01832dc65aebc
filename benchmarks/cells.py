"""A grid of models on one log, each tuned the same way: what the benchmarks of the papers' tables share.

A cell is (log, row, seed) and one file, written when it is finished; finished cells are kept, and a killed run goes on
where it was. The procedure is the same for every row: what it may `try` is trained and compared on the validation part,
passes included; then the best is trained afresh on train + validation for that many passes, and the test part is asked
once. What seed 0 chose, the other seeds take. The test part decides nothing. The ranks are kept beside the cells (not
under version control), so that rows can be compared case by case.
"""

from __future__ import annotations

import argparse
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
from numpy.typing import NDArray

from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.evaluation.protocols import Protocol
from foretaste.evaluation.report import Evaluation
from foretaste.evaluation.significance import holm, intervals, paired
from foretaste.recommender import Recommender

Averaged = tuple[NDArray[np.float64], NDArray[np.int64]]
"""A figure of each case, and which cases belong together."""
RESULTS = Path(__file__).parent / "results"


def command_line(doc: str | None, logs: Sequence[str] = ()) -> argparse.Namespace:
    """What all of these commands are told: LOG where there are several, rows, --data and --seeds."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if logs:
        parser.add_argument("log", choices=logs)
    parser.add_argument("rows", nargs="+")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0])
    return parser.parse_args()


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
        scores = []
        for number, change in enumerate(tries):
            one = self.recommender(row, change, seed)
            if one.kind.learns == "counts":
                scores.append(float("nan"))  # nothing to choose
                continue
            one.fit(prepared, protocol=self.choose, refit=False, folder=runs / str(number))
            assert one.result is not None
            scores.append(max(entry["validation"][self.metric] for entry in one.result.history))
            passes = f"after {one.result.best_epoch} of {one.result.epochs} passes"
            print(f"   {dict(change)} {self.metric} {100 * scores[-1]:.3f} {passes}", flush=True)
        chosen = max(range(len(tries)), key=scores.__getitem__)
        final = self.recommender(row, tries[chosen], seed)
        counts = final.kind.learns == "counts"
        final.fit(prepared, protocol=self.choose, refit=True, folder=None if counts else runs / str(chosen))
        history = [] if final.result is None else final.result.history
        speed = float(np.median([entry["targets_per_second"] for entry in history])) if history else 0.0
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
            "history": history,
            "targets_per_second": speed,
            "weights": sum(weight.numel() for weight in final.trained.model.parameters()),
            "test": found.as_dict(),
            "also": also,
            "seconds": round(time.time() - began, 1),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "threads": torch.get_num_threads(),
        }

    def recommender(self, row: Row, change: Mapping[str, Any], seed: int) -> Recommender:
        """A new one of this row."""
        return Recommender(row.model, **{"metric": self.metric, **row.settings, **change, "seed": seed})

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
            "In percent, means over the seeds. In round brackets the 95 % interval over users, each user's figure "
            "being the mean over the seeds; in square ones the least and the greatest seed."
            + (f" Difference: {self.reference} less this row in {self.show[0]}, with the interval of the paired "
               "bootstrap over users, and p of the randomisation test after Holm." if self.reference else ""),
            "",
            "| row | " + " | ".join(columns) + " | paper | difference | seeds | passes | chosen |",
            "| --- " * (len(columns) + 6) + "|",
        ]  # fmt: skip
        cells = {row.name: self.cells(row.name) for row in self.rows}
        users = {name: self.users(name, len(found)) for name, found in cells.items()}
        against = self.differences({name: found for name, found in users.items() if found})
        for row in self.rows:
            if found := cells[row.name]:
                asked = [[cell["test"]["metrics"] for cell in found]]
                asked += [[cell["also"][name]["metrics"] for cell in found] for name in self.also]
                shown = [
                    _figure([one[metric] for one in each], users[row.name].get(metric) if each is asked[0] else None)
                    for each in asked
                    for metric in self.show
                ]
                chosen = ", ".join(f"{name} = {value}" for name, value in found[0]["chosen"].items())
                passes = ", ".join(str(cell["passes"]) for cell in found if cell["passes"])
                lines.append(
                    f"| {row.name} | {' | '.join(shown)} | {row.published} | {against.get(row.name, '')} "
                    f"| {len(found)} | {passes} | {chosen} |"
                )
        return "\n".join(lines) + "\n"

    def cells(self, row: str) -> list[dict[str, Any]]:
        """The finished cells of a row, by seed."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob(f"{row}-seed*.json"))]

    def users(self, row: str, seeds: int) -> dict[str, Averaged]:
        """Each shown metric of each case, averaged over the seeds; nothing where ranks are not at hand."""
        paths = sorted(self.ranks(row, 0).parent.glob(f"{row}-seed*.npz"))
        if not paths or len(paths) != seeds:
            return {}
        found = [Evaluation.load_ranks(path) for path in paths]
        clusters = found[0].clusters
        return {name: (np.mean([one.per_case[name] for one in found], axis=0), clusters) for name in self.show}

    def differences(self, users: Mapping[str, Mapping[str, Averaged]]) -> dict[str, str]:
        """The reference row less each other, as text."""
        if self.reference not in users or len(users) < 2:
            return {}
        metric = self.show[0]
        best, clusters = users[self.reference][metric]
        pairs = {
            name: paired(best, other[metric][0], clusters) for name, other in users.items() if name != self.reference
        }
        raised = holm([pair.p_randomisation for pair in pairs.values()])
        return {
            name: f"{100 * pair.difference:+.2f} ({100 * pair.low:+.2f} to {100 * pair.high:+.2f}), p {p:.3f}"
            for (name, pair), p in zip(pairs.items(), raised, strict=True)
        }


def _figure(found: Sequence[Mapping[str, float]], users: Averaged | None) -> str:
    """Mean, interval and spread; a single seed without ranks has its own interval."""
    values = [100 * one["value"] for one in found]
    text = f"{np.mean(values):.2f}"
    if users is not None:
        low, high = intervals(users[0][:, None], users[1])[0]
        text += f" ({100 * low:.2f} to {100 * high:.2f})"
    elif len(found) == 1:
        text += f" ({100 * found[0]['low']:.2f} to {100 * found[0]['high']:.2f})"
    return text + (f" [{min(values):.2f} to {max(values):.2f}]" if len(values) > 1 else "")
