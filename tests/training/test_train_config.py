"""Settings of training that do not fit together are refused, and those of a recipe give way."""

from __future__ import annotations

import pytest

from foretaste.errors import ConfigError
from foretaste.training.settings import TrainConfig, joined


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizer": "adagrad", "beta2": 0.98}, "beta2 = 0.98 is a setting of adam, and optimizer = 'adagrad'"),
        (
            {"optimizer": "adam", "accumulator": 0.1},
            "accumulator = 0.1 is a setting of adagrad",
        ),
    ],
)
def test_a_setting_of_another_optimiser_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        TrainConfig.of(settings)


def test_another_optimiser_leaves_behind_what_is_the_recipes_alone() -> None:
    assert joined({"beta2": 0.98, "batch": 8}, {"optimizer": "sgd"}) == {"batch": 8, "optimizer": "sgd"}
    assert joined({"beta2": 0.98}, {"optimizer": "adam"}) == {"beta2": 0.98, "optimizer": "adam"}
    assert joined({"learning_rate": 0.2, "optimizer": "adagrad"}, {"optimizer": "adam"}) == {"optimizer": "adam"}
    kept = {"learning_rate": 0.2, "optimizer": "adagrad", "accumulator": 0.1}
    assert joined(kept, {"optimizer": "adagrad", "batch": 8}) == {**kept, "batch": 8}
    assert joined(kept, {"optimizer": "adam", "learning_rate": 0.01}) == {"optimizer": "adam", "learning_rate": 0.01}
    before = TrainConfig(beta2=0.98, before={"optimizer": "adagrad"}).earlier()
    assert before is not None
    assert (before.optimizer, before.beta2) == ("adagrad", 0.999)
