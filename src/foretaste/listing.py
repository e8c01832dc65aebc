"""The best items for every user of a prepared log at once, written to one file: for mails, for a cache, for a table.

Each user is answered as a service would that had taken in all of their events: a model of users from everything, one of
sessions from the session that is still open. Users whom training did not know have no id in a prepared log; they are
counted, not listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foretaste.data.files import take_over
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import Sequences
from foretaste.data.workspace import Workspace, exactly, name, text
from foretaste.errors import ConfigError, NeedsError
from foretaste.evaluation.feeding import CHUNK, TOKENS, answers, opening, ready
from foretaste.evaluation.questions import histories
from foretaste.evaluation.ranking import Scorer
from foretaste.models.choosing import first
from foretaste.models.contract import query_rows
from foretaste.models.saved import Trained

FORMATS = {".parquet": "FORMAT parquet, COMPRESSION zstd", ".csv": "FORMAT csv, HEADER true"}
"""How a file is written, by the end of its name."""


def write_lists(
    trained: Trained,
    data: Prepared,
    path: str | Path,
    k: int = 10,
    *,
    leave_out_seen: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The best `k` items for each user of the log that the recommender was trained from, its test part included.

    A row for each place of each list: user, rank, item, its title where there is one, score. `progress(done, all)` is
    called after each block of users. Gives how many users were listed, and how many training did not know.
    """
    path, log = Path(path), data.sequences
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: lists are written as {' or '.join(FORMATS)}, by the end of the name")
    if k < 1:
        raise ConfigError(f"k = {k}; give at least 1")
    if data.users is None or not len(data.users):
        raise NeedsError("the log has no users, and nobody waits for a list after a session that is over")
    trained.check_items(data.items)
    if not trained.model.causal:
        raise NeedsError(
            f"model '{trained.name}' is told something of the next event (causal = False), which is to come"
        )
    if trained.users is not None and data.users.ids != trained.users.ids:
        raise ConfigError("the users of this log are not the recommender's; give the folder it was trained from")
    rows = np.flatnonzero(np.asarray(log.user_numbers) > 0)  # [n]
    space, done = Workspace(), 0
    space.db.execute("CREATE TABLE listed (who INTEGER, rank INTEGER, what INTEGER, score DOUBLE)")
    for size, block in _blocks(trained, log, rows, k, leave_out_seen):
        space.db.register("block", block)
        space.db.execute("INSERT INTO listed SELECT who, rank, what, score FROM block")
        space.db.unregister("block")
        done += size
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
    return {"written": str(path), "users": len(rows), "k": k, "not_in_training": log.n_users - len(rows)}


def _blocks(
    trained: Trained, log: Sequences, rows: NDArray[np.int64], k: int, leave_out_seen: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    """How many users it is about; user number, rank, item number and score of each place of their lists."""
    numbers, model = np.asarray(log.user_numbers), trained.model
    stop = np.asarray(log.users, dtype=np.int64)[rows + 1]  # [n]
    begins = opening(log, model.scope, stop - 1)  # [n]
    with ready(model, None) as home:
        scorer = Scorer(model)
        for where, _, query in answers(model, log, stop, begins, False, home, TOKENS, CHUNK):
            for start in range(0, len(where), scorer.block):
                some = slice(start, min(start + scorer.block, len(where)))
                scores, row = scorer(query_rows(query, some)), rows[where[some]]  # [b, I], [b]
                if leave_out_seen:
                    place, seen = histories(log, row, stop[where[some]])
                    scores[torch.as_tensor(place), torch.as_tensor(seen) - 1] = -torch.inf
                values, columns = (part.cpu().numpy() for part in first(trained.name, scores, k))  # [b, k]
                user, place = np.nonzero(values > -np.inf)  # [m]
                yield (
                    len(row),
                    {
                        "who": numbers[row[user]],
                        "rank": place + 1,
                        "what": columns[user, place] + 1,
                        "score": values[user, place].astype(np.float64),
                    },
                )
