"""From scores to a list: what may not appear is hidden, the best k are taken, numbers become raw ids."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, TrainingError
from foretaste.models.histories import numbers_of
from foretaste.models.topk import top_k


@dataclass(frozen=True)
class Recommendations:
    """A list of recommendations for one history, the best first. Iterating gives (id, score) pairs."""

    ids: list[Any]
    """Raw item ids."""
    scores: list[float]
    """The model's scores, only comparable with each other."""
    skipped: list[Any]
    """Items of the history that the model does not know; they were left out."""

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        return iter(zip(self.ids, self.scores, strict=True))

    def __len__(self) -> int:
        return len(self.ids)


def pool_of(
    items: Vocabulary, candidates: Sequence[Hashable] | None, device: torch.device | str = "cpu"
) -> Tensor | None:
    """[C]: the numbers of the only items to choose from, ascending; None where all may be chosen."""
    if candidates is None:
        return None
    numbers = numbers_of(items, candidates)
    if 0 in numbers:
        wrong = list(candidates)[numbers.index(0)]
        raise ConfigError(f"candidate {wrong!r} is not an item that this recommender knows")
    return torch.tensor(sorted(set(numbers)), dtype=torch.int64, device=device)  # [C]


def hide(scores: Tensor, pool: Tensor | None, never: Tensor, seen: Tensor | None) -> None:
    """Set the scores [b, C] of what may not be recommended to -inf, in place.

    `pool` [C] says which item each column is, ascending, [b, C] which one in each row; None: column c is item c + 1.
    `never` [X] are hidden in every row, `seen` [b, T] in their own; 0 is padding.
    """
    rows, columns = scores.shape
    for numbers in (never[None], seen):
        if numbers is None or not numbers.numel() or not columns:
            continue
        if pool is None:
            place, there = numbers - 1, numbers > 0                        # [1, X] or [b, T]
        else:
            own = pool.dim() == 2
            numbers = numbers.expand(rows, -1).contiguous() if own else numbers  # [b, X] where each row has its own
            place = torch.searchsorted(pool, numbers).clamp(max=columns - 1)  # [1, X] or [b, T]
            there = (pool.gather(1, place) if own else pool[place]) == numbers  # padding is in no pool
        if len(numbers) == 1:
            scores[:, place[there]] = float("-inf")
        else:
            row = torch.arange(rows, device=scores.device)[:, None].expand_as(place)  # [b, T]
            scores[row[there], place[there]] = float("-inf")


def first(name: str, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`top_k` of the scores [b, C] of model `name`, which must be numbers."""
    values, columns = top_k(scores, k)                                     # [b, k]
    if (values.isnan() | values.isposinf()).any():  # the greatest of all: one in a row is among its best
        raise TrainingError(f"model '{name}' scored NaN or infinity; its weights are damaged: train it again")
    return values, columns


def best(name: str, items: Vocabulary, scores: Tensor, pool: Tensor | None, k: int) -> list[Recommendations]:
    """The best k of each row of scores [b, C] of model `name`; what is hidden never appears, so a list may be short.

    `pool` as for `hide`."""
    values, columns = first(name, scores, k)                               # [b, k]
    numbers = columns + 1                                                  # [b, k]
    if pool is not None:
        numbers = pool[columns] if pool.dim() == 1 else pool.gather(1, columns)
    out = []
    for row, value in zip(numbers.tolist(), values.tolist(), strict=True):
        kept = [(n, v) for n, v in zip(row, value, strict=True) if v != float("-inf")]
        out.append(Recommendations(items.raw([n for n, _ in kept]), [v for _, v in kept], []))
    return out
