"""Settings as text: the page that lists them is what the code says, and every value can be written back."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import pytest

from foretaste import words
from foretaste.config import Config
from foretaste.inspection.reference import NEEDS, SAMPLERS, page
from foretaste.inspection.settings import allowed, inspect_model, settings_of, written
from foretaste.models import MODELS, model_class
from foretaste.training.losses import LOSSES
from foretaste.training.settings import TrainConfig


def test_the_page_of_settings_is_what_the_code_says(root: Path) -> None:
    asked = "run python -m foretaste.inspection.reference > docs/settings.md"
    assert (root / "docs" / "settings.md").read_text("utf-8") == page(), asked


def test_the_page_has_every_setting_loss_and_sampler() -> None:
    gradient = [name for name in MODELS if model_class(name).learns == "gradient"]
    named = [line.split("`")[1] for line in page().splitlines() if line.startswith("| `")]
    expected = [*TrainConfig.model_fields, "loss", *LOSSES, "sampler", *SAMPLERS, *gradient]
    assert named == expected
    assert set(SAMPLERS) == set(get_args(TrainConfig.model_fields["sampler"].annotation))
    assert set(NEEDS) == {loss.needs for loss in LOSSES.values()}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (0.001, "0.001"),
        (30, "30"),
        ("softmax", "softmax"),
        ("", '""'),
        ((), "[]"),
        (("item", "user"), '["item", "user"]'),
        ({}, "{}"),
        ({"epochs": 6, "loss": "bpr"}, '{ epochs = 6, loss = "bpr" }'),
    ],
)
def test_a_value_is_written_as_the_command_line_reads_it(value: object, text: str) -> None:
    assert written(value) == text
    read = words.settings([f"key={text}"])["key"]
    assert read == (list(value) if isinstance(value, tuple) else value)


def test_what_a_setting_may_be() -> None:
    fields = TrainConfig.model_fields
    names = ("ahead", "loss", "first", "optimizer", "average", "frozen", "before", "learning_rate")
    assert [allowed(fields[name]) for name in names] == [
        "whole number >= 1", "text", "true or false", "adam, adagrad, sgd", "number >= 0 and < 1", "list", "table",
        "number > 0",
    ]  # fmt: skip

    class Other(Config):
        """Settings of other kinds."""

        half: Literal["first", "second"] | None = None
        """Which,
        if any."""

    (only,) = settings_of(Other())
    assert (only.name, only.default, only.may_be, only.about) == (
        "half",
        "none",
        "first, second or none",
        "Which, if any.",
    )


@pytest.mark.parametrize("name", MODELS)
def test_every_model_shows_its_settings_with_a_meaning(name: str) -> None:
    facts, text = inspect_model(name)
    kind = model_class(name)
    assert list(facts["settings"]) == list(kind.Config.model_fields)
    assert all(one["about"] for one in facts["settings"].values())
    for key, one in facts.get("training", {}).items():
        assert f"\n  {key} = " in text
        assert one["about"]
    changed = {key for key, one in facts.get("training", {}).items() if one["default"] != one["usual"]}
    own = TrainConfig.of(kind.recipe).as_dict() if kind.learns == "gradient" else {}
    assert changed == {key for key in own if own[key] != TrainConfig().as_dict()[key]}
