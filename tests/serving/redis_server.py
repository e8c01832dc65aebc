"""A real Redis (or Valkey) server on loopback for the tests: started, killed, frozen and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import redis

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")
MISSING = "neither redis-server nor valkey-server is installed"


class Server:
    """A server in a folder of its own; `appendonly` writes every change to its file before it answers."""

    def __init__(self, folder: Path, *, appendonly: bool = False) -> None:
        self.folder, self.appendonly = folder, appendonly
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        """Of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """Straight to the server, past the store."""
        return redis.Redis(port=self.port)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert PROGRAM is not None
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            "appendonly": "yes" if self.appendonly else "no",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([PROGRAM, *words], stdout=log, stderr=log)
        end = time.monotonic() + 20
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError:
                assert time.monotonic() < end, (self.folder / "log").read_text()
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.05)

    def kill(self) -> None:
        """As the system does it: nothing is saved on the way out."""
        self.process.kill()
        self.process.wait()

    def freeze(self, frozen: bool) -> None:
        """It lives and does not answer, until it is thawed."""
        os.kill(self.process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)
