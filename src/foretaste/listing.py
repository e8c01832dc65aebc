"""The best items for every user of a prepared log at once, written to one file: for mails, for a cache, for a table.

Each user is answered as a service would that had taken in all of their events: a model of users from everything, one of
sessions from the session that is still open. Users whom training did not know have no id in a prepared log; they are
counted, not listed.

Two ways to more users and items than one machine would like: a part of the users each, and candidates from an index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.data.files import take_over
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import Sequences
from foretaste.data.workspace import Workspace, exactly, name, text
from foretaste.errors import ConfigError, NeedsError
from foretaste.evaluation.feeding import CHUNK, TOKENS, answers, opening, ready
from foretaste.evaluation.questions import histories
from foretaste.evaluation.ranking import MOST_ROWS, Scorer
from foretaste.models.choosing import first, hide
from foretaste.models.contract import Query, query_rows
from foretaste.models.saved import Trained
from foretaste.retrieval.approximate import DEPTHS, Approximate

FORMATS = {".parquet": "FORMAT parquet, COMPRESSION zstd", ".csv": "FORMAT csv, HEADER true"}
"""How a file is written, by the end of its name."""


@dataclass(frozen=True)
class Share:
    """Every `parts`-th of the users, from the `part`-th on: the parts together are all, and none is in two."""

    part: int = 1
    parts: int = 1

    @classmethod
    def of(cls, said: str) -> Self:
        """`3/8`: the third of eight."""
        part, slash, parts = said.partition("/")
        if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
            raise ConfigError(f"part = '{said}'; give which and of how many, from 1/8 to 8/8")
        return cls(int(part), int(parts))


def write_lists(
    trained: Trained,
    data: Prepared,
    path: str | Path,
    k: int = 10,
    *,
    leave_out_seen: bool = False,
    share: Share | None = None,
    recall: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The best `k` items for each user of the log that the recommender was trained from, its test part included.

    A row for each place of each list: user, rank, item, its title where there is one, score. `share` lists some of the
    users alone. With `recall` the items are chosen among candidates from an index that is to hold so large a share of
    the exact best (see `Approximate`), their scores exact. `progress(done, all)` is called after each block of users.
    Gives how many users were listed, how many had everything or are not known to training (of the whole log), and what
    is to be said of the index. What needs more than it finds, with `leave_out_seen` all that a user had among it, is
    made exactly.
    """
    path, log = Path(path), data.sequences
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: lists are written as {' or '.join(FORMATS)}, by the end of the name")
    if k < 1:
        raise ConfigError(f"k = {k}; give at least 1")
    if recall is not None and not 0 < recall <= 1:
        raise ConfigError(f"recall = {recall}; give a share of the exact best items that is to be found, such as 0.99")
    if data.users is None or not len(data.users):
        raise NeedsError("the log has no users, and nobody waits for a list after a session that is over")
    trained.check_items(data.items)
    if not trained.model.causal:
        raise NeedsError(
            f"model '{trained.name}' is told something of the next event (causal = False), which is to come"
        )
    if trained.users is not None and data.users.ids != trained.users.ids:
        raise ConfigError("the users of this log are not the recommender's; give the folder it was trained from")
    known = np.flatnonzero(np.asarray(log.user_numbers) > 0)
    share = share or Share()
    rows = known[share.part - 1 :: share.parts]  # [n]
    best = Best(trained, k, None if recall is None or k > max(DEPTHS) else _index(trained, recall))
    space, done, empty = Workspace(), 0, 0
    space.run("CREATE TABLE listed (who INTEGER, rank INTEGER, what INTEGER, score DOUBLE)", space.temporary)
    for size, block in _blocks(trained, log, rows, best, leave_out_seen):
        space.db.register("block", block)
        space.run("INSERT INTO listed SELECT who, rank, what, score FROM block", space.temporary)
        space.db.unregister("block")
        done, empty = done + size, empty + size - len(np.unique(block["who"]))
        if progress:
            progress(done, len(rows))
    data.users.write(space.folder / "users.parquet")
    data.items.write(space.folder / "items.parquet")
    users, items, fresh = (space.folder / one for one in ("users.parquet", "items.parquet", "lists"))
    title = f"i.{name('title')}, " if "title" in data.items.columns else ""
    lines = f"""SELECT u.id AS "user", l.rank, i.id AS item, {title}l.score FROM listed AS l
        JOIN read_parquet({exactly(users)}) AS u ON u.number = l.who
        JOIN read_parquet({exactly(items)}) AS i ON i.number = l.what ORDER BY l.who, l.rank"""
    space.run(f"COPY ({lines}) TO {text(fresh)} ({FORMATS[path.suffix]})", f"{path}: could not be written")
    take_over(path, fresh)
    facts = {"written": str(path), "users": len(rows) - empty, "k": k, "had_everything": empty}
    facts["not_in_training"] = log.n_users - len(known)
    if recall is not None:
        facts |= {"by_index": best.indexed, "index": {} if best.index is None else best.index.facts}
    return facts


