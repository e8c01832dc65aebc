"""A shell for the tests: runs the command line in this process, and keeps what it printed where."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from foretaste import cli


@dataclass(frozen=True)
class Ran:
    """What came of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON object that it is; NaN and infinity are not JSON."""

        def refuse(word: str) -> None:
            raise AssertionError(f"{word} in JSON")

        return json.loads(self.out, parse_constant=refuse)


class Shell:
    """Runs commands in this process, in a folder of their own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Ran:
        self.capsys.readouterr()
        status = None
        try:  # pytest.raises would keep the error, and with it every frame and the log that it holds
            cli.main([str(word) for word in arguments])
        except SystemExit as stop:
            status = stop.code
        assert isinstance(status, int)
        return Ran(status, *self.capsys.readouterr())

    def well(self, *arguments: object) -> Ran:
        """A command that must succeed."""
        ran = self(*arguments)
        assert ran.status == 0, ran.err
        return ran
