"""The contract that every model keeps: one method over a small state, and one law.

    query, state = model(events, state)        # row t of the query has seen the events up to and including t

    model(a ++ b, s)  ==  model(a, s) followed by model(b, s')        (queries and final state, for every cut)

Called with a whole history it is the parallel form (training, evaluation); with one event it is the recurrent form
(serving). The law makes the two the same thing, so evaluation *is* serving. `tests/battery.py` proves it for every
registered model.

Letters, in every comment on a tensor line: B rows, T positions, N asked positions, D item embedding, H hidden,
I items, C candidates, K memory slots, W window, V visible keys (at most W). Masks are True where real.

Items are numbers 1..I; 0 is padding and is never a candidate. Scores over the whole catalogue have I columns, and
column c belongs to item c + 1: padding cannot be ranked because it has no column.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.models.layers import rows_of
from foretaste.spaces import Space

if TYPE_CHECKING:
    from foretaste.data.sequences import Sequences

State = dict[str, Tensor]
"""What a model keeps of each user: named tensors with leading [B], of a size known from the Config."""

Query = Tensor | dict[str, Tensor]
"""What the state says of the wish now: a vector [..., D], or named tensors with the same leading axes."""

DENSE = 64
"""Own candidates are read off the scores of all items, unless there are more than so many items a candidate: a product
over the catalogue is cheaper than so many scattered rows (`benchmarks/candidates_speed.py`)."""


@dataclass(frozen=True)
class Events:
    """A batch of event rows, padded on the right: the real events of a row come first.

    Shapes: every tensor is [B, T]. `columns` holds what else the log has (dwell, action, category), by name.
    No column of event t may depend on event t + 1, except in a model that declares `causal = False`.
    """

    items: Tensor
    """[B, T] int64: item numbers 1..I, 0 where padded."""
    mask: Tensor
    """[B, T] bool: True where real."""
    starts: Tensor
    """[B, T] bool: True at the first event of a session."""
    times: Tensor | None = None
    """[B, T] int64 seconds, or None where the log has no clock."""
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        histories: Sequence[Sequence[int]],
        starts: Sequence[Sequence[bool]] | None = None,
        times: Sequence[Sequence[int]] | None = None,
    ) -> Self:
        """Rows of item numbers as a batch; without `starts`, every row is one session from its beginning."""
        width = max((len(row) for row in histories), default=0)

        def padded(rows: Sequence[Sequence[int]] | Sequence[Sequence[bool]]) -> Tensor:
            out = torch.zeros(len(histories), width, dtype=torch.int64)
            for place, row in zip(out, rows, strict=True):
                place[: len(row)] = torch.as_tensor(list(row), dtype=torch.int64)
            return out

        lengths = torch.tensor([len(row) for row in histories], dtype=torch.int64)
        mask = torch.arange(width)[None, :] < lengths[:, None]
        begins = padded(starts).bool() if starts is not None else mask & (torch.arange(width) == 0)
        return cls(padded(histories), mask, begins, padded(times) if times is not None else None)

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)."""
        return self.items.shape[0], self.items.shape[1]

    def lengths(self) -> Tensor:
        """[B] int64: real events in each row."""
        return self.mask.sum(1)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            items=change(self.items),
            mask=change(self.mask),
            starts=change(self.starts),
            times=None if self.times is None else change(self.times),
            columns={name: change(column) for name, column in self.columns.items()},
        )

    def cut(self, start: int, stop: int | None = None) -> Self:
        """The positions start..stop of every row."""
        return self._map(lambda column: column[:, start:stop])

    def rows(self, index: Tensor | slice) -> Self:
        """Some rows of the batch."""
        return self._map(lambda column: column[index])

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        return self._map(lambda column: column.to(device, non_blocking=True))


