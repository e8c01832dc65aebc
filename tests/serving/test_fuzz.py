"""Requests drawn from the service's own description, right and wrong ones: none may end in a fault or hang."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CheckFunction
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from foretaste.serving.limits import ServiceConfig
from tests.serving.small import small_app

ADDRESSES = [
    ("/events", "POST"),
    ("/recommendations", "POST"),
    ("/explanations", "POST"),
    ("/explanations", "GET"),
    ("/users/{user}", "GET"),
    ("/users/{user}", "DELETE"),
    ("/items", "GET"),
    ("/items/{item}/similar", "GET"),
    ("/", "GET"),
    ("/health", "GET"),
    ("/ready", "GET"),
    ("/metrics", "GET"),
]
CHECKS: list[CheckFunction] = [content_type_conformance, response_schema_conformance, status_code_conformance]
"""What is answered is as described. (That nothing is a fault is asked below.)"""


@pytest.fixture(scope="module")
def api() -> Any:
    app, _ = small_app(ServiceConfig(events=20, history=20, candidates=20))

    async def lasting(scope: Any, receive: Any, send: Any) -> None:
        """The service, which each request would begin and end otherwise."""
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for what in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{what}.complete"})

    return schemathesis.openapi.from_asgi("/openapi.json", lasting)


def fuzz(api: Any, path: str, method: str, examples: int) -> Counter[int]:
    """Send so many drawn requests, as described and not, to one address; the statuses that came back."""
    operation = api[path][method]
    found = sent(operation, GenerationMode.POSITIVE, examples)
    if operation.body or operation.query or operation.path_parameters:
        found += sent(operation, GenerationMode.NEGATIVE, examples)
    return found


def sent(operation: Any, mode: GenerationMode, examples: int) -> Counter[int]:
    """The statuses that came back to so many requests of one mode."""
    drawn, found = operation.as_strategy(mode), Counter[int]()

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=drawn)
    def ask(case: Any) -> None:
        begun = time.monotonic()
        answer = case.call(headers={"Host": "localhost"})
        found[answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        assert time.monotonic() - begun < 20
        case.validate_response(answer, checks=CHECKS)

    ask()
    return found


@pytest.mark.parametrize(("path", "method"), ADDRESSES)
def test_some_hundred_requests(api: Any, path: str, method: str) -> None:
    found = fuzz(api, path, method, 30)
    examples = 30
    while method == "POST" and 200 not in found and examples < 2000:  # few drawn requests can be answered
        examples *= 4  # more than before: where draws are the same in every run, so are the first of them
        found += sent(api[path][method], GenerationMode.POSITIVE, examples)
    assert 503 not in found  # it would be asked nothing
    if method == "POST":
        assert {200, 422} <= set(found)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), ADDRESSES)
def test_twenty_thousand_requests(api: Any, path: str, method: str) -> None:
    rare = ADDRESSES[-4:]  # they take nothing: there is nothing to draw
    assert fuzz(api, path, method, 5 if (path, method) in rare else 1250).total() >= 1


def test_every_address_is_asked(api: Any) -> None:
    assert {(path, method.upper()) for path in api for method in api[path]} == set(ADDRESSES)
