"""Metrics and files of a training, kept where MLflow or TensorBoard shows them; only for who asks.

    with tracker("mlflow:runs").begin("clicks-narm") as run:
        Recommender("narm").fit(log, report=run)

The libraries come with the extra `track` and are loaded when a tracker is made. Nothing goes over a network unless a
URI says so; MLflow's own reports of its use are switched off. A training that was killed goes on in the run that it
began. A store that fails in the middle is told of once, and the training goes on without it: hours of work are worth
more.

Names are the same in both: `loss`, `validation/recall_at_20` (MLflow knows no @), by pass; `refit/loss` of the training
that comes after, on training and validation part.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from foretaste.data.files import write_text
from foretaste.errors import ConfigError, ForetasteError, nearest

T = TypeVar("T")
RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"
LONGEST = 6000
"""Letters of a setting that MLflow keeps."""
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
"""Unless the environment says otherwise."""


class Tracked(ABC):
    """One run; give it as `report`. At the end of `with` it is finished, failed or killed."""

    def __init__(self) -> None:
        self.broken = False

    def __call__(self, facts: Mapping[str, Any]) -> None:
        """One report of a training: of finished passes every number is kept."""
        if "done" in facts:
            return
        stage = f"{facts['stage']}/" if "stage" in facts else ""
        known = {name: facts[name] for name in ("loss", "seconds", "targets_per_second", "validation_seconds")
                 if name in facts}  # fmt: skip
        known |= {f"validation/{name}": value for name, value in facts.get("validation", {}).items()}
        self.numbers({f"{stage}{name}": value for name, value in known.items()}, facts["epoch"])

    def numbers(self, values: Mapping[str, float], step: int = 0) -> None:
        """Keep these."""
        self._try("_numbers", {_plain(name): float(value) for name, value in values.items()}, step)

    def keep(self, path: Path) -> None:
        """Keep a file or a folder; TensorBoard has a place for text (.md) alone."""
        self._try("_keep", path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._try("_end", FINISHED if kind is None else FAILED if issubclass(kind, Exception) else KILLED)

    def _try(self, what: str, *arguments: Any) -> None:
        if self.broken:
            return
        try:
            getattr(self, what)(*arguments)
        except Exception as error:
            self.broken = True
            print(f"tracking stopped, the work goes on: {_line(error)}", file=sys.stderr, flush=True)

    @abstractmethod
    def _numbers(self, values: Mapping[str, float], step: int) -> None: ...

    @abstractmethod
    def _keep(self, path: Path) -> None: ...

    @abstractmethod
    def _end(self, state: str) -> None: ...


class Tracker(ABC):
    """A place for runs."""

    def begin(self, name: str, settings: Mapping[str, Any] | None = None, *, group: str = "", of: Any = "") -> Tracked:
        """Begin a run, or go on with the same one where it was not finished.

        Args:
            name: what it is called.
            settings: shown beside it.
            group: runs that belong together, such as those of one comparison.
            of: plain values that, with the name and the settings, say which runs are the same.
        """
        settings = dict(settings or {})
        return _or_say(self._begin, name, settings, group, _key(name, settings, group, of))

    def has(self, name: str, settings: Mapping[str, Any] | None = None, *, group: str = "", of: Any = "") -> bool:
        """Whether this run is there and finished."""
        return _or_say(self._has, name, group, _key(name, dict(settings or {}), group, of))

    @abstractmethod
    def _begin(self, name: str, settings: dict[str, Any], group: str, key: str) -> Tracked: ...

    @abstractmethod
    def _has(self, name: str, group: str, key: str) -> bool: ...


def tracker(where: str | None) -> Tracker:
    """Of `mlflow:FOLDER`, `mlflow:URI` or `tensorboard:FOLDER`, once it can be written; None keeps nothing."""
    if where is None:
        return _Nowhere()
    kind, _, place = where.partition(":")
    kinds: dict[str, Callable[[str], Tracker]] = {"mlflow": _MLflow, "tensorboard": _TensorBoard}
    if kind not in kinds:
        raise ConfigError(f"track: '{kind}' is no tracker; {nearest(kind, kinds)}")
    if not place:
        raise ConfigError(f"track: say where, as {kind}:FOLDER")
    try:
        return _or_say(kinds[kind], place)
    except ImportError as error:
        raise ForetasteError(
            f"tracking needs {kind}, which is not installed ({error}): pip install 'foretaste[track]'"
        ) from None


class _Nowhere(Tracker):
    def _has(self, name: str, group: str, key: str) -> bool:
        return True

    def _begin(self, name: str, settings: dict[str, Any], group: str, key: str) -> Tracked:
        return _Untracked()


class _Untracked(Tracked):
    def _numbers(self, values: Mapping[str, float], step: int) -> None: ...

    def _keep(self, path: Path) -> None: ...

    def _end(self, state: str) -> None: ...


class _MLflow(Tracker):
    """A folder is a database in a file, with the files beside it, as `mlflow ui` reads it; anything with :// a URI."""

    def __init__(self, place: str) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        for library in ("mlflow", "alembic"):
            logging.getLogger(library).setLevel(logging.WARNING)
        self.files: str | None = None
        uri = place
        if "://" not in place:
            folder = Path(place).resolve()
            folder.mkdir(parents=True, exist_ok=True)
            uri, self.files = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        self.client = MlflowClient(uri)
        self._experiment("")

    def _experiment(self, group: str) -> str:
        name = group or "foretaste"
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self.client.create_experiment(name, self.files))

    def _same(self, group: str, key: str) -> list[Any]:
        return list(self.client.search_runs([self._experiment(group)], f"tags.`foretaste.key` = '{key}'"))

    def _has(self, name: str, group: str, key: str) -> bool:
        return any(run.info.status == FINISHED for run in self._same(group, key))

    def _begin(self, name: str, settings: dict[str, Any], group: str, key: str) -> Tracked:
        from mlflow.entities import Param

        for run in self._same(group, key):
            if run.info.status != FINISHED:
                self.client.update_run(run.info.run_id, status=RUNNING)
                return _MLflowRun(self.client, run.info.run_id)
        run = self.client.create_run(self._experiment(group), tags={"foretaste.key": key}, run_name=name)
        params = [Param(name, str(value)[:LONGEST]) for name, value in settings.items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(run.info.run_id, params=params[start : start + 100])
        return _MLflowRun(self.client, run.info.run_id)


class _MLflowRun(Tracked):
    def __init__(self, client: Any, name: str) -> None:
        super().__init__()
        self.client, self.name = client, name

    def _numbers(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.name, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def _keep(self, path: Path) -> None:
        if path.is_dir():
            self.client.log_artifacts(self.name, str(path), path.name)
        else:
            self.client.log_artifact(self.name, str(path))

    def _end(self, state: str) -> None:
        self.client.set_terminated(self.name, state)


class _TensorBoard(Tracker):
    """A folder of folders, one a run; run.json beside the events says which run it is and whether it is finished."""

    def __init__(self, place: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer, self.folder = SummaryWriter, Path(place)
        self.folder.mkdir(parents=True, exist_ok=True)

    def _places(self, name: str, group: str) -> list[tuple[Path, dict[str, Any]]]:
        """The folders of runs of this name, with what is known of each; the last is free."""
        found: list[tuple[Path, dict[str, Any]]] = []
        while not found or found[-1][1]:
            path = self.folder / group / (f"{name}-{len(found) + 1}" if found else name)
            facts = path / "run.json"
            found.append((path, json.loads(facts.read_text("utf-8")) if facts.exists() else {}))
        return found

    def _has(self, name: str, group: str, key: str) -> bool:
        return any(facts.get("key") == key and facts["state"] == FINISHED for _, facts in self._places(name, group))

    def _begin(self, name: str, settings: dict[str, Any], group: str, key: str) -> Tracked:
        places = self._places(name, group)
        same = [path for path, facts in places if facts.get("key") == key and facts["state"] != FINISHED]
        path = same[0] if same else places[-1][0]
        run = _TensorBoardRun(self.writer(str(path)), path, key)
        if not same:
            rows = [f"| {name} | {value} |" for name, value in settings.items()]
            run.writer.add_text("settings", "\n".join(["| setting | value |", "| --- | --- |", *rows]))
        return run


class _TensorBoardRun(Tracked):
    def __init__(self, writer: Any, path: Path, key: str) -> None:
        super().__init__()
        self.writer, self.path, self.key = writer, path, key
        self._state(RUNNING)

    def _state(self, state: str) -> None:
        write_text(self.path / "run.json", json.dumps({"key": self.key, "state": state}) + "\n")

    def _numbers(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def _keep(self, path: Path) -> None:
        if path.suffix == ".md":
            self.writer.add_text(path.name, path.read_text("utf-8"))

    def _end(self, state: str) -> None:
        self.writer.close()
        self._state(state)


def _plain(name: str) -> str:
    """In letters that MLflow takes."""
    return re.sub(r"[^\w/.: -]", "_", name.replace("@", "_at_"))


def _key(name: str, settings: dict[str, Any], group: str, of: Any) -> str:
    """The same for the same run."""
    return hashlib.sha256(json.dumps([name, settings, group, of], default=str).encode()).hexdigest()[:32]


def _or_say(act: Callable[..., T], *arguments: Any) -> T:
    """What a library raises becomes one line, before any work was done."""
    try:
        return act(*arguments)
    except (ImportError, ForetasteError):
        raise
    except Exception as error:
        raise ForetasteError(f"track: nothing can be kept there: {_line(error)}") from error


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