class SequenceModel(nn.Module, ABC):
    """One model: neural or not. A subclass is one file, registered by one line in `foretaste.models`."""

    class Config(Settings):
        """A model without settings."""

    summary: ClassVar[str] = ""
    """One line for `foretaste models`."""
    paper: ClassVar[str] = ""
    """Where it is from."""
    scope: Literal["session", "user"] = "session"
    """What one row is: session models start afresh at each session; the caller does that, not the model. A variant may
    set its own in `__init__`."""
    needs: frozenset[str] = frozenset()
    """What the log must have: any of "users", "times", "sessions", "dwell"; by variant, see `needs_of`."""
    causal: bool = True
    """False if an event's columns know of the next event: evaluation marks it and serving refuses it. A variant may set
    its own in `__init__`."""
    carries: ClassVar[bool] = True
    """In training, too, an answer rests on the state of what came before. Where not, the loop must hand over at least
    `window` events in one piece, and no parallel rows."""
    auxiliary: Tensor | None = None
    """A scalar that `forward` leaves here in training: a loss of parameters that the main loss does not reach (DMAN's
    reconstruction). It is added to the main loss; under Adam that is the same as steps of its own."""
    learns: ClassVar[Literal["gradient", "counts"]] = "gradient"
    """How it is trained: by the loop, or by one call of `count`."""
    recipe: ClassVar[Mapping[str, object]] = {}
    """The paper's training settings, where they differ from the defaults of `training.loop.TrainConfig`."""
    by_candidate: ClassVar[tuple[str, ...]] = ()
    """Parts of `explain` that differ by the candidate."""
    per_user: ClassVar[tuple[str, ...]] = ("user.weight",)
    """Weights and buffers [1 + U, ...] with one row a user, row 0 for strangers; see `forget`."""
    space: ClassVar[Space] = {}
    """What `tune` and `compare` may try of its settings and of those of its training; nothing else is searched."""
    masters: ClassVar[tuple[str, ...]] = ()
    """Simulated logs on which it must come within 10 % of the best possible recall."""
    short_of: ClassVar[Mapping[str, str]] = {}
    """Of the simulated logs that need neither a clock nor a distant memory, those that it does not master, one name or
    several: why not."""
    beyond: ClassVar[str] = ""
    """The simulated log whose secret it cannot know: its recall must stay at the ceiling of what it can know."""
    not_applicable: ClassVar[Mapping[str, str]] = {}
    """Parts of the battery that do not apply, each with the reason."""

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__()
        self.n_items = n_items
        self.n_users = n_users
        self.config = config if config is not None else self.Config()
        self.needs = self.needs_of(self.config)

    @classmethod
    def needs_of(cls, config: Settings) -> frozenset[str]:
        """What a log must have for this variant."""
        return cls.needs

    @abstractmethod
    def initial_state(self, users: Tensor) -> State:
        """The state before the first event. `users` [B] int64 holds user numbers, 0 for one never seen."""

    @abstractmethod
    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """The one method: take in each event, then answer.

        Without `at`, the query is [B, T, ...]. With `at` [B, T] bool, only those positions are asked and the query is
        [N, ...], in row order. What the query holds at padded positions is unspecified.
        """

    @abstractmethod
    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The query [B, 1, ...] from the state alone: a new user, a state read back, the first target."""

    def item_matrix(self) -> Tensor:
        """[I, D]: row c belongs to item c + 1. Only models whose score is an inner product have one."""
        raise NotImplementedError(f"{type(self).__name__} scores each candidate by itself and has no item matrix")

    def item_bias(self) -> Tensor | None:
        """[I], added to every score, or None."""
        return None

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Scores of all items [..., I], of a shared list `items` [C], or of own candidates `items` [..., C]."""
        assert isinstance(query, Tensor)
        matrix, bias = self.item_matrix(), self.item_bias()                # [I, D], [I]
        if items is None or items.dim() == 1:
            listed = matrix if items is None else rows_of(matrix, items - 1)  # [I or C, D]
            scores = query @ listed.T                                      # [..., I or C]
        elif len(matrix) <= DENSE * items.shape[-1] and items.shape[:-1] == query.shape[:-1]:
            scores = (query @ matrix.T).gather(-1, items - 1)              # [..., C]
        else:
            scores = torch.einsum("...d,...cd->...c", query, rows_of(matrix, items - 1))  # [..., C]
        if bias is None:
            return scores
        return scores + (bias if items is None else rows_of(bias, items - 1))

    def explain(self, events: Events, state: State, items: Tensor | None = None) -> dict[str, Tensor]:
        """What the answer after each event rests on, by name.

        "attention" [B, T, V]: weights over the V newest events as seen after event t, the newest last; 0 where there
        is no such event. Where the weights are over something else, "items" [B, T, V] int64 says which item each
        belongs to, 0 for none. A model that reads its memory by the candidate gives [B, T, C, V] for `items` [C], and
        says so of the part's name in `by_candidate`.
        Models add gates and memories under their own names, [B, T, ...]. Empty if there is nothing to say.
        """
        return {}

    def count(self, log: Sequences) -> None:
        """One pass over the training log, into buffers: all the training of a model that `learns = "counts"`, and
        what another must know of the log before its first step (the width of time bins)."""
        if self.learns == "counts":
            raise NotImplementedError(f"{type(self).__name__} counts and does not say how")

    def forget(self, users: Tensor) -> None:
        """Give users [N], of whom training asked nothing, what a stranger has, in place of weights never trained."""
        tensors, table = self.state_dict(), getattr(self, "user", None)
        blank = isinstance(table, nn.Embedding) and table.padding_idx == 0  # row 0 is none: a stranger is the mean
        for name in self.per_user if len(users) else ():
            if name not in tensors:
                continue
            weight, known = tensors[name], torch.ones(1 + self.n_users, dtype=torch.bool)  # [1 + U, ...], [1 + U]
            known[0] = known[users] = False
            weight[users] = weight[known].mean(0) if blank and known.any() else weight[0].clone()

    def owned(self, users: Tensor, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The weights that belong to these users and items alone, which `l2` pulls to 0: tables [R, ...], rows [n].

        users [N] numbers, 0 for none; items [M] numbers. A row stands as often as it is named: what a step touches
        twice is pulled twice.
        """
        raise NotImplementedError(f"{type(self).__name__} names no weights of its own users and items: leave l2 at 0")


def query_rows(query: Query, index: Tensor | slice) -> Query:
    """Some rows of a query, whether it is one tensor or several."""
    return query[index] if isinstance(query, Tensor) else {name: part[index] for name, part in query.items()}


def query_length(query: Query) -> int:
    """Size of the first axis of a query."""
    return (query if isinstance(query, Tensor) else next(iter(query.values()))).shape[0]


def query_cat(first: Query, second: Query) -> Query:
    """The rows of one query [N, ...], then those of `second` [M, 1, ...], which a model gave from its state alone."""
    if isinstance(first, Tensor):
        assert isinstance(second, Tensor)
        return torch.cat([first, second[:, 0]])
    assert isinstance(second, dict)
    return {name: torch.cat([part, second[name][:, 0]]) for name, part in first.items()}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside, and leave the caller's generators as they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
