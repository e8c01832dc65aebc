"""DMAN on MovieLens 1M, leave-one-out, seen items masked; its variants and sweeps; and a log that needs the memory.

    python benchmarks/dman.py ROW [ROW ...] [--data FOLDER] [--seeds 0]
    python benchmarks/dman.py returning [--seeds 0,1,2]

ROW is one of the table's rows, `main`, `slots` and `layers` (Figure 2), `all` or `table`. Every row is tuned alike on
the last rating but one of each user: the rate, the number of passes too. MovieLens cannot show the memory at work; the
log of `returning` can (`foretaste.known`): 1,040 events a user, in which an interest comes back after at least 72
events of noise; the cached segment and the last m states reach no further than 60.
"""

from __future__ import annotations

from cells import Grid, Row, command_line
from foretaste.data import datasets, splits
from foretaste.data.simulate import known
from foretaste.evaluation.protocols import LastItem, PerStep

LOG = "ml-1m"
SIZES = {"batch": 2560, "chunk": 200, "epochs": 60, "patience": 6, "loss": "softmax", "negatives": 0}
TRIES = [{"learning_rate": 0.001}]
PAPER = {"dman": "25.18 / 53.24 / 22.03"}


def rows() -> list[Row]:
    """DMAN, its three variants, the literal equations, and comparators."""
    return [
        Row("pop", "pop"),
        Row("gru", "recurrent", {"scope": "user", **SIZES, "chunk": 100}, TRIES, "19.78 / 47.40 / 18.75 (GRU4Rec)"),
        Row("dman", "dman", SIZES, TRIES, PAPER["dman"]),
        Row("dman-xl", "dman", {**SIZES, "memory": "none"}, TRIES),
        Row("dman-fifo", "dman", {**SIZES, "memory": "fifo"}, TRIES),
        Row("dman-nran", "dman", {**SIZES, "nran": True}, TRIES),
        Row("dman bare", "dman", {**SIZES, "bare": True}, TRIES),
    ]


def returning(seeds: list[int]) -> None:
    """The planted interest: DMAN against XL and FIFO, recall at 5 beside what can be reached with and without it."""
    log = known("returning", n_rows=1600, validation=True)
    prepared = log.log().prepare(splits.Given())
    settings = {
        "embedding_size": 32, "batch": 10_400, "chunk": 1040, "dropout": 0.0, "loss": "softmax", "negatives": 0,
        "schedule": "linear", "epochs": 30, "patience": 30,
    }  # fmt: skip
    tries = [{"learning_rate": 0.005}]
    rows = [
        Row("dman", "dman", settings, tries),
        Row("dman-xl", "dman", {**settings, "memory": "none"}, tries),
        Row("dman-fifo", "dman", {**settings, "memory": "fifo"}, tries),
        Row("dman-nran", "dman", {**settings, "nran": True}, tries),
    ]
    about = (
        f"Recall@5 is {100 * log.ceiling:.1f} % at best for who remembers, {100 * max(log.without.values()):.1f} % for "
        "who sees the last 60 events alone. T = 20, m = 20, L = 2, D = 32."
    )
    ask = PerStep()
    grid = Grid("dman", "returning", rows, ask, ask, "recall@5", ["recall@5", "mrr@5"], (5,), "dman", about)
    grid.run(prepared, [row.name for row in rows], seeds)


def main() -> None:
    """Make what is asked for and write the tables."""
    arguments = command_line(__doc__)
    if arguments.rows == ["returning"]:
        returning(arguments.seeds)
        return
    prepared = datasets.apply(datasets.recipe(LOG), arguments.data)
    tables = {
        "main": rows(),
        "slots": [Row(f"m {m}", "dman", {**SIZES, "slots": m}, TRIES) for m in (2, 4, 6, 8, 10, 20, 30)],
        "layers": [Row(f"L {n}", "dman", {**SIZES, "layers": n}, TRIES) for n in (1, 2, 3, 4, 5)],
    }
    ask = LastItem(unit="user", mask_seen=True)
    for name, made in tables.items():
        wanted = [row.name for row in made if {row.name, name, "all"} & set(arguments.rows)]
        grid = Grid(
            "dman", LOG if name == "main" else f"{LOG}-{name}", made, ask, ask, "ndcg@100",
            ["hr@10", "hr@50", "ndcg@100"], (10, 50, 100), "dman" if name == "main" else "",
        )  # fmt: skip
        if wanted or "table" in arguments.rows:
            grid.run(prepared, wanted, arguments.seeds)


if __name__ == "__main__":
    main()
