"""What a process that trains does with memory that it has freed: it keeps it.

A step of training frees what the next one needs again: gradients of the item table, scores, masks. By default glibc
gives such pieces back to the system, which then has to clear every page of the next step's anew: a quarter to a
third of a step with sampled negatives (`benchmarks/freed_memory.py`). So freed memory stays with the process, which
holds no more than its most expensive step needed. On other systems nothing is changed, nor where the environment
(MALLOC_...) already says how memory is to be kept.
"""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""glibc's numbers of two settings: how much free memory the heap keeps at its end; and how many pieces may be had
beside the heap, which go back to the system when they are freed."""
KEPT, BESIDE = 2**31 - 1, 0


def keep_freed() -> bool:
    """Whether it could be arranged."""
    told = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if told or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(TRIM_THRESHOLD, KEPT) and mallopt(MMAP_MAX, BESIDE))
