"""The command line. It parses, calls, and prints; what it calls lives elsewhere.

Errors that Foretaste expects are one or two lines on standard error and exit status 2; `--debug` shows the traceback.
Progress goes to standard error, results to standard output, as text or with `--json` as one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclopts import App, Parameter

import foretaste
from foretaste import options, words
from foretaste.endings import end
from foretaste.options import AnyThreads, Beside, Count, Cutoffs, Device, Flag, Json
from foretaste.threads import WAITING

app = App(
    name="foretaste",
    version=foretaste.__version__,
    help="Next-item recommendation: from a raw log to an honest number and a live answer.",
    help_epilogue="Begin with `foretaste demo`. Every command has `--help` with an example. `--debug` shows where an "
    "error came from.",
    help_format="markdown",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 well, 2 for an error that a line explains, 1 for a fault, 130 if interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.update({**WAITING, **os.environ})  # before torch is loaded
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # temporary folders go, as they do after Ctrl-C
    command = next((word for word in given if not word.startswith("-")), "")
    try:
        if command in app and app[command].default_command:
            app[command].help = None  # on its own page the whole docstring, not the line of the list
        app([word for word in given if word != "--debug"], exit_on_error=False, print_error=False)
    except (Exception, KeyboardInterrupt) as error:
        end(error, command=command, debug="--debug" in given)
    end()


@app.command
def demo(*, simulated: Flag = False, json: Json = False) -> None:
    """From a log to ten recommendations in a few minutes: MovieLens-100K, or a simulated shop.

    Example: `foretaste demo --simulated`

    Parameters
    ----------
    simulated
        Use a simulated shop; nothing is downloaded.
    """
    from foretaste.demo import run

    show(*run(simulated=simulated), json)


app.command(
    "foretaste.commands.prepare:prepare",
    name="prepare",
    help="Read a log (CSV or Parquet), check it, cut sessions, filter, split, number the items; write a folder.",
)


app.command(
    "foretaste.commands.train:train",
    name="train",
    help="Train a model on a prepared folder and save the recommender. Killed, it goes on when started again.",
)


@app.command
def evaluate(
    run: Path,
    data: Path,
    /,
    *,
    protocol: str = "per-step",
    cutoffs: Cutoffs = (5, 10, 20),
    part: str = "test",
    lists: Flag = False,
    threads: AnyThreads = None,
    device: Device = "cpu",
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Rank every target of the test part among all items; print metrics with 95 % intervals.

    Example: `foretaste evaluate clicks-narm clicks --protocol per-step --cutoffs 10 20`

    Parameters
    ----------
    run
        A saved recommender.
    data
        The folder it was trained from.
    protocol
        per-step, last-item, last-session, frozen, living or product; options as in last-item:unit=user,mask_seen=true
        (docs/protocols.md).
    cutoffs
        List lengths of the metrics: 20 for recall@20, mrr@20 and ndcg@20.
    part
        train, validation or test.
    lists
        Also say what the lists are like: how much of the catalogue they cover, how popular their items are, how many
        of them the user has seen.
    out
        File for the ranks of every case, for later comparisons; its name ends in .npz. What stands there is replaced.
    """
    from foretaste.data.files import check_ending
    from foretaste.data.prepared import Prepared
    from foretaste.recommender import Recommender
    from foretaste.training.progress import Ranked

    if threads is not None:
        words.use_threads(threads)
    if out is not None:
        check_ending(out, ".npz")
    asked, number = words.protocol(protocol), words.part(part)
    recommender, log = Recommender.load(run, device), Prepared.open(data)
    found = recommender.evaluate(log, protocol=asked, part=number, cutoffs=cutoffs, lists=lists, progress=Ranked())
    if out is not None:
        found.save_ranks(out)
    show(found.as_dict(), found.table(), json)


app.command(
    "foretaste.commands.compare:compare",
    name="compare",
    help="A fair comparison of models on one log: same split, same questions, same tuning budget, several seeds.",
)
app.command(
    "foretaste.commands.compare:tune",
    name="tune",
    help="Search a model's settings on the validation part, and write the best as a recipe for `foretaste train`.",
)
app.command(
    "foretaste.commands.reproduce:reproduce",
    name="reproduce",
    help="Make a table of one of the five papers again, with the paper's number beside ours.",
)
app.command(
    "foretaste.commands.merge:merge",
    name="merge",
    help="One comparison that was made in several folders, such as on several machines: all that is finished, in one.",
)


@app.command
def recommend(
    run: Path,
    /,
    *history: str,
    beside: Beside = options.ALONE,
    k: Count = 10,
    leave_out_seen: Flag = False,
    explain: Flag = False,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """The best items after a history of raw ids, the oldest first.

    Example: `foretaste recommend clicks-narm 214536502 214536500 -k 5 --leave-out-seen --explain`

    Parameters
    ----------
    run
        A saved recommender.
    history
        Item ids; of the open session for a session model. An id that begins with a dash comes after `--`.
    k
        How many.
    leave_out_seen
        Leave out the items of the history. Without it, what was just looked at often comes first.
    explain
        Also say which events of the history weighed most.
    """
    from foretaste.answers import answered
    from foretaste.recommender import Recommender

    recommender = Recommender.load(run, device)
    ids, given = words.ids(history, recommender.trained.items), beside.given(history, recommender.trained.users)
    show(*answered(recommender, ids, k, explain=explain, leave_out_seen=leave_out_seen, **given), json)


app.command(
    "foretaste.commands.lists:lists",
    name="lists",
    help="The best items for every user of a training at once, written to a file: for mails, a cache, a table.",
)


@app.command
def models(name: str | None = None, /, *, json: Json = False) -> None:
    """The models, what each needs, and where it is from; or one of them with all its settings.

    Example: `foretaste models narm`

    Parameters
    ----------
    name
        One model: its own settings and those of its training, each with its meaning and its default.
    """
    from foretaste.inspection import inspect_model, inspect_models

    show(*(inspect_models() if name is None else inspect_model(name)), json)


@app.command
def recipes(name: str | None = None, /, *, json: Json = False) -> None:
    """The recipes that come with Foretaste, for logs and for trainings; or what one of them says.

    Example: `foretaste recipes ml-100k`

    Parameters
    ----------
    name
        One recipe, or a TOML file of your own: what it is about, its terms, files, counts or settings.
    """
    from foretaste.inspection.recipes import inspect_recipe, inspect_recipes

    show(*(inspect_recipes() if name is None else inspect_recipe(name)), json)


app.command(
    "foretaste.commands.inspect:inspect",
    name="inspect",
    help="What a log is like, which protocol fits it, and what each model could use of it.",
)
app.command(
    "foretaste.commands.serve:serve",
    name="serve",
    help="Serve a recommender over HTTP, with a live memory for each user that every event advances.",
)
app.command(
    "foretaste.commands.replay:replay",
    name="replay",
    help="Send a log to a running service, in the order of time. Sent again, what it remembers counts once.",
)
app.command("foretaste.commands.store:store", name="store", help="Look after a store of users, beside the service.")


@app.command
def doctor(*, json: Json = False) -> None:
    """Versions, extras and hardware, for a bug report. Example: `foretaste doctor`"""
    from foretaste.inspection import environment

    show(*environment(), json)


def show(facts: dict[str, Any], text: str, as_json: bool) -> None:
    """The result on standard output: text, or one JSON object."""
    print(json.dumps(facts, ensure_ascii=False, default=str) if as_json else text, flush=True)
