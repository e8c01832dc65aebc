"""DMAN's memory: how it is read, the capsules that abstract what is old, and the loss that teaches them.

Tan et al., "Dynamic Memory-based Attention Network for Sequential Recommendation", AAAI 2021, equations 4-8.

Left open or contradicted by the paper, and what was chosen:
- One matrix W_j an interest capsule ("capsule"). One for each pair (i, j), as equation 6 is printed ("pair"), ties a
  matrix to a place in a segment; one for all ("shared") needs uneven first logits, or all capsules stay equal: they are
  drawn once from N(0, 1) and kept with the weights.
- The softmax of equation 7 runs over the m interest capsules; the printed limit m + T cannot be: its index has m.
- Logits begin at 0 and accumulate over the rounds, as in CapsNet, MIND and ComiRec. Gradients go through the last
  round's sum and squash alone (ComiRec): the weights alpha are given to it.
- In equation 5 one sign, M, stands for two memories: the first attention reads the old one, the second the new one.

With one matrix a capsule, sum_i alpha_ij (x_i W_j) = (sum_i alpha_ij x_i) W_j and (x_i W_j) . y_j = x_i . (y_j W_j^T):
pool first, then turn. The m + T projections of each capsule are never made: m D^2 a round rather than (m + T) m D^2.

Letters: R absorptions, L levels, P = m + T primary capsules, m interest capsules (slots), T events, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from foretaste.models.layers import masked_softmax

Kind = Literal["capsule", "pair", "shared"]


class Attention(nn.Module):
    """softmax(q k^T) v of equations 1 and 2; but in the bare model with norms before, and scaled.

    With one head and no bias, q . (k W_K) = (q W_K^T) . k, and a sum of values is the value of a sum: so keys are never
    projected, neither those of a cached segment nor slots.
    """

    def __init__(self, size: int, bare: bool, slots: bool) -> None:
        super().__init__()
        self.Q, self.K, self.V = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.norm = nn.Identity() if bare else nn.LayerNorm(size)
        self.slot_norm = nn.LayerNorm(size) if slots and not bare else None
        self.scale = 1.0 if bare else size**-0.5

    def ask(self, rows: Tensor) -> Tensor:
        """What keys are compared with, [..., D]: the query, turned by W_K^T so that the keys need not be."""
        rows = self.norm(rows) * self.scale
        many = rows.numel() > self.Q.weight.numel()  # one matrix first, where it is cheaper
        return rows @ (self.Q.weight.T @ self.K.weight) if many else self.Q(rows) @ self.K.weight

    def read(self, asked: Tensor, keys: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """asked [..., T, D], keys [..., V, D], visible [..., T or 1, V] -> pooled [..., T, D], weights [..., T, V]"""
        keys = (self.norm if self.slot_norm is None else self.slot_norm)(keys)  # [..., V, D]
        weight = masked_softmax(asked @ keys.transpose(-1, -2), visible)   # [..., T, V]
        return weight @ keys, weight

    def forward(self, asked: Tensor, keys: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and the pooled keys turned to values: [..., T, D], weights [..., T, V]"""
        pooled, weight = self.read(asked, keys, visible)
        return self.V(pooled), weight


