"""What older versions saved opens in this one, and answers as it did (see kept/make.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foretaste import Prepared, Recommender

KEPT = sorted(path.parent for path in (Path(__file__).parent / "kept").glob("*/expected.json"))

each = pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)


def expected_of(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "expected.json").read_text("utf-8"))
    assert isinstance(found, dict)
    return found


def test_the_first_version_is_kept() -> None:
    assert KEPT[0].name == "0.1.0"


@each
def test_a_kept_recommender_gives_the_ten_it_gave(folder: Path) -> None:
    expected = expected_of(folder)
    recommender = Recommender.load(folder / "recommender")
    found = recommender.recommend(expected["history"], 10)
    assert found.ids == expected["items"]
    assert len(found) == 10
    assert found.scores == pytest.approx(expected["scores"], rel=1e-5, abs=1e-5)
    ids, weights = zip(*recommender.explain(expected["history"])["attention"], strict=True)
    assert [list(ids), pytest.approx(list(weights), abs=1e-5)] == [
        list(part) for part in zip(*expected["attention"], strict=True)
    ]


@each
def test_a_kept_log_is_asked_the_same_and_answered_the_same(folder: Path) -> None:
    expected = expected_of(folder)
    prepared = Prepared.open(folder / "prepared", verify=True)
    assert prepared.manifest["counts"] == expected["counts"]
    assert prepared.items.columns["title"][:3] == expected["titles"]
    found = Recommender.load(folder / "recommender").evaluate(prepared, cutoffs=(5,))
    assert len(found) == expected["cases"]
    assert found.means() == pytest.approx(expected["means"], abs=1e-6)
    again = Recommender("pop").fit(prepared).evaluate(prepared, cutoffs=(5,))
    assert len(again) == expected["cases"]
