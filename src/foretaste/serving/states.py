"""A model's state as bytes, and back: the parts one after the other, in a layout that the Config alone decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from foretaste.errors import StoreError
from foretaste.models.contract import SequenceModel, State

Precision = Literal["float32", "float16"]


class Layout:
    """Where each part of a state lies in its bytes."""

    def __init__(self, model: SequenceModel, precision: Precision = "float32") -> None:
        with torch.inference_mode():
            like = model.initial_state(torch.zeros(1, dtype=torch.int64))
        self.parts = [(name, tuple(part.shape[1:]), part.dtype) for name, part in like.items()]
        """Name, shape of one user's part, type in the model."""
        self.stored = {
            name: torch.float16 if precision == "float16" and kind == torch.float32 else kind
            for name, _, kind in self.parts
        }
        """Type in the store."""
        self.sizes = {name: self.stored[name].itemsize * int(np.prod(shape)) for name, shape, _ in self.parts}
        self.bytes = sum(self.sizes.values())
        """Of one user."""

    def pack(self, state: State) -> list[bytes]:
        """One value a user."""
        columns = []
        for name, shape, _ in self.parts:
            part, kind = state[name], self.stored[name]  # [B, ...]
            if kind != part.dtype and kind.is_floating_point:  # what is as low as can be stays so, and finite
                part = part.clamp(torch.finfo(kind).min, torch.finfo(kind).max)
            part = part.to(kind)
            if tuple(part.shape[1:]) != shape:
                raise StoreError(
                    f"the state's '{name}' has {tuple(part.shape[1:])}, not {shape}: its model is at fault"
                )
            flat = np.frombuffer(part.numpy().tobytes(), np.uint8)
            columns.append(flat.reshape(len(part), self.sizes[name]))  # [B, bytes]
        whole = np.concatenate(columns, 1) if len(columns) > 1 else columns[0]  # [B, bytes]
        return [row.tobytes() for row in whole]

    def unpack(self, values: Sequence[bytes]) -> State:
        """The states of some users as one batch."""
        for value in values:
            if len(value) != self.bytes:
                raise StoreError(f"a state of {len(value)} bytes, expected {self.bytes}: it is another model's")
        whole = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), self.bytes)  # [B, bytes]
        state: dict[str, Tensor] = {}
        first = 0
        for name, shape, kind in self.parts:
            column = bytearray(whole[:, first : first + self.sizes[name]].tobytes())  # a copy: the model may write
            empty = torch.empty(0, dtype=self.stored[name])
            part = torch.frombuffer(column, dtype=self.stored[name]) if column else empty
            state[name] = part.view(len(values), *shape).to(kind)  # [B, ...]
            first += self.sizes[name]
        return state

    def summary(self) -> dict[str, str]:
        """Name -> shape and type of each part as stored."""
        return {name: f"{list(shape)} {str(self.stored[name]).removeprefix('torch.')}" for name, shape, _ in self.parts}
