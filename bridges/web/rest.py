"""REST beside the WebSocket: the FastAPI application.

    /api/v1/publish, request, peers, statistics, traffic, subscribe     with a token (or the open loopback)
    /metrics                                                            likewise
    /healthz, /openapi.json, the pages                                  for everybody who may come in

Bodies are validated by ``models``; every error is a problem document (``problems``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import mesh
from bridges.web import pages
from bridges.web.access import Access
from bridges.web.bounds import Bounds
from bridges.web.counters import Counters
from bridges.web.encoding import jsonable, to_json
from bridges.web.events import EventResponse, EventStream
from bridges.web.hub import Hub
from bridges.web.metrics import CONTENT_TYPE, exposition
from bridges.web.models import (
    Health,
    Pairs,
    PeerModel,
    PublishBody,
    Published,
    ReplyModel,
    RequestBody,
    Traffic,
)
from bridges.web.models import Problem as ProblemModel
from bridges.web.peers import peer_fields
from bridges.web.problems import FAILED, MEDIA_TYPE, Problem, problem_body, status_of
from bridges.web.round_trips import RoundTrips
from bridges.web.scopes import Grant
from bridges.web.traffic import TrafficMeter
from bridges.web.websocket import Sockets
from bridges.web.wire import from_json_value
from mesh.errors import MeshError, NotAuthorized

__all__ = ["Parts", "application"]

_log = logging.getLogger("mesh.web")

DESCRIPTION: Final = """Publish, ask and listen in a mesh over HTTP. `/ws` is the same over a WebSocket.

Send `Authorization: Bearer TOKEN`; `mesh token create` makes tokens, and while there is none, the loopback needs none.
Errors are problem documents (RFC 9457)."""


@dataclass(frozen=True)
class Parts:
    """What the application is made of."""

    node: mesh.Node
    hub: Hub
    access: Access
    bounds: Bounds
    counters: Counters
    sockets: Sockets
    traffic: TrafficMeter
    round_trips: RoundTrips


class _Json(JSONResponse):
    """A value of the mesh as JSON: bytes and what else JSON lacks included."""

    def render(self, content: Any) -> bytes:
        return to_json(content).encode()


def _grant(request: Request) -> Grant:
    grant: Grant | None = request.scope["state"]["grant"]
    if grant is not None:
        return grant
    given = "authorization" in request.headers
    request.app.state.counters.rejected["wrong_token" if given else "not_authenticated"] += 1
    raise Problem(
        401,
        "NotAuthenticated",
        "this token is not known, or counts no longer"
        if given
        else "a token is needed: Authorization: Bearer …",
        {"www-authenticate": 'Bearer error="invalid_token"' if given else "Bearer"},
    )


Granted = Annotated[Grant, Depends(_grant)]

_PROBLEM: Final[dict[str, Any]] = {
    "model": ProblemModel,
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    words = {
        401: "No token, or one that counts no longer",
        403: "The token, a rule or the Origin forbids it",
        404: "Nobody serves this topic",
        413: "Too large",
        422: "A topic, pattern or value is not valid",
        429: "Too many patterns",
        502: "The responder failed or left",
        504: "No reply in time",
    }
    return {status: {"description": words[status], **_PROBLEM} for status in statuses}


def application(parts: Parts) -> FastAPI:
    """The routes of one gateway."""
    app = FastAPI(
        title="zeromesh",
        version=mesh.__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        default_response_class=_Json,
        separate_input_output_schemas=False,
    )
    app.state.counters = parts.counters
    _add_messages(app, parts)
    _add_views(app, parts)
    pages.add(app)
    _add_errors(app, parts.counters)
    _describe(app)
    return app


def _need(allowed: bool, parts: Parts, action: str, topic: str) -> None:
    if not allowed:
        parts.counters.rejected["not_allowed"] += 1
        raise Problem(
            403,
            "NotAuthorized",
            f"this token does not allow to {action} {topic!r}",
            {"www-authenticate": 'Bearer error="insufficient_scope"'},
        )


# -- what clients do ---------------------------------------------------------------------------


def _add_messages(app: FastAPI, parts: Parts) -> None:
    node, counters = parts.node, parts.counters

    @app.post("/api/v1/publish", tags=["messages"], responses=_errors(401, 403, 413, 422))
    async def publish(body: PublishBody, grant: Granted) -> Published:
        """Publish one value on a topic."""
        mesh.Pattern.parse(body.topic)
        # What belongs to the mesh itself nobody may publish: the node says so better.
        _need(body.topic.startswith("@") or grant.allows("publish", body.topic), parts, "publish", body.topic)
        await node.publish(body.topic, from_json_value(body.value), headers=body.headers)
        counters.published += 1
        return Published()

    @app.post(
        "/api/v1/request",
        tags=["messages"],
        response_model=ReplyModel,
        responses=_errors(401, 403, 404, 413, 422, 502, 504),
    )
    async def request(body: RequestBody, grant: Granted) -> Any:
        """Ask whoever serves the topic; the least busy responder's reply."""
        mesh.Pattern.parse(body.topic)
        _need(grant.allows("request", body.topic), parts, "request", body.topic)
        timeout = min(body.timeout or node.config.request_timeout, parts.bounds.request_timeout)
        reply = await node.request_one(
            body.topic, from_json_value(body.value), timeout=timeout, headers=body.headers
        )
        answer = _Json({"value": reply.value, "sender": reply.sender.name})
        counters.requested += 1
        return answer

    @app.get(
        "/api/v1/subscribe",
        tags=["messages"],
        response_class=Response,
        responses={
            200: {
                "description": "Server-sent events `message` and `dropped`, until either side ends it",
                "content": {
                    "text/event-stream": {
                        "schema": {"type": "string"},
                        "example": 'event: message\ndata: {"topic":"home/kitchen/temperature","value":21.5,'
                        '"sender":"kitchen","sequence":0,"timestamp":1700000000.0}\n\n',
                    }
                },
            },
            **_errors(401, 403, 422, 429),
        },
    )
    async def subscribe(
        request: Request,
        grant: Granted,
        pattern: Annotated[str, Query(min_length=1, max_length=256, examples=["home/**"])],
    ) -> Response:
        """Listen to a pattern, as server-sent events."""
        mesh.Pattern.parse(pattern)
        _need(grant.allows_pattern(pattern), parts, "subscribe to", pattern)
        stream = EventStream(parts.hub, parts.bounds, counters, pattern)
        await stream.begin()
        return EventResponse(stream, lambda: parts.access.still(grant, request.scope))


