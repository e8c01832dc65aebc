"""The loop: every target once a pass, the seed decides all, and a killed run ends as if it had not been killed."""

import itertools
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fresh import CONTEXT

from foretaste.data.sequences import Sequences
from foretaste.errors import ConfigError, SavedFileError, TrainingError
from foretaste.models.contract import SequenceModel, seeded
from foretaste.models.narm import NARM
from foretaste.training.aims import Targets
from foretaste.training.batches import batches
from foretaste.training.checkpoint import read_tensors, write_tensors
from foretaste.training.loop import TrainConfig, train
from foretaste.training.settings import optimizer_of

SMALL = NARM.Config(embedding_size=8, hidden_size=8)


def log_of(rows: list[list[int]]) -> Sequences:
    items = np.array([item for row in rows for item in row], dtype=np.int32)
    ends = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Sequences(items, ends, ends, np.zeros(len(items), np.uint8), np.zeros(len(rows), np.int32))


def random_rows(count: int = 60, n_items: int = 20, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, n_items + 1, rng.integers(1, 15)).tolist() for _ in range(count)]


def new_model(seed: int = 0, n_items: int = 20) -> NARM:
    with seeded(seed):
        return NARM(n_items, SMALL)


@pytest.mark.parametrize(("budget", "chunk"), [(16, 512), (1, 512), (40, 4), (10_000, 3)])
def test_a_pass_asks_every_next_event_once(budget: int, chunk: int) -> None:
    rows = random_rows()
    asked = []
    for batch in batches(log_of(rows), "session", budget=budget, chunk=chunk, seed=(0, 0)):
        before = batch.events.items[batch.at]
        asked += list(zip(before.tolist(), (batch.targets + 1).tolist(), strict=True))
        assert batch.events.shape[1] <= chunk
    wanted = [pair for row in rows for pair in itertools.pairwise(row)]
    assert sorted(asked) == sorted(wanted)
    assert Targets.of(log_of(rows), "session").count == len(wanted)


def test_batches_hold_about_the_budget_and_little_padding() -> None:
    log = log_of(random_rows(3000))
    sizes, real, all_places = [], 0, 0
    for batch in batches(log, "session", budget=100, chunk=512, seed=(0, 0)):
        sizes.append(len(batch.targets))
        real += int(batch.at.sum())
        all_places += batch.at.numel()
    assert np.median(sizes) == pytest.approx(100, abs=7)
    assert max(sizes) <= 115
    assert real / all_places > 0.93


def test_only_events_that_may_be_targets_are_asked() -> None:
    log = log_of([[1, 2, 3, 4], [5, 6]])
    log = Sequences(**{**vars(log), "target": np.array([True, False, True, True, True, False])})
    asked = [int(t) + 1 for batch in batches(log, "session", budget=9, chunk=9, seed=(0,)) for t in batch.targets]
    assert sorted(asked) == [3, 4]


