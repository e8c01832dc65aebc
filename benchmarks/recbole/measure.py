"""The yardstick: how fast RecBole 1.2.1 trains and ranks with NARM, or with GRU4Rec, on this machine.

Run it inside RecBole's own environment (README.md beside this file); Foretaste is not imported. RecBole is used as its
users do: Config, create_dataset, data_preparation, its Trainer. Its own `_train_epoch` and `evaluate` do the work that
is timed; only the loader handed to `_train_epoch` stops after a set time. The sizes are those of Foretaste's own
speed benchmark. Each log runs in a process of its own, so that its peak memory is its own.

Two logs: ml-100k, the file that RecBole's wheel carries, split as RecBole does by default (each user's last two events
out); and DIGINETICA whole, its 719,470 training prefixes and 60,858 test cases over 43,097 items. Where DIGINETICA is
not at hand, a generated log of the same counts takes its place, and the result says so.
"""

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

try:
    import numpy as np
    import pandas as pd
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.data.utils import get_dataloader
    from recbole.utils import get_model, get_trainer, init_seed
except ImportError as error:
    sys.exit(f"{error}. This script runs inside RecBole's own environment: see README.md beside it.")

SIZES = {
    "embedding_size": 64,
    "hidden_size": 128,
    "n_layers": 1,  # NARM's
    "num_layers": 1,  # GRU4Rec's
    "MAX_ITEM_LIST_LENGTH": 50,
    "train_batch_size": 512,
    "loss_type": "CE",
    "train_neg_sample_args": None,  # cross-entropy over the whole catalogue
    "learning_rate": 0.001,
}
EVALUATION = {"metrics": ["Recall", "MRR"], "topk": [20], "valid_metric": "MRR@20"}
QUIET = {"use_gpu": False, "gpu_id": "", "state": "ERROR", "show_progress": False}

ITEMS, TRAIN_SESSIONS, TEST_SESSIONS = 43_097, 186_670, 15_963  # DIGINETICA
TRAIN_PREFIXES, TEST_PREFIXES = 719_470, 60_858
WARM_UP = 5  # batches before the clock starts
RANK_BATCHES = (4096, 512, 128)  # RecBole's default, and two whose scores sit nearer the cache
DIGINETICA = ("diginetica.train.parquet", "diginetica.test.parquet")
FOLDER = Path("data")


class TimedBatches:
    """A training loader that stops after some seconds, and counts the prefixes and seconds after the warm-up."""

    def __init__(self, loader: Any, limit: float) -> None:
        self.loader, self.limit = loader, limit
        self.batches, self.prefixes, self.seconds = 0, 0, 0.0

    def __iter__(self) -> Iterator[Any]:
        start = time.perf_counter()
        for number, batch in enumerate(self.loader, start=1):
            yield batch  # the caller's training step runs here
            if number <= WARM_UP:
                start = time.perf_counter()
                continue
            self.batches += 1
            self.prefixes += len(batch)
            self.seconds = time.perf_counter() - start
            if self.seconds >= self.limit:
                return


class Phase:
    """Clocks a phase: its seconds, its peak memory in MB, and how many cores other programs kept busy meanwhile."""

    def __enter__(self) -> "Phase":
        self.figures: dict[str, Any] = {}
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        self.start, self.busy, self.own = time.perf_counter(), busy_seconds(), time.process_time()
        return self

    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def __exit__(self, *_: object) -> None:
        seconds = self.seconds()
        others = busy_seconds() - self.busy - (time.process_time() - self.own)
        self.figures = {"seconds": round(seconds, 2), "others_busy_cores": round(max(0.0, others / seconds), 2)}
        with contextlib.suppress(OSError, StopIteration):
            lines = Path("/proc/self/status").read_text().splitlines()
            peak = next(line for line in lines if line.startswith("VmHWM"))
            self.figures["peak_mb"] = round(int(peak.split()[1]) * 1024 / 1e6)