class Routing(nn.Module):
    """f_abs of equation 4, for all levels at once: P primary capsules become m interest capsules.

    With `level`, every primary capsule is first brought to mean 0 and variance 1, and agreements are scaled by
    1 / sqrt(D), as those of an attention. Without the first, events enter small, slots leave with a norm below 1, and
    capsules so short cannot disagree enough for the rounds to part them. Without the second, the routing is chaotic: an
    error in a slot grows by half and more with every absorption, and two ways of cutting a long history end apart.
    """

    def __init__(
        self, levels: int, slots: int, primaries: int, size: int, kind: Kind, rounds: int, level: bool
    ) -> None:
        super().__init__()
        matrices = {"capsule": (slots,), "shared": (1,), "pair": (primaries, slots)}[kind]
        self.pair, self.rounds, self.level = kind == "pair", rounds, level
        self.scale = size**-0.5 if level else 1.0
        self.weight = nn.Parameter(torch.empty(levels, *matrices, size, size))  # [L, m or 1 or P x m, D, D]
        uneven = kind == "shared"
        self.register_buffer("start", torch.zeros(levels, primaries, slots) if uneven else None)  # [L, P, m]
        self.start: Tensor | None
        self.slots = slots

    def reset_parameters(self) -> None:
        """Matrices that keep lengths as they are, on average."""
        nn.init.normal_(self.weight, std=self.weight.shape[-1] ** -0.5)
        if self.start is not None:
            nn.init.normal_(self.start)

    @torch.no_grad()
    def assign(self, primaries: Tensor, real: Tensor) -> Tensor:
        """alpha of equation 7 after the last round [R, L, P, m]: sums to 1 over m; 0 where not `real` [R, P]."""
        primaries = self._levelled(primaries)                              # [R, L, P, D]
        logits = primaries.new_zeros(*primaries.shape[:-1], self.slots)    # [R, L, P, m]  b
        if self.start is not None:
            logits = logits + self.start
        for done in range(1, self.rounds + 1):
            weight = logits.softmax(-1) * real[:, None, :, None]           # [R, L, P, m]  eq. 7, alpha
            if done < self.rounds:
                logits = logits + self.scale * self._agreement(primaries, self._capsules(primaries, weight))  # eq. 6
        return weight

    def forward(self, primaries: Tensor, weight: Tensor) -> Tensor:
        """The interest capsules [R, L, m, D] of primary ones [R, L, P, D] under given weights [R, L, P, m]."""
        return self._capsules(self._levelled(primaries), weight)

    def _levelled(self, primaries: Tensor) -> Tensor:
        """An empty slot is zeros, and stays so."""
        return nn.functional.layer_norm(primaries, primaries.shape[-1:]) if self.level else primaries

    def _capsules(self, primaries: Tensor, weight: Tensor) -> Tensor:
        """Equations 7 and 8."""
        if self.pair:
            parts = torch.einsum("rlpm,rlpd->rlpmd", weight, primaries)    # [R, L, P, m, D]
            return squash(torch.einsum("rlpmd,lpmde->rlme", parts, self.weight))  # [R, L, m, D]
        pooled = weight.transpose(-1, -2) @ primaries                      # [R, L, m, D]
        return squash(self._turn(pooled, self.weight))

    def _agreement(self, primaries: Tensor, capsules: Tensor) -> Tensor:
        """x_i W_j . y_j for every i and j: [R, L, P, m]"""
        if self.pair:
            back = torch.einsum("lpmde,rlme->rlpmd", self.weight, capsules)  # [R, L, P, m, D]
            together: Tensor = torch.einsum("rlpd,rlpmd->rlpm", primaries, back)
            return together
        back = self._turn(capsules, self.weight.transpose(-1, -2))         # [R, L, m, D]
        return primaries @ back.transpose(-1, -2)

    def _turn(self, rows: Tensor, matrices: Tensor) -> Tensor:
        """Each slot's vector by its matrix: [R, L, m, D] by [L, m or 1, D, D]."""
        return (rows.permute(1, 2, 0, 3) @ matrices).permute(2, 0, 1, 3)   # [R, L, m, D]


def squash(s: Tensor) -> Tensor:
    """Equation 8: the same direction, a length below 1. [..., D]"""
    length = torch.linalg.vector_norm(s, dim=-1, keepdim=True)             # [..., 1]
    shorter: Tensor = length.square() / (1 + length.square()) / (length + 1e-9)  # [..., 1]
    return shorter * s


class Absorbed(NamedTuple):
    """What equation 5 needs of one absorption in R rows."""

    hidden: Tensor
    """[R, L, T, D] levels of the segment just complete, which ask."""
    primaries: Tensor
    """[R, L, P, D] old memory and what was absorbed."""
    real: Tensor
    """[R, P] True where there is a primary capsule."""
    alpha: Tensor
    """[R, L, P, m] weights of the last round."""


