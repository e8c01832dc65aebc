"""Cross-entropy over the whole catalogue, exact, without ever holding a matrix of tokens x items.

One row costs 6 I D operations: its I scores, and two products for the gradients. The naive way writes the [N, I]
scores, probabilities and their gradient to memory and reads them back. Here the work goes in blocks of rows and tiles
of items, and the gradients are taken in the forward pass, while a tile is still in the cache:

- a tile of scores [R, J] becomes p = exp(score - score of the row's target), in place. The target itself is one of the
  items, so a row's sum over all tiles is at least 1, and its loss is the logarithm of that sum;
- what a tile adds to the query's gradient, p @ E, is taken at once. Only p waits, for R rows and no longer;
- when all tiles are done, 1 / sum makes probabilities of them. It scales the rows of q, not the tiles:
  grad E = p^T @ (q / sum).

Where a target's score lies so far below another that the exponentials would leave the range of the type (a loss beyond
46), the block is done again with each row's greatest score in the place of its target's: safe for scores of any size.

Chosen by measurement (`benchmarks/softmax_speed.py`): R so that the waiting p stay under 48 MB (but at least 64 rows),
tiles of about 4,096 items, the gradient of E summed transposed, so that it adds up along contiguous rows. Which library
makes the products: see `models/products.py`.

`precision="bfloat16"` takes the three products of each tile from inputs rounded to 8 bits, and rounds what they sum to
so too; the exponentials, the sums over tiles, the weights and their gradients stay in float32. Where the processor
multiplies bfloat16 natively it is the faster, the more so the larger D. Its bound, tested: a score is off by at most
3.03 * 2^-8 |q| |e|, so a row's loss by no more than that, and the gradients by 2 % of their norm. It trains; it is no
reference.

Letters: N rows, R rows of a block, D item embedding, I items, J items of a tile, E the item matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.utils.checkpoint import checkpoint

from foretaste.models.contract import Query, query_length, query_rows
from foretaste.models.products import add_product, product

WAITING = {"cpu": 12_000_000, "other": 64_000_000}
"""Probabilities that wait for their row's sum, by kind of device."""
TILE = 4096
"""Items of a tile on a CPU; elsewhere a block is one tile."""
ALIGNED = 64
"""Tiles begin at a multiple of so many items, at whole lines of the cache."""
FAR = 1e20
"""A sum of exp(score - the target's score) that is no longer trusted."""


def catalogue_cross_entropy(
    queries: Tensor,
    matrix: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    block_rows: int | None = None,
    block_items: int | None = None,
    precision: str = "float32",
) -> Tensor:
    """Mean of -log softmax(queries @ matrix.T + bias)[target], as a scalar with gradients.

    Args:
        queries: [N, D], float32 or float64; anything else is computed in the type of `matrix`.
        matrix: [I, D].
        targets: [N] int64, columns 0..I-1.
        bias: [I], or None.
        weights: [N], not negative: the mean is sum(w loss) / sum(w), and 0 where the weights sum to 0. They get no
            gradient.
        block_rows: rows at a time; by default as many as keep the waiting probabilities small.
        block_items: items of a tile.
        precision: "float32" leaves the types as they are; "bfloat16" rounds what goes into the products.

    Gradients exist to the first order only, and only where they are asked for: without any (evaluation, `no_grad`) a
    third of the work is done.
    """
    rows, columns = _shape_of_blocks(len(queries), len(matrix), queries.device, block_rows, block_items)
    share = _share(weights, targets, matrix.dtype)  # [N]
    wants = torch.is_grad_enabled()  # inside `forward` it never is
    with torch.autocast(queries.device.type, enabled=False):
        loss: Tensor = _CatalogueCrossEntropy.apply(  # type: ignore[no-untyped-call]
            queries.to(matrix.dtype).contiguous(), matrix.contiguous(), bias, share, targets, rows, columns, wants,
            torch.bfloat16 if precision == "bfloat16" else matrix.dtype,
        )  # fmt: skip
    return loss


def score_cross_entropy(
    score: Callable[[Query, Tensor], Tensor],
    query: Query,
    n_items: int,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    block_rows: int = 512,
    block_items: int = 1024,
) -> Tensor:
    """The same mean for a model that scores each candidate by itself, such as RUM.

    `score(query, items)` gives [R, J] for a shared list [J] of item numbers, and [R, 1] for own candidates [R, 1]. What
    it computes for a tile is forgotten in the forward pass and computed again in the backward pass, so that only one
    tile of whatever the model holds for its scores is alive at a time. Dropout inside `score` repeats its draws.
    """
    numbers = torch.arange(1, n_items + 1, device=targets.device)  # [I]

    def log_sum(part: Query, items: Tensor) -> Tensor:
        return score(part, items).logsumexp(-1)  # [R]

    losses = []
    for start in range(0, max(query_length(query), 1), block_rows):
        block = slice(start, start + block_rows)
        part, own = query_rows(query, block), targets[block]
        sums = [checkpoint(log_sum, part, tile, use_reentrant=False) for tile in torch.split(numbers, block_items)]
        hit = score(part, own[:, None] + 1)[:, 0]  # [R]
        losses.append(torch.stack(sums).logsumexp(0) - hit)  # [R]
    return weighted_mean(torch.cat(losses), weights)


def weighted_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """sum(w v) / sum(w) of [N] values, 0 where the weights sum to 0; without weights the plain mean."""
    return (values * _share(weights, values, values.dtype)).sum()


