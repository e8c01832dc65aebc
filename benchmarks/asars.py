"""ASARS and its variants against the same LSTM without attention: the last item of each session, and every step.

    python benchmarks/asars.py LOG ROW [ROW ...] [--data FOLDER] [--seeds 0,1,2]

LOG is one of `LOGS`, without or with "-dwell": there the log has the time to the next event and each session lacks its
last, as in the paper, so that the paper's mode and the causal mode can stand side by side. ROW is one of the table's
rows, `main`, `all` or `table`. Every row is tuned alike on validation: the paper's Adagrad 0.2 with hinge, and Adam at
two rates with the exact softmax, passes included. The number of lists of the last-item table is the number of cases.
"""

from __future__ import annotations

from typing import Any

from cells import Grid, Row, command_line
from foretaste.data import datasets
from foretaste.data.prepared import Prepared
from foretaste.evaluation.protocols import LastItem, PerStep

LOGS = ("asars-30music", "asars-yoochoose-100k", "asars-ml-100k")
PASSES = {"epochs": 40, "patience": 10}
PAPER = {"optimizer": "adagrad", "learning_rate": 0.2, "loss": "hinge", "sampler": "batch", "negatives": 0}
SOFTMAX = {"optimizer": "adam", "loss": "softmax", "sampler": "uniform", "negatives": 0, "batch": 512}
TRIES = [PAPER, *({**SOFTMAX, "learning_rate": rate} for rate in (0.001, 0.003))]
VARIANTS = ("none", "user_att", "user_cat", "time_att", "time_cat", "time_user")


def rows(users: bool, dwell: bool) -> list[Row]:
    """Comparators and every variant; without users, those that need none."""
    made = [Row("pop", "pop")]
    if dwell:
        for mode in ("causal", "paper"):
            for variant in ("none", "time_att", "time_cat", "time_user"):
                if users or "user" not in variant:
                    made.append(Row(f"{variant} {mode}", "asars", {**PASSES, "variant": variant, "mode": mode}, TRIES))
        return made
    made += [Row(name, "asars", {**PASSES, "variant": name}, TRIES) for name in VARIANTS if users or "user" not in name]
    if users:
        made.insert(1, Row("bpr-mf", "bpr-mf", {"epochs": 60, "patience": 5, "batch": 512, "embedding_size": 64}, [
            {"learning_rate": rate, "l2": l2} for rate in (0.001, 0.003) for l2 in (0.0, 0.01)]))  # fmt: skip
        terms: dict[str, dict[str, Any]] = {
            "temporal": {},
            "temporal without drift": {"drift": False},
            "temporal without dev": {"dev": False},
            "temporal without item bins": {"item_bins": False},
            "temporal without level": {"level": False},
        }
        made += [Row(name, "asars", {**PASSES, "temporal": True, **off}, TRIES) for name, off in terms.items()]
    return made


def main() -> None:
    """Make what is asked for and write the tables: one chosen and asked by every step, one by the last item."""
    arguments = command_line(__doc__, [*LOGS, *(f"{log}-dwell" for log in LOGS)])
    prepared = datasets.apply(datasets.recipe(arguments.log), arguments.data)
    dwell = arguments.log.endswith("-dwell")
    made = rows(prepared.users is not None, dwell)
    wanted = [row.name for row in made if {row.name, "main", "all"} & set(arguments.rows)]
    grid = Grid(
        "asars", arguments.log, made, PerStep(), PerStep(), "mrr@20", ["mrr@20", "recall@20"], (20,),
        "time_att causal" if dwell else "none", about(prepared, dwell),
        also={"last item": LastItem(unit="session")},
    )  # fmt: skip
    grid.run(prepared, wanted, arguments.seeds)


def about(prepared: Prepared, dwell: bool) -> str:
    """What the reader must know."""
    lists = len(LastItem(unit="session").cases(prepared.sequences))
    text = f"{lists:,} lists by the last item, the paper's unit. 'none' is the LSTM without attention."
    if dwell:
        text += (
            " Rows 'paper' are told how long the user looked at the current item, which is known only when the next "
            "click has come: no service can reach them. What they gain over 'causal' is the price of that knowledge."
        )
    return text


if __name__ == "__main__":
    main()
