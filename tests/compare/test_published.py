"""The tables that are published: each can go on with the recipe as it is today."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from foretaste.compare.grid import Place
from foretaste.compare.tables import names, table

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
PUBLISHED = [name for name in names() if (RESULTS / name / "grid.json").exists()]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_table_goes_on_with_todays_recipe(tmp_path: Path, name: str) -> None:
    place = Place(tmp_path)
    shutil.copy(RESULTS / name / "grid.json", tmp_path)
    shutil.copytree(RESULTS / name / "cells", tmp_path / "cells")
    made = place.grid()
    wanted = table(name).grid(made.seeds, made.data)
    assert {cell.stem.rpartition("-seed")[0] for cell in (tmp_path / "cells").iterdir()} <= {
        row.name for row in wanted.rows
    }
    place.begin(wanted)  # refuses where a row that is there was made by other settings, or asked another question
