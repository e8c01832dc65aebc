"""One training by several processes, on one machine or many: torchrun starts them, each takes its rows of every step.

    torchrun --nproc-per-node 4 -m foretaste train PREPARED --out clicks-narm --device cuda

A step is the one that a single process would make: all make the same batch and draw the same negatives, each answers
every n-th row, and the gradients are summed before the optimiser moves. So settings mean the same whatever the number
of processes, a run may go on with another number, and weights differ by rounding, but where a model draws for itself
(dropout: each process draws its own) or has a loss of what no target asked (DMAN's reconstruction, which each process
takes of its own rows, weighted by their targets).

The first process reports, validates and writes checkpoints; the others hear from it what it measured, and the weights.
Checkpoints must stand where every process can read them. What goes between processes are tensors and JSON, through
torch.distributed (NCCL between GPUs, Gloo between CPUs). DistributedDataParallel is not used: it counts on `forward`
alone, and a model here is asked through `score` and `item_matrix` too.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foretaste.errors import ConfigError
from foretaste.training.batches import Batch
from foretaste.training.negatives import generator

PATIENCE = timedelta(days=1)
"""How long the others wait while the first validates. Where one dies, torchrun ends the others at once."""


@dataclass(frozen=True)
class Share:
    """What one process answers of a step."""

    whole: Batch
    """The step."""
    batch: Batch
    """Its rows of it, maybe none."""
    mine: Tensor | None
    """[N] bool: which of the step's targets are its own; None where all are."""
    size: int
    """Processes that share it."""

    @property
    def sharers(self) -> int:
        """Those of them that have a target of this step."""
        return int(torch.bincount(self.whole.owners % self.size).count_nonzero())

    @property
    def weight(self) -> float:
        """Its part of the step's targets."""
        return 1.0 if self.mine is None else len(self.batch.targets) / len(self.whole.targets)


@dataclass(frozen=True)
class Group:
    """The processes of a training."""

    rank: int = 0
    """Which of them this is."""
    size: int = 1
    """How many there are."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where this one computes."""

    @classmethod
    def here(cls, device: torch.device) -> Group:
        """The group that torchrun started, joined on first use; else this process alone."""
        if not several():
            return cls(device=device)
        if not {"RANK", "MASTER_ADDR"} <= set(os.environ):
            raise ConfigError(
                f"WORLD_SIZE = {os.environ['WORLD_SIZE']} says that this is one of several processes, but not which: "
                "start them with torchrun, or unset WORLD_SIZE"
            )
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group(timeout=PATIENCE)
            atexit.register(dist.destroy_process_group)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def alone(self) -> bool:
        """Is there no other?"""
        return self.size == 1

    def share(self, whole: Batch) -> Share:
        """This process's rows of a step: every `size`-th. A row that runs on does so where it began."""
        if self.alone:
            return Share(whole, whole, None, 1)
        rows = slice(self.rank, None, self.size)
        mine = whole.owners % self.size == self.rank  # [N]
        asked = torch.cat([whole.at.nonzero()[:, 0], whole.blank.nonzero()[:, 0]])  # the row of each query
        number = (asked % self.size == self.rank).cumsum(0) - 1  # of each query among those of this process
        before = whole.before[rows]
        batch = replace(
            whole,
            events=whole.events.rows(rows),
            at=whole.at[rows],
            targets=whole.targets[mine],
            users=whole.users[rows],
            before=torch.where(before < 0, before, before // self.size),
            blank=whole.blank[rows],
            rows=number[whole.rows[mine]],
            owners=whole.owners[mine] // self.size,
            places=whole.places[mine.cpu().numpy()],
        )
        return Share(whole, batch, mine, self.size)

    def draw(self, *key: int) -> None:
        """Make what this process draws next, such as dropout, depend on the key and its rank; alone, leave it be."""
        if not self.alone:
            torch.manual_seed(generator(*key, self.rank).initial_seed())

    def sum(self, model: nn.Module, loss: float) -> float:
        """Give every process the sum of all gradients; gives the sum of the losses."""
        if self.alone:
            return loss
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        has = [float(weight.grad is not None) for weight in weights]
        facts = torch.tensor([loss, *has], dtype=torch.float64, device=self.device)
        dist.all_reduce(facts)
        total, *often = facts.tolist()
        moved = [weight for weight, count in zip(weights, often, strict=True) if count]
        parts = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in moved]
        if moved:
            flat = torch.cat([part.reshape(-1) for part in parts])
            dist.all_reduce(flat)
            for weight, part in zip(moved, torch.split(flat, [part.numel() for part in parts]), strict=True):
                weight.grad = part.view_as(weight)
        return float(total)

    def same(self, model: nn.Module) -> None:
        """Give every process the weights of the first."""
        if not self.alone:
            for value in model.state_dict().values():
                dist.broadcast(value, 0)

    def told(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Plain facts, as the first process has them."""
        if self.alone:
            return dict(facts)
        text = torch.frombuffer(bytearray(json.dumps(facts), "utf-8"), dtype=torch.uint8).to(self.device)
        size = torch.tensor([len(text)], device=self.device)
        dist.broadcast(size, 0)
        text = text if self.rank == 0 else torch.empty(int(size), dtype=torch.uint8, device=self.device)
        dist.broadcast(text, 0)
        found: dict[str, Any] = json.loads(bytes(text.tolist()))
        return found


def several() -> bool:
    """Is this one of several processes, as torchrun starts them?"""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def first() -> bool:
    """Is this the process that writes and speaks? Always, but under torchrun."""
    return int(os.environ.get("RANK", "0")) == 0
