"""NARM on the standard session logs: the tuned recipe, the paper's Config, and the rows of its Tables 2 and 4.

    python benchmarks/narm.py LOG ROW [ROW ...] [--data FOLDER] [--seeds 0,1,2]

LOG is yoochoose1_64 or diginetica; ROW is one of the table's rows, `all`, or `table` to write the table of what is
finished. The procedure is that of cells.py: the rate and the number of passes are chosen on the newest tenth of the
training sessions; then the model is trained afresh on all of them and asked every prefix of the test part once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import RESULTS, Grid, Row, command_line
from foretaste.data import datasets
from foretaste.data.files import write_text
from foretaste.evaluation.protocols import PerStep

SCHEDULE = {"schedule": "linear", "epochs": 6, "patience": 6}
RATES = ({"learning_rate": 0.003}, {"learning_rate": 0.006})
ONE_RATE = {"diginetica": "hybrid-100"}
"""Where a cell takes long: all rows of the paper's tables take the rate that this one chose, so run it first."""
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "tuned": {"embedding_size": 64, "hidden_size": 128},
    "hybrid-100": {},
    "hybrid-50": {"hidden_size": 50},
    "global-100": {"encoder": "global"},
    "global-50": {"encoder": "global", "hidden_size": 50},
    "local-100": {"encoder": "local"},
    "local-50": {"encoder": "local", "hidden_size": 50},
    "full-100": {"decoder": "full"},
    "paper": {"schedule": "constant", "epochs": 30, "patience": 3},
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
    "not in the order of time, and cannot be compared; in the right order session-rec's NARM has 49.8 / 15.9. "
    "`tuned` and `hybrid-100` each chose their rate on validation; the other rows take hybrid-100's, as on YOOCHOOSE, "
    "where each row could choose, all nine chose the same."
)


def grid(log: str) -> Grid:
    """All rows on one log."""
    rows = []
    for name, settings in SETTINGS.items():
        published = "{:.2f} / {:.2f}".format(*PUBLISHED[log][name]) if name in PUBLISHED[log] else ""
        schedule = {} if name == "paper" else SCHEDULE
        rows.append(Row(name, "narm", {**schedule, **settings}, tries(log, name), published))
    ask, about = PerStep(), ORDER if log == "diginetica" else ""
    return Grid("narm", log, rows, ask, ask, "recall@20", ["recall@20", "mrr@20"], reference="hybrid-100", about=about)


def tries(log: str, row: str) -> Sequence[Mapping[str, Any]]:
    """What a row may choose from."""
    chooser = ONE_RATE.get(log, "")
    if row == "paper":
        return ({"learning_rate": 0.001},)
    if not chooser or row in ("tuned", chooser):
        return RATES
    found = RESULTS / "narm" / log / f"{chooser}-seed0.json"
    return (json.loads(found.read_text())["chosen"],) if found.exists() else RATES


def main() -> None:
    """Run the cells that are asked for, then write the table."""
    arguments = command_line(__doc__, list(PUBLISHED))
    made = grid(arguments.log)
    wanted = [name for name in SETTINGS if {name, "all"} & set(arguments.rows)]
    if wanted:
        prepared = datasets.apply(datasets.recipe(arguments.log), arguments.data)
        made.run(prepared, wanted, arguments.seeds)
    page = "\n".join([made.table(), *reversed_pairs(arguments.log, made.folder)])
    write_text(made.folder.with_suffix(".md"), page + "\n")
    print(page)


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
