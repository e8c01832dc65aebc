"""Many users' states advanced in one call of the model: bytes in, bytes out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from foretaste.data.rules import Rules, Step
from foretaste.errors import NeedsError
from foretaste.models.contract import Events, State
from foretaste.models.saved import Trained
from foretaste.serving.states import Layout, Precision

SHORT = 8
"""Rows of up to so many events are advanced together, the longer ones by themselves: little padding either way."""


@dataclass(slots=True)
class Row:
    """A user's state and what happens next."""

    state: bytes | None
    """None: the state before the first event."""
    user: int
    """The user's number, 0 for one that training did not know."""
    steps: list[Step]
    """Of known items alone."""


class Stepper:
    """A model that advances rows, and says which model it is."""

    def __init__(self, trained: Trained, precision: Precision = "float32", rules: Rules | None = None) -> None:
        if not trained.model.causal:
            raise NeedsError(
                f"model '{trained.name}' with this config is told something of the next event (causal = False): "
                "no service could tell it; train its causal variant"
            )
        self.trained = trained
        self.layout = Layout(trained.model, precision)
        self.fresh = trained.model.scope == "session"
        """Does every session begin from the initial state?"""
        self.fingerprint = fingerprint(trained, precision, rules)

    def row(self, state: bytes | None, user: int, steps: Iterable[Step]) -> Row:
        """A row; of a session model, only what follows the last beginning of a session counts."""
        steps = list(steps)
        if self.fresh:
            for place in range(len(steps) - 1, -1, -1):
                if steps[place].opens:
                    state, steps = None, steps[place:]
                    break
        return Row(state, user, [step for step in steps if step.number])

    def advance(self, rows: Sequence[Row]) -> State:
        """The states after each row's steps, as one batch [B]."""
        self._begin(rows)
        state = self.layout.unpack([row.state for row in rows if row.state is not None])  # {[B, ...]}
        for low, high in ((1, SHORT), (SHORT + 1, None)):
            index = [i for i, row in enumerate(rows) if low <= len(row.steps) <= (high or len(row.steps))]
            if not index:
                continue
            events = self.events([rows[i].steps for i in index])
            if len(index) == len(rows):
                state = self.trained.advance(events, state)
                continue
            some = torch.tensor(index)  # [b]
            after = self.trained.advance(events, {name: part[some] for name, part in state.items()})
            for name, part in state.items():
                part[some] = after[name]
        return state

    def packed(self, rows: Sequence[Row]) -> list[bytes]:
        """The states after each row's steps, one value a row."""
        if not rows:
            return []
        with torch.inference_mode():
            return self.layout.pack(self.advance(rows))

    def _begin(self, rows: Sequence[Row]) -> None:
        """Give rows that have none the initial state of their user."""
        new = [row for row in rows if row.state is None]
        if new:
            users = torch.tensor([row.user for row in new], dtype=torch.int64)  # [b]
            for row, value in zip(new, self.layout.pack(self.trained.model.initial_state(users)), strict=True):
                row.state = value

    @staticmethod
    def events(rows: Sequence[Sequence[Step]]) -> Events:
        """Steps as a batch [B, T], padded on the right."""
        width = max(map(len, rows), default=0)
        items = np.zeros((len(rows), width), np.int64)  # [B, T]
        times, starts = np.zeros_like(items), np.zeros(items.shape, bool)  # [B, T]
        for place, row in enumerate(rows):
            size = len(row)
            items[place, :size] = [step.number for step in row]
            times[place, :size] = [step.time for step in row]
            starts[place, :size] = [step.start for step in row]
        numbers = torch.from_numpy(items)
        return Events(numbers, numbers > 0, torch.from_numpy(starts), torch.from_numpy(times))


def fingerprint(trained: Trained, precision: Precision, rules: Rules | None = None) -> bytes:
    """16 bytes that stand for this model, its weights, the numbers of its items and users, and how states are kept.

    Also for the rules that sessions are cut by, where they are not those of the training log.
    """
    hashed = hashlib.blake2b(digest_size=16)
    about: list[Any] = [trained.name, trained.model.config.as_dict(), precision]
    if rules is not None and rules != Rules.of_recommender(trained.facts):
        about.append(rules.as_dict())
    hashed.update(json.dumps(about, sort_keys=True).encode())
    for name, weight in sorted(trained.model.state_dict().items()):
        hashed.update(name.encode())
        hashed.update(np.ascontiguousarray(weight.detach().cpu().numpy()).reshape(-1).view(np.uint8).data)
    for known in (trained.items, trained.users if trained.model.n_users else None):
        hashed.update("\0".join(map(repr, known.ids if known is not None else [])).encode())
    return hashed.digest()
