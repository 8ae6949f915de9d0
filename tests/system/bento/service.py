"""A BentoML project for tests: one entry and a service of each kind."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import bentoml
from bentoml.exceptions import BentoMLException
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_GATHERED = threading.Barrier(2)


def _hold(started: str, until: str) -> None:
    """Return when the file `until` is there; say by the file `started` that it runs."""
    Path(started).write_text("")
    deadline = time.monotonic() + 30
    while not Path(until).exists():
        if time.monotonic() > deadline:
            raise BentoMLException("nobody let go")
        time.sleep(0.01)


@bentoml.service(
    envs=[
        {"name": "STAGE", "value": "first by code"},
        {"name": "FIRST_ONLY", "value": "1"},
        {"name": "AT_BUILD", "value": "no", "stage": "build"},
    ],
    labels={"team": "text"},
)
class First:
    @bentoml.api
    def environment(self) -> dict:
        return {**os.environ, "pid": os.getpid()}


@bentoml.service(resources={"cpu": "100m"}, workers=1, traffic={"timeout": 20})
class Middle:
    @bentoml.api
    def double(self, number: int) -> int:
        return 2 * number

    @bentoml.api
    def who(self) -> dict:
        return {"pid": os.getpid(), "replica": os.environ["STOKER_REPLICA"]}

    @bentoml.api
    def gather(self) -> bool:
        """True only if two requests are inside one process at a time."""
        _GATHERED.wait(10)
        return True

    @bentoml.api
    def hold(self, started: str, until: str) -> str:
        _hold(started, until)
        return os.environ["STOKER_REPLICA"]


async def _hello(request: Request) -> JSONResponse:
    return JSONResponse({"hello": request.path_params["name"]})


@bentoml.service(path_prefix="/v1")
@bentoml.asgi_app(Starlette(routes=[Route("/{name}", _hello)]), path="/hello")
class Mounted:
    @bentoml.api
    def shout(self, text: str) -> str:
        return text.upper()

    @bentoml.api
    def hold(self, started: str, until: str) -> str:
        _hold(started, until)
        return "late"


@bentoml.service(cmd=[sys.executable, "page.py", "8000"], endpoints={"livez": "/health"}, workers=1)
class Page:
    pass


@bentoml.service
class Jobs:
    @bentoml.task
    def count(self, up_to: int) -> int:
        return sum(range(up_to + 1))


@bentoml.service(envs=[{"name": "STAGE", "value": "entry by code"}, {"name": "TOKEN"}])
class Root:
    first = bentoml.depends(First)
    middle = bentoml.depends(Middle)
    mounted = bentoml.depends(Mounted)
    page = bentoml.depends(Page)
    jobs = bentoml.depends(Jobs)

    @bentoml.api
    async def ask(self, number: int) -> dict:
        return {
            "double": await self.middle.to_async.double(number),
            "shout": await self.mounted.to_async.shout("hey"),
            "first": await self.first.to_async.environment(),
            "own": dict(os.environ),
        }
