"""RUM's protocol, pinned to the digit by its one row that has no weights: most popular, on the authors' split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foretaste.data import datasets
from foretaste.data.sequences import TEST, TRAIN, VALIDATION
from foretaste.evaluation.evaluate import evaluate
from foretaste.evaluation.protocols import Frozen
from foretaste.models.baselines.pop import Pop


@pytest.mark.parametrize(
    ("lower_id_wins", "wanted"),
    [(True, (1.1095, 1.5211, 1.2270, 5.1775)), (False, (0.962, 1.337, 1.073, 4.586))],
    ids=["ties to the lower id: the paper's row", "ties count against it"],
)
def test_most_popular_on_instant_video(shared: Path, lower_id_wins: bool, wanted: tuple[float, ...]) -> None:
    prepared = datasets.apply(datasets.recipe("amazon-instant-video-rum"), shared)
    log = prepared.sequences
    counts = np.bincount(log.of_part(TRAIN, VALIDATION).items, minlength=len(prepared.items) + 1)[1:]
    rank = np.argsort(np.argsort([int(raw) for raw in prepared.items.ids]))
    model = Pop(len(prepared.items))
    model.counts = model.counts.new_tensor(counts - lower_id_wins * rank / len(rank))
    means = evaluate(model, log, Frozen(mask_seen=True).cases(log, TEST), cutoffs=(5,)).means()
    found = [100 * means[f"{name}@5"] for name in ("precision", "recall", "f1", "hr")]
    assert found == pytest.approx(wanted, abs=6e-5 if lower_id_wins else 6e-4)
