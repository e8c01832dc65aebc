"""What may be tried of a setting: declared beside each model's Config, searched by `foretaste tune` and `compare`.

space = {"learning_rate": Between(5e-4, 1e-2), "hidden_size": OneOf(50, 100, 200)}
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

SPACES: Mapping[str, Space] = {
    "narm": {
        "learning_rate": RATE,
        "embedding_size": SIZE,
        "hidden_size": OneOf(50, 100, 200),
        "embedding_dropout": THIRD,
        "context_dropout": THIRD,
    },
    "rum-item": {"learning_rate": RATE, "l2": L2, "alpha": OneOf(0.2, 0.5, 1.0), "slots": OneOf(5, 20)},
    "rum-feature": {"learning_rate": RATE, "l2": L2, "alpha": OneOf(0.2, 0.5, 1.0), "slots": OneOf(5, 20)},
    "lsamn": {"learning_rate": RATE, "embedding_size": SIZE, "l2": L2},
    "dman": {
        "learning_rate": Between(3e-4, 5e-3),
        "embedding_size": OneOf(64, 128),
        "slots": OneOf(10, 20),
        "dropout": OneOf(0.1, 0.2, 0.4),
    },
    "asars": {"learning_rate": Between(1e-2, 0.5), "hidden_size": OneOf(50, 100), "dropout": THIRD},
    "sr": {"steps": OneOf(5, 10, 20), "decay": OneOf("div", "quadratic", "linear", "log")},
    "ar": {"once": OneOf(True, False)},
    "item-knn": {"last": OneOf(1, 5, 20), "shrinkage": OneOf(0.0, 5.0, 20.0, 50.0), "kept": OneOf(0, 100, 500)},
    "s-knn": {"k": OneOf(100, 500, 1000, 1500), "sample": OneOf(1000, 2500, 5000)},
    "vs-knn": {
        "k": OneOf(100, 500, 1000, 1500),
        "sample": OneOf(1000, 2500, 5000),
        "weighting": OneOf("linear", "quadratic", "log", "div", "same"),
        "score_weighting": OneOf("linear", "quadratic", "log", "div", "same"),
        "idf": OneOf(0.0, 1.0, 2.0, 5.0, 10.0),
    },
    "vstan": {
        "k": OneOf(100, 500, 1000, 1500),
        "place": OneOf(0.2, 1.02, 4.1),
        "days": OneOf(2.5, 5.0, 20.0, 80.0),
        "near": OneOf(0.5, 2.05, 8.2),
        "step": OneOf(0.2, 1.02, 4.1),
        "idf": OneOf(0.0, 1.0, 2.0, 5.0, 10.0),
    },
    "bpr-mf": {"learning_rate": RATE, "embedding_size": SIZE, "l2": L2},
    "fpmc": {"learning_rate": RATE, "embedding_size": SIZE, "l2": L2},
    "fmc": {"learning_rate": RATE, "embedding_size": SIZE, "l2": L2},
    "hrm": {"learning_rate": RATE, "embedding_size": SIZE, "l2": L2, "dropout": THIRD},
    "gru4rec": {
        "learning_rate": RATE,
        "hidden_size": OneOf(50, 100, 200),
        "embedding_dropout": THIRD,
        "hidden_dropout": THIRD,
    },
    "sasrec": {
        "learning_rate": RATE,
        "embedding_size": SIZE,
        "layers": OneOf(1, 2, 3),
        "dropout": OneOf(0.1, 0.2, 0.5),
        "window": OneOf(50, 200),
    },
    "gsasrec": {
        "learning_rate": RATE,
        "embedding_size": SIZE,
        "layers": OneOf(1, 2, 3),
        "dropout": OneOf(0.1, 0.2, 0.5),
        "window": OneOf(50, 200),
    },
    "esasrec": {
        "learning_rate": RATE,
        "embedding_size": SIZE,
        "layers": OneOf(1, 2, 3),
        "dropout": OneOf(0.1, 0.2, 0.5),
        "window": OneOf(50, 200),
    },
    "caser": {"learning_rate": RATE, "embedding_size": SIZE, "window": OneOf(3, 5, 9), "dropout": THIRD},
    "nextitnet": {"learning_rate": RATE, "embedding_size": SIZE, "embedding_dropout": THIRD, "output_dropout": THIRD},
    "wavenet": {"learning_rate": RATE, "embedding_size": SIZE, "embedding_dropout": THIRD, "output_dropout": THIRD},
    "youtube-dnn": {"learning_rate": RATE, "embedding_size": SIZE, "window": OneOf(0, 20, 50), "dropout": THIRD},
    "dream": {"learning_rate": RATE, "embedding_size": SIZE, "l2": L2, "pool": OneOf("max", "mean")},
    "shan": {"learning_rate": RATE, "embedding_size": SIZE, "l2": L2},
    "sdm": {"learning_rate": Between(1e-2, 0.3), "embedding_size": OneOf(64, 128), "dropout": OneOf(0.1, 0.2, 0.4)},
    "hpmn": {"learning_rate": RATE, "embedding_size": OneOf(64, 128), "slots": OneOf(3, 5), "dropout": THIRD},
}
"""Model -> setting -> what may be tried; a model that has nothing to set has none."""
