"""The command line. It parses, calls, and prints; what it calls lives elsewhere.

Errors that Foretaste expects are one or two lines on standard error and exit status 2; `--debug` shows the traceback.
Progress goes to standard error, results to standard output, as text or with `--json` as one JSON object.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

import foretaste
from foretaste.errors import ConfigError, ForetasteError

if TYPE_CHECKING:
    from foretaste.data.events import EventLog

app = App(
    name="foretaste",
    version=foretaste.__version__,
    help="Next-item recommendation: from a raw log to an honest number and a live answer.",
    help_epilogue="Begin with `foretaste demo`. Every command has --help with an example.",
    help_format="markdown",
)

Json = Annotated[bool, Parameter(name="--json", help="Print one JSON object instead of text.", negative=())]
Settings = Annotated[
    tuple[str, ...], Parameter(name="--set", help="A setting as key=value, e.g. --set hidden_size=128; may be repeated.")
]


def main() -> None:
    """Run the command line and exit: 0 well, 2 for an error that one line explains, 130 if interrupted."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        app([word for word in arguments if word != "--debug"], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"foretaste: {' '.join(str(error).split())} (see foretaste --help)", file=sys.stderr)
        sys.exit(2)
    except ForetasteError as error:
        if debug:
            raise
        print(f"foretaste: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("foretaste: interrupted; a run with --out goes on from its last checkpoint", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


@app.command
def demo(*, simulated: bool = False, json: Json = False) -> None:
    """From a log to ten recommendations in a few minutes: MovieLens-100K, or a simulated shop.

    Example: `foretaste demo --simulated`

    Parameters
    ----------
    simulated
        Use a simulated shop; nothing is downloaded.
    """
    from foretaste.demo import run

    _show(run(simulated=simulated), json, "")


@app.command
def prepare(
    *source: str,
    out: Path,
    recipe: str | None = None,
    item: str | None = None,
    user: str | None = None,
    session: str | None = None,
    time: str | None = None,
    order: str | None = None,
    gap: str | None = None,
    per_day: bool = False,
    item_support: int = 0,
    session_length: int = 0,
    user_events: int = 0,
    split: str = "session-order:fraction=0.1",
    validation: str | None = "session-order:fraction=0.1",
    rejected: Path | None = None,
    strict: bool = False,
    json: Json = False,
) -> None:
    """Read a log (CSV or Parquet), check it, cut sessions, filter, split, number the items; write a folder.

    Example: `foretaste prepare clicks.csv --out clicks --session session_id --item item_id --time timestamp
    --item-support 5 --session-length 2 --split global-time:days=1`

    Parameters
    ----------
    source
        One or more files, a folder or a pattern; for a recipe the files in its order.
    out
        Folder to write.
    recipe
        Name or TOML file of a data recipe, instead of the options below.
    gap
        Begin a new session after a pause longer than this, such as 30m or 1h.
    per_day
        One session a user and calendar day.
    item_support
        Drop items with fewer events.
    session_length
        Drop sessions with fewer events.
    user_events
        Drop users with fewer events.
    split
        Test part, as kind:setting=value: global-time:days=7, session-order:fraction=0.1, last-item, last-two,
        last-session, ratio:train=0.7, given.
    validation
        Validation part of the training part, in the same words, or `none`.
    rejected
        File for the rows that cannot be used, each with its line and the reason.
    strict
        Refuse a log with such rows.
    """
    from foretaste.data import datasets

    if recipe is not None:
        prepared = datasets.apply(datasets.recipe(recipe), *source, folder=out)
    else:
        if len(source) != 1 or item is None:
            raise ConfigError("prepare needs one source and --item, the name of its item column, or --recipe")
        log = _read(source[0], item, user, session, time, order, rejected=rejected, strict=strict)
        if gap is not None or per_day:
            log = log.sessions(gap=gap, per="day" if per_day else None)
        wanted = {"item_support": item_support, "session_length": session_length, "user_events": user_events}
        if any(wanted.values()):
            log = log.filter(**{name: least for name, least in wanted.items() if least})
        prepared = log.prepare(_split(split), None if validation in (None, "none") else _split(validation), folder=out)
    _show(prepared.manifest, json, prepared.report())


@app.command
def train(
    data: Path,
    *,
    out: Path,
    model: str = "narm",
    recipe: str | None = None,
    set: Settings = (),
    refit: bool | None = None,
    device: str = "cpu",
    json: Json = False,
) -> None:
    """Train a model on a prepared folder and save the recommender. Killed, it goes on when started again.

    Example: `foretaste train clicks --out clicks-narm --model narm --set hidden_size=128 --set learning_rate=0.002`

    Parameters
    ----------
    data
        A folder written by `foretaste prepare`.
    out
        Folder for the recommender; checkpoints stand beside it in OUT.run.
    model
        One of `foretaste models`.
    recipe
        TOML file, or the name of one that comes with Foretaste, with the model and its settings.
    refit
        After choosing the number of passes on the validation part, train afresh on training + validation.
    device
        cpu, cuda, cuda:1, ...
    """
    from foretaste.data.prepared import Prepared
    from foretaste.recommender import RunRecipe
    from foretaste.training.progress import Live

    plan = RunRecipe(model=model) if recipe is None else RunRecipe.read(recipe)
    recommender = plan.recommender(**_settings(set))
    report = Live(recommender.training.metric)
    folder = out.with_name(out.name + ".run")
    recommender.fit(
        Prepared.open(data), refit=plan.refit if refit is None else refit, folder=folder, device=device, report=report
    )
    recommender.save(out)
    facts = recommender.trained.facts
    _show({"saved": str(out), **facts}, json, f"saved: {out}")


@app.command
def evaluate(
    run: Path,
    data: Path,
    *,
    protocol: str = "per-step",
    cutoffs: tuple[int, ...] = (5, 10, 20),
    part: str = "test",
    device: str = "cpu",
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Rank every target of the test part among all items; print metrics with 95 % intervals.

    Example: `foretaste evaluate clicks-narm clicks --protocol per-step`

    Parameters
    ----------
    run
        A saved recommender.
    data
        The prepared folder it was trained from.
    protocol
        per-step, last-item, last-session, frozen, living or product.
    cutoffs
        Cut-offs of the metrics.
    part
        train, validation or test.
    out
        File for the ranks of every case (npz), for later comparisons.
    """
    from foretaste.data.prepared import Prepared
    from foretaste.data.sequences import PARTS
    from foretaste.errors import nearest
    from foretaste.evaluation import protocols
    from foretaste.recommender import Recommender

    if part not in PARTS:
        raise ConfigError(f"no part is called '{part}'; {nearest(part, PARTS)}")
    found = Recommender.load(run, device).evaluate(
        Prepared.open(data), protocol=protocols.protocol(protocol), part=PARTS.index(part), cutoffs=cutoffs, device=device
    )
    if out is not None:
        found.save_ranks(out)
    _show(found.as_dict(), json, found.table())


@app.command
def recommend(
    run: Path, *history: str, k: Annotated[int, Parameter(name=["-k", "--k"])] = 10, explain: bool = False, json: Json = False
) -> None:
    """The best items after a history of raw ids, the oldest first.

    Example: `foretaste recommend clicks-narm 214536502 214536500 -k 5 --explain`

    Parameters
    ----------
    run
        A saved recommender.
    history
        Item ids.
    k
        How many.
    explain
        Also say which events of the history weighed most.
    """
    from foretaste.recommender import Recommender

    recommender = Recommender.load(run)
    items = recommender.trained.items
    known = [_as_known(word, items) for word in history]
    found = recommender.recommend(known, k)
    reasons = recommender.explain(known) if explain else {}
    facts = {"items": found.ids, "scores": found.scores, "skipped": found.skipped, "because": reasons}
    titles = dict(zip(items.ids, items.columns.get("title", items.ids), strict=True))
    lines = [f"{place:3}. {titles[raw]}  ({score:.3f})" for place, (raw, score) in enumerate(found, start=1)]
    if found.skipped:
        lines.append(f"not known, left out: {', '.join(map(str, found.skipped))}")
    for name, weights in reasons.items():
        lines.append(f"{name}: " + ", ".join(f"{titles[raw]} {weight:.0%}" for raw, weight in weights))
    _show(facts, json, "\n".join(lines))


@app.command
def models(*, json: Json = False) -> None:
    """The models, what each needs, and where it is from.

    Example: `foretaste models`
    """
    from foretaste.models import MODELS, model_class

    kinds = {name: model_class(name) for name in MODELS}
    facts = {
        name: {
            "summary": kind.summary,
            "paper": kind.paper,
            "scope": kind.scope,
            "needs": sorted(kind.needs),
            "not_applicable": dict(kind.not_applicable),
            "settings": {key: field.description for key, field in kind.Config.model_fields.items()},
        }
        for name, kind in kinds.items()
    }
    lines = []
    for name, kind in kinds.items():
        needs = f"; needs {', '.join(sorted(kind.needs))}" if kind.needs else ""
        lines += [f"{name:8} {kind.summary} (a row is a {kind.scope}{needs})", f"{'':8} {kind.paper}"]
        lines += [f"{'':8} battery, {part}: {why}" for part, why in kind.not_applicable.items()]
    _show(facts, json, "\n".join(lines))


@app.command
def inspect(
    source: str,
    *,
    item: str | None = None,
    user: str | None = None,
    session: str | None = None,
    time: str | None = None,
    order: str | None = None,
    json: Json = False,
) -> None:
    """What a log is like: sizes, lengths, repeats, popularity, and what could not be used.

    Example: `foretaste inspect clicks.csv --session session_id --item item_id --time timestamp`

    Parameters
    ----------
    source
        A log, or a folder written by `foretaste prepare`, or a saved recommender.
    """
    from foretaste.inspection import inspect_folder, inspect_log

    if (folder := Path(source)).is_dir() and item is None:
        facts, text = inspect_folder(folder)
    elif item is None:
        raise ConfigError("inspect needs --item, the name of the log's item column, and --session or --user")
    else:
        facts, text = inspect_log(_read(source, item, user, session, time, order))
    _show(facts, json, text)


@app.command
def doctor(*, json: Json = False) -> None:
    """Versions and hardware, for a bug report.

    Example: `foretaste doctor`
    """
    from foretaste.inspection import environment

    facts = environment()
    _show(facts, json, "\n".join(f"{name:12} {value}" for name, value in facts.items()))


def _show(facts: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(facts, ensure_ascii=False, default=str) if as_json else text)


def _read(source: str, item: str, user: Any, session: Any, time: Any, order: Any, **options: Any) -> EventLog:
    from foretaste.data.events import EventLog

    return EventLog.read(source, item=item, user=user, session=session, time=time, order=order, **options)


def _settings(words: tuple[str, ...]) -> dict[str, Any]:
    """key=value words as a dictionary; values are TOML, and what is not is text."""
    out: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--set {word}: write key=value, such as hidden_size=128")
        try:
            out[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            out[key.strip()] = value
    return out


def _split(word: str) -> Any:
    """`global-time:days=7` as a split."""
    from foretaste.data.splits import split_of

    kind, _, rest = word.partition(":")
    return split_of({"kind": kind, **_settings(tuple(part for part in rest.split(",") if part))})


def _as_known(word: str, items: Any) -> Any:
    """A word of the command line as the id it means: itself, or the number it writes."""
    if word in items or not word.lstrip("-").isdigit():
        return word
    return int(word)
