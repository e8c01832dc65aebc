"""Small models, a random log, and the slow, obvious evaluation that the fast one is held against."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.evaluation.protocols import Cases
from foretaste.models.contract import Events, Query, SequenceModel, State

Scope = Literal["session", "user"]


class Bag(SequenceModel):
    """The query is the running sum of the item vectors plus the user's number. Whole numbers, so scores are exact."""

    def __init__(self, n_items: int, scope: Scope = "session", size: int = 4, span: int = 2, seed: int = 0) -> None:
        super().__init__(n_items, n_users=1000)
        self.scope = scope  # type: ignore[misc]
        rng = np.random.default_rng(seed)
        self.register_buffer("table", torch.from_numpy(rng.integers(-span, span + 1, (n_items + 1, size))).float())
        self.table[0] = 0
        self.fed: list[list[int]] = []

    def initial_state(self, users: Tensor) -> State:
        return {"sum": self.table.new_zeros(len(users), self.table.shape[1]) + (users % 3)[:, None]}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        self.fed += [row[mask].tolist() for row, mask in zip(events.items, events.mask, strict=True)]
        sums = state["sum"][:, None] + (self.table[events.items] * events.mask[..., None]).cumsum(1)
        return (sums if at is None else sums[at]), {"sum": sums[:, -1]}

    def query(self, state: State, now: Tensor | None = None) -> Query:
        return state["sum"][:, None]

    def item_matrix(self) -> Tensor:
        return self.table[1:]

    def slow(self, history: Sequence[int], user: int) -> np.ndarray:
        table = self.table.numpy().astype(np.float64)
        return table[1:] @ (table[list(history)].sum(0) + user % 3)


class Counter(SequenceModel):
    """An item's score is how often the row has it; the query has two parts and there is no item matrix."""

    def __init__(self, n_items: int, scope: Scope = "session") -> None:
        super().__init__(n_items)
        self.scope = scope  # type: ignore[misc]

    def initial_state(self, users: Tensor) -> State:
        return {"counts": torch.zeros(len(users), self.n_items + 1, dtype=torch.int64)}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        one = torch.nn.functional.one_hot(events.items, self.n_items + 1) * events.mask[..., None]
        counts = state["counts"][:, None] + one.cumsum(1)
        asked = counts if at is None else counts[at]
        return {"counts": asked, "total": asked.sum(-1)}, {"counts": counts[:, -1]}

    def query(self, state: State, now: Tensor | None = None) -> Query:
        return {"counts": state["counts"][:, None], "total": state["counts"].sum(-1, keepdim=True)}

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        assert isinstance(query, dict)
        every = torch.arange(1, self.n_items + 1) if items is None else items
        return query["counts"][..., every] - query["total"][..., None]

    def slow(self, history: Sequence[int], user: int) -> np.ndarray:
        return np.bincount(list(history), minlength=self.n_items + 1)[1:] - len(history)


class Fixed(SequenceModel):
    """The same given scores for everyone, or a fresh random row for each query."""

    scope = "session"

    def __init__(self, scores: Tensor | int) -> None:
        super().__init__(scores if isinstance(scores, int) else len(scores))
        self.scores = None if isinstance(scores, int) else scores
        self.generator = torch.Generator().manual_seed(0)

    def initial_state(self, users: Tensor) -> State:
        return {"user": users}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        return events.items[..., None].float() if at is None else events.items[at][:, None].float(), state

    def query(self, state: State, now: Tensor | None = None) -> Query:
        return state["user"][:, None, None].float()

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        assert isinstance(query, Tensor)
        if self.scores is None:
            assert items is None
            return torch.rand(*query.shape[:-1], self.n_items, generator=self.generator)
        scores = self.scores if items is None else self.scores[items - 1]
        return scores.expand(*query.shape[:-1], len(scores))


def random_log(seed: int, n_items: int = 20, n_users: int = 15, targets: bool = False) -> Sequences:
    """Users with one to four sessions of one to seven events, some cold; parts go forward within each user."""
    rng = np.random.default_rng(seed)
    lengths = [rng.integers(1, 8, size=rng.integers(1, 5)) for _ in range(n_users)]
    sessions = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    users = np.concatenate([[0], np.cumsum([row.sum() for row in lengths])]).astype(np.int64)
    size = int(users[-1])
    part = np.zeros(size, np.uint8)
    for start, stop in itertools.pairwise(users):
        part[start:stop] = np.sort(rng.choice(3, stop - start, p=[0.4, 0.2, 0.4]))
    return Sequences(
        items=np.where(rng.random(size) < 0.15, 0, rng.integers(1, n_items + 1, size)).astype(np.int32),
        users=users,
        sessions=sessions,
        part=part,
        user_numbers=np.arange(1, n_users + 1, dtype=np.int32),
        times=np.cumsum(rng.integers(1, 50, size)).astype(np.int64),
        target=rng.random(size) < 0.7 if targets else None,
    )


