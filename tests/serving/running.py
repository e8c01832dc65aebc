"""The service on loopback: its processes as the command starts them, or an application in a thread of this one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from foretaste.serving.client import Client

PATIENCE = 90
"""Seconds that a busy machine may take for what takes two."""


class Running:
    """`foretaste serve` with these options on a free port."""

    def __init__(self, run: Path, *options: object, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "foretaste", "serve", str(run), "--port", "0", *map(str, options)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            start_new_session=True,
        )
        self.said: list[str] = []
        self.logged: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        timer = threading.Timer(PATIENCE, self.process.kill)
        timer.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if len(self.said) == 4:
                break
        timer.cancel()
        self.url = self.said[0].split()[3].rstrip(";") if self.said else ""

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.logged.append(line)

    def client(self, key: str | None = None) -> Client:
        """A client of it."""
        return Client(self.url, key, timeout=PATIENCE)

    def workers(self) -> list[int]:
        """The ids of the worker processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in children.read_text().split()]

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Stop it as a service manager would (or Ctrl-C); its exit status."""
        if how == signal.SIGINT:
            os.killpg(self.process.pid, how)  # a terminal tells the whole group
        else:
            self.process.send_signal(how)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self._reading.join(5)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An application on a free port of this machine."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
