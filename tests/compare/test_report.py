"""The report: what it concludes, that every number stands in it, that it loads nothing and that data stays data."""

from __future__ import annotations

import csv
import html
import itertools
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foretaste import shop
from foretaste.compare.cell import make
from foretaste.compare.grid import Grid, Place, Row
from foretaste.compare.publish import publish
from foretaste.compare.report import plots, write_report
from foretaste.compare.report.asked import _unlike_seeds, answer, cautions
from foretaste.compare.report.histories import SHOWN, Witnesses, moments, on_events, short_share
from foretaste.compare.report.kinds import Breakdown, Group, besides, breakdowns
from foretaste.compare.report.labels import MARK, Point, name_points
from foretaste.compare.report.log import the_log
from foretaste.compare.report.pair import pair_of
from foretaste.compare.report.plots import _floor
from foretaste.compare.report.sections import Sections, of_one_machine
from foretaste.compare.report.settings import sweeps, tried
from foretaste.compare.report.table import results
from foretaste.compare.report.verdict import decide
from foretaste.compare.summary import Figure, Line, Summary, summarise
from foretaste.data.files import write_text
from foretaste.data.prepared import Prepared
from foretaste.data.sequences import TEST
from foretaste.data.splits import GlobalTime
from foretaste.evaluation.report import LENGTHS
from foretaste.evaluation.significance import Paired
from foretaste.inspection.log import log_facts
from foretaste.pages.drawings import Gallery, NoMatplotlib, canvas, drawing, looks, svg_of
from foretaste.pages.html import Html, escaped, listed, tag

pytest.importorskip("matplotlib")
from matplotlib.transforms import Bbox

EVIL = "<script>alert(1)<b>$x^2$"
KNN, FPMC = "s-knn", "fpmc"


# The verdict, on rows made by hand


def line(name: str, mean: float, *, p: float | None = None, training: float = 10.0, ms: float | None = 1.0) -> Line:
    """A row with an interval of one point to each side; with p, it was tested against the best, which has 0.6."""
    cell = {
        "seconds": {"tuning": 0.0, "training": training, "ranking": 1.0},
        "milliseconds": None if ms is None else {"median": ms, "p90": ms, "p99": ms},
    }
    pair = None if p is None else Paired(0.6 - mean, 0.6 - mean, 0.6 - mean, p, p, p, 5, 3, 8, 80)
    figures = {"recall@20": Figure(mean, mean - 0.01, mean + 0.01, (mean,))}
    return Line(name, "pop", "", (cell,), {}, figures, pair, p)


def summary_of(*lines: Line, reference: str = "a") -> Summary:
    grid = Grid(title="by hand", rows=tuple(Row(name=one.name, model=one.model) for one in lines))
    return Summary(grid, lines, reference)


def said(*lines: Line, reference: str = "a") -> str:
    """The answer as a person reads it."""
    found = answer(summary_of(*lines, reference=reference), looks([one.name for one in lines]))
    return html.unescape(re.sub(r"<[^>]+>", "", found)).replace("●\u00a0", "").replace("\u00a0", " ")


def test_the_best_those_like_it_and_the_cheapest_good_one() -> None:
    lines = (
        line("c", 0.30, p=0.002, training=0.1, ms=0.1),
        line("a", 0.60, training=100.0, ms=5.0),
        line("b", 0.595, p=0.4, training=20.0, ms=2.0),
    )
    verdict = decide(summary_of(*lines))
    assert verdict is not None
    assert [one.name for one in verdict.ranked] == ["a", "b", "c"]
    assert [one.name for one in verdict.alike] == ["b"]
    assert [one.name for one in verdict.worse] == ["c"]
    assert [one.name for one in verdict.good] == ["a", "b"]  # 0.595 lies in 0.59 to 0.61
    assert verdict.cheapest is verdict.quickest is lines[2]
    text = said(*lines)
    assert text.startswith("a is best by recall@20: 60.00 % (95 % interval over users or sessions 59.00 to 61.00).")
    assert (
        "b cannot be told from it (p 0.400 after Holm); c is worse (paired test, p 0.002 at most after Holm)." in text
    )
    assert "The cheapest good model is b: 59.50 %, 0.8 % less than the best, trained in 20 s against 100 s" in text
    assert "What to do. Use b: this log cannot tell it from a, and it costs less." in text


