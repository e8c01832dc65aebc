"""The report in words: what the comparison says to do, what was asked of whom, and what to keep in mind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from foretaste import words
from foretaste.compare.budget import at_the_end
from foretaste.compare.report.table import named, seconds
from foretaste.compare.report.verdict import ALIKE_MILLISECONDS, LEVEL, MUCH, Verdict, decide, spread_known
from foretaste.compare.summary import Line, Summary
from foretaste.compare.written import notes_of, order, p_value
from foretaste.errors import ForetasteError
from foretaste.pages.drawings import Look
from foretaste.pages.html import Html, join, listed, tag

TIES = 0.01
"""Share of cases with a tie that is worth a word."""
NAMED = 6
"""Rows that a sentence names; of more it gives the number."""


def answer(summary: Summary, names: dict[str, Look]) -> Html:
    """Two or three sentences: which is best, which cannot be told from it, which is the cheapest good one."""
    verdict = decide(summary)
    if verdict is None:
        why = "; ".join(dict.fromkeys(why for line in summary.lines for why in line.failures.values()))
        return tag(
            "p", "No model has a result, so nothing can be said yet", f": {why}" if why else "", ".", class_="answer"
        )
    said = [_best(verdict, summary.units, names), _others(verdict, names), _cheapest(verdict, names)]
    if verdict.elsewhere:
        said.append(join("Made on another machine, so not weighed by cost: ", _names(verdict.elsewhere, names), "."))
    said += _by_others(verdict, summary, names)
    todo = tag("p", tag("b", "What to do. "), _advice(verdict, names), class_="advice")
    return join(tag("p", join(*said, by=" "), class_="answer"), todo)


def _best(verdict: Verdict, units: str, names: dict[str, Look]) -> Html:
    best, metric = verdict.best, verdict.metric
    found = best.figures[metric]
    span = f" (95 % interval over {units} {100 * found.low:.2f} to {100 * found.high:.2f})"
    if len(verdict.ranked) == 1:
        return join(_bold(best, names), f" is the only model with a result: {metric} {100 * found.mean:.2f} %{span}.")
    return join(_bold(best, names), f" is best by {metric}: {100 * found.mean:.2f} %{span}.")


def _by_others(verdict: Verdict, summary: Summary, names: dict[str, Look]) -> Iterator[Html]:
    """Where another metric shown has another best: it is said, and decides nothing."""
    for metric in summary.grid.show[1:]:
        there = [line for line in verdict.ranked if metric in line.figures]
        if not there or verdict.best not in there:
            continue
        best = max(there, key=lambda line: line.figures[metric].mean)
        most, ours = best.figures[metric].mean, verdict.best.figures[metric].mean
        if most > ours:
            yield join(
                f"By {metric} the best is ", _bold(best, names), f": {100 * most:.2f} % against {100 * ours:.2f} %."
            )


def _others(verdict: Verdict, names: dict[str, Look]) -> Html | None:
    """By the paired test. Against a reference that is not the best, it says no more than was tested."""
    if len(verdict.ranked) == 1:
        return None
    if not verdict.tested and verdict.reference:
        line = verdict.best
        apart = line.p is not None and line.p < LEVEL
        found = (
            f"its difference from it is {'more' if apart else 'no more'} than chance may bring (p {p_value(line.p)})"
        )
        return join(
            "The rows were compared with ", named(verdict.reference, names), ", which the comparison names; ",
            found if line.against is not None else "it was not tested against it", ".",
        )  # fmt: skip
    parts = []
    if verdict.alike:
        least = min(line.p for line in verdict.alike if line.p is not None)
        cannot = "cannot be told from it" + (f" (p {p_value(least)} after Holm)" if len(verdict.alike) == 1 else
                                             f" (p {p_value(least)} or more after Holm)")  # fmt: skip
        parts.append(join(_names(verdict.alike, names), f" {cannot}"))
    if verdict.worse:
        most = max(line.p for line in verdict.worse if line.p is not None)
        who = "all others" if not (verdict.alike or verdict.untested or verdict.mixed) else _names(verdict.worse, names)
        if len(verdict.worse) == 1 and not verdict.alike:
            who = _names(verdict.worse, names)
        be = "is" if len(verdict.worse) == 1 else "are"
        parts.append(join(who, f" {be} worse (paired test, p {p_value(most)} at most after Holm)"))
    if verdict.mixed:
        be = "lies" if len(verdict.mixed) == 1 else "lie"
        parts.append(join(_names(verdict.mixed, names), f" {be} below it by the test, but single seeds overlap"))
    if verdict.untested:
        parts.append(join(_names(verdict.untested, names), " could not be tested: what each case gave is not there"))
    text = join(*parts, by="; ")
    return join(_capital(text), ".") if parts else None


def _cheapest(verdict: Verdict, names: dict[str, Look]) -> Html | None:
    best, cheap, quick = verdict.best, verdict.cheapest, verdict.quickest
    if len(verdict.ranked) == 1:
        return None
    if cheap is None or quick is None:
        if verdict.elsewhere:
            return None
        return Html("None of the good models can be asked one event at a time.")
    if cheap is best and quick is best:
        return Html("No model near it costs much less, so it is the cheapest good one too.")
    if cheap is quick:
        return join(
            "The cheapest good model is ", _bold(cheap, names), f": {_loss(verdict, cheap)}{_costs(cheap, best)}."
        )
    if quick is best:
        return join("No good one answers in much less time than it; the cheapest good one to train is ",
                    _bold(cheap, names), f": {_loss(verdict, cheap)}{_costs(cheap, best)}.")  # fmt: skip
    trained = seconds(cheap.cost("training"))
    if cheap is best:
        first = Html(f"No good one trains in much less time ({trained})")
    else:
        first = join("Of the good models ", _bold(cheap, names), f" is the cheapest to train ({trained})")
    return join(first, "; ", _bold(quick, names), f" is the quickest good one to answer ({_ms(quick)}; ",
                f"{_loss(verdict, quick)}).")  # fmt: skip


def _advice(verdict: Verdict, names: dict[str, Look]) -> Html:
    best, cheap = verdict.best, verdict.cheapest
    if cheap is None:
        return join(
            named(best.name, names), " repeats a paper's figure, but is told of the next event and cannot serve."
        )
    if len(verdict.ranked) == 1:
        return join(
            "Compare it with others before you choose: ", tag("code", "--models pop,narm,…"), " in the same folder."
        )
    if cheap is best:
        return join(
            "Use ", _bold(best, names), ". It lies in ", tag("code", f"models/{best.name}"), ", ready to answer."
        )
    if verdict.tested and any(line is cheap for line in verdict.alike):
        slower = (cheap.cost("median") or 0.0) > max(MUCH * (best.cost("median") or 0.0), ALIKE_MILLISECONDS)
        less = f"it costs less to train, but {_ms(cheap)} an answer against {_ms(best)}" if slower else "it costs less"
        return join("Use ", _bold(cheap, names), ": this log cannot tell it from ", named(best.name, names),
                    f", and {less}. It lies in ", tag("code", f"models/{cheap.name}"), ".")  # fmt: skip
    return join("Use ", _bold(best, names), " where accuracy is all that counts; ", _bold(cheap, names),
                " where the last ", f"{100 * _gap(verdict, cheap):.2f} points are not worth the cost. Both lie in ",
                tag("code", "models/"), ".")  # fmt: skip


def _gap(verdict: Verdict, line: Line) -> float:
    return verdict.best.figures[verdict.metric].mean - line.figures[verdict.metric].mean


def _loss(verdict: Verdict, line: Line) -> str:
    share = _gap(verdict, line) / (verdict.best.figures[verdict.metric].mean or 1)
    return f"{100 * line.figures[verdict.metric].mean:.2f} %, {100 * share:.1f} % less than the best"


def _costs(line: Line, best: Line) -> str:
    train = f", trained in {seconds(line.cost('training'))} against {seconds(best.cost('training'))}"
    return f"{train}, {_ms(line)} an answer against {_ms(best)}"


def _ms(line: Line) -> str:
    median = line.cost("median")
    return "never (it cannot serve)" if median is None else f"{median:.2g} ms" if median < 10 else f"{median:.0f} ms"


def _names(lines: Sequence[Line], names: dict[str, Look]) -> Html:
    if len(lines) > NAMED:
        return Html(f"{len(lines)} others")
    return listed([named(line.name, names) for line in lines])


def _bold(line: Line, names: dict[str, Look]) -> Html:
    return tag("b", named(line.name, names))


def _capital(text: Html) -> Html:
    return text if text.startswith("<") else Html(text[:1].upper() + text[1:])


def asked(summary: Summary, manifest: Mapping[str, Any] | None) -> Html:
    """What was asked of whom, as terms and what they are here."""
    grid = summary.grid
    cells = [cell for line in summary.lines for cell in line.cells]
    terms: list[tuple[str, Any]] = []
    if cells:
        test = cells[0]["test"]
        terms += list(_questions(grid.ask, test, grid.also, manifest or {}))
        terms.append(
            ("seeds", f"{len(grid.seeds)} ({', '.join(map(str, grid.seeds))})" if len(grid.seeds) > 1 else "one")
        )
    budgets = {len(row.tries) or row.trials for row in grid.rows}
    tried = f"{min(budgets)}" if len(budgets) == 1 else f"{min(budgets)} to {max(budgets)}"
    what = "every model as it is" if max(budgets) == 1 else f"at most {tried} settings a model"
    chosen = f"passes{' and settings' if max(budgets) > 1 else ''} chosen by {grid.metric} on the validation part"
    terms.append(("budget", f"{what}; {chosen}; the test part decided nothing"))
    if manifest is not None:
        terms.append(("split", manifest["split"]["text"] if manifest.get("split") else "none"))
        if manifest.get("split"):
            terms.append(("the split leaks", manifest["split"]["leaks"]))
    return tag("dl", *(join(tag("dt", term), tag("dd", what)) for term, what in terms))


def _questions(
    ask: str, test: Mapping[str, Any], also: Mapping[str, str], manifest: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    fate = "count as misses" if test["cold_are"] == "miss" else "were left out"
    seen = "items of the history are no candidates" if test["mask_seen"] else "items of the history are candidates too"
    try:
        asks = words.protocol(ask).asks.format(words.protocol(ask))
    except (ForetasteError, IndexError, KeyError):
        asks = test["protocol"]
    yield "asked", f"{asks}: {test['cases']:,} cases of the {test['part']}" + (
        f" with {test['targets']:,} targets" if test["targets"] != test["cases"] else "")  # fmt: skip
    if also:
        yield "asked besides", "; ".join(f"{name}: {one}" for name, one in also.items())
    known = "of the log, known to training or not" if manifest.get("candidates") == "all" else "that training knows"
    yield "candidates", f"all {test['n_items']:,} items {known}; {seen}"
    yield "cold targets", f"{100 * test['cold']:.2f} % of the targets are no candidates and {fate}"
    yield "repeats", f"{100 * test['repeats']:.2f} % of the targets are in the history"
    yield "ties", "count against a model"
    yield "the asking leaks", test["leaks"] or "nothing is known"


def cautions(summary: Summary) -> list[Any]:
    """What a reader could get wrong."""
    lines = [line for line in summary.lines if line.cells]
    out: list[Any] = []
    if lines and not spread_known(lines):
        out.append(
            f"One seed was trained, so nothing is known of how much another seed would change: intervals and tests are "
            f"over {summary.units} alone, and no spread is claimed. Run again with --seeds 3."
        )
    elif lines:
        out.append(
            f"Intervals and tests are over {summary.units}, the figure of each being the mean over the seeds; how far "
            "single seeds lie apart stands beside them. Rows whose seeds overlap may differ by their seeds alone."
        )
    if len(lines) > 1:
        out.append(
            "Good models are those within 2 % of the best, and those inside its interval that the test does not tell "
            "apart from it."
        )
    failed = [line for line in summary.lines if line.failures]
    if failed:
        out.append(join("Without all of their cells: ", join(*(
            join(line.name, " (", "; ".join(dict.fromkeys(line.failures.values())), ")") for line in failed), by=", "),
            "."))  # fmt: skip
    out += list(_unlike_seeds(lines))
    out += list(at_the_end(summary))
    tests = [(line.name, cell["test"]) for line in lines for cell in line.cells]
    tests += [
        (f"{line.name} ({name})", one) for line in lines for cell in line.cells for name, one in cell["also"].items()
    ]
    tied = {name: test["ties"] for name, test in tests if test["ties"] > TIES}
    if tied:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in tied.items())
        out.append(f"Cases in which another item has the target's score, which counts against the model: {shares}.")
    later = max((test["later"] or 0.0 for _, test in tests), default=0.0)
    if later > 0:
        share = "Less than 0.01" if later < 1e-4 else f"{100 * later:.2f}"
        out.append(f"{share} % of the training events are later than the first question.")
    out += list(dict.fromkeys(note for line in lines for note in notes_of(line)))
    return out + list(order(summary))


def _unlike_seeds(lines: Sequence[Line]) -> Iterator[str]:
    """Rows that have another number of seeds than most."""
    of: dict[int, list[str]] = {}
    for line in lines:
        of.setdefault(len(line.cells), []).append(line.name)
    most = max(of, key=lambda number: (len(of[number]), number), default=0)
    if len(of) > 1:
        others = [f"of {', '.join(of[number])} {number}" for number in sorted(of, reverse=True) if number != most]
        yield f"Seeds of each row: {'; '.join([str(most), *others])}."
