"""A small recommender, and the service over it in this process."""

from __future__ import annotations

from typing import Any

from foretaste.data.vocabulary import Vocabulary
from foretaste.models.contract import seeded
from foretaste.models.narm import NARM
from foretaste.models.saved import Trained
from foretaste.serving.app import make_app
from foretaste.serving.batcher import Batcher
from foretaste.serving.engine import Engine
from foretaste.serving.gate import Gate
from foretaste.serving.keys import Keys
from foretaste.serving.limits import ServiceConfig
from foretaste.serving.store import MemoryStore, Store

IDS = ["tea", "milk", "naïve, with comma", "two\nlines", "5", "rum", "a/b"]
TITLES = [raw.upper() for raw in IDS[:-1]] + [None]


def small_trained(ids: list[Any] = IDS) -> Trained:
    """NARM with the weights that it begins with."""
    with seeded(1):
        model = NARM(len(ids), NARM.Config(embedding_size=4, hidden_size=6))
    columns = {"title": TITLES} if ids is IDS else {}
    return Trained("narm", model.eval(), Vocabulary(ids, columns), None, {})


def small_app(
    config: ServiceConfig | None = None,
    keys: Keys | None = None,
    *,
    store: Store | None = None,
    trained: Trained | None = None,
) -> tuple[Gate, Engine]:
    """The service over it."""
    config = config or ServiceConfig()
    engine = Engine(trained or small_trained(), store or MemoryStore())
    batcher = Batcher(engine, limit=config.queue, batch=config.batch, wait_ms=config.wait_ms)
    return make_app(engine, batcher, config, keys or Keys()), engine
