"""Negatives: items that are set against a target, and how likely each of them was to be drawn.

Laws: uniform, popularity to a power (0 is uniform, 1 is the log's own share), and the other targets of the batch.
Randomness is a `torch.Generator` that the caller passes in; `generator(seed, epoch, step)` makes one that a resumed run
makes again.

What a row may not get as a negative: its own target, and the items that its user has touched *so far* (touched.py).
Items that the user will touch later are left in on purpose: to leave them out is to look into the future, and, where
the future is the test part, into the answers.

Two ways to draw. Own negatives [N, M]: a clash is drawn again, up to `REDRAWS` times. A pool [M] that all rows share:
a clash is masked in its row. What still clashes is masked, so `real` has the last word.

`log_q` is the logarithm of the expected number of times an item is among a row's negatives, for the correction of
sampled softmax. It is exact for every way of drawing: masking leaves M q; R redraws make it M q (1 + c + ... + c^R),
where c is the probability of a clash.

Letters: N rows, M negatives, I items.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError
from foretaste.training.touched import Past

REDRAWS = 8
"""Times that a clashing negative is drawn again."""


@dataclass(frozen=True)
class Negatives:
    """What N targets are compared with."""

    items: Tensor
    """[M] for a shared pool, [N, M] for own ones: item numbers 1..I."""
    real: Tensor
    """[N, M] bool: False where the item is no negative of this row."""
    log_q: Tensor
    """Shaped as `items`: log of the expected number of times that the item is drawn for a row."""
    log_q_target: Tensor
    """[N]: the same of the row's target."""

    def of(self, rows: Tensor) -> Negatives:
        """Those of some targets, by a mask or by numbers; a pool stays whole."""
        items, log_q = (part if self.items.dim() == 1 else part[rows] for part in (self.items, self.log_q))
        return Negatives(items, self.real[rows], log_q, self.log_q_target[rows])


class Source(Protocol):
    """What the training loop asks for negatives."""

    def sample(
        self, targets: Tensor, count: int, generator: torch.Generator, *, exclude: Past | None = None
    ) -> Negatives:
        """`count` negatives for each of the targets [N] (columns 0..I-1), none of them in `exclude`."""
        ...


class Sampler(ABC):
    """A law over the items 1..I, drawn from with replacement. With `shared`, one pool serves all rows of a batch."""

    def __init__(self, n_items: int, *, shared: bool = False) -> None:
        if n_items < 2:
            raise ConfigError(f"negatives need a catalogue of at least 2 items, found {n_items}; use loss = 'softmax'")
        self.n_items = n_items
        self.shared = shared

    @abstractmethod
    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Item numbers of this shape, on the generator's device."""

    @abstractmethod
    def log_q(self, items: Tensor) -> Tensor:
        """Log of the probability that one draw gives each item."""

    def sample(
        self, targets: Tensor, count: int, generator: torch.Generator, *, exclude: Past | None = None
    ) -> Negatives:
        """`count` negatives for each of the targets [N] (columns 0..I-1), none of them in `exclude`."""
        if count < 1:
            raise ConfigError(f"negatives must be at least 1, found {count}")
        own = targets + 1  # [N]
        if self.shared:
            items = self.draw((count,), generator).to(targets.device)  # [M]
            often = math.log(count)
            return Negatives(items, ~_clash(own, items, exclude), self.log_q(items) + often, self.log_q(own) + often)
        items = self.draw((len(own), count), generator).to(targets.device)  # [N, M]
        clash = _clash(own, items, exclude)  # [N, M]
        for _ in range(REDRAWS):
            again = int(clash.sum())
            if not again:
                break
            items[clash] = self.draw((again,), generator).to(targets.device)
            clash = _clash(own, items, exclude)
        chance = self.log_q(own).exp()  # [N]
        if exclude is not None:
            chance = torch.where(exclude.holds(own[:, None])[:, 0], 0, chance) + exclude.mass(self.log_q)
        powers = torch.arange(REDRAWS + 1, device=targets.device)
        often_each = (count * (chance[:, None] ** powers).sum(1)).log()  # [N]
        return Negatives(items, ~clash, self.log_q(items) + often_each[:, None], self.log_q(own) + often_each)


