"""The page of settings, docs/settings.md, written from the code; a test holds the one against the other.

python -m foretaste.inspection.reference > docs/settings.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from foretaste.inspection.settings import settings_of, written
from foretaste.models import MODELS, model_class
from foretaste.training.losses import LOSSES
from foretaste.training.settings import TrainConfig

NEEDS = {
    "catalogue": "all items",
    "negatives": 'sampled items: set `negatives`, or `sampler = "batch"`',
    "target": "nothing",
}
SAMPLERS = {
    "uniform": "every item alike",
    "popularity": "an item in proportion to how often training has it, raised to `sampler_power`",
    "batch": "the other targets of the step, and `negatives` more by popularity",
}

BEGIN = """\
# Settings

Written by `python -m foretaste.inspection.reference > docs/settings.md`, never by hand.

A model has settings of its own, and its training has those of this page. One command shows both, with the defaults of
that model:

```console
$ foretaste models narm
```

Both kinds are given alike: `--set key=value` on the command line, `Recommender("narm", key=value)` in Python, and under
`[settings]` in a TOML recipe for `foretaste train --recipe` (`foretaste recipes` lists those that come with Foretaste).
An unknown key is refused with the nearest known one.
"""


def page() -> str:
    """The whole page."""
    training = [(f"`{one.name}`", f"`{one.default}`", one.may_be, one.about) for one in settings_of(TrainConfig())]
    losses = [
        (f"`{name}`", loss.says, NEEDS[loss.needs], _pairs(loss.options.items())) for name, loss in LOSSES.items()
    ]
    parts = [
        BEGIN,
        "## How a model is trained\n",
        _table(("setting", "default", "may be", "what it is"), training),
        "## Losses\n",
        "What a target's score is compared with, and what `loss_options` may say.\n",
        _table(("`loss`", "what it is", "compares with", "options"), losses),
        "## Where negatives come from\n",
        _table(("`sampler`", "draws"), [(f"`{name}`", law) for name, law in SAMPLERS.items()]),
        "## What each model changes\n",
        "The defaults of a model's training where they are not those above; most are its paper's. Models that are not "
        "here count in one pass over the log and take none of these settings.\n",
        _table(("model", "its defaults"), list(_changes())),
    ]
    return "\n".join(parts)


def _changes() -> Iterable[tuple[str, str]]:
    usual = {one.name: one.default for one in settings_of(TrainConfig())}
    for name in MODELS:
        kind = model_class(name)
        if kind.learns == "gradient":
            own = [(one.name, one.default) for one in settings_of(TrainConfig.of(kind.recipe))]
            changed = [f"`{key} = {value}`" for key, value in own if value != usual[key]]
            yield f"`{name}`", ", ".join(changed) or "those above"


def _pairs(options: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"`{key} = {written(value)}`" for key, value in options)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
