"""Settings as frozen, typed data: each field documented once, unknown keys refused with the nearest known one.

A model's `Config`, the training recipe and a data recipe are all `Config` objects. They are made in Python, from a
dictionary, or from a TOML file, and say in one sentence what is wrong with them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from foretaste.errors import ConfigError, nearest

OneOrMore = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
"""Several words, or a single one written without a list."""


class Only:
    """Beside a field's type: it is read only where other fields are so. Of several, any will do.

    window: Annotated[int, Only(query="last")] = Field(200, ge=1)
    """

    def __init__(self, **others: Any) -> None:
        self.others = {name: value if isinstance(value, tuple) else (value,) for name, value in others.items()}

    def __str__(self) -> str:
        """'merge = concat and predict = inner'"""
        return " and ".join(f"{name} = {_either(values)}" for name, values in self.others.items())

    @staticmethod
    def of(field: FieldInfo) -> list[Only]:
        """Those of a field; none where it is always read."""
        return [one for one in field.metadata if isinstance(one, Only)]


class Config(BaseModel):
    """Base of every settings object. Fields are documented by the string below each of them."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, protected_namespaces=()
    )

    def __init__(self, **values: Any) -> None:
        wrong = ""
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong = explain(error, type(self))
        if wrong:  # raised out here: the validator's own error would keep the caller's objects alive
            raise ConfigError(wrong)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The settings from a plain dictionary (a TOML table, a JSON object)."""
        return cls(**dict(values))

    def with_(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked like a new one."""
        return type(self)(**{**self.model_dump(), **changes})

    def reads(self, name: str) -> bool:
        """Whether a field says anything beside the others as they are: see `Only`."""
        ways = Only.of(type(self).model_fields[name])
        return not ways or any(
            all(getattr(self, other) in values and self.reads(other) for other, values in way.others.items())
            for way in ways
        )

    @property
    def idle(self) -> frozenset[str]:
        """Fields that say nothing beside the others as they are; a search leaves them alone."""
        return frozenset(name for name in type(self).model_fields if not self.reads(name))

    def refuse_unread(self, given: Iterable[str], where: str) -> None:
        """Refuse what a caller gives, and is not the default, where it would say nothing."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name in given and value != field.default and not self.reads(name):
                raise ConfigError(
                    f"{where}: {name} = {value} says nothing here, it is read only with {conditions(field)}; "
                    "set that too, or leave it out"
                )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return self.model_dump(mode="json")


def conditions(field: FieldInfo) -> str:
    """What other fields must be for this one to be read, in words; empty where it always is."""
    return ", or ".join(str(way) for way in Only.of(field))


def _either(values: tuple[Any, ...]) -> str:
    return " or ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values)


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """One line for each thing that is wrong, naming the field, what was found and what was expected."""
    name = kind.__qualname__
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"]) or "(whole)"
        if item["type"] == "extra_forbidden":
            lines.append(f"{name}: unknown key '{where}'; {nearest(where, fields_at(kind, item['loc'][:-1]))}")
        elif item["type"] == "value_error":
            about = f"'{where}' = {item['input']!r}: " if item["loc"] else ""
            lines.append(f"{name}: {about}{item['msg'].removeprefix('Value error, ')}")
        elif item["type"] == "missing":
            lines.append(f"{name}: '{where}' is required and missing")
        else:
            lines.append(f"{name}: '{where}' = {item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}")
    return "\n".join(lines)


def fields_at(kind: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the settings object that lies at `path` inside `kind`."""
    for part in path:
        inner = kind.model_fields[str(part)].annotation if str(part) in kind.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return list(kind.model_fields)


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as a dictionary, or one clear error."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
