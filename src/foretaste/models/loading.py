"""Reading a saved recommender's folder: whatever is wrong with it is one sentence. See `saved.py` for what it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

import foretaste
from foretaste.data.folders import check_files, check_interrupted
from foretaste.data.rules import Rules
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, SavedFileError
from foretaste.models import model_class
from foretaste.models.contract import SequenceModel

FORMAT = 1

KINDS = {"model": str, "config": dict, "n_items": int, "n_users": int}
"""What recommender.json must say, and of what type."""


def read_facts(folder: Path) -> dict[str, Any]:
    """recommender.json, checked."""
    path = folder / "recommender.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = facts["format"]
    except (FileNotFoundError, NotADirectoryError):
        check_interrupted(folder)
        raise SavedFileError(
            f"{folder}: no recommender.json; expected the folder of a saved recommender (`foretaste train --out`)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SavedFileError(f"{path}: cannot be read ({error}); the file is damaged: copy the folder again") from None
    if version != FORMAT:
        raise SavedFileError(
            f"{path}: format {version} was written by version {facts.get('foretaste')}; this is version "
            f"{foretaste.__version__} and reads format {FORMAT}: install a newer version, or train again"
        )
    for name, kind in KINDS.items():
        if not isinstance(facts.get(name), kind):
            raise SavedFileError(f"{path}: {name} = {facts.get(name)!r}, expected {kind.__name__}; the file was edited")
    given = facts.get("trained_with", {})
    if not isinstance(given, dict):
        raise SavedFileError(f"{path}: trained_with = {given!r}, expected dict; the file was edited")
    try:
        Rules.of_recommender(facts)
    except (ConfigError, TypeError, ValueError) as error:
        raise SavedFileError(f"{path}: data.rules cannot be read ({error}); the file was edited") from None
    if "files" in facts or "checksum" in facts:  # an earlier version wrote neither
        check_files(path, facts, verify=True)
    return facts


def read_items(folder: Path, facts: dict[str, Any]) -> Vocabulary:
    """items.parquet, which must hold as many items as the model."""
    return _read(folder, "items", facts["n_items"])


def read_users(folder: Path, facts: dict[str, Any]) -> Vocabulary | None:
    """users.parquet, which must hold as many users as the model; None for a model that knows none."""
    return _read(folder, "users", facts["n_users"]) if facts["n_users"] else None


def _read(folder: Path, what: str, count: int) -> Vocabulary:
    path = folder / f"{what}.parquet"
    if not path.is_file():
        raise SavedFileError(f"{path}: no such file; the folder was only half copied: copy it again")
    found = Vocabulary.read(path)
    if len(found) != count:
        raise SavedFileError(
            f"{path}: holds {len(found)} {what}, recommender.json says {count}; "
            "the folder was edited or only half copied: copy it again"
        )
    return found


def read_model(folder: Path, facts: dict[str, Any]) -> SequenceModel:
    """The model with its weights."""
    try:
        kind = model_class(facts["model"])
        config = kind.Config.of(facts["config"])
    except ConfigError as error:
        raise SavedFileError(
            f"{folder / 'recommender.json'}: {error}; it was edited, or written by another version "
            f"({facts.get('foretaste')}, this is {foretaste.__version__})"
        ) from None
    path = folder / "weights.safetensors"
    try:
        model = kind(facts["n_items"], config, facts["n_users"])
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise SavedFileError(
            f"{path}: cannot be read ({error}); the file is missing or truncated: copy it again, or train again"
        ) from None
    except RuntimeError as error:
        first = " ".join(str(error).splitlines()[1:2]).strip() or str(error)
        raise SavedFileError(f"{path}: does not fit the config in recommender.json: {first}") from None
    return model
