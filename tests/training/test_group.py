"""Several processes make the steps of one: the same weights to rounding, for every model that learns by gradient."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.fresh import CONTEXT

from foretaste.data.shop import shop
from foretaste.data.splits import SessionOrder
from foretaste.errors import ConfigError
from foretaste.models import MODELS, model_class
from foretaste.models.contract import SequenceModel
from foretaste.training.group import Group

PLAIN = {"parallel": 0, "batch": 40, "epochs": 2, "metric": "recall@20", "optimizer": "sgd", "learning_rate": 0.05}
"""Plain descent: Adam and Adagrad divide by a gradient's size, and make a step of what is rounding alone."""
CHANGES: dict[str, dict[str, Any]] = {
    "narm": {"chunk": 4, "clip": 0.05},
    "asars": {"loss": "top1", "sampler": "batch", "negatives": 8, "l2": 0.01},
    "rum-feature": {"l2": 0.01},
    "lsamn": {"penalties": {"Phi": 0.02, "V": 0.01}},
    "sasrec": {"average": 0.9},
}
"""Settings beside a model's own, so that each way of the loop is taken by one at least."""
Found = dict[str, dict[str, list[float]]]
"""By model: its weights by name, and under `told` the losses that were reported."""


def placed(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells a process of the others."""
    return {"RANK": f"{rank}", "WORLD_SIZE": f"{size}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def trained(
    rank: int, size: int, port: int, names: list[str], folder: Path | None, passes: int, more: dict[str, Any]
) -> Found:
    """What one of so many processes has in the end."""
    os.environ |= placed(rank, size, port) if size > 1 else {}
    from tests.battery import make, random_log
    from tests.variants import VARIANTS

    from foretaste.training.loop import TrainConfig, TrainResult, train
    from foretaste.training.settings import joined

    torch.set_num_threads(1)
    log, found = random_log(n_users=12), {}
    for name in names:
        variant = VARIANTS[name][0]
        still = {field: 0.0 for field in model_class(name).Config.model_fields if "dropout" in field}
        model = make(name, {**variant, **still})
        recipe = TrainConfig.of(joined(model.recipe, {**PLAIN, **CHANGES.get(name, {}), **more}))
        told: list[float] = []

        def report(facts: Any, told: list[float] = told) -> None:
            if "done" not in facts:
                told.append(facts["loss"])

        def validate(model: SequenceModel) -> dict[str, float]:
            return {"recall@20": float(next(model.parameters()).detach().square().sum())}

        given = TrainResult(passes, passes)
        train(model, log, recipe, folder=folder, report=report, like=given, validate=validate)
        weights = {key: value.double().reshape(-1).tolist() for key, value in model.state_dict().items()}
        found[name] = {**weights, "told": told}
    return found


def by(size: int, names: list[str], folder: Path | None = None, passes: int = 2, **more: Any) -> list[Found]:
    """What each of so many processes has."""
    port = free_port()
    with ProcessPoolExecutor(size, mp_context=CONTEXT) as pool:
        asked = [pool.submit(trained, rank, size, port, names, folder, passes, more) for rank in range(size)]
        return [one.result() for one in asked]


def assert_alike(name: str, found: dict[str, list[float]], wanted: dict[str, list[float]]) -> None:
    for key, values in found.items():
        assert np.allclose(values, wanted[key], rtol=1e-9, atol=1e-12), f"{name}: {key}"


@pytest.fixture(scope="module")
def alone() -> Found:
    (found,) = by(1, GRADIENT)
    return found


GRADIENT = [name for name in MODELS if model_class(name).learns == "gradient"]


@pytest.mark.parametrize("size", [2, 3])
def test_every_model_has_the_weights_of_one_process(size: int, alone: Found) -> None:
    first, *others = by(size, GRADIENT)
    for name in GRADIENT:
        for one in others:
            assert not one[name].pop("told"), f"{name}: another process than the first reports"
            for key, values in one[name].items():
                assert values == first[name][key], f"{name}: {key} differs between processes"
        if name != "dman":  # each process takes its own rows' loss of reconstruction
            assert_alike(name, first[name], alone[name])


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, alone: Found) -> None:
    by(2, ["narm"], tmp_path, passes=1)
    first, other = by(3, ["narm"], tmp_path)[:2]
    assert len(first["narm"]["told"]) == 1  # the second pass
    assert_alike("narm", {**other["narm"], "told": [alone["narm"]["told"][0], *first["narm"]["told"]]}, alone["narm"])


def test_rows_that_hand_states_on_stay_in_one_process() -> None:
    with pytest.raises(ConfigError, match="parallel = 4 hands states from row to row within one process"):
        by(2, ["gru4rec"], parallel=4)


def test_one_of_several_that_does_not_know_which_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="start them with torchrun, or unset WORLD_SIZE"):
        Group.here(torch.device("cpu"))


def test_torchrun_trains_saves_once_and_goes_on_when_killed(tmp_path: Path) -> None:
    """NARM with its dropout: what a step draws depends on the step, not on what was drawn before."""
    shop(n_users=60, n_items=40, seed=3).log().prepare(validation=SessionOrder(fraction=0.1)).save(tmp_path / "log")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "foretaste", "train", str(tmp_path / "log"), "--set", "epochs=2", "--set", "batch=32"]
    command += ["--set", "embedding_size=8", "--set", "hidden_size=8", "--set", "checkpoint_seconds=0.001", "--out"]
    whole = subprocess.run([*torchrun, *command, str(tmp_path / "whole")], capture_output=True, text=True, timeout=300)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("saved: ") == 1
    assert whole.stderr.count("pass 2/2") == 1

    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, *command, str(tmp_path / "killed")],
            env={**os.environ, **placed(rank, 2, port)}, stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]  # fmt: skip
    checkpoint = tmp_path / "killed.run" / "checkpoint.safetensors"
    while not checkpoint.exists():
        assert processes[0].poll() is None
        time.sleep(0.002)
    for process in processes:
        process.kill()
        process.wait()
    assert not (tmp_path / "killed").exists()
    subprocess.run([*torchrun, *command, str(tmp_path / "killed")], check=True, capture_output=True, timeout=300)
    found, wanted = (load_file(tmp_path / name / "weights.safetensors") for name in ("killed", "whole"))
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
