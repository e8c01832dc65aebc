"""NARM on the standard session logs: the tuned recipe, the paper's Config, and the rows of its Tables 2 and 4.

    python benchmarks/narm.py LOG ROW [ROW ...] [--data FOLDER] [--seeds 0,1,2] [--out FOLDER]

LOG is yoochoose1_64 or diginetica; ROW is one of `ROWS`, or `table` to write the table of what is finished. Each cell
(log, row, seed) is one file under benchmarks/results/narm/LOG, written when it is finished; a killed run goes on where
it was, and finished cells are kept. The procedure is the same for every row: the rate is chosen among `RATES` on the
newest tenth of the training sessions, the number of passes too; then the model is trained afresh on all training
sessions for that many passes, and asked every prefix of the test part once. The test part decides nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import shutil
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded; see docs/start.md

import torch

from foretaste.data import datasets
from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.evaluation.protocols import PerStep
from foretaste.recommender import Recommender
from foretaste.training.progress import Live

SIZES = {"embedding_size": 64, "hidden_size": 128}
SCHEDULE = {"schedule": "linear", "epochs": 6, "patience": 6, "metric": "recall@20"}
RATES = (0.003, 0.006)
ROWS: dict[str, dict[str, Any]] = {
    "tuned": SIZES,
    "hybrid-100": {},
    "hybrid-50": {"hidden_size": 50},
    "global-100": {"encoder": "global"},
    "global-50": {"encoder": "global", "hidden_size": 50},
    "local-100": {"encoder": "local"},
    "local-50": {"encoder": "local", "hidden_size": 50},
    "full-100": {"decoder": "full"},
    "paper": {"schedule": "constant", "learning_rate": 0.001, "epochs": 30, "patience": 3},
}
"""`paper` is the default Config and the paper's training, its rate included; the others share schedule and rates."""
PUBLISHED = {
    "yoochoose1_64": {
        "paper": (68.32, 28.76),
        "hybrid-100": (68.32, 28.76),
        "hybrid-50": (68.28, 28.10),
        "global-100": (68.15, 28.37),
        "global-50": (67.26, 26.95),
        "local-100": (68.10, 28.38),
        "local-50": (67.07, 26.79),
        "full-100": (67.67, 29.17),
    },
    "diginetica": {
        "paper": (62.58, 27.35),
        "hybrid-100": (62.58, 27.35),
        "hybrid-50": (61.73, 26.25),
        "global-100": (61.88, 26.51),
        "global-50": (59.63, 23.52),
        "local-100": (61.71, 26.04),
        "local-50": (58.74, 22.91),
        "full-100": (57.84, 24.77),
    },
}

ORDER = (
    "The paper's figures on DIGINETICA (62.58 / 27.35 for NARM) come from files in which the clicks of a session are "
    "not in the order of time, and cannot be compared; in the right order session-rec's NARM has 49.8 / 15.9."
)