def busy_seconds() -> float:
    """Core-seconds that the whole machine has worked since it started; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        user, nice, system, *_ = Path("/proc/stat").read_text().split()[1:]
        return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def measure(name: str, settings: dict[str, Any], folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Prepare, train and rank one log with a model of RecBole's. Runs in a fresh process, inside a scratch folder."""
    sys.argv = sys.argv[:1]  # RecBole would read our command line as settings of its own
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    with contextlib.chdir(folder):  # RecBole writes logs and checkpoints where it stands
        config = Config(model=arguments.model, dataset=name, config_dict=SIZES | EVALUATION | QUIET | settings)
        init_seed(config["seed"], config["reproducibility"])
        with Phase() as preparing:
            dataset = create_dataset(config)
            train_data, _, test_data = data_preparation(config, dataset)

        model = get_model(config["model"])(config, train_data.dataset).to(config["device"])
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        batches = TimedBatches(train_data, arguments.seconds)
        with Phase() as training:
            loss = trainer._train_epoch(batches, epoch_idx=0)
        trained = {
            "prefixes": batches.prefixes,
            "prefixes_per_second": round(batches.prefixes / batches.seconds, 1),
            "whole_pass": batches.batches + WARM_UP == len(train_data),
            "mean_loss": round(loss / (batches.batches + WARM_UP), 4),
        }

        ranked = []
        for size in RANK_BATCHES:
            config["eval_batch_size"] = size
            loader = get_dataloader(config, "test")(config, test_data.dataset, test_data._sampler, shuffle=False)
            cases = 0
            with Phase() as ranking:
                while ranking.seconds() < 5.0:  # a small test set is ranked again and again
                    trainer.evaluate(loader, load_best_model=False)
                    cases += len(test_data.dataset)
            rate = round(cases / ranking.figures["seconds"], 1)
            ranked.append({"batch": size, "cases": cases, "cases_per_second": rate, **ranking.figures})
    lengths = train_data.dataset.inter_feat[config["ITEM_LIST_LENGTH_FIELD"]]
    return {
        "items": dataset.item_num - 1,  # without the padding item
        "train_prefixes": len(train_data.dataset),
        "mean_prefix_length": round(lengths.double().mean().item(), 2),
        "test_cases": len(test_data.dataset),
        "prepare": preparing.figures,
        "train": trained | training.figures | {"seconds": round(batches.seconds, 2)},
        "rank": ranked,
    }


def read_diginetica(folder: Path) -> pd.DataFrame:
    """The real log: training sessions, then test sessions, each in its own order."""
    parts, first = [], 0
    for file in (folder / name for name in DIGINETICA):
        events = pd.read_parquet(file)
        missing = {"sequence_id", "position", "item_id"} - set(events.columns)
        if missing:
            sys.exit(f"{file} has no column {', '.join(sorted(missing))}; its columns: {', '.join(events.columns)}.")
        events = events.sort_values(["sequence_id", "position"])
        parts.append(pd.DataFrame({"session_id": events["sequence_id"] + first, "item_id": events["item_id"]}))
        first += int(events["sequence_id"].max()) + 1
    return pd.concat(parts, ignore_index=True)


def generate(seed: int = 0) -> pd.DataFrame:
    """A log with DIGINETICA's counts: sessions of two events and more, popularity by Zipf, every item at least once."""
    rng = np.random.default_rng(seed)
    lengths = []
    for sessions, prefixes in ((TRAIN_SESSIONS, TRAIN_PREFIXES), (TEST_SESSIONS, TEST_PREFIXES)):
        spare = rng.multinomial(prefixes - sessions, rng.dirichlet(np.ones(sessions)))
        lengths.append(2 + spare)
    lengths = np.concatenate(lengths)
    popularity = 1.0 / np.arange(1, ITEMS + 1) ** 0.8
    items = rng.choice(np.arange(1, ITEMS + 1), size=lengths.sum(), p=popularity / popularity.sum())
    training = lengths[:TRAIN_SESSIONS].sum()
    items[rng.choice(training, size=ITEMS, replace=False)] = np.arange(1, ITEMS + 1)
    return pd.DataFrame({"session_id": np.repeat(np.arange(len(lengths)), lengths), "item_id": items})