def test_what_single_seeds_may_turn_round_is_not_called_worse() -> None:
    seeds = {"a": (0.58, 0.62), "b": (0.56, 0.59), "c": (0.5, 0.57)}
    lines = [line("a", 0.60), line("b", 0.575, p=0.001), line("c", 0.535, p=0.001)]
    several = [
        replace(one, figures={"recall@20": replace(one.figures["recall@20"], seeds=seeds[one.name])}) for one in lines
    ]
    verdict = decide(summary_of(*several))
    assert verdict is not None
    assert [[one.name for one in part] for part in (verdict.worse, verdict.mixed, verdict.alike)] == [["c"], ["b"], []]
    assert "B lies below it by the test, but single seeds overlap" in said(*several).replace("b lies", "B lies")
    assert "c is worse (paired test, p 0.001 at most after Holm)" in said(*several)
    assert "are worse" not in said(*several)
    assert "All others are worse" in said(*lines)  # one seed each: nothing is known of others


def test_inside_the_interval_of_the_best_is_not_good_if_told_apart() -> None:
    wide = Figure(0.60, 0.40, 0.80, (0.60,))
    best = replace(line("a", 0.60), figures={"recall@20": wide})
    verdict = decide(summary_of(best, line("b", 0.50, p=0.001, training=0.1), line("c", 0.50, p=0.4, training=5.0)))
    assert verdict is not None
    assert [one.name for one in verdict.good] == ["a", "c"]


def test_what_is_said_of_costs_is_so() -> None:
    text = said(line("a", 0.60, training=190.0, ms=1.9), line("b", 0.599, p=0.4, training=50.0, ms=1.0))
    assert "No good one answers in much less time than it; the cheapest good one to train is b" in text
    text = said(line("a", 0.60, training=190.0, ms=50.0), line("b", 0.599, p=0.4, training=100.0, ms=1.0))
    assert "No good one trains in much less time (3:10); b is the quickest good one to answer (1 ms;" in text
    text = said(line("a", 0.60, training=100.0, ms=1.0), line("b", 0.599, p=0.4, training=10.0, ms=800.0))
    assert "it costs less to train, but 800 ms an answer against 1 ms" in text


def test_within_two_percent_is_good_though_told_apart() -> None:
    lines = line("a", 0.60, training=100.0), line("b", 0.5885, p=0.01, training=1.0), line("c", 0.58, p=0.01)
    verdict = decide(summary_of(*lines))
    assert verdict is not None
    assert [one.name for one in verdict.good] == ["a", "b"]  # 0.98 of 0.6 is 0.588
    assert "All others are worse" in said(*lines)
    assert "Use a where accuracy is all that counts; b where the last 1.15 points are not worth the cost." in said(
        *lines
    )


def test_costs_within_a_factor_of_two_are_alike() -> None:
    lines = line("a", 0.60, training=19.0, ms=0.4), line("b", 0.595, p=0.4, training=10.0, ms=0.1)
    verdict = decide(summary_of(*lines))
    assert verdict is not None
    assert verdict.cheapest is verdict.quickest is lines[0]  # 19 s is less than twice 10 s; below 0.5 ms all are alike
    assert "No model near it costs much less, so it is the cheapest good one too." in said(*lines)


def test_costs_of_another_machine_decide_nothing() -> None:
    lines = (
        line("a", 0.60, training=100.0, ms=5.0),
        line("b", 0.595, p=0.4, training=10.0),
        line("c", 0.595, p=0.4, training=1.0, ms=0.1),
    )
    on = dict(zip("abc", ("old", "old", "new"), strict=True))
    made = [
        replace(one, cells=({**one.cells[0], "machine": {"processor": on[one.name], "cores": 2, "torch": "2.13.0"}},))
        for one in lines
    ]
    verdict = decide(summary_of(*made))
    assert verdict is not None
    assert [one.name for one in verdict.good] == ["a", "b", "c"]
    assert verdict.elsewhere == (made[2],)
    assert verdict.cheapest is verdict.quickest is made[1]
    assert "The cheapest good model is b" in said(*made)
    assert "Made on another machine, so not weighed by cost: c." in said(*made)
    assert "another machine" not in said(*lines)
    assert of_one_machine(made) == (made[:2], made[2:])
    assert of_one_machine(lines) == (list(lines), [])


def test_another_metric_with_another_best_is_said() -> None:
    lines = line("a", 0.60), line("b", 0.50, p=0.01)
    mrr = {"a": Figure(0.2, 0.1, 0.3, (0.2,)), "b": Figure(0.25, 0.2, 0.3, (0.25,))}
    both = [replace(one, figures={**one.figures, "mrr@20": mrr[one.name]}) for one in lines]
    assert "b is worse" in said(*both)
    assert "By mrr@20 the best is b: 25.00 % against 20.00 %.What to do." in said(*both)
    same = replace(both[1], figures={**both[1].figures, "mrr@20": mrr["a"]})
    assert "By mrr@20" not in said(both[0], same)


