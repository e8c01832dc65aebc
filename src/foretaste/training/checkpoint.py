"""A training run that can be killed at any moment and go on to the same weights.

One file holds all that decides the future of a run: weights, best weights, optimiser moments, the states that rows run
on from, the generator, and where the run stands. It is safetensors with the plain facts as JSON in its header, so
reading it runs no code. It is written under a temporary name and renamed: a reader finds the old file or the new one,
never half of one.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from foretaste.data.sequences import Sequences, digest
from foretaste.errors import SavedFileError

FORMAT = 1


def fingerprint(log: Sequences) -> str:
    """The same for the same events in the same rows."""
    columns = [log.columns[name] for name in sorted(log.columns)]
    return digest(log.items, log.users, log.sessions, log.user_numbers, log.times, log.target, *columns)


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Tensors and JSON facts into one file, atomically."""
    temporary = path.with_name(path.name + ".tmp")
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(plain, temporary, metadata={"facts": json.dumps({"format": FORMAT, **facts})})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink()
        raise SavedFileError(
            f"{path}: could not be written ({error}); free some space or choose another folder"
        ) from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote, or one clear error about a truncated, foreign or newer file."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (SafetensorError, OSError, ValueError) as error:
        raise SavedFileError(
            f"{path}: cannot be read ({error}); it is truncated or not a Foretaste file: remove it to begin afresh"
        ) from error
    if facts.get("format") != FORMAT:
        raise SavedFileError(f"{path}: format {facts.get('format')}, this version reads format {FORMAT}")
    return tensors, facts


def read_facts(path: Path) -> dict[str, Any]:
    """The facts alone."""
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {}).get("facts", "{}"))
            return facts
    except (SafetensorError, OSError, ValueError) as error:
        raise SavedFileError(f"{path}: cannot be read ({error}): remove it to begin afresh") from error


def run_state(model: nn.Module, optimizer: torch.optim.Optimizer, **parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor that a run needs to go on, under one flat naming; `parts` are the loop's own."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for part, values in parts.items():
        tensors |= {f"{part}.{name}": value for name, value in values.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if (device := _device(model)).type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def restore(
    tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, dict[str, Tensor]]:
    """Put a run back where it stood; gives the loop's own parts, those without a tensor left out."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        part, rest = name.split(".", 1)
        parts.setdefault(part, {})[rest] = value
    model.load_state_dict(parts["model"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in parts.get("optimizer", {}).items():
        index, moment = name.split(".", 1)
        moments.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(parts["random"]["cpu"])
    if "cuda" in parts["random"] and (device := _device(model)).type == "cuda":
        torch.cuda.set_rng_state(parts["random"]["cuda"], device)
    return parts


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def forget(folder: Path) -> None:
    """Remove the checkpoints of a run that has come to its end; its log stays."""
    for path in folder.rglob("checkpoint.safetensors"):
        path.unlink()