class Best:
    """The best `k` of each query, of all items or of the candidates of an index."""

    def __init__(self, trained: Trained, k: int, index: Approximate | None = None) -> None:
        self.trained, self.k, self.index = trained, k, index
        self.scorer = Scorer(trained.model)
        self.indexed = 0
        """Lists that came from the index."""

    def __call__(self, query: Query, hidden: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Some rows [r] of the queries [n, ...] after the other: rows, scores and item numbers [r, k], -inf where a
        list ends. `hidden` [n, X] are the numbers that a row may not show, 0 is padding."""
        if self.index is None:
            yield from self._exact(query, hidden, torch.arange(len(hidden)))
            return
        assert isinstance(query, Tensor)
        depths = [self.index.depth_for(self.k + count) for count in (hidden > 0).sum(1).tolist()]
        for depth in set(depths):
            rows = torch.tensor([row for row, own in enumerate(depths) if own == depth])  # [r]
            if depth is not None:
                pool = self.index.search(query[rows], depth)  # [r, F]
                scores = self.index.score(query[rows][:, None], pool)  # [r, F]
                hide(scores, pool, pool.new_empty(0), hidden[rows])
                values, columns = first(self.trained.name, scores, self.k)  # [r, k]
                full = values[:, -1] > -torch.inf  # [r]
                self.indexed += int(full.sum())
                yield rows[full], values[full], pool.gather(1, columns)[full]
                rows = rows[~full]
            if len(rows):
                yield from self._exact(query, hidden, rows)

    def _exact(self, query: Query, hidden: Tensor, rows: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for some in torch.split(rows, self.scorer.block):  # [b]
            scores = self.scorer(query_rows(query, some))  # [b, I]
            hide(scores, None, some.new_empty(0), hidden[some])
            values, columns = first(self.trained.name, scores, self.k)  # [b, k]
            yield some, values, columns + 1


def _index(trained: Trained, recall: float) -> Approximate:
    """The index, where one can be made."""
    if any(weight.device.type != "cpu" for weight in trained.model.state_dict().values()):
        raise ConfigError("an index is read by the CPU: leave device at cpu, or score every item on the GPU")
    with ready(trained.model, None):
        return Approximate(trained.model, recall=recall)


def _blocks(
    trained: Trained, log: Sequences, rows: NDArray[np.int64], best: Best, leave_out_seen: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    """How many users it is about; user number, rank, item number and score of each place of their lists."""
    numbers, model = np.asarray(log.user_numbers), trained.model
    stop = np.asarray(log.users, dtype=np.int64)[rows + 1]  # [n]
    begins = opening(log, model.scope, stop - 1)  # [n]
    until = stop if leave_out_seen else np.asarray(log.users, dtype=np.int64)[rows]  # [n] what came before is left out
    with ready(model, None) as home:
        for where, _, query in answers(model, log, stop, begins, False, home, TOKENS, CHUNK):
            for start in range(0, len(where), MOST_ROWS):
                some = slice(start, min(start + MOST_ROWS, len(where)))
                row = rows[where[some]]  # [b]
                hidden = torch.from_numpy(_had(log, row, until[where[some]], model.n_items)).to(home)  # [b, X]
                for part, *found in best(query_rows(query, some), hidden):
                    values, items = (one.cpu().numpy() for one in found)  # [r, k]
                    user, place = np.nonzero(values > -np.inf)  # [m]
                    yield (
                        len(part),
                        {
                            "who": numbers[row[part.cpu().numpy()[user]]],
                            "rank": place + 1,
                            "what": items[user, place],
                            "score": values[user, place].astype(np.float64),
                        },
                    )


def _had(log: Sequences, users: NDArray[np.int64], cut: NDArray[np.int64], n_items: int) -> NDArray[np.int64]:
    """[n, X]: the distinct items that these users [n] had before these places, 0 where padded."""
    place, item = histories(log, users, cut)
    row, item = np.divmod(np.unique(place * (1 + n_items) + item), 1 + n_items)
    count = np.bincount(row, minlength=len(users))  # [n]
    out = np.zeros((len(users), count.max(initial=0)), np.int64)  # [n, X]
    out[row, np.arange(len(row)) - (np.cumsum(count) - count)[row]] = item
    return out