def _share(weights: Tensor | None, like: Tensor, dtype: torch.dtype) -> Tensor:
    """[N]: the part of each row in the mean."""
    if weights is None:
        return torch.full((len(like),), 1 / max(len(like), 1), dtype=dtype, device=like.device)
    total = weights.detach().sum()
    return (weights.detach() / torch.where(total > 0, total, 1)).to(dtype)


def _shape_of_blocks(
    n: int, items: int, device: torch.device, block_rows: int | None, block_items: int | None
) -> tuple[int, int]:
    """Rows of a block and items of a tile: close to what was asked, and all of about one size."""
    cpu = device.type == "cpu"
    if block_rows is None:
        block_rows = min(max((WAITING["cpu" if cpu else "other"] // items) // 64 * 64, 64), 512 if cpu else 4096)
    aligned = 1 if block_items else ALIGNED
    if block_items is None:
        block_items = TILE if cpu else items
    blocks, tiles = math.ceil(n / block_rows), math.ceil(items / block_items)
    return max(math.ceil(n / max(blocks, 1)), 1), math.ceil(items / tiles / aligned) * aligned


class _CatalogueCrossEntropy(torch.autograd.Function):
    """Takes the gradients in `forward`; `backward` only scales them."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        queries: Tensor,
        matrix: Tensor,
        bias: Tensor | None,
        share: Tensor,
        targets: Tensor,
        rows: int,
        columns: int,
        wants: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        n, depth = queries.shape
        rounded = matrix.to(dtype)  # [I, D], itself where nothing is to be rounded
        need_query, need_matrix, need_bias = (wants and need for need in ctx.needs_input_grad[:3])  # type: ignore[attr-defined]
        tiles = [slice(start, min(start + columns, len(matrix))) for start in range(0, len(matrix), columns)]
        loss = queries.new_zeros(())
        grad_query = torch.empty_like(queries) if need_query else None  # [N, D]
        width = depth * need_matrix + need_bias  # the bias is one more row of q, a constant 1
        grad = queries.new_zeros(width, len(matrix)) if width else None  # [width, I]
        for start in range(0, n, rows):
            block = slice(start, start + rows)
            q, own, part = queries[block], targets[block], share[block]  # [R, D], [R], [R]
            shift = hit = (q * matrix[own]).sum(1) + (0 if bias is None else bias[own])  # [R]
            given = (q.to(dtype), rounded, bias, tiles, need_query, grad is not None)
            inside, whole, pull = _exponentials(shift, *given)  # p of each tile, [R], [R, D]
            if not (whole < FAR).all():
                del inside
                shift = torch.stack([_scores(*given[:3], tile).amax(1) for tile in tiles]).amax(0)  # [R]
                inside, whole, pull = _exponentials(shift, *given)
            loss += (part * (whole.log() + (shift - hit))).sum()
            scale = part / whole  # [R] makes weighted probabilities of p
            if grad_query is not None:
                grad_query[block] = pull * scale[:, None] - part[:, None] * matrix[own]
            if grad is not None:
                factor = _factors(q, need_matrix, need_bias)  # [width, R]
                scaled = (factor * scale).to(dtype)  # [width, R]
                for tile, p in zip(tiles, inside, strict=True):
                    add_product(grad[:, tile], scaled, p.T)  # [width, J]
                grad.index_add_(1, own, factor * part, alpha=-1)
            del inside  # before the next block makes its own: the same memory serves again
        grad_matrix = grad[:depth].T if grad is not None and need_matrix else None  # [I, D]
        grad_bias = grad[-1] if grad is not None and need_bias else None  # [I]
        ctx.save_for_backward(grad_query, grad_matrix, grad_bias)  # type: ignore[arg-type]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, by_loss: Tensor) -> tuple[Tensor | None, ...]:
        grads: tuple[Tensor | None, ...] = ctx.saved_tensors  # type: ignore[attr-defined]
        if by_loss.device.type != "cpu" or by_loss != 1:  # spares a pass over [I, D]
            grads = tuple(None if grad is None else grad * by_loss for grad in grads)
        return (*grads, None, None, None, None, None, None)


def _exponentials(
    shift: Tensor, q: Tensor, matrix: Tensor, bias: Tensor | None, tiles: list[slice], pulls: bool, keep: bool
) -> tuple[list[Tensor], Tensor, Tensor]:
    """p = exp(score - shift) of each tile [R, J] to `keep` or not, their sum [R], and with `pulls` p @ E [R, D]."""
    inside, whole, pull = [], torch.zeros_like(shift), q.new_zeros(q.shape, dtype=shift.dtype)
    for tile in tiles:
        p = _scores(q, matrix, bias, tile).sub_(shift[:, None]).exp_()  # [R, J]
        whole += p.sum(1)
        p = p.to(q.dtype)
        if pulls:
            add_product(pull, p, matrix[tile].T)
        if keep:
            inside.append(p)
    return inside, whole, pull


def _scores(q: Tensor, matrix: Tensor, bias: Tensor | None, tile: slice) -> Tensor:
    """[R, J], never in bfloat16."""
    rows, part = matrix[tile], None if bias is None else bias[tile]  # [J, D], [J]
    if q.dtype != torch.bfloat16:
        return product(q, rows, part)
    scores = product(q, rows).float()
    return scores if part is None else scores.add_(part)


def _factors(q: Tensor, matrix: bool, bias: bool) -> Tensor:
    """[width, R]: what p is multiplied with for the gradients of the matrix (q) and of the bias (1)."""
    ones = q.new_ones(1, len(q)) if bias else q.new_empty(0, len(q))  # [1 or 0, R]
    return torch.cat([q.T, ones]) if matrix else ones
