"""One model with all its settings: its own, and those of its training; each with what it may be and what it means."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from foretaste.config import conditions
from foretaste.inspection.about import Found, battery_of, model_facts, row_of

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from foretaste.config import Config

WIDTH = 100
KINDS: dict[Any, str] = {
    bool: "true or false", int: "whole number", float: "number", str: "text", tuple: "list", list: "list",
    dict: "table", NoneType: "none",
}  # fmt: skip
SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@dataclass(frozen=True)
class Setting:
    """One field of a settings object, in words."""

    name: str
    default: str
    """As it is written on the command line."""
    may_be: str
    about: str
    """One line."""


def settings_of(config: Config) -> Iterator[Setting]:
    """The fields of a settings object, with its values as the defaults."""
    for name, field in type(config).model_fields.items():
        about = " ".join((field.description or "").split())
        about += f" Read only with {conditions(field)}." if conditions(field) else ""
        yield Setting(name, written(getattr(config, name)), allowed(field), about)


def allowed(field: FieldInfo) -> str:
    """What a field may be: one of its words, or a kind of value and its bounds."""
    bounds = [
        f"{sign} {_limit(getattr(bound, name))}"
        for name, sign in SIGNS.items()
        for bound in field.metadata
        if getattr(bound, name, None) is not None
    ]
    return " ".join([_kind(field.annotation), " and ".join(bounds)]).strip()


def written(value: Any, inside: bool = False) -> str:
    """A value as `--set` takes it: TOML, but for a text that stands alone."""
    match value:
        case None:
            return "none"
        case dict():
            pairs = ", ".join(f"{key} = {written(one, True)}" for key, one in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case list() | tuple():
            return f"[{', '.join(written(one, True) for one in value)}]"
        case str() if value and not inside:
            return value
    return json.dumps(value)


def inspect_model(name: str) -> Found:
    """One model that can be trained."""
    from foretaste.models import model_class
    from foretaste.training.settings import TrainConfig

    kind = model_class(name)
    facts: dict[str, Any] = {"model": name, **model_facts(kind)}
    lines = [f"{name}: {kind.summary}", kind.paper, row_of(kind)]
    lines += battery_of(kind)
    own = list(settings_of(kind.Config()))
    lines += ["", "Its own settings" if own else "It has no settings of its own."]
    lines += [line for setting in own for line in _lines(setting)]
    if kind.learns == "counts":
        return facts, "\n".join([*lines, "", "It counts in one pass over the log: it takes no settings of training."])
    usual = {setting.name: setting for setting in settings_of(TrainConfig())}
    training = TrainConfig.of(kind.recipe)
    lines += ["", "Settings of its training"]
    for setting in settings_of(training):
        before = usual[setting.name].default
        lines += _lines(setting, "" if before == setting.default else f"; usually {before}")
    values, others = training.as_dict(), TrainConfig().as_dict()
    facts["training"] = {
        key: {"default": value, "usual": others[key], "about": usual[key].about} for key, value in values.items()
    }
    return facts, "\n".join([*lines, "", "Set any of them by --set key=value, in a TOML recipe, or in Python."])


def _lines(setting: Setting, more: str = "") -> list[str]:
    about = textwrap.wrap(setting.about, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return [f"  {setting.name} = {setting.default}  ({setting.may_be}{more})", *about]


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(map(_kind, get_args(annotation)))
    return KINDS.get(get_origin(annotation) or annotation, "value")


def _limit(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