def main() -> None:
    """Run the cells that are asked for, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", choices=list(PUBLISHED))
    parser.add_argument("rows", nargs="+", choices=[*ROWS, "table"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/narm"))
    arguments = parser.parse_args()
    out = arguments.out / arguments.log
    prepared: Prepared | None = None
    for seed in map(int, arguments.seeds.split(",")):
        for row in arguments.rows:
            path = out / f"{row}-seed{seed}.json"
            if row == "table" or path.exists():
                continue
            if prepared is None:
                prepared = datasets.apply(datasets.recipe(arguments.log), arguments.data)
            print(f"== {arguments.log} {row} seed {seed}", flush=True)
            write_text(path, json.dumps(cell(prepared, row, seed, out / ".runs"), indent=1) + "\n")
    write_text(out.with_suffix(".md"), table(arguments.log, out))
    print(out.with_suffix(".md").read_text())


def cell(prepared: Prepared, row: str, seed: int, runs: Path) -> dict[str, Any]:
    """Choose on validation, train on everything before the test, and ask the test part once."""
    began = time.time()
    settings = {**({} if row == "paper" else SCHEDULE), **ROWS[row], "seed": seed}
    rates = [settings["learning_rate"]] if "learning_rate" in settings else list(RATES)
    tried: dict[float, Recommender] = {}
    for rate in rates:
        run = runs / f"{row}-seed{seed}-{rate}"
        tried[rate] = Recommender("narm", **{**settings, "learning_rate": rate})
        tried[rate].fit(prepared, folder=run, report=Live())
    histories = {rate: one.result.history for rate, one in tried.items() if one.result}
    best = {rate: max(h["validation"]["recall@20"] for h in history) for rate, history in histories.items()}
    chosen = max(best, key=best.__getitem__)
    final = Recommender("narm", **{**settings, "learning_rate": chosen})
    final.fit(prepared, refit=True, folder=runs / f"{row}-seed{seed}-{chosen}", report=Live())
    found = final.evaluate(prepared, protocol=PerStep(), cutoffs=(5, 10, 20))
    print(found.table(), flush=True)
    assert final.result is not None
    for rate in rates:
        shutil.rmtree(runs / f"{row}-seed{seed}-{rate}", ignore_errors=True)
    return {
        "row": row,
        "seed": seed,
        "config": final.config.as_dict(),
        "training": final.training.as_dict(),
        "validation_recall@20": {str(rate): value for rate, value in best.items()},
        "passes": final.result.best_epoch,
        "histories": {str(rate): history for rate, history in histories.items()},
        "test": found.as_dict(),
        "seconds": round(time.time() - began, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
    }


def table(log: str, out: Path) -> str:
    """What is finished, as a table: test figures with 95 % intervals, the paper's beside them."""
    caution = "" if log != "diginetica" else ORDER
    lines = [
        f"# NARM on {log}",
        "",
        "Every test prefix, ranked among all training items; cold targets are misses, ties count against the model.",
        f"95 % intervals: bootstrap over sessions. Made by `python benchmarks/narm.py`. {caution}".rstrip(),
        "",
        "| row | seed | Recall@20 % | MRR@20 % | paper | rate | passes | minutes |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in ROWS:
        for path in sorted(out.glob(f"{row}-seed*.json")):
            facts = json.loads(path.read_text())
            metrics = facts["test"]["metrics"]
            shown = [
                "{:.2f} ({:.2f} to {:.2f})".format(*(100 * metrics[name][key] for key in ("value", "low", "high")))
                for name in ("recall@20", "mrr@20")
            ]
            paper = "{:.2f} / {:.2f}".format(*PUBLISHED[log][row]) if row in PUBLISHED[log] else ""
            rate, passes = facts["training"]["learning_rate"], facts["passes"]
            lines.append(
                f"| {row} | {facts['seed']} | {shown[0]} | {shown[1]} | {paper} | {rate:g} | {passes} "
                f"| {facts['seconds'] / 60:.0f} |"
            )
    return "\n".join([*lines, "", *reversed_pairs(log, out)]) + "\n"


def reversed_pairs(log: str, out: Path) -> list[str]:
    """Where two rows of the paper's tables stand the other way round here; said to be open where intervals overlap."""
    paths = {row: out / f"{row}-seed0.json" for row in PUBLISHED[log] if row != "paper"}
    found = {row: json.loads(path.read_text())["test"]["metrics"] for row, path in paths.items() if path.exists()}
    lines = []
    for place, metric in enumerate(("recall@20", "mrr@20")):
        for one, other in itertools.combinations(found, 2):
            theirs = PUBLISHED[log][one][place] - PUBLISHED[log][other][place]
            best, worst = (one, other) if theirs > 0 else (other, one)  # in the paper
            high, low = found[best][metric], found[worst][metric]
            if theirs and high["value"] < low["value"]:
                by = 100 * (low["value"] - high["value"])
                open_ = "the intervals overlap" if high["high"] >= low["low"] else "the intervals do not overlap"
                lines.append(
                    f"- {metric}: the paper has {best} above {worst} by {abs(theirs):.2f}; here it is the other way "
                    f"round, by {by:.2f} points, and {open_}."
                )
    head = f"{len(found)} of {len(paths)} rows of the paper's tables are finished."
    if not lines:
        return [f"{head} Every pair of them stands in the paper's order."]
    return [f"{head} Pairs that stand the other way round than in the paper:", "", *lines]


if __name__ == "__main__":
    main()
