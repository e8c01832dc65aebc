"""Cases made ready to be asked: the distinct targets of each, and what is known of them before any model runs."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.data.sequences import Sequences
from foretaste.errors import DataError
from foretaste.evaluation.protocols import Bools, Cases, Ints
from foretaste.models.rows import ranges


@dataclass(frozen=True)
class Questions:
    """n cases with m targets; those of case i are offsets[i] .. offsets[i + 1], at least one."""

    cut: Ints
    """[n]: the history is what comes before it."""
    offsets: Ints
    items: NDArray[np.int32]
    """[m]: 0 if cold. The known targets of one case are distinct."""
    user: Ints
    """[n]: row of the user."""
    repeated: Bools
    """[m]: the user's history before the cut holds the target."""
    cold_targets: int
    all_targets: int
    """Targets before cold ones were dropped."""
    left_out: int
    """Cases without any target, or left without when cold ones were dropped."""
    fingerprint: str
    """Equal for two models that were asked the same."""

    def __len__(self) -> int:
        return len(self.cut)

    def seen(self, log: Sequences, cases: Ints) -> tuple[Ints, Ints]:
        """Known items of the users' histories: see `histories`."""
        return histories(log, self.user[cases], self.cut[cases])


def histories(log: Sequences, users: Ints, cut: Ints) -> tuple[Ints, Ints]:
    """Known items of these users [n] (rows of the log) before these places: (place in `users`, item), as often as it
    occurs."""
    start = np.asarray(log.users, dtype=np.int64)[users]
    items = np.asarray(log.items)[ranges(start, cut)].astype(np.int64)
    place = np.repeat(np.arange(len(users)), cut - start)
    return place[items > 0], items[items > 0]


def questions(log: Sequences, cases: Cases, n_items: int) -> Questions:
    """The distinct targets of each case. A cold item has no number, so cold events count one by one."""
    _check(log, cases, n_items)
    events = ranges(cases.start, cases.stop)  # [m] flat places
    case = np.repeat(np.arange(len(cases)), cases.stop - cases.start)  # [m]
    keep = log.may_be_target()[events]
    if cases.part is not None:
        keep &= np.asarray(log.part)[events] == cases.part
    items = np.asarray(log.items)[events]
    if len(events) > len(cases):
        keep &= _first_of_its_kind(case, items, keep, n_items)
    all_targets, cold_targets = int(keep.sum()), int((keep & (items == 0)).sum())
    if cases.cold == "drop":
        keep &= items > 0
    case, items = case[keep], items[keep]
    asked, count = np.unique(case, return_counts=True)  # [n] cases with a target
    if not len(asked):
        raise DataError(
            f"none of the {len(cases):,} cases ({cases.protocol}) has a target left: of {all_targets:,} targets "
            f"{cold_targets:,} are no candidates; keep them with cold='miss', or prepare with candidates='all'"
        )
    cut, start = cases.cut[asked], cases.start[asked]
    user = np.searchsorted(log.users, start, side="right") - 1  # [n]
    repeated = _repeated(log, user, cut, np.repeat(np.arange(len(asked)), count), items, n_items)
    digest = blake2b(digest_size=16)
    shown = [*([cases.latest] if cases.latest else []), *([-1] if cases.still_open else [])]
    for array in (cut, start, count, items.astype(np.int64), np.array([n_items, len(log), cases.mask_seen, *shown])):
        digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
    return Questions(
        cut=cut,
        offsets=np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        items=items,
        user=user,
        repeated=repeated,
        cold_targets=cold_targets,
        all_targets=all_targets,
        left_out=len(cases) - len(asked),
        fingerprint=digest.hexdigest(),
    )


def tiers(items: NDArray[Any], popularity: NDArray[Any]) -> NDArray[np.int8]:
    """For each target: 0 among the most popular items that make up a third of training, 1 the next third, 2 the rest,
    3 cold. `popularity` [I] holds training counts."""
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]  # [I] events on more popular items
    tier = np.full(len(popularity) + 1, 3, np.int8)
    tier[order + 1] = np.minimum(3 * before // max(1, popularity.sum()), 2)
    tier[1:][popularity == 0] = 2
    found: NDArray[np.int8] = tier[items]
    return found


def _check(log: Sequences, cases: Cases, n_items: int) -> None:
    if not len(cases):
        raise DataError(
            f"the protocol ({cases.protocol}) finds nothing to ask in this log; choose another part or protocol, or "
            "prepare the log with a split"
        )
    if cases.cut.min() < 0 or cases.stop.max() > len(log):
        raise DataError(
            f"the cases reach from event {cases.cut.min()} to {cases.stop.max()}, the log has {len(log):,} events; "
            "make the cases from the log that is evaluated"
        )
    users = np.searchsorted(log.users, [cases.cut, cases.stop - 1], side="right")
    if (users[0] != users[1]).any():
        case = int(np.flatnonzero(users[0] != users[1])[0])
        raise DataError(
            f"case {case} has its cut at event {cases.cut[case]} and its targets at {cases.start[case]} to "
            f"{cases.stop[case]}, of another user; a case lies within one user"
        )
    highest = int(np.asarray(log.items).max(initial=0))
    if highest > n_items:
        raise DataError(
            f"the log has an item numbered {highest}, the model knows {n_items} items; evaluate on the prepared log "
            "that the model was trained from"
        )


def _first_of_its_kind(case: Ints, items: NDArray[Any], keep: Bools, n_items: int) -> Bools:
    """[m]: True for cold targets, and where a known item stands for the first time among the kept ones of its case."""
    out: Bools = np.asarray(items == 0)
    known = np.flatnonzero(keep & (items > 0))
    _, first = np.unique(case[known] * (n_items + 1) + items[known], return_index=True)
    out[known[first]] = True
    return out


def _repeated(log: Sequences, user: Ints, cut: Ints, case: Ints, items: NDArray[Any], n_items: int) -> Bools:
    """[m]: does the target occur in the user's events before the cut? By the place of its first occurrence."""
    users, row = np.unique(user, return_inverse=True)  # the users that are asked about
    start, stop = np.asarray(log.users)[users], np.asarray(log.users)[users + 1]
    events = ranges(start, stop)
    key = np.repeat(np.arange(len(users)), stop - start) * (n_items + 1) + np.asarray(log.items)[events]
    keys, first = np.unique(key, return_index=True)
    found = np.searchsorted(keys, row[case] * (n_items + 1) + items)
    out: Bools = (events[first[found]] < cut[case]) & (items > 0)
    return out
