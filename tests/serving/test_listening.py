"""The port of several workers: connections are spread, none goes to one that is gone, nobody shares by accident."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

import pytest

from foretaste.errors import ConfigError
from foretaste.serving.listening import SPREAD, Listening

spread = pytest.mark.skipif(SPREAD is None, reason="this system does not spread connections among sockets")


def taken(descriptor: int) -> int:
    """How many connections wait on a socket; takes and closes them."""
    count = 0
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        listening.settimeout(0.2)
        while True:
            try:
                listening.accept()[0].close()
            except TimeoutError:
                return count
            count += 1


def connect(listening: Listening, count: int, stack: ExitStack) -> None:
    host, port = listening.place.rsplit(":", 1)
    for _ in range(count):
        stack.enter_context(socket.create_connection((host, int(port))))


@spread
def test_two_workers_share_the_connections_and_one_left_gets_all() -> None:
    with Listening("127.0.0.1", 0, 2) as listening, ExitStack() as stack:
        connect(listening, 200, stack)
        counts = [taken(listening.take(place)) for place in (0, 1)]
        assert sum(counts) == 200
        assert min(counts) > 60  # 5.6 standard deviations from half
        listening.leave(0, others=True)
        connect(listening, 20, stack)
        assert taken(listening.take(1)) == 20
        again = listening.take(0)  # a new worker, which does not listen before it is ready
        connect(listening, 20, stack)
        assert taken(listening.take(1)) == 20
        with socket.socket(fileno=os.dup(again)) as ready:
            ready.listen()
        connect(listening, 200, stack)
        assert min(taken(listening.take(place)) for place in (0, 1)) > 60


@spread
def test_who_asks_while_no_worker_is_there_waits_for_the_first_that_is_ready() -> None:
    with Listening("127.0.0.1", 0, 2) as listening, ExitStack() as stack:
        listening.leave(0, others=True)
        last = listening.take(1)
        listening.leave(1, others=False)
        connect(listening, 20, stack)
        assert listening.take(0) == last  # the worker that starts first takes over those who wait
        listening.ready()
        assert taken(last) == 20
        assert listening.take(1) != last
        listening.leave(1, others=False)  # both are starting; worker 1 dies
        listening.ready()  # worker 0 is there: nobody is to wait for worker 1
        connect(listening, 20, stack)
        assert taken(last) == 20


def test_one_worker_has_one_socket_that_stays() -> None:
    with Listening("127.0.0.1", 0) as listening, ExitStack() as stack:
        before = listening.take(0)
        listening.leave(0, others=False)
        listening.ready()
        assert listening.take(0) == before
        connect(listening, 3, stack)
        assert taken(before) == 3


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("others", [1, 2])
def test_a_port_that_another_service_has_is_refused(count: int, others: int) -> None:
    with Listening("127.0.0.1", 0, others) as other:
        port = int(other.place.rsplit(":", 1)[1])
        with pytest.raises(ConfigError, match="choose another with --port"):
            Listening("127.0.0.1", port, count)


def test_a_name_that_can_be_no_host_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on aaa.*choose another with --port"):
        Listening(300 * "a", 0)


def test_an_address_of_the_sixth_version_is_written_in_brackets() -> None:
    try:
        with Listening("::1", 0, 2) as listening:
            assert listening.place.startswith("[::1]:")
    except ConfigError:
        pytest.skip("this machine has no IPv6")
