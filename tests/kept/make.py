"""Keep what this version writes, for the tests of the versions to come: a prepared folder and a saved recommender.

    python tests/kept/make.py

It is run once for each release, and makes tests/kept/VERSION. A folder that is kept is never made again or changed:
that newer versions open it as it is, and answer as the old one did, is what test_kept.py asks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import foretaste
from foretaste import Recommender, shop, splits

SIZES = {"embedding_size": 4, "hidden_size": 6, "window": 5}
TRAINING = {"learning_rate": 0.02, "batch": 32, "epochs": 3}
LEAST = 1e-3
"""Scores differ by more than this, so that no rounding of another machine moves an item."""


def main() -> None:
    """Make the folder."""
    folder = Path(__file__).parent / foretaste.__version__
    if folder.exists():
        sys.exit(f"{folder}: this version is kept already")
    log = shop(n_users=25, n_items=40, visits=3, seed=1).log()
    cut = splits.GlobalTime(fraction=0.2)
    prepared = log.prepare(cut, validation=cut, folder=folder / "prepared")
    recommender = Recommender("narm", **SIZES, **TRAINING).fit(prepared)
    recommender.save(folder / "recommender")
    history = prepared.items.ids[4:7]
    found = recommender.recommend(history, k=10)
    gaps = [one - other for one, other in zip(found.scores, found.scores[1:], strict=False)]
    assert min(gaps) > LEAST, f"two scores differ by {min(gaps)}: take another history"
    evaluated = recommender.evaluate(prepared, cutoffs=(5,))
    expected = {
        "history": history,
        "items": found.ids,
        "scores": found.scores,
        "attention": recommender.explain(history)["attention"],
        "counts": prepared.manifest["counts"],
        "titles": prepared.items.columns["title"][:3],
        "cases": len(evaluated),
        "means": evaluated.means(),
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
