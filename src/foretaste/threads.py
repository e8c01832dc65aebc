"""How torch's threads wait for each other. It is told by the environment, before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping

WAITING: Mapping[str, str] = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
"""Spin for some microseconds, then sleep.

Threads that spin on stall each other many times over as soon as another program takes a core; threads that sleep at
once lose half of what a second one brings where nothing else runs. So, a moment, then sleep.
"""