# -- what there is to see ------------------------------------------------------------------------


def _add_views(app: FastAPI, parts: Parts) -> None:
    node = parts.node

    @app.get("/api/v1/peers", tags=["mesh"], response_model=list[PeerModel], responses=_errors(401))
    async def peers(grant: Granted) -> Any:
        """The peers of the gateway's node, now."""
        return _Json([peer_fields(peer) for peer in node.peers.values()])

    @app.get("/api/v1/statistics", tags=["mesh"], response_model=dict[str, Any], responses=_errors(401))
    async def statistics(grant: Granted) -> Any:
        """Everything that the node and its gateway counted."""
        return _Json(_statistics(parts))

    @app.get("/api/v1/traffic", tags=["mesh"], response_model=Traffic, responses=_errors(401, 403))
    async def traffic(grant: Granted) -> Any:
        """Messages by topic, counted while somebody asks. Needs a token that may subscribe to `**`."""
        _need(grant.allows_pattern("**"), parts, "subscribe to", "**")
        return _Json(parts.traffic.look())

    @app.get("/api/v1/round-trips", tags=["mesh"], response_model=Pairs, responses=_errors(401))
    async def round_trips(grant: Granted) -> Any:
        """Round trips between all pairs of nodes: the gateway's own, and those of every daemon while somebody asks."""
        return _Json(parts.round_trips.look())

    @app.get("/healthz", tags=["operation"])
    async def health() -> Health:
        """Whether the gateway answers. Needs no token."""
        return Health(status="ok", node=node.name, peers=len(node.peers))

    @app.get(
        "/metrics",
        tags=["operation"],
        response_class=Response,
        responses={
            200: {
                "content": {"text/plain": {"schema": {"type": "string"}}},
                "description": "Prometheus' text format",
            },
            **_errors(401),
        },
    )
    async def metrics(grant: Granted) -> Response:
        """Everything counted, for Prometheus."""
        sockets = parts.sockets
        text = exposition(
            node,
            parts.counters,
            clients=len(sockets),
            queued=sockets.queued_bytes,
            sent=sockets.sent,
            dropped=sockets.dropped,
        )
        return Response(text, media_type=CONTENT_TYPE)


