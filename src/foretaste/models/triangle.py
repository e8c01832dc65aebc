"""Every prefix of every row in one pass: a softmax over a growing prefix, and an LSTM that starts afresh inside a row.

ASARS' "triangle" (its section 2.3), without the triangle: the weights of a prefix are those of the shorter prefix,
scaled, and one more. A running (max, sum, weighted sum) holds all of it. Many positions are worked out in blocks:
inside a block the triangle, between blocks the running triple. So nothing overflows, and no T x T table is kept.

Letters as in contract.py, and: K positions of a block, P sessions set apart, L their longest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foretaste.models.contract import State
from foretaste.models.layers import masked_softmax

LOWEST = -1e30
"""Maximum of no scores: below every score, and finite, so that states can be compared and stored."""
BLOCK = 64
"""K, positions whose softmax is worked out together."""


def running_softmax(
    scores: Tensor, values: Tensor, begins: Tensor, before: State, block: int = BLOCK
) -> dict[str, Tensor]:
    """"top", "mass" and "sum" of the softmax over each prefix: sum / mass is the weighted mean of the values.

    scores [B, T], values [B, T, H]; begins [B, T]: the first position that each one sees, -1 where it sees also what
    `before` holds of earlier ones: top [B], mass [B], sum [B, H] -> [B, T], [B, T], [B, T, H]
    """
    top, mass, total = before["top"], before["mass"], before["sum"]        # [B], [B], [B, H]
    tops, masses, totals = [scores[:, :0]], [scores[:, :0]], [values[:, :0]]
    place = torch.arange(scores.shape[1], device=scores.device)            # [T]
    for first in range(0, len(place), block):
        here = slice(first, first + block)
        runs_on = begins[:, here] < first                                  # [B, K] began before this block
        visible = (place[here] <= place[here, None]) & (place[here] >= begins[:, here, None])  # [B, K, K]
        each = scores[:, None, here].masked_fill(~visible, float("-inf"))  # [B, K, K]
        known = torch.where(runs_on, top[:, None], LOWEST)                 # [B, K]
        highest = each.amax(-1).maximum(known).detach()                    # [B, K] its gradient cancels
        weight = (each - highest[..., None]).exp()                         # [B, K, K]
        kept = (known - highest).exp() * runs_on                           # [B, K]
        tops.append(highest)
        masses.append(weight.sum(-1) + kept * mass[:, None])               # [B, K]
        totals.append(weight @ values[:, here] + kept[..., None] * total[:, None])  # [B, K, H]
        top, mass, total = tops[-1][:, -1], masses[-1][:, -1], totals[-1][:, -1]
    return {"top": torch.cat(tops, 1), "mass": torch.cat(masses, 1), "sum": torch.cat(totals, 1)}


def windowed_softmax(
    queries: Tensor, keys: Tensor, seen: Tensor, old_keys: Tensor, old: Tensor, block: int = BLOCK,
    values: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Each query's mean of the newest W values of its session, its own among them, weighted by their keys.

    queries, keys [B, T, H]; values the same, and the queries themselves where not given; seen [B, T] events of its
    session up to each; old_keys, old [B, W, H] the keys and values before, the newest last -> [B, T, H]
    """
    (B, T), W = seen.shape, old.shape[1]
    used = int((seen[:, 0] - 1).max().clamp(max=W)) if B and T else 0      # R
    keys = torch.cat([old_keys[:, W - used :], keys], 1)                   # [B, R + T, H]
    values = torch.cat([old[:, W - used :], queries if values is None else values], 1)  # [B, R + T, H]
    means = [queries[:, :0]]
    for first in range(0, T, block):
        last = min(first + block, T)
        low, high = max(0, used + first - W + 1), used + last              # columns that any of the block sees
        own = torch.arange(used + first, high, device=seen.device)         # [K] the query's own column
        age = own[:, None] - torch.arange(low, high, device=seen.device)  # [K, V]
        visible = (age >= 0) & (age < seen[:, first:last, None].clamp(max=W))  # [B, K, V]
        scores = queries[:, first:last] @ keys[:, low:high].mT             # [B, K, V]
        means.append(masked_softmax(scores, visible) @ values[:, low:high])  # [B, K, H]
    return torch.cat(means, 1)


