"""What is freed stays with the process, where it says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from foretaste.memory import keep_freed

kept = keep_freed() if sys.argv[1] == "kept" else None
np.ones(5_000_000)  # 40 MB: by itself glibc gives so large a piece back
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(5_000_000)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str, **environment: str) -> tuple[str, int]:
    """What `keep_freed` said, and how many pages were asked of the system."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    made = subprocess.run([sys.executable, "-c", FAULTS, way], env=plain | environment, check=True, capture_output=True)
    said, number = made.stdout.decode().split()
    return said, int(number)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_freed_memory_is_used_again() -> None:
    given_back, (said, kept) = faults("given back")[1], faults("kept")
    assert said == "True"
    assert kept < 20 < 200 < given_back  # of 20 pieces, where a page may be a huge one of 2 MB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_what_the_environment_says_holds() -> None:
    assert faults("kept", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