def test_the_state_is_carried_between_pieces_of_a_row() -> None:
    """Without dropout the first pass's first loss is the same whether a row is cut or not."""
    config = SMALL.with_(embedding_dropout=0.0, context_dropout=0.0)
    rows = [list(range(1, 16))]
    losses = []
    for chunk in (512, 4):
        with seeded(0):
            model = NARM(20, config)
        result = train(model, log_of(rows), TrainConfig(epochs=1, chunk=chunk, optimizer="sgd", learning_rate=1e-12))
        losses.append(result.history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_best_pass_is_kept_and_the_run_stops_in_time() -> None:
    seen: list[torch.Tensor] = []
    values = [0.1, 0.5, 0.3, 0.5, 0.2, 0.9]

    def validate(model: torch.nn.Module) -> dict[str, float]:
        seen.append(model.get_parameter("v").detach().clone())
        return {"recall@20": values[len(seen) - 1]}

    model = new_model()
    result = train(model, log_of(random_rows()), TrainConfig(epochs=6, patience=3), validate=validate)
    assert (result.epochs, result.best_epoch) == (5, 2)
    assert torch.equal(model.v.detach(), seen[1])
    with pytest.raises(ConfigError, match="metric 'ndcg@3' is not measured"):
        train(new_model(), log_of(random_rows()), TrainConfig(metric="ndcg@3"), validate=lambda m: {"recall@20": 0.0})


def test_training_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    train(new_model(), log_of(random_rows()), TrainConfig(epochs=1))
    assert torch.equal(torch.rand(3), wanted)


def test_the_rate_falls_as_the_schedule_says() -> None:
    rates: list[float] = []
    original = torch.optim.SGD.step

    def step(self: torch.optim.SGD, *arguments: object, **options: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", step)
        config = TrainConfig(epochs=4, optimizer="sgd", learning_rate=0.1, schedule="linear", batch=20)
        train(new_model(), log_of(random_rows()), config)
    assert rates[0] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    assert rates[len(rates) // 2] == pytest.approx(0.05, abs=0.003)
    assert rates[-1] < 0.003


@pytest.mark.parametrize(("accumulator", "wanted"), [(0.0, 1.0), (0.1, 0.01 / (0.1 + 1e-4) ** 0.5)])
def test_adagrads_first_step_is_as_long_as_its_sums_let_it(accumulator: float, wanted: float) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = optimizer_of(model, TrainConfig(optimizer="adagrad", learning_rate=1.0, accumulator=accumulator))  # type: ignore[arg-type]
    before = model.weight.detach().clone()
    model.weight.grad = torch.full_like(model.weight, 0.01)
    optimizer.step()
    assert (before - model.weight).item() == pytest.approx(wanted, rel=1e-5)


def test_adam_takes_the_beta2_that_is_asked() -> None:
    """By hand, two steps: the first is as long as the rate; the second, on a hundredth of the gradient, is the shorter
    the longer squares are remembered."""
    for beta2 in (0.999, 0.5):
        model = new_model()
        optimizer = optimizer_of(model, TrainConfig(learning_rate=0.1, beta2=beta2))
        weight = next(iter(model.parameters()))
        moved = []
        for gradient in (1.0, 0.01):
            before = weight.detach().clone()
            weight.grad = torch.full_like(weight, gradient)
            optimizer.step()
            moved.append(float((before - weight).detach().mean()))
        mean = (0.1 * 0.9 + 0.1 * 0.01) / (1 - 0.9**2)
        square = ((1 - beta2) * beta2 + (1 - beta2) * 1e-4) / (1 - beta2**2)
        assert moved == pytest.approx([0.1, 0.1 * mean / square**0.5], rel=1e-4)


def test_averaged_weights_are_what_is_kept() -> None:
    config = TrainConfig(epochs=2, average=0.5, learning_rate=0.05)
    plain, averaged = new_model(), new_model()
    train(plain, log_of(random_rows()), config.with_(average=0.0))
    train(averaged, log_of(random_rows()), config)
    assert not torch.equal(plain.v, averaged.v)
    assert float((plain.v - averaged.v).detach().abs().max()) < 0.2


def test_what_is_kept_are_the_weights_that_were_validated() -> None:
    """Averaged ones too, with what the validation changed in them: it forgets users who were never trained."""

    def validate(model: SequenceModel) -> dict[str, float]:
        with torch.no_grad():
            model.v[0] = 7.0
        return {"recall@20": 0.5}

    for average in (0.0, 0.9):
        model = new_model()
        train(model, log_of(random_rows()), TrainConfig(epochs=2, average=average), validate=validate)
        assert (model.v[0] == 7.0).all()
        assert not (model.v[1] == 7.0).any()


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(TrainingError, match="no event that follows another"):
        train(new_model(), log_of([[1], [2]]), TrainConfig())
    log = log_of([[1, 2], [2, 3]])
    with pytest.raises(TrainingError, match=r"no target that follows another event .* or other target actions"):
        train(new_model(), replace(log, target=np.array([True, False, True, False])), TrainConfig())


def test_a_loss_that_is_no_number_stops_with_advice() -> None:
    model = new_model()
    with torch.no_grad():
        model.v.fill_(float("nan"))
    with pytest.raises(TrainingError, match="lower learning_rate"):
        train(model, log_of(random_rows()), TrainConfig())


def test_weights_that_the_last_step_broke_are_said_before_anybody_asks_them() -> None:
    model = new_model()
    model.v.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"weights became NaN .* of pass 1: try a lower learning_rate"):
        train(model, log_of(random_rows()), TrainConfig(batch=10_000))


KILLED = TrainConfig(epochs=2, batch=32, checkpoint_seconds=0.02, schedule="cosine", average=0.9, patience=9)


def run_to_its_end(folder: Path, slow: float, parallel: int) -> None:
    """A training in a process of its own, `slow` seconds longer at each step, and its weights at the end."""
    torch.set_num_threads(1)
    model = new_model()

    def validate(m: SequenceModel) -> dict[str, float]:
        return {"recall@20": -float(m.v.detach().abs().sum())}

    config = KILLED.with_(parallel=parallel)
    train(
        model, log_of(random_rows(250)), config, folder=folder, report=lambda facts: time.sleep(slow), validate=validate
    )
    save_file(model.state_dict(), str(folder / "final.safetensors"))


@pytest.mark.parametrize("parallel", [0, 11])
def test_a_run_killed_again_and_again_ends_with_the_same_weights(tmp_path: Path, parallel: int) -> None:
    def start(folder: Path, slow: float) -> BaseProcess:
        process = CONTEXT.Process(target=run_to_its_end, args=(folder, slow, parallel))  # type: ignore[attr-defined]
        process.start()
        return process

    def ended(process: BaseProcess) -> int | None:
        process.join()
        return process.exitcode

    assert ended(start(tmp_path / "whole", 0.0)) == 0
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    for _ in range(3):
        process = start(tmp_path / "killed", 0.01)
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        deadline = time.monotonic() + 60
        while (checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0) == before and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.15)
        process.kill()
        process.join()
    assert not (tmp_path / "killed" / "final.safetensors").exists(), "it was never killed in the middle"
    assert ended(start(tmp_path / "killed", 0.0)) == 0
    whole, killed = (load_file(tmp_path / name / "final.safetensors") for name in ("whole", "killed"))
    for name, value in whole.items():
        assert torch.equal(value, killed[name]), name
    assert (tmp_path / "killed" / "log.jsonl").read_text().count("\n") == 2


def test_a_checkpoint_from_before_a_setting_existed_goes_on(tmp_path: Path) -> None:
    """What the file does not name stood at its default."""
    log, config = log_of(random_rows()), TrainConfig(epochs=1)
    train(new_model(), log, config, folder=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    tensors, facts = read_tensors(path)
    del facts["config"]["parallel"], facts["config"]["before"]
    write_tensors(path, tensors, facts)
    assert train(new_model(), log, config, folder=tmp_path).epochs == 1
    with pytest.raises(ConfigError, match="other settings"):
        train(new_model(), log, config.with_(parallel=3), folder=tmp_path)


def test_a_folder_of_another_run_or_a_broken_checkpoint_is_refused(tmp_path: Path) -> None:
    log, config = log_of(random_rows()), TrainConfig(epochs=1)
    train(new_model(), log, config, folder=tmp_path)
    with pytest.raises(ConfigError, match="other settings, another log"):
        train(new_model(), log, config.with_(learning_rate=0.5), folder=tmp_path)
    with seeded(0), pytest.raises(ConfigError, match="other settings, another log"):
        train(NARM(20, SMALL.with_(hidden_size=9)), log, config, folder=tmp_path)
    with pytest.raises(ConfigError, match="another log or another protocol"):
        train(new_model(), log_of([row[::-1] for row in random_rows()]), config, folder=tmp_path)  # as many targets
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SavedFileError, match="truncated"):
        train(new_model(), log, config, folder=tmp_path)
