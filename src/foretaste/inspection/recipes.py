"""The recipes that come with Foretaste, for logs and for trainings: which there are, and what one says."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from foretaste.config import read_toml
from foretaste.data import datasets
from foretaste.data.counted import promised
from foretaste.data.recipes import DataRecipe
from foretaste.errors import ConfigError, nearest
from foretaste.inspection.about import Found
from foretaste.inspection.settings import WIDTH, written

KINDS = ("data", "training")


def inspect_recipes() -> Found:
    """All of them: logs with the files they are read from, trainings with their models."""
    from foretaste.recommender import RunRecipe

    data = {name: datasets.recipe(name) for name in _names("data")}
    runs = {name: RunRecipe.read(name) for name in _names("training")}
    wide = max(map(len, [*data, *runs])) + 2
    lines = ["Logs: foretaste prepare FOLDER --recipe NAME --out OUT", ""]
    for name, one in data.items():
        lines += [f"{name:{wide}}{one.title}", f"{'':{wide}}{_files(one)}"]
    lines += ["", "Trainings: foretaste train DATA --recipe NAME --out OUT", ""]
    for name, run in runs.items():
        made_for = f", made for {run.data}" if run.data else ""
        lines += [f"{name:{wide}}{run.model}{made_for}"]
        lines += textwrap.wrap(run.about, WIDTH, initial_indent=" " * wide, subsequent_indent=" " * wide)
    facts = {
        "data": {
            name: {"title": one.title, "files": [list(file.file) for file in one.files], "terms": one.terms}
            for name, one in data.items()
        },
        "training": {name: {"model": run.model, "data": run.data, "about": run.about} for name, run in runs.items()},
    }
    return facts, "\n".join(lines)


def inspect_recipe(name: str) -> Found:
    """One recipe by its name or its TOML file; both, where a log and a training are called alike."""
    facts: dict[str, Any] = {}
    texts = []
    for kind in _kinds(name):
        facts[kind], text = _log(name) if kind == "data" else _training(name)
        texts.append(text)
    return facts, "\n\n".join(texts)


def _names(kind: str) -> list[str]:
    return sorted(path.stem for path in datasets.recipes_folder(kind).glob("*.toml"))


def _kinds(name: str) -> list[str]:
    """What is called so."""
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return ["training" if "model" in read_toml(path) else "data"]
    found = [kind for kind in KINDS if name in _names(kind)]
    if not found:
        known = sorted({one for kind in KINDS for one in _names(kind)})
        raise ConfigError(f"no recipe {name!r}: {nearest(name, known)}; or give the path of a TOML file")
    return found


def _log(name: str) -> Found:
    recipe = datasets.recipe(name)
    lines = [f"{recipe.name}: {recipe.title}", *_about(recipe.about), f"terms: {recipe.terms or 'not stated'}"]
    lines += [f"files: {_files(recipe)}", *(_about(f"from: {recipe.origin}") if recipe.origin else [])]
    lines += promised(recipe.counts, recipe.published)
    return recipe.as_dict(), "\n".join(lines)


def _training(name: str) -> Found:
    from foretaste.recommender import RunRecipe

    recipe = RunRecipe.read(name)
    made_for = f", made for the log {recipe.data}" if recipe.data else ""
    lines = [f"{Path(name).stem}: a training of {recipe.model}{made_for}", *_about(recipe.about)]
    lines += ["trained afresh on training and validation part in the end"] if recipe.refit else []
    lines += [f"  {key} = {written(value)}" for key, value in recipe.settings.items()]
    return recipe.as_dict(), "\n".join(lines)


def _files(recipe: DataRecipe) -> str:
    """Their usual names; a table of items is done without where it is not there."""
    files = ", ".join(" or ".join(file.file) for file in recipe.files)
    return f"{files}; of the items {' or '.join(recipe.items.file)}" if recipe.items else files


def _about(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)
