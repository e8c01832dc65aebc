"""From states to lists: what each ask may be recommended, for many asks in one scoring of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from foretaste.errors import ConfigError, ForetasteError
from foretaste.models.choosing import Recommendations, best, hide, pool_of
from foretaste.models.contract import Query, State, query_rows
from foretaste.models.histories import numbers_of
from foretaste.models.saved import Trained
from foretaste.retrieval.exact import Exact
from foretaste.serving.asks import Ask

SCORE_BYTES = 64 * 2**20
"""What a block of scores may hold."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An ask that wants recommendations."""

    row: int
    """Of the batch of states."""
    ask: Ask
    seen: Sequence[int]
    """Numbers of items to leave out beside the ask's own `exclude`."""


class Chooser:
    """Scores and chooses for a trained model."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self.exact = Exact(trained.model)

    def check(self, ask: Ask) -> None:
        """Refuse a wish that cannot be granted, before anything is taken in."""
        if not isinstance(ask.k, int) or isinstance(ask.k, bool) or ask.k < 0:
            raise ConfigError(f"k = {ask.k!r}; ask for a whole number of recommendations")
        if ask.now is not None and not (isinstance(ask.now, int | float) and 0 <= ask.now < 1e18):
            raise ConfigError(f"now = {ask.now!r}; expected seconds since 1970")
        if ask.exclude:
            numbers_of(self.trained.items, ask.exclude)
        pool_of(self.trained.items, ask.candidates)

    def best(self, state: State, asked: Sequence[Asked]) -> dict[int, Recommendations | ForetasteError]:
        """Row -> its list, or what is wrong with its scores."""
        if not asked:
            return {}
        timed = [one for one in asked if one.ask.now is not None]
        if timed and len(timed) < len(asked):  # an answer is not to depend on whose it came together with
            return self.best(state, timed) | self.best(state, [one for one in asked if one.ask.now is None])
        rows = [one.row for one in asked]
        if rows != list(range(len(next(iter(state.values()))))):
            state = {name: part[torch.tensor(rows)] for name, part in state.items()}  # {[b, ...]}
        now = torch.tensor([int(one.ask.now or 0) for one in timed]) if timed else None  # [b]
        query = self.trained.model.query(state, now)  # [b, 1, ...]
        free = [place for place, one in enumerate(asked) if one.ask.candidates is None]
        bound = [[place] for place, one in enumerate(asked) if one.ask.candidates is not None]
        step = max(1, SCORE_BYTES // (4 * self.trained.model.n_items))
        out: dict[int, Recommendations | ForetasteError] = {}
        for block in [*(free[first : first + step] for first in range(0, len(free), step)), *bound]:
            wishes = [asked[place] for place in block]
            part = query if len(block) == len(asked) else query_rows(query, torch.tensor(block))
            answers = self._block(part, wishes)
            out.update({one.row: answer for one, answer in zip(wishes, answers, strict=True)})
        return out

    def _block(self, query: Query, asked: Sequence[Asked]) -> list[Recommendations | ForetasteError]:
        try:
            return list(self._lists(query, asked))
        except ForetasteError as error:
            if len(asked) == 1:
                return [error]
        return [self._block(query_rows(query, slice(i, i + 1)), [one])[0] for i, one in enumerate(asked)]

    def _lists(self, query: Query, asked: Sequence[Asked]) -> list[Recommendations]:
        items, pool = self.trained.items, pool_of(self.trained.items, asked[0].ask.candidates)  # [C] or None
        scores = self.exact.score(query, pool)  # [b, C] or [b, I]
        hidden = self._hidden(asked)  # [b, X] or None
        if hidden is not None:
            scores = scores.clone()
            hide(scores, pool, hidden.new_empty(0), hidden)
        lists = best(self.trained.name, items, scores, pool, max(one.ask.k for one in asked))
        cut = [(found, one.ask.k) for found, one in zip(lists, asked, strict=True)]
        return [
            found if len(found) <= k else replace(found, ids=found.ids[:k], scores=found.scores[:k]) for found, k in cut
        ]

    def _hidden(self, asked: Sequence[Asked]) -> Tensor | None:
        """[b, X]: the numbers of what each row may not be shown, 0 where padded; None if there are none."""
        rows = [[*numbers_of(self.trained.items, one.ask.exclude), *one.seen] for one in asked]
        width = max(map(len, rows))
        if not width:
            return None
        hidden = np.zeros((len(rows), width), np.int64)
        for place, numbers in enumerate(rows):
            hidden[place, : len(numbers)] = numbers
        return torch.from_numpy(hidden)
