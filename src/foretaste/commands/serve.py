"""`foretaste serve`."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from foretaste import words
from foretaste.errors import ConfigError, NeedsError, SavedFileError
from foretaste.options import Flag, Settings

Level = Literal["debug", "info", "warning", "error"]


def serve(
    run: Path,
    /,
    *,
    store: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: Annotated[int, Parameter(help="Worker processes, each with one thread for the model.")] = 1,
    keys: Path | None = None,
    durability: Literal["process", "power"] = "process",
    ttl: str | None = None,
    history: int | None = None,
    precision: Literal["float32", "float16"] | None = None,
    replay: Flag = False,
    log_level: Level = "info",
    set: Settings = (),
) -> None:
    """Serve a recommender over HTTP, with a live memory for each user that every event advances.

    Example: `foretaste serve clicks-narm --port 8000`

    Parameters
    ----------
    run
        A saved recommender.
    store
        Where the users are kept: a folder, redis://HOST:PORT/0, or memory. Default: RUN.store beside it.
    host
        Address to listen on. One that other machines reach needs keys.
    keys
        TOML file with the keys: [keys], and a line such as shop = { role = "write", sha256 = "..." }. The environment
        variable FORETASTE_KEYS (role:key,role:key) adds to it.
    durability
        What an acknowledged event survives: process, any kill of the service; power, a power cut too, and slower.
    ttl
        Forget a user this long after the last event, such as 30d.
    history
        Events of a user that are kept as they came, for late events and for a new model.
    precision
        How the states are stored; float16 takes half the room and drifts a little.
    replay
        Take over a store that another recommender wrote: each user's state is made again from the events kept.
    log_level
        info writes a line a request, warning only what went wrong.
    set
        A limit or another setting as key=value, such as --set events=5000; see docs/serve.md.
    """
    try:
        _serve(run, store, (host, port), workers, keys, set, {
            "durability": durability,
            "ttl": ttl,
            "replay": replay,
            "log_level": log_level,
            "engine": {"history": history, "precision": precision},
        })  # fmt: skip
    except KeyboardInterrupt:  # before anything was served
        raise SystemExit(130) from None


def _serve(
    run: Path,
    store: str | None,
    address: tuple[str, int],
    workers: int,
    file: Path | None,
    settings: tuple[str, ...],
    given: dict[str, Any],
) -> None:
    try:
        from foretaste.serving.keys import Keys, check_host
        from foretaste.serving.limits import ServiceConfig
        from foretaste.serving.listening import Listening
        from foretaste.serving.logs import begin
        from foretaste.serving.supervisor import Supervisor
        from foretaste.serving.worker import Plan
    except ModuleNotFoundError as error:
        raise NeedsError(f"serve needs {error.name}; install it with: pip install 'foretaste[serve]'") from None
    if workers < 1:
        raise ConfigError(f"workers = {workers}; give at least 1")
    if not (run / "recommender.json").exists():
        raise SavedFileError(f"{run}: no saved recommender here; `foretaste train` makes one")
    keys = Keys.found(file, os.environ)
    check_host(address[0], keys)
    changes = words.settings(settings)
    service = {name: changes.pop(name) for name in list(changes) if name in ServiceConfig.model_fields}
    engine = {name: value for name, value in given.pop("engine").items() if value is not None}
    ttl = given.pop("ttl")
    plan = Plan(
        run=run.absolute(),
        store=str(run.absolute().with_name(f"{run.absolute().name}.store")) if store is None else store,
        service=ServiceConfig(**{"log_level": given.pop("log_level"), **service}),
        engine={**engine, **changes},
        keys=keys.roles,
        ttl=None if ttl is None else words.with_unit("--ttl", ttl),
        **given,
    )
    if plan.store == "memory" and workers > 1:
        raise ConfigError("a store in memory is one process's own; give --workers 1, or a folder with --store")
    begin(plan.service.log_level)
    with Listening(*address, workers) as listening:
        url = f"http://{listening.place}"
        Supervisor(plan, listening, workers, lambda facts: print(greeting(url, facts, bool(keys)), flush=True)).run()


def greeting(url: str, facts: Mapping[str, Any], keyed: bool) -> str:
    """The address, the page, and three calls to try; `facts` are the worker's."""
    item = facts["item"]
    key = ' -H "Authorization: Bearer $KEY"' if keyed else ""
    event = {"user": "ann", "item": item, "id": "first", "recommend": {"k": 3}}
    history = {"history": [{"item": item, "time": int(time.time())} if facts["timed"] else item], "k": 3}
    return "\n".join(
        [
            f"foretaste serves at {url}; Ctrl-C stops it. Look at {url}/page, or try:",
            f"  curl -s{key} --json {shlex.quote(json.dumps(event, ensure_ascii=False))} {url}/events",
            f"  curl -s{key} --json {shlex.quote(json.dumps(history, ensure_ascii=False))} {url}/recommendations",
            f"  curl -s{key} {url}/users/ann",
        ]
    )
