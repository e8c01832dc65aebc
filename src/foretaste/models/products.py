"""One matrix product, the fastest exact float32 that this machine has: the same for training and for ranking.

On a CPU, oneDNN's product is used where PyTorch has it. It is plain float32, as exact as the default one, and on a
processor that the default library treats coldly it is twice as fast or more. The door to it is the one that PyTorch's
own compiler uses; it is tried once, and where it is missing or does not give the product, the default serves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

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


@cache
def onednn_product() -> Product | None:
    """oneDNN's product, or None where there is none to be trusted."""

    def found(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
        return out

    a, b, bias = torch.arange(32.0).view(16, 2), torch.arange(6.0).view(3, 2), torch.arange(3.0)
    try:
        return found if torch.equal(found(a, b, bias), a @ b.T + bias) else None
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return None
