"""The daemon's side of the bridge: starts it when it is needed, asks, starts it again if it has died."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from stoker.errors import StokerError

COMING_UP = 60.0
"""Seconds the bridge gets to reach the cluster."""
PAUSE = 5.0
"""Seconds after a cluster was not reached in which nobody tries again: each attempt loads all of Ray."""


class RayLostError(StokerError):
    """There is no cluster, or the bridge to it has died."""


class ActorLostError(StokerError):
    """Ray says that an actor, or its node, is gone."""


class Link:
    """Questions to one cluster. `log` takes what Ray itself prints."""

    def __init__(self, address: str, namespace: str, log: str, environ: Mapping[str, str]) -> None:
        self._words = [sys.executable, "-P", "-m", "stoker_ray.bridge", address, namespace]
        self._address = address
        self._log = log
        self._environ = dict(environ)
        if address.rpartition(":")[0] in ("127.0.0.1", "localhost"):
            # Ray would look for such a cluster at the box's outer address. The name is Ray's: it is no other
            # system's matter here.
            self._environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        self._joining: asyncio.Task[None] | None = None
        self._failed = ("", 0.0)
        """Why the cluster was not reached, and when."""
        self._serials = itertools.count(1)
        self._open: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.ReadTransport | None = None
        self._reading: asyncio.Task[None] | None = None
        self.box_address = ""
        """This box as the cluster's nodes see it."""

    async def ask(self, do: str, **values: Any) -> Any:
        """What came of it. Raises RayLostError, ActorLostError, StokerError."""
        await self._join()
        return await self._ask({"id": next(self._serials), "do": do, "with": values})

    async def close(self) -> None:
        """Let the bridge end; actors stay."""
        if self._joining is not None and not self._joining.done():
            self._joining.cancel()
            await asyncio.wait([self._joining])
        await self._drop()

    async def _drop(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=2)
            self._reading.cancel()
        if self._transport is not None:
            self._transport.close()
        self._process.kill()
        self._process.wait()
        self._process = None

    async def _join(self) -> None:
        """Return when there is a bridge. One attempt serves all who ask, and goes on when they have given up:
        a cluster that is slow is there for the next one who asks. Raises RayLostError."""
        if self._joining is None or self._joining.done():
            if self._process is not None and self._process.poll() is None:
                return
            why, at = self._failed
            if why and time.monotonic() < at + PAUSE:
                raise RayLostError(why)
            self._joining = asyncio.create_task(self._begin())
            self._joining.add_done_callback(self._begun)
        await asyncio.shield(self._joining)

    def _begun(self, attempt: asyncio.Task[None]) -> None:
        error = None if attempt.cancelled() else attempt.exception()
        self._failed = (str(error), time.monotonic()) if error is not None else ("", 0.0)

    async def _begin(self) -> None:
        if self._process is not None:
            await self._drop()
        self._process = self._spawn()
        reader = asyncio.StreamReader(limit=1 << 26)
        loop = asyncio.get_running_loop()
        hello = self._open[0] = loop.create_future()
        self._transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout
        )
        self._reading = asyncio.create_task(self._read(reader))
        try:
            said = await asyncio.wait_for(hello, COMING_UP)
        except TimeoutError:
            said = {"error": f"no answer within {COMING_UP:.0f} s"}
        if "error" in said:
            await self._drop()
            raise RayLostError(
                f"cannot reach a Ray cluster at {self._address}: {said['error']}; start one with "
                "`ray start --head` (this box must be a node of it), or correct `ray.address`"
            )
        self.box_address = said["value"]["address"]

    def _spawn(self) -> subprocess.Popen[bytes]:
        os.makedirs(os.path.dirname(self._log), mode=0o750, exist_ok=True)
        pipe = subprocess.PIPE
        with open(self._log, "ab") as log:
            return subprocess.Popen(
                self._words,
                stdin=pipe,
                stdout=pipe,
                stderr=log,
                env=self._environ,
                start_new_session=True,
            )

    async def _ask(self, request: dict[str, Any]) -> Any:
        answer = self._open[request["id"]] = asyncio.get_running_loop().create_future()
        try:
            if self._process is None or self._process.stdin is None:
                raise RayLostError("the bridge to Ray was closed")
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            said = await answer
        except (BrokenPipeError, ValueError) as error:
            raise RayLostError("the bridge to Ray has died; it is started again") from error
        finally:
            self._open.pop(request["id"], None)
        if "lost" in said:
            raise ActorLostError(said["lost"])
        if "away" in said:
            raise RayLostError(f"the Ray cluster does not answer: {said['away']}")
        if "error" in said:
            raise StokerError(f"Ray: {said['error']}")
        return said["value"]

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            said = json.loads(line)
            answer = self._open.pop(said.get("id", -1), None)
            if answer is not None and not answer.done():
                answer.set_result(said)
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(RayLostError(f"the bridge to Ray has died; see {self._log}"))
