"""The HTTP service: its addresses, and what OpenAPI says of them.

    application = make_app(engine, batcher, ServiceConfig(), Keys())

gives an ASGI application. It owns the batcher and the engine: when the server stops, what waits is finished, then both
are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic.json_schema import models_json_schema
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException

import foretaste
from foretaste.errors import ForetasteError
from foretaste.serving import bodies, metrics
from foretaste.serving.gate import Gate, Quick, body_of, unexpected
from foretaste.serving.ids import LONGEST
from foretaste.serving.keys import OPEN, Keys, needed
from foretaste.serving.limits import ServiceConfig
from foretaste.serving.metrics import Metrics
from foretaste.serving.problems import MEDIA, Refused, refused
from foretaste.serving.service import Service

if TYPE_CHECKING:
    from foretaste.serving.batcher import Batcher
    from foretaste.serving.engine import Engine

ABOUT = """Next-item recommendation with a live memory for each user.

Ids are text or whole numbers. Times are seconds since 1970 or ISO 8601 text. An event that carries an `id` is taken in
once, however often it is sent, as long as its user's window of ids remembers it. What was answered with 200 is kept.
"""

PROBLEMS = {
    400: "The body is not JSON.",
    401: "A key is missing or not known.",
    403: "The key's role does not allow this.",
    404: "The user or the item is not known.",
    413: "The body is too long.",
    415: "The body is not said to be JSON.",
    422: "The request is not as described.",
    503: "More to do than may wait, or the store is out of reach: send it again after Retry-After seconds.",
    504: "It took too long.",
}
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
READING = (401, 403, 422, 503, 504)
SENDING = (400, *READING, 413, 415)


class AnyId(Convertor[str]):
    """An id in an address: any text whatever, slashes and line ends too."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        """As it came."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("id", AnyId())

Id = Annotated[str, Query(min_length=1, max_length=LONGEST)]
Words = Annotated[str, Query(max_length=LONGEST)]
Count = Annotated[int, Query(ge=1)]


def make_app(engine: Engine, batcher: Batcher, config: ServiceConfig, keys: Keys) -> Gate:
    """The service as an ASGI application."""
    counts = Metrics()
    counts.about.labels(engine.trained.name, foretaste.__version__).set(1)
    service = Service(engine, batcher, config, counts)
    quick: dict[tuple[str, str], Quick] = {
        ("POST", "/events"): service.events,
        ("POST", "/recommendations"): service.recommendations,
        ("POST", "/explanations"): service.explained,
    }
    api = FastAPI(
        title="Foretaste",
        version=foretaste.__version__,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(service),
    )
    _add_sending(api, quick, config)
    _add_reading(api, service)
    _add_state(api, service)
    _add_page(api)
    _describe(api)
    for kind in (ForetasteError, Refused, RequestValidationError, HTTPException, Exception):
        api.add_exception_handler(kind, _problem(config))
    return Gate(api, quick, config, keys, counts)


