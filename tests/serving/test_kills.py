"""The service killed with kill -9 under load: nothing acknowledged is lost, nothing is taken in twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.serving.killing import differences, measure

SENT = [(5, 100.0), (7, 160.0), (9, 220.0)]


def kept(*events: tuple[int, float], seen: int | None = None) -> dict[str, object]:
    return {"events": [{"item": item, "time": time} for item, time in events], "seen": seen or len(events)}


def test_the_comparison_sees_what_is_lost_doubled_made_up_or_out_of_order() -> None:
    assert differences("u1", SENT, kept(*SENT)) == []
    assert differences("u1", SENT, kept(*SENT[:2], seen=3)) == ["u1: (9, 220.0) is lost"]
    assert differences("u1", SENT, kept(*SENT, SENT[2], seen=3)) == ["u1: (9, 220.0) was taken in 2 times"]
    assert differences("u1", SENT, kept(*SENT, (8, 1.0), seen=3)) == ["u1: (8, 1.0) was never sent"]
    assert differences("u1", SENT, kept(*SENT[::-1])) == ["u1: the events are not in the order of their times"]
    assert differences("u1", SENT, kept(*SENT, seen=4)) == ["u1: 4 events are said to be taken in, 3 were"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker processes in /proc")
@pytest.mark.parametrize("name", ["narm", "dman"])
def test_kill_9_of_the_server_loses_nothing_and_doubles_nothing(name: str, tmp_path: Path) -> None:
    found = measure(name, 5, 0, tmp_path)
    assert found["wrong"] == []
    assert sum(found["kills"].values()) == 5
    assert found["events"] > 100
    assert found["answers"]["sent once more: duplicate"] > 0
