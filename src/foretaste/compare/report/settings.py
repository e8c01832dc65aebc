"""What was tried: the validation metric by each setting; and sweeps, rows that differ in one setting alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foretaste.compare.grid import Grid, Row
from foretaste.compare.report.plots import plain_decades
from foretaste.compare.summary import Figure, Line
from foretaste.compare.written import plain
from foretaste.models import MODELS, model_class
from foretaste.pages.drawings import PAPER, SOFT, Gallery, Look, canvas, short
from foretaste.pages.html import Html, tag
from foretaste.training.settings import TrainConfig

WIDE = 8.0
"""Times the least value: a setting that was tried this widely stands on a logarithmic scale."""
FEW = 3
"""Trials: so few are read from the table, and not drawn."""


@dataclass(frozen=True)
class Sweep:
    """Rows of one model that differ in one numeric setting."""

    model: str
    setting: str
    points: tuple[tuple[float, Line], ...]
    """By falling value of the setting."""


def tried(gallery: Gallery, lines: Sequence[Line], names: dict[str, Look], metric: str) -> Iterator[Html]:
    """One drawing a row: what each setting was and what came of it; each trial stands in every field."""
    for line in lines:
        trials = [trial for trial in trials_of(line) if trial["score"] is not None]
        varied = _varied(trials)
        if not varied or len(trials) <= FEW:
            continue
        rows = -(-len(varied) // 2) if len(varied) > 1 else 1
        columns = 2 if len(varied) > 1 else 1
        figure, grid = canvas(0.5 + 1.5 * rows, rows, columns, sharey=True)
        fields = list(grid.flat) if rows * columns > 1 else [grid]
        look = names[line.name]
        chosen = line.cells[0]["chosen"]
        for axes, setting in zip(fields, varied, strict=False):
            of = [trial for trial in trials if setting in trial["change"]]
            values = [trial["change"][setting] for trial in of]
            x = _scale(axes, values)
            for place, trial in zip(x, of, strict=True):
                fill = "none" if trial["pruned"] else look.colour
                axes.plot(place, 100 * trial["score"], "o", mfc=fill, mec=look.colour, alpha=0.75, ms=5, clip_on=False)
                if trial["change"] == chosen:
                    axes.plot(place, 100 * trial["score"], "*", color=look.colour, mec=PAPER, ms=13, clip_on=False)
            axes.set_xlabel(short(setting, 24), fontsize=10)
            axes.margins(0.12)
        for axes in fields[len(varied) :]:
            axes.set_visible(False)
        for axes in fields[::columns]:
            axes.set_ylabel("%")
        yield gallery.show(
            f"tried {line.name}", figure, f"{line.name}: {metric} on validation.",
            "A star is what was chosen; hollow: given up early.",
        )  # fmt: skip


def trials_of(line: Line) -> list[dict[str, Any]]:
    """What was tried for a row, all by its first seed."""
    return list(line.cells[0]["tried"]) if line.cells else []


def _varied(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings of which more than one value was tried."""
    values: dict[str, list[Any]] = {}
    for trial in trials:
        for name, value in trial["change"].items():
            if value not in values.setdefault(name, []):
                values[name].append(value)
    return [name for name, seen in values.items() if len(seen) > 1]


def _scale(axes: Any, values: Sequence[Any]) -> list[float]:
    """Where values stand: numbers on a plain or a logarithmic scale, all others side by side."""
    if all(_number(value) for value in values):
        if min(values) > 0 and max(values) >= WIDE * min(values):
            axes.set_xscale("log")
            axes.set_xlim(min(values) / 1.3, max(values) * 1.3)
            plain_decades(axes, 4)
        else:
            axes.xaxis.get_major_locator().set_params(nbins=3)
        return [float(value) for value in values]
    known = list(dict.fromkeys(str(value) for value in values))
    axes.set_xticks(range(len(known)), [short(one, 10) for one in known])
    return [float(known.index(str(value))) for value in values]


