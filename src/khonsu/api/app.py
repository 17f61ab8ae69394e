"""The ASGI application: the table of operations as routes over a handler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from khonsu.abc.transport import Handler, Request, SupportsAuthentication
from khonsu.api.answers import Refused, answer, answer_json, problem, refused
from khonsu.api.endpoints import Endpoint
from khonsu.api.gate import DoorGate
from khonsu.api.limits import Limits
from khonsu.api.stopping import Stopping
from khonsu.core.operations import OPERATIONS
from khonsu.core.units import format_size
from khonsu.errors import KhonsuError, NotAllowed, NotFound, Unauthenticated, Unavailable
from khonsu.transports.routing import PREFIX
from khonsu.transports.serving import answer as answered

METRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
WRONG_METHOD: Final = 405
HEAD_TOO_LARGE: Final = 431


class App:
    """The API of a handler, to be served by `HTTPListener` or mounted in a server of one's own.

    Args:
        handler: The control plane.
        hosts: The names under which the server is known; None takes any, for where something in front checks it.
        limits: How much anybody may ask.

    """

    def __init__(self, handler: Handler, /, *, hosts: Iterable[str] | None = (), limits: Limits | None = None) -> None:
        """Build the routes."""
        self._handler = handler
        self._limits = limits if limits is not None else Limits()
        self._gate = DoorGate(hosts)
        self._stopping = Stopping()
        self._authenticate = handler.authenticate if isinstance(handler, SupportsAuthentication) else None
        self._starlette = Starlette(routes=self._routes(), exception_handlers=self._exception_handlers())
        # A redirect would answer a request that was not understood.
        self._starlette.router.redirect_slashes = False

    async def stop(self) -> None:
        """End what is being served: reads and streams at once, writes after some time; refuse what comes."""
        await self._stopping.stop(self._limits.stop_seconds_max)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            raw_path = scope.get("raw_path")
            path = raw_path.decode("ascii", "replace") if raw_path else scope["path"]
            below = path.removeprefix(scope.get("root_path", ""))
            try:
                self._check_size(scope)
                credential = self._gate.admit(Headers(scope=scope), below)
            except Refused as error:
                await problem(error.error, status=error.status, headers=error.headers)(scope, receive, send)
                return
            # The path stays as it was sent, so that a name may hold an encoded slash; the endpoints decode it.
            scope = {**scope, "path": path, "state": {**scope.get("state", {}), "credential": credential}}
        await self._starlette(scope, receive, send)

    def _check_size(self, scope: Scope) -> None:
        """Refuse a head that is too large, also where the server took it because it came at one go."""
        most = self._limits.header_bytes_max
        headers = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if headers + len(scope["path"]) + len(scope["query_string"]) > most:
            raise refused(
                HEAD_TOO_LARGE,
                f"the head of the request is larger than {format_size(most)}",
                "Send less of it",
                connection="close",
            )

    def _exception_handlers(self) -> Mapping[Any, Any]:
        return {HTTPException: self._no_route, KhonsuError: self._refused, Exception: self._failed}

    def _routes(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = [
            _without_head(Route(path, endpoint, methods=["GET"]))
            for path, endpoint in (
                ("/healthz", self._healthz),
                ("/readyz", self._readyz),
                ("/metrics", self._metrics),
                (f"{PREFIX}/openapi.json", self._openapi),
            )
        ]
        # Routes are tried in turn, and almost all requests are the one of the agents.
        for operation in sorted(OPERATIONS.values(), key=lambda one: one.name != "node.sync"):
            endpoint = Endpoint(
                operation=operation,
                handler=self._handler,
                limits=self._limits,
                stopping=self._stopping,
                authenticate=self._authenticate,
            )
            routes.append(_without_head(Route(PREFIX + operation.path, endpoint, methods=[operation.method])))
        return routes

    async def _healthz(self, _: HTTPRequest) -> Response:
        return answer_json({"status": "ok"})

    async def _readyz(self, _: HTTPRequest) -> Response:
        if not self._handler.ready():
            return problem(Unavailable("the control plane does not serve yet", hint="Try again in a moment"))
        return answer_json({"status": "ready"})

    async def _metrics(self, request: HTTPRequest) -> Response:
        await self._ensure_operator(request)
        return answer(self._handler.metrics().encode(), media_type=METRICS_TYPE)

    async def _openapi(self, request: HTTPRequest) -> Response:
        # Built when it is first asked for: it looks at every class that travels.
        from khonsu.api.openapi import document_json

        await self._ensure_operator(request)
        return answer(document_json())

    async def _ensure_operator(self, request: HTTPRequest) -> None:
        """Have the handler decide: whoever may ask for the status may also ask for this."""
        credential = request.scope["state"]["credential"]
        await answered(self._handler, Request(operation="system.status", credential=credential))

    async def _no_route(self, request: HTTPRequest, error: Exception) -> Response:
        if self._authenticate is not None:
            try:
                self._authenticate("system.status", request.scope["state"]["credential"])
            except Unauthenticated as stranger:
                return problem(stranger)
            except NotAllowed:
                pass  # known, and may learn that there is nothing here
        path = request.url.path
        methods = sorted(
            method
            for route in self._starlette.routes
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
            for method in route.methods or ()
        )
        if not methods:
            return problem(NotFound("path", path[:200], hint=f"{PREFIX}/openapi.json lists them all"))
        allowed = ", ".join(methods)
        wrong = refused(WRONG_METHOD, f"{path[:200]} does not take {request.method[:20]}", f"It takes {allowed}")
        return problem(wrong.error, status=wrong.status, headers={"Allow": allowed})

    async def _refused(self, _: HTTPRequest, error: KhonsuError) -> Response:
        return problem(error)

    async def _failed(self, _: HTTPRequest, __: Exception) -> Response:
        return problem(
            KhonsuError("the request failed for a reason inside the control plane", hint="Its log has the details")
        )


def build_app(handler: Handler, /, *, hosts: Iterable[str] | None = (), limits: Limits | None = None) -> App:
    """Return the API of a handler as an ASGI application.

    Args:
        handler: The control plane.
        hosts: The names under which the server is known; None takes any, for where something in front checks it.
        limits: How much anybody may ask.

    """
    return App(handler, hosts=hosts, limits=limits)


def _without_head(route: Route) -> Route:
    """Return a route that takes GET only: a HEAD would do all of the work and throw it away."""
    assert route.methods is not None
    route.methods.discard("HEAD")
    return route
