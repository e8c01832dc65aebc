"""What `--track` keeps, read back with the libraries' own readers: every pass, settings, files, and nothing twice."""

from __future__ import annotations

import builtins
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.shell import Shell

from foretaste import Recommender, shop
from foretaste.compare.grid import Grid, Place, Row
from foretaste.compare.tracked import TrackedCells
from foretaste.data.splits import GlobalTime
from foretaste.errors import ConfigError, ForetasteError
from foretaste.training.tracking import FINISHED, KILLED, RUNNING, Tracked, tracker

SMALL = ("--model", "bpr-mf", "--set", "epochs=2", "--set", "embedding_size=4", "--refit")


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracked") / "clicks"
    shop(n_users=40, n_items=30, seed=3).log().prepare(
        GlobalTime(fraction=0.2), validation=GlobalTime(fraction=0.2), folder=folder
    )
    return folder


@pytest.fixture
def ft(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all tests: to make it takes seconds."""
    pytest.importorskip("mlflow")
    return tmp_path_factory.mktemp("mlflow")


def runs_of(folder: Path, experiment: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def points(folder: Path, name: str) -> list[tuple[int, float]]:
    """Step and value of a metric, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return [(one.step, one.value) for one in found.Scalars(name)]


def test_mlflow_holds_every_pass_the_settings_and_the_recommender(
    clicks: Path, folder: Path, tmp_path: Path, ft: Shell
) -> None:
    from mlflow.tracking import MlflowClient

    ft.well("train", clicks, "--out", tmp_path / "bpr", *SMALL, "--track", f"mlflow:{folder}")
    (run,) = runs_of(folder, "foretaste")
    assert (run.info.run_name, run.info.status) == ("bpr", FINISHED)
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    history = json.loads((tmp_path / "bpr" / "recommender.json").read_text())["history"]
    for name, values in {
        "loss": [one["loss"] for one in history],
        "validation/recall_at_20": [one["validation"]["recall@20"] for one in history],
    }.items():
        kept = client.get_metric_history(run.info.run_id, name)
        assert [(one.step, one.value) for one in kept] == list(enumerate(values, 1)), name
    assert len(client.get_metric_history(run.info.run_id, "refit/loss")) >= 1
    assert {"model": "bpr-mf", "embedding_size": "4", "epochs": "2"}.items() <= run.data.params.items()
    files = {one.path for one in client.list_artifacts(run.info.run_id, "bpr")}
    assert {"bpr/recommender.json", "bpr/weights.safetensors"} <= files
    assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(folder)


def test_tensorboard_holds_every_pass(clicks: Path, tmp_path: Path, ft: Shell) -> None:
    pytest.importorskip("tensorboard")
    ft.well("train", clicks, "--out", tmp_path / "bpr", *SMALL, "--track", f"tensorboard:{tmp_path / 'board'}")
    history = json.loads((tmp_path / "bpr" / "recommender.json").read_text())["history"]
    kept = points(tmp_path / "board" / "bpr", "validation/recall_at_20")
    assert kept == [(n, pytest.approx(one["validation"]["recall@20"], rel=1e-6)) for n, one in enumerate(history, 1)]
    assert len(points(tmp_path / "board" / "bpr", "refit/loss")) >= 1


@pytest.mark.parametrize("kind", ["mlflow", "tensorboard"])
def test_a_killed_run_goes_on_and_a_finished_one_does_not(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip(kind)
    place = request.getfixturevalue("folder") if kind == "mlflow" else tmp_path
    settings = {"size": 4}

    def passed(run: Tracked, *epochs: int) -> None:
        for epoch in epochs:
            run({"epoch": epoch, "done": 1, "targets": 2, "loss": 9.0, "seconds": 1.0})  # in the middle of a pass
            run({"epoch": epoch, "loss": 1 / epoch, "seconds": 2.0})

    def killed() -> None:
        with tracker(f"{kind}:{place}").begin("a", settings, group="g") as run:
            passed(run, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert states(kind, place) == {"a": KILLED}
    assert not tracker(f"{kind}:{place}").has("a", settings, group="g")
    with tracker(f"{kind}:{place}").begin("a", settings, group="g") as run:
        assert states(kind, place) == {"a": RUNNING}
        passed(run, 2)
    assert tracker(f"{kind}:{place}").has("a", settings, group="g")
    assert not tracker(f"{kind}:{place}").has("a", {"size": 5}, group="g")
    if kind == "tensorboard":
        assert points(place / "g" / "a", "loss") == [(1, 1.0), (2, 0.5)]
    else:
        (run_of,) = runs_of(place, "g")
        assert run_of.data.metrics["loss"] == 0.5
    with pytest.raises(ValueError, match="x"), tracker(f"{kind}:{place}").begin("a", {"size": 5}, group="g"):
        raise ValueError("x")
    assert sorted(states(kind, place, True)) == ["FAILED", FINISHED]


def states(kind: str, place: Path, values: bool = False) -> Any:
    if kind == "mlflow":
        found = [(run.info.run_name, run.info.status) for run in runs_of(place, "g")]
    else:
        found = [(one.parent.name, json.loads(one.read_text())["state"]) for one in (place / "g").glob("*/run.json")]
    return [state for _, state in found] if values else dict(found)


def test_a_comparison_is_one_run_a_cell_and_nothing_is_kept_twice(tmp_path: Path, folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    place = Place(tmp_path / "compared")
    place.begin(Grid(title="", rows=(Row(name="a", model="pop"),)))
    (place.folder / "table.md").write_text("# A table\n")
    cell: dict[str, Any] = {
        "row": "a", "seed": 0, "model": "pop", "training": {}, "config": {"days": 2}, "history": [], "passes": None,
        "test": {"metrics": {"recall@20": {"value": 0.25}}}, "also": {"last: ü": {"metrics": {"mrr(": {"value": 0.5}}}},
        "seconds": {"training": 1.5}, "milliseconds": {"median": 0.5}, "peak_mb": 100, "weights": 7,
    }  # fmt: skip
    for _ in range(2):
        cells = TrackedCells(tracker(f"mlflow:{folder}"), place)
        cells(cell)
        cells(cell)
        cells.close()
    runs = {run.info.run_name: run for run in runs_of(folder, "compared")}
    assert sorted(run.info.run_name for run in runs_of(folder, "compared")) == ["a-seed0", "compared"]
    assert runs["a-seed0"].data.metrics == {
        "test/recall_at_20": 0.25, "test last: ü/mrr_": 0.5, "seconds/training": 1.5, "milliseconds/median": 0.5,
        "peak_mb": 100, "weights": 7,
    }  # fmt: skip
    assert runs["a-seed0"].data.params == {"row": "a", "model": "pop", "days": "2"}
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    assert [one.path for one in client.list_artifacts(runs["compared"].info.run_id)] == ["table.md"]


def test_a_store_that_fails_is_told_of_once_and_the_work_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(Tracked):
        def _numbers(self, values: Any, step: int) -> None:
            raise OSError("disk full\nand more")

        def _keep(self, path: Path) -> None:
            raise AssertionError("not asked again")

        def _end(self, state: str) -> None:
            raise AssertionError("not asked again")

    with Broken() as run:
        run({"epoch": 1, "loss": 1.0})
        run({"epoch": 2, "loss": 1.0})
        run.keep(Path("a"))
    assert capsys.readouterr().err == "tracking stopped, the work goes on: disk full\n"


def test_without_a_tracker_nothing_is_loaded_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with tracker(None).begin("a") as run:
        run({"epoch": 1, "loss": 1.0})
        run.keep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_words_that_mean_nothing_and_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'mlflow'"):
        tracker("mlflwo:runs")
    with pytest.raises(ConfigError, match="say where, as tensorboard:FOLDER"):
        tracker("tensorboard")
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name in ("mlflow.tracking", "torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    for kind in ("mlflow", "tensorboard"):
        with pytest.raises(ForetasteError, match=rf"tracking needs {kind}.*pip install 'foretaste\[track\]'"):
            tracker(f"{kind}:{tmp_path}")


def test_a_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ForetasteError, match="nothing can be kept there"):
            tracker(f"mlflow:{uri}")


def test_settings_name_the_model_and_all_that_it_has() -> None:
    made = Recommender("narm", hidden_size=8, epochs=3).settings
    assert {
        "model": "narm",
        "hidden_size": 8,
        "epochs": 3,
        "learning_rate": made["learning_rate"],
    }.items() <= made.items()
    assert Recommender("pop").settings.keys() == {"model", *Recommender("pop").config.as_dict()}
