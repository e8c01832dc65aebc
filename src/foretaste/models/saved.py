"""A trained model with its vocabulary: raw ids in, raw ids out; to a folder and back.

The folder holds three or four files, none of which can run code:

    recommender.json     model name, config, sizes, versions, what it was trained on, its metrics
    weights.safetensors  the weights
    items.parquet        raw item ids in the order of their numbers, with titles and other columns
    users.parquet        raw user ids, only for models that know users
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import foretaste
from foretaste.data.folders import written_whole
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, NeedsError, SavedFileError, TrainingError
from foretaste.models.contract import Events, SequenceModel, State
from foretaste.models.device import usable
from foretaste.models.histories import History, check_askable, events_of, numbers_of
from foretaste.models.loading import FORMAT, read_facts, read_items, read_model
from foretaste.models.topk import top_k

CHUNK = 512
"""Events of a history that the model takes in at once."""
ROWS = 512
"""Histories whose states are held at once."""
SCORE_BYTES = 64 * 2**20
"""What a block of scores may hold while recommending."""


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


@dataclass(frozen=True)
class Trained:
    """A model, the ids it knows, and the facts of its making."""

    name: str
    model: SequenceModel
    items: Vocabulary
    users: Vocabulary | None
    facts: dict[str, Any]

    def recommend_batch(
        self,
        histories: Sequence[History],
        k: int = 10,
        *,
        users: Sequence[Hashable] | None = None,
        times: Sequence[Sequence[int]] | None = None,
        sessions: Sequence[Sequence[Hashable]] | None = None,
        candidates: Sequence[Hashable] | None = None,
        exclude: Sequence[Hashable] = (),
        leave_out_seen: bool = False,
    ) -> list[Recommendations]:
        """The best `k` items for each history; fewer where fewer candidates are left.

        Beside each history, for models that need them: `users` its user, `times` the time of each event in seconds,
        `sessions` the session of each event (any ids; where the id changes, a session begins).
        `candidates` are the only items to choose from, `exclude` never appear, `leave_out_seen` leaves out what the
        history holds. An unknown item in a history is skipped and reported; in `candidates` it is an error.
        """
        _check_k(k)
        if not histories:
            return []
        events, skipped = self._events(histories, times, sessions)
        pool = self._pool(candidates)                                      # [C] or None
        never = torch.tensor([n for n in numbers_of(self.items, exclude) if n], dtype=torch.int64)  # [X]
        columns = self.model.n_items if pool is None else len(pool)
        step = min(ROWS, max(1, SCORE_BYTES // (8 * max(columns, 1))))
        who = self._user_numbers(users, len(histories))                    # [B]
        out: list[Recommendations] = []
        with self._answering():
            for first in range(0, len(histories), step):
                rows = slice(first, first + step)
                query = self.model.query(self._after(events.rows(rows), who[rows]))
                scores = self.model.score(query, pool)[:, 0].clone()       # [b, C]
                if scores.isnan().any():
                    raise TrainingError(f"model '{self.name}' scored NaN; its weights are damaged: train it again")
                self._hide(scores, pool, never, events.items[rows] if leave_out_seen else None)
                out += self._lists(scores, pool, k)
        return [Recommendations(r.ids, r.scores, missed) for r, missed in zip(out, skipped, strict=True)]

    def recommend(
        self,
        history: History = (),
        k: int = 10,
        *,
        user: Hashable | None = None,
        times: Sequence[int] | None = None,
        sessions: Sequence[Hashable] | None = None,
        candidates: Sequence[Hashable] | None = None,
        exclude: Sequence[Hashable] = (),
        leave_out_seen: bool = False,
    ) -> Recommendations:
        """The best `k` items after one history: `recommend_batch` of one."""
        return self.recommend_batch(
            [history],
            k,
            users=None if user is None else [user],
            times=None if times is None else [times],
            sessions=None if sessions is None else [sessions],
            candidates=candidates,
            exclude=exclude,
            leave_out_seen=leave_out_seen,
        )[0]

    def similar_items(self, item: Hashable, k: int = 10) -> Recommendations:
        """The items whose vectors point the way of this one (cosine), for models that have an item matrix."""
        _check_k(k)
        number = self._known(item)
        try:
            matrix = self.model.item_matrix().detach()                     # [I, D]
        except NotImplementedError as error:
            raise NeedsError(f"model '{self.name}' has no similar items: {error}") from None
        unit = torch.nn.functional.normalize(matrix, dim=1)
        scores = (unit @ unit[number - 1])[None].clone()                   # [1, I]
        scores[0, number - 1] = float("-inf")
        return self._lists(scores, None, k)[0]

    def explain(
        self,
        history: History,
        *,
        user: Hashable | None = None,
        times: Sequence[int] | None = None,
        sessions: Sequence[Hashable] | None = None,
        item: Hashable | None = None,
    ) -> dict[str, Any]:
        """What the answer after this history rests on.

        "attention" is a list of (item id, weight), the oldest event first; gates, memories and the like are numbers or
        nested lists under the model's own names. A model that reads its memory by the candidate explains `item`; left
        out, the item that it recommends first.
        """
        events, _ = self._events([history], _one(times), _one(sessions))
        length = int(events.mask.sum())
        if not length:
            return {}
        with self._answering():
            before = self._after(events.cut(0, length - 1), self._user_numbers(_one(user), 1))
            last = events.cut(length - 1)
            if item is None:
                best = self.model.score(self.model.query(self.model(last, before)[1]))[0, 0].argmax() + 1
            else:
                best = torch.tensor(self._known(item))
            parts = dict(self.model.explain(last, before, best[None].to(self._device())))
        newest = {name: part[0, 0].squeeze(0) if part.dim() > 3 else part[0, 0] for name, part in parts.items()}
        shown = newest.pop("items", events.items[0])                       # [V] or [T]
        out: dict[str, Any] = {}
        for name, part in newest.items():
            if name != "attention":
                out[name] = part.tolist()
                continue
            size = min(len(part), len(shown))
            pairs = [(n, w) for n, w in zip(shown[-size:].tolist(), part[-size:].tolist(), strict=True) if n]
            out[name] = list(zip(self.items.raw([n for n, _ in pairs]), [w for _, w in pairs], strict=True))
        return out

    def save(self, folder: str | Path) -> Path:
        """Write the folder in one move; gives its path."""
        folder = Path(folder)
        facts = {
            "format": FORMAT,
            "foretaste": foretaste.__version__,
            "model": self.name,
            "config": self.model.config.as_dict(),
            "n_items": self.model.n_items,
            "n_users": self.model.n_users,
            **self.facts,
        }
        weights = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        with written_whole(folder, manifest="recommender.json") as fresh:
            try:
                save_file(weights, fresh / "weights.safetensors")
            except SafetensorError as error:
                raise SavedFileError(f"{folder}: could not be written ({error}); free some space") from None
            self.items.write(fresh / "items.parquet")
            if self.users is not None and self.model.n_users:
                self.users.write(fresh / "users.parquet")
            (fresh / "recommender.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Trained:
        """Read what `save` wrote, or say in one sentence what is wrong with the folder."""
        folder, where = Path(folder), usable(device)
        facts = read_facts(folder)
        items, model = read_items(folder, facts), read_model(folder, facts)
        users = Vocabulary.read(folder / "users.parquet") if facts["n_users"] else None
        own = {"format", "foretaste", "model", "config", "n_items", "n_users"}
        rest = {name: value for name, value in facts.items() if name not in own}
        return cls(facts["model"], model.to(where).eval(), items, users, rest)

    def _answering(self) -> Any:
        self.model.eval()
        return torch.inference_mode()

    def _events(
        self,
        histories: Sequence[History],
        times: Sequence[Sequence[int]] | None,
        sessions: Sequence[Sequence[Hashable]] | None,
    ) -> tuple[Events, list[list[Any]]]:
        """Histories as a batch on the model's device, and the ids of each that are not known."""
        check_askable(self.model, self.name, times, sessions)
        events, skipped = events_of(self.items, histories, times, sessions)
        return events.to(self._device()), skipped

    def _after(self, events: Events, users: Tensor) -> State:
        """The state after each row's last event; long histories in pieces, which by the law is the same."""
        state = self.model.initial_state(users)
        for first in range(0, events.shape[1], CHUNK):
            piece = events.cut(first, first + CHUNK)
            _, state = self.model(piece, state, at=torch.zeros_like(piece.mask))
        return state

    def _device(self) -> torch.device:
        return next((t.device for t in (*self.model.parameters(), *self.model.buffers())), torch.device("cpu"))

    def _user_numbers(self, users: Sequence[Hashable] | None, count: int) -> Tensor:
        if users is not None and len(users) != count:
            raise ConfigError(f"{count} histories and {len(users)} users; give one user a history")
        known = users is not None and self.users is not None and self.model.n_users
        numbers = self.users.numbers(users).tolist() if known else [0] * count  # type: ignore[union-attr,arg-type]
        return torch.tensor(numbers, dtype=torch.int64, device=self._device())  # [B]

    def _known(self, item: Hashable) -> int:
        number = self.items.number(item)
        if not number:
            raise ConfigError(f"item {item!r} is not known to this recommender")
        return number

    def _pool(self, candidates: Sequence[Hashable] | None) -> Tensor | None:
        if candidates is None:
            return None
        numbers = numbers_of(self.items, candidates)
        if 0 in numbers:
            raise ConfigError(f"candidate {candidates[numbers.index(0)]!r} is not an item that this recommender knows")
        return torch.tensor(sorted(set(numbers)), dtype=torch.int64, device=self._device())  # [C]

    def _hide(self, scores: Tensor, pool: Tensor | None, never: Tensor, seen: Tensor | None) -> None:
        """Set the scores [b, C] of what may not be recommended to -inf, in place."""
        if not len(never) and seen is None:
            return
        rows, columns = scores.shape
        place = torch.full((self.model.n_items + 1,), columns, dtype=torch.int64, device=scores.device)  # [1 + I]
        numbers = torch.arange(1, columns + 1, device=scores.device) if pool is None else pool  # [C]
        place[numbers] = torch.arange(columns, device=scores.device)
        place[0] = columns                                                 # padding falls into a column of its own
        hidden = torch.zeros(rows, columns + 1, dtype=torch.bool, device=scores.device)  # [b, C + 1]
        hidden[:, place[never.to(scores.device)]] = True
        if seen is not None:
            hidden.scatter_(1, place[seen], True)
        scores.masked_fill_(hidden[:, :columns], float("-inf"))

    def _lists(self, scores: Tensor, pool: Tensor | None, k: int) -> list[Recommendations]:
        values, columns = top_k(scores, k)                                 # [b, k]
        numbers = columns + 1 if pool is None else pool[columns]           # [b, k]
        out = []
        for row, value in zip(numbers.tolist(), values.tolist(), strict=True):
            kept = [(n, v) for n, v in zip(row, value, strict=True) if v != float("-inf")]
            out.append(Recommendations(self.items.raw([n for n, _ in kept]), [v for _, v in kept], []))
        return out


def _one(value: Any) -> list[Any] | None:
    return None if value is None else [value]


def _check_k(k: int) -> None:
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise ConfigError(f"k = {k!r}; ask for a whole number of recommendations, at least one")
