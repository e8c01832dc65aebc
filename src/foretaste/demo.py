"""The whole way in a few minutes: a real log in, a trained NARM, an honest number, ten recommendations with reasons."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from foretaste.errors import ForetasteError

if TYPE_CHECKING:
    from foretaste.data.events import EventLog
    from foretaste.data.prepared import Prepared
    from foretaste.evaluation.evaluate import Evaluation

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

METRICS = ("recall@20", "mrr@20")
SHOWN = 10
LATEST = 5


def run(*, simulated: bool = False) -> tuple[dict[str, Any], str]:
    """The numbers and the list, as plain facts and as text; what it does meanwhile is told on standard error."""
    import torch

    from foretaste.answers import answered
    from foretaste.data.splits import GlobalTime
    from foretaste.memory import keep_freed
    from foretaste.recommender import Recommender
    from foretaste.training.progress import Live, Ranked

    keep_freed()
    torch.set_num_threads(1)  # for logs of this size more threads only wait for each other
    name, log = ("a simulated shop", _shop()) if simulated else _movielens()
    _say(f"1. Preparing {name}: the newest tenth is the test, the newest tenth of the rest chooses the best pass\n")
    prepared = log.prepare(GlobalTime(fraction=0.1), validation=GlobalTime(fraction=0.1))
    _say(prepared.report())

    _say(f"\n2. Training NARM: {NARM_SETTINGS['epochs']} passes at most")
    narm = Recommender("narm", **NARM_SETTINGS).fit(prepared, report=Live())
    pop = Recommender("pop").fit(prepared)

    _say("\n3. Asking for every event of the test part\n")
    found = {one.name: one.evaluate(prepared, cutoffs=(20,), progress=Ranked()) for one in (pop, narm)}

    history = _a_history(prepared)
    answer, listed = answered(narm, history, SHOWN, leave_out_seen=True)
    titles = prepared.items.columns["title"]
    latest = [titles[prepared.items.number(raw) - 1] for raw in history[-LATEST:]]
    facts = {
        "log": name,
        "models": {one: evaluation.as_dict() for one, evaluation in found.items()},
        "history": history,
        "recommendations": answer,
    }
    lines = [
        *_table(name, found),
        "",
        f"Somebody in the test part, after {len(history)} events. The last {len(latest)}:",
        *(f"      {title}" for title in latest),
        "",
        "What NARM would show next, new to them:",
        listed,
    ]
    return facts, "\n".join(lines)


def _shop() -> EventLog:
    from foretaste.data.simulate import shop

    return shop(seed=0).log()


def _movielens() -> tuple[str, EventLog]:
    """MovieLens-100K, or the shop with a sentence why."""
    from foretaste.data import datasets
    from foretaste.data.movielens import movielens_100k

    try:
        return "MovieLens-100K", datasets.movielens_log(movielens_100k())
    except ForetasteError as error:
        _say(f"{error}.\nA simulated shop takes its place.")
        return "a simulated shop", _shop()


def _table(name: str, found: dict[str, Evaluation]) -> list[str]:
    """Both models by both metrics, and whether the difference is more than chance."""
    pop, narm = found["pop"], found["narm"]
    head = "".join(f"{metric:>12}  {'95 % interval':<16}" for metric in METRICS)
    lines = [
        f"{name[0].upper()}{name[1:]}: {len(narm):,} events of the test part, "
        f"each ranked among all {narm.facts.n_items:,} items",
        "",
        f"{'':8}{head}".rstrip(),
    ]
    for one, evaluation in found.items():
        means, spans = evaluation.means(), evaluation.intervals
        cells = [
            f"{100 * means[metric]:>10.2f} %  {f'{100 * spans[metric][0]:.2f} to {100 * spans[metric][1]:.2f}':<16}"
            for metric in METRICS
        ]
        lines.append(f"{one.upper():8}{''.join(cells)}".rstrip())
    gap = narm.against(pop, METRICS[0])
    lines += [
        "",
        f"NARM - POP: {100 * gap.difference:+.2f} points of {METRICS[0]} "
        f"(95 % interval {100 * gap.low:+.2f} to {100 * gap.high:+.2f}, p = {gap.p_randomisation:.2g})",
    ]
    return lines


def _a_history(prepared: Prepared) -> list[Any]:
    """Raw ids of one session of the test part, or of one user where there are no sessions, of a usual length."""
    import numpy as np

    from foretaste.data.sequences import TEST

    log = prepared.sequences
    tests = np.flatnonzero(np.asarray(log.part) == TEST)
    rows = np.unique(np.searchsorted(log.sessions, tests, side="right") - 1)
    lengths = np.diff(log.known[log.sessions])[rows]
    long_enough = lengths >= min(SHOWN, lengths.max())
    rows, lengths = rows[long_enough], lengths[long_enough]
    row = rows[np.argsort(lengths, kind="stable")[len(rows) // 2]]
    numbers = np.asarray(log.items[log.sessions[row] : log.sessions[row + 1]])
    return prepared.items.raw(numbers[numbers > 0].tolist())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
