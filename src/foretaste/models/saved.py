"""A trained model with its vocabulary: raw ids in, raw ids out; to a folder and back.

The folder holds three or four files, none of which can run code:

    recommender.json     model name, config, sizes, versions, what it was trained on, its metrics, and checksums of all
    weights.safetensors  the weights
    items.parquet        raw item ids in the order of their numbers, with titles and other columns
    users.parquet        raw user ids, only for models that know users
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import foretaste
from foretaste.data.folders import write_manifest, written_whole
from foretaste.data.rules import Rules
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, NeedsError, SavedFileError
from foretaste.models.choosing import Recommendations, best, hide, pool_of
from foretaste.models.contract import Events, SequenceModel, State
from foretaste.models.device import usable
from foretaste.models.histories import History, check_askable, events_of, listed, numbers_of, padded
from foretaste.models.loading import FORMAT, read_facts, read_items, read_model, read_users

CHUNK = 512
"""Events of a history that the model takes in at once, at most."""
EVENTS = 2**15
"""Events of all histories that it takes in at once, about."""
ROWS = 512
"""Histories whose states are held at once."""
SCORE_BYTES = 64 * 2**20
"""What a block of scores may hold while recommending."""


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
        `sessions` the session of each event (any ids; where the id changes, a session begins; a model that reads one
        session is given the last). Without them a history is cut as in the service: by the log's gap, day or count
        (half an hour, where the log named its sessions). Repeats go, where they were taken out of the log.
        `candidates` are the only items to choose from, `exclude` never appear, `leave_out_seen` leaves out what the
        history holds. An unknown item in a history is skipped and reported; in `candidates` it is an error.
        """
        _check_k(k)
        histories = listed(histories)
        if not histories:
            return []
        events, skipped = self._events(histories, times, sessions)
        pool = pool_of(self.items, candidates, self.device)                # [C] or None
        never = self._numbers(exclude)                                     # [X]
        columns = self.model.n_items if pool is None else len(pool)
        seen = padded([numbers_of(self.items, history) for history in histories] if leave_out_seen else [])  # [B, T]
        step = min(ROWS, max(1, SCORE_BYTES // (8 * max(columns, 1))))
        who = self._user_numbers(users, len(histories))                    # [B]
        out: list[Recommendations] = []
        with self._answering():
            for first in range(0, len(histories), step):
                rows = slice(first, first + step)
                query = self.model.query(self.advance(events.rows(rows), self.model.initial_state(who[rows])))
                scores = self.model.score(query, pool)[:, 0].clone()       # [b, C]
                hide(scores, pool, never, seen[rows].to(self.device) if leave_out_seen else None)
                out += best(self.name, self.items, scores, pool, k)
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
        if matrix.shape[1] < 2:
            raise NeedsError(f"model '{self.name}' has no similar items: it knows one number of each item")
        length = torch.linalg.vector_norm(matrix, dim=1)                   # [I]
        own = matrix[number - 1] / length[number - 1].clamp_min(1e-12)     # [D]
        scores = (matrix @ own / length.clamp_min(1e-12))[None]            # [1, I]
        scores[0, number - 1] = float("-inf")
        return best(self.name, self.items, scores, None, k)[0]

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
        events, _ = self._events(listed([history]), _one(times), _one(sessions))
        if not events.mask.any():
            return {}
        with self._answering():
            return self.reasons(events, self.model.initial_state(self._user_numbers(_one(user), 1)), item)

    def reasons(self, events: Events, state: State, item: Hashable | None = None) -> dict[str, Any]:
        """As `explain`, for the known events [1, T] of a history (at least one) and the state before them."""
        length = int(events.mask.sum())
        with self._answering():
            before, last = self.advance(events.cut(0, length - 1), state), events.cut(length - 1, length)
            if item is None:
                top = self.model.score(self.model.query(self.model(last, before)[1]))[0, 0].argmax() + 1
            else:
                top = torch.tensor(self._known(item))
            parts = dict(self.model.explain(last, before, top[None].to(self.device)))
        one = self.model.by_candidate  # parts with an axis of candidates, of which there is one
        newest = {name: part[0, 0, 0] if name in one else part[0, 0] for name, part in parts.items()}
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

    def check_items(self, items: Vocabulary) -> None:
        """Refuse a log whose numbers mean other items."""
        if items.ids != self.items.ids:
            raise ConfigError(
                "this log numbers its items differently from the log the recommender was trained on; give the prepared "
                "folder it was trained from"
            )

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
            write_manifest(fresh, facts, "recommender.json")
        return folder

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Trained:
        """Read what `save` wrote, or say in one sentence what is wrong with the folder."""
        folder, where = Path(folder), usable(device)
        facts = read_facts(folder)
        items, model = read_items(folder, facts), read_model(folder, facts)
        users = read_users(folder, facts)
        own = {"format", "foretaste", "model", "config", "n_items", "n_users", "files"}
        rest = {name: value for name, value in facts.items() if name not in own}
        return cls(facts["model"], model.to(where).eval(), items, users, rest)

    def _answering(self) -> Any:
        if self.model.training:
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
        rules, one = Rules.of_recommender(self.facts), self.model.scope == "session"
        events, skipped = events_of(self.items, rules, histories, times, sessions, last=one)
        return events.to(self.device), skipped

    def advance(self, events: Events, state: State) -> State:
        """The state after each row's last event; long histories in pieces, which by the law is the same."""
        size = min(CHUNK, max(1, EVENTS // max(len(events.items), 1)))
        for first in range(0, events.shape[1], size):
            piece = events.cut(first, first + size)
            _, state = self.model(piece, state, at=torch.zeros_like(piece.mask))
        return state

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next((t.device for t in (*self.model.parameters(), *self.model.buffers())), torch.device("cpu"))

    def _user_numbers(self, users: Sequence[Hashable] | None, count: int) -> Tensor:
        if users is not None and len(users) != count:
            raise ConfigError(f"{count} histories and {len(users)} users; give one user a history")
        known = users is not None and self.users is not None and self.model.n_users
        numbers = self.users.numbers(users).tolist() if known else [0] * count  # type: ignore[union-attr,arg-type]
        return torch.tensor(numbers, dtype=torch.int64, device=self.device)  # [B]

    def _numbers(self, raw: Sequence[Hashable]) -> Tensor:
        """[X]: the numbers of those ids that are known."""
        return torch.tensor([n for n in numbers_of(self.items, raw) if n], dtype=torch.int64, device=self.device)

    def _known(self, item: Hashable) -> int:
        number = self.items.number(item)
        if not number:
            raise ConfigError(f"item {item!r} is not known to this recommender")
        return number


def _one(value: Any) -> list[Any] | None:
    return None if value is None else [value]


def _check_k(k: int) -> None:
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise ConfigError(f"k = {k!r}; ask for a whole number of recommendations, at least one")