@dataclass
class SlowCase:
    """What the slow evaluation says of one case."""

    case: int
    targets: list[int]
    pessimistic: list[float]
    optimistic: list[float]
    history: int
    top: list[int]
    seen: set[int]


def slow_case(scores: np.ndarray, targets: Sequence[int], seen: set[int]) -> tuple[list[float], list[float]]:
    """Ranks by writing both lists down: targets behind what they tie with, and before it. Misses are infinite."""
    candidates = [item for item in range(1, len(scores) + 1) if item not in seen and scores[item - 1] > -np.inf]
    turn = {item: place for place, item in enumerate(targets)}
    worst = sorted(candidates, key=lambda item: (-scores[item - 1], item in turn, turn.get(item, 0)))
    best = sorted(candidates, key=lambda item: (-scores[item - 1], item not in turn, turn.get(item, 0)))
    return (
        [worst.index(item) + 1 if item in candidates else math.inf for item in targets],
        [best.index(item) + 1 if item in candidates else math.inf for item in targets],
    )


def slow_evaluation(model: Bag | Counter, log: Sequences, cases: Cases) -> list[SlowCase]:
    """Every case by itself, in plain Python: its history, its targets, both lists."""
    out = []
    may = log.may_be_target()
    for case in range(len(cases)):
        cut, start, stop = int(cases.cut[case]), int(cases.start[case]), int(cases.stop[case])
        offsets = log.users if model.scope == "user" else log.sessions
        user = max(row for row in range(log.n_users) if log.users[row] <= start)
        inside = cut - 1 if cases.still_open and cut > log.users[user] else cut
        begin = max(int(offset) for offset in offsets[:-1] if offset <= inside)
        history = [int(item) for item in log.items[begin:cut] if item > 0][-cases.latest :]
        targets: list[int] = []
        for event in range(start, stop):
            item = int(log.items[event])
            if not may[event] or (cases.part is not None and log.part[event] != cases.part):
                continue
            if item == 0 and cases.cold == "miss":
                targets.append(0)
            elif item > 0 and item not in targets:
                targets.append(item)
        if not targets:
            continue
        seen = {int(item) for item in log.items[log.users[user] : cut] if item > 0}
        scores = model.slow(history, int(log.user_numbers[user]))
        masked = seen if cases.mask_seen else set()
        warm = [item for item in targets if item]
        worst, best = slow_case(scores, warm, masked)
        places = [dict(zip(warm, found, strict=True)) for found in (worst, best)]
        ranks = [[place.get(item, math.inf) for item in targets] for place in places]
        left = [item for item in range(1, len(scores) + 1) if item not in masked]
        top = sorted(left, key=lambda item: (-scores[item - 1], item))
        out.append(SlowCase(case, targets, ranks[0], ranks[1], len(history), top, seen))
    return out


def slow_metrics(ranks: Sequence[float], k: int) -> dict[str, float]:
    """The metrics of one case by their definitions."""
    found = [rank for rank in ranks if rank <= k]
    recall, precision = len(found) / len(ranks), len(found) / k
    dcg = sum(1 / math.log2(rank + 1) for rank in found)
    return {
        f"recall@{k}": recall,
        f"hr@{k}": float(bool(found)),
        f"precision@{k}": precision,
        f"f1@{k}": 2 * precision * recall / (precision + recall) if found else 0.0,
        f"mrr@{k}": 1 / min(found) if found else 0.0,
        f"mrr-mean@{k}": sum(1 / rank for rank in found) / len(ranks),
        f"ndcg@{k}": dcg / sum(1 / math.log2(place + 1) for place in range(1, min(k, len(ranks)) + 1)),
        f"ndcg-fixed@{k}": dcg / sum(1 / math.log2(place + 1) for place in range(1, k + 1)),
        "mrr": 1 / min(ranks),
        "mrr-mean": sum(1 / rank for rank in ranks) / len(ranks),
    }
