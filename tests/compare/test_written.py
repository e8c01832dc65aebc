"""What stands below a table: the order of the rows against the paper's, notes, machines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from foretaste.compare.grid import Grid, Row
from foretaste.compare.pairs import draws_for
from foretaste.compare.summary import Figure, Line, Summary
from foretaste.compare.written import markdown, printed
from foretaste.evaluation.significance import Paired


def line(name: str, mean: float, published: str = "", notes: tuple[str, ...] = (), **more: Any) -> Line:
    test = {"protocol": "every step", "cases": 1234, "targets": 1234, "n_items": 50, "notes": list(notes)}
    cell = {"test": test, "also": {}, "tried": [], "chosen": {}, "passes": None, "seconds": {"training": 60.0},
            "training": {"epochs": 30, "schedule": "constant"}, "milliseconds": None, "seed": 0, "peak_mb": 512,
            **more}  # fmt: skip
    figure = Figure(mean, mean - 0.01, mean + 0.01, (mean,), more.get("optimistic"))
    return Line(name, "pop", published, (cell,), figures={"recall@20": figure})


def text_of(*lines: Line, reference: str = "") -> str:
    rows = tuple(
        Row(name=one.name, model=one.model, published=one.published,
            tries=tuple(trial["change"] for trial in one.cells[0]["tried"]))
        for one in lines
    )  # fmt: skip
    return markdown(Summary(Grid(title="T", rows=rows, show=("recall@20",), reference=reference), lines, lines[0].name))


@pytest.mark.parametrize(
    ("published", "figure"),
    [
        ("62.58 / 27.35", 62.58),
        ("0.91 / 0.23", 0.91),
        ("MovieLens-1M: 1.74 / 10.85", 1.74),
        ("33", 33.0),
        ("", None),
        ("HR@10: 25.00 / 13.41; DMAN's: 22.96 / 50.09", 25.0),
    ],
)
def test_the_first_figure_that_a_paper_prints(published: str, figure: float | None) -> None:
    assert printed(published) == figure


def test_rows_in_another_order_than_the_papers_are_named() -> None:
    text = text_of(line("a", 0.50, "60 / 20"), line("b", 0.53, "58 / 21"), line("c", 0.505, "50"), line("ours", 0.9))
    assert (
        "- Order in recall@20 against the paper's: 1 of 3 pairs of rows agree. The paper has "
        "a above b (ours 50.00 and 53.00); a above c (ours 50.00 and 50.50, each inside the other's interval)." in text
    )
    assert "1 of 1 pairs of rows agree." in text_of(line("a", 0.53, "60"), line("b", 0.50, "58"))
    assert "pairs of rows" not in text_of(line("a", 0.53, "60"), line("b", 0.50))


def test_a_note_stands_once_or_with_the_rows_that_it_is_of() -> None:
    text = text_of(line("a", 0.5, notes=("alike",)), line("b", 0.4, notes=("alike", "b is told of the next event")))
    assert "\n- alike\n" in text
    assert "\n- b: b is told of the next event\n" in text


def test_what_was_asked_ties_and_costs() -> None:
    text = text_of(line("a", 0.5, optimistic=0.523))
    assert "Asked: every step, 1,234 cases among 50 items." in text
    assert "| a | 50.00-52.30 (49.00 to 51.00) |" in text
    assert "| 60 s | 512 MB |" in text


def test_machines_are_named_with_their_days() -> None:
    one = {"processor": "P", "cores": 2, "torch": "2.13.0", "foretaste": "0.1.0"}
    rows = [
        line(name, 0.5, machine=one, threads=2, made=day) for name, day in (("a", "2026-01-02"), ("b", "2026-01-05"))
    ]
    assert "- Made on: P, 2 of 2 cores, torch 2.13.0 (2026-01-02 to 2026-01-05)." in text_of(*rows)


def test_rows_of_several_machines_are_told_apart() -> None:
    one = {"processor": "P", "cores": 2, "torch": "2.13.0", "foretaste": "0.1.0"}
    where = {"a": one, "b": {**one, "processor": "Q"}, "c": one}
    rows = [line(name, 0.5, machine=machine, threads=1, made="2026-01-02") for name, machine in where.items()]
    assert (
        "- Made on 2 machines, whose times and memory do not compare. P, 1 of 2 cores, torch 2.13.0 (2026-01-02): "
        "a, c; Q, 1 of 2 cores, torch 2.13.0 (2026-01-02): b."
    ) in text_of(*rows)


def tried(score: float | None = 0.5, **change: Any) -> dict[str, Any]:
    return {"change": change, "score": score}


def test_a_choice_at_the_end_of_what_could_be_chosen_is_named() -> None:
    def row(name: str, chosen: dict[str, Any], *trials: dict[str, Any], **more: Any) -> Line:
        return line(name, 0.5, chosen=chosen, tried=list(trials), **more)

    rates = [tried(learning_rate=rate, l2=l2) for rate in (0.001, 0.003, 0.01) for l2 in (0.0, 0.01, 0.1)]
    slow, falling = {"epochs": 20, "schedule": "constant"}, {"epochs": 20, "schedule": "linear"}
    text = text_of(
        row("inside", {"learning_rate": 0.003, "l2": 0.01}, *rates),
        row("fast", {"learning_rate": 0.01, "l2": 0.0}, *rates),  # no penalty is no end: there is nothing below it
        row("slow", {"learning_rate": 0.001, "l2": 0.1}, *rates),
        row("two", {"learning_rate": 0.01}, tried(learning_rate=0.003), tried(learning_rate=0.01)),
        row("other", {"optimizer": "adam", "learning_rate": 0.003}, tried(optimizer="adam", learning_rate=0.003),
            tried(optimizer="adam", learning_rate=0.001), tried(optimizer="adagrad", learning_rate=0.2)),
        row("failed", {"last": 5}, tried(last=1), tried(last=5), tried(score=None, last=20)),  # 20 was tried as well
        row("long", {}, training=slow, passes=20),
        row("falling", {}, training=falling, passes=20),
        row("asleep", {}, training=slow, passes=2),
        row("counts", {"last": 20}, *(tried(last=last) for last in (1, 5, 20)), training={}),
    )  # fmt: skip
    assert (
        "\n- Chosen at an end of what was allowed, beyond which nothing was tried. The largest learning_rate: "
        "fast; the least learning_rate: slow; the largest l2: slow; the larger of two learning_rate: two, other; "
        "the last pass (epochs): long; the largest last: counts.\n"
        "- At its best after 2 passes or fewer, so it has hardly learned: asleep.\n" in text
    )
    assert "what was allowed" not in text_of(row("inside", {"learning_rate": 0.003, "l2": 0.01}, *rates))


def test_rows_without_a_test_are_named() -> None:
    pair = Paired(0.1, 0.05, 0.15, 0.01, 0.01, 0.01, 9, 1, 10, 10)
    best, tested, old = line("a", 0.5), replace(line("b", 0.4), against=pair, p=0.01), line("c", 0.4)
    assert "- Not tested, for what each case gave is not kept of them or of a: c. Holm's" in text_of(best, tested, old)
    assert "Not tested" not in text_of(best, old)  # a comparison without tests


def test_the_least_p_stays_below_the_level_however_many_rows_there_are() -> None:
    for others in (2, 24, 28, 29, 40, 60, 120):
        pairs = others * (others + 1) // 2
        assert pairs / (draws_for(others, named=False) + 1) < 0.045
        assert others / (draws_for(others, named=True) + 1) < 0.045
    assert draws_for(25, named=False) == 10_000


def test_a_sign_of_the_table_in_a_name_stays_in_its_cell() -> None:
    text = text_of(line("a|b", 0.5), line("c", 0.4))
    assert "| a\\|b | 50.00" in text


def test_seeds_are_spoken_of_where_something_was_trained() -> None:
    history = [{"epoch": 1}]
    one, two = line("a", 0.5, history=history), line("b", 0.4, history=history)
    assert "One seed was trained: intervals and tests are over users or sessions alone" in text_of(one, two)
    several = replace(one, cells=one.cells * 2)
    assert "two rows whose single seeds overlap may differ by their seeds alone" in text_of(several, two)
    assert "seed was trained" not in text_of(line("a", 0.5), line("b", 0.4))
