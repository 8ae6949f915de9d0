"""The API as a Starlette application around a DaemonFacade."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stoker.api.answers import JSONResponse
from stoker.api.endpoints import Endpoints
from stoker.api.facade import DaemonFacade
from stoker.api.openapi import ENDPOINTS, Endpoint
from stoker.api.problems import MEDIA_TYPE, plain_problem, problem
from stoker.errors import StokerError

AT_ONCE = {"openapi", "plugins", "listen", "reexec", "down", "events", "live", "history", "routes", "reload"}
"""What of /v1/ a daemon that has just begun answers before it knows its services."""
OF_LOAD = {"status", "metrics", "explain"}
"""What tells the load, up to the moment it is asked."""
_Answer = Callable[[Request], Awaitable[Response]]


def build(facade: DaemonFacade) -> Starlette:
    """Return the application; `app.state.closing` ends its endless answers when set."""
    endpoints = Endpoints(facade)
    app = Starlette(
        routes=[
            Route(entry.path, _answer(facade, endpoints, entry), methods=[entry.method], name=entry.name)
            for entry in ENDPOINTS
        ],
        exception_handlers={StokerError: _stoker_error, HTTPException: _http_error, Exception: _bug},
    )
    app.router.redirect_slashes = False  # a path is what it is; a redirect would name a host of the sender's
    app.state.closing = endpoints.closing
    return app


def _answer(facade: DaemonFacade, endpoints: Endpoints, entry: Endpoint) -> _Answer:
    answer: _Answer = getattr(endpoints, entry.name)
    waits = entry.path.startswith("/v1/") and entry.name not in AT_ONCE

    async def prepared(request: Request) -> Response:
        if waits:
            await endpoints.settling.begun()
        if entry.name in OF_LOAD:
            await facade.measure()
        return await answer(request)

    return prepared


async def _stoker_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StokerError)
    status, document = problem(error)
    return JSONResponse(document, status_code=status, media_type=MEDIA_TYPE)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    document = plain_problem(
        error.status_code, error.detail, f"{where}: {error.detail}; see /v1/openapi.json"
    )
    return JSONResponse(document, status_code=error.status_code, media_type=MEDIA_TYPE, headers=error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    # The server logs the traceback: Starlette raises the error again once this answer is on its way.
    detail = f"a bug in the daemon: {type(error).__name__}; its log has the details"
    return JSONResponse(plain_problem(500, "Internal error", detail), status_code=500, media_type=MEDIA_TYPE)
