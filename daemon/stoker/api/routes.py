"""The stable addresses of all services and doors, for routers on other boxes (`stoker up --role router`)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response

from stoker.api.answers import JSONResponse
from stoker.api.facade import DaemonFacade, Snapshot
from stoker.api.requests import flag
from stoker.api.streams import JSON_LINES, EndlessResponse
from stoker.model.door import Door
from stoker.model.state import Route

SIGN_OF_LIFE = 10.0
"""Seconds of silence after which an empty line is sent, so that a reader tells a quiet daemon from none."""
TICK = 0.2
"""Seconds between two looks at least: under load something changes all the time, addresses hardly ever."""


def routes_document(snapshot: Snapshot) -> dict[str, Any]:
    """Where each service and each door listens, and what a router in front of it must know. Pure."""
    return {
        "generation": snapshot.desired.generation if snapshot.routed else 0,
        "routes": [_route(route) for route in snapshot.routes.routes.values()],
        "doors": [_address(door) for door in snapshot.routes.doors],
    }


def routes_answer(request: Request, facade: DaemonFacade, closing: anyio.Event) -> Response:
    """One document, or a stream of them."""
    if flag(request, "follow", default=False):
        return EndlessResponse(route_lines(facade), closing, media_type=JSON_LINES)
    return JSONResponse(routes_document(facade.snapshot()))


def _route(route: Route) -> dict[str, Any]:
    return {
        "service": route.service,
        **_address(route),
        "protocol": route.protocol,
        "timeout": route.timeout,
        "max_queue": route.max_queue,
        "max_body": route.max_body,
        "retry": route.retry,
    }


def _address(place: Route | Door) -> dict[str, Any]:
    return {
        "host": place.host,
        "port": place.port,
        "tls": place.tls is not None,
        "proxy_protocol": place.proxy_protocol,
    }


async def route_lines(facade: DaemonFacade) -> AsyncIterator[bytes]:
    """The document as a JSON line, again whenever it has changed. None before the routes of a first
    configuration are made: what a daemon does not know yet must not empty anybody's table."""
    told: dict[str, Any] = {}
    count = -1
    yield b"\n"
    while True:
        document = routes_document(facade.snapshot())
        if document["generation"] and {**document, "generation": 0} != told:
            told = {**document, "generation": 0}
            yield json.dumps(document, separators=(",", ":")).encode() + b"\n"
        with anyio.move_on_after(SIGN_OF_LIFE) as silence:
            count = await facade.changed(count)
        if silence.cancelled_caught:
            yield b"\n"
        await anyio.sleep(TICK)  # the table follows what has changed
