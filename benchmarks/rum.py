"""RUM on Amazon Instant Video by its own protocol: 70/30 a user, the memory frozen, training items masked, lists of 5.

    python benchmarks/rum.py ROW [ROW ...] [--data FOLDER] [--seeds 0,1,2]

ROW is one of the table's rows, or `main`, `curves`, `all`, or `table` to write the tables of what is finished. Every
row is tuned alike: two rates and three penalties on the last tenth of each user's training events, the number of passes
too. `curves` are the paper's Figure 3 (alpha), and K and merge, with the sampled softmax. The softmax over all items is
left out: RUM reads its memory once a candidate, so it costs 6,360 / 200 times as much as the sampled one.
"""

from __future__ import annotations

import itertools

import numpy as np

from cells import Grid, Row, command_line
from foretaste.data import datasets
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import TEST, TRAIN, VALIDATION
from foretaste.evaluation.evaluate import evaluate
from foretaste.evaluation.protocols import Frozen
from foretaste.models.baselines.pop import Pop

LOG = "amazon-instant-video-rum"
COMMON = {"embedding_size": 50, "epochs": 150, "patience": 30, "batch": 256}
TRIES = [{"learning_rate": rate, "l2": l2} for rate, l2 in itertools.product((0.003, 0.01), (0.001, 0.01, 0.1))]
LOSSES = {
    "bce": {"loss": "bce", "negatives": 1},
    "bpr": {"loss": "bpr", "negatives": 1},
    "sampled": {"loss": "sampled_softmax", "negatives": 200, "shared_negatives": True, "sampler": "popularity"},
}
PAPER = {
    "pop": "1.110 / 1.521 / 1.227 / 5.178",
    "bpr-mf": "1.198 / 1.624 / 1.300 / 5.917",
    "fpmc": "1.301 / 1.612 / 1.322 / 5.917",
    "rum-item bce": "1.302 / 1.846 / 1.449 / 6.213",
    "rum-feature bce": "1.405 / 1.905 / 1.491 / 6.287",
}


def rows() -> list[Row]:
    """The table: comparators, then both levels with each loss."""
    made = [
        Row("pop", "pop", published=PAPER["pop"]),
        Row("bpr-mf", "bpr-mf", COMMON, TRIES, PAPER["bpr-mf"]),
        Row("fpmc", "fpmc", COMMON, TRIES, PAPER["fpmc"]),
    ]
    for level, (name, loss) in itertools.product(("rum-item", "rum-feature"), LOSSES.items()):
        made.append(Row(f"{level} {name}", level, {**COMMON, **loss}, TRIES, PAPER.get(f"{level} {name}", "")))
    return made


def curves() -> list[Row]:
    """One thing varied at a time, with the rate and the penalty that the sampled rows chose."""
    base = {**COMMON, **LOSSES["sampled"]}
    tries = [{"learning_rate": 0.005, "l2": 0.1}]
    made = []
    for level in ("rum-item", "rum-feature"):
        made += [Row(f"{level} alpha {a / 10}", level, {**base, "alpha": a / 10}, tries) for a in range(11)]
        made += [Row(f"{level} K {k}", level, {**base, "slots": k}, tries) for k in (1, 2, 5, 10, 20)]
        made += [Row(f"{level} {m}", level, {**base, "merge": m}, tries) for m in ("add", "multiply", "concat")]
    return made


def popular(prepared: Prepared) -> str:
    """The paper's MP to the digit: ties to the lower id; and pessimistic, as everything else here."""
    log = prepared.sequences
    cases = Frozen(mask_seen=True).cases(log, TEST)
    counts = np.bincount(log.of_part(TRAIN, VALIDATION).items, minlength=len(prepared.items) + 1)[1:]
    order = np.argsort(np.argsort([int(raw) for raw in prepared.items.ids]))  # [I] 0 is the lowest id
    lines = []
    for name, score in {
        "ties to the lower id": counts - order / len(order), "ties against it": counts
    }.items():  # fmt: skip
        model = Pop(len(prepared.items))
        model.counts = model.counts.new_tensor(score.astype(np.float64))
        means = evaluate(model, log, cases, cutoffs=(5,)).means()
        shown = [100 * means[f"{metric}@5"] for metric in ("precision", "recall", "f1", "hr", "ndcg-fixed")]
        lines.append(f"{name}: " + " / ".join(f"{value:.4f}" for value in shown))
    paper = "1.110 / 1.521 / 1.227 / 5.178 / 1.112"
    return f"Most popular, P / R / F1 / HR / NDCG (constant Z) at 5, %; the paper prints {paper}. {'; '.join(lines)}."


def main() -> None:
    """Make what is asked for and write both tables."""
    arguments = command_line(__doc__)
    prepared = datasets.apply(datasets.recipe(LOG), arguments.data)
    ask = Frozen(mask_seen=True)
    show = [f"{metric}@5" for metric in ("precision", "recall", "f1", "hr", "ndcg-fixed")]
    for name, made in {"main": rows(), "curves": curves()}.items():
        wanted = [row.name for row in made if {row.name, name, "all"} & set(arguments.rows)]
        about = popular(prepared) if name == "main" else "Figure 3 and its like; chosen and compared as the table."
        grid = Grid(
            "rum", LOG if name == "main" else f"{LOG}-{name}", made, ask, ask, "f1@5", show, (5,),
            "rum-item sampled" if name == "main" else "", about,
        )  # fmt: skip
        if wanted or "table" in arguments.rows:
            grid.run(prepared, wanted, arguments.seeds)


if __name__ == "__main__":
    main()
