"""The whole way in a few minutes: a real log in, a trained NARM, an honest number, ten recommendations with reasons."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from foretaste.errors import ForetasteError

if TYPE_CHECKING:
    from foretaste.data.events import EventLog
    from foretaste.recommender import Recommender

NARM_SETTINGS = {
    "embedding_size": 64,
    "hidden_size": 64,
    "window": 50,
    "learning_rate": 4e-3,
    "schedule": "cosine",
    "epochs": 8,
    "patience": 2,
    "batch": 256,
}
"""Small enough for two cores and three minutes."""

SHOWN = 10


def run(*, simulated: bool = False) -> dict[str, Any]:
    """Run the demo, telling on standard error what it does; gives the numbers and the list as plain data."""
    from foretaste.data.sequences import TEST, VALIDATION
    from foretaste.data.splits import GlobalTime
    from foretaste.evaluation.protocols import PerStep
    from foretaste.recommender import Recommender
    from foretaste.training.progress import Live

    name, log = ("a simulated shop", _shop()) if simulated else _movielens()
    _say(f"1. The log: {name}")
    prepared = log.prepare(GlobalTime(fraction=0.1), validation=GlobalTime(fraction=0.1))
    _say(prepared.report())

    _say("\n2. Training NARM (8 passes at most; the best on the validation part is kept)")
    narm = Recommender("narm", **NARM_SETTINGS).fit(prepared, report=Live())
    pop = Recommender("pop").fit(prepared)

    _say("\n3. Every event of the test part, ranked among all items")
    facts: dict[str, Any] = {"log": name, "models": {}}
    for recommender in (pop, narm):
        found = recommender.evaluate(prepared, protocol=PerStep(), cutoffs=(10, 20))
        facts["models"][recommender.name] = found.as_dict()
        _say(f"\n{recommender.name}\n{found.table()}")

    history = _a_history(prepared)
    facts["recommendations"] = _recommend(narm, history)
    assert TEST > VALIDATION
    return facts


def _shop() -> EventLog:
    from foretaste.data.simulate import shop

    return shop(seed=0).log()


def _movielens() -> tuple[str, EventLog]:
    """MovieLens-100K, or the shop with a sentence why."""
    from foretaste.data import datasets
    from foretaste.data.movielens import movielens_100k

    try:
        folder = movielens_100k()
    except ForetasteError as error:
        _say(f"MovieLens-100K is not to be had here ({error}); a simulated shop takes its place.")
        return "a simulated shop", _shop()
    return "MovieLens-100K", datasets.movielens_log(folder)


def _a_history(prepared: Any) -> list[Any]:
    """Raw ids of the test user with the median history length among those with ten events or more."""
    import numpy as np

    from foretaste.data.sequences import TEST

    log = prepared.sequences
    owner = np.searchsorted(log.users, np.flatnonzero(np.asarray(log.part) == TEST), side="right") - 1
    rows = np.unique(owner)
    lengths = np.diff(log.known[log.users])[rows]
    rows = rows[lengths >= min(10, lengths.max())]
    row = rows[np.argsort(np.diff(log.known[log.users])[rows], kind="stable")[len(rows) // 2]]
    numbers = np.asarray(log.items[log.users[row] : log.users[row + 1]])
    history: list[Any] = prepared.items.raw(numbers[numbers > 0].tolist())
    return history


def _recommend(recommender: Recommender, history: list[Any]) -> dict[str, Any]:
    items = recommender.trained.items
    titles = dict(zip(items.ids, items.columns.get("title", items.ids), strict=True))
    found = recommender.recommend(history, SHOWN, leave_out_seen=True)
    reasons = sorted(recommender.explain(history)["attention"], key=lambda pair: -pair[1])[:3]
    _say(f"\n4. A user of the test part, after {len(history)} events. The last five:")
    for raw in history[-5:]:
        _say(f"     {titles[raw]}")
    _say("   What NARM would show next:")
    for place, (raw, _) in enumerate(found, start=1):
        _say(f"   {place:2}. {titles[raw]}")
    _say("   The three past events that weighed most:")
    for raw, weight in reasons:
        _say(f"     {weight:4.0%}  {titles[raw]}")
    return {
        "history": history,
        "items": found.ids,
        "titles": [titles[raw] for raw in found.ids],
        "because": [[raw, weight] for raw, weight in reasons],
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
