"""A log that needs a memory: 1,040 events a user, in which an interest comes back after at least 72 events of noise.

    python benchmarks/returning.py [--seeds 3]

DMAN against its variants: the cached segment of DMAN-XL and the last m states of DMAN-FIFO reach no further than 60
events; what the interest was must be kept by choice. The log is simulated (`foretaste.data.simulate.known`), so what
can be reached with the memory and without it is known exactly. Training asks for every event, as on any log: which
items are of one interest is learnt where it is shown, and 240 users are enough. Asked of the bells alone, ten events
of a thousand, 960 users were not (0.18 at best).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from foretaste.compare.grid import Grid, Place, Row
from foretaste.compare.publish import fingerprint, publish
from foretaste.compare.run import alone, run
from foretaste.compare.written import markdown
from foretaste.data import splits
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import TRAIN
from foretaste.data.simulate import known

OUT = Path(__file__).parent / "results" / "returning"
SETTINGS = {
    "embedding_size": 32, "batch": 4160, "chunk": 1040, "dropout": 0.0, "loss": "softmax", "negatives": 0,
    "schedule": "linear", "epochs": 16, "patience": 16, "learning_rate": 0.005,
}  # fmt: skip
VARIANTS = {"dman": {}, "dman-xl": {"memory": "none"}, "dman-fifo": {"memory": "fifo"}, "dman-nran": {"nran": True}}


def main() -> None:
    """Make what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    log, data = known("returning", validation=True), arguments.out / "data"
    if not data.exists():
        events = log.sequences
        every = replace(events, target=(events.part == TRAIN) | events.may_be_target())
        replace(log, sequences=every).log().prepare(splits.Given(), folder=data)
    about = (
        f"Recall@5 is {100 * log.ceiling:.1f} % at best for who remembers, {100 * max(log.without.values()):.1f} % for "
        "who sees the last 60 events alone. T = 20, m = 20, L = 2, D = 32."
    )
    grid = Grid(
        title="DMAN on a log whose interests come back",
        rows=tuple(Row(name=name, model="dman", settings={**SETTINGS, **own}) for name, own in VARIANTS.items()),
        seeds=tuple(range(arguments.seeds)),
        metric="recall@5",
        show=("recall@5", "mrr@5"),
        cutoffs=(5,),
        reference="dman",
        about=about,
        data=fingerprint(Prepared.open(data)),
    )
    place = Place(arguments.out)
    with alone(place.folder):
        place.begin(grid)
        run(place, data)
        print(markdown(publish(place, data)))


if __name__ == "__main__":
    main()
