"""From states to lists: what each ask may be recommended, for many asks in one scoring of the catalogue."""

from __future__ import annotations

from collections import Counter
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
from foretaste.retrieval.approximate import Approximate, Depth
from foretaste.retrieval.exact import Exact
from foretaste.serving.asks import Ask

SCORE_BYTES = 64 * 2**20
"""What a block of scores may hold."""
CHECK = 1000
"""One list in so many that came from an index is compared with the exact one."""


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

    def __init__(self, trained: Trained, index: Approximate | None, counts: Counter[str]) -> None:
        """`counts` takes, where there is an index, lists from it ("indexed") and others made exactly ("exact"); and of
        lists made both ways, the items of the exact one ("checked") and those of them that were found ("found").
        """
        self.trained = trained
        self.index = index
        self.scorer = index or Exact(trained.model)
        self.counts = counts

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
        pool = pool_of(self.trained.items, asked[0].ask.candidates)  # [C] or None
        if self.index is None or pool is not None:
            return self._scored(query, pool, asked)
        return self._found(self.index, query, asked)

    def _found(self, index: Approximate, query: Query, asked: Sequence[Asked]) -> list[Recommendations]:
        """From the index; what is deeper than it was measured for, and a list that comes out too short, exactly."""
        assert isinstance(query, Tensor)
        depths = [index.depth_for(one.ask.k + len(one.ask.exclude) + len(one.seen)) for one in asked]
        lists: dict[int, Recommendations] = {}
        for depth in set(depths):  # each as alone: an answer is not to depend on whose it came with
            places = [place for place, own in enumerate(depths) if own == depth]
            part, some = query[torch.tensor(places)], [asked[place] for place in places]  # [n, 1, D]
            made = self._scored(part, None if depth is None else index.search(part[:, 0], depth), some)
            lists.update(zip(places, made, strict=True))
        return [
            self._checked(lists[place], depths[place], query[place : place + 1], one) for place, one in enumerate(asked)
        ]

    def _checked(self, found: Recommendations, depth: Depth | None, query: Query, one: Asked) -> Recommendations:
        """The list itself, or the exact one: where it is too short, and now and then to see how good the index is."""
        if depth is None:
            self.counts["exact"] += 1
            return found
        if len(found) < one.ask.k:
            self.counts["exact"] += 1
            return self._scored(query, None, [one])[0]
        self.counts["indexed"] += 1
        if self.counts["indexed"] % CHECK == 0:
            exact = self._scored(query, None, [one])[0]
            self.counts["checked"] += len(exact)
            self.counts["found"] += len(set(exact.ids) & set(found.ids))
        return found

    def _scored(self, query: Query, pool: Tensor | None, asked: Sequence[Asked]) -> list[Recommendations]:
        """The best of the items `pool` [C] or, of each row's own, [b, C]; None: of all."""
        scores, hidden = self.scorer.score(query, pool), self._hidden(asked)  # [b, C] or [b, I], [b, X] or None
        if hidden is not None:
            scores = scores.clone()
            hide(scores, pool, hidden.new_empty(0), hidden)
        lists = best(self.trained.name, self.trained.items, scores, pool, max(one.ask.k for one in asked))
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
