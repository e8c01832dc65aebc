"""One matrix product, the fastest exact float32 that this machine has: the same for training and for ranking.

On a CPU that is not Intel's, oneDNN's product is used where PyTorch has it. It is plain float32, as exact as the
default one (MKL), which treats other makers' processors coldly; on Intel's own MKL is the faster
(`benchmarks/softmax_speed.py` measures both). The maker decides, not a race, so that numbers repeat to the last bit on
one machine. The door to oneDNN is the one that PyTorch's own compiler uses; it is tried once, and where it is
missing or does not give the product, the default serves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a @ b.T + bias for a [M, K], b [N, K], bias [N] -> [M, N]; without autograd."""
    here = a.device.type == "cpu" and (a.dtype == torch.float32 or (a.dtype == torch.bfloat16 and b.is_contiguous()))
    onednn = onednn_product() if here else None
    if onednn is not None:
        return onednn(a, b, bias)                                          # [M, N]
    return a @ b.T if bias is None else torch.addmm(bias, a, b.T)          # [M, N]


def add_product(into: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b.T to `into` [M, N], in place; `into` may be of a finer type."""
    if into.dtype == a.dtype and (into.device.type != "cpu" or onednn_product() is None):
        into.addmm_(a, b.T)
    else:
        into += product(a, b)


@cache
def onednn_product() -> Product | None:
    """oneDNN's product, or None where the default is the faster or there is none to be trusted."""
    if made_by_intel():
        return None

    def found(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
        return out

    a, b, bias = torch.arange(32.0).view(16, 2), torch.arange(6.0).view(3, 2), torch.arange(3.0)
    try:
        return found if torch.equal(found(a, b, bias), a @ b.T + bias) else None
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return None


def made_by_intel() -> bool:
    """Whether the processor is Intel's; False where the system does not tell."""
    return "GenuineIntel" in _about_the_processor()


def processor() -> str:
    """The processor's name, or nothing where the system does not tell."""
    lines = _about_the_processor().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _about_the_processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