def _statistics(parts: Parts) -> dict[str, Any]:
    counters, sockets = parts.counters, parts.sockets
    found = parts.node.statistics()
    # ``asdict`` does not copy the read-only mappings of the snapshot.
    numbers = {
        name: getattr(found, name)
        for name in type(found).__dataclass_fields__
        if name not in ("peers", "subscriptions", "bridges")
    }
    return {
        "node": {"id": parts.node.id, "name": parts.node.name, "endpoints": list(parts.node.endpoints)},
        **{name: dict(value) if name.endswith("by_reason") else value for name, value in numbers.items()},
        "peers": [
            {name: jsonable(getattr(peer, name)) for name in type(peer).__dataclass_fields__}
            for peer in found.peers.values()
        ],
        "subscriptions": [
            {name: jsonable(getattr(each, name)) for name in type(each).__dataclass_fields__}
            for each in found.subscriptions
        ],
        "web": {
            "connections": counters.connections,
            "clients": len(sockets),
            "queued_bytes": sockets.queued_bytes,
            "patterns": parts.hub.patterns,
            "sent": sockets.sent,
            "dropped": sockets.dropped,
            "published": counters.published,
            "requested": counters.requested,
            "rejected": dict(counters.rejected),
        },
        "bridges": {name: bridge.plain() for name, bridge in found.bridges.items()},
    }


# -- errors and the description --------------------------------------------------------------------


def _problem(
    status: int, error: str, detail: str, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    return Response(problem_body(status, error, detail, **more), status, headers, media_type=MEDIA_TYPE)


def _add_errors(app: FastAPI, counters: Counters) -> None:
    @app.exception_handler(Problem)
    async def on_problem(_: Request, problem: Problem) -> Response:
        return _problem(problem.status, problem.error, problem.detail, problem.headers)

    @app.exception_handler(MeshError)
    async def on_mesh_error(_: Request, error: MeshError) -> Response:
        if isinstance(error, NotAuthorized):
            counters.rejected["not_allowed"] += 1  # by a rule of the mesh
        return _problem(status_of(error), type(error).__name__, str(error))

    @app.exception_handler(Exception)
    async def on_failure(_: Request, error: Exception) -> Response:
        # Before the answer goes out: a client that hangs up upon it cancels whatever comes after.
        counters.rejected["failed"] += 1
        _log.error("an answer failed", exc_info=error)
        return _problem(500, "Failed", FAILED)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        counters.rejected["mistake"] += 1
        errors = [
            {"where": "/".join(map(str, each["loc"])), "what": each["msg"]} for each in error.errors()[:16]
        ]
        first = f"{errors[0]['where']}: {errors[0]['what']}" if errors else "not valid"
        return _problem(422, "Invalid", first, errors=errors)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # a body that is not even UTF-8
            counters.rejected["mistake"] += 1
            return _problem(
                422, "Invalid", "body: it is not JSON", errors=[{"where": "body", "what": "it is not JSON"}]
            )
        headers = None if error.headers is None else dict(error.headers)
        names = {404: "NotFound", 405: "MethodNotAllowed"}
        return _problem(error.status_code, names.get(error.status_code, "Http"), str(error.detail), headers)


def _describe(app: FastAPI) -> None:
    """The OpenAPI description, made once; bearer tokens (RFC 6750) where a token is needed."""
    document: dict[str, Any] = {}

    def describe() -> dict[str, Any]:
        if document:
            return document
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        made["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "What `mesh token create` printed."}
        }
        for item in made["paths"].values():
            for operation in item.values():
                if "401" in operation["responses"]:
                    operation["security"] = [{"token": []}]
                for response in operation["responses"].values():
                    if MEDIA_TYPE in response.get("content", {}):
                        response["content"].pop("application/json", None)
                if "422" in operation["responses"]:
                    operation["responses"]["422"] = {**_errors(422)[422]}
                    operation["responses"]["422"].pop("model")
        document.update(made)
        return document

    app.openapi = describe  # type: ignore[method-assign]
