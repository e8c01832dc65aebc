"""One worker process of the service: it loads the recommender, opens the store, and answers on a socket it was given.

It is started by the supervisor, which writes the plan on its standard input as one line and reads from a pipe when it
is ready, or why it is not. When its standard input ends, the supervisor is gone, and the worker stops as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import uvicorn
from pydantic import Field

from foretaste.config import Config
from foretaste.errors import ConfigError, ForetasteError, StoreError, nearest
from foretaste.serving import logs
from foretaste.serving.limits import ServiceConfig

if TYPE_CHECKING:
    from foretaste.serving.gate import Gate
    from foretaste.serving.store import Store

GRACE = 20
"""Seconds that open requests have to end when the service stops."""
SWEEPS, FIRST_SWEEP = 3600.0, 60.0
"""At most so many seconds pass between two looks for users who are to be forgotten."""


class Plan(Config):
    """All that a worker needs to know."""

    run: Path
    """The saved recommender."""
    store: str
    """Where the users are kept."""
    durability: Literal["process", "power"] = "process"
    ttl: float | None = Field(default=None, gt=0)
    """Seconds after their last event at which users are forgotten."""
    replay: bool = False
    """Take over a store that another recommender wrote, making each user's state again from the events kept."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Fields of `EngineConfig`."""
    service: ServiceConfig = ServiceConfig()
    keys: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each key -> role."""
    model: str = ""
    """The fingerprint of the recommender that the service began with; another one in its folder is not served."""
    sweeps: bool = False
    """Whether this is the worker that looks for users who are to be forgotten."""


def main() -> None:
    """`python -m foretaste.serving.worker SOCKET PIPE`, both as file descriptors."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the supervisor says when to stop
    listening, pipe = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    plan = Plan.of(json.loads(sys.stdin.readline()))
    logs.begin(plan.service.log_level)

    def tell(**facts: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # a supervisor that was killed meanwhile: the end of stdin says so
            os.write(pipe, json.dumps(facts).encode() + b"\n")

    try:
        app, store, facts = build(plan)
    except (ForetasteError, OSError) as error:
        passing = isinstance(error, StoreError | OSError)  # of a store that is out of reach; all else stays as it is
        tell(failed=str(error), passing=passing)
        sys.exit(2)
    except Exception as error:
        logs.LOGGER.exception("the service cannot start")
        tell(failed=f"unexpected {type(error).__name__}: {error}", passing=False)
        sys.exit(1)
    server = Server(app, plan, lambda: tell(ready=facts), store)
    server.run(sockets=[listening])
    from foretaste.serving.metrics import FOLDER

    if server.orphaned and FOLDER in os.environ:  # nobody else is left to clear it away
        shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


def build(plan: Plan) -> tuple[Gate, Store, dict[str, Any]]:
    """The service, its store, and of its recommender the fingerprint, an item, and whether it needs times."""
    import torch

    from foretaste.models.saved import Trained
    from foretaste.retrieval.approximate import check
    from foretaste.serving.app import make_app
    from foretaste.serving.asks import Ask, Event
    from foretaste.serving.batcher import Batcher
    from foretaste.serving.engine import Engine
    from foretaste.serving.homes import open_store
    from foretaste.serving.ids import sent
    from foretaste.serving.keys import Keys
    from foretaste.serving.planning import EngineConfig
    from foretaste.serving.stepping import fingerprint

    torch.set_num_threads(1)
    service = plan.service
    known = dict.fromkeys([*ServiceConfig.model_fields, *EngineConfig.model_fields])
    for name in plan.engine:
        if name not in known:
            raise ConfigError(f"the service has no setting '{name}'; {nearest(name, known)}")
    config = EngineConfig.of(plan.engine)  # before a store is made
    trained = Trained.load(plan.run)
    if plan.model and plan.model != fingerprint(trained, config.precision, config.rules).hex():
        raise ConfigError(
            f"{plan.run} holds another recommender than the one that is served; to serve it, start the service again "
            "with --replay"
        )
    if config.retrieval == "approximate":
        check(trained.model)
    store = open_store(plan.store, durability=plan.durability, ttl=plan.ttl)
    try:
        engine = Engine(trained, store, config, replay=plan.replay)
        first = trained.items.ids[0]
        engine.ask(Ask(history=[Event(first, time=0)], k=20))  # a model's first call takes longest: nobody waits for it
        batcher = Batcher(engine, limit=service.queue, batch=service.batch, wait_ms=service.wait_ms)
    except BaseException:
        store.close()
        raise
    facts = {"model": engine.stepper.fingerprint.hex(), "item": sent(first), "timed": "times" in trained.model.needs}
    return make_app(engine, batcher, service, Keys(plan.keys)), store, facts


class Server(uvicorn.Server):
    """uvicorn's server, stopped by SIGTERM or by the end of the supervisor, and telling when it is ready."""

    def __init__(self, app: Gate, plan: Plan, ready: Callable[[], None], store: Store) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            ws="none",
            timeout_keep_alive=plan.service.keep_alive,
            timeout_graceful_shutdown=GRACE,
        )
        super().__init__(config)
        self.plan = plan
        self.ready = ready
        self.store = store
        self.orphaned = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None here: `startup` sees to them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, then say so."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_reader(sys.stdin.fileno(), self._listen)
        await super().startup(sockets=sockets)
        if self.plan.sweeps and self.plan.ttl is not None and "://" not in self.plan.store:
            self._sweeping = asyncio.create_task(self._sweep(self.plan.ttl))
        if self.started:
            self.ready()

    async def _sweep(self, ttl: float) -> None:
        pause = min(FIRST_SWEEP, ttl / 4)  # soon: a service that is started again every hour is to sweep too
        while True:
            await asyncio.sleep(pause)
            pause = min(SWEEPS, ttl / 4)
            try:
                gone = await asyncio.to_thread(self.store.sweep, time.time() - ttl)
            except StoreError as error:
                logs.LOGGER.warning("users to be forgotten were not looked for: %s", error)
            else:
                logs.LOGGER.info("swept", extra={"facts": {"forgotten": gone}})

    def _stop(self) -> None:
        self.should_exit = True

    def _listen(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self.orphaned = True
            self._stop()


if __name__ == "__main__":
    main()
