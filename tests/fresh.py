"""New processes that need not import torch each: a server has done it once, and forks one for each question.

A fork knows what an interpreter knows that has just imported the loader of saved recommenders, and no more of this
package: no model is imported, none was ever made. Where processes do not fork, each question starts an interpreter.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

Answer = TypeVar("Answer")

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if FORKS else "spawn")
if FORKS:
    CONTEXT.set_forkserver_preload(["foretaste.models.saved", "torch._dynamo"])  # every optimiser imports the latter


def in_a_new_process(question: Callable[..., Answer], *arguments: object) -> Answer:
    """What a function of this file answers in a process of its own, which then ends."""
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
        return pool.submit(question, *arguments).result()


def models_imported() -> list[str]:
    """The files of models that this process has imported."""
    from foretaste.models import MODELS

    return sorted({target.split(":")[0] for target in MODELS.values()} & set(sys.modules))


def told_by_saved(
    folders: list[str], history: list[object], k: int, beside: dict[str, Any]
) -> dict[str, tuple[list[object], list[float], list[object]]]:
    """The ids, scores and skipped items that each saved recommender recommends after a history."""
    from foretaste.models.saved import Trained

    told = {folder: Trained.load(folder).recommend(history, k, **beside) for folder in folders}
    return {folder: (found.ids, found.scores, found.skipped) for folder, found in told.items()}


def peak_of_recommending(name: str, variant: dict[str, object], n_items: int, n_histories: int) -> int:
    """By how many MB the process grows at its peak when so many histories are answered over so many items."""
    import torch

    from foretaste.compare.cost import peak_mb
    from foretaste.data.vocabulary import Vocabulary
    from foretaste.models import model_class
    from foretaste.models.saved import Trained

    torch.set_num_threads(1)
    kind = model_class(name)
    model = kind(n_items, kind.Config.of(variant), 10).eval()
    trained = Trained(name, model, Vocabulary(list(range(n_items))), None, {})
    histories: list[list[object]] = [[n, n + 1, n + 2] for n in range(n_histories)]
    times, sessions = [[1, 50, 900]] * n_histories, [[1, 1, 2]] * n_histories
    trained.recommend_batch(histories[:2], 5, times=times[:2], sessions=sessions[:2])
    before = peak_mb()
    trained.recommend_batch(histories, 20, times=times, sessions=sessions)
    return peak_mb() - before