def test_what_cannot_serve_is_not_recommended() -> None:
    lines = line("a", 0.60, ms=None), line("b", 0.595, p=0.4)
    verdict = decide(summary_of(*lines))
    assert verdict is not None
    assert verdict.cheapest is lines[1]
    assert "Use b" in said(*lines)


def test_a_named_reference_is_no_proof_about_the_best() -> None:
    text = said(line("a", 0.50), line("b", 0.60, p=0.001), reference="a")
    assert text.startswith("b is best")
    assert (
        "The rows were compared with a, which the comparison names; its difference from it is more than chance" in text
    )
    assert "cannot be told" not in text


def test_one_model_and_none() -> None:
    assert "is the only model with a result" in said(line("a", 0.6))
    failed = Line("a", "pop", "", (), {0: "out of memory"})
    assert decide(summary_of(failed, reference="")) is None
    assert "nothing can be said yet: out of memory" in said(failed, reference="")


# Pieces


def test_html_escapes_data_and_nothing_else() -> None:
    assert escaped("<b>&\"'") == "&lt;b&gt;&amp;&quot;&#x27;"
    assert tag("td", Html("<b>"), "<i>", class_="a", data_key='"', hidden=False) == (
        '<td class="a" data-key="&quot;"><b>&lt;i&gt;</td>'
    )
    assert listed(["a", "b", "<"]) == "a, b and &lt;"


def test_weights_stand_beside_their_events() -> None:
    history, shown = ["a", "b", "c", "b"], ["c", "b"]
    newest = on_events([("b", 0.1), ("c", 0.2), ("b", 0.7)], history, shown)
    assert newest == ([0.2, 0.7], 0.1)  # one weight for each of the newest events
    items = on_events([("b", 0.6), ("a", 0.3), ("z", 0.1)], history, shown)
    assert items == ([0.0, 0.6], pytest.approx(0.4))  # items: at their newest occurrence, the rest is older
    assert on_events([], history, shown) == ([], 0.0)
    assert short_share({"long_short": [0.25, 0.75]}) == 0.75
    assert short_share({"gate": [0.2, 0.4]}) == pytest.approx(0.3)
    assert short_share({"memory": [1.0]}) is None


def test_sweeps_are_rows_that_differ_in_one_number() -> None:
    rows = [Row(name=f"a{alpha}", model="rum-item", settings={"alpha": alpha}) for alpha in (0.2, 1.0, 0.5)]
    rows.append(Row(name="other", model="rum-item", settings={"alpha": 0.7, "slots": 7}))
    rows.append(Row(name="pop", model="pop"))
    grid = Grid(title="sweep", rows=tuple(rows))
    (found,) = sweeps(grid, [replace(line(row.name, 0.5), model=row.model) for row in rows])
    assert (found.model, found.setting) == ("rum-item", "alpha")
    assert [(value, one.name) for value, one in found.points] == [(0.2, "a0.2"), (0.5, "a0.5"), (1.0, "a1.0")]


def test_looks_stay_when_rows_are_added() -> None:
    few, many = looks(["a", "b"]), looks(["a", "b", *map(str, range(20))])
    assert few == {name: many[name] for name in few}
    assert len(set(many.values())) == 22  # told apart by colour and mark together


