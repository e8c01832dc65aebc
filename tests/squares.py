"""What `l2` weighs, as one number: the squares of the rows that a model names."""

from torch import Tensor


def squares(owned: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Their sum; a row that is named twice counts twice."""
    total: Tensor = sum((weight[rows].square().sum() for weight, rows in owned), Tensor([0.0]).sum())
    return total