class Memories(NamedTuple):
    """The memory with which each of N segments is read, and the one after them."""

    slots: Tensor
    """[B, N + 1, L, m, D]"""
    filled: Tensor
    """[B, N + 1] slots in use, the last ones."""
    absorbed: list[Absorbed]


class Memory(nn.Module):
    """Slots that absorb a segment when another is complete: by capsules, or, without `routing`, the last m states."""

    def __init__(self, slots: int, segment: int, routing: Routing | None) -> None:
        super().__init__()
        self.slots, self.segment, self.routing = slots, segment, routing

    @torch.no_grad()
    def forward(self, slots: Tensor, filled: Tensor, hidden: Tensor, source: Tensor, ready: Tensor) -> Memories:
        """Segment after segment, without gradients.

        slots [B, L, m, D] and filled [B] as before the first; hidden [B, L, N, T, D] the segments; source, of that
        shape, what is absorbed when each is complete; ready [B, N] True where that happens.
        """
        every, used, absorbed = [slots], [filled], []
        for k in range(ready.shape[1]):
            row = ready[:, k].nonzero()[:, 0]                              # [R]
            if len(row):
                primaries = torch.cat([slots[row], source[row, :, k]], 2)  # [R, L, P, D]
                if self.routing is None:
                    new, now = primaries[:, :, -self.slots :], (filled[row] + self.segment).clamp(max=self.slots)
                else:
                    place = torch.arange(-self.slots, self.segment, device=row.device)  # [P]
                    real = place >= -filled[row][:, None]                  # [R, P]
                    alpha = self.routing.assign(primaries, real)           # [R, L, P, m]
                    new, now = self.routing(primaries, alpha), torch.full_like(row, self.slots)  # [R, L, m, D], [R]
                    if self.training:
                        absorbed.append(Absorbed(hidden[row, :, k], primaries, real, alpha))
                slots, filled = slots.index_copy(0, row, new), filled.index_copy(0, row, now)
            every.append(slots)
            used.append(filled)
        return Memories(torch.stack(every, 1), torch.stack(used, 1), absorbed)

    def loss(self, absorbed: list[Absorbed], attentions: Sequence[Attention]) -> Tensor:
        """Equation 5, the sum over levels as a mean over absorptions, events and entries.

        Adam does not mind the scale; a clip of the gradient would.
        """
        assert self.routing is not None
        hidden, primaries, real, alpha = (torch.cat(parts) for parts in zip(*absorbed, strict=True))
        new = self.routing(primaries, alpha)                               # [R, L, m, D]
        levels = [
            reconstruction_loss(attention, hidden[:, l], primaries[:, l], real, new[:, l])  # [R]
            for l, attention in enumerate(attentions)
        ]
        return torch.stack(levels).sum(0).mean() / hidden[0, 0].numel()


def reconstruction_loss(attention: Attention, hidden: Tensor, primaries: Tensor, real: Tensor, new: Tensor) -> Tensor:
    """Equation 5 at one level, the squared norm of each absorption [R]: what the old keys say and the new ones should.

    `attention` is the recurrent attention of the layer that reads this level; its weights are frozen here. Slots have
    no place in a segment, so no key is given a position, and nothing is masked but empty slots. hidden [R, T, D]: the
    level of the segment just complete. primaries [R, P, D]: old memory and what it absorbs, those that are `real`
    [R, P]. new [R, m, D]: the memory made of them, the only way for a gradient.
    """
    frozen = {name: weight.detach() for name, weight in attention.named_parameters()}
    every = torch.ones(1, 1, new.shape[1], dtype=torch.bool, device=new.device)  # [1, 1, m]
    with torch.no_grad():
        asked = attention.ask(hidden)                                      # [R, T, D]
        old, _ = attention(asked, primaries, real[:, None, :])             # [R, T, D]
    found, _ = functional_call(attention, frozen, (asked, new, every))     # [R, T, D]
    missed: Tensor = (old - found).square().sum((-2, -1))                  # [R]
    return missed
