"""The service killed with kill -9 under load: nothing acknowledged is lost, nothing is taken in twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foretaste.serving.listening import Listening
from foretaste.serving.worker import Plan
from tests.serving.killing import differences, measure
from tests.serving.small import small_trained

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


def test_a_worker_whose_supervisor_was_killed_while_it_started_stops_without_a_fault(tmp_path: Path) -> None:
    plan = Plan(run=small_trained().save(tmp_path / "run"), store=str(tmp_path / "store"))
    reading, writing = os.pipe()
    os.close(reading)
    with Listening("127.0.0.1", 0) as listening:
        descriptors = listening.take(0), writing
        command = [sys.executable, "-m", "foretaste.serving.worker", *map(str, descriptors)]
        line = json.dumps(plan.as_dict()).encode() + b"\n"
        done = subprocess.run(command, input=line, pass_fds=descriptors, capture_output=True, timeout=120)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker processes in /proc")
@pytest.mark.parametrize("name", ["narm", "dman"])
def test_kill_9_of_the_server_loses_nothing_and_doubles_nothing(name: str, tmp_path: Path) -> None:
    found = measure(name, 5, 0, tmp_path)
    assert found["wrong"] == []
    assert sum(found["kills"].values()) == 5
    assert found["events"] > 100
    assert found["answers"]["sent once more: duplicate"] > 0
