"""What every test may rely on: one torch thread, a quiet property tester, and the real logs where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Read by torch when it is first imported, here and in every process that a test starts: several test processes that
# fight for a core are many times slower than one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

# A busy machine is no failure, so examples have no deadline. In CI the same examples are drawn every time.
settings.register_profile("house", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("house")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for the real logs carries their mark: `pytest -m shared` runs just those."""
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of the real logs, which are not part of this repository. Without it the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip(f"the real logs are not at {os.path.relpath(SHARED, ROOT)}")
    return SHARED