# A whole report: two counting models that are alike, one that trains, one that failed; two seeds


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose titles try to be HTML."""
    folder = tmp_path_factory.mktemp("report") / "clicks"
    made = shop(n_users=60, n_items=40, seed=3)
    titles = {"item": made.items["item"], "title": [f"{EVIL} {raw}" for raw in made.items["item"]]}
    log = made.log().with_items(titles, item="item", title="title")
    log.prepare(GlobalTime(fraction=0.2), validation=GlobalTime(fraction=0.2), folder=folder)
    return folder


def compared(out: Path, data: Path, rows: tuple[Row, ...], seeds: tuple[int, ...]) -> Place:
    """The cells, made here."""
    place, log = Place(out), Prepared.open(data)
    grid = place.begin(Grid(title=f"Report of {EVIL}", rows=rows, seeds=seeds))
    for row in rows:
        for seed in seeds:
            if row.model == "narm":
                why = json.dumps({"why": f"its process was ended by SIGKILL {EVIL}"})
                write_text(place.failure(row.name, seed), why)
            else:
                cell = make(log, grid, row, seed, place, "cpu", lambda facts: None)
                write_text(place.cell(row.name, seed), json.dumps(cell))
    return place


@pytest.fixture(scope="module")
def place(clicks: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    rows = (
        Row(name=KNN, model="s-knn"),
        Row(name=EVIL, model="s-knn"),
        Row(name=FPMC, model="fpmc", settings={"epochs": 2, "embedding_size": 4}, tries=({"l2": 0.0}, {"l2": 0.1})),
        Row(name="broken", model="narm"),
    )
    found = compared(tmp_path_factory.mktemp("report") / "found", clicks, rows, (0, 1))
    publish(found, clicks)
    return found


@pytest.fixture(scope="module")
def page(place: Place) -> str:
    return (place.folder / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def summary(place: Place) -> Summary:
    return summarise(place)


def rows_of(page: str, table: int = 0) -> dict[str, list[str]]:
    """The rows of a sortable table as text, by the text of their heading."""
    body = re.findall(r'<table class="sortable">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)[table]
    out = {}
    for row in re.findall(r"<tr.*?</tr>", body, re.DOTALL):
        cells = [
            html.unescape(re.sub(r"<[^>]+>", " ", cell)) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)
        ]
        out[" ".join(cells[0].split())] = [" ".join(cell.split()) for cell in cells[1:]]
    return out


def test_the_table_holds_every_row_with_its_numbers(page: str, summary: Summary) -> None:
    rows = rows_of(page)
    assert len(rows) == 4
    (found,) = (cells for name, cells in rows.items() if name.endswith("fpmc"))
    row = summary.line(FPMC)
    recall, pair = row.figures["recall@20"], row.against
    assert pair is not None
    assert row.p is not None
    assert found[0].startswith(f"{100 * recall.mean:.2f} {100 * recall.low:.2f} to {100 * recall.high:.2f}")
    low, high = min(recall.seeds), max(recall.seeds)
    assert found[0].endswith(f"seeds {100 * low:.2f} to {100 * high:.2f}")
    assert found[2].startswith(f"{100 * pair.difference:+.2f} {100 * pair.low:+.2f} to {100 * pair.high:+.2f}")
    assert row.p < 0.0005
    assert found[3] == "< 0.001"
    assert found[4] == f"{pair.losses} of {pair.clusters}"
    assert found[-1] == f"l2 = {row.cells[0]['chosen']['l2']:.4g}"


def test_a_cell_that_never_searched_has_no_time_of_a_search(summary: Summary) -> None:
    line = summary.line(FPMC)
    old = tuple({**cell, "seconds": {"total": 2.0}} for cell in line.cells)
    bare = replace(summary, lines=(replace(line, cells=old),))
    (found,) = rows_of(results(bare, looks([FPMC]))).values()
    assert found[5:7] == ["", "2 tried"]


def test_a_failed_row_says_why(page: str, summary: Summary) -> None:
    (found,) = (cells for name, cells in rows_of(page).items() if name.endswith("broken narm"))
    assert found == [f"No result: its process was ended by SIGKILL {EVIL}"]
    assert any("broken" in str(one) and "SIGKILL" in str(one) for one in cautions(summary))


def test_an_order_that_is_not_the_papers_is_kept_in_mind(summary: Summary) -> None:
    figures = {KNN: "1.0 / 2.0", FPMC: "3.0 / 1.0"}  # here the neighbours are ahead
    lines = tuple(replace(one, published=figures.get(one.name, "")) for one in summary.lines)
    said = [str(one) for one in cautions(replace(summary, lines=lines))]
    assert any("0 of 1 pairs of rows agree. The paper has fpmc above s-knn" in one for one in said)
    assert not any("of rows agree" in str(one) for one in cautions(summary))


def test_a_model_and_its_twin_cannot_be_told_apart(page: str, summary: Summary) -> None:
    assert summary.reference == KNN
    assert summary.line(EVIL).p == 1.0
    assert "cannot be told from it (p 1.000 after Holm)" in page


def test_what_is_data_stays_data(page: str) -> None:
    assert EVIL not in page
    assert page.count("<script") == page.count("</script>") == 2  # the grid as JSON, and ours
    assert html.escape(EVIL) in page
    assert f"{html.escape(EVIL)} " in page  # a title: with its item behind it


def test_it_loads_nothing_and_is_small(page: str) -> None:
    assert len(page.encode()) < 5_000_000
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!["']?#)(?:https?:|//)""", page)
    assert not re.findall(r"@import|url\((?!#)", page)
    links = set(re.findall(r'<a href="([^#"][^"]*)"', page))
    assert links == {"numbers.csv", "rows.csv", "breakdowns.csv", "passes.csv", "trials.csv", "figures/"}
    assert "<link" not in page
    assert "<img" not in re.sub(r"&lt;", "", page)


def test_ids_are_taken_once_and_all_references_are_met(page: str) -> None:
    ids = Counter(re.findall(r'\sid="([^"]+)"', page))
    assert max(ids.values()) == 1
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', page))
    assert used <= set(ids)


