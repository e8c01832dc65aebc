"""Run a model over the cases of a log: each row once, every target ranked among all items.

A row (a session or a user, by the model's scope) is fed once, up to its last cut and never beyond, and asked at every
position where a case is cut: the parallel form of the model (feeding.py). Where cases show the latest events alone,
each is a row. Scores are held for one block of cases at a time.

The share of repeats, and `mask_seen`, go by the user's whole history before the cut, whatever the model's scope, so
that they mean the same for every model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foretaste.data.sequences import PARTS, TRAIN, Scope, Sequences
from foretaste.errors import ConfigError, NeedsError
from foretaste.evaluation.feeding import CHUNK, TOKENS, answers, opening, ready
from foretaste.evaluation.metrics import Lists
from foretaste.evaluation.protocols import Cases, Product
from foretaste.evaluation.questions import Questions, questions, tiers
from foretaste.evaluation.ranking import MISS, Ints, ScoreError, Scorer, rank
from foretaste.evaluation.report import Evaluation, Facts
from foretaste.models.contract import SequenceModel, query_rows
from foretaste.models.rows import ranges
from foretaste.models.topk import top_k

__all__ = ["Evaluation", "evaluate"]

FEW = 30
"""Users below which a percentile bootstrap is known to be too sure."""

Progress = Callable[[int, int], None]


def evaluate(
    model: SequenceModel,
    sequences: Sequences,
    cases: Cases,
    *,
    cutoffs: Sequence[int] = (20,),
    block: int | None = None,
    popularity: NDArray[Any] | None = None,
    lists: bool = False,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    name: str | None = None,
    tokens: int = TOKENS,
    chunk: int = CHUNK,
) -> Evaluation:
    """Rank every target of every case among all items.

    `block` cases are scored at a time (None: what 64 MB hold). `popularity` [I] are training counts (None: counted in
    the parts before the cases' own); they split targets into head, middle and tail. `lists` also looks at the lists of
    the largest cut-off: coverage, popularity bias, repeats. `device` is where the model runs (None: where it is).
    `progress(done, all)` is called after each block. Raises ScoreError if a score is not a number.
    """
    began = time.perf_counter()
    if not model.causal and cases.protocol == Product.name:
        raise NeedsError(
            f"{name or type(model).__name__} with this config is told something of the next event (causal = False): "
            "the product protocol asks what a service could answer; train its causal variant, or take another protocol"
        )
    cutoffs = _checked(cutoffs)
    asked = questions(sequences, cases, model.n_items)
    counts = _counts(sequences, cases, model.n_items) if popularity is None else np.asarray(popularity)
    shown = Lists(max(cutoffs), counts) if lists else None
    name = name or type(model).__name__
    ranks = np.full((2, len(asked.items)), MISS, np.int64)  # [2, m] pessimistic, optimistic
    tied = np.zeros(len(asked.items), bool)  # [m]
    history = np.zeros(len(asked), np.int64)  # [n]
    done = 0
    with ready(model, device) as home:
        scorer = Scorer(model, block)
        begins = _begins(sequences, model.scope, asked, cases)
        for where, known, query in answers(
            model, sequences, asked.cut, begins, bool(cases.latest), home, tokens, chunk
        ):
            history[where] = known
            for first in range(0, len(where), scorer.block):
                some = slice(first, min(first + scorer.block, len(where)))
                ids = where[some]
                scores = scorer(query_rows(query, some))  # [block, I]
                place, seen = asked.seen(sequences, ids) if cases.mask_seen or shown else (None, None)
                if cases.mask_seen:
                    scores[torch.as_tensor(place), torch.as_tensor(seen) - 1] = -torch.inf
                size = asked.offsets[ids + 1] - asked.offsets[ids]
                target = ranges(asked.offsets[ids], asked.offsets[ids + 1])
                row, warm = np.repeat(np.arange(len(ids)), size), asked.items[target] > 0
                try:
                    found = rank(scores, row[warm], asked.items[target[warm]].astype(np.int64))
                except ScoreError as error:
                    raise _not_a_number(model, name, error, asked, ids, known[some]) from None
                ranks[:, target[warm]] = found.pessimistic, found.optimistic
                tied[target[warm]] = found.tied
                if shown:
                    _look(shown, scores, ids, place, seen)
                done += len(ids)
                if progress:
                    progress(done, len(asked))
    notes = [*_notes(model, name, cases, asked, cutoffs)]
    unlearnt = float((counts[asked.items[asked.items > 0] - 1] == 0).sum()) / asked.all_targets
    if unlearnt:
        notes.append(
            f"{100 * unlearnt:.2f} % of the targets are candidates that no event of the training has: what {name} says "
            "of them it has not learnt"
        )
    if model.scope == "session" and not history.any() and tied[asked.items > 0].all():
        notes.append(
            f"{name} reads one session and has seen nothing of it in any case, so all items tie: ask per-step, or take "
            "a model whose row is a user (`foretaste models`)"
        )
    facts = Facts(
        model=name,
        protocol=cases.protocol,
        part="all parts" if cases.part is None else f"{PARTS[cases.part]} part",
        n_items=model.n_items,
        cutoffs=cutoffs,
        leaks=cases.leaks,
        later=cases.later,
        mask_seen=cases.mask_seen,
        cold=cases.cold,
        cold_targets=asked.cold_targets,
        all_targets=asked.all_targets,
        fingerprint=asked.fingerprint,
        coverage=shown.coverage if shown else None,
        notes=tuple(notes),
        seconds=time.perf_counter() - began,
    )
    return Evaluation(
        facts=facts,
        offsets=asked.offsets,
        items=asked.items,
        pessimistic=ranks[0],
        optimistic=ranks[1],
        tied=tied,
        repeated=asked.repeated,
        tier=tiers(asked.items, counts),
        history=history,
        clusters=asked.user,
        lists=shown.of_cases() if shown else {},
    )


def _begins(log: Sequences, scope: Scope, asked: Questions, cases: Cases) -> Ints:
    """[n]: where that begins which a model of this scope is shown of each case."""
    inside = np.maximum(asked.cut - 1, np.asarray(log.users)[asked.user]) if cases.still_open else asked.cut
    begins = opening(log, scope, inside)
    latest = np.searchsorted(log.known, log.known[asked.cut] - cases.latest, side="right") - 1
    return np.maximum(begins, latest) if cases.latest else begins


def _look(shown: Lists, scores: torch.Tensor, ids: Ints, place: Any, seen: Any) -> None:
    """Put the lists of one block on record."""
    values, columns = top_k(scores, shown.k)  # [n, K]
    items = columns.cpu().numpy() + 1  # [n, K]
    width = scores.shape[1] + 1
    key = np.arange(len(ids))[:, None] * width + items  # [n, K]
    shown.add(ids, items, values.cpu().numpy() > -np.inf, np.isin(key, place * width + seen))


def _counts(log: Sequences, cases: Cases, n_items: int) -> Ints:
    """[I]: occurrences of each item in the parts before that of the cases."""
    items = np.asarray(log.items)
    learnt = items[np.asarray(log.part) < cases.part] if cases.part else items[np.asarray(log.part) == TRAIN]
    counts: Ints = np.bincount(learnt, minlength=n_items + 1)[1:]
    return counts


def _checked(cutoffs: Sequence[int]) -> tuple[int, ...]:
    lengths = tuple(sorted(set(cutoffs))) if isinstance(cutoffs, Iterable) else ()
    if not lengths or any(k < 1 or k != int(k) for k in lengths):
        raise ConfigError(f"cutoffs = {cutoffs}; expected one or more list lengths of 1 or more, such as (5, 10, 20)")
    return lengths


def _notes(model: SequenceModel, name: str, cases: Cases, asked: Questions, cutoffs: tuple[int, ...]) -> Iterator[str]:
    if not model.causal:
        yield f"{name} is told something of the next event (causal = False): no service can reach this figure"
    if cases.part == TRAIN:
        yield "these are training events: the figures say how well they are remembered, not what will come"
    if asked.left_out:
        yield f"{asked.left_out:,} cases had no target left and were not asked"
    if max(cutoffs) >= model.n_items:
        yield f"a list of {max(cutoffs)} holds all {model.n_items} items, so every known target is on it"
    drawn = len(np.unique(asked.user))
    if drawn < FEW:
        yield f"{drawn} users (or sessions without a user) are few: the true interval is wider than the one shown"


def _not_a_number(
    model: SequenceModel, name: str, error: ScoreError, asked: Questions, ids: Ints, known: Ints
) -> ScoreError:
    if error.row is None:
        return error
    case = ids[error.row]
    broken = [key for key, part in model.state_dict().items() if part.is_floating_point() and not part.isfinite().all()]
    cause = f"NaN or infinity stands in its {', '.join(broken[:3])}" if broken else "its weights are all finite numbers"
    return ScoreError(
        f"{name}: the scores of case {case} (cut at event {asked.cut[case]}, after {known[error.row]} known events) "
        f"hold NaN or infinity, so nothing can be ranked; {cause}. Train again with a lower learning rate or clipped "
        "gradients, or go back to an earlier checkpoint",
        error.row,
    )