def write_clicks(events: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """Write the log as RecBole's atomic file `clicks.inter`; returns the settings that read and split it.

    An event's time is its place in the log, so RecBole's split in time order cuts exactly where the test part begins.
    """
    events = events.assign(timestamp=np.arange(len(events)))
    events.columns = ["session_id:token", "item_id:token", "timestamp:float"]
    (folder / "clicks").mkdir()
    events.to_csv(folder / "clicks" / "clicks.inter", sep="\t", index=False)
    split = {"RS": [TRAIN_PREFIXES - 0.5, 0, TEST_PREFIXES + 0.5]}  # halves, because RecBole rounds each part down
    return {
        "data_path": str(folder),
        "USER_ID_FIELD": "session_id",
        "load_col": {"inter": ["session_id", "item_id", "timestamp"]},
        "eval_args": {"split": split, "group_by": "none", "order": "TO", "mode": "full"},
    }


def log(name: str, folder: Path, diginetica: Path | None) -> tuple[str, str, dict[str, Any]]:
    """Where a log comes from, what RecBole calls it, and the settings with which RecBole reads it."""
    if name == "ml-100k":
        return "the file in recbole's wheel", "ml-100k", {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    if diginetica is None:
        return "generated, seed 0", "clicks", write_clicks(generate(), folder)
    return "real", "clicks", write_clicks(read_diginetica(diginetica), folder)


def machine(threads: int) -> dict[str, Any]:
    """What the figures depend on."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    packages = ("recbole", "torch", "numpy", "pandas", "scipy", "setuptools")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "torch_threads": threads,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def show(figures: dict[str, Any]) -> None:
    print(f"  {figures['items']:,} items, prepared in {figures['prepare']['seconds']:.0f} s")
    print(f"  {figures['train']['prefixes_per_second']:,.0f} prefixes/s trained")
    for ranked in figures["rank"]:
        print(f"  {ranked['cases_per_second']:,.0f} cases/s ranked, {ranked['batch']} at a time")
    others = max(phase["others_busy_cores"] for phase in (figures["train"], *figures["rank"]))
    if others > 0.1:
        print(f"  NOT IDLE: other programs kept {others:.1f} cores busy meanwhile; measure again on an idle machine")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a model of RecBole's: preparing, training, ranking.")
    parser.add_argument("--model", choices=("NARM", "GRU4Rec"), default="NARM", help="which (default: NARM)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--all", action="store_true", help="both logs")
    what.add_argument("--only", choices=("ml-100k", "diginetica"), help="one of the two")
    parser.add_argument("--diginetica", type=Path, metavar="FOLDER", help="folder with diginetica.{train,test}.parquet")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--seconds", type=float, default=60.0, help="time to train for, each log (default: 60)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    arguments = parser.parse_args()
    if not arguments.out.parent.is_dir():
        parser.error(f"--out {arguments.out}: there is no folder {arguments.out.parent}. Make it first.")
    if arguments.diginetica is None and all((FOLDER / file).exists() for file in DIGINETICA):
        arguments.diginetica = FOLDER
    if arguments.diginetica is not None:
        for file in DIGINETICA:
            if not (arguments.diginetica / file).exists():
                parser.error(f"--diginetica {arguments.diginetica}: there is no {file} in it.")
    return arguments


def main() -> None:
    arguments = parse()
    result: dict[str, Any] = {
        "what": f"RecBole {arguments.model}, full softmax",
        **machine(arguments.threads),
        "sizes": SIZES,
    }
    result["logs"] = {}
    for name in ("ml-100k", "diginetica") if arguments.all else (arguments.only,):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            source, dataset, settings = log(name, folder, arguments.diginetica)
            print(f"{name} ({source}): {arguments.seconds:.0f} s of training, then ranking ...", flush=True)
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
                figures = fresh.submit(measure, dataset, settings, folder, arguments).result()
        result["logs"][name] = {"source": source, **figures}
        show(figures)
    partial = arguments.out.with_name(arguments.out.name + ".tmp")
    partial.write_text(json.dumps(result, indent=2) + "\n")
    partial.replace(arguments.out)
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