def test_headings_sort_by_keyboard_and_tell_their_order(page: str) -> None:
    heads = re.findall(r'<table class="sortable">.*?<thead>(.*?)</thead>', page, re.DOTALL)
    assert len(heads) >= 3
    for head in heads:
        for cell in re.findall(r"<th .*?</th>", head):
            assert 'aria-sort="none"' in cell
            assert '<button type="button"' in cell
    assert f'<th data-key="{html.escape(EVIL)}" scope="row">' in page  # sorted by its name, not by its mark
    regions = re.findall(r'<div class="wide"[^>]*>', page)
    assert all('tabindex="0"' in one and "aria-label=" in one and 'role="region"' in one for one in regions)
    assert page.count('role="img"') == page.count("<svg")
    assert 'setAttribute("aria-sort"' in page


def test_every_drawing_is_in_the_page_and_in_two_files(place: Place, page: str) -> None:
    figures = {path.name for path in (place.folder / "figures").iterdir()}
    names = {Path(name).stem for name in figures}
    assert figures == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    assert page.count("<svg") == len(names)
    wanted = {"accuracy-recall-20", "beside-the-best-other", "cost-training", "cost-median", "learning-by-pass",
              "learning-by-second", "session-recall-20", "user-recall-20", "popularity-mrr-20", "recall-by-list",
              "attention-1"}  # fmt: skip
    assert wanted <= names
    assert "tried-fpmc" not in names  # two trials are read from the table
    svg = (place.folder / "figures" / "cost-training.svg").read_text("utf-8")
    assert ">fpmc</text>" in svg
    assert "var(--" not in svg  # the files stand alone
    assert "var(--c2)" in page  # and the page follows light and dark


def test_more_than_three_trials_are_drawn(tmp_path: Path) -> None:
    change = [{"l2": penalty} for penalty in (0.0, 0.001, 0.01, 0.1)]
    trials = [{"change": one, "score": 0.1 + n / 100, "pruned": False} for n, one in enumerate(change)]
    names, gallery = looks(["a"]), Gallery(tmp_path)
    for number in (3, 4):
        cell = {"tried": trials[:number], "chosen": change[number - 1]}
        with drawing():
            drawn = list(tried(gallery, [replace(line("a", 0.5), cells=(cell,))], names, "recall@20"))
        assert len(drawn) == (number == 4)
    assert gallery.names == ["tried-a"]


def test_of_many_rows_the_best_and_the_cheap_ones_stand_out(tmp_path: Path) -> None:
    of = [line(f"m{n}", 0.5 + n / 1000, p=0.001, training=100.0 - 9 * n, ms=1.0) for n in range(11)]
    few, many = (Sections(summary_of(*rows, reference=rows[-1].name), looks([one.name for one in rows]),
                          Gallery(tmp_path)) for rows in (of[:8], of))  # fmt: skip
    assert not any(look.quiet for look in few.curves.values())
    assert {name for name, look in many.curves.items() if not look.quiet} == {f"m{n}" for n in range(5, 11)}
    assert not any(look.quiet for look in many.names.values())


def test_rows_far_below_the_others_do_not_press_them_together(tmp_path: Path) -> None:
    of = [line(f"m{n}", mean) for n, mean in enumerate([0.01, 0.02, *(0.5 + n / 100 for n in range(8))])]
    with drawing():
        (drawn,) = plots.intervals(Gallery(tmp_path), of, looks([one.name for one in of]), ["recall@20"])
    assert "Triangles at the left edge lie beyond it." in drawn
    assert ">1.00</text>" in drawn  # the figure still stands beside its name
    assert ">50</text>" in drawn
    assert ">10</text>" not in drawn


def test_rows_with_other_seeds_than_most_are_named() -> None:
    once, twice, thrice = (replace(line(name, 0.5), cells=line(name, 0.5).cells * n) for n, name in enumerate("abc", 1))
    assert list(_unlike_seeds([thrice, once, once, twice])) == ["Seeds of each row: 1; of c 3; of b 2."]
    assert list(_unlike_seeds([twice, twice])) == list(_unlike_seeds([])) == []


def test_the_json_says_what_the_page_says(page: str, summary: Summary, place: Place) -> None:
    (text,) = re.findall(r'<script type="application/json" id="comparison">(.*?)</script>', page)
    found = json.loads(text)
    assert Grid.of(found["grid"]) == place.grid()
    assert found["reference"] == KNN
    for row in summary.lines:
        metrics = found["rows"][row.name]["metrics"]
        assert {name: one["mean"] for name, one in metrics.items()} == {
            name: figure.mean for name, figure in row.figures.items()
        }
    assert found["rows"]["broken"]["failures"]["1"].endswith(EVIL)


