"""What `l2` weighs, as one number: the squares of the rows that a model names."""

import torch
from torch import Tensor


def squares(owned: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Their sum; a row that is named twice counts twice."""
    return torch.stack([weight[rows].square().sum() for weight, rows in owned]).sum()
