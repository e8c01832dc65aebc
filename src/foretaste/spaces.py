"""What may be tried of a setting: the words in which a model declares its `space`, and the parts that several share.

space: ClassVar[Space] = {"learning_rate": Between(5e-4, 1e-2), "hidden_size": OneOf(50, 100, 200)}

`foretaste tune` and `compare` search it; `foretaste models` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foretaste.errors import ConfigError

Value = float | int | str | bool


@dataclass(frozen=True, init=False)
class OneOf:
    """One of a few values; of numbers, in order."""

    values: tuple[Value, ...]

    def __init__(self, *values: Value) -> None:
        if len(values) < 2:
            raise ConfigError(f"OneOf{values}: name at least two values, or leave the setting at its default")
        object.__setattr__(self, "values", values)

    def holds(self, value: Any) -> bool:
        """Whether `value` may be tried."""
        return value in self.values

    def __str__(self) -> str:
        return "one of " + ", ".join(str(value) for value in self.values)


@dataclass(frozen=True)
class Between:
    """A number from `low` to `high`, evenly on a logarithmic scale; with `log=False` on a plain one."""

    low: float
    high: float
    log: bool = True

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            wanted = "0 < low < high" if self.log else "low < high"
            raise ConfigError(f"Between({self.low}, {self.high}): expected {wanted}")

    def holds(self, value: Any) -> bool:
        """Whether `value` may be tried."""
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (" (log)" if self.log else "")


Space = Mapping[str, OneOf | Between]
"""Setting -> what may be tried of it."""


RATE = Between(5e-4, 1e-2)
"""Of Adam."""
SIZE = OneOf(32, 64, 100)
"""Of vectors."""
L2 = OneOf(0.0, 0.001, 0.01, 0.1)
"""Penalties on what a step touches."""
THIRD = OneOf(0.0, 0.25, 0.5)
"""Shares that dropout takes."""
VOTERS = OneOf(100, 500, 1000, 1500)
"""Past sessions that vote."""
IDF = OneOf(0.0, 1.0, 2.0, 5.0, 10.0)
"""How much rare items are raised."""