def test_cases_fall_into_the_same_kinds_for_all_models(place: Place, summary: Summary) -> None:
    lines = [row for row in summary.lines if row.cells]
    found = {one.name: one for one in breakdowns(place, lines)}
    assert set(found) == {"session", "user", "popularity", "repeats"}
    cases = lines[0].cells[0]["test"]["cases"]
    for one in found.values():
        assert one.metrics == ["recall@20", "mrr@20"]
        assert all(set(group.means["recall@20"]) == {KNN, EVIL, FPMC} for group in one.groups)
        assert sum(group.size for group in one.groups) == cases
        for name in (KNN, FPMC):  # the parts make the whole
            whole = sum(group.size * group.means["recall@20"][name] for group in one.groups) / cases
            assert whole == pytest.approx(summary.line(name).figures["recall@20"].mean)


def test_every_column_says_what_it_means_without_a_mouse(page: str) -> None:
    (found,) = re.findall(r"<details><summary>What the columns mean</summary><dl>(.*?)</dl></details>", page)
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", found)
    (head,) = re.findall(r'<table class="sortable">.*?<thead>(.*?)</thead>', page, re.DOTALL)[:1]
    titles = dict(re.findall(r'<button type="button"(?: title="([^"]*)")?[^>]*>(.*?)</button>', head))
    heads = [name for name in re.findall(r"<button[^>]*>(.*?)</button>", head) if name != "model"]
    assert sorted(heads) == sorted(name for names, _ in pairs for name in names.split(", "))
    assert {about for _, about in pairs} == set(titles) - {""}  # what a mouse is told
    told = dict(pairs)
    assert told["recall@20"].startswith("Share of a case&#x27;s targets that are among the first k. In percent")
    assert told["passes"] == "Over the log, in the training of each seed"


def test_the_log_has_its_counts_and_its_drawings(page: str, place: Place, clicks: Path) -> None:
    log = Prepared.open(clicks)
    (section,) = re.findall(r"<section><h2>The log</h2>(.*?)</section>", page.replace(' id="log"', ""), re.DOTALL)
    rows = re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', section)
    found = {part: [int(one.replace(",", "")) for one in re.findall(r">([\d,]+)</td>", cells)] for part, cells in rows}
    names = ("events", "users", "sessions", "prefixes", "items")
    assert found == {part: [of[name] for name in names] for part, of in log.manifest["counts"].items()}
    figures = {path.stem for path in (place.folder / "figures").glob("log-*.svg")}
    assert figures == {"log-what-makes-up-a-session", "log-what-comes-back", "log-time-to-the-next-event-and-its-law"}
    facts = log_facts(log)
    assert facts.dwell is not None
    assert f"the gamma law with shape {facts.dwell.shape:.2f}" in section


