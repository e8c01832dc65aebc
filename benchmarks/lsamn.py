"""LSAMN by its own protocol: each user's last session, all its items at once, on four logs that have sessions.

    python benchmarks/lsamn.py LOG ROW [ROW ...] [--data FOLDER] [--seeds 0,1,2]

LOG is one of `LOGS`; ROW is one of the table's rows, `main`, `sizes` (Figure 3), `all` or `table`. Every row is tuned
alike on each user's last session but one: two rates and three penalties, the number of passes too. The paper's own
tables are lost to us (its text has none), so nothing here can be compared with them: what is compared is LSAMN with its
ablations N-, S- and P-, and with POP, BPR-MF and FPMC.
"""

from __future__ import annotations

import itertools

import numpy as np

from cells import Grid, Row, command_line
from foretaste.data import datasets
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import TEST
from foretaste.evaluation.protocols import LastSession

LOGS = ("tmall-shan", "lsamn-online-retail", "lsamn-musical-instruments", "instacart-sample")
SIZE = {"embedding_size": 100, "epochs": 60, "patience": 4, "batch": 1024, "optimizer": "adam"}
TRIES = [{"learning_rate": rate, "l2": l2} for rate, l2 in itertools.product((0.001, 0.003), (0.0, 0.001, 0.01))]
ABLATIONS = {
    "lsamn": {},
    "s-lsamn": {"preference_attention": False},
    "p-lsamn": {"item_attention": False},
    "n-lsamn": {"item_attention": False, "preference_attention": False},
}


def rows() -> list[Row]:
    """Comparators, LSAMN and its ablations, and what the paper leaves open."""
    made = [
        Row("pop", "pop"),
        Row("bpr-mf", "bpr-mf", SIZE, TRIES),
        Row("fpmc", "fpmc", {**SIZE, "basket": "session", "targets": "session", "exclude_touched": True}, TRIES),
    ]
    made += [Row(name, "lsamn", {**SIZE, **off}, TRIES) for name, off in ABLATIONS.items()]
    made += [
        Row("lsamn last_only", "lsamn", {**SIZE, "targets": "last_session"}, TRIES),
        Row("lsamn popularity^0.75", "lsamn", {**SIZE, "sampler": "popularity"}, TRIES),
        Row("lsamn softmax", "lsamn", {**SIZE, "loss": "softmax", "negatives": 0}, TRIES),
    ]
    return made


def sizes() -> list[Row]:
    """Figure 3: d from 10 to 100, tuned over the rates."""
    tries = [{"learning_rate": rate} for rate in (0.001, 0.003)]
    return [Row(f"d {d}", "lsamn", {**SIZE, "embedding_size": d}, tries) for d in (10, 20, 40, 60, 80, 100)]


def several(prepared: Prepared) -> str:
    """How many sessions hold two items or more: only there can S- and N- differ."""
    log = prepared.sequences
    size = np.diff(log.sessions)
    asked = LastSession().cases(log, TEST)
    targets = asked.stop - asked.start
    return (
        f"{100 * (size >= 2).mean():.1f} % of the sessions hold two events or more (mean {size.mean():.2f}): only "
        f"these can tell S- from N-. A test session holds {targets.mean():.1f} events."
    )


def main() -> None:
    """Make what is asked for and write the tables."""
    arguments = command_line(__doc__, LOGS)
    prepared = datasets.apply(datasets.recipe(arguments.log), arguments.data)
    ask = LastSession()
    for name, made in {"main": rows(), "sizes": sizes()}.items():
        wanted = [row.name for row in made if {row.name, name, "all"} & set(arguments.rows)]
        grid = Grid(
            "lsamn", arguments.log if name == "main" else f"{arguments.log}-{name}", made, ask, ask, "recall@20",
            ["recall@20", "recall@10", "mrr-mean", "mrr"], (10, 20), "lsamn" if name == "main" else "",
            several(prepared),
        )  # fmt: skip
        if wanted or "table" in arguments.rows:
            grid.run(prepared, wanted, arguments.seeds)


if __name__ == "__main__":
    main()