def _add_sending(api: FastAPI, quick: Mapping[tuple[str, str], Quick], config: ServiceConfig) -> None:
    """What takes a body: described here, and answered by the gate before it comes this far."""

    def described(path: str, answer: type, *kinds: type) -> None:
        work = quick["POST", path]

        async def endpoint(request: Request) -> Response:
            return _json(await work(await body_of(request.scope, request.receive, config.body_bytes)))

        refs = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in kinds]
        content = {"application/json": {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}
        about = (work.__doc__ or "").strip()
        api.post(
            path,
            summary=about,
            operation_id=path.strip("/"),
            responses=_answers(answer, *SENDING, 404),
            openapi_extra={"requestBody": {"required": True, "content": content}, **_key("POST", path)},
        )(endpoint)

    described("/events", bodies.EventsAnswer, bodies.EventBody, bodies.EventsBody)
    described("/recommendations", bodies.RecommendAnswer, bodies.RecommendBody)
    described("/explanations", bodies.ExplainAnswer, bodies.ExplainBody)


def _add_reading(api: FastAPI, service: Service) -> None:
    def get(path: str, answer: type, summary: str, *more: int) -> Callable[[Any], Any]:
        return api.get(
            path, summary=summary, responses=_answers(answer, *READING, *more), openapi_extra=_key("GET", path)
        )

    @get("/users/{user:id}", bodies.UserAnswer, "What is held of a user.", 404)
    async def user(user: str) -> Response:
        return _json(await service.user(user))

    @api.delete(
        "/users/{user:id}",
        status_code=204,
        summary="Forget a user.",
        responses=_answers(None, *READING, 404),
        openapi_extra=_key("DELETE", "/users"),
    )
    async def forget(user: str) -> Response:
        await service.forget(user)
        return Response(status_code=204)

    @get("/explanations", bodies.ExplainAnswer, "What the answer for a user rests on.", 404)
    async def explained(user: Id, item: Id | None = None) -> Response:
        return _json(await service.explained_user(user, item))

    @get("/items", bodies.ItemsAnswer, "Items by a piece of their id or title.")
    async def items(q: Words = "", k: Count | None = None) -> Response:
        return _json(await asyncio.to_thread(service.found, q, k))

    @get("/items/{item:id}/similar", bodies.SimilarAnswer, "The items nearest to one.", 404)
    async def similar(item: str, k: Count | None = None) -> Response:
        return _json(await service.similar(item, k))

    @get("/", dict, "What is served.")
    async def about() -> Response:
        return _json(service.about())


def _add_page(api: FastAPI) -> None:
    """What a person looks at. It holds nothing itself, so anybody may have it; what it asks for then needs a key."""
    folder = files("foretaste.serving") / "page"

    def page(path: str, name: str, media: str) -> None:
        text = (folder / name).read_bytes()

        async def endpoint() -> Response:
            return Response(text, media_type=media, headers=PAGE_HEADERS)

        api.get(path, include_in_schema=False)(endpoint)

    page("/page", "index.html", "text/html")
    page("/page/page.css", "page.css", "text/css")
    page("/page/page.js", "page.js", "text/javascript")


def _add_state(api: FastAPI, service: Service) -> None:
    @api.get("/health", summary="Whether the process answers.", responses=_answers(dict, 504))
    async def health() -> Response:
        return _json(b'{"status":"ok"}')

    @api.get("/ready", summary="Whether it can take events: the store answers.", responses=_answers(dict, 503, 504))
    async def ready() -> Response:
        await service.batcher.call(service.engine.store.ping)
        return _json(b'{"status":"ready"}')

    about = {"description": "Counts and times.", "content": {"text/plain": {}}}
    own = {**_answers(None, 401, 403, 504), 200: about}

    @api.get(
        "/metrics",
        summary="Metrics for Prometheus.",
        response_class=Response,
        responses=own,
        openapi_extra=_key("GET", "/metrics"),
    )
    async def told() -> Response:
        return Response(service.metered(), media_type=metrics.MEDIA)


def _lifespan(service: Service) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(_follow(service))
        try:
            yield
        finally:
            following.cancel()
            await asyncio.to_thread(service.batcher.close)  # finishes what waits
            await asyncio.to_thread(service.engine.close)

    return lifespan


async def _follow(service: Service) -> None:
    """Keep the engine's counts where every process can tell them."""
    while True:
        service.follow()
        await asyncio.sleep(1)


def _problem(config: ServiceConfig) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        known = refused(error, config.retry_after) or unexpected()
        body = known.body(request.scope.get("request_id", ""))
        return Response(body, known.status, headers=known.headers, media_type=MEDIA)

    return answer


def _describe(api: FastAPI) -> None:
    """Add to the description what the gate does: the bodies that it reads, and the keys."""
    kinds = (bodies.EventBody, bodies.EventsBody, bodies.RecommendBody, bodies.ExplainBody, bodies.Problem)
    asked = [(kind, "validation") for kind in kinds]
    _, schema = models_json_schema(asked, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    make = api.openapi

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            found = make()
            parts = found.setdefault("components", {})
            parts["schemas"] = {**parts.get("schemas", {}), **schema["$defs"]}
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path in list(found["paths"]):
                if ":id}" in path:
                    found["paths"][path.replace(":id}", "}")] = found["paths"].pop(path)
        assert api.openapi_schema is not None
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]


def _answers(answer: Any, *problems: int) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {} if answer is None else {200: {"model": answer}}
    content = {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return found | {status: {"description": PROBLEMS[status], "content": content} for status in problems}


def _key(method: str, path: str) -> dict[str, Any]:
    assert path not in OPEN
    return {"security": [{"key": []}], "x-role": needed(method, path)}


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