class Uniform(Sampler):
    """Every item alike."""

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(1, self.n_items + 1, shape, generator=generator, device=generator.device)

    def log_q(self, items: Tensor) -> Tensor:
        return torch.full(items.shape, -math.log(self.n_items), device=items.device)


class Popularity(Sampler):
    """q(i) in proportion to count(i)^power.

    An item that was never counted is drawn like one that was counted once, so that every probability is above zero.
    Drawn by Walker's alias method: one integer and one number in [0, 1) a draw, whatever the size of the catalogue.
    """

    def __init__(self, counts: ArrayLike, power: float = 0.75, *, shared: bool = False) -> None:
        seen = np.asarray(counts, dtype=np.float64)  # [I]
        super().__init__(len(seen), shared=shared)
        if not np.all(np.isfinite(seen)) or seen.min() < 0:
            raise ConfigError("counts of items must be finite and not negative")
        law = np.maximum(seen, 1) ** power
        law /= law.sum()
        keep, other = _alias(law)
        self._log_q = torch.from_numpy(np.log(law)).float()  # [I]
        self._keep = torch.from_numpy(keep).float()  # [I]
        self._other = torch.from_numpy(other)  # [I]

    @classmethod
    def of(cls, log: Sequences, n_items: int, power: float = 0.75, *, shared: bool = False) -> Popularity:
        """The law of a log's own counts: give the training part alone."""
        return cls(np.bincount(log.items, minlength=n_items + 1)[1:], power, shared=shared)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        self._keep, self._other = self._keep.to(generator.device), self._other.to(generator.device)
        column = torch.randint(self.n_items, shape, generator=generator, device=generator.device)
        stay = torch.rand(shape, generator=generator, device=generator.device) < self._keep[column]
        return torch.where(stay, column, self._other[column]) + 1

    def log_q(self, items: Tensor) -> Tensor:
        self._log_q = self._log_q.to(items.device)
        return self._log_q[items - 1]


class InBatch:
    """The targets of the other rows of the batch, and `count` more that a sampler draws for all (GRU4Rec).

    A row's own target is masked wherever it stands, and so is what its user has touched so far. `law` is the share of
    each item among targets, for the correction: `Popularity(counts, power=1)`.
    """

    def __init__(self, law: Sampler, extra: Sampler | None = None) -> None:
        self.law = law
        self.extra = extra

    def sample(
        self, targets: Tensor, count: int, generator: torch.Generator, *, exclude: Past | None = None
    ) -> Negatives:
        """One pool for all rows: the N targets and, where there is an extra sampler, `count` drawn items."""
        own, extra = targets + 1, self.extra if count else None  # [N]
        drawn = [] if extra is None else [extra.draw((count,), generator).to(targets.device)]
        items = torch.cat([own, *drawn])  # [M]
        real = ~_clash(own, items, exclude)  # [N, M]

        def log_q(asked: Tensor) -> Tensor:
            often = self.law.log_q(asked) + math.log(max(len(own) - 1, 1))
            return often if extra is None else torch.logaddexp(often, extra.log_q(asked) + math.log(count))

        return Negatives(items, real, log_q(items), log_q(own))


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on the key alone: `generator(seed, epoch, step)`."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]))


def _clash(own: Tensor, items: Tensor, exclude: Past | None) -> Tensor:
    """[N, M] bool: whether an item, of a pool [M] or of own ones [N, M], may not be a negative of its row."""
    same = items == own[:, None]  # [N, M]
    return same if exclude is None else same | exclude.holds(items)


def _alias(law: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Walker's table in Vose's form: column c gives itself with probability keep[c], and other[c] otherwise."""
    height = (law * len(law)).tolist()
    keep, other = np.ones(len(law)), np.arange(len(law))
    small = [c for c, h in enumerate(height) if h < 1]
    large = [c for c, h in enumerate(height) if h >= 1]
    while small and large:
        low, high = small.pop(), large[-1]
        keep[low], other[low] = height[low], high
        height[high] -= 1 - height[low]
        if height[high] < 1:
            small.append(large.pop())
    return keep, other
