"""The small API of a router without a daemon (`stoker up --role router`): what it is, and its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from stoker.api.answers import JSONResponse
from stoker.api.problems import MEDIA_TYPE, plain_problem


def build(status: Callable[[], dict[str, Any]], end: Callable[[], None]) -> Starlette:
    """Return the application. `status` makes the document, `end` begins the end."""

    async def show(request: Request) -> Response:
        return JSONResponse(status())

    async def down(request: Request) -> Response:
        end()
        return JSONResponse({"ok": True, "message": "ending"})

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def other(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        of = status()["daemon"]["of"]
        detail = f"this is only a router, of the daemon at {of}: ask there; here are /v1/status and /v1/down"
        document = plain_problem(error.status_code, error.detail, detail)
        return JSONResponse(document, status_code=error.status_code, media_type=MEDIA_TYPE)

    app = Starlette(
        routes=[
            Route("/v1/status", show),
            Route("/healthz", healthz),
            Route("/v1/down", down, methods=["POST"]),
        ],
        exception_handlers={HTTPException: other},
    )
    app.router.redirect_slashes = False
    app.state.closing = anyio.Event()
    return app