def newest(ring: Tensor, new: Tensor) -> Tensor:
    """The V newest as seen from each of the `new`: ring [B, V, ...], new [B, T, ...] -> [B, T, ..., V], newest last."""
    return torch.cat([ring, new], 1).unfold(1, ring.shape[1], 1)[:, 1:]


def recent(
    scores: Tensor, seen: Tensor, top: Tensor | None = None, mass: Tensor | None = None
) -> Tensor:
    """What the V newest weigh, scores [B, T, V] with the newest last; 0 beyond the `seen` [B, T] of the session.

    They share all of the weight, or what `top` and `mass` [B, T] leave them of a longer session.
    """
    age = torch.arange(scores.shape[2] - 1, -1, -1, device=scores.device)  # [V]
    visible = age < seen[..., None]                                        # [B, T, V]
    if top is None or mass is None:
        return masked_softmax(scores, visible)
    return (scores.masked_fill(~visible, float("-inf")) - top[..., None]).exp() / mass[..., None]


def before_each(steps: Tensor, before: Tensor) -> Tensor:
    """What stood before each event: steps [B, T, ...] shifted by one, `before` [B, ...] in front."""
    return torch.cat([before[:, None], steps], 1)[:, :-1]                  # [B, T, ...]


def run(
    lstm: nn.LSTM, inputs: Tensor, mask: Tensor, starts: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """An LSTM over right-padded rows, afresh at each True of `starts`: its states h, and the last cell of each row.

    inputs [B, T, D], mask and starts [B, T], h and c [B, H] -> [B, T, H], [B, H]. Sessions of a row run side by side.
    """
    if not starts.any():
        return _run(lstm, inputs, mask.sum(1), h, c)
    row, place = mask.nonzero(as_tuple=True)                               # [n] real events, row after row
    session = starts.cumsum(1)[row, place]                                 # [n] 0: the one that runs on
    begins = torch.ones_like(row, dtype=torch.bool)                        # [n]
    begins[1:] = (row[1:] != row[:-1]) | (session[1:] != session[:-1])
    piece, first = begins.cumsum(0) - 1, begins.nonzero()[:, 0]            # [n], [P]
    within = torch.arange(len(row), device=row.device) - first[piece]      # [n] place in its session
    sizes = torch.bincount(piece)                                          # [P]
    apart = inputs.new_zeros(len(first), int(sizes.max()), inputs.shape[2])  # [P, L, D]
    apart[piece, within] = inputs[row, place]
    owner, runs_on = row[first], (session[first] == 0)[:, None]            # [P], [P, 1]
    hidden, cell = _run(lstm, apart, sizes, h[owner] * runs_on, c[owner] * runs_on)  # [P, L, H], [P, H]
    out = hidden.new_zeros(*mask.shape, hidden.shape[2])                   # [B, T, H]
    out[row, place] = hidden[piece, within]
    pieces = torch.bincount(owner, minlength=len(h))                       # [B] sessions of each row
    last = (pieces.cumsum(0) - 1).clamp(min=0)                             # [B]
    return out, torch.where(pieces[:, None] > 0, cell[last], c)


def _run(lstm: nn.LSTM, inputs: Tensor, lengths: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The same without `starts`: lengths [B]. Rows of one length run together, and one that has ended takes no part in
    what follows, so its cell is its own, as in PyTorch's packed sequences.
    """
    order = lengths.argsort(descending=True, stable=True)                  # [B] the longest first
    sizes, back = lengths[order], order.argsort()                          # [B], [B]
    inputs, h, c = inputs[order], h[order], c[order]
    parts, done = [], 0
    for stop in torch.unique(sizes).tolist():
        if not stop:
            continue
        n = int((sizes >= stop).sum())
        part, (last, cell) = lstm(inputs[:n, done:stop], (h[None, :n].contiguous(), c[None, :n].contiguous()))
        h, c = torch.cat([last[0], h[n:]]), torch.cat([cell[0], c[n:]])    # [B, H], [B, H]
        parts.append(nn.functional.pad(part, (0, 0, 0, 0, 0, len(h) - n)))  # [B, stop - done, H]
        done = stop
    parts.append(h.new_zeros(len(h), inputs.shape[1] - done, h.shape[1]))  # [B, T - done, H] padding
    return torch.cat(parts, 1)[back], c[back]
