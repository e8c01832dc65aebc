"""DMAN's next event alone, one a row: what a service asks for, without the cells of whole segments (see dman.py).

The open segment has one new event, so one query a layer is compared with its keys, where `DMAN.forward` would compare
those of every place. The numbers are the same to a rounding.

Letters: B rows, L layers, T events of a segment, m slots, D embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from foretaste.models.contract import State

if TYPE_CHECKING:
    from foretaste.models.dman import DMAN, Block


def next_event(model: DMAN, items: Tensor, state: State) -> tuple[Tensor, State]:
    """The answer after one event of each row [B, D], for items [B], and the state after it; no gradients."""
    c, count = model.config, state["count"]                                # [B] events of the open segment
    rows = model.item(items)                                               # [B, D]
    rows = rows if c.bare else rows + model.position[count]                # [B, D]  level 0
    first = rows
    opened, visible = state["open"].clone(), _visible(model, state)        # [B, L, T, D], [B, 1, T or 2T]
    every = torch.arange(len(items), device=items.device)                  # [B]
    for number, layer in enumerate(model.short):
        opened[every, number, count] = rows
        keys = opened[:, number]                                           # [B, T, D]
        if not c.nran:
            cached = state["cached"][:, number]                            # [B, T, D]
            keys = torch.cat([cached if c.bare else cached + model.cached_position, keys], 1)  # [B, 2T, D]
        rows = _attended(cast("Block", layer), rows, keys, visible)                       # [B, D]  eq. 1
    answer = rows if c.bare else model.short_norm(rows)                    # [B, D]
    if c.memory != "none":
        answer = _gated(model, first, answer, state)                       # [B, D]
    return answer, _after(model, answer, opened, state)


def _visible(model: DMAN, state: State) -> Tensor:
    """[B, 1, T or 2T]: the events of the cached segment, if there is one, and those of the open one so far."""
    c, count = model.config, state["count"]
    own = torch.arange(c.segment, device=count.device) <= count[:, None]   # [B, T]
    if not c.nran:
        own = torch.cat([(state["closed"] > 0)[:, None].expand(-1, c.segment), own], 1)  # [B, 2T]
    return own[:, None]                                                    # [B, 1, T or 2T]


def _attended(layer: Block, rows: Tensor, keys: Tensor, visible: Tensor) -> Tensor:
    """One layer for one query a row: rows [B, D], keys [B, V, D], visible [B, 1, V] -> [B, D]"""
    pooled, _ = layer.attention.read(layer.attention.ask(rows)[:, None], keys, visible)  # [B, 1, D]
    return layer.around(rows, pooled[:, 0])                                # [B, D]


def _gated(model: DMAN, rows: Tensor, short: Tensor, state: State) -> Tensor:
    """Equations 2 and 3; where the memory is empty, the short branch alone. [B, D]"""
    c, used = model.config, state["filled"]                                # [B]
    visible = torch.arange(-c.slots, 0, device=used.device) >= -used[:, None, None]  # [B, 1, m]
    for number, layer in enumerate(model.long):
        rows = _attended(cast("Block", layer), rows, state["memory"][:, number], visible)  # [B, D]  eq. 2
    rows = rows if c.bare else model.long_norm(rows)                       # [B, D]
    G = torch.sigmoid(model.gate_short(short) + model.gate_long(rows))     # [B, D]
    return torch.where(used[:, None] > 0, G * short + (1 - G) * rows, short)  # eq. 3


def _after(model: DMAN, answer: Tensor, opened: Tensor, state: State) -> State:
    """The state, the new event in its open segment `opened` [B, L, T, D]; equation 4 where that is complete."""
    c, total = model.config, state["count"] + 1                            # [B]
    full = total == c.segment                                              # [B]
    after = {**state, "answer": answer, "open": opened, "count": total}
    if not full.any():
        return after
    here = full[:, None, None, None]                                       # [B, 1, 1, 1]
    if c.memory != "none":
        source = opened if c.nran else state["cached"]                     # [B, L, T, D]
        ready = full if c.nran else full & (state["closed"] > 0)           # [B]
        made = model.memory(state["memory"], state["filled"], opened[:, :, None], source[:, :, None], ready[:, None])
        after["memory"], after["filled"] = made.slots[:, -1], made.filled[:, -1]  # [B, L, m, D], [B]
    if not c.nran:
        after["cached"] = torch.where(here, opened, state["cached"])       # [B, L, T, D]
        after["closed"] = state["closed"] | full                           # [B]
    after["open"] = opened.masked_fill(here, 0)                            # [B, L, T, D]
    after["count"] = total % c.segment                                     # [B]
    return after