def test_a_large_log_is_counted_and_not_drawn(clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foretaste.compare.report.log.MOST", 10)
    found = the_log(Gallery(tmp_path), Prepared.open(clicks))
    assert "Drawings are left out, as the log has more than 10 events" in found
    assert not list(tmp_path.iterdir())


def test_every_length_up_to_19_is_a_kind_and_can_be_read(tmp_path: Path) -> None:
    """NARM's Table 5 has sessions of 1 to 19 events; the drawing has room for them and for what is longer."""
    assert [low for low, high in LENGTHS if low == high] == list(range(20))
    assert all(low == before + 1 for (_, before), (low, _) in itertools.pairwise(LENGTHS))
    labels = [*map(str, range(20)), "20 to 49", "50 to 99", "100 to 999", "1000 and more"]
    means = {"recall@20": {"a": 0.5, "b": 0.25}}
    groups = tuple(Group(label, 1000 * (place + 1), means) for place, label in enumerate(labels))
    parts = Breakdown("history", "Events known", "cases", groups)
    with drawing():
        list(plots.by_kind(Gallery(tmp_path), [line("a", 0.5), line("b", 0.25)], looks(["a", "b"]), parts, "recall@20"))
    svg = (tmp_path / "history-recall-20.svg").read_text("utf-8")
    assert svg.count("rotate(-90)") >= 2 * len(labels)  # upright: the label and the count of each
    for label in ("19", "20–49", "1000+", "24k"):
        assert f">{label}</text>" in svg


def test_a_control_character_of_a_title_breaks_no_drawing() -> None:
    with drawing():
        figure, axes = canvas(2.0)
        axes.set_title("tea\x01 and \x1bmilk")
        assert "tea" in "".join(ElementTree.fromstring(svg_of(figure, "one")).itertext())


def test_a_variant_is_named_by_what_its_own_rows_are(tmp_path: Path) -> None:
    """BPR-MF without users reads sessions, whatever its class says; without ranks, each sort of model is by itself."""

    def of(name: str, model: str, scope: str, sizes: tuple[int, int]) -> Line:
        groups = [{"label": str(n), "size": size, "recall@20": 0.5, "mrr@20": 0.1} for n, size in enumerate(sizes)]
        cell = {"seed": 0, "scope": scope, "test": {"breakdown": {"history": groups}}}
        return Line(name, model, "", ({key: one for key, one in cell.items() if one != ""},))

    found = breakdowns(Place(tmp_path), [of("mean", "bpr-mf", "session", (3, 2)), of("old", "fpmc", "", (1, 4))])
    assert [(one.name, [group.size for group in one.groups]) for one in found] == [
        ("session", [3, 2]),
        ("user", [1, 4]),
    ]


def test_moments_are_test_events_of_different_users(clicks: Path, place: Place) -> None:
    log = Prepared.open(clicks)
    found = moments(log)
    assert len({moment.user for moment in found}) == len(found) == 4
    sequences = log.sequences
    for moment in found:
        assert sequences.part[moment.cut] == TEST
        assert sequences.users[moment.user] <= moment.begin < moment.cut < sequences.users[moment.user + 1]
    assert found == moments(log)
    witnesses = Witnesses(place, [KNN, "broken"], log)
    assert list(witnesses.models) == [KNN]
    assert "broken" in witnesses.silent
    for moment in found:
        seen = witnesses.ask(KNN, moment)
        assert seen is not None
        assert len(seen.weights) == len(witnesses.shown(moment)) <= SHOWN
        assert sum(seen.weights) + seen.older == pytest.approx(1.0)


# One seed, no data, no matplotlib


@pytest.fixture(scope="module")
def single(clicks: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    rows = (Row(name="pop", model="pop"), Row(name=KNN, model="s-knn"))
    return compared(tmp_path_factory.mktemp("report") / "single", clicks, rows, (0,))


def test_one_seed_claims_no_spread(single: Place) -> None:
    page = write_report(single, summarise(single)).read_text("utf-8")
    assert "One seed was trained" in page
    assert "no spread is claimed" in page
    assert all("seeds" not in cell for cells in rows_of(page).values() for cell in cells)
    assert "strokes are single seeds" not in page
    assert "the folder of the log was not given" in page
    assert not (single.folder / "figures" / "attention-1.svg").exists()


def test_without_matplotlib_one_sentence_names_the_extra(
    single: Place, clicks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (single.folder / "table.md").unlink(missing_ok=True)
    with pytest.raises(NoMatplotlib, match=r"pip install 'foretaste\[viz\]'"):
        write_report(single, summarise(single))
    found = publish(single, clicks)
    assert "no report.html: the report draws with matplotlib" in capsys.readouterr().err
    assert (single.folder / "table.md").exists()
    assert found.reference
    assert not list(single.folder.glob(".figures*"))


def test_a_damaged_saved_model_is_left_out(single: Place, clicks: Path) -> None:
    weights = single.model(KNN) / "weights.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[: len(kept) // 2])
    try:
        witnesses = Witnesses(single, ["pop", KNN], Prepared.open(clicks))
    finally:
        weights.write_bytes(kept)
    assert list(witnesses.models) == ["pop"]
    assert "weights.safetensors" in witnesses.silent[KNN]


@pytest.mark.parametrize(("low", "high"), [(1.21, 1.29), (0.0301, 0.0302), (2.1, 2.9), (0.5, 4.0), (0.01, 5000.0)])
def test_a_logarithmic_axis_has_numbers_however_narrow_it_is(low: float, high: float) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    plots.plain_decades(axes)
    marks = axes.get_xticks()
    assert 1 <= len(marks) <= 6
    assert all(0.99 * low <= mark <= 1.01 * high for mark in marks)


@pytest.fixture(scope="module")
def twice(clicks: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two counting models that were asked something besides."""
    place, log = Place(tmp_path_factory.mktemp("report") / "twice"), Prepared.open(clicks)
    rows = Row(name="pop", model="pop"), Row(name=KNN, model="s-knn")
    grid = place.begin(Grid(title="Asked twice", rows=rows, also={"last <b>": "last-item:unit=session"}))
    for row in rows:
        cell = make(log, grid, row, 0, place, "cpu", lambda facts: None)
        write_text(place.cell(row.name, 0), json.dumps(cell))
    publish(place, None)
    return place


def test_what_was_asked_besides_has_a_section_and_its_numbers(twice: Place) -> None:
    page = (twice.folder / "report.html").read_text("utf-8")
    assert "<h2>Asked besides</h2>" in page
    assert "last &lt;b&gt;: whether the user had the target before" in page
    figures = {path.stem for path in (twice.folder / "figures").glob("*.svg")}
    assert {"accuracy-last-b-recall-20", "last-b-history-recall-20", "last-b-popularity-mrr-20"} <= figures
    with (twice.folder / "breakdowns.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cell = twice.read(KNN, 0)
    assert cell is not None
    for question, found in {"": cell["test"], "last <b>": cell["also"]["last <b>"]}.items():
        for kind, groups in found["breakdown"].items():
            some = [one for one in rows if (one["row"], one["question"], one["kind"]) == (KNN, question, kind)]
            assert [(one["label"], int(one["size"]), one["metric"], float(one["value"])) for one in some] == [
                (group["label"], group["size"], metric, group[metric])
                for group in groups
                for metric in ("recall@20", "mrr@20")
            ]
    parts = {one.name: one for one in besides(list(summarise(twice).lines), "last <b>")}
    repeats = parts["last <b> repeats"]
    assert sum(group.size for group in repeats.groups) == cell["also"]["last <b>"]["targets"]


def test_the_reference_stands_beside_the_best_row_of_another_model(twice: Place) -> None:
    summary = summarise(twice)
    found = pair_of(summary)
    assert found is not None
    assert [line.name for line in found] == [KNN, "pop"]
    drawn = (twice.folder / "figures" / "beside-the-best-other.svg").read_text("utf-8")
    for metric in ("recall@5", "recall@20", "mrr@10"):
        ours, theirs = (line.figures[metric].mean for line in found)
        assert f">{metric}</text>" in drawn
        more = 100 * (ours / theirs - 1)
        assert (f">{more:+.1f} %<" if abs(more) < 100 else f">{more:+.0f} %<") in drawn
    assert pair_of(replace(summary, lines=summary.lines[:1], reference="pop")) is None
    assert pair_of(replace(summary, reference="")) is None


def test_rows_far_below_do_not_press_the_good_ones_together() -> None:
    assert _floor(np.array([7.0, 31, 53, 67, 69, 69.4, 70, 71, 71.5])) == pytest.approx(71.5 - 1.2 * (71.5 - 187 / 3))
    assert _floor(np.array([7.0, 67, 69, 69.4, 70, 71, 71.5])) == -np.inf  # few
    assert _floor(np.arange(10.0, 100, 10)) == -np.inf  # as far from each other as they are
    assert _floor(np.full(9, 0.5)) == -np.inf
    assert _floor(np.array([0.2, *[0.5] * 9])) == -np.inf  # nothing to tell apart above


def test_a_row_below_the_edge_is_drawn_on_it_with_its_figure(tmp_path: Path) -> None:
    rows = [line(f"m{n}", 0.70 + 0.005 * n, training=10.0 + n) for n in range(6)]
    rows += [line("low", 0.05, training=0.1), line("lower", 0.01, training=0.2)]
    with drawing():
        (shown,) = plots.against_cost(
            Gallery(tmp_path), rows, looks([row.name for row in rows]), "recall@20", "training"
        )
    assert "Triangles on the lower edge" in shown
    svg = (tmp_path / "cost-training.svg").read_text("utf-8")
    assert all(f">{label}</text>" in svg for label in ("low 5.0", "lower 1.0", "m0", "m5"))


def test_names_in_a_crowd_cover_no_mark_and_no_name() -> None:
    random = np.random.default_rng(7)
    crowd = [(180.0 + 40 * n, 70.4 + 0.1 * (7 * n % 11)) for n in range(11)]  # eleven leaders close together
    alone = [(float(x), float(y)) for x, y in zip(random.uniform(1, 100, 9), random.uniform(60, 69, 9), strict=True)]
    points = [Point(x, y, y - 0.6, y + 0.6, f"model number {n}") for n, (x, y) in enumerate(crowd + alone)]
    with drawing():
        figure, axes = canvas(4.4)
        axes.set_xscale("log")
        axes.set_xlim(0.5, 2000)
        axes.set_ylim(58, 73)
        name_points(figure, axes, points, looks([point.name for point in points]))
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) == len(points)
    assert not [pair for pair in itertools.combinations(range(len(boxes)), 2) if touch(*(boxes[n] for n in pair))]
    for point in points:
        x, y = axes.transData.transform((point.x, point.y))
        mark = Bbox.from_extents(x - MARK + 1, y - MARK + 1, x + MARK - 1, y + MARK - 1)
        assert not [box for box in boxes if touch(mark, box)]
    inside = axes.get_window_extent()
    assert all(inside.x0 - 1 < box.x0 and box.x1 < inside.x1 + 1 for box in boxes)


def touch(one: Bbox, other: Bbox) -> bool:
    shared = Bbox.intersection(one, other)
    return shared is not None and shared.width > 1 and shared.height > 1