def sweeps(grid: Grid, lines: Sequence[Line]) -> list[Sweep]:
    """Every such group of rows with figures, three values at least."""
    there = {line.name: line for line in lines if line.figures}
    full = {row.name: _settings(row) for row in grid.rows if row.name in there}
    models = _by_model(grid.rows, full)
    out = []
    for model, rows in models.items():
        for setting in sorted({name for row in rows for name, value in full[row].items() if _number(value)}):
            groups: dict[str, list[tuple[float, Line]]] = {}
            for row in rows:
                rest = {name: value for name, value in full[row].items() if name != setting}
                if _number(full[row].get(setting)):
                    point = float(full[row][setting]), there[row]
                    groups.setdefault(repr(sorted(rest.items(), key=str)), []).append(point)
            for points in groups.values():
                if len({value for value, _ in points}) >= 3:
                    out.append(Sweep(model, setting, tuple(sorted(points, key=lambda point: point[0]))))
    return out


def sweep_drawings(
    gallery: Gallery, found: Sequence[Sweep], names: dict[str, Look], metrics: Sequence[str]
) -> Iterator[Html]:
    """The metrics shown by the value of the setting, with their intervals."""
    for sweep in found:
        for metric in metrics:
            figures: list[tuple[float, Figure, str]] = [
                (value, line.figures[metric], line.name) for value, line in sweep.points if metric in line.figures
            ]
            figure, axes = canvas(2.9)
            x = _scale(axes, [value for value, _, _ in figures])
            axes.plot(x, [100 * found.mean for _, found, _ in figures], color=SOFT, lw=1.2)
            for place, (_, one, name) in zip(x, figures, strict=True):
                look = names[name]
                axes.plot([place, place], [100 * one.low, 100 * one.high], color=look.colour, lw=1.6)
                axes.plot(place, 100 * one.mean, look.mark, color=look.colour, mec=PAPER, mew=0.8, ms=7)
            axes.set_xticks(x, [f"{value:g}" for value, _, _ in figures])
            axes.set_xlabel(sweep.setting)
            axes.set_ylabel(f"{metric}, %")
            axes.minorticks_off()
            yield gallery.show(
                f"sweep {sweep.model} {sweep.setting} {metric}", figure, f"{sweep.model}: {metric} by {sweep.setting}.",
                "Bars: 95 % intervals.",
            )  # fmt: skip


def trials_table(line: Line, metric: str) -> Html:
    """Every trial of a row, the best first."""
    trials = sorted(trials_of(line), key=lambda trial: -(trial["score"] if trial["score"] is not None else -1.0))
    settings = list(dict.fromkeys(name for trial in trials for name in trial["change"]))
    chosen = line.cells[0]["chosen"]
    rows = []
    for trial in trials:
        score = trial["error"] or "failed" if trial["score"] is None else f"{100 * trial['score']:.2f}"
        fate = "chosen" if trial["change"] == chosen else "given up early" if trial["pruned"] else ""
        cells = [tag("td", score, class_="number"), tag("td", trial["passes"] or "", class_="number")]
        cells += [tag("td", plain(trial["change"].get(name, "")), class_="number") for name in settings]
        rows.append(tag("tr", *cells, tag("td", fate)))
    heads = [tag("th", head, scope="col") for head in (f"{metric}, %", "passes", *settings, "")]
    return tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _settings(row: Row) -> dict[str, Any]:
    """Every setting of a row before anything is tried, the model's own included."""
    if row.model not in MODELS:
        return dict(row.settings)
    kind = model_class(row.model)
    own = {name: field.default for name, field in kind.Config.model_fields.items()}
    training = {name: field.default for name, field in TrainConfig.model_fields.items()} | dict(kind.recipe)
    return {**(training if kind.learns == "gradient" else {}), **own, **row.settings}


def _by_model(rows: Sequence[Row], known: Mapping[str, Any]) -> dict[str, list[str]]:
    """Model -> names of its rows."""
    out: dict[str, list[str]] = {}
    for row in rows:
        if row.name in known:
            out.setdefault(row.model, []).append(row.name)
    return out
